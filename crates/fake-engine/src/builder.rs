// SPDX-License-Identifier: MIT OR Apache-2.0
//! The settings of an engine.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use fake_imageio::Pki;

use crate::host::Host;
use crate::server::FakeEngine;
use crate::state::{
    Cluster, DataCenter, Delays, Host as HostRecord, HostStatus, OldEngine, State, StorageDomain, Vm, new_id,
};

/// The user of an engine, unless others are chosen.
pub const DEFAULT_USER: &str = "admin@internal";

/// The password of that user.
pub const DEFAULT_PASSWORD: &str = "fake-password";

/// The name of the data center, the cluster and the host.
const DEFAULT_NAME: &str = "Default";

/// Options of an engine; [`start`](Self::start) makes it. It listens on 127.0.0.1, by plain HTTP
/// unless certificates are given, and has one data center with one cluster, and a host in it that
/// is up.
#[must_use]
pub struct Builder {
    pub(crate) imageio: Arc<dyn Host>,
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) pki: Option<Pki>,
    pub(crate) users: Vec<(String, String)>,
    pub(crate) dir: Option<PathBuf>,
    delays: Delays,
    old: OldEngine,
    storage_domains: Vec<(String, bool)>,
    vms: Vec<String>,
    hosts: Vec<(String, String, HostStatus)>,
}

impl fmt::Debug for Builder {
    // The passwords are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("address", &self.address)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new(imageio: Arc<dyn Host>) -> Self {
        Self {
            imageio,
            address: "127.0.0.1".to_owned(),
            port: 0,
            pki: None,
            users: Vec::new(),
            dir: None,
            delays: Delays::default(),
            old: OldEngine::default(),
            storage_domains: Vec::new(),
            vms: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// Address to listen on; default `127.0.0.1`.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = address.into();
        self
    }

    /// TCP port; 0, the default, lets the kernel choose.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// HTTPS with these certificates; default plain HTTP.
    pub fn tls(mut self, pki: Pki) -> Self {
        self.pki = Some(pki);
        self
    }

    /// Adds a user, in place of [`DEFAULT_USER`].
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.users.push((name.into(), password.into()));
        self
    }

    /// Adds a storage domain of the data center.
    pub fn storage_domain(mut self, name: impl Into<String>) -> Self {
        self.storage_domains.push((name.into(), true));
        self
    }

    /// Adds a storage domain that isn't attached to the data center.
    pub fn unattached_storage_domain(mut self, name: impl Into<String>) -> Self {
        self.storage_domains.push((name.into(), false));
        self
    }

    /// Adds a virtual machine without disks.
    pub fn vm(mut self, name: impl Into<String>) -> Self {
        self.vms.push(name.into());
        self
    }

    /// Adds a host of this hardware id, in place of the one that there is otherwise.
    pub fn host(
        mut self,
        name: impl Into<String>,
        hardware_id: impl Into<String>,
        status: HostStatus,
    ) -> Self {
        self.hosts.push((name.into(), hardware_id.into(), status));
        self
    }

    /// Sets the time that things take.
    pub fn delays(mut self, delays: Delays) -> Self {
        self.delays = delays;
        self
    }

    /// In what it is like older engines; default in nothing.
    pub fn old_engine(mut self, old: OldEngine) -> Self {
        self.old = old;
        self
    }

    /// The directory for the disks; default a temporary one. Its path has to be short, as those of
    /// sockets have to be.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Starts the engine. It accepts connections when this returns.
    ///
    /// # Errors
    /// If it cannot listen, make its directory, or start its thread.
    pub fn start(mut self) -> io::Result<FakeEngine> {
        if self.users.is_empty() {
            self.users.push((DEFAULT_USER.to_owned(), DEFAULT_PASSWORD.to_owned()));
        }
        if self.hosts.is_empty() {
            self.hosts.push((DEFAULT_NAME.to_owned(), new_id(), HostStatus::Up));
        }
        FakeEngine::start(self)
    }

    /// Makes the state that the engine begins with.
    pub(crate) fn state(&self, now: Instant) -> State {
        let mut state = State::new(self.delays, self.old, now);
        let (center, cluster) = (new_id(), new_id());
        let name = || DEFAULT_NAME.to_owned();
        state.data_centers.push(DataCenter { id: center.clone(), name: name() });
        state.clusters.push(Cluster { id: cluster.clone(), name: name(), data_center: center.clone() });
        state.storage_domains.extend(self.storage_domains.iter().map(|(name, is_attached)| StorageDomain {
            id: new_id(),
            name: name.clone(),
            data_center: is_attached.then(|| center.clone()),
        }));
        state.hosts.extend(self.hosts.iter().map(|(name, hardware_id, status)| HostRecord {
            id: new_id(),
            name: name.clone(),
            address: self.address.clone(),
            hardware_id: hardware_id.clone(),
            status: *status,
            cluster: cluster.clone(),
        }));
        state.vms.extend(self.vms.iter().map(|name| Vm {
            id: new_id(),
            name: name.clone(),
            cluster: cluster.clone(),
            disks: Vec::new(),
            inactive_disks: Vec::new(),
            configuration: format!("<ovf:Envelope><Content><Name>{name}</Name></Content></ovf:Envelope>"),
        }));
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FakeImageio;

    #[test]
    fn nothing_that_can_be_shown_shows_a_password() {
        let builder = FakeEngine::builder(FakeImageio::new(None)).user("me", "secret word");
        assert!(!format!("{builder:?}").contains("secret word"));
        assert!(!format!("{:?}", builder.start().unwrap()).contains("secret word"));
    }
}
