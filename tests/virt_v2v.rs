// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd virt-v2v`, with a stand-in for virt-v2v that runs nbdkit as virt-v2v does.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "support/virt_v2v/layout.rs"]
mod layout;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode, Stdio};

use fake_imageio::{Certificate, FakeServer, Op};
use layout::{Layout, PATH, VERSION_2_2, VERSION_2_8, VERSION_2_10, Version, stand_in};
use libtest_mimic::{Arguments, Trial};
use support::door::built;
use support::image::{SIZE, guest_disk};
use support::process::PATIENCE;
use support::run::Ended;
use support::tools::{NBDCOPY, NBDKIT, Tool, trial};

type Test = (&'static str, &'static [Tool], fn());

const TESTS: &[Test] = &[
    ("version_2_2_uploads_two_disks", &[NBDKIT, NBDCOPY], || uploads_two_disks(&VERSION_2_2)),
    ("version_2_8_uploads_two_disks", &[NBDKIT, NBDCOPY], || uploads_two_disks(&VERSION_2_8)),
    ("every_other_call_of_nbdkit_is_passed_on_as_it_is", &[NBDKIT], passes_on),
    ("virt_v2v_takes_its_place_with_its_own_arguments_and_status", &[NBDKIT], takes_its_place),
    ("what_is_missing_is_told_in_one_line", &[NBDKIT], what_is_missing),
    ("the_shims_directory_in_path_is_enough", &[NBDKIT], shim_in_path),
    ("several_copies_of_the_shim_do_not_call_each_other", &[NBDKIT], several_shims),
    ("what_path_and_variables_say_of_the_current_directory_is_made_absolute", &[NBDKIT], relative_names),
];

/// These make mount namespaces, which not every container allows, whatever is installed.
const TESTS_IN_NAMESPACES: &[Test] = &[
    ("version_2_10_uploads_two_disks", &[NBDKIT, NBDCOPY], || uploads_two_disks(&VERSION_2_10)),
    ("what_is_replaced_by_full_path_is_not_seen_by_others", &[NBDKIT], seen_by_nobody_else),
    ("mounts_do_not_spread_where_they_are_shared", &[NBDKIT], mounts_do_not_spread),
    ("calls_below_nbdkit_and_without_an_environment_work", &[NBDKIT], calls_from_below),
    ("each_nbdkit_by_full_path_stays_itself", &[NBDKIT], several_by_path),
];

/// Root tries it as somebody else; for anybody else, the others are that test.
const TEST_AS_NOBODY: Test = ("somebody_who_is_not_root_does_it_with_a_user_namespace", &[NBDKIT], as_nobody);

const AS_NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

fn main() -> ExitCode {
    let test = |(name, tools, run): &Test| {
        let run = *run;
        trial(*name, tools, move || {
            run();
            Ok(())
        })
    };
    let mut trials: Vec<Trial> = TESTS.iter().map(test).collect();
    let (allowed, allowed_to_nobody) = (namespaces_are_allowed(), nobody_is_allowed_namespaces());
    let specs = TESTS_IN_NAMESPACES.iter().map(|spec| (spec, allowed));
    for (spec, allowed) in specs.chain([(&TEST_AS_NOBODY, allowed_to_nobody)]) {
        if !allowed {
            eprintln!("not tested: {}: mount namespaces are not allowed here", spec.0);
        }
        let trial = test(spec);
        trials.push(if allowed { trial } else { trial.with_ignored_flag(true) });
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn namespaces_are_allowed() -> bool {
    let unshare = |flags: &str| Command::new("unshare").args([flags, "true"]).output();
    ["-m", "-Um"].iter().any(|flags| unshare(flags).is_ok_and(|output| output.status.success()))
}

fn nobody_is_allowed_namespaces() -> bool {
    let unshare = Command::new("setpriv").args(AS_NOBODY).args(["unshare", "-Um", "true"]).output();
    rustix::process::getuid().is_root() && unshare.is_ok_and(|output| output.status.success())
}

fn uploads_two_disks(version: &Version) {
    let layout = Layout::new();
    let servers =
        [1, 2].map(|_| FakeServer::builder().size(SIZE).tls(Certificate::default()).start().unwrap());
    let disks = servers.each_ref().map(|server| {
        let cafile = server.cafile().unwrap().display();
        format!("size={SIZE} url={} cafile={cafile} is_ovirt_host=true", server.url())
    });
    layout.add_script("virt-v2v", &stand_in(&layout, version, &disks));
    let disk = guest_disk(3);
    fs::write(layout.path().join("guest.img"), &disk).unwrap();

    let ended = layout.run(&["virt-v2v", "-o", "rhv-upload"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let told: Vec<_> = ended.err.lines().filter(|line| line.starts_with(TOLD)).collect();
    assert_eq!(told.len(), 3, "{ended:?}");
    assert!(told.iter().all(|line| line.ends_with(&format!("/v2v.x/{}", version.script))), "{told:?}");
    for server in &servers {
        assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
        assert!(server.contents().unwrap() == disk);
        assert_eq!(server.log().lost_unflushed(), 0);
        assert_eq!(server.log().of(Op::Options).count(), 1, "each disk goes to its own server");
    }
    let dumped = |name: &str| fs::read_to_string(layout.path().join(name)).unwrap();
    assert!(dumped("dump-plugin").contains("\nname=imageio\n"));
    let config: Ended = Command::new(NBDKIT.path()).arg("--dump-config").output().unwrap().into();
    // It tells of its own file as it was called, which differs where the shim is in that place.
    let without_binary =
        |text: &str| text.lines().filter(|line| !line.starts_with("binary=")).collect::<Vec<_>>().join("\n");
    assert_eq!(without_binary(&dumped("dump-config")), without_binary(&config.out));
}

/// What the shim says when it has replaced something.
const TOLD: &str = "imageio-nbd: info: nbdkit runs the plugin ";

fn seen_by_nobody_else() {
    let layout = Layout::new();
    let nbdkit = NBDKIT.path().display().to_string();
    let call = "python /x/rhv-upload-plugin.py --dump-plugin";
    // While it waits, a process from outside calls the same file.
    layout.add_script("virt-v2v", &format!("nbdkit={nbdkit}\n$nbdkit {call} && echo ready && read line"));
    let mut command = layout.command("bin/imageio-nbd", PATH);
    let command = command.arg("virt-v2v").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let lines = BufReader::new(running.stdout.take().unwrap()).lines().map_while(Result::ok);
    let inside: Vec<_> = lines.take_while(|line| line != "ready").collect();
    assert!(inside.contains(&"name=imageio".to_owned()), "{inside:?}");
    let outside: Ended = Command::new(&nbdkit).args(call.split(' ')).output().unwrap().into();
    assert!(outside.code != 0 && !outside.err.contains(TOLD), "{outside:?}");
    let shims: Vec<_> = fs::read_dir(layout.path().join("libexec/imageio-nbd")).unwrap().collect();
    assert_eq!(shims.len(), 1, "{shims:?}");
    // The end of the file is what `read` fails with.
    drop(running.stdin.take());
    assert_eq!(running.wait().unwrap().code(), Some(1));
}

/// A virt-v2v that has nbdkit's full path in it, and runs this with `$nbdkit` for that.
fn by_path(layout: &Layout, commands: &str) {
    layout.add_script("virt-v2v", &format!("nbdkit={}\n{commands}", NBDKIT.path().display()));
}

const DUMP: &str = "python /x/rhv-upload-plugin.py --dump-plugin";

fn mounts_do_not_spread() {
    let layout = Layout::new();
    by_path(&layout, &format!("$nbdkit {DUMP} >inside"));
    let outside = format!("bin/imageio-nbd virt-v2v && {} {DUMP}", NBDKIT.path().display());
    // A namespace whose mounts spread to its children's, and back.
    let arguments = ["-c", "exec unshare -m --propagation shared sh -c \"$0\"", &outside];
    let ended: Ended = layout.command_of("/bin/sh".as_ref(), PATH).args(arguments).output().unwrap().into();
    let inside = fs::read_to_string(layout.path().join("inside")).unwrap_or_default();
    assert!(inside.contains("\nname=imageio\n"), "{ended:?}");
    assert!(ended.code != 0 && !ended.out.contains("name=imageio"), "{ended:?}");
}

fn calls_from_below() {
    let layout = Layout::new();
    by_path(
        &layout,
        &format!(
            "set -e; $nbdkit -U - null --run 'nbdkit {DUMP}'; env -i PATH=/usr/bin $nbdkit {DUMP}; \
             [ -n \"$nested\" ] || nested=1 $PWD/bin/imageio-nbd virt-v2v"
        ),
    );
    let ended = layout.run(&["virt-v2v"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.out.matches("\nname=imageio\n").count(), 4, "{ended:?}");
}

fn several_by_path() {
    let layout = Layout::new();
    for name in ["one", "two"] {
        fs::create_dir(layout.path().join(name)).unwrap();
        layout.add_program(&format!("{name}/nbdkit"), &format!("echo {name} \"$1\""));
    }
    let dir = layout.path().display();
    layout.add_script("virt-v2v", &format!("a={dir}/one/nbdkit\nb={dir}/two/nbdkit\n$a x; $b x; $b {DUMP}"));
    let ended = layout.run(&["virt-v2v"]);
    let plugin = layout.path().join("nbdkit/nbdkit-imageio-plugin.so").canonicalize().unwrap();
    assert_eq!(ended.out, format!("one x\ntwo x\ntwo {}\n", plugin.display()), "{ended:?}");
}

fn as_nobody() {
    let layout = Layout::new();
    by_path(&layout, &format!("id -u; $nbdkit {DUMP}"));
    fs::set_permissions(layout.path(), Permissions::from_mode(0o755)).unwrap();
    // What was built may be where only root gets.
    let plugin = layout.path().join("nbdkit/nbdkit-imageio-plugin.so");
    fs::remove_file(&plugin).unwrap();
    fs::copy(built("libnbdkit_imageio_plugin.so"), &plugin).unwrap();
    let mut command = layout.command_of("/usr/bin/setpriv".as_ref(), PATH);
    let command = command.args(AS_NOBODY).arg(layout.path().join("bin/imageio-nbd")).arg("virt-v2v");
    let ended: Ended = command.output().unwrap().into();
    assert!(ended.out.starts_with("65534\n") && ended.out.contains("\nname=imageio\n"), "{ended:?}");
}

/// An nbdkit that prints its arguments, a line each, and fails.
const PRINTS: &str = "[ \"$2\" = --dump-plugin ] && exit 0; printf '<%s>\\n' \"$@\"; exit 3";

fn passes_on() {
    let layout = Layout::new();
    layout.add_script("nbdkit", PRINTS);
    layout.add_script(
        "virt-v2v",
        "nbdkit --readonly vddk 'file=[a b] c d.vmdk' '' '*' -- \"it's\"; \
         nbdkit -e python --filter=log python script=x/rhv-upload-plugin.py 'cafile=a b' --run ''",
    );
    let ended = layout.run(&["virt-v2v"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    let plugin = layout.path().join("nbdkit/nbdkit-imageio-plugin.so").canonicalize().unwrap();
    let expected = format!(
        "<--readonly>\n<vddk>\n<file=[a b] c d.vmdk>\n<>\n<*>\n<-->\n<it's>\n\
         <-e>\n<python>\n<--filter=log>\n<{}>\n<cafile=a b>\n<--run>\n<>\n",
        plugin.display()
    );
    assert_eq!(ended.out, expected);
    let told = format!("{TOLD}{} instead of x/rhv-upload-plugin.py\n", plugin.display());
    assert_eq!(ended.err, told, "{ended:?}");
}

fn takes_its_place() {
    let layout = Layout::new();
    layout.add_script("virt-v2v", "echo $$; printf '<%s>' \"$@\"; echo problem >&2; exit 7");
    // Not by `timeout`, whose child it would be.
    let mut command = Command::new(layout.path().join("bin/imageio-nbd"));
    command.args(["virt-v2v", "--", "--help", "-v", "a b", "--", "url=x"]);
    command.env("PATH", format!("{}/path:/usr/bin:/bin:/usr/sbin", layout.path().display()));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let ended: Ended = child.wait_with_output().unwrap().into();
    assert_eq!((ended.code, ended.err.as_str()), (7, "problem\n"));
    assert_eq!(ended.out, format!("{pid}\n<--><--help><-v><a b><--><url=x>"));
}

fn what_is_missing() {
    let layout = Layout::new();
    let fails = |path: &str, variable: (&str, &str), reasons: &[&str]| {
        let mut command = layout.command("bin/imageio-nbd", path);
        let ended: Ended = command.arg("virt-v2v").env(variable.0, variable.1).output().unwrap().into();
        assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
        for reason in reasons {
            assert!(ended.err.contains(reason), "'{reason}' is not in {}", ended.err);
        }
    };
    let none = ("NONE", "");
    // Debian's own virt-v2v isn't looked for.
    fails("path:", none, &["virt-v2v is not in PATH: install it"]);
    layout.add_script("virt-v2v", "exit 0");
    fails("path:", none, &["nbdkit is not in PATH: install it"]);
    let other = ("IMAGEIO_NBD_PLUGIN", "/nonexistent.so");
    fails(PATH, other, &["doesn't take the plugin /nonexistent.so", "IMAGEIO_NBD_PLUGIN=FILE"]);
    fs::remove_file(layout.path().join("libexec/imageio-nbd/nbdkit")).unwrap();
    fails(PATH, none, &["libexec/imageio-nbd/nbdkit is missing", "cargo xtask build"]);
}

fn shim_in_path() {
    let layout = Layout::new();
    let shims = layout.path().join("libexec/imageio-nbd").display().to_string();
    let path = format!("{shims}:/usr/bin:/bin:/usr/sbin");
    let mut command = layout.command("libexec/imageio-nbd/nbdkit", &path);
    let ended: Ended =
        command.args(["python", "rhv-upload-plugin.py", "--dump-plugin"]).output().unwrap().into();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("\nname=imageio\n") && ended.err.starts_with(TOLD), "{ended:?}");
    // There is no other nbdkit: it must not call itself for ever.
    let mut command = layout.command("libexec/imageio-nbd/nbdkit", &format!("{shims}:{shims}"));
    let ended: Ended = command.arg("--version").env("PATH", shims).output().unwrap().into();
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("nbdkit is not in PATH behind its shim"), "{ended:?}");
}

fn several_shims() {
    let (one, other) = (Layout::new(), Layout::new());
    let shims = [&one, &other].map(|layout| layout.path().join("libexec/imageio-nbd").display().to_string());
    let both = shims.join(":");
    let run = |path: &str| -> Ended {
        let mut command = one.command("libexec/imageio-nbd/nbdkit", "");
        command.args(DUMP.split(' ')).env("PATH", path).output().unwrap().into()
    };
    let found = run(&format!("{both}:/usr/bin:/bin:/usr/sbin"));
    assert!(found.code == 0 && found.out.contains("\nname=imageio\n"), "{found:?}");
    // Also where one can't be known for what it is.
    let unknown = other.path().join("path/nbdkit");
    fs::copy(other.path().join("bin/imageio-nbd"), unknown).unwrap();
    for path in [both.clone(), format!("{both}:{}/path", other.path().display())] {
        let none = run(&path);
        assert_eq!(none.code, 1, "{none:?}");
        assert!(none.err.contains("nbdkit is not in PATH behind its shim"), "{none:?}");
    }
}

fn relative_names() {
    let layout = Layout::new();
    layout.add_program("nbdkit.d/nbdkit", PRINTS);
    layout.add_program("nbdkit.d/virt-v2v", "nbdkit 1; nbdkit python rhv-upload-plugin.py");
    for path in ["", "nbdkit.d:/bin", ":/bin"] {
        let mut command = layout.command("bin/imageio-nbd", path);
        let dir = layout.path().join(if path.starts_with("nbdkit") { "" } else { "nbdkit.d" });
        let command = command.arg("virt-v2v").current_dir(dir).env("IMAGEIO_NBD_PLUGIN", "./x.so");
        let ended: Ended = command.output().unwrap().into();
        let (first, second) = ended.out.split_once('\n').unwrap_or_default();
        assert!(
            first == "<1>" && second.starts_with("</") && second.ends_with("/x.so>\n"),
            "{path}: {ended:?}"
        );
    }
}
