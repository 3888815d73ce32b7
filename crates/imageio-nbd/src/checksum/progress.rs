// SPDX-License-Identifier: MIT OR Apache-2.0
//! A line for whoever waits, if standard error is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of a computation, as a line on the terminal.
#[derive(Clone)]
pub(crate) struct Progress(ProgressBar);

const IMAGE: &str = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// The server tells nothing of how far it is.
const SERVER: &str = "the server computes, for {elapsed} so far";

impl Progress {
    /// Of an image of `size` bytes, or of the server alone.
    pub(crate) fn new(size: Option<u64>) -> Self {
        let bar = Self(ProgressBar::new(size.unwrap_or(0)).with_style(style(IMAGE)));
        if size.is_none() {
            bar.wait_for_server();
        }
        bar
    }

    /// The image has come so far, in bytes.
    pub(crate) fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// There is nothing else to do.
    pub(crate) fn wait_for_server(&self) {
        self.0.set_style(style(SERVER));
        self.0.enable_steady_tick(Duration::from_secs(1));
    }

    /// Wipes it out.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is sound")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_templates_are_sound() {
        for template in [super::IMAGE, super::SERVER] {
            super::style(template);
        }
    }
}
