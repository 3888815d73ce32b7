// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening a transfer: all that can fail, before anything is served.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use error_reporter::Report;
use imageio_client::{
    Capabilities, Connection, Connector, Result, Scheme, StatusCode, TlsConfig, TransferUrl, TrustedUsers,
};

use crate::error::OpenError;
use crate::link::MOST_CONNECTIONS;
use crate::settings::{Settings, UrlSource};
use crate::ticket::TicketKeeper;

/// The number of bytes that a URL may have: a longer text is none.
const LONGEST_URL: u64 = 64 << 10;

/// A transfer that was found to be usable. It holds no connection and no thread, so a process may
/// fork with it.
#[derive(Debug)]
pub struct Transfer {
    pub(crate) connector: Arc<Connector>,
    pub(crate) settings: Settings,
    capabilities: Capabilities,
    size: u64,
    /// The shortest time in which the server has answered.
    pub(crate) latency: Duration,
    pub(crate) ticket_keeper: Option<Arc<dyn TicketKeeper>>,
}

impl Transfer {
    /// Asks the server, on a connection that is closed again, what it offers, and whether that is
    /// what is wanted.
    ///
    /// # Errors
    /// [`OpenError`]: bad URL, certificates, ticket, or a server that can't be reached.
    pub fn open(settings: Settings) -> std::result::Result<Self, OpenError> {
        let wants_to_write = !settings.read_only;
        let transfer = Self::open_as_allowed(settings)?;
        if wants_to_write && transfer.is_read_only() {
            return Err(OpenError::ReadOnlyTicket);
        }
        Ok(transfer)
    }

    /// Opens the transfer for reading only where its ticket allows no more.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for [`OpenError::ReadOnlyTicket`].
    pub fn open_as_allowed(mut settings: Settings) -> std::result::Result<Self, OpenError> {
        let url = TransferUrl::parse(&url_text(&settings.url)?)?;
        let tls = tls_config(&settings, &url)?;
        let connector = Connector::new(url, tls, settings.timeouts)?;
        let Asked { capabilities, size, latency } = again_if_broken(|| ask(&connector, settings.size))?;
        settings.read_only |= !capabilities.can_write;
        let size = size.ok_or(OpenError::UnknownSize)?;
        let connector = Arc::new(through_unix_socket(connector, &settings, &capabilities));
        log::info!("{}: {size} bytes, {capabilities:?}", connector.url());
        Ok(Self { connector, settings, capabilities, size, latency, ticket_keeper: None })
    }

    /// Somebody can bring the ticket back, should the server not know it any more in the middle of
    /// the transfer.
    #[must_use]
    pub fn with_ticket_keeper(self, keeper: Arc<dyn TicketKeeper>) -> Self {
        Self { ticket_keeper: Some(keeper), ..self }
    }

    /// The transfer's URL, whose text doesn't show the ticket.
    #[must_use]
    pub fn url(&self) -> &TransferUrl {
        self.connector.url()
    }

    /// The size in bytes that will be offered.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the operations that the server offers.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Returns true if writes will be refused.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.settings.read_only
    }

    /// Returns true if a flush of the device means something.
    #[must_use]
    pub fn can_flush(&self) -> bool {
        self.capabilities.flush && !self.is_read_only()
    }

    /// Returns the capabilities of the device.
    pub(crate) fn device_capabilities(&self) -> block_device_traits::Capabilities {
        let mut can = block_device_traits::Capabilities::default();
        can.read_only = self.is_read_only();
        can.flush = self.can_flush();
        can.fua = self.can_flush();
        // The server doesn't tell whether it zeroes or writes; but it may tell that a range is zero
        // already.
        can.fast_zero = self.can_zero() && self.capabilities.extents;
        can.multi_conn = true;
        can.block_size.preferred = self.settings.preferred_block_size;
        can
    }

    /// Returns true if the server zeroes, and doesn't have to be sent zeroes.
    pub(crate) fn can_zero(&self) -> bool {
        self.capabilities.zero && !self.is_read_only()
    }

    /// Returns the number of connections that the device will use at most: no more than the server
    /// wants.
    #[must_use]
    pub fn connections(&self) -> u32 {
        let readers = self.capabilities.max_readers;
        let writers = if self.is_read_only() { readers } else { self.capabilities.max_writers };
        self.settings.connections.unwrap_or(MOST_CONNECTIONS).min(readers).min(writers).max(1)
    }
}

fn url_text(source: &UrlSource) -> std::result::Result<String, OpenError> {
    let (file, text) = match source {
        UrlSource::Inline(url) => return Ok(url.clone()),
        UrlSource::File(path) => (Some(path.clone()), File::open(path).and_then(first_line)),
        UrlSource::Stdin => (None, unbuffered_stdin().and_then(first_line)),
    };
    match text {
        Ok(url) if !url.is_empty() => Ok(url),
        Ok(_) => Err(OpenError::UrlFile { file, source: io::Error::other("the first line is empty") }),
        Err(source) => Err(OpenError::UrlFile { file, source }),
    }
}

/// Takes not a byte more than the line: the rest of standard input is for whoever comes next, such
/// as a command that this process executes.
fn first_line(input: impl Read) -> io::Result<String> {
    let mut line = String::new();
    BufReader::with_capacity(1, input.take(LONGEST_URL)).read_line(&mut line)?;
    if line.len() as u64 == LONGEST_URL && !line.ends_with('\n') {
        return Err(io::Error::other("the first line is too long for a URL"));
    }
    // Editors on other systems begin a file with a byte order mark.
    Ok(line.trim_start_matches('\u{feff}').trim().to_owned())
}

/// Standard input without the buffer that a process has for it.
fn unbuffered_stdin() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

fn tls_config(settings: &Settings, url: &TransferUrl) -> Result<Option<TlsConfig>> {
    if url.scheme() == Scheme::Http {
        return Ok(None);
    }
    if settings.insecure {
        log::warn!(
            "the server's certificate is not verified, so anyone in between can read and change the disk"
        );
        return Ok(Some(TlsConfig::insecure()));
    }
    Ok(Some(match &settings.cafile {
        Some(cafile) => TlsConfig::with_cafile(cafile)?,
        None => TlsConfig::with_system_roots()?,
    }))
}

/// Asks something, a few times where the connection breaks. Whoever opens a transfer waits for no
/// server that can't be reached or is silent.
pub(crate) fn again_if_broken<T>(ask: impl Fn() -> Result<T>) -> Result<T> {
    const MORE: usize = 2;
    for _ in 0..MORE {
        match ask() {
            Err(error) if breaks(&error) => log::info!("the server is asked again: {}", Report::new(error)),
            outcome => return outcome,
        }
    }
    ask()
}

/// Returns true if the connection broke: also in the moment in which it was opened.
fn breaks(error: &imageio_client::Error) -> bool {
    let is_reset = |source: &io::Error| source.kind() == io::ErrorKind::ConnectionReset;
    error.is_lost() || matches!(error, imageio_client::Error::Connect { source, .. } if is_reset(source))
}

/// The server's answers: its capabilities, the transfer's size, and the time that the shortest of
/// the answers took.
struct Asked {
    capabilities: Capabilities,
    size: Option<u64>,
    latency: Duration,
}

/// Asks the server. The size is what was given, if it was: then nothing is read, as a disk that
/// can't be read may well be written. The connection is closed again: some servers serve one at a
/// time.
fn ask(connector: &Connector, size: Option<u64>) -> Result<Asked> {
    let mut connection = connector.connect()?;
    let start = Instant::now();
    let capabilities = connection.options()?;
    let latency = start.elapsed();
    let Some(size) = size else {
        let start = Instant::now();
        let size = probe_size(connector, connection)?;
        return Ok(Asked { capabilities, size, latency: latency.min(start.elapsed()) });
    };
    Ok(Asked { capabilities, size: Some(size), latency })
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

/// The way over the server's unix socket, on an oVirt host, if that is proven to lead to the same
/// server. Else the URL's.
fn through_unix_socket(connector: Connector, settings: &Settings, capabilities: &Capabilities) -> Connector {
    let Some(address) = &capabilities.unix_socket else { return connector };
    if !settings.unix_socket || !settings.is_ovirt_host {
        return connector;
    }
    let users = TrustedUsers::new(settings.unix_socket_user);
    let through = connector.through(address.clone(), users);
    match prove(&through, capabilities) {
        Ok(()) => through,
        Err(reason) => {
            log::warn!("the server's unix socket isn't used, but the URL: {reason}");
            connector
        }
    }
}

/// The right user has been found to listen there before the ticket is sent. It must be the same
/// server, too: one that knows the ticket, and offers for it what the URL's does.
fn prove(through: &Connector, expected: &Capabilities) -> std::result::Result<(), String> {
    let advertised = through.connect().and_then(|mut connection| connection.advertised());
    match advertised.map_err(|error| Report::new(error).to_string())? {
        Some(capabilities) if capabilities.agrees_with(expected) => Ok(()),
        Some(_) => Err("the server there offers something else for this ticket".to_owned()),
        None => Err("the server there doesn't tell what it offers for this ticket".to_owned()),
    }
}
