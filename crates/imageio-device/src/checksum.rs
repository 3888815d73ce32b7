// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server's checksum of the disk.

use crate::Device;
use crate::transfer::again_if_broken;

impl Device {
    /// The server's checksum of the whole disk, in hexadecimal digits, on a connection of its own:
    /// it may take minutes, and the ticket is kept alive meanwhile. If that connection is lost, the
    /// server is asked again, twice at most. What was not flushed need not
    /// be in it. See [`Connection::checksum`](imageio_client::Connection::checksum).
    ///
    /// # Errors
    /// [`imageio_client::Error`].
    pub fn checksum(&self, algorithm: &'static str, block_size: u64) -> imageio_client::Result<String> {
        again_if_broken(|| self.common.connector.connect()?.checksum(algorithm, block_size))
    }
}
