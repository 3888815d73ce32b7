// SPDX-License-Identifier: MIT OR Apache-2.0
//! The image and the Job of docs/containers.md. There is no container runtime here: what the
//! Containerfile installs is put into a root directory, and what the Job says of its container is
//! done by namespaces.

use std::fs;
use std::path::Path;

use fake_engine::{DEFAULT_PASSWORD, DEFAULT_USER};
use libtest_mimic::Trial;
use support::image::guest_disk;
use support::installation::{Installation, STORAGE_DOMAIN};
use support::root::{Root, User};
use support::run::Ended;
use yaml_rust2::{Yaml, YamlLoader};

use crate::{Packages, run};

const CONTAINERFILE: &str = include_str!("../../../packaging/container/Containerfile");
const JOB: &str = include_str!("../../../packaging/kubernetes/upload-job.yaml");

/// Of what is written, without running it.
pub(crate) fn lints() -> [Trial; 3] {
    let lint = |name: &str, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    [
        lint("the_image_is_nobodys_and_runs_the_program", the_image_is_nobodys),
        lint("the_job_asks_for_no_rights", the_job_asks_for_no_rights),
        lint("the_job_has_the_password_in_a_file_and_nowhere_else", the_password_is_in_a_file),
    ]
}

/// The instructions of the Containerfile, each on one line.
fn instructions() -> Vec<(&'static str, String)> {
    let mut instructions: Vec<(&str, String)> = Vec::new();
    let mut goes_on = false;
    for line in CONTAINERFILE.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let text = line.trim_end_matches('\\').trim();
        match instructions.last_mut().filter(|_| goes_on) {
            Some((_, before)) => *before = format!("{before} {text}"),
            None => {
                let (name, rest) = text.split_once(' ').unwrap();
                instructions.push((name, rest.to_owned()));
            }
        }
        goes_on = line.ends_with('\\');
    }
    instructions
}

fn instruction(name: &str) -> String {
    let mut found = instructions().into_iter().filter(|(instruction, _)| *instruction == name);
    let (_, text) = found.next().unwrap_or_else(|| panic!("there is no {name}"));
    assert!(found.next().is_none(), "there is one {name}");
    text
}

/// Returns the packages of Debian that the image gets.
fn debian_packages() -> Vec<String> {
    let run = instruction("RUN");
    let install = run.split("&&").find(|command| command.contains(" install ")).unwrap();
    let words = install.split_whitespace().skip_while(|word| *word != "install").skip(1);
    words.filter(|word| !word.starts_with("--") && !word.starts_with('/')).map(str::to_owned).collect()
}

fn user_id() -> u32 {
    let user = instruction("USER");
    let (user, group) = user.split_once(':').unwrap();
    assert_eq!(user, group);
    user.parse().expect("a number, so that Kubernetes can tell that it isn't root")
}

fn the_image_is_nobodys() {
    assert!(user_id() > 1000);
    assert_eq!(instruction("ENTRYPOINT"), r#"["/usr/bin/imageio-nbd"]"#);
    let run = instruction("RUN");
    assert!(run.contains("--no-install-recommends") && run.contains("rm -rf /var/lib/apt/lists/*"), "{run}");
    let base = instruction("FROM");
    assert!(base.contains(':') && !base.ends_with(":latest"), "the base is of some version: {base}");
    assert_eq!(debian_packages(), ["ca-certificates", "libnbd-bin", "qemu-utils"]);
}

fn job() -> Yaml {
    let mut documents = YamlLoader::load_from_str(JOB).unwrap();
    let job = documents.remove(0);
    assert!(documents.is_empty(), "one disk, one Job");
    job
}

fn pod() -> Yaml {
    job()["spec"]["template"]["spec"].clone()
}

fn container() -> Yaml {
    let containers = pod()["containers"].as_vec().unwrap().clone();
    let [container] = &containers[..] else { panic!("{containers:?}") };
    container.clone()
}

fn the_job_asks_for_no_rights() {
    let (job, pod, container) = (job(), pod(), container());
    assert_eq!((job["apiVersion"].as_str(), job["kind"].as_str()), (Some("batch/v1"), Some("Job")));
    assert_eq!(pod["restartPolicy"].as_str(), Some("Never"));
    let of_pod = &pod["securityContext"];
    assert_eq!(of_pod["runAsNonRoot"].as_bool(), Some(true));
    for id in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(of_pod[id].as_i64(), Some(user_id().into()), "{id}");
    }
    assert_eq!(of_pod["seccompProfile"]["type"].as_str(), Some("RuntimeDefault"));
    assert_eq!(pod["automountServiceAccountToken"].as_bool(), Some(false));
    for none in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod[none].is_badvalue(), "{none}");
    }
    let of_container = &container["securityContext"];
    assert_eq!(of_container["allowPrivilegeEscalation"].as_bool(), Some(false));
    assert_eq!(of_container["readOnlyRootFilesystem"].as_bool(), Some(true));
    assert_eq!(of_container["capabilities"]["drop"][0].as_str(), Some("ALL"));
    assert!(of_container["privileged"].is_badvalue() && of_container["capabilities"]["add"].is_badvalue());
    // The engine may take five minutes to finish a transfer.
    assert!(pod["terminationGracePeriodSeconds"].as_i64().unwrap() > 300);
    assert!(container["command"].is_badvalue(), "the image says which program");
}

/// Returns the path of the volume of this name, and its source.
fn volume(name: &str) -> (String, Yaml) {
    let named = |list: &Yaml| {
        let found = list.as_vec().unwrap().iter().find(|entry| entry["name"].as_str() == Some(name)).cloned();
        found.unwrap_or_else(|| panic!("{name} is missing"))
    };
    let mount = named(&container()["volumeMounts"]);
    let may_write = mount["readOnly"].as_bool() != Some(true);
    assert_eq!(may_write, name == "tmp", "{name}: only /tmp is written to");
    (mount["mountPath"].as_str().unwrap().to_owned(), named(&pod()["volumes"]))
}

fn arguments() -> Vec<String> {
    let arguments = container()["args"].as_vec().unwrap().clone();
    arguments.iter().map(|argument| argument.as_str().unwrap().to_owned()).collect()
}

fn the_password_is_in_a_file() {
    let (directory, password) = volume("password");
    assert!(password["secret"]["secretName"].as_str().is_some());
    // YAML 1.1, which Kubernetes reads, has octal numbers; to this parser, it is a decimal one.
    assert_eq!(password["secret"]["defaultMode"].as_i64(), Some(440), "the group reads it, and nobody else");
    assert!(arguments().contains(&format!("password=+{directory}/password")));
    let (directory, ca) = volume("ca");
    assert!(ca["configMap"]["name"].as_str().is_some());
    assert!(arguments().contains(&format!("engine-cafile={directory}/ca.pem")));
    assert!(container()["env"].is_badvalue() && !JOB.contains("stringData"));
}

/// The Job's arguments, but for this engine.
fn arguments_for(engine: &str) -> Vec<String> {
    let replace = |argument: String| match argument.split_once('=').map(|(name, _)| name) {
        Some("engine") => format!("engine={engine}"),
        Some("user") => format!("user={DEFAULT_USER}"),
        Some("--storage-domain") => format!("--storage-domain={STORAGE_DOMAIN}"),
        _ => argument,
    };
    arguments().into_iter().map(replace).collect()
}

pub(crate) fn the_job_uploads(packages: &Packages) {
    let site = Installation::new().unwrap();
    let root = image(packages);
    fs::write(site.path("disk.raw"), guest_disk(12)).unwrap();
    site.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2"]).unwrap();
    let (images, _) = volume("images");
    let (secrets, _) = volume("password");
    let (ca, _) = volume("ca");
    for (directory, file, contents) in [
        (&images, "disk.qcow2", fs::read(site.path("disk.qcow2")).unwrap()),
        (&secrets, "password", DEFAULT_PASSWORD.into()),
        (&ca, "ca.pem", fs::read(site.path("ca.pem")).unwrap()),
    ] {
        fs::create_dir_all(root.path(directory)).unwrap();
        fs::write(root.path(Path::new(directory).join(file)), contents).unwrap();
    }
    let nobody = User::Nobody { id: user_id(), writable: "/tmp" };
    let mut command = root.command(nobody, &instruction("WORKDIR"), "/usr/bin/imageio-nbd");
    let ended: Ended = command.args(arguments_for(&site.engine.base())).output().unwrap().into();
    assert!(!ended.err.contains(DEFAULT_PASSWORD) && !ended.out.contains(DEFAULT_PASSWORD));
    assert_eq!(ended.code, 0, "{ended:?}");
    site.assert_same("disk.raw", "raw", &site.disk().unwrap()).unwrap();
    let mut touch = root.command(nobody, "/tmp", "touch");
    let refused: Ended = touch.arg("/usr/bin/imageio-nbd").output().unwrap().into();
    assert!(refused.code != 0 && refused.err.contains("Read-only"), "{refused:?}");
}

/// Builds the image that the Containerfile describes.
fn image(packages: &Packages) -> Root {
    let debian = debian_packages();
    let root = Root::with(&debian.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    // Copied under the very name.
    let copy = instruction("COPY");
    let (from, to) = copy.split_once(' ').unwrap();
    let (begin, _) = from.split_once('*').unwrap();
    fs::copy(packages.find(begin, ".deb"), root.path(to)).unwrap();
    run(root.command(User::Root, "/", "dpkg").args(["--install", to]));
    root
}
