// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells what an engine knows of a disk: `disk ENGINE-URL USER PASSWORD-FILE CA-FILE DISK`.

use std::error::Error;
use std::io::{self, Write};
use std::{env, fs};

use ovirt_engine_client::{Config, Engine, Secret, Trust};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [url, user, password, cafile, disk] = &arguments[..] else {
        return Err("usage: disk ENGINE-URL USER PASSWORD-FILE CA-FILE DISK".into());
    };
    let password = Secret::new(fs::read_to_string(password)?.trim_end());
    let mut config = Config::new(url, user, password);
    config.trust = Trust::file(cafile.as_ref())?;
    let engine = Engine::new(config)?;
    writeln!(io::stdout(), "{:#?}", engine.find_disk(disk)?)?;
    engine.log_out();
    Ok(())
}
