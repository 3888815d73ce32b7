// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asking the engine: requests, answers, and who asks.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use error_reporter::Report;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::Agent;
use url::Url;

use crate::answer::{self, Reply};
use crate::clock::{Clock, SystemClock};
use crate::error::Request;
use crate::{Config, Error, Result, Secret, config};

/// The greatest length of an answer, in bytes: lists of thousands of disks are shorter.
const LONGEST_ANSWER: u64 = 64 << 20;

/// The time for which a connection is tried to be opened.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// An engine, and the user who asks it. It logs in when it first asks, holds no connection between
/// two requests, and may be shared by threads.
#[derive(Debug)]
pub struct Engine {
    agent: Agent,
    root: Url,
    user: String,
    password: Secret,
    token: Mutex<Option<Secret>>,
    /// A login has succeeded: the URL is right, whatever is answered there later.
    has_logged_in: AtomicBool,
    pub(crate) reconnect_timeout: Duration,
    /// It didn't answer for so long, and hasn't since.
    pub(crate) is_given_up: AtomicBool,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Engine {
    /// An engine, which is not asked yet.
    ///
    /// # Errors
    /// [`Url`](crate::Error::Url), [`User`](crate::Error::User),
    /// [`Certificates`](crate::Error::Certificates), [`NoRoots`](crate::Error::NoRoots).
    pub fn new(config: Config) -> Result<Self> {
        Self::with_clock(config, Arc::new(SystemClock::default()))
    }

    /// An engine that is waited for by this clock.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_clock(config: Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let root = config::root(&config.url)?;
        config::check_user(&config.user)?;
        let reconnect_timeout = config.reconnect_timeout;
        let timeout = config.timeout.min(reconnect_timeout);
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // A password goes nowhere else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            // An idle connection may be closed when the next request is sent on it, and nobody
            // could tell whether that is done.
            .max_idle_connections(0)
            .timeout_connect(Some(CONNECT_TIMEOUT.min(timeout)))
            .timeout_global(Some(timeout))
            .user_agent(concat!("ovirt-engine-client/", env!("CARGO_PKG_VERSION")))
            .tls_config(config.trust.tls_config()?)
            .build()
            .new_agent();
        Ok(Self {
            agent,
            root,
            user: config.user,
            password: config.password,
            token: Mutex::new(None),
            has_logged_in: AtomicBool::new(false),
            reconnect_timeout,
            is_given_up: AtomicBool::new(false),
            clock,
        })
    }

    /// The engine's host, as messages name it.
    #[must_use]
    pub fn host(&self) -> &str {
        self.root.host_str().unwrap_or_default()
    }

    /// Logs in, if nobody has: to find out early whether the user may.
    ///
    /// # Errors
    /// [`Login`](crate::Error::Login), or the engine can't be reached.
    pub fn log_in(&self) -> Result<()> {
        self.token().map(drop)
    }

    /// Ends the session, if there is one. The engine ends it some time later anyway, so a failure
    /// is only logged.
    pub fn log_out(&self) {
        let Some(token) = self.kept_token().take() else { return };
        let form = [("scope", "ovirt-app-api"), ("token", token.reveal())];
        if let Err(error) = self.send_form("/services/sso-logout", &form) {
            log::debug!("the engine can't be told to log out: {}", Report::new(error));
        }
    }

    /// Returns the object at a path below the API's root, such as `/disks/ID`.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask("GET", path, None)?.json()
    }

    /// The elements of a list.
    pub(crate) fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        self.ask("GET", path, None)?.list()
    }

    /// Returns the objects that a search finds. Its condition is a pattern, so more may be found
    /// than is wanted.
    pub(crate) fn search<T: DeserializeOwned>(&self, collection: &str, condition: &str) -> Result<Vec<T>> {
        let condition = utf8_percent_encode(condition, NON_ALPHANUMERIC);
        self.list(&format!("/{collection}?case_sensitive=true&search={condition}"))
    }

    /// Makes something.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        self.ask("POST", path, Some(body))?.json()
    }

    /// Has something done. What comes of it is to be looked up.
    pub(crate) fn act(&self, path: &str) -> Result<()> {
        self.ask("POST", path, Some(&serde_json::json!({}))).map(drop)
    }

    /// Removes something.
    pub(crate) fn delete(&self, path: &str) -> Result<()> {
        self.ask("DELETE", path, None).map(drop)
    }

    /// Asks. What isn't there is asked for once more, after the engine has shown that it is in
    /// order: while it starts, it answers 404 for everything.
    fn ask(&self, method: &'static str, path: &str, body: Option<&Value>) -> Result<Reply> {
        let reply = self.ask_as_user(method, path, body)?;
        if reply.status != 404 {
            return reply.accept();
        }
        let root = self.ask_as_user("GET", "", None)?;
        if !root.is_of_engine() {
            return Err(answer::starting(&reply.request, self.host()));
        }
        if method == "GET" { self.ask_as_user(method, path, body)?.accept() } else { reply.accept() }
    }

    /// Asks, and once again with a new token where the engine doesn't know this one any more: it
    /// has expired, or the engine was started again.
    fn ask_as_user(&self, method: &'static str, path: &str, body: Option<&Value>) -> Result<Reply> {
        let token = self.token()?;
        let reply = self.ask_with(&token, method, path, body)?;
        if reply.status != 401 {
            return Ok(reply);
        }
        {
            let mut kept = self.kept_token();
            // Another thread may have a new one by now.
            if kept.as_ref() == Some(&token) {
                *kept = None;
            }
        }
        let token = self.token()?;
        self.ask_with(&token, method, path, body)
    }

    fn ask_with(
        &self,
        token: &Secret,
        method: &'static str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply> {
        let builder = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}/api{path}", self.root))
            .header("Accept", "application/json")
            .header("Version", "4")
            .header("Authorization", format!("Bearer {}", token.reveal()));
        let request = Request::new(method, path);
        let sent = match body {
            Some(body) => builder
                .header("Content-Type", "application/json")
                .body(body.to_string())
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
            None => builder.body(()).map_err(ureq::Error::from).and_then(|request| self.agent.run(request)),
        };
        self.reply(request, sent)
    }

    /// Sends a form to a service beside the API, without a token.
    fn send_form(&self, path: &str, form: &[(&str, &str)]) -> Result<Reply> {
        let sent = self
            .agent
            .post(format!("{}{path}", self.root))
            .header("Accept", "application/json")
            .send_form(form.iter().copied());
        self.reply(Request::new("POST", path), sent)
    }

    fn reply(
        &self,
        request: Request,
        sent: std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Reply> {
        let mut response = sent.map_err(|error| answer::unreachable(&request, self.host(), &error))?;
        let status = response.status().as_u16();
        log::debug!("{request}: {status}");
        let body = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
        let body = body.map_err(|error| answer::cut_off(&request, self.host(), &error))?;
        Ok(Reply { request, status, body })
    }

    fn token(&self) -> Result<Secret> {
        // It is kept locked while the engine answers: one thread logs in, and the others wait for
        // its token. A wrong password, tried by all of them, would lock the account.
        let mut kept = self.kept_token();
        if let Some(token) = &*kept {
            return Ok(token.clone());
        }
        let form = [
            ("grant_type", "password"),
            ("scope", "ovirt-app-api"),
            ("username", &*self.user),
            ("password", self.password.reveal()),
        ];
        let reply = self.send_form("/sso/oauth/token", &form)?;
        let request = reply.request.clone();
        let token = match reply.token() {
            // It was there before.
            Err(Error::Url { .. }) if self.has_logged_in.load(Relaxed) => {
                return Err(answer::starting(&request, self.host()));
            }
            token => token?,
        };
        self.has_logged_in.store(true, Relaxed);
        *kept = Some(token.clone());
        Ok(token)
    }

    fn kept_token(&self) -> std::sync::MutexGuard<'_, Option<Secret>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
