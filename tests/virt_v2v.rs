// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd virt-v2v`, with a stand-in for virt-v2v that runs nbdkit as virt-v2v does.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "support/virt_v2v/by_path.rs"]
mod by_path;
#[path = "support/virt_v2v/failures.rs"]
mod failures;
#[path = "support/virt_v2v/layout.rs"]
mod layout;

use std::fs;
use std::process::{Command, ExitCode, Stdio};

use fake_imageio::{Certificate, FakeServer, Op};
use layout::{
    Layout, PATH, VERSION_2_2, VERSION_2_6, VERSION_2_8, VERSION_2_10, VERSION_2_10_WITH_SELINUX, Version,
    install, stand_in,
};
use libtest_mimic::{Arguments, Trial};
use support::image::{SIZE, guest_disk};
use support::process::PATIENCE;
use support::run::Ended;
use support::tools::{NBDCOPY, NBDKIT, Tool, trial};

type Test = (&'static str, &'static [Tool], fn());

const TESTS: &[Test] = &[
    ("version_2_2_uploads_two_disks", &[NBDKIT, NBDCOPY], || uploads_two_disks(&VERSION_2_2, SERVER)),
    ("version_2_6_uploads_two_disks", &[NBDKIT, NBDCOPY], || uploads_two_disks(&VERSION_2_6, SERVER)),
    ("version_2_8_uploads_two_disks", &[NBDKIT, NBDCOPY], || uploads_two_disks(&VERSION_2_8, SERVER)),
    ("version_2_10_uploads_two_disks", &[NBDKIT, NBDCOPY], || uploads_two_disks(&VERSION_2_10, SERVER)),
    ("version_2_10_with_a_label_uploads_two_disks", &[NBDKIT, NBDCOPY], || {
        uploads_two_disks(&VERSION_2_10_WITH_SELINUX, SERVER);
    }),
    ("version_2_2_uploads_two_disks_by_nbdkit", &[NBDKIT, NBDCOPY], || {
        uploads_two_disks(&VERSION_2_2, PLUGIN);
    }),
    ("version_2_6_uploads_two_disks_by_nbdkit", &[NBDKIT, NBDCOPY], || {
        uploads_two_disks(&VERSION_2_6, PLUGIN);
    }),
    ("version_2_8_uploads_two_disks_by_nbdkit", &[NBDKIT, NBDCOPY], || {
        uploads_two_disks(&VERSION_2_8, PLUGIN);
    }),
    ("version_2_10_uploads_two_disks_by_nbdkit", &[NBDKIT, NBDCOPY], || {
        uploads_two_disks(&VERSION_2_10, PLUGIN);
    }),
    ("every_other_call_of_nbdkit_is_passed_on_as_it_is", &[NBDKIT], passes_on),
    ("what_a_server_can_not_do_is_left_to_nbdkit", &[NBDKIT], falls_back),
    ("virt_v2v_takes_its_place_with_its_own_arguments_and_status", &[NBDKIT], takes_its_place),
    ("what_is_missing_is_told_in_one_line", &[NBDKIT], what_is_missing),
    ("a_plugin_that_is_missing_is_told_in_one_line", &[NBDKIT], plugin_that_is_missing),
    ("the_shims_directory_in_path_is_enough", &[NBDKIT], shim_in_path),
    ("several_copies_of_the_shim_do_not_call_each_other", &[NBDKIT], several_shims),
    ("what_path_and_variables_say_of_the_current_directory_is_made_absolute", &[NBDKIT], relative_names),
    ("what_is_replaced_by_full_path_is_not_seen_by_others", &[NBDKIT], by_path::seen_by_nobody_else),
    ("calls_below_nbdkit_work", &[NBDKIT], by_path::calls_from_below),
    ("each_nbdkit_by_full_path_stays_itself", &[NBDKIT], by_path::several_by_path),
    ("what_others_preload_stays", &[NBDKIT], by_path::preloads_of_others),
    ("a_program_is_redirected_however_it_is_executed", &[], by_path::redirects),
];

/// Root tries it as somebody else; for anybody else, the others are that test.
const TEST_AS_NOBODY: Test = ("who_is_not_root_sees_who_owns_what", &[NBDKIT], by_path::as_nobody);

/// The beginning of the shim's message when it serves.
const SERVER: &str = "imageio-nbd: info: imageio-nbd serves in the place of nbdkit with ";

/// The beginning of the shim's message when it has replaced the plugin.
const PLUGIN: &str = "imageio-nbd: info: nbdkit runs the plugin ";

fn main() -> ExitCode {
    let test = |(name, tools, run): &Test| {
        let run = *run;
        trial(*name, tools, move || {
            run();
            Ok(())
        })
    };
    let mut trials: Vec<Trial> = TESTS.iter().map(test).collect();
    trials.extend(failures::trials());
    if rustix::process::getuid().is_root() {
        trials.push(test(&TEST_AS_NOBODY));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn uploads_two_disks(version: &Version, told_by: &str) {
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

    let door = if told_by == PLUGIN { "--door=nbdkit" } else { "--door=imageio-nbd" };
    let ended = layout.run(&["virt-v2v", door, "-o", "rhv-upload"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let told: Vec<_> = ended.err.lines().filter(|line| line.starts_with(told_by)).collect();
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
    assert_eq!(dumped("dump-config"), config.out);
}

const DUMP: &str = "python /x/rhv-upload-plugin.py --dump-plugin";

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
    let ended = layout.run(&["virt-v2v", "--door", "nbdkit"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    let plugin = layout.path().join("nbdkit/nbdkit-imageio-plugin.so").canonicalize().unwrap();
    let expected = format!(
        "<--readonly>\n<vddk>\n<file=[a b] c d.vmdk>\n<>\n<*>\n<-->\n<it's>\n\
         <-e>\n<python>\n<--filter=log>\n<{}>\n<cafile=a b>\n<--run>\n<>\n",
        plugin.display()
    );
    assert_eq!(ended.out, expected);
    let told = format!("{PLUGIN}{} instead of x/rhv-upload-plugin.py\n", plugin.display());
    assert_eq!(ended.err, told, "{ended:?}");
}

fn falls_back() {
    let layout = Layout::new();
    layout.add_script("nbdkit", PRINTS);
    let plugin = layout.path().join("nbdkit/nbdkit-imageio-plugin.so").canonicalize().unwrap();
    let plugin = plugin.display();
    for (options, reason) in [
        (
            "--filter=log",
            "--filter: filters are nbdkit's: run `nbdkit imageio --filter=…` with the plugin imageio",
        ),
        ("--of-the-future", "unexpected argument '--of-the-future' found"),
    ] {
        let script = "x/ovirt-upload-plugin.py";
        layout.add_script("virt-v2v", &format!("nbdkit {options} python script={script} url=u"));
        let ended = layout.run(&["virt-v2v"]);
        assert_eq!((ended.code, ended.out), (3, format!("<{options}>\n<{plugin}>\n<url=u>\n")));
        let warning = format!(
            "imageio-nbd: warning: nbdkit serves, as imageio-nbd can't do what it was told: {reason}"
        );
        assert_eq!(ended.err, format!("{warning}\n{PLUGIN}{plugin} instead of {script}\n"));
    }
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
    fails("path:", BY_NBDKIT, &["nbdkit is not in PATH: install it"]);
    fails(PATH, ("IMAGEIO_NBD_DOOR", "python"), &["--door=python: imageio-nbd or nbdkit is expected"]);
    for name in ["exec-redirect.so", "nbdkit"] {
        fs::remove_file(layout.path().join("libexec/imageio-nbd").join(name)).unwrap();
        fails(PATH, none, &[&format!("libexec/imageio-nbd/{name} is missing"), "cargo xtask build"]);
    }
}

const BY_NBDKIT: (&str, &str) = ("IMAGEIO_NBD_DOOR", "nbdkit");

fn plugin_that_is_missing() {
    let layout = Layout::new();
    layout.add_script("virt-v2v", "exit 0");
    let mut command = layout.command("bin/imageio-nbd", PATH);
    let command = command.args(["virt-v2v", "--door=nbdkit"]).env("IMAGEIO_NBD_PLUGIN", "/nonexistent.so");
    let ended: Ended = command.output().unwrap().into();
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    for reason in ["doesn't take the plugin /nonexistent.so", "IMAGEIO_NBD_PLUGIN=FILE"] {
        assert!(ended.err.contains(reason), "{ended:?}");
    }
}

fn shim_in_path() {
    let layout = Layout::new();
    let shims = layout.path().join("libexec/imageio-nbd").display().to_string();
    let path = format!("{shims}:/usr/bin:/bin:/usr/sbin");
    let mut command = layout.command("libexec/imageio-nbd/nbdkit", &path);
    let ended: Ended =
        command.args(["python", "rhv-upload-plugin.py", "--dump-plugin"]).output().unwrap().into();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("\nname=imageio\n") && ended.err.starts_with(SERVER), "{ended:?}");
    // There is no other nbdkit: it must not call itself for ever, and answers what virt-v2v asks.
    let without_nbdkit = |arguments: &[&str]| -> Ended {
        let mut command = layout.command("libexec/imageio-nbd/nbdkit", "");
        command.args(arguments).env("PATH", format!("{shims}:{shims}")).output().unwrap().into()
    };
    let missing = without_nbdkit(&["null", "--version"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.err.contains("nbdkit is not in PATH behind its shim: install it"), "{missing:?}");
    for (call, answer) in [
        ("--version", "imageio-nbd "),
        ("--dump-config", "\nselinux=yes\n"),
        ("--dump-config", "\nname=nbdkit\n"),
        ("--long-options", "\n--name\n"),
        ("--short-options", "\n-U\n"),
        (DUMP, "\nname=imageio\n"),
    ] {
        let ended = without_nbdkit(&call.split(' ').collect::<Vec<_>>());
        assert!(ended.code == 0 && ended.out.contains(answer), "{call}: {ended:?}");
    }
}

fn several_shims() {
    let (one, other) = (Layout::new(), Layout::new());
    let shims = [&one, &other].map(|layout| layout.path().join("libexec/imageio-nbd").display().to_string());
    let both = shims.join(":");
    let run = |path: &str| -> Ended {
        let mut command = one.command("libexec/imageio-nbd/nbdkit", "");
        command.args(DUMP.split(' ')).env("PATH", path).env(BY_NBDKIT.0, BY_NBDKIT.1).output().unwrap().into()
    };
    let found = run(&format!("{both}:/usr/bin:/bin:/usr/sbin"));
    assert!(found.code == 0 && found.out.contains("\nname=imageio\n"), "{found:?}");
    // Also where one can't be known for what it is.
    let unknown = other.path().join("path/nbdkit");
    install(&other.path().join("bin/imageio-nbd"), &unknown);
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
        let command = command.args(["virt-v2v", "--door=nbdkit"]);
        let command = command.current_dir(dir).env("IMAGEIO_NBD_PLUGIN", "./x.so");
        let ended: Ended = command.output().unwrap().into();
        let (first, second) = ended.out.split_once('\n').unwrap_or_default();
        assert!(
            first == "<1>" && second.starts_with("</") && second.ends_with("/x.so>\n"),
            "{path}: {ended:?}"
        );
    }
}
