//! The chains that a node has begun: few at once.
//!
//! A chain begins at a node without children in a chunk's tree, with that node's part, and ends with the result there.
//! If all chains began at once, the first results would stand behind the parts of all chunks in the queues of the
//! connections, and the floats of a chunk would have left the cache before they are used again.
//!
//! In a *ring*, each chunk has one chain, and each node begins as many. With one chain of each node under way, each link
//! carries one chunk at a time, and few chunks wait for another. In a *tree*, chains of the same chunk meet: none of them
//! ends before all have begun. So all nodes have to begin chains in the same order, which is that of the chunks, and a few
//! chunks have to be under way to keep the links on all levels busy. A gradient that is given range by range is there in any
//! order: its chains begin at once, and chains without a body do not count in such a tree.
//!
//! Chains that begin elsewhere do not count: this node forwards a part when it has it.
//!
//! Over a link with a long delay, few chains leave the link idle. So a node tries twice as many, for two rounds ([`Growth`]),
//! and stays with that if more chains end in the same time. In a round of few chains, it stays if the first of them take no
//! longer: then nothing has queued. The windows of the nodes can differ: in a tree, all begin chains in the same order, and
//! there are inboxes for the largest windows.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::time::{Duration, Instant};

/// How far a window can grow.
const GROWTH_MAX: u64 = 256;

/// Where chains take less, the processors set the pace, or the link is fast enough.
const DELAY_MIN: Duration = Duration::from_millis(1);

/// Rounds in which a window is measured.
const ROUNDS: u32 = 2;

/// Intervals between the ends of chains whose mean says something.
const INTERVALS: u32 = 8;

/// Rounds after a trial that has not helped until the next one: the link may be another one then.
const PAUSE: u32 = 256;

/// How many chains may be under way.
#[derive(Copy, Clone, Debug)]
pub(super) struct Limits {
    /// So many chains, however long their chunks are.
    pub(super) chains: usize,
    /// More chains, while their chunks have no more bytes than that.
    pub(super) bytes: u64,
}

impl Limits {
    /// `under_way`: as in [`Setup`](crate::machine::Setup::under_way).
    pub(super) fn ring(under_way: u32) -> Self {
        Self { chains: 1, bytes: under_way.into() }
    }

    /// As [`ring`](Self::ring). One chunk that is sent, one that comes back, and two at other nodes.
    pub(super) fn tree(under_way: u32) -> Self {
        Self { chains: 4, bytes: 4 * u64::from(under_way) }
    }

    /// The largest that the window can become, in bytes.
    fn bytes_max(self) -> u64 {
        self.bytes.saturating_mul(GROWTH_MAX)
    }

    /// Most chains under way in the largest window, if all chunks but one are at least `len` bytes long.
    pub(super) fn chains_max(self, len: usize) -> usize {
        let bytes = usize::try_from(self.bytes_max()).unwrap_or(usize::MAX);
        (bytes / len.max(1)).max(self.chains) + 1
    }
}

/// The chains that begin at a node, in one round.
#[derive(Debug)]
pub(super) struct Window {
    limits: Limits,
    growth: Growth,
    /// Of each chunk: its length in bytes if its chain is under way, and else 0.
    lens: Vec<u32>,
    /// Of each chunk whose chain is one of the first of the round: when it began.
    begun: Vec<Option<Instant>>,
    /// The shortest time that one of the first chains of this round has taken.
    shortest: Option<Duration>,
    /// When the first and the last chain have ended for which another one had waited; and the number of those between.
    ends: Option<[Instant; 2]>,
    count: u32,
    /// Chains under way, and the bytes of their chunks.
    chains: usize,
    bytes: u64,
    /// Chains have to wait for others in this round, and some have waited.
    is_limited: bool,
    has_waited: bool,
    /// Chunks that wait for their turn. At most all chunks.
    due: VecDeque<usize>,
}

/// How the window follows the delay of the links.
#[derive(Debug)]
struct Growth {
    /// Bytes of the chunks whose chains are under way, unless they are fewer chains than allowed in any case.
    bytes: u64,
    /// Rounds with this window, and the best of them.
    rounds: u32,
    best: Option<Measured>,
    /// This window is a trial. The best round in one that is half as large.
    before: Option<Measured>,
    /// Rounds until the next trial.
    pause: u32,
}

/// The times of a round, or the shortest of several.
#[derive(Copy, Clone, Debug)]
struct Measured {
    /// Of the shortest of the first chains.
    chain: Duration,
    /// Between the ends of two chains, if the round has many. It holds no wait for another node to begin the round.
    interval: Option<Duration>,
}

impl Measured {
    fn best(self, other: Self) -> Self {
        let interval = self.interval.into_iter().chain(other.interval).min();
        Self { chain: self.chain.min(other.chain), interval }
    }

    /// Is a window with these times better than one that is half as large, with those of `before`?
    fn is_better(self, before: Self) -> bool {
        match (self.interval, before.interval) {
            (Some(now), Some(before)) => 10 * now <= 9 * before,
            // Chains that queue take 1.5 times as long and more.
            _ => 4 * self.chain < 5 * before.chain,
        }
    }
}

impl Growth {
    fn new(bytes: u64) -> Self {
        Self { bytes, rounds: 0, best: None, before: None, pause: 0 }
    }

    /// A round has ended. `is_full`: further chains had to wait.
    fn on_round(&mut self, measured: Measured, is_full: bool, bytes_max: u64) {
        self.pause = self.pause.saturating_sub(1);
        self.rounds += 1;
        let best = self.best.map_or(measured, |best| best.best(measured));
        self.best = Some(best);
        if self.rounds < ROUNDS {
            return;
        }
        (self.rounds, self.best) = (0, None);
        if self.before.take().is_some_and(|before| !best.is_better(before)) {
            (self.bytes, self.pause) = (self.bytes / 2, PAUSE);
        } else if is_full && self.pause == 0 && best.chain >= DELAY_MIN && self.bytes < bytes_max {
            (self.bytes, self.before) = (2 * self.bytes, Some(best));
        }
    }
}

impl Window {
    /// For a vector of `chunks` chunks.
    pub(super) fn new(chunks: usize, limits: Limits) -> Self {
        Self {
            limits,
            growth: Growth::new(limits.bytes),
            lens: vec![0; chunks],
            begun: vec![None; chunks],
            shortest: None,
            ends: None,
            count: 0,
            chains: 0,
            bytes: 0,
            is_limited: false,
            has_waited: false,
            due: VecDeque::with_capacity(chunks),
        }
    }

    /// A round begins. `is_limited`: chains have to wait for others.
    pub(super) fn begin_round(&mut self, is_limited: bool) {
        if let Some(chain) = self.shortest.take() {
            let ends = self.ends.filter(|_| self.count >= INTERVALS);
            let interval = ends.map(|[first, last]| last.since(first) / self.count);
            self.growth.on_round(Measured { chain, interval }, self.has_waited, self.limits.bytes_max());
        }
        (self.ends, self.count) = (None, 0);
        (self.is_limited, self.has_waited) = (is_limited, false);
        self.lens.fill(0);
        self.begun.fill(None);
        (self.chains, self.bytes) = (0, 0);
        self.due.clear();
    }

    /// Begins the chain of a chunk of `len` bytes. Returns false if it has to wait for its turn. In a tree, the order of
    /// the calls is that of the chunks.
    pub(super) fn begin(&mut self, now: Instant, chunk: usize, len: u32) -> bool {
        if !self.is_limited {
            return true;
        }
        let begins = self.due.is_empty() && self.has_room(len);
        if begins {
            self.begun[chunk] = Some(now).filter(|_| !self.has_waited);
            self.add(chunk, len);
        } else {
            self.has_waited = true;
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
    pub(super) fn end(&mut self, now: Instant, chunk: usize) {
        let len = core::mem::take(&mut self.lens[chunk]);
        if len > 0 {
            self.chains -= 1;
            self.bytes -= u64::from(len);
            if !self.due.is_empty() {
                self.count += u32::from(self.ends.is_some());
                self.ends = Some([self.ends.map_or(now, |[first, _]| first), now]);
            }
        }
        if let Some(begun) = self.begun[chunk].take() {
            let took = now.since(begun);
            self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        }
    }

    fn has_room(&self, len: u32) -> bool {
        self.chains < self.limits.chains || self.bytes + u64::from(len) <= self.growth.bytes
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

    const LEN: u32 = 256 << 10;

    /// Of `count` chunks of `len` bytes: those whose chains begin at once, and the window.
    fn begun(limits: Limits, count: usize, len: u32) -> (usize, Window) {
        let mut window = Window::new(count, limits);
        window.begin_round(true);
        let begun = (0..count).filter(|chunk| window.begin(Instant::ORIGIN, *chunk, len)).count();
        (begun, window)
    }

    #[test]
    fn few_chains_are_under_way() {
        let ring = |len| begun(Limits::ring(LEN), 100, len).0;
        assert_eq!([ring(LEN), ring(LEN / 4), ring(8 * LEN), ring(16)], [1, 4, 1, 100]);
        let tree = |len| begun(Limits::tree(LEN), 100, len).0;
        assert_eq!([tree(LEN), tree(LEN / 4), tree(8 * LEN), tree(16)], [4, 16, 4, 100]);
    }

    #[test]
    fn chains_begin_in_order_when_others_end() {
        let (_, mut window) = begun(Limits::tree(LEN), 7, LEN);
        let len = |_| LEN;
        assert_eq!(window.begin_due(len), None);
        window.end(Instant::ORIGIN, 2);
        assert_eq!(window.begin_due(len), Some(4));
        assert_eq!(window.begin_due(len), None);
        // It had ended before.
        window.end(Instant::ORIGIN, 2);
        assert_eq!(window.begin_due(len), None);
        window.begin_round(false);
        assert!((0..7).all(|chunk| window.begin(Instant::ORIGIN, chunk, LEN)));
        assert_eq!(window.begin_due(len), None);
    }

    /// The chains under way at once after many rounds of `count` chains of 256 KiB each. A link passes a byte in `slow`
    /// nanoseconds. A chain takes its turn on the link, and then `delay` nanoseconds.
    fn chains_after(count: usize, delay: u64, slow: u64) -> usize {
        let mut window = Window::new(count, Limits::ring(LEN));
        let (mut now, mut most) = (0, 0);
        for _ in 0..40 {
            window.begin_round(true);
            let (mut under_way, mut free) = (VecDeque::new(), now);
            let mut send = |now: u64, chunk: usize, under_way: &mut VecDeque<(u64, usize)>| {
                free = free.max(now) + u64::from(LEN) * slow;
                under_way.push_back((free + delay, chunk));
            };
            let first: Vec<usize> =
                (0..count).filter(|chunk| window.begin(Instant::from_nanos(now), *chunk, LEN)).collect();
            most = first.len();
            // The results come back behind the parts of the same window.
            now += first.len() as u64 * u64::from(LEN) * slow;
            first.into_iter().for_each(|chunk| send(now, chunk, &mut under_way));
            while let Some((at, chunk)) = under_way.pop_front() {
                now = at;
                window.end(Instant::from_nanos(now), chunk);
                while let Some(next) = window.begin_due(|_| LEN) {
                    send(now, next, &mut under_way);
                }
            }
        }
        most
    }

    #[test]
    fn a_window_grows_until_chains_queue() {
        // A chunk takes 0.26 ms, and 100 ms are 380 of them.
        let fast = chains_after(4000, 100_000_000, 1);
        assert!((32..=256).contains(&fast), "{fast}");
        // 2.1 ms, and 48.
        let slow = chains_after(4000, 100_000_000, 8);
        assert!((8..=64).contains(&slow), "{slow}");
        // All chains of a short vector are under way at once.
        assert_eq!(chains_after(3, 100_000_000, 8), 3);
        // The link is busy, or its delay is short.
        assert_eq!(
            [chains_after(4000, 100_000, 80), chains_after(3, 100_000, 80), chains_after(4000, 100_000, 0)],
            [1; 3]
        );
    }

    /// In a long round, the time of the first chains can be that of a node that begins late.
    #[test]
    fn the_ends_of_many_chains_tell_more_than_the_first_chains() {
        let after = |interval: u64| {
            let mut growth = Growth::new(8);
            let measured =
                |micros| Measured { chain: Duration::from_millis(50), interval: Some(Duration::from_micros(micros)) };
            for micros in [1000, 1000, interval, interval] {
                growth.on_round(measured(micros), true, 1024);
            }
            growth.bytes
        };
        assert_eq!([after(1000), after(950), after(850), after(500)], [8, 8, 32, 32]);
    }

    /// A window that has not helped is tried again later.
    #[test]
    fn a_trial_that_has_not_helped_is_repeated_after_many_rounds() {
        let mut growth = Growth::new(8);
        let (short, long) = (Duration::from_millis(10), Duration::from_millis(15));
        let mut round = |chain| {
            growth.on_round(Measured { chain, interval: None }, true, 1024);
            growth.bytes
        };
        assert_eq!([round(short), round(short), round(long), round(long)], [8, 16, 16, 8]);
        let rounds = (0..).take_while(|_| round(short) == 8).count();
        assert!((200..300).contains(&rounds), "{rounds}");
        // It is kept now, and the next one begins.
        assert_eq!([round(short), round(short)], [16, 32]);
    }
}
