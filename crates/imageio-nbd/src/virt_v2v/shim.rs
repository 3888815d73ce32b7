// SPDX-License-Identifier: MIT OR Apache-2.0
//! This program called as `nbdkit`: serves what nbdkit would serve by its Python plugin for oVirt,
//! or has the real nbdkit do so by our plugin. All else is the real nbdkit's.
//!
//! virt-v2v (`lib/nbdkit.ml`) calls
//! `nbdkit OPTIONS python script=/tmp/…/rhv-upload-plugin.py size=N url=URL …`, and before that
//! `nbdkit python /tmp/…/rhv-upload-plugin.py --dump-plugin`. Since 2.7 the script is
//! `ovirt-upload-plugin.py`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use clap::FromArgMatches;

use super::door::Door;
use super::{
    PRELOAD, REDIRECT_FROM, REDIRECT_TO, answers, find, is_program, is_shim, plugin, preloaded_by_others,
};
use crate::cli::{self, LogFormat, Options};
use crate::process::PidFile;
use crate::{logging, nbdkit};

/// The Python plugin for oVirt, by the names that virt-v2v has given it.
const SCRIPTS: [&str; 2] = ["rhv-upload-plugin.py", "ovirt-upload-plugin.py"];

/// Returns true if this program was called as nbdkit.
pub(crate) fn is_called() -> bool {
    env::args_os().next().is_some_and(|name| Path::new(&name).file_name() == Some(OsStr::new("nbdkit")))
}

/// Tells this process, as long as it is one, that it has been the shim already.
const WAS_SHIM: &str = "IMAGEIO_NBD_WAS_SHIM";

/// Does what nbdkit was called for. The exit status.
pub(crate) fn run() -> Result<u8> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let Some(call) = Call::find(&arguments) else {
        logging::init(1, LogFormat::Text);
        return run_nbdkit(arguments);
    };
    match (Door::of_environment(), for_server(&call.without_plugin(&arguments))) {
        (Ok(Door::Server), Ok(options)) => {
            logging::init(options.verbosity(), options.log_format);
            log::info!("imageio-nbd serves in the place of nbdkit with {}", call.script.display());
            serve(&options)
        }
        (door, options) => {
            logging::init(1, LogFormat::Text);
            if let (Door::Server, Err(error)) = (door?, options) {
                log::warn!(
                    "nbdkit serves, as imageio-nbd can't do what it was told: {}",
                    crate::one_line(&error)
                );
            }
            run_plugin(&call, arguments)
        }
    }
}

pub(super) fn parse(arguments: &[OsString]) -> std::result::Result<Options, clap::Error> {
    let program = OsStr::new("imageio-nbd");
    let matches = cli::command()
        .try_get_matches_from(std::iter::once(program).chain(arguments.iter().map(AsRef::as_ref)))?;
    Options::from_arg_matches(&matches)
}

/// The options of a call that this program can serve.
fn for_server(arguments: &[OsString]) -> Result<Options> {
    let options = parse(arguments).map_err(|error| anyhow!(cli::complaint(&error)))?;
    nbdkit::check(&options)?;
    Ok(options)
}

/// Serves the disk. virt-v2v waits half a minute for the pid file, and does not look whether its
/// child still lives. So if nothing can be served, that is told, and then there is a pid file:
/// virt-v2v goes on to the socket, which it doesn't find.
fn serve(options: &Options) -> Result<u8> {
    let error = match crate::run(options) {
        Ok(code) => return Ok(code),
        Err(error) => error,
    };
    log::error!("{}", crate::one_line(&error));
    if let Some(pidfile) = options.pidfile.as_deref().filter(|pidfile| !pidfile.exists()) {
        // Whatever fails here, virt-v2v waits as long as it always did.
        if let Err(error) = PidFile::prepare(pidfile).and_then(PidFile::write) {
            log::debug!("virt-v2v waits for it: {}", crate::one_line(&error));
        }
    }
    Ok(1)
}

/// Has the real nbdkit run our plugin. Returns only if that fails.
fn run_plugin(call: &Call, arguments: Vec<OsString>) -> Result<u8> {
    let plugin = plugin(&this_program()?)?;
    log::info!("nbdkit runs the plugin {} instead of {}", plugin.display(), call.script.display());
    run_nbdkit(call.with_plugin(arguments, plugin))
}

/// Becomes the real nbdkit, or answers for it if there is none.
fn run_nbdkit(arguments: Vec<OsString>) -> Result<u8> {
    let real = match real_nbdkit(&this_program()?) {
        Ok(real) => real,
        Err(missing) => return answers::for_nbdkit(&arguments).unwrap_or(Err(missing)),
    };
    let mut command = Command::new(&real);
    command
        .arg0("nbdkit")
        .args(arguments)
        // Else this would be redirected to the shim again.
        .env_remove(REDIRECT_FROM)
        .env_remove(REDIRECT_TO)
        .env(WAS_SHIM, std::process::id().to_string());
    match preloaded_by_others() {
        none if none.is_empty() => command.env_remove(PRELOAD),
        others => command.env(PRELOAD, others),
    };
    Err(anyhow!(command.exec()).context(format!("cannot run {}", real.display())))
}

fn this_program() -> Result<PathBuf> {
    env::current_exe().context("cannot find this program's own file")
}

/// The file that was to be executed, if this was called by its full path; else the first in `PATH`.
fn real_nbdkit(program: &Path) -> Result<PathBuf> {
    let called = env::args_os().next().map(PathBuf::from);
    let called = called.filter(|file| file.is_absolute() && is_program(file) && !is_shim(file, program));
    // The program that looked like the real one led back here: an unknown copy of the shim.
    let again = env::var(WAS_SHIM).is_ok_and(|pid| pid == std::process::id().to_string());
    let real = if again { None } else { called.or_else(|| find("nbdkit", program)) };
    real.context("nbdkit is not in PATH behind its shim: install it")
}

/// The place of the Python plugin for oVirt in nbdkit's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    python: usize,
    script: OsString,
}

impl Call {
    /// The word `python`, and the first script behind it. The word may also be an option's value,
    /// as virt-v2v gives the guest's name to `--name`: then what follows is no such script.
    fn find(arguments: &[OsString]) -> Option<Self> {
        let words = arguments.iter().enumerate().filter(|(_, argument)| *argument == "python");
        words.map(|(python, _)| python).find_map(|python| {
            let script = arguments[python + 1..].iter().find_map(|argument| script(argument))?;
            is_ours(script).then(|| Self { python, script: script.to_owned() })
        })
    }

    /// The arguments with another plugin.
    fn with_plugin(&self, mut arguments: Vec<OsString>, plugin: OsString) -> Vec<OsString> {
        let rest = arguments.split_off(self.python + 1);
        arguments[self.python] = plugin;
        arguments.extend(rest.into_iter().filter(|argument| !self.is_script(argument)));
        arguments
    }

    /// The arguments for a server that needs no plugin.
    fn without_plugin(&self, arguments: &[OsString]) -> Vec<OsString> {
        let (options, rest) = (&arguments[..self.python], &arguments[self.python + 1..]);
        let rest = rest.iter().filter(|argument| !self.is_script(argument));
        options.iter().chain(rest).cloned().collect()
    }

    /// It may be given again.
    fn is_script(&self, argument: &OsStr) -> bool {
        script(argument) == Some(&self.script)
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
        let arguments: Vec<_> = command.split(' ').map(OsString::from).collect();
        let arguments = match Call::find(&arguments) {
            Some(call) => call.with_plugin(arguments, "P.so".into()),
            None => arguments,
        };
        arguments.join(" ".as_ref()).into_string().unwrap()
    }

    #[test]
    fn a_server_gets_all_but_the_plugin() {
        let command =
            "--unix S python script=/x/ovirt-upload-plugin.py size=1 url=U script=/x/ovirt-upload-plugin.py";
        let arguments: Vec<_> = command.split(' ').map(OsString::from).collect();
        let call = Call::find(&arguments).unwrap();
        assert_eq!(call.without_plugin(&arguments), ["--unix", "S", "size=1", "url=U"]);
    }

    #[test]
    fn what_a_server_does_not_know_is_told_without_a_ticket() {
        let ticket = "https://h/images/e0f2f8f4-6f6c-4a40-9f3b-6f0f3c1d2e4a";
        for arguments in [&["--new-option", ticket][..], &["--filter=log", ticket], &["-p", ticket]] {
            let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
            let told = for_server(&arguments).unwrap_err().to_string();
            let option = arguments[0].to_str().unwrap().split('=').next().unwrap();
            assert!(told.contains(option) && !told.contains('\n') && !told.contains("e0f2"), "{told}");
        }
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
