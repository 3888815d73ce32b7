// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that are executed by their full path, and the library that is preloaded for that.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use support::run::Ended;
use support::tools::NBDKIT;

use super::layout::{Layout, PATH};
use super::{DUMP, SERVER};

const AS_NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

pub(crate) fn seen_by_nobody_else() {
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
    assert!(outside.code != 0 && !outside.err.contains(SERVER), "{outside:?}");
    // The end of the file is what `read` fails with.
    drop(running.stdin.take());
    assert_eq!(running.wait().unwrap().code(), Some(1));
}

/// A virt-v2v that has nbdkit's full path in it, and runs this with `$nbdkit` for that.
fn by_path(layout: &Layout, commands: &str) {
    layout.add_script("virt-v2v", &format!("nbdkit={}\n{commands}", NBDKIT.path().display()));
}

pub(crate) fn calls_from_below() {
    let layout = Layout::new();
    by_path(
        &layout,
        &format!(
            "set -e; $nbdkit -U - null --run 'nbdkit {DUMP}'; sh -c '\"$0\" {DUMP}' $nbdkit; \
             [ -n \"$nested\" ] || nested=1 $PWD/bin/imageio-nbd virt-v2v"
        ),
    );
    let ended = layout.run(&["virt-v2v"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.out.matches("\nname=imageio\n").count(), 4, "{ended:?}");
}

pub(crate) fn several_by_path() {
    let layout = Layout::new();
    for name in ["one", "two"] {
        fs::create_dir(layout.path().join(name)).unwrap();
        layout.add_program(&format!("{name}/nbdkit"), &format!("echo {name} \"$1\""));
    }
    let dir = layout.path().display();
    layout.add_script("virt-v2v", &format!("a={dir}/one/nbdkit\nb={dir}/two/nbdkit\n$a x; $b x; $b {DUMP}"));
    let ended = layout.run(&["virt-v2v", "--door=nbdkit"]);
    let plugin = layout.path().join("nbdkit/nbdkit-imageio-plugin.so").canonicalize().unwrap();
    assert_eq!(ended.out, format!("one x\ntwo x\ntwo {}\n", plugin.display()), "{ended:?}");
}

/// The command that supermin runs for libguestfs: unless there is an appliance in the cache
/// already, it makes one of the files of the system, with their owners as it sees them.
const SUPERMIN: &str = "[ -e cache/appliance ] || stat -c '%n %u:%g' /bin/sh /etc/passwd >cache/appliance";

pub(crate) fn as_nobody() {
    let root_owns = "/bin/sh 0:0\n/etc/passwd 0:0\n";
    for cached in [None, Some("made before\n")] {
        let layout = Layout::new();
        by_path(&layout, &format!("set -e; id -u; $nbdkit {DUMP}; {SUPERMIN}"));
        let cache = layout.path().join("cache");
        fs::create_dir(&cache).unwrap();
        if let Some(appliance) = cached {
            fs::write(cache.join("appliance"), appliance).unwrap();
        }
        fs::set_permissions(&cache, Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(layout.path(), Permissions::from_mode(0o755)).unwrap();
        layout.copy_what_is_linked();
        let mut command = layout.command_of("/usr/bin/setpriv".as_ref(), PATH);
        let command = command.args(AS_NOBODY).arg(layout.path().join("bin/imageio-nbd")).arg("virt-v2v");
        let ended: Ended = command.output().unwrap().into();
        assert!(ended.out.starts_with("65534\n") && ended.out.contains("\nname=imageio\n"), "{ended:?}");
        let appliance = fs::read_to_string(cache.join("appliance")).unwrap();
        assert_eq!(appliance, cached.unwrap_or(root_owns), "{ended:?}");
    }
}

pub(crate) fn preloads_of_others() {
    let layout = Layout::new();
    layout.add_script("nbdkit", "echo \"$LD_PRELOAD\"");
    // A library that exists, and changes nothing.
    let theirs = layout.path().join("libexec/imageio-nbd/../imageio-nbd/exec-redirect.so");
    let other = layout.path().join("other.so");
    fs::copy(theirs, &other).unwrap();
    layout.add_script("virt-v2v", "echo \"$LD_PRELOAD\"; nbdkit x");
    let mut command = layout.command("bin/imageio-nbd", PATH);
    let ended: Ended = command.arg("virt-v2v").env("LD_PRELOAD", &other).output().unwrap().into();
    let ours = layout.path().join("libexec/imageio-nbd").canonicalize().unwrap().join("exec-redirect.so");
    let (ours, other) = (ours.display(), other.display());
    assert_eq!(ended.out, format!("{ours}:{other}\n{other}\n"), "{ended:?}");
}

pub(crate) fn redirects() {
    let layout = Layout::new();
    layout.add_program("real", "echo real");
    layout.add_program("other", "echo \"other $1\"");
    let path = |name: &str| layout.path().join(name).display().to_string();
    let (real, python) = (path("real"), "import os, sys; a = sys.argv[1:]; e = os.environ;");
    for (program, call) in [
        ("env", vec![]),
        ("sh", vec!["-c".to_owned(), "exec \"$0\" \"$@\"".to_owned()]),
        ("sh", vec!["-c".to_owned(), "\"$0\" \"$@\"; true".to_owned()]),
        ("python3", vec!["-c".to_owned(), format!("{python} os.execv(a[0], a)")]),
        ("python3", vec!["-c".to_owned(), format!("{python} os.execve(a[0], a, e)")]),
        (
            "python3",
            vec!["-c".to_owned(), format!("{python} os.wait() if os.posix_spawn(a[0], a, e) else 1")],
        ),
        (
            "python3",
            vec!["-c".to_owned(), format!("{python} os.wait() if os.posix_spawnp(a[0], a, e) else 1")],
        ),
        ("python3", vec!["-c".to_owned(), format!("{python} os.system(' '.join(a))")]),
    ] {
        let run = |from: &str| -> Ended {
            let mut command = Command::new(program);
            command.args(&call).args([&real, "x"]).env("EXEC_REDIRECT_FROM", from);
            command.env("LD_PRELOAD", path("libexec/imageio-nbd/exec-redirect.so"));
            command.env("EXEC_REDIRECT_TO", path("other")).output().unwrap().into()
        };
        let listed = run(&format!("/nonexistent:{real}"));
        assert_eq!((listed.code, listed.out.as_str()), (0, "other x\n"), "{program} {call:?}: {listed:?}");
        for from in ["", "/nonexistent", &format!("{real}/more"), "real"] {
            let unlisted = run(from);
            assert_eq!(unlisted.out, "real\n", "{program} {call:?}: {unlisted:?}");
        }
    }
}
