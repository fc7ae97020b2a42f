//! The peer that this node waits for, and the node at the end of that chain of waits.
//!
//! A node that has waited for `stall_after` says so to the nodes that wait for it ([`Message::Awaits`]). So each of
//! them can name the node that holds up all of them.
//!
//! If an application is about to make no steps for a while, its node announces it to all nodes ([`Message::Silence`]).
//! While the node at the end of a chain of waits is silent as it has announced, the waits in the chain are excused:
//! drivers do not count that time. So that the whole chain knows, a wait for a silent node is passed on at once.
//!
//! [`Message::Awaits`]: crate::wire::Message::Awaits
//! [`Message::Silence`]: crate::wire::Message::Silence

use alloc::collections::BTreeMap;

use crate::id::{Clock, PeerId};
use crate::status::Waiting;
use crate::time::{Duration, Instant};

/// A wait of this node: for a peer that is at clock `at`, to reach `clock` itself.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Awaited {
    pub(crate) on: PeerId,
    pub(crate) at: Clock,
    pub(crate) clock: Clock,
}

#[derive(Debug)]
pub(super) struct Stalls {
    me: PeerId,
    wait: Option<Wait>,
    /// By peer: the node that the peer waits for, and the clock that node is at, as the peer last said.
    awaits: BTreeMap<PeerId, (PeerId, Clock)>,
    /// By node: until when it is silent, as it has announced.
    silences: BTreeMap<PeerId, Instant>,
}

#[derive(Copy, Clone, Debug)]
struct Wait {
    /// The wait as monitors see it: on the culprit, if the direct peer has named one.
    shown: Waiting,
    /// The peer that this node itself waits for.
    direct: PeerId,
    /// The nodes that wait for this one have been told.
    reported: bool,
    /// The silence that they have been told of.
    excused: Option<Instant>,
}

impl Stalls {
    pub(super) fn new(me: PeerId) -> Self {
        Self { me, wait: None, awaits: BTreeMap::new(), silences: BTreeMap::new() }
    }

    pub(super) fn waiting(&self) -> Option<Waiting> {
        self.wait.map(|wait| wait.shown)
    }

    /// The wait, if the nodes that wait for this one have been told.
    pub(super) fn reported(&self) -> Option<Waiting> {
        self.wait.filter(|wait| wait.reported || wait.excused.is_some()).map(|wait| wait.shown)
    }

    /// Until when the awaited node is silent, as it has announced.
    pub(super) fn excused_until(&self, now: Instant) -> Option<Instant> {
        self.silence_of(self.wait?.shown.on, now)
    }

    /// Until when a node is silent, as it has announced.
    pub(super) fn silence_of(&self, node: PeerId, now: Instant) -> Option<Instant> {
        self.silences.get(&node).copied().filter(|until| *until > now)
    }

    /// A node has announced a silence until this moment; `None`: that its silence is over.
    pub(super) fn set_silence(&mut self, node: PeerId, until: Option<Instant>) {
        match until {
            Some(until) => _ = self.silences.insert(node, until),
            None => _ = self.silences.remove(&node),
        }
    }

    /// When the present wait is to be reported.
    pub(super) fn deadline(&self, stall_after: Duration) -> Option<Instant> {
        self.wait.filter(|wait| !wait.reported).map(|wait| wait.shown.since.after(stall_after))
    }

    /// Notes the peer that the node waits for now.
    pub(super) fn set(&mut self, awaited: Option<Awaited>, now: Instant) {
        let Some(Awaited { on: direct, at, clock }) = awaited else {
            self.wait = None;
            return;
        };
        // If the peer has named the node that it waits for itself, that node is the culprit.
        let named = self.awaits.get(&direct).copied().filter(|(culprit, _)| *culprit != self.me);
        let reported_by = if named.is_some() { direct } else { self.me };
        let (on, at) = named.unwrap_or((direct, at));
        match &mut self.wait {
            Some(wait) if wait.shown.clock == clock => {
                if wait.direct != direct {
                    (wait.direct, wait.reported, wait.excused) = (direct, false, None);
                    (wait.shown.on, wait.shown.at, wait.shown.reported_by) = (on, at, reported_by);
                }
            }
            wait => {
                let shown = Waiting { on, at, clock, since: now, reported_by };
                *wait = Some(Wait { shown, direct, reported: false, excused: None });
            }
        }
    }

    /// A peer says which node it waits for itself.
    pub(super) fn on_awaits(&mut self, peer: PeerId, on: PeerId, at: Clock) {
        self.awaits.insert(peer, (on, at));
        if let Some(wait) = self.wait.as_mut().filter(|wait| wait.direct == peer) {
            // A new culprit is reported like the first.
            wait.reported &= wait.shown.on == on;
            (wait.shown.on, wait.shown.at, wait.shown.reported_by) = (on, at, peer);
        }
    }

    /// A peer has sent another message: it is not waiting any more.
    pub(super) fn on_progress(&mut self, peer: PeerId) {
        self.awaits.remove(&peer);
    }

    /// A peer is lost: the node that it waited for holds up nobody here any more, and the peer itself does.
    pub(super) fn on_lost(&mut self, peer: PeerId) {
        self.awaits.remove(&peer);
        if let Some(wait) = self.wait.as_mut().filter(|wait| wait.direct == peer && wait.shown.on != peer) {
            // No node waits for itself, so the next `set` names the peer anew.
            wait.direct = self.me;
        }
    }

    /// Returns the wait once, when it has lasted for `stall_after`.
    pub(super) fn take_stall(&mut self, now: Instant, stall_after: Duration) -> Option<Waiting> {
        let due = self.deadline(stall_after).is_some_and(|deadline| deadline <= now);
        let wait = self.wait.as_mut().filter(|_| due)?;
        wait.reported = true;
        Some(wait.shown)
    }

    /// Returns a wait for a silent node, once for each silence that the node has announced.
    pub(super) fn take_excuse(&mut self, now: Instant) -> Option<Waiting> {
        let until = self.excused_until(now)?;
        let wait = self.wait.as_mut().filter(|wait| wait.excused != Some(until))?;
        wait.excused = Some(until);
        Some(wait.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(2);
    const ONE: PeerId = PeerId(1);
    const TWO: PeerId = PeerId(2);

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN.after(Duration::from_secs(seconds))
    }

    /// Node 0, which waits for `on`.
    fn waits(stalls: &mut Stalls, on: PeerId, seconds: u64) {
        stalls.set(Some(Awaited { on, at: Clock(3), clock: Clock(4) }), at(seconds));
    }

    fn stalls() -> Stalls {
        let mut stalls = Stalls::new(PeerId(0));
        waits(&mut stalls, ONE, 0);
        stalls
    }

    /// The node that is waited for, and the node that says so.
    fn named(waiting: Option<Waiting>) -> Option<(PeerId, PeerId)> {
        waiting.map(|waiting| (waiting.on, waiting.reported_by))
    }

    #[test]
    fn a_wait_is_reported_once_for_each_node_that_holds_it_up() {
        let mut stalls = stalls();
        assert_eq!(stalls.take_stall(at(1), STALL), None);
        assert_eq!(named(stalls.take_stall(at(2), STALL)), Some((ONE, PeerId(0))));
        assert_eq!((stalls.take_stall(at(3), STALL), stalls.deadline(STALL)), (None, None));
        // The peer names another node.
        stalls.on_awaits(ONE, TWO, Clock(1));
        assert_eq!(named(stalls.take_stall(at(4), STALL)), Some((TWO, ONE)));
        stalls.on_awaits(ONE, TWO, Clock(1));
        assert_eq!(stalls.take_stall(at(5), STALL), None);
        // The same wait is for another peer. It has lasted all the time.
        waits(&mut stalls, TWO, 6);
        assert_eq!(named(stalls.take_stall(at(6), STALL)), Some((TWO, PeerId(0))));
        assert_eq!(stalls.waiting().map(|waiting| waiting.since), Some(at(0)));
    }

    /// A peer that waits for this node does not name the culprit, nor does one that has gone on since.
    #[test]
    fn what_a_peer_waits_for_counts_while_it_waits() {
        let mut stalls = Stalls::new(PeerId(0));
        stalls.on_awaits(ONE, PeerId(0), Clock(1));
        waits(&mut stalls, ONE, 0);
        assert_eq!(named(stalls.waiting()), Some((ONE, PeerId(0))));
        stalls.set(None, at(1));
        stalls.on_awaits(ONE, TWO, Clock(1));
        waits(&mut stalls, ONE, 1);
        assert_eq!(named(stalls.waiting()), Some((TWO, ONE)));
        stalls.set(None, at(2));
        stalls.on_progress(ONE);
        waits(&mut stalls, ONE, 2);
        assert_eq!(named(stalls.waiting()), Some((ONE, PeerId(0))));
    }

    #[test]
    fn a_lost_peer_holds_up_this_node_itself() {
        let mut stalls = stalls();
        stalls.on_awaits(ONE, TWO, Clock(1));
        assert_eq!(named(stalls.take_stall(at(2), STALL)), Some((TWO, ONE)));
        stalls.on_lost(TWO);
        waits(&mut stalls, ONE, 3);
        assert_eq!(named(stalls.waiting()), Some((TWO, ONE)));
        stalls.on_lost(ONE);
        waits(&mut stalls, ONE, 4);
        assert_eq!(named(stalls.take_stall(at(4), STALL)), Some((ONE, PeerId(0))));
        assert_eq!(stalls.waiting().map(|waiting| waiting.since), Some(at(0)));
    }

    /// The nodes that wait for this one are told of every silence that excuses its wait, also after the wait has moved.
    #[test]
    fn each_silence_is_passed_on_once() {
        let mut stalls = stalls();
        for (node, until) in [(ONE, 10), (ONE, 20), (TWO, 20)] {
            stalls.set_silence(node, Some(at(until)));
            waits(&mut stalls, node, 1);
            assert_eq!(stalls.take_excuse(at(1)).map(|waiting| waiting.on), Some(node));
            assert_eq!((stalls.take_excuse(at(1)), stalls.excused_until(at(1))), (None, Some(at(until))));
        }
        assert_eq!((stalls.excused_until(at(20)), stalls.take_excuse(at(20))), (None, None));
    }
}
