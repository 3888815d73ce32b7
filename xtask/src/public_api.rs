// SPDX-License-Identifier: MIT OR Apache-2.0
//! The crates whose types others meet in the interface of a crate, as rustdoc knows it.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use serde_json::Value;
    use xshell::{Shell, cmd};

    const STANDARD: [&str; 3] = ["alloc", "core", "std"];

    /// The interface of `nbd-frontend` in JSON. That is no stable format yet, which rustdoc alone
    /// is told to overlook: it would have everything built anew if the others heard of it.
    fn documented(features: &str) -> Value {
        let sh = Shell::new().unwrap();
        sh.change_dir(crate::project_root());
        let target_dir = crate::target_dir(&sh).unwrap();
        let rustdoc = target_dir.join("rustdoc-json");
        fs::write(&rustdoc, "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n").unwrap();
        fs::set_permissions(&rustdoc, Permissions::from_mode(0o755)).unwrap();
        let _rustdoc = sh.push_env("RUSTDOC", rustdoc);
        cmd!(sh, "cargo rustdoc --quiet --locked --package nbd-frontend --lib --features {features}")
            .args(["--", "-Z", "unstable-options", "--output-format", "json"])
            .run()
            .unwrap();
        serde_json::from_str(&sh.read_file(target_dir.join("doc/nbd_frontend.json")).unwrap()).unwrap()
    }

    /// The crates of all types and traits in an interface, but for what is true of any type.
    fn crates(interface: &Value) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        for item in interface["index"].as_object().unwrap().values() {
            let implemented = &item["inner"]["impl"];
            let is_of_any_type =
                !implemented["blanket_impl"].is_null() || implemented["is_synthetic"] == true;
            if item["crate_id"] == 0 && !is_of_any_type {
                note_paths(&item["inner"], &mut ids);
            }
        }
        let name = |id: String| {
            let number = interface["paths"][&id]["crate_id"].as_u64().unwrap_or_default();
            let name = interface["external_crates"][number.to_string()]["name"].as_str();
            name.unwrap_or("nbd_frontend").to_owned()
        };
        ids.into_iter().map(name).collect()
    }

    /// Takes note of each type or trait that is named: it has a path and an ID.
    fn note_paths(value: &Value, ids: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                let names_something = fields.contains_key("path") || fields.contains_key("source");
                if let (true, Some(Value::Number(id))) = (names_something, fields.get("id")) {
                    ids.insert(id.to_string());
                }
                fields.values().for_each(|value| note_paths(value, ids));
            }
            Value::Array(values) => values.iter().for_each(|value| note_paths(value, ids)),
            _ => {}
        }
    }

    /// One test, as both write the same file.
    #[test]
    fn the_nbd_server_s_interface_has_no_types_of_crates_that_may_change() {
        let own = ["block_device_traits", "nbd_frontend", "nbd_wire"];
        let plain = crates(&documented(""));
        assert!(own.iter().all(|own| plain.contains(*own)) && plain.contains("std"), "{plain:?}");
        let tls = crates(&documented("rustls"));
        assert!(tls.contains("rustls"), "what is not its own is found: {tls:?}");
        for (crates, rustls) in [(plain, &[][..]), (tls, &["rustls"])] {
            let allowed = [&own, &STANDARD[..], &["bytes"], rustls].concat();
            let others: Vec<_> = crates.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
            assert!(others.is_empty(), "{others:?}");
        }
    }
}
