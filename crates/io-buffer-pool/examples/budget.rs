// SPDX-License-Identifier: MIT OR Apache-2.0
//! A producer that is quicker than its consumer, and waits for it where the budget of a pool ends.

use std::error::Error;
use std::io::{self, Write};
use std::sync::mpsc::channel;
use std::thread;

use io_buffer_pool::{Buffer, Pool};

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(4 << 20);
    let (send, receive) = channel::<Buffer>();
    let consumer = thread::Builder::new().name("consumer".into()).spawn(move || {
        // Each buffer goes back to the pool here.
        receive.iter().map(|buffer| buffer.len()).sum::<usize>()
    })?;
    for number in 0..100 {
        let mut buffer = pool.take(1 << 20);
        buffer.fill(number);
        send.send(buffer)?;
    }
    drop(send);
    let bytes = consumer.join().map_err(|_| "the consumer has panicked")?;
    writeln!(io::stdout(), "{bytes} bytes went through a budget of {} bytes", 4 << 20)?;
    Ok(())
}
