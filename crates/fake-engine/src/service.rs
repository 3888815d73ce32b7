// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a request to its answer, by way of the script of faults.

use std::fmt;
use std::future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Request, Response};
use tokio::sync::watch;

use crate::api::{self, Call};
use crate::auth::Auth;
use crate::document::{Element, Encoding};
use crate::engine::Engine;
use crate::fault::{Script, What};
use crate::journal::Journal;
use crate::state::Refusal;

/// The longest body of a request that is read, in bytes: a configuration may be long.
const MAX_BODY: usize = 8 << 20;

/// All that requests need.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) auth: Auth,
    pub(crate) script: Script,
    pub(crate) journal: Journal,
    /// The certificate that clients have to trust, as PEM.
    pub(crate) ca_pem: Option<String>,
    /// Nothing is answered.
    pub(crate) is_silent: AtomicBool,
    /// Counts how often the engine was started again.
    pub(crate) restarts: watch::Sender<u64>,
}

impl Shared {
    /// All connections are closed, and all sessions end.
    pub(crate) fn restart(&self) {
        self.auth.expire();
        self.is_silent.store(false, Relaxed);
        self.restarts.send_modify(|restarts| *restarts += 1);
    }
}

/// The connection ends without an answer.
#[derive(Debug)]
pub(crate) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is cut")
    }
}

impl std::error::Error for Cut {}

/// An answer before it is one of HTTP.
#[derive(Debug)]
struct Answer {
    status: u16,
    media_type: &'static str,
    body: Vec<u8>,
    /// The answer says how the client can authenticate itself.
    challenge: bool,
}

/// Answers one request.
pub(crate) async fn handle(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Cut> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_start_matches("/ovirt-engine").trim_matches('/').to_owned();
    let fate = shared.script.fate(head.method.as_str(), &path);
    let method = head.method.clone();
    let number = shared.journal.begin(head.method.as_str(), &path, head.uri.query().unwrap_or_default());
    let body = Limited::new(body, MAX_BODY).collect().await.map(http_body_util::Collected::to_bytes);
    let answer = match body {
        Ok(body) => with_fate(&shared, fate, head, body).await?,
        Err(_) => Answer::text(413, "The body of the request is too long, or broke off"),
    };
    shared.journal.end(number, answer.status);
    log::info!("{method} {path}: {}", answer.status);
    answer.into_response()
}

async fn with_fate(
    shared: &Arc<Shared>,
    fate: Option<What>,
    head: Parts,
    body: Bytes,
) -> Result<Answer, Cut> {
    if shared.is_silent.load(Relaxed) {
        return future::pending().await;
    }
    match fate {
        None => carry_out(shared, head, body).await,
        Some(What::Status { status, reason, detail }) => {
            Ok(Answer::document(status, Encoding::of(accept(&head)), &fault(&reason, &detail)))
        }
        Some(What::Close) => Err(Cut),
        Some(What::LoseReply) => {
            carry_out(shared, head, body).await?;
            Err(Cut)
        }
        Some(What::Hold(gate)) => {
            gate.pass().await;
            carry_out(shared, head, body).await
        }
        Some(What::HoldReply(gate)) => {
            let answer = carry_out(shared, head, body).await;
            gate.pass().await;
            answer
        }
        Some(What::Silence { done }) => {
            if done {
                carry_out(shared, head, body).await?;
            }
            shared.is_silent.store(true, Relaxed);
            future::pending().await
        }
        Some(What::Restart { done }) => {
            if done {
                carry_out(shared, head, body).await?;
            }
            shared.restart();
            Err(Cut)
        }
    }
}

/// On a thread that may block: programs are run meanwhile. It is carried out to its end, also if
/// the connection ends.
async fn carry_out(shared: &Arc<Shared>, head: Parts, body: Bytes) -> Result<Answer, Cut> {
    let shared = Arc::clone(shared);
    let answer = tokio::task::spawn_blocking(move || answer(&shared, &head, &body));
    answer.await.map_err(|_| Cut)
}

fn answer(shared: &Shared, head: &Parts, body: &[u8]) -> Answer {
    let path = head.uri.path().trim_end_matches('/');
    match (head.method.as_str(), path) {
        ("POST", "/ovirt-engine/sso/oauth/token") => Answer::json(shared.auth.grant(body)),
        ("POST", "/ovirt-engine/services/sso-logout") => Answer::json(shared.auth.log_out(body)),
        ("GET", "/ovirt-engine/services/pki-resource") => match &shared.ca_pem {
            Some(pem) => Answer { media_type: "application/x-x509-ca-cert", ..Answer::text(200, pem) },
            None => Answer::text(404, "There is no CA"),
        },
        _ => match path.strip_prefix(api::ROOT) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => call(shared, head, rest, body),
            _ => Answer::text(404, "Not Found"),
        },
    }
}

fn call(shared: &Shared, head: &Parts, path: &str, body: &[u8]) -> Answer {
    if !shared.auth.admits(header(head, AUTHORIZATION)) {
        return Answer { challenge: true, ..Answer::text(401, "") };
    }
    let encoding = Encoding::of(accept(head));
    let refused = |path: &str, refusal: &Refusal| {
        let fault = fault(refusal.reason, &refusal.detail);
        // The answer to an action is an action, also if it has failed.
        let is_action = head.method == "POST" && path.split('/').count() > 3 && refusal.status != 404;
        let document = match is_action && !path.ends_with("backups") {
            true => Element::object("action").with("status", "failed").and(fault),
            false => fault,
        };
        Answer::document(refusal.status, encoding, &document)
    };
    let body = match Element::read(Encoding::of(header(head, CONTENT_TYPE)), body) {
        Ok(body) => body,
        Err(error) => {
            return refused(path, &Refusal::bad_request(format!("The request isn't understood: {error}")));
        }
    };
    let query: Vec<_> = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let wants_all = |value: Option<&str>| value.is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let in_query = query.iter().find(|(name, _)| name == "all_content").map(|(_, value)| value.as_str());
    let call = Call {
        method: head.method.to_string(),
        path: path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        all_content: wants_all(in_query) || wants_all(header(head, HeaderName::from_static("all-content"))),
        query,
        body,
        now: Instant::now(),
    };
    let answered = api::answer(&mut shared.engine.lock(call.now), &call);
    match answered {
        Ok(reply) => Answer::document(reply.status, encoding, &reply.body),
        Err(refusal) => refused(path, &refusal),
    }
}

fn fault(reason: &str, detail: &str) -> Element {
    Element::object("fault").with("detail", detail).with("reason", reason)
}

fn header(head: &Parts, name: HeaderName) -> Option<&str> {
    head.headers.get(name)?.to_str().ok()
}

fn accept(head: &Parts) -> Option<&str> {
    header(head, ACCEPT)
}

impl Answer {
    fn text(status: u16, text: &str) -> Self {
        Self { status, media_type: "text/plain;charset=UTF-8", body: text.into(), challenge: false }
    }

    fn json((status, value): (u16, serde_json::Value)) -> Self {
        Self { media_type: "application/json;charset=UTF-8", ..Self::text(status, &value.to_string()) }
    }

    fn document(status: u16, encoding: Encoding, document: &Element) -> Self {
        Self { status, media_type: encoding.media_type(), body: document.write(encoding), challenge: false }
    }

    fn into_response(self) -> Result<Response<Full<Bytes>>, Cut> {
        let mut response = Response::builder().status(self.status).header(CONTENT_TYPE, self.media_type);
        if self.challenge {
            response = response.header(WWW_AUTHENTICATE, "Bearer realm=\"oVirt\"");
        }
        // A status that a fault's author has made up may be none.
        response.body(Full::new(self.body.into())).map_err(|_| Cut)
    }
}
