// SPDX-License-Identifier: MIT OR Apache-2.0
//! Passwords, tokens and tickets are nowhere to be seen: not in a list of processes, not in
//! messages of any level, not in JSON, and not in what is left in files.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use support::TestResult;
use support::installation::{Installation, VM, shows, succeed};
use support::process::Daemon;
use support::tools::QEMU_IMG;

use crate::Test;
use crate::jobs::{Job, site_with_disk};

pub(crate) const TESTS: &[Test] = &[
    ("no_secret_of_an_upload_is_shown", || copy(Job::Upload)),
    ("no_secret_of_a_download_is_shown", || copy(Job::Download)),
    ("no_secret_of_a_server_is_shown", serve),
    ("no_secret_of_a_backup_is_shown", back_up),
];

/// All that can be said is said.
const ALL: &str = "trace,hyper=trace,rustls=trace";

/// A `qemu-img` that waits for the pipe `go`, with the file that says so, before it does its work.
fn patient_qemu_img(site: &Installation) -> TestResult<String> {
    succeed(Command::new("mkfifo").arg(site.path("go")).output()?.into())?;
    let real = QEMU_IMG.path().display().to_string();
    let wait = format!("[ \"$1\" = convert ] && : > begun && read -r go < go\nexec {real} \"$@\"");
    site.stand_in("qemu-img", &wait)
}

fn copy(job: Job) -> TestResult {
    let site = site_with_disk()?;
    let mut command = job.command(&site);
    command.args(["-vv", "--output", "json"]);
    let seen = watch(&site, &mut command)?;
    assert!(seen.contains("\"description\":"), "the progress is told: {seen}");
    Ok(())
}

fn serve() -> TestResult {
    let site = site_with_disk()?;
    let mut command = site.imageio_nbd(&["-vv", "--stats-json", "figures.json", "disk=there", "config=lab"]);
    command.args(["--run", r#"qemu-img convert -n -f raw -O raw disk.img "$uri""#]);
    watch(&site, &mut command)?;
    assert!(site.path("figures.json").metadata()?.len() > 0);
    Ok(())
}

fn back_up() -> TestResult {
    let site = site_with_disk()?;
    site.engine.attach_disk(&site.vm(), &site.disk()?.id)?;
    let mut command = site.imageio_nbd(&["backup", VM, "backups", "-c", "lab", "-vv"]);
    watch(&site, &mut command)?;
    assert!(site.path("backups/manifest.json").exists());
    Ok(())
}

/// Runs a command with all messages, and has a look at its processes while data is about to flow.
/// Returns what it has said.
fn watch(site: &Installation, command: &mut Command) -> TestResult<String> {
    let path = patient_qemu_img(site)?;
    command.env("PATH", path).env("RUST_LOG", ALL).stdin(Stdio::null());
    let mut process = Command::new("sh");
    process.args(["-c", r#"exec "$@" > out"#, "sh"]).arg(command.get_program()).args(command.get_args());
    process.current_dir(site.path(""));
    for (name, value) in command.get_envs() {
        value.map(|value| process.env(name, value));
    }
    let mut process = Daemon::spawn(&mut process)?;
    process.retry(|| fs::metadata(site.path("begun")))?;
    let secrets = site.secrets();
    assert!(secrets.len() >= 3, "a password, a token and a ticket are expected");
    let shown = shown_by_proc(process.id())?;
    assert!(
        shown.contains("qemu-img") && shown.contains(ALL),
        "neither command lines nor environments: {shown}"
    );
    assert_absent(&secrets, &shown, "/proc")?;
    fs::write(site.path("go"), "go\n")?;
    let status = process.wait()?;
    let said = process.said().join("\n");
    assert!(status.success(), "{status} {said}");
    assert!(said.contains("POST /imagetransfers: 20"), "{said}");
    let out = fs::read_to_string(site.path("out"))?;
    assert_absent(&secrets, &said, "what is said")?;
    assert_absent(&secrets, &out, "what is printed")?;
    for kept in ["figures.json", "backups"] {
        assert_files_have_none(&secrets, &site.path(kept))?;
    }
    Ok(out)
}

/// Of a process and all below it: their command lines, and their environments.
fn shown_by_proc(process: u32) -> TestResult<String> {
    let mut shown = String::new();
    let mut left = vec![process];
    while let Some(id) = left.pop() {
        let dir = Path::new("/proc").join(id.to_string());
        for file in ["cmdline", "environ"] {
            shown.push_str(&String::from_utf8_lossy(&fs::read(dir.join(file))?));
            shown.push('\n');
        }
        for task in fs::read_dir(dir.join("task"))? {
            let children = fs::read_to_string(task?.path().join("children"))?;
            left.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
    }
    Ok(shown)
}

fn assert_absent(secrets: &[String], text: &str, place: &str) -> TestResult {
    if !secrets.iter().any(|secret| shows(text, secret)) {
        return Ok(());
    }
    let at = secrets.iter().find_map(|secret| text.find(secret.as_str())).unwrap_or_default();
    let before: String = text[..at].chars().rev().take(120).collect::<Vec<_>>().into_iter().rev().collect();
    Err(format!("a secret is in {place}, after {before:?}, or in a dump").into())
}

/// Whatever is there.
fn assert_files_have_none(secrets: &[String], path: &Path) -> TestResult {
    if path.is_dir() {
        let entries: io::Result<Vec<_>> = fs::read_dir(path)?.collect();
        return entries?.iter().try_for_each(|entry| assert_files_have_none(secrets, &entry.path()));
    }
    match fs::read(path) {
        Ok(bytes) => assert_absent(secrets, &String::from_utf8_lossy(&bytes), &path.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}
