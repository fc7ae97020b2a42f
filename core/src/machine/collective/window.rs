//! The chains that a node has begun: few at once, so that the chunks under way fit in the caches.
//!
//! A chain begins at a node without children in a chunk's tree, with that node's part, and ends with the result there.
//! If all chains began at once, the first results would stand behind the parts of all chunks in the queues of the
//! connections, and the floats of a chunk would have left the cache before they are used again.
//!
//! Chains that begin elsewhere do not count: this node forwards a part when it has it. In a tree, chains without a body do
//! not count either, and chains of the same chunk meet: none of them ends before all have begun. So all nodes have to begin chains in
//! the same order, which is that of the chunks. A contribution that is given range by range is there in any order: its
//! chains begin at once. In a ring, each chunk has one chain, and the order does not matter.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

/// Chains that may be under way, however long their chunks are: one that is sent, one that comes back, and two at other
/// nodes.
const CHAINS_MIN: usize = 4;

/// The chains that begin at a node, in one round.
#[derive(Debug)]
pub(super) struct Window {
    /// Of each chunk: its length in bytes if its chain is under way, and else 0.
    lens: Vec<u32>,
    /// Bytes of the chunks whose chains are under way, unless they are fewer than [`CHAINS_MIN`].
    bytes_max: u64,
    /// Chains under way, and the bytes of their chunks.
    chains: usize,
    bytes: u64,
    /// Chains have to wait for others in this round.
    limits: bool,
    /// Chunks that wait for their turn. At most all chunks.
    due: VecDeque<usize>,
}

impl Window {
    /// For a vector of `chunks` chunks, with `bytes_max` bytes under way.
    pub(super) fn new(chunks: usize, bytes_max: u32) -> Self {
        let due = VecDeque::with_capacity(chunks);
        Self { lens: vec![0; chunks], bytes_max: bytes_max.into(), chains: 0, bytes: 0, limits: false, due }
    }

    /// Most chains under way, if all chunks but one are at least `len` bytes long.
    pub(super) fn chains_max(len: usize, bytes_max: u32) -> usize {
        (bytes_max as usize / len.max(1)).max(CHAINS_MIN) + 1
    }

    /// A round begins. `limits`: chains have to wait for others.
    pub(super) fn begin_round(&mut self, limits: bool) {
        self.limits = limits;
        self.lens.fill(0);
        (self.chains, self.bytes) = (0, 0);
        self.due.clear();
    }

    /// Begins the chain of a chunk of `len` bytes. Returns false if it has to wait for its turn. In a tree, the order of
    /// the calls is that of the chunks.
    pub(super) fn begin(&mut self, chunk: usize, len: u32) -> bool {
        if !self.limits {
            return true;
        }
        let begins = self.due.is_empty() && self.has_room(len);
        if begins {
            self.add(chunk, len);
        } else {
            self.due.push_back(chunk);
        }
        begins
    }

    /// Begins the chain of the first chunk that waits, if there is room for it. `len`: the bytes of a chunk.
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
        let len = core::mem::take(&mut self.lens[chunk]);
        self.chains -= usize::from(len > 0);
        self.bytes -= u64::from(len);
    }

    fn has_room(&self, len: u32) -> bool {
        self.chains < CHAINS_MIN || self.bytes + u64::from(len) <= self.bytes_max
    }

    fn add(&mut self, chunk: usize, len: u32) {
        self.lens[chunk] = len;
        self.chains += usize::from(len > 0);
        self.bytes += u64::from(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `count` chunks of `len` bytes: those whose chains begin at once, and the window.
    fn begun(count: usize, len: u32) -> (usize, Window) {
        let mut window = Window::new(count, 1 << 20);
        window.begin_round(true);
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
        window.begin_round(false);
        assert!((0..7).all(|chunk| window.begin(chunk, 256 << 10)));
        assert_eq!(window.begin_due(len), None);
    }
}
