// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parameters as users write them.

use super::*;

fn settings(arguments: &[&str]) -> Result<Settings, ConfigError> {
    let mut parser = Parser::new();
    for argument in arguments {
        parser.set_argument(argument)?;
    }
    parser.finish().map(|source| source.settings)
}

#[test]
fn what_virt_v2v_gives() {
    let given = ["size=1", "url=https://h/images/1", "size=1073741824", "url=https://h/images/2"];
    let more = ["cafile=/etc/ca.pem", "insecure=TRUE", "is_ovirt_host=1"];
    let settings = settings(&[&given[..], &more].concat()).unwrap();
    assert_eq!(settings.size, Some(1 << 30));
    assert_eq!(settings.url, UrlSource::Inline("https://h/images/2".into()));
    assert_eq!(settings.cafile.as_deref(), Some("/etc/ca.pem".as_ref()));
    assert!(settings.insecure && settings.is_ovirt_host);
}

#[test]
fn a_value_alone_is_the_url_also_with_an_equals_sign_in_it() {
    let settings = settings(&["https://h/images/a=b", "is-ovirt-host=no"]).unwrap();
    assert_eq!(settings.url, UrlSource::Inline("https://h/images/a=b".into()));
    assert!(!settings.is_ovirt_host);
}

#[test]
fn a_word_that_is_neither_a_parameter_nor_a_url_is_called_so() {
    for word in ["uplaod", "ticket", "/tmp/ticket", "a b=c"] {
        let error = settings(&[word]).unwrap_err();
        assert_eq!(error, ConfigError::Argument { argument: word.to_owned() });
        let error = Exports::new().set_argument(word).unwrap_err();
        assert_eq!(error, ConfigError::Argument { argument: word.to_owned() });
    }
    let error = settings(&["uplaod"]).unwrap_err().to_string();
    assert_eq!(error, "'uplaod' is neither NAME=VALUE, nor a URL, nor +FILE: see --help");
}

#[test]
fn paths_become_absolute_before_a_daemon_changes_directory() {
    let settings = settings(&["url=+ticket", "cafile=ca.pem"]).unwrap();
    let here = std::env::current_dir().unwrap();
    let mut parser = Parser::new();
    parser.set_argument("stats_json=stats").unwrap();
    assert_eq!(parser.stats_json(), Some(&*here.join("stats")));
    parser.set_argument("stats-json=-").unwrap();
    assert_eq!(parser.stats_json(), Some(Path::new("-")));
    assert_eq!(settings.cafile, Some(here.join("ca.pem")));
    assert_eq!(settings.url, UrlSource::File(here.join("ticket")));
}

#[test]
fn the_url_may_come_from_standard_input() {
    assert_eq!(settings(&["-"]).unwrap().url, UrlSource::Stdin);
}

#[test]
fn sizes_and_times() {
    let given = ["url=u", "size=2M", "keep-alive=0", "timeout=0.5", "connections=8"];
    let sizes = ["max_request=1M", "preferred_block_size=32M", "read_ahead=8M"];
    let recovery = ["replay-buffer=0", "reconnect-timeout=0"];
    let settings = settings(&[&given[..], &sizes, &recovery].concat()).unwrap();
    assert_eq!((settings.replay_buffer, settings.reconnect_timeout), (Some(0), Duration::ZERO));
    assert_eq!((settings.max_request, settings.preferred_block_size), (Some(1 << 20), 32 << 20));
    assert_eq!((settings.size, settings.read_ahead), (Some(2 << 20), 8 << 20));
    assert_eq!(settings.keep_alive, None);
    assert_eq!(settings.timeouts.data, Duration::from_millis(500));
    assert_eq!(settings.connections, Some(8));
}

#[test]
fn what_follows_the_link_unless_it_is_given() {
    let chosen = |arguments: &[&str]| {
        let settings = settings(&[&["url=u"], arguments].concat()).unwrap();
        (settings.connections, settings.max_request, settings.replay_buffer)
    };
    assert_eq!(chosen(&[]), (None, None, None));
    assert_eq!(
        chosen(&["connections=2", "max-request=4M", "replay-buffer=0"]),
        (Some(2), Some(4 << 20), Some(0))
    );
    let again =
        ["connections=2", "max-request=0", "connections=auto", "max_request=auto", "replay-buffer=auto"];
    assert_eq!(chosen(&again), (None, None, None));
}

#[test]
fn bad_values_are_told_in_one_line() {
    for argument in [
        "size=-1",
        "size=ten",
        "size=",
        "size=99999999999999999999",
        "insecure=maybe",
        "no-hole=keep",
        "max-request=much",
        "max-request=65535",
        "max-request=1000000",
        "read-ahead=far",
        "preferred-block-size=0",
        "preferred-block-size=4095",
        "preferred-block-size=256",
        "preferred-block-size=64M",
        "preferred-block-size=99G",
        "replay-buffer=-1",
        "reconnect-timeout=x",
        "dirty-bitmap=",
        "dirty-bitmap=sda:",
        "connections=0",
        "connections=1000",
        "connections=x",
        "timeout=0",
        "timeout=-1",
        "timeout=inf",
        "timeout=1e30",
        "keep-alive=soon",
        "cafile=",
        "url=",
        "url=+",
        "stats-json=",
        "colour=red",
    ] {
        let error = settings(&["url=u", argument]).expect_err(argument).to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(argument.split_once('=').unwrap().0), "{error}");
    }
    assert_eq!(settings(&["size=1"]), Err(ConfigError::MissingUrl));
}

#[test]
fn a_bitmap_may_be_called_by_a_checkpoint() {
    let name = "0f2f8f4e-6f6c-4a40-9f3b-6f0f3c1d2e4a";
    let bitmap = |argument: &str| settings(&["url=u", argument]).unwrap().dirty_bitmap;
    assert_eq!(bitmap(&format!("dirty_bitmap={name}")), name);
    assert_eq!((bitmap("dirty-bitmap=a b:c"), bitmap("size=1")), ("a b:c".to_owned(), "dirty".to_owned()));
}

#[test]
fn a_user_is_given_by_name_or_number() {
    let user = |argument| settings(&["url=u", argument]).map(|settings| settings.unix_socket_user);
    assert_eq!(user("unix-socket-user=root"), Ok(Some(0)));
    assert_eq!(user("unix_socket_user=36"), Ok(Some(36)));
    assert_eq!(user("size=1"), Ok(None));
    for argument in ["unix-socket-user=", "unix-socket-user=-1", "unix-socket-user=no such user"] {
        let error = user(argument).expect_err(argument).to_string();
        assert!(error.starts_with("unix-socket-user: ") && error.contains("not a user"), "{error}");
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_not_shown() {
    const TICKET: &str = "e0f2f8f4-6f6c-4a40-9f3b-6f0f3c1d2e4a";
    let url = format!("https://host:54322/images/{TICKET}");
    let places = parameters().map(|parameter| parameter.name).filter(|name| *name != "url");
    let values = [TICKET, &url, &format!("+{url}"), &url[8..]].map(str::to_owned);
    let wrong = places.flat_map(|name| values.iter().map(move |value| format!("{name}={value}")));
    // These have such names, too.
    let may_be_uuid = |argument: &str| {
        let (name, value) = split(argument).unwrap();
        value == TICKET
            && ["dirty-bitmap", "disk", "new-disk", "snapshot", "storage-domain", "config", "description"]
                .contains(&name)
    };
    let wrong = wrong.filter(|argument| !may_be_uuid(argument));
    let more = [
        format!("{TICKET}=x"),
        format!("ticket={TICKET}"),
        format!("ulr={url}"),
        format!("url=+{url}"),
        format!("+{url}"),
    ];
    for argument in wrong.chain(more) {
        let error = settings(&["url=u", &argument]).expect_err(&argument).to_string();
        assert!(!error.contains(TICKET), "{argument}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let error = Parser::new().set(&url, "x").unwrap_err().to_string();
    assert!(error.starts_with("unknown parameter ") && !error.contains(TICKET), "{error}");
}

#[test]
fn the_parameter_that_was_perhaps_meant_is_told() {
    let told = |name| Parser::new().set(name, "x").unwrap_err().to_string();
    for (name, meant) in
        [("sise", "size"), ("ca_file", "cafile"), ("ulr", "url"), ("readahead", "read-ahead")]
    {
        let expected =
            format!("unknown parameter '{name}': did you mean {meant}? --help lists all parameters");
        assert_eq!(told(name), expected);
    }
    assert_eq!(told("xyz"), "unknown parameter 'xyz': --help lists all parameters");
}

#[test]
fn long_texts_become_lines() {
    assert_eq!(wrap("a bc  def\nghij kl", 6), ["a bc", "def", "ghij", "kl"]);
    assert_eq!(wrap("longer than", 3), ["longer", "than"]);
    assert_eq!(wrap("", 3), [""; 0]);
}

#[test]
fn the_table_is_fit_for_a_man_page() {
    for parameter in parameters() {
        assert!(is_name(parameter.name) && !parameter.name.contains('_'));
        assert!(parameter.help.ends_with('.'), "{}", parameter.name);
    }
}

/// These defaults are words, as they depend on something else, or there is none. That of
/// `engine-timeout` is of the engine's client.
const DEFAULT_IN_WORDS: &[&str] = &[
    "engine-timeout",
    "url",
    "size",
    "cafile",
    "unix-socket-user",
    "reconnect-timeout",
    "stats-json",
    "engine",
    "user",
    "password",
    "engine-cafile",
    "config",
    "disk",
    "new-disk",
    "snapshot",
    "direction",
    "storage-domain",
    "format",
    "sparse",
    "initial-size",
    "description",
];

#[test]
fn the_default_that_is_told_is_the_one_that_counts() {
    const IMAGE: &str = "snapshot=7dcf6bd6-0b39-4b5f-9d4e-1ba4f6b1c02f";
    let engine = |target: &[&'static str]| [&["engine=https://e/", "user=u@p"], target].concat();
    let uses = [
        vec!["url=https://h/images/t"],
        engine(&["disk=d"]),
        engine(&[IMAGE]),
        engine(&["new-disk=d", "storage-domain=s", "size=1G"]),
    ];
    for parameter in parameters().filter(|parameter| !DEFAULT_IN_WORDS.contains(&parameter.name)) {
        let with = |arguments: &[&str], default: bool| {
            let mut parser = Parser::new();
            arguments.iter().for_each(|argument| parser.set_argument(argument).unwrap());
            if default {
                parser.set(parameter.name, parameter.default).unwrap();
            }
            parser.finish().map(|source| format!("{source:?}"))
        };
        let fitting = uses.iter().filter(|arguments| with(arguments, true).is_ok());
        assert!(fitting.clone().count() > 0, "{}", parameter.name);
        for arguments in fitting {
            assert_eq!(with(arguments, true), with(arguments, false), "{}", parameter.name);
        }
    }
    for name in DEFAULT_IN_WORDS {
        assert!(parameters().any(|parameter| parameter.name == *name), "{name} is no parameter any more");
    }
}

#[test]
fn the_bounds_that_are_told_are_those_that_count() {
    // Each line has the bounds that are told, the values at them that are taken, and those that
    // aren't.
    let bounds = [
        ("connections", "from 1 to 64", ["1", "64"], ["0", "65"]),
        ("preferred-block-size", "from 512 to 32M", ["512", "32M"], ["256", "64M"]),
        ("max-request", "from 64K on", ["64K", "1G"], ["60K", "65K"]),
        ("engine-timeout", "from 1 to 86400", ["1", "86400"], ["0", "86401"]),
        ("inactivity-timeout", "From 30 to 86400", ["30", "86400"], ["29", "86401"]),
    ];
    for (name, told, taken, refused) in bounds {
        let parameter = parameters().find(|parameter| parameter.name == name).unwrap();
        assert!(parameter.help.contains(told), "{name}: {}", parameter.help);
        for value in taken {
            assert_eq!(Parser::new().set(name, value), Ok(()), "{name}={value}");
        }
        for value in refused {
            assert!(Parser::new().set(name, value).is_err(), "{name}={value}");
        }
    }
    for parameter in
        parameters().filter(|parameter| parameter.value == "SECONDS" && !parameter.help.contains("86400"))
    {
        let takes_none = Parser::new().set(parameter.name, "0").is_ok();
        assert_eq!(takes_none, parameter.help.contains("0: "), "{}: {}", parameter.name, parameter.help);
    }
}
