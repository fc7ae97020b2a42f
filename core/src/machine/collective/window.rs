//! The chains that a node has begun: few at once, so that the chunks under way fit in the caches.
//!
//! A chain begins at a node without children in a chunk's tree, with that node's part, and ends with the result there.
//! If all chains began at once, the first results would stand behind the parts of all chunks in the queues of the
//! connections, and the floats of a chunk would have left the cache before they are used again.
//!
//! Chains that begin elsewhere do not count: this node forwards a part when it has it. In a tree, chains of the same chunk
//! meet: none of them ends before all have begun. So all nodes have to begin chains in the same order, which is that of
//! the chunks. A gradient that is given range by range is there in any order: its chains begin at once, and chains
//! without a body do not count in such a tree. In a ring, each chunk has one chain, and the order does not matter.
//!
//! Over a link with a long delay, few chains leave the link idle. A chain then takes about as long as the shortest that this
//! node has seen, although the window is full: nothing queues. So the window is doubled, until chains take twice as long.
//! The windows of the nodes can differ: in a tree, all begin chains in the same order, and there are inboxes for the
//! largest windows.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::time::{Duration, Instant};

/// Chains that may be under way, however long their chunks are: one that is sent, one that comes back, and two at other
/// nodes.
const CHAINS_MIN: usize = 4;

/// How far a window can grow.
const GROWTH_MAX: u64 = 64;

/// Where chains take less, the link is busy with the window as it is, or the processor is.
const DELAY_MIN: Duration = Duration::from_millis(4);

/// The chains that begin at a node, in one round.
#[derive(Debug)]
pub(super) struct Window {
    /// Of each chunk: its length in bytes if its chain is under way, and else 0.
    lens: Vec<u32>,
    /// Bytes of the chunks whose chains are under way, unless they are fewer than [`CHAINS_MIN`].
    bytes_max: u64,
    /// The largest that `bytes_max` can become.
    limit: u64,
    /// Of each chunk: when its chain began.
    begun: Vec<Instant>,
    /// The shortest time that a chain has taken.
    shortest: Option<Duration>,
    /// When the window was made larger.
    grown: Instant,
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
        Self {
            lens: vec![0; chunks],
            bytes_max: bytes_max.into(),
            limit: u64::from(bytes_max) * GROWTH_MAX,
            begun: vec![Instant::ORIGIN; chunks],
            shortest: None,
            grown: Instant::ORIGIN,
            chains: 0,
            bytes: 0,
            limits: false,
            due: VecDeque::with_capacity(chunks),
        }
    }

    /// Most chains under way in the largest window, if all chunks but one are at least `len` bytes long.
    pub(super) fn chains_max(len: usize, bytes_max: u32) -> usize {
        let limit = (u64::from(bytes_max) * GROWTH_MAX).try_into().unwrap_or(usize::MAX);
        (limit / len.max(1)).max(CHAINS_MIN) + 1
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
    pub(super) fn begin(&mut self, now: Instant, chunk: usize, len: u32) -> bool {
        if !self.limits {
            return true;
        }
        let begins = self.due.is_empty() && self.has_room(len);
        if begins {
            self.add(now, chunk, len);
        } else {
            self.due.push_back(chunk);
        }
        begins
    }

    /// Begins the chain of the first chunk that waits, if there is room for it. `len`: the bytes of a chunk.
    pub(super) fn begin_due(&mut self, now: Instant, len: impl Fn(usize) -> u32) -> Option<usize> {
        let chunk = *self.due.front()?;
        if !self.has_room(len(chunk)) {
            return None;
        }
        self.due.pop_front();
        self.add(now, chunk, len(chunk));
        Some(chunk)
    }

    /// The result of a chunk is here. Does nothing for a chain that does not count.
    pub(super) fn end(&mut self, now: Instant, chunk: usize) {
        let len = core::mem::take(&mut self.lens[chunk]);
        if len > 0 {
            self.chains -= 1;
            self.bytes -= u64::from(len);
            self.maybe_grow(now, self.begun[chunk]);
        }
    }

    /// A chain ends that has begun at `begun`.
    fn maybe_grow(&mut self, now: Instant, begun: Instant) {
        let took = now.since(begun);
        let shortest = self.shortest.map_or(took, |shortest| shortest.min(took));
        self.shortest = Some(shortest);
        // A chain that began before those of the larger window were all there says nothing about its size.
        let is_full = !self.due.is_empty() && begun >= self.grown.after(shortest);
        if is_full && shortest >= DELAY_MIN && took < 2 * shortest && self.bytes_max < self.limit {
            self.bytes_max = (2 * self.bytes_max).min(self.limit);
            self.grown = now;
        }
    }

    fn has_room(&self, len: u32) -> bool {
        self.chains < CHAINS_MIN || self.bytes + u64::from(len) <= self.bytes_max
    }

    fn add(&mut self, now: Instant, chunk: usize, len: u32) {
        self.lens[chunk] = len;
        self.begun[chunk] = now;
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
        let begun = (0..count).filter(|chunk| window.begin(Instant::ORIGIN, *chunk, len)).count();
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
        assert_eq!(window.begin_due(Instant::ORIGIN, len), None);
        window.end(Instant::ORIGIN, 2);
        assert_eq!(window.begin_due(Instant::ORIGIN, len), Some(4));
        assert_eq!(window.begin_due(Instant::ORIGIN, len), None);
        // It had ended before.
        window.end(Instant::ORIGIN, 2);
        assert_eq!(window.begin_due(Instant::ORIGIN, len), None);
        window.begin_round(false);
        assert!((0..7).all(|chunk| window.begin(Instant::ORIGIN, chunk, 256 << 10)));
        assert_eq!(window.begin_due(Instant::ORIGIN, len), None);
    }
    /// Chains of 256 KiB that take `delay`, or longer if their bytes queue at a link of a byte per nanosecond and `slow`: the
    /// chains under way in the end.
    fn chains_after(delay: u64, slow: u64) -> usize {
        const LEN: u32 = 256 << 10;
        let mut window = Window::new(4000, 1 << 20);
        window.begin_round(true);
        let (mut under_way, mut free) = (VecDeque::new(), 0);
        let mut send = |now: u64, chunk: usize, under_way: &mut VecDeque<(u64, usize)>| {
            free = free.max(now) + u64::from(LEN) * slow;
            under_way.push_back((free + delay, chunk));
        };
        let first: Vec<usize> = (0..4000).filter(|chunk| window.begin(Instant::ORIGIN, *chunk, LEN)).collect();
        first.into_iter().for_each(|chunk| send(0, chunk, &mut under_way));
        let mut most = 0;
        while let Some((at, chunk)) = under_way.pop_front() {
            let now = Instant::from_nanos(at);
            window.end(now, chunk);
            while let Some(next) = window.begin_due(now, |_| LEN) {
                send(at, next, &mut under_way);
            }
            most = most.max(under_way.len());
        }
        most
    }

    #[test]
    fn a_window_grows_until_a_link_with_a_long_delay_is_busy() {
        // 1 GB/s and 100 ms are 400 chains: the window is the largest.
        assert_eq!(chains_after(100_000_000, 1), 256);
        // 125 MB/s and 100 ms are 48 chains.
        assert!((48..=192).contains(&chains_after(100_000_000, 8)), "{}", chains_after(100_000_000, 8));
        // The link is busy, or its delay is short.
        assert_eq!([chains_after(1_000_000, 800), chains_after(1_000_000, 0)], [4, 4]);
    }
}
