// SPDX-License-Identifier: MIT OR Apache-2.0

use clap::FromArgMatches;

use super::*;

/// Returns the options that a command line, of words between spaces, is understood as.
pub(crate) fn options(arguments: &str) -> Options {
    let matches = command().get_matches_from(arguments.split_whitespace());
    Options::from_arg_matches(&matches).unwrap()
}

#[test]
fn the_definition_is_sound() {
    command().debug_assert();
}

#[test]
fn what_virt_v2v_gives_nbdkit() {
    let options = options(
        "imageio-nbd --exit-with-parent --foreground --pidfile /p --unix /s --threads 8 \
         -D nbdkit.backend.datapath=0 --verbose size=1 url=https://h/images/t",
    );
    assert!(options.exit_with_parent && options.foreground);
    assert_eq!(options.unix, Some("/s".into()));
    assert_eq!(options.parameters, ["size=1", "url=https://h/images/t"]);
}

#[test]
fn the_arguments_of_virt_v2v_are_its_own() {
    let Some(Command::VirtV2v { arguments }) =
        options("imageio-nbd virt-v2v --help -o rhv-upload -U x -- -V").command
    else {
        panic!("another command");
    };
    assert_eq!(arguments, ["--help", "-o", "rhv-upload", "-U", "x", "--", "-V"]);
    assert!(options("imageio-nbd -U - virt-v2v-is-not-a-url=x").command.is_none());
}

#[test]
fn info_takes_parameters_and_options_in_any_order() {
    let options = options("imageio-nbd info url=+t --json -v cafile=ca.pem");
    assert_eq!(options.verbosity(), 1);
    let Some(Command::Info { json, parameters, .. }) = options.command else { panic!("another command") };
    assert!(json);
    assert_eq!(parameters, ["url=+t", "cafile=ca.pem"]);
}

#[test]
fn tls_takes_the_words_of_nbdkit() {
    for (word, mode) in [("off", TlsMode::Off), ("1", TlsMode::On), ("REQUIRED", TlsMode::Require)] {
        assert_eq!(options(&format!("imageio-nbd --tls={word} u")).tls, Some(mode));
    }
    assert_eq!(options("imageio-nbd u").tls, None);
}

#[test]
fn sockets_that_were_passed_take_the_place_of_options() {
    let (told, untold) = (options("imageio-nbd -s u"), options("imageio-nbd u"));
    assert!(told.check(false).is_ok() && untold.check(true).is_ok());
    assert!(told.check(true).is_err() && untold.check(false).is_err());
    assert!(!told.becomes_daemon(false) && !untold.becomes_daemon(true));
    assert!(options("imageio-nbd -U s u").becomes_daemon(false));
}

#[test]
fn a_checksum_has_options_of_its_own() {
    let Some(Command::Checksum(options)) =
        options("imageio-nbd checksum url=u --compare disk.img --block-size 1M timeout=5 -v").command
    else {
        panic!("another command");
    };
    assert_eq!(options.parameters, ["url=u", "timeout=5"]);
    assert_eq!((options.block_size, options.algorithm.name(), options.verbose), (1 << 20, "blake2b", 1));
    for wrong in ["--block-size=1048577", "--block-size=32M", "--block-size=4096", "--algorithm=crc32"] {
        assert!(
            command().try_get_matches_from(["imageio-nbd", "checksum", "url=u", wrong]).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn a_dash_is_a_value_and_short_options_combine() {
    let options = options("imageio-nbd -frvv -U - u");
    assert!(options.foreground && options.readonly);
    assert_eq!((options.verbose, options.unix), (2, Some("-".into())));
}
