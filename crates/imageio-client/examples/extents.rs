// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lists the ranges of a transfer's disk, and which of them are zero: `extents URL [CA-FILE]`.

use std::env;
use std::error::Error;
use std::io::{self, Write};

use imageio_client::{Connector, ExtentsContext, Timeouts, TlsConfig, TransferUrl};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let url = TransferUrl::parse(&arguments.next().ok_or("usage: extents URL [CA-FILE]")?)?;
    let tls = arguments.next().map(|cafile| TlsConfig::with_cafile(cafile.as_ref())).transpose()?;
    let mut connection = Connector::new(url, tls, Timeouts::default())?.connect()?;
    if !connection.options()?.extents {
        return Err("the server tells no extents".into());
    }
    let mut out = io::stdout();
    for extent in connection.extents(ExtentsContext::Zero)? {
        let what = if extent.zero { "zero" } else { "data" };
        writeln!(out, "{:>16} {:>16} {what}", extent.start, extent.length)?;
    }
    Ok(())
}
