// SPDX-License-Identifier: MIT OR Apache-2.0
//! This program called as `nbdkit`: runs the real one, with our plugin instead of the Python plugin for oVirt.
//!
//! virt-v2v (`lib/nbdkit.ml`) calls `nbdkit OPTIONS python script=/tmp/…/rhv-upload-plugin.py size=N url=URL …`, and
//! before that `nbdkit python /tmp/…/rhv-upload-plugin.py --dump-plugin`. Since 2.7 the script is `ovirt-upload-plugin.py`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use super::{PLUGIN_VARIABLE, REAL_NBDKIT, find, plugin};

/// The Python plugin for oVirt, by the names that virt-v2v has given it.
const SCRIPTS: [&str; 2] = ["rhv-upload-plugin.py", "ovirt-upload-plugin.py"];

/// Whether this program was called as nbdkit.
pub(crate) fn is_called() -> bool {
    env::args_os().next().is_some_and(|name| Path::new(&name).file_name() == Some(OsStr::new("nbdkit")))
}

/// Becomes the real nbdkit. Returns only if that fails.
pub(crate) fn run() -> Result<u8> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    let real = match env::var_os(REAL_NBDKIT) {
        Some(real) => PathBuf::from(real),
        // Somebody put the shim's directory into PATH.
        None => find("nbdkit", &program).context("nbdkit is not in PATH behind its shim: install it")?,
    };
    let mut arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if let Some(call) = Call::find(&arguments) {
        let plugin = plugin(&program);
        log::info!(
            "nbdkit runs the plugin {} instead of {}",
            plugin.display(),
            call.script(&arguments).display()
        );
        call.replace(&mut arguments, plugin);
    }
    let error = Command::new(&real)
        .arg0("nbdkit")
        .args(arguments)
        .env_remove(REAL_NBDKIT)
        .env_remove(PLUGIN_VARIABLE)
        .exec();
    Err(anyhow!(error).context(format!("cannot run {}", real.display())))
}

/// Where the Python plugin for oVirt is in nbdkit's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Call {
    python: usize,
    script: usize,
}

impl Call {
    /// The script, by its key or alone, and the last `python` before it: an option may have that for its value, as
    /// virt-v2v gives the guest's name to `--name`.
    fn find(arguments: &[OsString]) -> Option<Self> {
        let script = arguments.iter().position(|argument| is_script(argument))?;
        let python = arguments[..script].iter().rposition(|argument| argument == "python")?;
        Some(Self { python, script })
    }

    fn script(self, arguments: &[OsString]) -> &OsStr {
        file(&arguments[self.script])
    }

    fn replace(self, arguments: &mut Vec<OsString>, plugin: OsString) {
        arguments[self.python] = plugin;
        arguments.remove(self.script);
    }
}

/// What `script=` names, or the argument itself.
fn file(argument: &OsStr) -> &OsStr {
    OsStr::from_bytes(argument.as_bytes().strip_prefix(b"script=").unwrap_or(argument.as_bytes()))
}

fn is_script(argument: &OsStr) -> bool {
    let name = Path::new(file(argument)).file_name();
    name.is_some_and(|name| SCRIPTS.iter().any(|script| name == *script))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(command: &str) -> String {
        let mut arguments: Vec<_> = command.split(' ').map(OsString::from).collect();
        if let Some(call) = Call::find(&arguments) {
            call.replace(&mut arguments, "P.so".into());
        }
        let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        arguments.join(" ")
    }

    #[test]
    fn what_virt_v2v_runs() {
        for (given, expected) in [
            (
                "--exit-with-parent --foreground --pidfile /run/nbdkit0.pid --unix /run/out0 --threads 8 \
                 --selinux-label system_u:object_r:svirt_socket_t:s0 -D nbdkit.backend.datapath=0 --verbose \
                 python script=/tmp/v2v.1/rhv-upload-plugin.py size=1 url=https://h/images/t cafile=/c insecure=true",
                "--exit-with-parent --foreground --pidfile /run/nbdkit0.pid --unix /run/out0 --threads 8 \
                 --selinux-label system_u:object_r:svirt_socket_t:s0 -D nbdkit.backend.datapath=0 --verbose \
                 P.so size=1 url=https://h/images/t cafile=/c insecure=true",
            ),
            ("python /tmp/v2v.1/rhv-upload-plugin.py --dump-plugin", "P.so --dump-plugin"),
            ("--dump-plugin python /tmp/v2v.1/ovirt-upload-plugin.py", "--dump-plugin P.so"),
            ("python size=1 script=ovirt-upload-plugin.py", "P.so size=1"),
            ("--name python python script=/x/ovirt-upload-plugin.py", "--name python P.so"),
        ] {
            assert_eq!(replaced(given), expected);
        }
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        for command in [
            "--dump-config",
            "--version",
            "null --filter=cow --help",
            "--readonly vddk file=[ds] disk.vmdk libdir=/opt/vddk",
            "python script=/tmp/my-plugin.py url=https://h/images/t",
            "python /tmp/xrhv-upload-plugin.py",
            "file /tmp/rhv-upload-plugin.py",
            "sh /tmp/python/rhv-upload-plugin.py",
            "python",
        ] {
            assert_eq!(replaced(command), command);
        }
    }
}
