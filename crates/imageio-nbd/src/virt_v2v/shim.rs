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

use super::{REAL_NBDKIT, find, plugin};

/// The Python plugin for oVirt, by the names that virt-v2v has given it.
const SCRIPTS: [&str; 2] = ["rhv-upload-plugin.py", "ovirt-upload-plugin.py"];

/// Whether this program was called as nbdkit.
pub(crate) fn is_called() -> bool {
    env::args_os().next().is_some_and(|name| Path::new(&name).file_name() == Some(OsStr::new("nbdkit")))
}

/// Tells this process, as long as it is one, that it has been the shim already.
const WAS_SHIM: &str = "IMAGEIO_NBD_WAS_SHIM";

/// Becomes the real nbdkit. Returns only if that fails.
pub(crate) fn run() -> Result<u8> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    let real = real_nbdkit(&program)?;
    let mut arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if let Some(call) = Call::find(&arguments) {
        let plugin = plugin(&program)?;
        log::info!("nbdkit runs the plugin {} instead of {}", plugin.display(), call.script.display());
        call.replace(&mut arguments, plugin);
    }
    let error = Command::new(&real)
        .arg0("nbdkit")
        .args(arguments)
        // What nbdkit runs may have another.
        .env_remove(REAL_NBDKIT)
        .env(WAS_SHIM, std::process::id().to_string())
        .exec();
    Err(anyhow!(error).context(format!("cannot run {}", real.display())))
}

fn real_nbdkit(program: &Path) -> Result<PathBuf> {
    if let Some(real) = env::var_os(REAL_NBDKIT) {
        return Ok(real.into());
    }
    // What looked like the real one led back here: an unknown copy of the shim.
    let again = env::var(WAS_SHIM).is_ok_and(|pid| pid == std::process::id().to_string());
    let real = if again { None } else { find("nbdkit", program) };
    real.context("nbdkit is not in PATH behind its shim: install it")
}

/// Where the Python plugin for oVirt is in nbdkit's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    python: usize,
    script: OsString,
}

impl Call {
    /// The word `python`, and the first script behind it. The word may also be an option's value, as virt-v2v gives the
    /// guest's name to `--name`: then what follows is no such script.
    fn find(arguments: &[OsString]) -> Option<Self> {
        let words = arguments.iter().enumerate().filter(|(_, argument)| *argument == "python");
        words.map(|(python, _)| python).find_map(|python| {
            let script = arguments[python + 1..].iter().find_map(|argument| script(argument))?;
            is_ours(script).then(|| Self { python, script: script.to_owned() })
        })
    }

    fn replace(&self, arguments: &mut Vec<OsString>, plugin: OsString) {
        let rest = arguments.split_off(self.python + 1);
        arguments[self.python] = plugin;
        // It may be given again.
        arguments.extend(rest.into_iter().filter(|argument| script(argument) != Some(&self.script)));
    }
}

/// The script that an argument gives to nbdkit's Python plugin: by its key, or alone.
fn script(argument: &OsStr) -> Option<&OsStr> {
    let bytes = argument.as_bytes();
    match bytes.strip_prefix(b"script=") {
        Some(script) => Some(OsStr::from_bytes(script)),
        None if bytes.starts_with(b"-") || bytes.contains(&b'=') => None,
        None => Some(argument),
    }
}

fn is_ours(script: &OsStr) -> bool {
    let name = Path::new(script).file_name();
    name.is_some_and(|name| SCRIPTS.iter().any(|ours| name == *ours))
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
            (
                "--name ovirt-upload-plugin.py python script=/x/ovirt-upload-plugin.py size=1",
                "--name ovirt-upload-plugin.py P.so size=1",
            ),
            ("python script=/x/rhv-upload-plugin.py size=1 script=/x/rhv-upload-plugin.py", "P.so size=1"),
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
            "python script=/x/mine.py config=/etc/rhv-upload-plugin.py",
            "python /x/mine.py /etc/rhv-upload-plugin.py",
            "--name python file /data/rhv-upload-plugin.py",
        ] {
            assert_eq!(replaced(command), command);
        }
    }
}
