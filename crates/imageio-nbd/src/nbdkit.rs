// SPDX-License-Identifier: MIT OR Apache-2.0
//! The treatment of each option of nbdkit: the check of a command line, and the table in the man
//! page.

use anyhow::{Result, bail};

use crate::cli::Options;

/// The treatment that an option of nbdkit gets here.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Treatment {
    /// The option does what it does in nbdkit.
    Works,
    /// The option does what it does in nbdkit, but for this difference.
    Differs(&'static str),
    /// Nothing, for this reason.
    Ignored(&'static str),
    /// It is an error if it was given, which the function tells, for this reason.
    Refused(fn(&Options) -> bool, &'static str),
}

use Treatment::{Differs, Ignored, Refused, Works};

/// All options of nbdkit 1.44, by the letter and the name that its man page has.
pub(crate) const OPTIONS: &[(Option<char>, &str, Treatment)] = &[
    (Some('4'), "ipv4-only", Works),
    (Some('6'), "ipv6-only", Works),
    (Some('D'), "debug", Ignored("the flags are nbdkit's: -v and RUST_LOG do something like it")),
    (None, "dump-config", Differs("the names are nbdkit's, as far as there is such a thing here")),
    (None, "dump-plugin", Differs("it tells of the plugin imageio that this program stands for")),
    (Some('e'), "exportname", Differs("clients that ask for another name are refused")),
    (None, "exit-with-parent", Works),
    (
        None,
        "filter",
        Refused(
            |options| !options.unused.filter.is_empty(),
            "filters are nbdkit's: run `nbdkit imageio --filter=…` with the plugin imageio",
        ),
    ),
    (Some('f'), "foreground", Works),
    (Some('g'), "group", Works),
    (None, "help", Works),
    (Some('i'), "ipaddr", Differs("without it, only clients on this host can connect")),
    (None, "keepalive", Ignored("it is done anyway")),
    (None, "log", Works),
    (None, "long-options", Works),
    (
        None,
        "mask-handshake",
        Refused(
            |options| options.unused.mask_handshake.is_some(),
            "it is for tests of NBD clients: leave it out, or run `nbdkit imageio`",
        ),
    ),
    (None, "name", Ignored("the list of processes shows the name of the program")),
    (Some('n'), "newstyle", Ignored("there is no other protocol")),
    (None, "no-mc", Works),
    (None, "no-sr", Works),
    (
        Some('o'),
        "oldstyle",
        Refused(
            |options| options.unused.oldstyle,
            "the old protocol tells clients nothing but the size: leave it out, as clients know the new one since 2013",
        ),
    ),
    (Some('P'), "pidfile", Works),
    (
        Some('p'),
        "port",
        Differs(
            "0 takes a free port; without it, there has to be one of -i, -U, --run and -s, as everybody on this host could connect",
        ),
    ),
    (None, "print-uri", Works),
    (Some('r'), "readonly", Works),
    (None, "run", Differs("with --user, the command is run as that user, too")),
    (None, "selinux-label", Differs("where SELinux is not enabled, it has no effect")),
    (None, "short-options", Works),
    (Some('s'), "single", Works),
    (None, "swap", Works),
    (
        Some('t'),
        "threads",
        Differs("it is how many requests of a client are taken at a time; there are no more threads"),
    ),
    (None, "timeout", Differs("60 seconds are the default")),
    (None, "tls", Works),
    (None, "tls-certificates", Works),
    (
        None,
        "tls-psk",
        Refused(
            |options| options.unused.tls_psk.is_some(),
            "TLS with pre-shared keys is not supported: use certificates (--tls-certificates DIR), and \
             --tls-verify-peer to admit only clients that have one",
        ),
    ),
    (None, "tls-verify-peer", Works),
    (Some('U'), "unix", Works),
    (
        Some('u'),
        "user",
        Differs("without --group, the groups become those of the user; the unix socket becomes the user's"),
    ),
    (Some('v'), "verbose", Differs("twice, it tells every detail")),
    (Some('V'), "version", Works),
    (
        None,
        "vsock",
        Refused(
            |options| options.unused.vsock,
            "AF_VSOCK is not supported: use -U or -p, or run `nbdkit imageio --vsock`",
        ),
    ),
];

/// Fails if an option was given that is refused.
pub(crate) fn check(options: &Options) -> Result<()> {
    for (_, name, treatment) in OPTIONS {
        if let Refused(is_given, reason) = treatment
            && is_given(options)
        {
            bail!("--{name}: {reason}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{command, tests::options};

    #[test]
    fn each_option_is_known_to_the_command_line() {
        let mut command = command();
        command.build();
        for (letter, name, _) in OPTIONS {
            let has_name = |argument: &&clap::Arg| {
                argument.get_long_and_visible_aliases().is_some_and(|names| names.contains(name))
            };
            let known = command.get_arguments().find(has_name);
            let known = known.unwrap_or_else(|| panic!("--{name} is unknown"));
            assert!(letter.is_none() || known.get_short() == *letter, "--{name}");
        }
    }

    #[test]
    fn what_is_refused_is_refused_by_its_name() {
        for (given, name) in [
            ("--filter=log", "--filter: "),
            ("--mask-handshake=1", "--mask-handshake: "),
            ("-o", "--oldstyle: "),
            ("--tls-psk=f", "--tls-psk: "),
            ("--vsock", "--vsock: "),
        ] {
            let error = check(&options(&format!("imageio-nbd {given} url=u"))).unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains(": "), "{error}");
        }
        let refused = OPTIONS.iter().filter(|(.., treatment)| matches!(treatment, Refused(..)));
        assert_eq!(refused.count(), 5);
        let rest = "imageio-nbd -D x=1 --name=n -n --keepalive --swap url=u";
        check(&options(rest)).unwrap();
    }
}
