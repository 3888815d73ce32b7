// SPDX-License-Identifier: MIT OR Apache-2.0
use engine_transfer::Source;

use engine_transfer::PasswordSource;

use super::*;

fn source(arguments: &[&str]) -> Result<Source, ConfigError> {
    let mut parser = Parser::new();
    arguments.iter().try_for_each(|argument| parser.set_argument(argument))?;
    parser.finish()
}

fn target(arguments: &[&str]) -> Target {
    source(arguments).unwrap().engine.unwrap().target
}

#[test]
fn a_disk_takes_the_place_of_a_url() {
    let given = ["engine=https://e/ovirt-engine/api", "user=admin@internal", "password=+/pw", "disk=my disk"];
    let engine = source(&given).unwrap().engine.unwrap();
    assert_eq!(engine.target, Target::Disk("my disk".into()));
    assert_eq!(engine.credentials.password, Some(PasswordSource::File("/pw".into())));
    assert_eq!((engine.direction, engine.inactivity_timeout), (None, Duration::from_secs(60)));
    let more = ["config=lab", "disk=x", "direction=download", "inactivity_timeout=300"];
    let engine = source(&more).unwrap().engine.unwrap();
    assert_eq!((engine.direction, engine.inactivity_timeout.as_secs()), (Some(Direction::Download), 300));
    assert!(source(&["url=u"]).unwrap().engine.is_none());
}

#[test]
fn a_new_disk_and_a_snapshot_have_parameters_of_their_own() {
    let Target::NewDisk(new) =
        target(&["new-disk=x", "storage-domain=data", "size=1G", "backup=incremental"])
    else {
        panic!()
    };
    assert_eq!((new.size, new.format, new.tracks_changes), (1 << 30, DiskFormat::Cow, true));
    let snapshot = target(&["snapshot=0f2f8f4e-6f6c-4a40-9f3b-6f0f3c1d2e4a", "shallow=true"]);
    assert!(matches!(snapshot, Target::Snapshot { shallow: true, .. }));
}

#[test]
fn what_makes_no_sense_together_is_refused() {
    for (arguments, expected) in [
        (&["url=u", "disk=x"][..], "url: a disk of an engine is given, too"),
        (&["disk=x", "new-disk=y"], "new-disk: disk= is given, too"),
        (&["engine=https://e"], "disk: it is missing: disk=NAME"),
        (&["disk=x", "format=raw"], "format: this is for new-disk="),
        (&["url=u", "shallow=true"], "shallow: this is for snapshot="),
        (&["new-disk=x", "size=1G"], "storage-domain: it is missing"),
        (&["new-disk=x", "storage-domain=s"], "size: it is missing: give"),
        (
            &["new-disk=x", "storage-domain=s", "size=1", "format=raw", "backup=incremental"],
            "backup: changes can be tracked",
        ),
    ] {
        let error = source(arguments).expect_err(&arguments.join(" ")).to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn an_engine_alone_names_no_disk() {
    let finish = |arguments: &[&str]| {
        let mut parser = Parser::new();
        arguments.iter().for_each(|argument| parser.set_argument(argument).unwrap());
        parser.finish_engine().map_err(|error| error.to_string())
    };
    let (settings, credentials) = finish(&["engine=e", "connections=2"]).unwrap();
    assert_eq!((settings.connections, credentials.url.as_deref()), (Some(2), Some("e")));
    assert!(finish(&[]).is_ok(), "the environment may tell");
    for given in ["disk=x", "url=u", "format=raw", "size=1"] {
        let name = given.split('=').next().unwrap();
        assert!(finish(&[given]).unwrap_err().starts_with(&format!("{name}: this is for a disk")), "{given}");
    }
}

#[test]
fn bad_values_are_told_in_one_line_and_a_password_never() {
    for argument in [
        "engine=",
        "engine=0f2f8f4e-6f6c-4a40-9f3b-6f0f3c1d2e4a",
        "user=admin",
        "password=hunter2",
        "disk=",
        "disk=https://h/images/x",
        "direction=sideways",
        "format=vmdk",
        "backup=often",
        "config=",
    ] {
        let error = source(&["disk=x", argument]).expect_err(argument).to_string();
        assert!(error.lines().count() == 1 && !error.contains("hunter2"), "{error}");
    }
}
