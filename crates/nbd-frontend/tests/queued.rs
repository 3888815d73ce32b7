// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices that complete requests when and where they like.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::mem;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use block_device_traits::{
    Batch, BlockDevice, Capabilities, Completion, MemoryDevice, QueuedDevice, Request, Threaded,
};
use common::*;
use nbd_frontend::{Config, ExportInfo};

type Submit = dyn Fn(Request, Box<dyn Completion>) + Send + Sync;

/// Leaves each request to the test.
struct Device(Box<Submit>);

impl QueuedDevice for Device {
    fn size(&self) -> u64 {
        MIB as u64
    }

    fn capabilities(&self) -> Capabilities {
        MemoryDevice::new(0).capabilities()
    }

    fn submit(&self, request: Request, completion: Box<dyn Completion>) {
        (self.0)(request, completion);
    }
}

fn start(submit: impl Fn(Request, Box<dyn Completion>) + Send + Sync + 'static) -> Running {
    let config = Config::default().with(|config| config.requests = 2000);
    Running::queued(Arc::new(Device(Box::new(submit))), &ExportInfo::default(), config)
}

/// Keeps what is submitted until there are `count`, and completes that in one batch. A read finds
/// its offset's last byte.
fn start_with_batches_of(count: usize) -> Running {
    let waiting = Mutex::new(Vec::new());
    start(move |request, completion| {
        let mut waiting = waiting.lock().unwrap();
        waiting.push((request, completion));
        if waiting.len() < count {
            return;
        }
        let all = mem::take(&mut *waiting);
        let mut batch = Batch::default();
        for (request, mut completion) in all {
            if let Request::Read { offset } = request {
                completion.buffer().fill(offset as u8);
            }
            completion.complete(Ok(()), &mut batch);
        }
    })
}

#[test]
fn who_does_not_read_replies_holds_up_nobody_else_even_where_the_device_has_one_thread() {
    let device = Threaded::start(Arc::new(MemoryDevice::new(MIB)), 1).unwrap();
    let server = Running::queued(Arc::new(device), &ExportInfo::default(), Config::default());
    let (mut lazy, mut other) = (server.client(), server.client());
    for cookie in 0..100 {
        lazy.request(READ, 0, cookie, 0, MIB);
    }
    // It has begun, and there is far more than fits into the socket.
    assert_eq!(lazy.reply(), (0, 0));
    for _ in 0..20 {
        other.write(1, 0, &[0; 4096]);
        assert_eq!(other.reply(), (0, 1));
        assert_eq!(other.read(0, MIB).len(), MIB);
    }
    other.disconnect();
    lazy.receive(MIB);
    for cookie in 1..100 {
        assert_eq!(lazy.reply(), (0, cookie));
        lazy.receive(MIB);
    }
    lazy.disconnect();
    assert_eq!(server.stop().requests, 140);
}

#[test]
fn the_replies_of_a_batch_arrive_all() {
    // Not all fit into one system call.
    const EACH: u64 = 700;
    let server = start_with_batches_of(2 * EACH as usize);
    let mut clients = [server.client(), server.client()];
    for cookie in 0..EACH {
        for client in &mut clients {
            client.request(READ, 0, cookie, cookie, 100);
        }
    }
    for client in &mut clients {
        for cookie in 0..EACH {
            assert_eq!(client.reply(), (0, cookie));
            assert_eq!(client.receive(100), [cookie as u8; 100]);
        }
    }
    clients.into_iter().for_each(Client::disconnect);
    assert_eq!(server.stop().requests, 2 * EACH);
}

#[test]
fn who_is_gone_or_does_not_read_keeps_no_reply_of_a_batch_from_others() {
    let server = start_with_batches_of(12);
    let (mut gone, mut lazy, mut other) = (server.client(), server.client(), server.client());
    for cookie in 0..4 {
        gone.request(READ, 0, cookie, 0, MIB);
        lazy.request(READ, 0, cookie, 0, MIB);
    }
    drop(gone);
    for cookie in 0..4 {
        other.request(READ, 0, cookie, cookie, MIB - 4);
    }
    for cookie in 0..4 {
        assert_eq!(other.reply(), (0, cookie));
        assert_eq!(other.receive(MIB - 4)[..3], [cookie as u8; 3]);
    }
    other.disconnect();
    for cookie in 0..4 {
        assert_eq!(lazy.reply(), (0, cookie));
        lazy.receive(MIB);
    }
    lazy.disconnect();
    assert_eq!(server.stop().requests, 12);
}

#[test]
fn a_request_that_the_device_drops_is_an_error_and_the_session_goes_on() {
    let server = start(|request, completion| match request {
        Request::Read { offset: 512 } | Request::Write { offset: 512, .. } => drop(completion),
        Request::Zero { offset: 512, .. } => {
            thread::scope(|scope| drop(scope.spawn(move || drop(completion))));
        }
        _ => completion.complete(Ok(()), &mut Batch::default()),
    });
    let mut client = server.client();
    for _ in 0..3 {
        assert_eq!(client.ask(READ, 0, 512, 512), EIO);
        client.write(1, 512, &[1; 512]);
        assert_eq!(client.reply(), (EIO, 1));
        assert_eq!(client.ask(ZERO, 0, 512, 512), EIO);
        assert_eq!(client.read(0, 512).len(), 512);
        assert_eq!(client.ask(FLUSH, 0, 0, 0), 0);
    }
    client.disconnect();
    assert_eq!(server.stop().errors, 9);
}

#[test]
fn a_panic_in_submit_ends_one_session_whose_request_is_answered() {
    let server = start(|request, completion| {
        assert!(request != Request::Flush, "this panic is part of the test");
        completion.complete(Ok(()), &mut Batch::default());
    });
    let (mut client, mut other) = (server.client(), server.client());
    assert_eq!(client.ask(FLUSH, 0, 0, 0), EIO);
    client.assert_closed();
    assert_eq!(other.read(0, 512).len(), 512);
    other.disconnect();
    assert_eq!(server.stop().errors, 1);
}

#[test]
fn a_request_is_wanted_until_its_client_is_gone_without_a_word() {
    let (submitted, waiting) = std::sync::mpsc::channel::<Box<dyn Completion>>();
    let submitted = Mutex::new(submitted);
    let server = start(move |_, completion| submitted.lock().unwrap().send(completion).unwrap());
    let mut client = server.client();
    client.request(ZERO, 0, 1, 0, 512);
    let completion = waiting.recv().unwrap();
    assert!(completion.is_wanted());
    drop(client);
    let deadline = Instant::now() + Duration::from_secs(20);
    while completion.is_wanted() {
        assert!(Instant::now() < deadline, "nobody notices that the client is gone");
        thread::yield_now();
    }
    completion.complete(Ok(()), &mut Batch::default());
    server.stop();
}

#[test]
fn requests_may_be_completed_from_anywhere_in_any_order() {
    let waiting = Arc::new(Mutex::new(Vec::new()));
    let submitted = Arc::clone(&waiting);
    let server = start(move |request, completion| match request {
        Request::Flush => {
            completion.complete(Ok(()), &mut Batch::default());
            // The latest first, each in a thread and a batch of its own.
            for completion in mem::take(&mut *submitted.lock().unwrap()).into_iter().rev() {
                let completion: Box<dyn Completion> = completion;
                let tell = move || completion.complete(Ok(()), &mut Batch::default());
                thread::scope(|scope| drop(scope.spawn(tell)));
            }
        }
        _ => submitted.lock().unwrap().push(completion),
    });
    let mut client = server.client();
    for cookie in 0..10 {
        client.request(ZERO, 0, cookie, 0, 512);
    }
    client.request(FLUSH, 0, 10, 0, 0);
    for cookie in (0..=10).rev() {
        assert_eq!(client.reply(), (0, cookie));
    }
    assert!(waiting.lock().unwrap().is_empty());
    client.disconnect();
}
