// SPDX-License-Identifier: MIT OR Apache-2.0
//! A stateful fake of oVirt's engine, for tests of its clients.
//!
//! It has disks that are locked while something is done to them, image transfers with all their phases, backups and
//! checkpoints; it gives tickets to an imageio server, the real one or a fake, so that the data goes where it says; and it goes
//! wrong where a script of faults says so. It speaks XML and JSON.
//!
//! ```
//! use fake_engine::{FakeEngine, FakeImageio, Fault, What};
//!
//! // Or a `ControlSocket`, for the real daemon.
//! let engine = FakeEngine::builder(FakeImageio::new(None)).storage_domain("data").start()?;
//! engine.fault(Fault::on("POST", "api/imagetransfers").then(What::LoseReply));
//! // … a client uses engine.url() …
//! assert!(engine.transfers().iter().all(|transfer| transfer.phase.is_finished()));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! **Invariant:** of this workspace's other crates, it uses `fake-imageio` alone, so that a misreading of the API in the client
//! cannot hide in its tests.

mod api;
mod auth;
mod builder;
mod document;
mod engine;
mod fault;
mod host;
mod journal;
mod search;
mod server;
mod service;
mod state;
mod storage;

pub use builder::{Builder, DEFAULT_PASSWORD, DEFAULT_USER};
pub use fake_imageio::{Certificate, Gate, Pki};
pub use fault::{Fault, What, When};
pub use host::{ControlSocket, FakeImageio, Host, Removal, Ticket};
pub use journal::RequestRecord;
pub use server::FakeEngine;
pub use state::{
    Backup, BackupDisk, BackupMode, BackupPhase, Checkpoint, ContentType, Delays, Direction, Disk,
    DiskFormat, DiskStatus, HostStatus, Id, Job, Layer, OldEngine, Phase, TicketId, TicketStatus,
    TimeoutPolicy, Transfer, Vm,
};
