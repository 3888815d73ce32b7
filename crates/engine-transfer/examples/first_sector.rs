// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the first sector of an engine's disk:
//! `first_sector ENGINE-URL USER PASSWORD-FILE CA-FILE DISK`.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;

use block_device_traits::BlockDevice;
use engine_transfer::{Content, Credentials, EngineSettings, PasswordSource, Source, SystemClock, Target};
use imageio_device::{Settings, UrlSource};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [url, user, password, cafile, disk] = <[String; 5]>::try_from(arguments)
        .map_err(|_| "usage: first_sector ENGINE-URL USER PASSWORD-FILE CA-FILE DISK")?;
    let mut credentials = Credentials::default();
    credentials.url = Some(url);
    credentials.user = Some(user);
    credentials.password = Some(PasswordSource::File(password.into()));
    credentials.cafile = Some(cafile.clone().into());
    // The engine tells the URL of the transfer.
    let mut settings = Settings::new(UrlSource::Inline(String::new()));
    settings.read_only = true;
    settings.cafile = Some(cafile.into());
    let engine = EngineSettings::new(credentials, Target::Disk(disk));
    let opened = Source::engine(settings, engine).open(Arc::new(SystemClock::default()))?;
    let device = opened.transfer.start()?;
    let mut sector = [0; 512];
    device.read(0, &mut sector)?;
    device.close()?;
    // Until the engine has said so, the disk is locked.
    opened.ending.end(Content::Complete)?;
    io::stdout().write_all(&sector)?;
    Ok(())
}
