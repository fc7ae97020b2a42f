//! The places for contributions that are being received or wait for their application.
//!
//! One is enough while contributions come one after another. The others have memory only while several are under way at
//! once, for instance because a worker's connection is slow.

use alloc::vec::Vec;

use crate::buffer::{BufferId, Segment};
use crate::id::PeerId;
use crate::vectors::{Keep, Vectors};
use crate::wire::Push;

/// Contributions that can be received or wait for their application at once, unless rounds keep all of theirs.
pub(super) const INBOXES: usize = 4;

/// Contributions that come in other inboxes before an unused one gives back its memory.
const IDLE_MAX: u32 = 16;

#[derive(Debug)]
pub(super) struct Inboxes {
    places: Vec<Inbox>,
    /// Unused inboxes give back their memory.
    gives_back: bool,
}

#[derive(Debug)]
struct Inbox {
    push: Option<Received>,
    floats: BufferId,
    /// The encoded contribution, where bodies are not floats.
    body: BufferId,
    /// Contributions that have come in other inboxes since this one was used, as far as it has memory to give back.
    idle: Option<u32>,
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
    /// `count` inboxes for shards of at most `len` floats, with encoded bodies of at most `body_len` bytes. Inboxes beyond
    /// the first `kept` have memory only while they are used. Bodies of at most `keep_below` bytes keep theirs.
    pub(super) fn new(
        [count, kept]: [usize; 2],
        len: usize,
        body_len: usize,
        keep_below: u32,
        vectors: &mut Vectors,
    ) -> Self {
        let mut inbox = |index| {
            let brief = index >= kept;
            Inbox {
                push: None,
                floats: if brief { vectors.brief("inbox") } else { vectors.floats("inbox", len, Keep::No) },
                body: if brief { vectors.brief("body") } else { vectors.bytes("body", body_len, Keep::No) },
                idle: None,
            }
        };
        let places = (0..count).map(&mut inbox).collect();
        Self { places, gives_back: count > kept && len * 4 > keep_below as usize }
    }

    pub(super) fn has_room(&self) -> bool {
        self.places.iter().any(|inbox| inbox.push.is_none())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.iter().all(|inbox| inbox.push.is_none())
    }

    /// Puts a contribution into a free inbox.
    ///
    /// # Panics
    /// When no inbox is free.
    pub(super) fn put(&mut self, received: Received) -> usize {
        let inbox = self.places.iter().position(|inbox| inbox.push.is_none());
        let inbox = inbox.expect("a push is taken when there is room");
        self.places.iter_mut().filter_map(|inbox| inbox.idle.as_mut()).for_each(|idle| *idle += 1);
        self.places[inbox].push = Some(received);
        self.places[inbox].idle = self.gives_back.then_some(0);
        inbox
    }

    /// The buffers of an inbox that has not been used for a while. They give back their memory.
    pub(super) fn take_idle(&mut self) -> Option<[BufferId; 2]> {
        let is_idle = |inbox: &&mut Inbox| inbox.push.is_none() && inbox.idle.is_some_and(|idle| idle >= IDLE_MAX);
        let inbox = self.places.iter_mut().find(is_idle)?;
        inbox.idle = None;
        Some([inbox.floats, inbox.body])
    }

    pub(super) fn get(&self, inbox: usize) -> Received {
        self.places[inbox].push.expect("an inbox in use holds a push")
    }

    pub(super) fn take(&mut self, inbox: usize) -> Received {
        self.places[inbox].push.take().expect("an inbox in use holds a push")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Received> {
        self.places.iter().filter_map(|inbox| inbox.push.as_ref())
    }

    /// The contribution as `len` floats.
    pub(super) fn floats(&self, inbox: usize, len: usize) -> Segment {
        Segment::floats(self.places[inbox].floats, 0, len)
    }

    /// The encoded contribution, of `len` bytes.
    pub(super) fn body(&self, inbox: usize, len: u32) -> Segment {
        Segment { buffer: self.places[inbox].body, start: 0, len }
    }
}
