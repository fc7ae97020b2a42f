//! The chains that a node has begun: few at once, so that the chunks under way fit in the caches.
//!
//! A chain begins at a node without children in a chunk's tree, with that node's part, and ends with the result there.
//! If all chains began at once, the first results would stand behind the parts of all chunks in the queues of the
//! connections, and the floats of a chunk would have left the cache before they are used again.
//!
//! Chains without a body do not count. Nor do chains that begin elsewhere: this node forwards a part when it has it, so
//! that every chain ends, however many others wait.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

/// Bodies of the chains under way, in bytes: they fit in a processor's own cache.
const BYTES_MAX: u64 = 1 << 20;
/// Chains that may be under way, however long their bodies are: one that is sent, one that comes back, and two at other
/// nodes.
const CHAINS_MIN: usize = 4;

/// The chains that begin at a node, in one round.
#[derive(Debug)]
pub(super) struct Window {
    /// Of each chunk: the length of its body in bytes if its chain is under way, and else 0.
    bodies: Vec<u32>,
    /// Chains under way, and the bytes of their bodies.
    chains: usize,
    bytes: u64,
    /// Chunks that wait for their turn. At most all chunks.
    due: VecDeque<usize>,
}

impl Window {
    /// For a vector of `chunks` chunks.
    pub(super) fn new(chunks: usize) -> Self {
        Self { bodies: vec![0; chunks], chains: 0, bytes: 0, due: VecDeque::with_capacity(chunks) }
    }

    /// Forgets the round.
    pub(super) fn reset(&mut self) {
        self.bodies.fill(0);
        (self.chains, self.bytes) = (0, 0);
        self.due.clear();
    }

    /// Begins the chain of a chunk, with a body of `len` bytes. Returns false if it has to wait for its turn.
    pub(super) fn begin(&mut self, chunk: usize, len: u32) -> bool {
        let begins = self.due.is_empty() && self.has_room(len);
        if begins {
            self.add(chunk, len);
        } else {
            self.due.push_back(chunk);
        }
        begins
    }

    /// Begins the chain of the first chunk that waits, if there is room for it. `len`: the length of a chunk's body.
    pub(super) fn begin_due(&mut self, len: impl Fn(usize) -> u32) -> Option<usize> {
        let chunk = *self.due.front()?;
        if !self.has_room(len(chunk)) {
            return None;
        }
        self.due.pop_front();
        self.add(chunk, len(chunk));
        Some(chunk)
    }

    /// The result of a chunk is here. Does nothing for a chain that does not count.
    pub(super) fn end(&mut self, chunk: usize) {
        let len = core::mem::take(&mut self.bodies[chunk]);
        self.chains -= usize::from(len > 0);
        self.bytes -= u64::from(len);
    }

    fn has_room(&self, len: u32) -> bool {
        self.chains < CHAINS_MIN || self.bytes + u64::from(len) <= BYTES_MAX
    }

    fn add(&mut self, chunk: usize, len: u32) {
        self.bodies[chunk] = len;
        self.chains += usize::from(len > 0);
        self.bytes += u64::from(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `count` chunks with bodies of `len` bytes: those whose chains begin at once, and the window.
    fn begun(count: usize, len: u32) -> (usize, Window) {
        let mut window = Window::new(count);
        let begun = (0..count).filter(|chunk| window.begin(*chunk, len)).count();
        (begun, window)
    }

    #[test]
    fn four_chains_or_a_mebibyte_are_under_way() {
        assert_eq!(begun(100, 256 << 10).0, 4);
        assert_eq!(begun(100, 64 << 10).0, 16);
        assert_eq!(begun(100, 8 << 20).0, 4);
        assert_eq!(begun(100, 16).0, 100);
    }

    #[test]
    fn chains_begin_in_order_when_others_end() {
        let (_, mut window) = begun(7, 256 << 10);
        let len = |_| 256 << 10;
        assert_eq!(window.begin_due(len), None);
        window.end(2);
        assert_eq!(window.begin_due(len), Some(4));
        assert_eq!(window.begin_due(len), None);
        // It had ended before.
        window.end(2);
        assert_eq!(window.begin_due(len), None);
        window.reset();
        assert!(window.begin(6, 256 << 10));
        assert_eq!(window.begin_due(len), None);
    }
}
