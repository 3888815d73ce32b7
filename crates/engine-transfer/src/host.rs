// SPDX-License-Identifier: MIT OR Apache-2.0
//! Detection of a host of oVirt, whose imageio server can be reached by its unix socket.

use std::fs;

use error_reporter::Report;
use ovirt_engine_client::{Disk, Engine, ImageTransfer, Result};

/// The file in which a host of oVirt has its hardware id (`vdsm.utils.getHostUUID`).
const HARDWARE_ID: &str = "/etc/vdsm/vdsm.id";

/// This host, as the engine knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ThisHost {
    id: String,
}

impl ThisHost {
    /// If this is a host of oVirt that reaches the disk. A question that isn't answered costs
    /// nothing but speed.
    pub(crate) fn find(engine: &Engine, disk: impl FnOnce() -> Result<Disk>) -> Option<Self> {
        let hardware_id = fs::read_to_string(HARDWARE_ID).ok()?;
        let find = || {
            let disk = disk()?;
            let Some(domain) = disk.storage_domains.first() else { return Ok(None) };
            engine.find_host(hardware_id.trim(), &engine.storage_domain(&domain.id)?)
        };
        let found = find()
            .inspect_err(|error| log::warn!("the server's unix socket isn't used: {}", Report::new(error)));
        found.ok().flatten().map(|host| Self { id: host.id })
    }

    /// The engine's id of it.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Returns true if this host does the transfer.
    pub(crate) fn does(&self, transfer: &ImageTransfer) -> bool {
        self.id == transfer.host.id
    }
}
