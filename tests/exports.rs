// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several transfers in one `imageio-nbd`: real clients at all of them, one that fails while the
//! others go on, and what can't work.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use fake_imageio::{Builder, DEFAULT_TICKET, FakeServer, Fault, Gate, Op, What};
use libtest_mimic::{Arguments, Trial};
use nbd::client::{NbdClient, handshake};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::door::built;
use support::image::{SIZE, guest_disk};
use support::process::{Daemon, PATIENCE};
use support::run::{Ended, imageio_nbd};
use support::tools::{NBDCOPY, NBDINFO, QEMU_IMG, Tool, trial};
use tempfile::TempDir;

type Test = (&'static str, &'static [Tool], fn());

const TESTS: &[Test] = &[
    ("nbdinfo_lists_them_all", &[NBDINFO], listed),
    ("nbdcopy_and_qemu_img_upload_and_read_back_at_a_time", &[NBDCOPY, QEMU_IMG], copied),
    ("one_transfer_fails_and_the_other_finishes", &[NBDCOPY], one_fails),
    ("each_that_may_be_incomplete_is_told_of_and_the_others_are_flushed", &[], flushed_in_the_end),
    ("all_are_flushed_side_by_side", &[], side_by_side),
    ("the_command_finds_the_first_by_no_name_and_the_others_by_theirs", &[NBDINFO], run_command),
    ("what_stands_before_the_first_is_for_all", &[], common_parameters),
    ("none_is_served_if_one_can_not_be_opened", &[], one_can_not_be_opened),
    ("a_daemon_is_none_before_all_are_open", &[], daemon),
    ("what_can_not_work_is_told_in_one_line", &[], refused),
    ("standard_input_has_the_url_of_one", &[], standard_input),
];

fn main() -> ExitCode {
    let trials = TESTS.iter().map(|&(name, tools, run)| {
        trial(name, tools, move || {
            run();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect::<Vec<Trial>>()).exit_code()
}

/// A server with a ticket of its own, as each transfer has one.
fn builder() -> Builder {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    FakeServer::builder().ticket(format!("{DEFAULT_TICKET}-{}", COUNT.fetch_add(1, Relaxed)))
}

fn fake() -> FakeServer {
    builder().size(SIZE).start().unwrap()
}

/// The parameters of the exports `sda`, `sdb` …
fn parameters(servers: &[&FakeServer]) -> Vec<String> {
    let exports = servers.iter().zip(["sda", "sdb", "sdc"]);
    exports.flat_map(|(server, name)| [format!("export={name}"), format!("url={}", server.url())]).collect()
}

/// `imageio-nbd` with these exports, ready for clients.
struct Served {
    process: Daemon,
    dir: TempDir,
}

impl Served {
    fn start(before: &[&str], servers: &[&FakeServer]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(built("imageio-nbd"));
        command.args(["-f", "-v", "-U", "sock"]).args(before).args(parameters(servers));
        let mut process = Daemon::spawn(command.current_dir(dir.path())).unwrap();
        process.wait_for_line(|line| line.contains("listening: ").then_some(())).unwrap();
        Self { process, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn uri(name: &str) -> String {
        format!("nbd+unix:///{name}?socket=sock")
    }

    /// A real client, which ends within a minute.
    fn command(&self, tool: Tool, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.arg("60").arg(tool.path()).args(arguments).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn client(&self, tool: Tool, arguments: &[&str]) -> Ended {
        self.command(tool, arguments).output().unwrap().into()
    }

    /// Clients that run at a time.
    fn clients(&self, clients: &[(Tool, &[&str])]) -> Vec<Ended> {
        let running: Vec<_> =
            clients.iter().map(|(tool, arguments)| self.command(*tool, arguments).spawn().unwrap()).collect();
        running.into_iter().map(|client| client.wait_with_output().unwrap().into()).collect()
    }

    fn connect(&self, name: &str) -> NbdClient<UnixStream> {
        let mut stream = UnixStream::connect(self.path("sock")).unwrap();
        let export = handshake(&mut stream, name.as_bytes()).unwrap();
        NbdClient::new(stream, &export)
    }

    /// Ends it in good order. Its exit status, and what it has said.
    fn finish(mut self) -> (Option<i32>, Vec<String>) {
        let status = self.process.terminate().unwrap();
        (status.code(), self.process.said().to_vec())
    }
}

/// The errors among its messages.
fn errors(said: &[String]) -> Vec<&str> {
    let mut errors: Vec<_> =
        said.iter().filter_map(|line| line.strip_prefix("imageio-nbd: error: ")).collect();
    errors.sort_unstable();
    errors
}

#[track_caller]
fn assert_closed(servers: &[&FakeServer]) {
    for server in servers {
        assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
        assert_eq!(server.log().lost_unflushed(), 0);
    }
}

fn listed() {
    let small =
        builder().size(1 << 20).read_only(true).dirty(vec![0..65536, 131_072..196_608]).start().unwrap();
    let large = fake();
    let served = Served::start(&["-r"], &[&large, &small]);
    let listed = served.client(NBDINFO, &["--list", "--json", &Served::uri("")]);
    assert_eq!(listed.code, 0, "{listed:?}");
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    let told: Vec<_> = listed["exports"].as_array().unwrap().iter().collect();
    let names_and_sizes: Vec<_> =
        told.iter().map(|export| (&export["export-name"], &export["export-size"])).collect();
    assert_eq!(names_and_sizes, [(&json!("sda"), &json!(SIZE)), (&json!("sdb"), &json!(1 << 20))]);
    let contexts = |index: usize| told[index]["contexts"].to_string();
    assert!(contexts(1).contains("imageio:dirty") && !contexts(0).contains("imageio:dirty"), "{listed}");
    let size = |name: &str| served.client(NBDINFO, &["--size", &Served::uri(name)]).out;
    assert_eq!((size("").trim(), size("sdb").trim()), (&*SIZE.to_string(), "1048576"));
    let unknown = served.client(NBDINFO, &["--size", &Served::uri("sdc")]);
    assert!(unknown.code != 0 && unknown.err.contains("no export named 'sdc'"), "{unknown:?}");
    assert_eq!(served.finish().0, Some(0));
    assert_closed(&[&large, &small]);
}

fn copied() {
    let servers = [fake(), fake()];
    let all = servers.each_ref();
    let served = Served::start(&[], &all);
    fs::write(served.path("a.img"), guest_disk(1)).unwrap();
    fs::write(served.path("b.img"), guest_disk(2)).unwrap();
    let (a, b) = (Served::uri("sda"), Served::uri("sdb"));
    let uploads = served.clients(&[
        (NBDCOPY, &["--flush", "--connections=4", "a.img", &a]),
        (QEMU_IMG, &["convert", "-n", "-W", "-f", "raw", "-O", "raw", "b.img", &b]),
    ]);
    assert!(uploads.iter().all(|upload| upload.code == 0), "{uploads:?}");
    let downloads = served.clients(&[
        (QEMU_IMG, &["convert", "-W", "-f", "raw", "-O", "raw", &a, "a.back"]),
        (NBDCOPY, &[&b, "b.back"]),
    ]);
    assert!(downloads.iter().all(|download| download.code == 0), "{downloads:?}");
    for (name, seed) in [("a.back", 1), ("b.back", 2)] {
        assert!(fs::read(served.path(name)).unwrap() == guest_disk(seed), "{name} is another disk");
    }
    assert_eq!(served.finish().0, Some(0));
    assert_closed(&all);
    for (server, seed) in servers.iter().zip([1, 2]) {
        assert!(server.contents().unwrap() == guest_disk(seed), "disk {seed}");
    }
}

fn one_fails() {
    let servers = [fake(), fake()];
    let all = servers.each_ref();
    servers[0].fault(Fault::on(Op::Put).nth(2).every().then(What::Status { status: 403, text: "no".into() }));
    let served = Served::start(&["reconnect-timeout=0"], &all);
    fs::write(served.path("a.img"), guest_disk(1)).unwrap();
    fs::write(served.path("b.img"), guest_disk(2)).unwrap();
    let (a, b) = (Served::uri("sda"), Served::uri("sdb"));
    let uploads =
        served.clients(&[(NBDCOPY, &["--flush", "a.img", &a][..]), (NBDCOPY, &["--flush", "b.img", &b])]);
    assert!(uploads[0].code != 0 && uploads[1].code == 0, "{uploads:?}");
    // It goes on to serve the other.
    let back = served.client(NBDCOPY, &[&b, "b.back"]);
    assert_eq!(back.code, 0, "{back:?}");
    assert!(fs::read(served.path("b.back")).unwrap() == guest_disk(2));
    let (code, said) = served.finish();
    let told: Vec<_> =
        errors(&said).into_iter().filter(|error| error.contains("may be incomplete")).collect();
    assert_eq!(code, Some(1), "{said:?}");
    assert!(
        matches!(told[..], [line] if line.starts_with("export 'sda': the disk may be incomplete: ")),
        "{told:?}"
    );
    assert_closed(&[&servers[1]]);
    assert!(servers[1].contents().unwrap() == guest_disk(2));
}

fn flushed_in_the_end() {
    let servers = [fake(), fake(), fake()];
    let all = servers.each_ref();
    for server in [&servers[0], &servers[2]] {
        server.fault(Fault::on(Op::Flush).every().then(What::Status { status: 500, text: "no luck".into() }));
    }
    let served = Served::start(&["replay-buffer=0"], &all);
    for name in ["sda", "sdb", "sdc"] {
        served.connect(name).write_all(&[7; 4096]).unwrap();
    }
    let (code, said) = served.finish();
    let told = errors(&said);
    assert_eq!((code, told.len()), (Some(1), 2), "{said:?}");
    assert!(told[0].starts_with("export 'sda': the disk may be incomplete: "), "{told:?}");
    assert!(told[1].starts_with("export 'sdc': the disk may be incomplete: "), "{told:?}");
    assert_closed(&[&servers[1]]);
    assert_eq!(servers[1].contents().unwrap()[..4096], [7; 4096]);
}

/// Each flush waits until both are under way.
fn side_by_side() {
    let servers = [fake(), fake()];
    let all = servers.each_ref();
    let gate = Gate::new();
    for server in all {
        server.fault(Fault::on(Op::Flush).then(What::Block(gate.clone())));
    }
    let served = Served::start(&[], &all);
    for name in ["sda", "sdb"] {
        served.connect(name).write_all(&[7; 512]).unwrap();
    }
    served.process.signal(Signal::SIGTERM).unwrap();
    assert!(gate.wait_reached(2, PATIENCE));
    gate.open();
    let Served { mut process, dir: _dir } = served;
    assert!(process.wait().unwrap().success());
    assert_closed(&all);
}

fn run_command() {
    let servers = [builder().size(512 << 10).start().unwrap(), fake()];
    let dir = tempfile::tempdir().unwrap();
    let run = r#"echo "name=$exportname"; nbdinfo --size "$uri"
                 nbdinfo --size "nbd+unix:///sdb?socket=$unixsocket""#;
    let arguments = [vec!["--run".to_owned(), run.to_owned()], parameters(&servers.each_ref())].concat();
    let ended = imageio_nbd(dir.path(), &arguments).unwrap();
    assert_eq!((ended.code, ended.out), (0, format!("name=\n{}\n{SIZE}\n", 512 << 10)));
}

fn common_parameters() {
    let servers = [fake(), fake()];
    let dir = tempfile::tempdir().unwrap();
    let before = ["size=1M", "--run", "exit 9"].map(str::to_owned);
    let ended = imageio_nbd(dir.path(), &[&before[..], &parameters(&servers.each_ref())].concat()).unwrap();
    assert_eq!(ended.code, 9, "{ended:?}");
    for server in &servers {
        // A size that was given isn't asked for.
        assert_eq!(server.log().of(Op::Get).count(), 0);
    }
}

/// Runs it with something that is refused. The command is not reached.
fn refusal(dir: &Path, arguments: &[&str]) -> String {
    let ended = imageio_nbd(dir, &[&["--run", "echo served"], arguments].concat()).unwrap();
    assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{ended:?}");
    assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
    assert!(!ended.err.contains(DEFAULT_TICKET), "{ended:?}");
    ended.err.strip_prefix("imageio-nbd: error: ").unwrap().trim_end().to_owned()
}

fn one_can_not_be_opened() {
    let (good, bad) = (fake(), fake());
    bad.cancel_ticket();
    let dir = tempfile::tempdir().unwrap();
    let given = parameters(&[&good, &bad]);
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    let error = refusal(dir.path(), &given);
    assert!(error.starts_with("export 'sdb': ") && error.contains("403"), "{error}");
    let error = refusal(dir.path(), &["export=sda", given[1], "export=sdb", "url=+missing"]);
    assert!(
        error.starts_with("export 'sdb': cannot read the transfer URL from /")
            && error.contains("No such file"),
        "{error}"
    );
    // Neither would know of the other's changes.
    let error = refusal(dir.path(), &["export=sda", given[1], "export=sdb", given[1]]);
    assert_eq!(error, "export 'sdb': it is the transfer of export 'sda': give each disk its own");
    assert_closed(&[&good, &bad]);
}

fn daemon() {
    let (good, bad) = (fake(), fake());
    bad.cancel_ticket();
    let dir = tempfile::tempdir().unwrap();
    let arguments = [vec!["-U".to_owned(), "sock".to_owned()], parameters(&[&good, &bad])].concat();
    let ended = imageio_nbd(dir.path(), &arguments).unwrap();
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    assert!(!dir.path().join("sock").exists());
    assert_closed(&[&good]);
}

fn refused() {
    let dir = tempfile::tempdir().unwrap();
    let two = ["export=sda", "url=http://h/images/a", "export=sdb", "url=http://h/images/b"];
    let with = |more: &[&str]| refusal(dir.path(), &[more, &two].concat());
    assert_eq!(
        with(&["-e", "disk"]),
        "-e: it names the only disk, and export= each of several: leave out -e"
    );
    assert_eq!(
        with(&["url=http://h/images/c"]),
        "url: before the first export= stands what is for all: put each url= or disk= behind its export="
    );
    assert_eq!(
        with(&["export=sdb", "url=http://h/images/c"]),
        "export: 'sdb' is the name of another one: give each its own"
    );
    assert!(with(&["export=sdc"]).starts_with("export 'sdc': url is missing: "));
    assert!(
        with(&["export=sdc", "url=u", "size=ten"]).starts_with("export 'sdc': size: 'ten' is not a size")
    );
    let url = format!("export=https://h/images/{DEFAULT_TICKET}");
    assert_eq!(refusal(dir.path(), &[&url]), "export: a name is expected, not a URL");
    for command in ["info", "checksum"] {
        let ended = imageio_nbd(dir.path(), &[&[command][..], &two].concat()).unwrap();
        assert_eq!(
            (ended.code, ended.err.as_str()),
            (
                1,
                "imageio-nbd: error: export: one transfer is expected here: only imageio-nbd by itself serves several\n"
            )
        );
    }
}

fn standard_input() {
    let (server, dir) = (fake(), tempfile::tempdir().unwrap());
    let error = refusal(dir.path(), &["export=sda", "url=-", "export=sdb", "url=-"]);
    assert_eq!(error, "url: standard input has the URL of one transfer: use url=+FILE for the others");
    let url = format!("url={}", fake().url());
    let single = ["-s", "export=sda", &url, "export=sdb", "url=-"];
    let ended = imageio_nbd(dir.path(), &single).unwrap();
    assert!(ended.err.contains("url=-: standard input is the NBD client's with -s"), "{ended:?}");
    let other = fake();
    let mut command = Command::new(built("imageio-nbd"));
    command.args(["--run", "exit 9", "export=sda", &format!("url={}", other.url()), "export=sdb", "url=-"]);
    let mut process = command.stdin(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all((server.url() + "\n").as_bytes()).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(9));
}
