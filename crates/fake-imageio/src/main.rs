// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fake imageio server on the command line.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use fake_imageio::{Backend, Builder, Certificate, FakeServer, Fault, OptionsMode};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A fake oVirt imageio server: serves one disk under one ticket until SIGTERM or SIGINT.
///
/// The first line on standard output is the transfer URL; it is printed when the server is ready.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Size of the disk, such as 10G or 65536 [default: that of --file, else 1G]
    #[arg(long, value_parser = parse_size)]
    size: Option<u64>,
    /// Where the data is kept; null discards writes and reads zeroes, for benchmarks
    #[arg(long, value_enum, default_value_t = Kind::Memory)]
    backend: Kind,
    /// The file of --backend file; made if it is not there
    #[arg(long, required_if_eq("backend", "file"))]
    file: Option<PathBuf>,

    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// TCP port; 0 lets the kernel choose
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Ticket id
    #[arg(long, default_value = fake_imageio::DEFAULT_TICKET)]
    ticket: String,
    /// Listen on this unix socket, too; @NAME is an abstract one
    #[arg(long, value_name = "PATH")]
    unix_socket: Option<String>,
    /// Speak HTTPS, with a certificate made at the start
    #[arg(long)]
    tls: bool,
    /// Kind of that certificate
    #[arg(long, value_enum, default_value_t = Cert::Good, requires = "tls")]
    certificate: Cert,
    /// Write the CA that clients must trust to this file
    #[arg(long, value_name = "PATH", requires = "tls")]
    cafile_out: Option<PathBuf>,
    /// Write the URL to this file, too
    #[arg(long, value_name = "PATH")]
    url_file: Option<PathBuf>,

    /// A ticket for reading only
    #[arg(long)]
    read_only: bool,
    /// Do not offer flush
    #[arg(long)]
    no_flush: bool,
    /// Do not offer zero
    #[arg(long)]
    no_zero: bool,
    /// Do not offer extents
    #[arg(long)]
    no_extents: bool,
    /// A ticket of an incremental backup, whose bitmap takes note of what is changed from now on
    #[arg(long)]
    dirty: bool,
    /// Readers told to clients; 0 tells none
    #[arg(long, default_value_t = 8)]
    max_readers: u32,
    /// Writers told to clients; 0 tells none
    #[arg(long, default_value_t = 8)]
    max_writers: u32,
    /// How OPTIONS is answered
    #[arg(long, value_enum, default_value_t = Mode::Normal)]
    options: Mode,
    /// Serve one connection at a time
    #[arg(long)]
    one_at_a_time: bool,
    /// Seconds until an idle connection is closed, fractions allowed; 0 for never
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    inactivity_timeout: f64,
    /// Answer each request so many milliseconds late
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay: u64,
    /// A block device with blocks of so many bytes: unaligned changes read, change and write back
    /// whole blocks, unlocked
    #[arg(long, value_name = "BYTES")]
    block_device: Option<u64>,
    /// What is not flushed is gone where a fault loses the way to it
    #[arg(long)]
    volatile: bool,
    /// Close each connection after so many answers
    #[arg(long, value_name = "ANSWERS")]
    close_after: Option<u64>,
    /// Say so in the last answer
    #[arg(long, requires = "close_after")]
    close_announced: bool,
    /// What goes wrong; may be given again: OP:N:WHAT, or OP:N+:WHAT for every time from the N-th
    /// on. OP: any, options, get, put, zero, flush. WHAT: lose-answer, close, lose-way=STATUS, or
    /// STATUS[,done|,part=BYTES][,close]
    #[arg(long, value_name = "OP:N:WHAT")]
    fault: Vec<Fault>,
    /// Threads that serve connections
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Exit when standard input is closed
    #[arg(long)]
    exit_with_parent: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Memory,
    File,
    Null,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Cert {
    /// Signed by a CA, for the local host's names and addresses
    Good,
    /// Signed by a CA, for another host
    WrongHost,
    /// A self-signed CA certificate, used as the server's
    CaAsServer,
    /// The name is only in the subject's common name
    CommonNameOnly,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Normal,
    /// 405, as old daemons did
    MethodNotAllowed,
    /// 204, as old proxies did
    NoContent,
    /// 200 with broken JSON
    Malformed,
    /// 200 with an empty object
    MissingKeys,
}

fn parse_size(text: &str) -> Result<u64, String> {
    parse_size::Config::new().with_binary().parse_size(text).map_err(|error| error.to_string())
}

impl Args {
    fn builder(&self) -> Result<Builder> {
        let mut builder = FakeServer::builder()
            .host(&self.host)
            .port(self.port)
            .ticket(&self.ticket)
            .read_only(self.read_only)
            .flush(!self.no_flush)
            .zero(!self.no_zero)
            .extents(!self.no_extents)
            .max_readers((self.max_readers > 0).then_some(self.max_readers))
            .max_writers((self.max_writers > 0).then_some(self.max_writers))
            .options(self.options())
            .one_at_a_time(self.one_at_a_time)
            .inactivity_timeout(self.inactivity_timeout()?)
            .threads(self.threads)
            .volatile(self.volatile)
            // Nobody would read the records.
            .log_requests(false)
            .backend(self.backend());
        if let Some(size) = self.size.or((!matches!(self.backend, Kind::File)).then_some(1 << 30)) {
            builder = builder.size(size);
        }
        if let Some(socket) = &self.unix_socket {
            builder = builder.unix_socket(match socket.strip_prefix('@') {
                Some(name) => format!("\0{name}"),
                None => socket.clone(),
            });
        }
        if self.dirty {
            builder = builder.dirty(Vec::new()).record_dirty(true);
        }
        if let Some(block_size) = self.block_device {
            builder = builder.block_device(block_size);
        }
        if let Some(answers) = self.close_after {
            builder = builder.close_after(answers, self.close_announced);
        }
        builder = self.fault.iter().fold(builder, |builder, fault| builder.fault(fault.clone()));
        if self.delay > 0 {
            let delay = fake_imageio::What::Delay(Duration::from_millis(self.delay));
            builder = builder.fault(Fault::any().every().then(delay));
        }
        Ok(if self.tls { builder.tls(self.certificate()) } else { builder })
    }

    fn backend(&self) -> Backend {
        match (self.backend, &self.file) {
            (Kind::File, Some(file)) => Backend::File(file.clone()),
            (Kind::Null, _) => Backend::Null,
            // clap has made sure that there is a file for --backend file.
            (Kind::Memory | Kind::File, _) => Backend::Memory,
        }
    }

    fn certificate(&self) -> Certificate {
        let local = || vec![self.host.clone(), "localhost".to_owned()];
        match self.certificate {
            Cert::Good if self.host == "127.0.0.1" => Certificate::default(),
            Cert::Good => Certificate::Names(local()),
            Cert::WrongHost => Certificate::wrong_host(),
            Cert::CaAsServer => Certificate::CaAsServer(local()),
            Cert::CommonNameOnly => Certificate::CommonNameOnly(self.host.clone()),
        }
    }

    fn options(&self) -> OptionsMode {
        match self.options {
            Mode::Normal => OptionsMode::Normal,
            Mode::MethodNotAllowed => OptionsMode::MethodNotAllowed,
            Mode::NoContent => OptionsMode::NoContent,
            Mode::Malformed => OptionsMode::Malformed,
            Mode::MissingKeys => OptionsMode::MissingKeys,
        }
    }

    fn inactivity_timeout(&self) -> Result<Option<Duration>> {
        if self.inactivity_timeout == 0.0 {
            return Ok(None);
        }
        match Duration::try_from_secs_f64(self.inactivity_timeout) {
            Ok(timeout) => Ok(Some(timeout)),
            Err(error) => bail!("--inactivity-timeout {}: {error}", self.inactivity_timeout),
        }
    }
}

/// Returns when it is time to go.
fn wait(mut signals: Signals, stdin: bool) -> Result<()> {
    let (sender, receiver) = mpsc::channel();
    let from_signal = sender.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        // The receiver may be gone, if both happen at once.
        if signals.forever().next().is_some() {
            let _ = from_signal.send(());
        }
    })?;
    if stdin {
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            // An error ends standard input as well as its end does.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = sender.send(());
        })?;
    }
    Ok(receiver.recv()?)
}

fn run(args: &Args) -> Result<()> {
    // Before the URL is told: whoever reads it may send a signal at once.
    let signals = Signals::new([SIGINT, SIGTERM])?;
    let server = args.builder()?.start().context("cannot start the server")?;
    let url = server.url();
    if let (Some(path), Some(ca)) = (&args.cafile_out, server.ca_pem()) {
        std::fs::write(path, ca).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.url_file {
        std::fs::write(path, &url).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut stdout = io::stdout();
    writeln!(stdout, "{url}")?;
    stdout.flush()?;
    wait(signals, args.exit_with_parent)
}

fn main() -> ExitCode {
    env_logger::init();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The last words go to standard error; if that is closed, nobody listens.
            let _ = writeln!(io::stderr(), "fake-imageio: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
        let args =
            Args::parse_from(["fake-imageio", "--size", "1M", "--unix-socket", "@name", "--read-only"]);
        assert_eq!(args.size, Some(1 << 20));
        assert!(args.builder().is_ok());
        assert!(Args::try_parse_from(["fake-imageio", "--backend", "file"]).is_err());
        let cruel = ["fake-imageio", "--block-device=512", "--close-after=3", "--fault", "put:2:500,done"];
        assert!(Args::parse_from(cruel).builder().is_ok());
        assert!(Args::try_parse_from(["fake-imageio", "--fault", "put:2:eat"]).is_err());
    }
}
