// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parameters of several transfers, in sections.

use std::path::Path;

use engine_transfer::Source;
use imageio_device::UrlSource;

use crate::parse::export_name;
use crate::table::{EXPORT, STATS_JSON};
use crate::{ConfigError, Parser, split};

/// The number of transfers that may be served together. Each takes some threads and up to
/// `replay-buffer` of memory.
const MOST_EXPORTS: usize = 128;

/// Takes the arguments of a command line for one transfer or several. `export=NAME` begins the
/// parameters of one; what stands before the first is for all of them.
#[derive(Debug, Clone, Default)]
pub struct Exports {
    common: Parser,
    sections: Vec<(String, Parser)>,
}

/// One of the transfers that are to be served.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ExportSettings {
    /// The name that clients call it by; `None` for the only one of a command line without
    /// `export=`.
    pub name: Option<String>,
    /// The transfer, or the disk of an engine, that is served.
    pub source: Source,
}

impl Exports {
    /// No arguments yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an argument as [`Parser::set_argument`] does, or `export=NAME`.
    ///
    /// # Errors
    /// As there; where an export is concerned, [`ConfigError::Export`] names it.
    pub fn set_argument(&mut self, argument: &str) -> Result<(), ConfigError> {
        let (name, value) = split(argument)?;
        if name == EXPORT.name {
            return self.begin(value).map_err(|reason| ConfigError::Value { name: EXPORT.name, reason });
        }
        self.set(name, value)
    }

    /// Takes a parameter as [`Parser::set`] does.
    ///
    /// # Errors
    /// As there; where an export is concerned, [`ConfigError::Export`] names it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        match self.sections.last_mut() {
            Some(_) if name.replace('_', "-") == STATS_JSON.name => Err(ConfigError::Value {
                name: STATS_JSON.name,
                reason: "it is about all exports: put it before the first export=".to_owned(),
            }),
            Some((export, parser)) => parser.set(name, value).map_err(|error| error.of(export)),
            None => self.common.set(name, value),
        }
    }

    fn begin(&mut self, name: &str) -> Result<(), String> {
        let name = export_name(name)?;
        if self.sections.iter().any(|(other, _)| *other == name) {
            return Err(format!("'{}' is the name of another one: give each its own", name.escape_debug()));
        }
        if self.sections.len() == MOST_EXPORTS {
            return Err(format!("{MOST_EXPORTS} can be served together: start another server for the rest"));
        }
        self.sections.push((name, self.common.clone()));
        Ok(())
    }

    /// The file that gets the figures of all transfers; `-` is standard error.
    #[must_use]
    pub fn stats_json(&self) -> Option<&Path> {
        self.common.stats_json()
    }

    /// The settings of all transfers, in the order of the arguments.
    ///
    /// # Errors
    /// A transfer isn't named, or two come from standard input.
    pub fn finish(self) -> Result<Vec<ExportSettings>, ConfigError> {
        if self.sections.is_empty() {
            return Ok(vec![ExportSettings { name: None, source: self.common.finish()? }]);
        }
        if self.common.names_a_disk() {
            return Err(url(
                "before the first export= stands what is for all: put each url= or disk= behind its export=",
            ));
        }
        let finish = |(name, parser): (String, Parser)| match parser.finish() {
            Ok(source) => Ok(ExportSettings { name: Some(name), source }),
            Err(error) => Err(error.of(&name)),
        };
        let exports = self.sections.into_iter().map(finish).collect::<Result<Vec<_>, _>>()?;
        if exports.iter().filter(|export| export.source.settings.url == UrlSource::Stdin).count() > 1 {
            return Err(url("standard input has the URL of one transfer: use url=+FILE for the others"));
        }
        Ok(exports)
    }
}

fn url(reason: &str) -> ConfigError {
    ConfigError::Value { name: "url", reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exports(arguments: &[&str]) -> Result<Vec<ExportSettings>, ConfigError> {
        let mut exports = Exports::new();
        arguments.iter().try_for_each(|argument| exports.set_argument(argument))?;
        exports.finish()
    }

    fn refused(arguments: &[&str]) -> String {
        let error = exports(arguments).expect_err(&arguments.join(" ")).to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    }

    #[test]
    fn each_section_has_its_own_parameters_and_those_before_the_first() {
        let given = ["connections=2", "cafile=/ca.pem", "size=5", "export=sda", "+sda.url", "connections=3"];
        let more = ["export=sdb", "url=http://h/images/b", "size=6", "size=7", "export=", "url=-"];
        let exports = exports(&[&given[..], &more].concat()).unwrap();
        let told: Vec<_> = exports
            .iter()
            .map(|ExportSettings { name, source: Source { settings, .. } }| {
                assert_eq!(settings.cafile.as_deref(), Some("/ca.pem".as_ref()));
                (name.as_deref().unwrap(), settings.connections, settings.size)
            })
            .collect();
        assert_eq!(told, [("sda", Some(3), Some(5)), ("sdb", Some(2), Some(7)), ("", Some(2), Some(5))]);
        let here = std::env::current_dir().unwrap();
        assert_eq!(exports[0].source.settings.url, UrlSource::File(here.join("sda.url")));
        assert_eq!(exports[1].source.settings.url, UrlSource::Inline("http://h/images/b".into()));
        assert_eq!(exports[2].source.settings.url, UrlSource::Stdin);
    }

    #[test]
    fn without_a_section_there_is_one_transfer() {
        let exports = exports(&["http://h/images/a=b", "size=5"]).unwrap();
        let [ExportSettings { name: None, source }] = &exports[..] else { panic!("{exports:?}") };
        assert_eq!(source.settings.size, Some(5));
        assert_eq!(refused(&["size=5"]), ConfigError::MissingUrl.to_string());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_export() {
        let two = ["export=sda", "url=u", "export=sdb"];
        for (more, expected) in [
            (&[][..], "export 'sdb': url is missing: "),
            (&["size=ten"], "export 'sdb': size: 'ten' is not a size: "),
            (&["colour=red"], "export 'sdb': unknown parameter 'colour': "),
            (&["url=v", "export=sda", "url=w"], "export: 'sda' is the name of another one: "),
            (&["url=v", "export=a\nb", "url="], "export 'a\\nb': url: a URL is expected"),
        ] {
            let error = refused(&[&two, more].concat());
            assert!(error.starts_with(expected), "{error}");
        }
        let stdin = refused(&["export=sda", "url=-", "export=sdb", "-"]);
        assert_eq!(stdin, "url: standard input has the URL of one transfer: use url=+FILE for the others");
        let early = refused(&["url=u", "export=sda", "url=v"]);
        assert!(early.starts_with("url: before the first export= stands what is for all: "), "{early}");
    }

    #[test]
    fn one_file_has_the_figures_of_all() {
        let mut exports = Exports::new();
        for argument in ["stats_json=/s", "export=sda", "url=u"] {
            exports.set_argument(argument).unwrap();
        }
        assert_eq!(exports.stats_json(), Some(Path::new("/s")));
        let error = exports.set_argument("stats_json=/t").unwrap_err().to_string();
        assert_eq!(error, "stats-json: it is about all exports: put it before the first export=");
    }

    #[test]
    fn names_and_their_number_are_bounded_and_no_ticket_is_one() {
        let long = |length| format!("export={}", "x".repeat(length));
        assert_eq!(exports(&[&long(4096), "url=u"]).unwrap()[0].name.as_ref().unwrap().len(), 4096);
        assert_eq!(refused(&[&long(4097), "url=u"]), "export: a name of at most 4096 bytes is expected");
        let secret = "https://host:54322/images/e0f2f8f4-6f6c-4a40-9f3b-6f0f3c1d2e4a";
        let error = refused(&[&format!("export={secret}")]);
        assert_eq!(error, "export: a name is expected, not a URL");
        // Disks have such names.
        assert!(exports(&["export=e0f2f8f4-6f6c-4a40-9f3b-6f0f3c1d2e4a", "url=u"]).is_ok());
        let many: Vec<_> = (0..=MOST_EXPORTS).flat_map(|n| [format!("export={n}"), "url=u".into()]).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(exports(&many[2..]).unwrap().len(), MOST_EXPORTS);
        assert!(refused(&many).starts_with("export: 128 can be served together: "));
    }

    #[test]
    fn a_parser_of_one_transfer_takes_no_section() {
        let error = Parser::new().set_argument("export=sda").unwrap_err().to_string();
        assert!(error.starts_with("export: one transfer is expected here"), "{error}");
    }
}
