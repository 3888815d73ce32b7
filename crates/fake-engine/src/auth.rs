// SPDX-License-Identifier: MIT OR Apache-2.0
//! Authentication: tokens of the single sign-on service, and passwords (`api-model`,
//! "Authentication and security").

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::state::new_id;

/// The number of tokens that may be in use.
const MAX_TOKENS: usize = 10_000;

/// The only scope that there is here.
const SCOPE: &str = "ovirt-app-api";

/// Its users and the tokens in use, none of which is shown.
pub(crate) struct Auth {
    users: Vec<(String, String)>,
    tokens: Mutex<HashSet<String>>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl Auth {
    pub(crate) fn new(users: Vec<(String, String)>) -> Self {
        Self { users, tokens: Mutex::default() }
    }

    fn tokens(&self) -> MutexGuard<'_, HashSet<String>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tokens in use.
    pub(crate) fn tokens_in_use(&self) -> Vec<String> {
        self.tokens().iter().cloned().collect()
    }

    /// Answers a request for a token, given its form.
    pub(crate) fn grant(&self, form: &[u8]) -> (u16, Value) {
        let fail = |code: &str, text: &str| (400, json!({ "error_code": code, "error": text }));
        match field(form, "grant_type").as_deref() {
            Some("password") => {}
            Some(_) => return fail("unsupported_grant_type", "This grant type is not supported"),
            None => return fail("invalid_request", "The request is missing parameter 'grant_type'"),
        }
        if !field(form, "scope").is_some_and(|scope| scope.split(' ').any(|scope| scope == SCOPE)) {
            return fail("invalid_scope", "The requested scope is invalid");
        }
        let user = (field(form, "username").unwrap_or_default(), field(form, "password").unwrap_or_default());
        if !self.users.contains(&user) {
            let text = "Cannot authenticate user: Invalid user credentials.";
            return fail("access_denied", text);
        }
        let mut tokens = self.tokens();
        if tokens.len() >= MAX_TOKENS {
            return fail("server_error", "There are too many sessions");
        }
        let token = [new_id(), new_id()].concat().replace('-', "");
        tokens.insert(token.clone());
        let granted = json!({
            "access_token": token, "token_type": "bearer", "scope": SCOPE, "exp": i64::MAX.to_string(),
        });
        (200, granted)
    }

    /// Answers a request to end a session, given its form.
    pub(crate) fn log_out(&self, form: &[u8]) -> (u16, Value) {
        let token = field(form, "token").unwrap_or_default();
        match self.tokens().remove(&token) {
            true => (200, json!({})),
            false => {
                let text = "The provided authorization grant for the auth code has expired.";
                (400, json!({ "error_code": "invalid_grant", "error": text }))
            }
        }
    }

    /// Returns true if an `Authorization` header lets its sender in.
    pub(crate) fn admits(&self, header: Option<&str>) -> bool {
        match header.and_then(|header| header.split_once(' ')) {
            Some(("Bearer", token)) => self.tokens().contains(token.trim()),
            Some(("Basic", password)) => self.knows(password.trim()),
            _ => false,
        }
    }

    fn knows(&self, encoded: &str) -> bool {
        let Ok(decoded) = BASE64_STANDARD.decode(encoded) else { return false };
        let decoded = String::from_utf8_lossy(&decoded);
        let user = decoded.split_once(':').map(|(name, password)| (name.to_owned(), password.to_owned()));
        user.is_some_and(|user| self.users.contains(&user))
    }

    /// All sessions end.
    pub(crate) fn expire(&self) {
        self.tokens().clear();
    }

    /// Returns the number of sessions.
    pub(crate) fn sessions(&self) -> usize {
        self.tokens().len()
    }
}

fn field(form: &[u8], name: &str) -> Option<String> {
    let mut fields = url::form_urlencoded::parse(form);
    fields.find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth() -> Auth {
        Auth::new(vec![("admin@internal".to_owned(), "pass word".to_owned())])
    }

    const GOOD: &[u8] =
        b"grant_type=password&scope=ovirt-app-api&username=admin%40internal&password=pass+word";

    #[test]
    fn a_token_is_good_until_its_session_ends() {
        let auth = auth();
        let (status, granted) = auth.grant(GOOD);
        assert_eq!((status, granted["exp"].as_str()), (200, Some("9223372036854775807")));
        let token = granted["access_token"].as_str().unwrap();
        let header = format!("Bearer {token}");
        assert!(auth.admits(Some(&header)) && !auth.admits(Some("Bearer x")) && !auth.admits(None));
        let form = format!("scope=ovirt-app-api&token={token}");
        assert_eq!(auth.log_out(form.as_bytes()), (200, json!({})));
        assert!(!auth.admits(Some(&header)));
        assert_eq!(auth.log_out(form.as_bytes()).0, 400);
        auth.grant(GOOD);
        auth.expire();
        assert_eq!(auth.sessions(), 0);
    }

    #[test]
    fn who_is_not_known_gets_no_token_and_nothing_is_shown() {
        for bad in [
            &b"grant_type=password&scope=ovirt-app-api&username=admin%40internal&password=x"[..],
            b"grant_type=password&username=admin%40internal&password=pass+word",
            b"scope=ovirt-app-api",
            b"grant_type=code&scope=ovirt-app-api",
            b"\xff",
        ] {
            let (status, error) = auth().grant(bad);
            assert_eq!(status, 400);
            assert!(error["error"].is_string() && error["error_code"].is_string(), "{error}");
        }
        assert!(!format!("{:?}", auth()).contains("pass word"));
    }

    #[test]
    fn a_password_is_good_too() {
        let encoded = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        assert!(auth().admits(Some(&encoded("admin@internal:pass word"))));
        for bad in ["admin@internal:x", "admin@internal", ""] {
            assert!(!auth().admits(Some(&encoded(bad))), "{bad}");
        }
        assert!(!auth().admits(Some("Basic ?")));
    }
}
