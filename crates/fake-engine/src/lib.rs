// SPDX-License-Identifier: MIT OR Apache-2.0
//! A stateful fake of oVirt's engine, for tests of its clients.
//!
//! It has disks that are locked while something is done to them, image transfers with all their
//! phases, backups and checkpoints. It gives tickets to an imageio server, the real one or a fake,
//! so that the data goes where the engine says. A script of faults makes it go wrong. It speaks XML
//! and JSON.
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
//! **Invariant:** of this workspace's other crates, it uses `fake-imageio` alone, so that a
//! misreading of the API in the client cannot hide in its tests.
//!
//! # Why this way
//!
//! A mock that answers what a test tells it to answer proves only that the client asks what the
//! test's author expected. This fake keeps the engine's state, so a client meets the consequences
//! of what it does: a disk that is still locked, a transfer that was paused, an answer that was
//! lost after the engine had acted. It leaves out virtual machines that run, and all that no
//! transfer or backup has to do with.
//!
//! # Threads and lifecycle
//!
//! [`Builder::start`] starts a server with its own threads on a free port. Dropping the
//! [`FakeEngine`] stops it, and removes its disks. Time is a parameter of its state: [`Delays`] say
//! how long each phase takes, and [`FakeEngine::wait_for`] waits for an event, so no test has to
//! sleep.
//!
//! # Errors
//!
//! A call that the fake itself can't carry out returns an [`std::io::Error`]: there is no port, or
//! no `qemu-img`. A client's mistake is answered as the engine answers it, and noted in the
//! [journal](FakeEngine::journal).
//!
//! # Features
//!
//! `cli`, on by default, has the binary and what it needs. Tests that use the library leave it out.

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

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<FakeEngine>();
    is_send_and_sync::<Builder>();
    is_send_and_sync::<Fault>();
};
