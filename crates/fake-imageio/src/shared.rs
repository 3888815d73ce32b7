// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state that all connections share: the disk, their ways there, and the books about both.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::backend::Disk;
use crate::bitmap::Bitmap;
use crate::block::{Piece, TURNS, pieces};
use crate::config::Config;
use crate::connection::Registry;
use crate::journal::{Recorder, Transport};
use crate::script::{Holds, Script};
use crate::stream::{Conn, Cut};
use crate::volatile_cache::{Change, VolatileCache};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) disk: Arc<Disk>,
    /// Set where something can be lost.
    pub(crate) cache: Option<VolatileCache>,
    /// With a ticket of an incremental backup.
    pub(crate) bitmap: Option<Bitmap>,
    pub(crate) script: Script,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) canceled: AtomicBool,
    pub(crate) registry: Registry,
}

/// A change that is carried out later, of which all that had to be read has been.
pub(crate) struct Late {
    connection: u64,
    way: u64,
    len: u64,
    writes: Vec<(u64, Change)>,
}

impl Shared {
    /// Changes the disk. On a block device, others get turns within each block that has to be read.
    pub(crate) async fn change(
        &self,
        conn: &Conn,
        offset: u64,
        change: Change,
        in_block: &Holds,
    ) -> io::Result<()> {
        let way = conn.way();
        for piece in self.pieces(offset, &change) {
            let is_edge = piece.is_edge();
            let (offset, change) = piece.read(&self.disk)?;
            if is_edge {
                for _ in 0..TURNS {
                    tokio::task::yield_now().await;
                }
                in_block.pass().await;
            }
            self.apply(way, offset, change)?;
        }
        self.recorder.wrote(conn.id, change.len());
        Ok(())
    }

    /// Reads what has to be read for a change now, so that it can be carried out later.
    pub(crate) fn prepare(&self, conn: &Conn, offset: u64, change: &Change) -> io::Result<Late> {
        let pieces = self.pieces(offset, change).into_iter();
        let writes = pieces.map(|piece| piece.read(&self.disk)).collect::<io::Result<_>>()?;
        Ok(Late { connection: conn.id, way: conn.way(), len: change.len(), writes })
    }

    /// Carries out what was prepared.
    pub(crate) fn carry_out(&self, late: Late, flush: bool) -> io::Result<()> {
        late.writes.into_iter().try_for_each(|(offset, change)| self.apply(late.way, offset, change))?;
        self.recorder.wrote(late.connection, late.len);
        if flush { self.flush_way(late.connection, late.way) } else { Ok(()) }
    }

    fn pieces(&self, offset: u64, change: &Change) -> Vec<Piece> {
        pieces(offset, change, self.config.block_size, self.disk.size())
    }

    fn apply(&self, way: u64, offset: u64, change: Change) -> io::Result<()> {
        if let Some(bitmap) = &self.bitmap {
            bitmap.changed(&(offset..offset + change.len()));
        }
        match &self.cache {
            Some(cache) => cache.apply(&self.disk, way, offset, change),
            None => change.apply(&self.disk, offset),
        }
    }

    /// Changes the disk behind the clients' backs.
    pub(crate) fn write_through(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &self.cache {
            Some(cache) => cache.write_through(&self.disk, offset, Bytes::copy_from_slice(data)),
            None => self.disk.write(offset, data),
        }
    }

    pub(crate) fn flush(&self, conn: &Conn) -> io::Result<()> {
        self.flush_way(conn.id, conn.way())
    }

    fn flush_way(&self, connection: u64, way: u64) -> io::Result<()> {
        if let Some(cache) = &self.cache {
            cache.flush(way)?;
        }
        self.disk.flush()?;
        self.recorder.flushed(connection);
        Ok(())
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Arc<Conn>>> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn each_connection(&self, action: impl Fn(&Conn)) {
        self.connections().iter().for_each(|conn| action(conn));
    }

    /// Adds a connection, with a way of its own.
    pub(crate) fn connect(&self, transport: Transport) -> Arc<Conn> {
        // Under this lock, so that no connection has a way that is lost without knowing it, and
        // none that the log has is missing here. The log's lock comes after this one.
        let mut connections = self.connections();
        let conn = Arc::new(Conn::new(self.recorder.accepted(transport), self.new_way()));
        connections.push(Arc::clone(&conn));
        conn
    }

    pub(crate) fn disconnect(&self, id: u64) {
        self.connections().retain(|conn| conn.id != id);
    }

    fn new_way(&self) -> u64 {
        self.cache.as_ref().map_or(0, VolatileCache::new_way)
    }

    /// Cuts power: all connections end, and what isn't flushed is gone.
    pub(crate) fn cut_power(&self) -> io::Result<()> {
        let Some(cache) = &self.cache else {
            return Err(io::Error::other("only a volatile server loses anything"));
        };
        let connections = self.connections();
        // First, so that no client learns from an old connection what the disk holds now.
        connections.iter().for_each(|conn| conn.cut(Cut::Power));
        cache.cut(&self.disk)
    }

    /// The way of these connections is lost, and their clients will be told by this status. Where
    /// it is that of all connections, what came on those of before isn't left either.
    pub(crate) fn lose_way(&self, status: u16, whose: impl Fn(&Conn) -> bool) -> io::Result<()> {
        let connections = self.connections();
        let (lost, kept): (Vec<_>, Vec<_>) = connections.iter().partition(|conn| whose(conn));
        // First: who finds it lost knows why.
        lost.iter().for_each(|conn| conn.lost_way.store(status, Ordering::SeqCst));
        match &self.cache {
            Some(cache) if kept.is_empty() => cache.cut(&self.disk),
            Some(cache) => lost.iter().try_for_each(|conn| cache.lose(&self.disk, conn.way())),
            None => Ok(()),
        }
    }

    /// If the way of this connection is lost, finds a new one, and tells the status by which the
    /// client is told.
    pub(crate) fn find_new_way(&self, conn: &Conn) -> Option<u16> {
        if conn.lost_way.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let _connections = self.connections();
        conn.way.store(self.new_way(), Ordering::SeqCst);
        Some(conn.lost_way.swap(0, Ordering::SeqCst))
    }
}
