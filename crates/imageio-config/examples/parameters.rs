// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lists all parameters, or tells what is made of some: `parameters [NAME=VALUE…]`.

use std::env;
use std::error::Error;
use std::io::{self, Write};

use imageio_config::{Parser, parameters};

fn main() -> Result<(), Box<dyn Error>> {
    let (mut arguments, mut out) = (env::args().skip(1).peekable(), io::stdout());
    if arguments.peek().is_none() {
        for parameter in parameters() {
            writeln!(out, "{}={} (default: {})", parameter.name, parameter.value, parameter.default)?;
        }
        return Ok(());
    }
    let mut parser = Parser::new();
    arguments.try_for_each(|argument| parser.set_argument(&argument))?;
    writeln!(out, "{:#?}", parser.finish()?.settings)?;
    Ok(())
}
