// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening a transfer: all that can fail, before anything is served.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use imageio_client::{
    Capabilities, Connection, Connector, Result, Scheme, StatusCode, TlsConfig, TransferUrl, UnixAddress,
};

use crate::error::OpenError;
use crate::settings::{Settings, UrlSource};

/// What comes after so many bytes is not a URL any more.
const LONGEST_URL: u64 = 64 << 10;

/// A transfer that was found to be usable. It holds no connection and no thread, so a process may fork with it.
#[derive(Debug)]
pub struct Transfer {
    pub(crate) connector: Arc<Connector>,
    pub(crate) settings: Settings,
    capabilities: Capabilities,
    size: u64,
}

impl Transfer {
    /// Asks the server, on a connection that is closed again, what it offers, and whether that is what is wanted.
    ///
    /// # Errors
    /// [`OpenError`]: bad URL, certificates, ticket, size, or a server that can't be reached.
    pub fn open(settings: Settings) -> std::result::Result<Self, OpenError> {
        let url = TransferUrl::parse(&url_text(&settings.url)?)?;
        let tls = tls_config(&settings, &url)?;
        let connector = Connector::new(url, tls, settings.timeouts)?;
        let (capabilities, size, same_host) = ask_again(&connector)?;
        if !settings.read_only && !capabilities.can_write {
            return Err(OpenError::ReadOnlyTicket);
        }
        let size = size_to_offer(settings.size, size)?;
        let connector = Arc::new(through_unix_socket(connector, &settings, &capabilities, same_host));
        log::info!("{}: {size} bytes, {capabilities:?}", connector.url());
        Ok(Self { connector, settings, capabilities, size })
    }

    /// The size in bytes that will be offered.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What the server offers.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether writes will be refused.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.settings.read_only
    }

    /// Whether a flush of the device means something.
    #[must_use]
    pub fn can_flush(&self) -> bool {
        self.capabilities.flush && !self.is_read_only()
    }

    /// How many connections the device will use at most: no more than the server wants.
    #[must_use]
    pub fn connections(&self) -> u32 {
        let readers = self.capabilities.max_readers;
        let writers = if self.is_read_only() { readers } else { self.capabilities.max_writers };
        self.settings.connections.min(readers).min(writers).max(1)
    }
}

fn url_text(source: &UrlSource) -> std::result::Result<String, OpenError> {
    let (from, text) = match source {
        UrlSource::Inline(url) => return Ok(url.clone()),
        UrlSource::File(path) => (format!("+{}", path.display()), File::open(path).and_then(first_line)),
        UrlSource::Stdin => ("-".to_owned(), first_line(io::stdin())),
    };
    let reason = match text {
        Ok(url) if !url.is_empty() => return Ok(url),
        Ok(_) => "the first line is empty, the transfer URL is expected there".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(OpenError::UrlFile { from, reason })
}

fn first_line(input: impl Read) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(input.take(LONGEST_URL)).read_line(&mut line)?;
    // Editors on other systems begin a file with a byte order mark.
    Ok(line.trim_start_matches('\u{feff}').trim().to_owned())
}

fn tls_config(settings: &Settings, url: &TransferUrl) -> Result<Option<TlsConfig>> {
    if url.scheme() == Scheme::Http {
        return Ok(None);
    }
    if settings.insecure {
        log::warn!(
            "insecure=true: the server's certificate is not verified, anyone in between can read and change the disk"
        );
        return Ok(Some(TlsConfig::insecure()));
    }
    Ok(Some(match &settings.cafile {
        Some(cafile) => TlsConfig::with_cafile(cafile)?,
        None => TlsConfig::with_system_roots()?,
    }))
}

/// The same as [`ask`], a few times where the connection breaks. Who starts this waits for no server that can't be reached
/// or is silent.
fn ask_again(connector: &Connector) -> Result<(Capabilities, Option<u64>, bool)> {
    const MORE: usize = 2;
    for _ in 0..MORE {
        match ask(connector) {
            Err(error) if error.is_lost() => log::info!("asking again: {error}"),
            outcome => return outcome,
        }
    }
    ask(connector)
}

/// What a server offers, the transfer's size if it tells, and whether it is on this host. The connection is closed
/// again: some servers serve one at a time.
fn ask(connector: &Connector) -> Result<(Capabilities, Option<u64>, bool)> {
    let mut connection = connector.connect()?;
    let capabilities = connection.options()?;
    let same_host = connection.is_same_host();
    Ok((capabilities, probe_size(connector, connection)?, same_host))
}

fn probe_size(connector: &Connector, mut connection: Connection) -> Result<Option<u64>> {
    if !connection.is_open() {
        // An old server closes after each answer.
        connection = connector.connect()?;
    }
    let size = match connection.size() {
        // Closed under the request, though it seemed to be open. A new connection knows better.
        Err(error) if error.is_transient() => connector.connect()?.size(),
        size => size,
    };
    match size {
        // A server that can only be written to.
        Err(error)
            if matches!(
                error.status(),
                Some(StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED)
            ) =>
        {
            Ok(None)
        }
        other => other,
    }
}

fn size_to_offer(wanted: Option<u64>, actual: Option<u64>) -> std::result::Result<u64, OpenError> {
    match (wanted, actual) {
        (Some(size), Some(actual)) if size > actual => Err(OpenError::TooLarge { size, actual }),
        (Some(size), _) => Ok(size),
        (None, Some(actual)) => Ok(actual),
        (None, None) => Err(OpenError::UnknownSize),
    }
}

/// The way over the server's unix socket, if that is known to lead to the same server and is open. Else the URL's.
fn through_unix_socket(
    connector: Connector,
    settings: &Settings,
    capabilities: &Capabilities,
    same_host: bool,
) -> Connector {
    let Some(address) = &capabilities.unix_socket else { return connector };
    if !settings.unix_socket || !(settings.is_ovirt_host || same_host) {
        return connector;
    }
    let through = connector.through(address.clone());
    match knows_ticket(&through) {
        Ok(()) => through,
        Err(error) => {
            log_fall_back(settings.is_ovirt_host, address, &error);
            connector
        }
    }
}

/// Same address doesn't prove same server: a tunnel ends at this host too. A server that knows the ticket is right.
fn knows_ticket(connector: &Connector) -> Result<()> {
    connector.connect()?.options().map(|_| ())
}

fn log_fall_back(expected: bool, address: &UnixAddress, error: &imageio_client::Error) {
    let level = if expected { log::Level::Warn } else { log::Level::Info };
    log::log!(level, "not using the server's unix socket {address}: {error}");
}
