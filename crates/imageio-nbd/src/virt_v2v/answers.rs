// SPDX-License-Identifier: MIT OR Apache-2.0
//! The answers to what virt-v2v asks of nbdkit, where nbdkit isn't installed.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;

use super::shim::parse;
use crate::{probing, secrets};

/// The version of nbdkit whose options this program has. virt-v2v wants to know that it is not too
/// old.
const VERSION: &str = "1.44.0";

/// Answers the call if it asks for nothing but what can be told without nbdkit: the exit status.
/// With a second argument, it asks whether nbdkit has a plugin or filter.
pub(crate) fn for_nbdkit(arguments: &[OsString]) -> Option<Result<u8>> {
    if arguments.len() != 1 {
        return None;
    }
    match parse(arguments) {
        Ok(options) if options.dump_config => Some(probing::print(&probing::config("nbdkit", VERSION))),
        Ok(options) if options.long_options => Some(probing::print(&probing::long_options())),
        Ok(options) if options.short_options => Some(probing::print(&probing::short_options())),
        Err(error) if error.kind() == ErrorKind::DisplayVersion => {
            Some(Ok(u8::from(secrets::print(&error) != ExitCode::SUCCESS)))
        }
        _ => None,
    }
}
