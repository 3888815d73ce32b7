// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads that make a queue of a device that blocks.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::{Batch, BlockDevice, Capabilities, Completion, Errno, Error, QueuedDevice, Request, Result};

/// Any [`BlockDevice`] with some threads that call it. Dropping it waits for the requests it has
/// taken.
pub struct Threaded<D> {
    device: Arc<D>,
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl<D> fmt::Debug for Threaded<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threaded").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

type Job = (Request, Box<dyn Completion>);

impl<D: BlockDevice + 'static> Threaded<D> {
    /// `device`, which will be called for as many requests at a time as there are threads.
    ///
    /// # Errors
    /// No threads can be had.
    pub fn start(device: Arc<D>, threads: usize) -> io::Result<Self> {
        let (jobs, queue) = unbounded();
        let mut threaded = Self { device, jobs: Some(jobs), threads: Vec::new() };
        for number in 0..threads.max(1) {
            let (device, queue) = (Arc::clone(&threaded.device), queue.clone());
            let thread = thread::Builder::new().name(format!("device-{number}"));
            threaded.threads.push(thread.spawn(move || work(&*device, &queue))?);
        }
        Ok(threaded)
    }
}

fn work<D: BlockDevice>(device: &D, queue: &Receiver<Job>) {
    for (request, mut completion) in queue {
        // The device may be left in any state by a panic, but it is the device's state, and the
        // next request finds out.
        let call = AssertUnwindSafe(|| call(device, request, &mut *completion));
        let result = catch_unwind(call).unwrap_or_else(|panic| Err(panicked(&*panic)));
        // The thread lives on for the others, also if this one panics.
        let _ = catch_unwind(AssertUnwindSafe(|| completion.complete(result, &mut Batch::default())));
    }
}

fn call<D: BlockDevice>(device: &D, request: Request, completion: &mut dyn Completion) -> Result<()> {
    match request {
        Request::Read { offset } => device.read(offset, completion.buffer()),
        Request::Write { offset, data, fua } => device.write(offset, data, fua),
        Request::Zero { offset, len, flags } => device.zero(offset, len, flags),
        Request::Trim { offset, len, fua } => device.trim(offset, len, fua),
        Request::Flush => device.flush(),
        Request::Extents { context, offset, len, limit } => {
            completion.extents(device.extents(context, offset, len, limit)?);
            Ok(())
        }
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::new(Errno::Io, format!("panic: {}", text.unwrap_or("without a message")))
}

impl<D: BlockDevice> QueuedDevice for Threaded<D> {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn contexts(&self) -> &[String] {
        self.device.contexts()
    }

    fn is_tentative(&self, context: usize) -> bool {
        self.device.is_tentative(context)
    }

    fn has_context(&self, context: usize) -> bool {
        self.device.has_context(context)
    }

    fn submit(&self, request: Request, completion: Box<dyn Completion>) {
        let jobs = self.jobs.as_ref().expect("there are threads until it is dropped");
        jobs.send((request, completion)).unwrap_or_else(|_| unreachable!("the threads live as long as this"));
    }
}

impl<D> Drop for Threaded<D> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use bytes::Bytes;

    use super::*;
    use crate::MemoryDevice;

    struct Tell(Vec<u8>, Sender<Result<Vec<u8>>>);

    impl Completion for Tell {
        fn buffer(&mut self) -> &mut [u8] {
            &mut self.0
        }

        fn complete(self: Box<Self>, result: Result<()>, _: &mut Batch) {
            let Self(buffer, sender) = *self;
            sender.send(result.map(|()| buffer)).unwrap();
        }
    }

    struct Panics;

    impl BlockDevice for Panics {
        fn size(&self) -> u64 {
            4
        }

        fn capabilities(&self) -> Capabilities {
            MemoryDevice::new(4).capabilities()
        }

        fn read(&self, _: u64, _: &mut [u8]) -> Result<()> {
            panic!("this is a test")
        }

        fn write(&self, _: u64, _: Bytes, _: bool) -> Result<()> {
            Ok(())
        }

        fn zero(&self, _: u64, _: u64, _: crate::ZeroFlags) -> Result<()> {
            Ok(())
        }

        fn flush(&self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn requests_are_carried_out_and_told_of() {
        let disk = Threaded::start(Arc::new(MemoryDevice::new(16)), 1).unwrap();
        let (sender, outcome) = channel();
        let ask = |request, len| disk.submit(request, Box::new(Tell(vec![1; len], sender.clone())));
        ask(Request::Write { offset: 2, data: Bytes::from_static(b"abc"), fua: false }, 0);
        ask(Request::Zero { offset: 3, len: 1, flags: crate::ZeroFlags::default() }, 0);
        ask(Request::Flush, 0);
        ask(Request::Read { offset: 1 }, 5);
        ask(Request::Read { offset: 15 }, 2);
        drop(disk);
        let outcomes: Vec<_> = (0..5).map(|_| outcome.recv().unwrap()).collect();
        assert_eq!(outcomes[3].as_deref(), Ok(&b"\0a\0c\0"[..]));
        assert_eq!(outcomes[4].as_ref().unwrap_err().errno(), Errno::Inval);
    }

    #[test]
    fn a_panic_is_an_error() {
        let disk = Threaded::start(Arc::new(Panics), 1).unwrap();
        let (sender, outcome) = channel();
        for request in [Request::Read { offset: 0 }, Request::Flush] {
            disk.submit(request, Box::new(Tell(vec![0], sender.clone())));
        }
        assert_eq!(outcome.recv().unwrap().unwrap_err().to_string(), "panic: this is a test");
        assert!(outcome.recv().unwrap().is_ok(), "the thread lives on");
    }

    #[test]
    fn a_completion_that_panics_harms_no_other() {
        let disk = Threaded::start(Arc::new(MemoryDevice::new(4)), 1).unwrap();
        let (nobody, _) = channel();
        disk.submit(Request::Flush, Box::new(Tell(Vec::new(), nobody)));
        let (sender, outcome) = channel();
        disk.submit(Request::Flush, Box::new(Tell(Vec::new(), sender)));
        assert!(outcome.recv().unwrap().is_ok());
    }
}
