// SPDX-License-Identifier: MIT OR Apache-2.0
//! The man page and the shell completions, from the same definitions as the command line.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap_complete::Shell;

use crate::cli;

pub(crate) fn generate(dir: &Path) -> Result<()> {
    let write = || {
        fs::create_dir_all(dir)?;
        let mut page = Vec::new();
        clap_mangen::Man::new(cli::command()).render(&mut page)?;
        fs::write(dir.join("imageio-nbd.1"), page)?;
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            clap_complete::generate_to(shell, &mut cli::command(), "imageio-nbd", dir)?;
        }
        std::io::Result::Ok(())
    };
    write().with_context(|| format!("cannot write into {}", dir.display()))
}
