// SPDX-License-Identifier: MIT OR Apache-2.0
//! A session with the engine that speaks JSON, by a client that shows answers as they are.

use std::io;

use fake_engine::{DEFAULT_PASSWORD, DEFAULT_USER, FakeEngine};
use serde_json::{Value, json};
use support::TestResult;
use support::http::{Answer, Client, Endpoint};

use support::installation::STORAGE_DOMAIN;

/// A user who has logged in.
pub(crate) struct Session {
    endpoint: Endpoint,
    token: String,
}

/// A status, and the document that came with it.
pub(crate) type Told = (u16, Value);

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

impl Session {
    pub(crate) fn log_in(engine: &FakeEngine) -> TestResult<Self> {
        let ca = engine.pki().ok_or("no certificates")?.ca_pem.clone();
        let endpoint = Endpoint::Https(engine.addr(), ca);
        let form = format!(
            "grant_type=password&scope=ovirt-app-api&username={}&password={DEFAULT_PASSWORD}",
            DEFAULT_USER.replace('@', "%40")
        );
        let headers = [FORM, ("accept", "application/json")];
        let answer = Client::connect(&endpoint)?.request(
            "POST",
            "/ovirt-engine/sso/oauth/token",
            &headers,
            form.as_bytes(),
        )?;
        let granted: Value = serde_json::from_slice(&answer.body)?;
        let token = granted["access_token"].as_str().ok_or("no token")?.to_owned();
        Ok(Self { endpoint, token })
    }

    pub(crate) fn log_out(&self) -> TestResult<Told> {
        let form = format!("scope=ovirt-app-api&token={}", self.token);
        let mut client = Client::connect(&self.endpoint)?;
        told(&client.request("POST", "/ovirt-engine/services/sso-logout", &[FORM], form.as_bytes())?)
    }

    /// One request on a connection of its own.
    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> io::Result<Answer> {
        let authorization = format!("Bearer {}", self.token);
        let json = "application/json";
        let headers = [
            ("authorization", authorization.as_str()),
            ("accept", json),
            ("content-type", json),
            ("version", "4"),
        ];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let target = format!("/ovirt-engine/api/{path}");
        Client::connect(&self.endpoint)?.request(method, &target, &headers, body.as_bytes())
    }

    pub(crate) fn get(&self, path: &str) -> TestResult<Told> {
        told(&self.send("GET", path, &Value::Null)?)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> TestResult<Told> {
        told(&self.send("POST", path, body)?)
    }

    pub(crate) fn delete(&self, path: &str) -> TestResult<Told> {
        told(&self.send("DELETE", path, &Value::Null)?)
    }

    /// Asks until something is so.
    pub(crate) fn wait(
        &self,
        engine: &FakeEngine,
        path: &str,
        key: &str,
        expected: &str,
    ) -> TestResult<Value> {
        let mut last = Value::Null;
        let is_so = engine.wait_for(support::process::PATIENCE, |_| {
            last = self.get(path).map_or_else(|error| json!(error.to_string()), |(_, told)| told);
            last[key] == expected
        });
        if is_so { Ok(last) } else { Err(format!("{key} isn't {expected}: {last}").into()) }
    }

    /// A new disk of a mebibyte that can be used.
    pub(crate) fn new_disk(&self, engine: &FakeEngine, format: &str) -> TestResult<String> {
        let new = json!({
            "name": "disk", "format": format, "provisioned_size": 1 << 20, "sparse": true,
            "backup": if format == "cow" { "incremental" } else { "none" },
            "storage_domains": { "storage_domain": [{ "name": STORAGE_DOMAIN }] },
        });
        let (status, disk) = self.post("disks", &new)?;
        assert_eq!((status, &disk["status"]), (202, &json!("locked")));
        let id = disk["id"].as_str().ok_or("no id")?.to_owned();
        self.wait(engine, &format!("disks/{id}"), "status", "ok")?;
        Ok(id)
    }

    /// A transfer that data can be moved by: its path, and its URL.
    pub(crate) fn transfer(&self, engine: &FakeEngine, new: &Value) -> TestResult<(String, String)> {
        let (status, transfer) = self.post("imagetransfers", new)?;
        assert_eq!((status, &transfer["phase"]), (202, &json!("initializing")), "{transfer}");
        assert_eq!(transfer.get("transfer_url"), None, "there is no ticket yet");
        let path = format!("imagetransfers/{}", transfer["id"].as_str().ok_or("no id")?);
        let transfer = self.wait(engine, &path, "phase", "transferring")?;
        let url = transfer["transfer_url"].as_str().ok_or("no URL")?.to_owned();
        assert_eq!(transfer["proxy_url"], url.as_str());
        Ok((path, url))
    }

    /// A connection to a transfer's URL, and what it is asked for there.
    pub(crate) fn connect(&self, url: &str) -> TestResult<(Client, String)> {
        let Endpoint::Https(_, ca) = &self.endpoint else { return Err("no certificates".into()) };
        let (address, ticket) =
            url.strip_prefix("https://").and_then(|rest| rest.split_once('/')).ok_or("no URL")?;
        let client = Client::connect(&Endpoint::Https(address.parse()?, ca.clone()))?;
        Ok((client, format!("/{ticket}")))
    }

    /// Sends a request to a transfer's server, and returns the answer.
    pub(crate) fn move_data(&self, url: &str, method: &str, data: &[u8]) -> TestResult<Answer> {
        let (mut client, target) = self.connect(url)?;
        Ok(client.request(method, &target, &[], data)?)
    }
}

fn told(answer: &Answer) -> TestResult<Told> {
    let document = if answer.body.is_empty() { Value::Null } else { serde_json::from_slice(&answer.body)? };
    Ok((answer.status, document))
}
