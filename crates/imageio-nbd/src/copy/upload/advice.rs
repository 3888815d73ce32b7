// SPDX-License-Identifier: MIT OR Apache-2.0
//! The advice that comes with an error of an upload that can be resumed.

use anyhow::Result;
use engine_transfer::Interrupted;
use ovirt_engine_client::TransferPhase;

use crate::copy::image_files;
use crate::copy::is_consequence;
use crate::copy::journal::Journal;

/// The context of an error says what to do about it, so that nothing else need be said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Advice(String);

/// An error that keeps an upload from going on comes with what to do about it.
pub(super) fn advised<T>(result: Result<T>, journal: &Journal) -> Result<T> {
    result.map_err(|error| match advice(&error, journal) {
        Some(advice) => error.context(Advice(advice)),
        None => error,
    })
}

fn advice(error: &anyhow::Error, journal: &Journal) -> Option<String> {
    let state = journal.path().display();
    if let Some(engine_transfer::Error::Left { disk, .. }) = error.downcast_ref() {
        return Some(format!(
            "remove disk {disk} in the engine if nobody needs it, and {state}, to begin anew"
        ));
    }
    let interrupted = journal.begun()?.interrupted();
    let Interrupted { transfer, disk, is_new, .. } = &interrupted;
    if is_finalized(error) {
        let removal = if *is_new { ": remove it in the engine" } else { "" };
        return Some(format!(
            "the upload can't go on, and disk {disk} has only a part of the image{removal}; remove {state} to begin anew"
        ));
    }
    let end = end_of(&interrupted);
    if is_hopeless(error) {
        Some(format!(
            "the upload can't go on: if the transfer is still there, {end}; remove {state} to begin anew"
        ))
    } else if !is_without_ticket(error) {
        (!is_consequence(error)).then(|| goes_on(journal))
    } else if journal.has_all() {
        Some(format!(
            "all data is on disk {disk}: don't cancel transfer {transfer}, but try again when its host can be reached"
        ))
    } else {
        Some(format!(
            "transfer {transfer} doesn't go on: try again when its host can be reached; if the imageio server was restarted there, it has lost the ticket for good: then {end}; remove {state} to begin anew"
        ))
    }
}

/// Tells how a transfer is ended that nobody goes on with.
fn end_of(Interrupted { transfer, disk, is_new, .. }: &Interrupted) -> String {
    if *is_new {
        return format!("cancel transfer {transfer} in the engine, which removes disk {disk}");
    }
    format!("end transfer {transfer} by the engine's API: finalize keeps disk {disk}, and cancel removes it")
}

pub(super) fn goes_on(journal: &Journal) -> String {
    format!("--resume={} goes on with the upload", journal.path().display())
}

/// Returns true if somebody has finalized the transfer.
pub(super) fn is_finalized(error: &anyhow::Error) -> bool {
    use engine_transfer::Error::Engine;
    let Some(Engine(ovirt_engine_client::Error::Transfer { phase, .. })) = error.downcast_ref() else {
        return false;
    };
    matches!(phase, TransferPhase::FinalizingSuccess | TransferPhase::FinishedSuccess)
}

/// Returns true if the server doesn't know the ticket, or couldn't be given it.
fn is_without_ticket(error: &anyhow::Error) -> bool {
    use engine_transfer::Error::{Engine, Open};
    match error.downcast_ref() {
        Some(Open(error)) => error.is_forbidden(),
        Some(Engine(error)) => matches!(error, ovirt_engine_client::Error::TimedOut { .. }),
        _ => false,
    }
}

/// Returns true if the engine has ended the transfer, or another image would be uploaded.
pub(super) fn is_hopeless(error: &anyhow::Error) -> bool {
    use ovirt_engine_client::Error::{Disk, Missing, Transfer};
    let by_engine =
        |error: &ovirt_engine_client::Error| matches!(error, Disk { .. } | Missing { .. } | Transfer { .. });
    let by_transfer = |error: &engine_transfer::Error| matches!(error, engine_transfer::Error::Engine(error) if by_engine(error));
    error.is::<image_files::Changed>() || error.downcast_ref().is_some_and(by_transfer)
}
