// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON document. `docs/statistics.md` is its reference: names are added there and here, and
//! neither changed nor removed without another [`VERSION`].

use imageio_device::Statistics;
use imageio_device::statistics::Operations;
use serde::Serialize;

use crate::clients::ClientStatistics;

/// The version of the schema.
const VERSION: u32 = 1;

/// The program's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// It serves.
    Running,
    /// It has ended, and all that was acknowledged is safe.
    Complete,
    /// It has ended in another way: a disk may be incomplete.
    Incomplete,
}

/// All that is told.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    version: u32,
    program: &'a str,
    state: State,
    elapsed_seconds: f64,
    exports: Vec<Named<'a>>,
    total: Figures,
}

/// The figures of one transfer, with its name.
#[derive(Debug, Serialize)]
struct Named<'a> {
    name: &'a str,
    #[serde(flatten)]
    figures: Figures,
}

/// The figures of what came in, and of what went out for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) clients: ClientStatistics,
    #[serde(serialize_with = "server")]
    pub(crate) server: Statistics,
}

impl Figures {
    pub(crate) fn total(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::default(), |mut total, figures| {
            total.clients += figures.clients;
            total.server += figures.server;
            total
        })
    }
}

/// With the sums, so that nobody has to add.
#[derive(Serialize)]
struct Server<'a> {
    all: Operations,
    #[serde(flatten)]
    statistics: &'a Statistics,
}

fn server<S: serde::Serializer>(statistics: &Statistics, serializer: S) -> Result<S::Ok, S::Error> {
    Server { all: statistics.operations(), statistics }.serialize(serializer)
}

impl<'a> Report<'a> {
    pub(crate) fn new(
        program: &'a str,
        state: State,
        elapsed_seconds: f64,
        exports: &[(&'a str, Figures)],
    ) -> Self {
        let total = Figures::total(exports.iter().map(|(_, figures)| *figures));
        let exports = exports.iter().map(|&(name, figures)| Named { name, figures }).collect();
        Self { version: VERSION, program, state, elapsed_seconds, exports, total }
    }

    /// On one line.
    pub(crate) fn line(&self) -> String {
        serde_json::to_string(self).expect("names and numbers can be told in JSON") + "\n"
    }

    /// For a file that people may look into, too.
    pub(crate) fn document(&self) -> String {
        serde_json::to_string_pretty(self).expect("names and numbers can be told in JSON") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    fn figures(bytes: u64) -> Figures {
        let mut figures = Figures::default();
        figures.clients.writes.bytes = bytes;
        figures.server.for_clients.writes.sent.bytes = bytes;
        figures.server.written_again.writes.sent.bytes = 1;
        figures.server.connections.lost = 1;
        figures
    }

    #[test]
    fn exports_are_told_one_by_one_and_added_up() {
        let exports = [("sda", figures(10)), ("sd\"b", figures(20))];
        let report = Report::new("imageio-nbd 1", State::Incomplete, 1.5, &exports);
        assert_eq!(report.line().lines().count(), 1);
        let told: Value = serde_json::from_str(&report.document()).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&report.line()).unwrap(), told);
        assert_eq!((&told["version"], &told["state"]), (&json!(1), &json!("incomplete")));
        assert_eq!(told["exports"][1]["name"], "sd\"b");
        let sums = |of: &Value| {
            let written = |what: &str| of["server"][what]["writes"]["sent"]["bytes"].as_u64().unwrap();
            (of["clients"]["writes"]["bytes"].as_u64().unwrap(), written("all"), written("for_clients"))
        };
        assert_eq!(sums(&told["exports"][0]), (10, 11, 10));
        assert_eq!(sums(&told["total"]), (30, 32, 30));
        assert_eq!(told["total"]["server"]["connections"]["lost"], 2);
        assert_eq!(told["total"]["server"]["waited_seconds"], 0.0);
    }

    /// The schema of version 1: a name that goes or changes needs another version.
    #[test]
    fn the_names_of_version_1_stay() {
        let report = Report::new("p", State::Running, 0.0, &[("", Figures::default())]);
        let told: Value = serde_json::from_str(&report.line()).unwrap();
        let names = |of: &Value| -> Vec<String> {
            let names: BTreeSet<_> = of.as_object().unwrap().keys().cloned().collect();
            names.into_iter().collect()
        };
        assert_eq!(names(&told), ["elapsed_seconds", "exports", "program", "state", "total", "version"]);
        assert_eq!(names(&told["exports"][0]), ["clients", "name", "server"]);
        let (clients, server) = (&told["total"]["clients"], &told["total"]["server"]);
        let of_clients =
            ["accepted", "connected", "extents", "flushes", "others", "reads", "writes", "zeroes"];
        assert_eq!(names(clients), of_clients);
        assert_eq!(names(&clients["reads"]), ["bytes", "errors", "requests"]);
        let of_server = [
            "all",
            "connections",
            "extents",
            "for_clients",
            "in_background",
            "keep_alives",
            "retries",
            "waited_seconds",
            "written_again",
        ];
        assert_eq!(names(server), of_server);
        for purpose in ["all", "for_clients", "in_background", "keep_alives", "written_again"] {
            assert_eq!(names(&server[purpose]), ["flushes", "reads", "writes", "zeroes"]);
            assert_eq!(names(&server[purpose]["reads"]), ["answered", "sent"]);
            assert_eq!(names(&server[purpose]["reads"]["sent"]), ["bytes", "requests"]);
        }
        assert_eq!(names(&server["connections"]), ["lost", "opened"]);
    }
}
