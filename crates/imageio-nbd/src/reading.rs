// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk that is looked at, and not served.

use std::sync::Arc;

use anyhow::Result;
use engine_transfer::{Content, Opened, Source, SystemClock};
use imageio_device::Transfer;

use crate::interrupt::Interrupts;

/// Opens a disk, for reading only where an engine is asked for it, uses it, and ends what the
/// engine has begun.
pub(crate) fn with<T>(mut source: Source, use_it: impl FnOnce(Transfer) -> Result<T>) -> Result<T> {
    if source.engine.is_none() {
        let Opened { transfer, .. } = source.open_as_allowed(Arc::new(SystemClock::default()))?;
        return use_it(transfer);
    }
    source.settings.read_only = true;
    let interrupts = Interrupts::new()?;
    let Opened { transfer, ending } = source.open_as_allowed(interrupts.clock())?;
    let used = use_it(transfer);
    // A signal has ended the use, if any. The engine is to be told of the end all the same.
    interrupts.forget();
    ending.end(Content::Complete)?;
    used
}
