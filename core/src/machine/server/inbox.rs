//! The places for contributions that are being received or wait for their application.

use alloc::vec;
use alloc::vec::Vec;

use crate::buffer::{BufferId, Segment};
use crate::id::PeerId;
use crate::vectors::{Keep, Vectors};
use crate::wire::Push;

/// Contributions that can be received or wait for their application at once, unless rounds keep all of theirs.
pub(super) const INBOXES: usize = 4;

#[derive(Debug)]
pub(super) struct Inboxes {
    pushes: Vec<Option<Received>>,
    floats: BufferId,
    /// Floats of the longest shard.
    len: usize,
    bodies: BufferId,
    /// Bytes of the longest body; 0 if bodies are floats.
    body_len: usize,
}

/// A contribution in an inbox.
#[derive(Copy, Clone, Debug)]
pub(super) struct Received {
    pub(super) worker: PeerId,
    pub(super) push: Push,
    /// Bytes of the body.
    pub(super) length: u32,
}

impl Inboxes {
    /// `count` inboxes for shards of at most `len` floats, with encoded bodies of at most `body_len` bytes.
    pub(super) fn new(count: usize, len: usize, body_len: usize, vectors: &mut Vectors) -> Self {
        Self {
            pushes: vec![None; count],
            floats: vectors.floats("inboxes", count * len, Keep::No),
            len,
            bodies: vectors.bytes("bodies of contributions", count * body_len, Keep::No),
            body_len,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.pushes.iter().any(Option::is_none)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pushes.iter().all(Option::is_none)
    }

    /// Puts a contribution into a free inbox.
    ///
    /// # Panics
    /// When no inbox is free.
    pub(super) fn put(&mut self, received: Received) -> usize {
        let inbox = self.pushes.iter().position(Option::is_none).expect("a push is taken when there is room");
        self.pushes[inbox] = Some(received);
        inbox
    }

    pub(super) fn get(&self, inbox: usize) -> Received {
        self.pushes[inbox].expect("an inbox in use holds a push")
    }

    pub(super) fn take(&mut self, inbox: usize) -> Received {
        self.pushes[inbox].take().expect("an inbox in use holds a push")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Received> {
        self.pushes.iter().flatten()
    }

    /// The contribution as `len` floats.
    pub(super) fn floats(&self, inbox: usize, len: usize) -> Segment {
        Segment::floats(self.floats, inbox * self.len, len)
    }

    /// The encoded contribution, of `len` bytes.
    pub(super) fn body(&self, inbox: usize, len: u32) -> Segment {
        Segment { buffer: self.bodies, start: (inbox * self.body_len) as u64, len }
    }
}
