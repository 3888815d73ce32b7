// SPDX-License-Identifier: MIT OR Apache-2.0
//! The manifests tell all that a registry shows of a crate.

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;
    use xshell::{Shell, cmd};

    /// The categories in use. The registry passes over a category that it doesn't know, so each was
    /// looked up in its list.
    const CATEGORIES: &[&str] = &[
        "algorithms",
        "api-bindings",
        "caching",
        "command-line-utilities",
        "concurrency",
        "config",
        "development-tools",
        "development-tools::testing",
        "encoding",
        "filesystem",
        "hardware-support",
        "memory-management",
        "network-programming",
        "os::unix-apis",
        "parser-implementations",
        "simulation",
        "value-formatting",
        "web-programming::http-client",
    ];

    /// The packages that no registry gets.
    const PRIVATE: &[&str] = &["integration-tests", "xtask"];

    fn packages() -> Vec<Value> {
        let sh = Shell::new().unwrap();
        sh.change_dir(crate::project_root());
        let metadata = cmd!(sh, "cargo metadata --format-version 1 --no-deps").quiet().read().unwrap();
        let mut metadata: Value = serde_json::from_str(&metadata).unwrap();
        serde_json::from_value(metadata["packages"].take()).unwrap()
    }

    fn strings<'a>(package: &'a Value, field: &str) -> Vec<&'a str> {
        package[field].as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect()
    }

    /// The first thing that is wrong with what a registry would show of a package.
    fn fault(package: &Value) -> Option<String> {
        let text = |field: &str| package[field].as_str().unwrap_or_default();
        let (keywords, categories) = (strings(package, "keywords"), strings(package, "categories"));
        let directory = Path::new(text("manifest_path")).parent().unwrap();
        let unversioned = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .find(|dependency| dependency["path"].is_string() && dependency["req"] == "*");
        let rules = [
            (text("description").len() > 20, "the description is missing".to_owned()),
            (
                !text("description").ends_with('.'),
                "the description is no sentence, and has no full stop".to_owned(),
            ),
            (text("license") == "MIT OR Apache-2.0", "the licence is another one".to_owned()),
            (
                text("documentation") == format!("https://docs.rs/{}", text("name")),
                "documentation is another page".to_owned(),
            ),
            (package["repository"].is_string(), "repository.workspace = true is missing".to_owned()),
            (package["publish"].is_null(), "it can't be published".to_owned()),
            (
                directory.join(text("readme")).is_file() && !text("readme").is_empty(),
                "the readme is missing".to_owned(),
            ),
            ((1..=5).contains(&keywords.len()), "it has one keyword to five".to_owned()),
            (keywords.iter().all(|keyword| keyword.len() <= 20), "a keyword has up to 20 letters".to_owned()),
            ((1..=5).contains(&categories.len()), "it has one category to five".to_owned()),
            (
                categories.iter().all(|name| CATEGORIES.contains(name)),
                format!("{categories:?} are not all in CATEGORIES"),
            ),
            (
                unversioned.is_none(),
                "a crate of ours needs a version in the root manifest, beside its path".to_owned(),
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map(|(_, rule)| format!("{}: {rule}", text("name")))
    }

    #[test]
    fn every_crate_can_be_published_with_all_that_a_registry_shows() {
        let packages = packages();
        let (private, public): (Vec<_>, Vec<_>) =
            packages.iter().partition(|package| PRIVATE.contains(&package["name"].as_str().unwrap()));
        assert!(public.len() > 15, "the crates are found");
        let faults: Vec<_> = public.into_iter().filter_map(fault).collect();
        assert_eq!(faults, <[String; 0]>::default());
        for package in private {
            assert_eq!(package["publish"], Value::Array(Vec::new()), "{}", package["name"]);
        }
    }

    #[test]
    fn a_crate_that_lacks_something_is_named() {
        let mut package = packages().into_iter().find(|package| package["name"] == "nbd-wire").unwrap();
        assert_eq!(fault(&package), None);
        package["categories"] = serde_json::json!(["network-programing"]);
        assert_eq!(fault(&package).unwrap(), r#"nbd-wire: ["network-programing"] are not all in CATEGORIES"#);
    }
}
