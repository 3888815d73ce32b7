// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lists the backups of a directory, with the files that each disk needs: `list DIRECTORY`.

use std::error::Error;
use std::io::{self, Write};

use backup_directory::BackupDirectory;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: list DIRECTORY")?;
    let directory = BackupDirectory::open(path.as_ref())?;
    let (manifest, mut out) = (directory.manifest(), io::stdout());
    writeln!(out, "{} ({})", manifest.vm.name, manifest.vm.id)?;
    for backup in &manifest.backups {
        writeln!(out, "{} of {}", backup.id, backup.created)?;
        for disk in &backup.disks {
            let files: Vec<_> =
                manifest.chain(disk).iter().map(|disk| directory.path_of(&disk.file)).collect();
            writeln!(out, "  {}: {files:?}", disk.disk.name)?;
        }
    }
    Ok(())
}
