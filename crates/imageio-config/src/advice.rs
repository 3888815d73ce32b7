// SPDX-License-Identifier: MIT OR Apache-2.0
//! What users are told of an error: libraries say what is wrong, and this adds what to do about it,
//! as only this crate knows how the parameters are called.

use std::error::Error;
use std::io::ErrorKind;
use std::iter::successors;

use engine_transfer::{Credential, Error as DiskError};
use imageio_client::{Error as ServerError, TlsError};
use imageio_device::OpenError;
use ovirt_engine_client::{Error as EngineError, NoAnswer};

/// Returns one line for an error: its text, that of each cause, and what to do about it, if that is
/// known.
#[must_use]
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    let line = without_advice(error);
    match causes(error).find_map(advice) {
        Some(advice) => format!("{line}: {advice}"),
        None => line,
    }
}

/// Returns one line for an error: its text, and that of each cause. The caller knows better what to
/// do about it.
///
/// Some errors of others repeat their causes: what the line says already isn't said again.
#[must_use]
pub fn without_advice(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    for cause in causes(error).skip(1).map(ToString::to_string) {
        if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// Returns the error and its causes.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}

/// The advice for an error, if it is of a kind that there is any for. An error that is shown as the
/// one inside of it isn't followed by that in the chain of causes.
fn advice(error: &(dyn Error + 'static)) -> Option<String> {
    let of_disk = error.downcast_ref().and_then(for_disk);
    let of_transfer = || error.downcast_ref().and_then(for_transfer);
    let of_server = || error.downcast_ref().and_then(for_server);
    let of_engine = || error.downcast_ref().and_then(for_engine);
    of_disk.or_else(|| of_transfer().or_else(of_server).or_else(of_engine).map(str::to_owned))
}

fn for_disk(error: &DiskError) -> Option<String> {
    let advice = match error {
        DiskError::Open(error) => for_transfer(error)?,
        DiskError::Engine(error) => for_engine(error)?,
        DiskError::NothingToRead => "leave out -r, or name a disk with disk=",
        DiskError::ReadOnlyUpload => "leave out -r, or say direction=download",
        DiskError::Missing(credential) => return for_missing(*credential),
        DiskError::ConfigFile { source, .. } if source.kind() == ErrorKind::NotFound => {
            "make that file, or give engine=, user= and password=+FILE in place of config="
        }
        _ => return None,
    };
    Some(advice.to_owned())
}

fn for_missing(credential: Credential) -> Option<String> {
    let parameter = match credential {
        Credential::Url => "engine=",
        Credential::User => "user=",
        Credential::Password => "password=+FILE",
        _ => return None,
    };
    let variable = credential.variable();
    Some(format!("give it with {parameter}, or by a section of ovirt-img.conf, or by ${variable}"))
}

fn for_transfer(error: &OpenError) -> Option<&'static str> {
    match error {
        OpenError::Client(error) => for_server(error),
        OpenError::ReadOnlyTicket => Some("open it read-only (-r), or ask for a transfer that allows upload"),
        OpenError::UnknownSize => Some("give it with size=BYTES"),
        OpenError::Extents { .. } => Some("the size that is given with size= must be the disk's"),
        _ => None,
    }
}

fn for_server(error: &ServerError) -> Option<&'static str> {
    match error {
        ServerError::NoRoots | ServerError::Tls { source: TlsError::UntrustedCa, .. } => {
            Some("give the engine's CA with cafile=FILE")
        }
        error if error.status().is_some_and(|status| status.as_u16() == 403) => {
            Some("the ticket may be wrong or have expired, or the transfer may have ended or be paused")
        }
        ServerError::Connect { source, .. } if is_of_the_network(source.kind()) => {
            Some("see that the imageio server runs there, and that a firewall lets this host through")
        }
        ServerError::Timeout { .. } => Some("timeout= and operation-timeout= give it more time"),
        _ => None,
    }
}

/// Returns true if the other host can't be reached, or nobody listens there.
fn is_of_the_network(kind: ErrorKind) -> bool {
    use ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(kind, ConnectionRefused | HostUnreachable | NetworkUnreachable | TimedOut)
}

fn for_engine(error: &EngineError) -> Option<&'static str> {
    match error {
        EngineError::NoRoots | EngineError::Unreachable { source: NoAnswer::UntrustedCa, .. } => {
            Some("give the engine's CA with engine-cafile=FILE")
        }
        EngineError::Unreachable { source: NoAnswer::TimedOut | NoAnswer::NotConnected(_), .. } => {
            Some("see that the engine runs, and that a firewall lets this host through")
        }
        EngineError::Login { .. } => {
            Some("check the password, and the user, which has a profile, such as admin@internal")
        }
        // A proxy that refuses it tells no reason.
        EngineError::Refused { status: 403, reason, detail, .. }
            if !(reason.is_empty() && detail.is_empty()) =>
        {
            Some("the user needs a role in the engine that permits this")
        }
        EngineError::TimedOut { .. } => Some("see its events in the engine"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn tls(source: TlsError) -> ServerError {
        ServerError::Tls { peer: "host:54322".to_owned(), source }
    }

    #[test]
    fn the_parameter_that_helps_is_named() {
        let untrusted = "TLS to host:54322 failed: the server's certificate is not signed by a CA that is trusted here: \
                         give the engine's CA with cafile=FILE";
        let read_only = "the ticket allows reading only: open it read-only (-r), or ask for a transfer that allows upload";
        let no_roots = "this system has no root certificates: give the engine's CA with ";
        let cases: [(Box<dyn Error>, &str); 9] = [
            (Box::new(tls(TlsError::UntrustedCa)), untrusted),
            (Box::new(OpenError::from(tls(TlsError::UntrustedCa))), untrusted),
            (Box::new(DiskError::from(OpenError::from(tls(TlsError::UntrustedCa)))), untrusted),
            (Box::new(DiskError::from(OpenError::ReadOnlyTicket)), read_only),
            (
                Box::new(OpenError::UnknownSize),
                "the server doesn't tell the size of the disk: give it with size=BYTES",
            ),
            (Box::new(ServerError::NoRoots), &format!("{no_roots}cafile=FILE")),
            (Box::new(DiskError::from(EngineError::NoRoots)), &format!("{no_roots}engine-cafile=FILE")),
            (
                Box::new(DiskError::Missing(Credential::User)),
                "the engine's user is missing: give it with user=, or by a section of ovirt-img.conf, or by $OVIRT_USERNAME",
            ),
            (
                Box::new(DiskError::NothingToRead),
                "there is nothing to read on a disk that is made now: leave out -r, or name a disk with disk=",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(one_line(&*error), expected);
        }
    }

    #[test]
    fn what_the_server_refuses_or_delays_comes_with_advice() {
        let (operation, explanation) = ("OPTIONS".to_owned(), "No such ticket".to_owned());
        let status = imageio_client::StatusCode::FORBIDDEN;
        let forbidden = ServerError::Status { operation, status, explanation, body_sent: false };
        let told = one_line(&OpenError::from(forbidden));
        assert!(told.ends_with("403 Forbidden: No such ticket: the ticket may be wrong or have expired, or the transfer may have ended or be paused"), "{told}");
        let missing =
            |kind: ErrorKind| DiskError::ConfigFile { path: "ovirt-img.conf".into(), source: kind.into() };
        assert!(one_line(&missing(ErrorKind::NotFound)).contains("in place of config="));
        assert!(one_line(&missing(ErrorKind::PermissionDenied)).ends_with("permission denied"));
    }

    #[test]
    fn each_cause_is_told_once() {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let connect = |source| ServerError::Connect { peer: "host:54322".to_owned(), source };
        let error = DiskError::from(OpenError::from(connect(missing())));
        assert_eq!(one_line(&error), "cannot connect to host:54322: entity not found");
        let refused = connect(ErrorKind::ConnectionRefused.into());
        let cause = "cannot connect to host:54322: connection refused";
        let advice = "see that the imageio server runs there, and that a firewall lets this host through";
        assert_eq!(one_line(&refused), format!("{cause}: {advice}"));
        assert_eq!(without_advice(&refused), cause);
        // An error of others that repeats its cause.
        #[derive(Debug, thiserror::Error)]
        #[error("reading: {0}")]
        struct Repeating(#[source] io::Error);
        assert_eq!(one_line(&Repeating(missing())), "reading: entity not found");
    }
}
