// SPDX-License-Identifier: MIT OR Apache-2.0
//! One door at work for one script: what its client got, and what the server saw meanwhile.

use std::process::ExitStatus;

use fake_imageio::{Certificate, FakeServer, Fault, Log, RequestRecord};
use serde_json::Value;
use support::TestResult;
use support::door::Door;
use support::image::{SIZE, same};
use support::process::PATIENCE;
use support::target::Via;
use tempfile::TempDir;

use crate::client::Client;
use crate::script::{Command, Features, Request};

/// A server to be made, the same for each door.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) via: Via,
    pub(crate) features: Features,
    /// The number of writers that it wants at most. With one it serves one connection at a time, as
    /// virt-v2v's own test server: then a door that opens a second before it has closed the first
    /// gets no answer.
    pub(crate) writers: u32,
    pub(crate) fault: Option<Fault>,
}

/// A request of the client.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) request: Request,
    /// The name of the error, if it failed.
    pub(crate) error: Option<String>,
    /// The requests that the server saw until the client had its answer.
    pub(crate) sent: Vec<RequestRecord>,
}

/// All that was seen.
#[derive(Debug)]
pub(crate) struct Observation {
    pub(crate) door: Door,
    pub(crate) offered: Value,
    /// Seen before the client's first request.
    pub(crate) start: Vec<RequestRecord>,
    pub(crate) steps: Vec<Step>,
    /// Seen after the client's last request.
    pub(crate) end: Vec<RequestRecord>,
    pub(crate) log: Log,
    pub(crate) status: ExitStatus,
}

impl Observation {
    /// The errors that the client got, request by request.
    pub(crate) fn errors(&self) -> Vec<&str> {
        self.steps.iter().map(|step| step.error.as_deref().unwrap_or("ok")).collect()
    }
}

impl Setup {
    fn server(&self, dir: &TempDir) -> TestResult<FakeServer> {
        let mut builder = FakeServer::builder().size(SIZE).max_writers(Some(self.writers));
        builder = builder.flush(self.features.flush).zero(self.features.zero);
        builder = builder.one_at_a_time(self.writers == 1);
        match self.via {
            Via::Http => {}
            Via::Https => builder = builder.tls(Certificate::default()),
            Via::Unix => builder = builder.unix_socket(dir.path().join("imageio").display().to_string()),
        }
        let server = builder.start()?;
        self.fault.iter().for_each(|fault| server.fault(fault.clone()));
        Ok(server)
    }

    /// The parameters as virt-v2v gives them. Ours can do more than the reference, which is another
    /// test's matter.
    fn parameters(&self, server: &FakeServer, door: Door) -> Vec<String> {
        let mut parameters = vec![format!("size={SIZE}"), format!("url={}", server.url())];
        parameters.extend(server.cafile().map(|cafile| format!("cafile={}", cafile.display())));
        parameters.extend((self.via == Via::Unix).then(|| "is_ovirt_host=true".into()));
        parameters.extend((door != Door::Reference).then(|| "replay-buffer=0".into()));
        parameters
    }
}

/// Runs a script. Bytes read that aren't the ones written before are an error, and so is a disk
/// that ends up different.
pub(crate) fn observe(door: Door, setup: &Setup, script: &[Request]) -> TestResult<Observation> {
    let dir = tempfile::Builder::new().prefix("imageio-nbd-test-").tempdir()?;
    let server = setup.server(&dir)?;
    let served = door.serve(dir.path(), &setup.parameters(&server, door))?;
    let mut seen = 0;
    let mut news = || {
        let news = server.log().requests.split_off(seen);
        seen += news.len();
        news
    };
    let mut client = Client::connect(&served.uri())?;
    let (offered, start) = (client.offered.clone(), news());
    let mut disk = vec![0; SIZE as usize];
    let mut steps = Vec::new();
    for request in script {
        let error = perform(&mut client, request, &mut disk)?;
        steps.push(Step { request: *request, error, sent: news() });
    }
    client.close()?;
    let (status, said) = served.finish()?;
    // The server may notice the end of a connection a little later than the client.
    if !server.wait_for(PATIENCE, |log| log.open().count() == 0) {
        return Err(format!("it left connections open, having said:\n{said}").into());
    }
    let end = news();
    same("the server's disk", &server.contents()?, &disk)?;
    Ok(Observation { door, offered, start, steps, end, log: server.log(), status })
}

/// Does a request, and on success the same to what the disk should be. Returns the name of the
/// error.
fn perform(client: &mut Client, request: &Request, disk: &mut [u8]) -> TestResult<Option<String>> {
    let data = match client.perform(request)? {
        Ok(data) => data,
        Err(error) => return Ok(Some(error)),
    };
    let range = &mut disk[request.offset as usize..][..request.len as usize];
    match request.command {
        Command::Read => same(&format!("what {request:?} gave"), &data, range)?,
        Command::Write => range.copy_from_slice(&request.data()),
        Command::Zero => range.fill(0),
        Command::Flush => {}
    }
    Ok(None)
}
