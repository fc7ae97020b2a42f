//! The mesh, input by input.

use alloc::vec::Vec;

use super::*;
use crate::recipe::{End, Topology};
use crate::status::Rest;
use crate::wire::{Ack, Leave, Quanta, SnapshotMark};

fn start(after: u64, joined: bool) -> Message {
    Message::StreamStart { after: Sequence(after), joined }
}

/// Messages `first` to `last` of process 1 of a peer.
fn quanta(origin: u32, first: u64, last: u64) -> Quanta {
    let (first, last) = (Sequence(first), Sequence(last));
    Quanta { origin: PeerId(origin), incarnation: Incarnation(1), first, last, base: Clock(0) }
}

fn mark(origin: u32, sequence: u64) -> Message {
    let (origin, incarnation, sequence) = (PeerId(origin), Incarnation(1), Sequence(sequence));
    Message::SnapshotMark(SnapshotMark { request: 1, origin, incarnation, sequence, last: None, lost: false })
}

/// Own messages up to `last` have been taken.
fn ack(last: u64) -> Message {
    Message::QuantaAck(Ack { origin: PeerId(0), incarnation: OWN, last: Sequence(last) })
}

impl Trace {
    /// A peer connects; both say where their streams begin.
    #[track_caller]
    fn meet(&mut self, peer: u32) -> &mut Self {
        self.hello(peer, 1).expect_event(joined(peer, 1));
        self.expect_start(peer, 0, false)
    }

    #[track_caller]
    fn expect_start(&mut self, to: u32, after: u64, joined: bool) -> &mut Self {
        assert_eq!(self.expect_transmit(to, Kind::Mark), start(after, joined));
        self
    }

    /// Own messages `first` to `last` go out, completely.
    #[track_caller]
    fn expect_quanta(&mut self, to: u32, first: u64, last: u64) -> &mut Self {
        let Message::Quanta(quanta) = self.expect_transmit(to, Kind::Quanta) else { panic!("quanta") };
        assert_eq!((quanta.first.0, quanta.last.0), (first, last), "{quanta:?}");
        self
    }

    #[track_caller]
    fn expect_ack(&mut self, to: u32, origin: u32, last: u64) -> &mut Self {
        let (origin, incarnation, last) = (PeerId(origin), Incarnation(1), Sequence(last));
        assert_eq!(self.expect_transmit(to, Kind::Ack), Message::QuantaAck(Ack { origin, incarnation, last }));
        self
    }

    /// Quanta of 1.0 in every element arrive.
    fn send_quanta(&mut self, from: u32, quanta: Quanta) -> &mut Self {
        let body = body();
        let input = self.header(from, 1, body.len(), Message::Quanta(quanta));
        self.feed(input);
        if let Some((op, into)) = self.take_receive(from) {
            into.into_iter().for_each(|into| self.pool.bytes_mut(into).copy_from_slice(&body));
            self.feed(Input::Completed { op, result: KernelResult::Nothing });
        }
        self
    }

    /// The ledger becomes the view, without a contribution.
    #[track_caller]
    fn look(&mut self) -> &mut Self {
        let clock = self.machine.status().clock.0;
        self.feed(Input::Step { weight: 0 }).expect_ready(clock)
    }
}

/// Rank 0 of a full mesh, which has founded it. Its neighbours have no parameters yet.
fn founder(workers: u32) -> Trace {
    founder_of(Recipe::mesh(0.5).with_lambda(1.0), workers)
}

fn founder_of(recipe: Recipe, workers: u32) -> Trace {
    let mut m = trace(recipe, 0, workers);
    (1..workers).for_each(|peer| {
        m.meet(peer).expect_idle();
    });
    (1..workers).for_each(|peer| {
        m.tell(peer, start(0, false));
    });
    m.expect_signal(Signal::Joined { clock: Clock(0) });
    (1..workers).for_each(|peer| {
        m.expect_start(peer, 0, true);
    });
    m.expect_idle();
    m
}

/// A founder whose one neighbour has joined.
fn pair() -> Trace {
    pair_of(Recipe::mesh(0.5).with_lambda(1.0))
}

fn pair_of(recipe: Recipe) -> Trace {
    let mut m = founder_of(recipe, 2);
    m.tell(1, start(0, true)).expect_idle();
    m
}

/// The body of a message that says 1.0 in every element.
fn body() -> Vec<u8> {
    let mut m = pair();
    m.step(1.0);
    let (_, _, body) = m.expect_sending(1, Kind::Quanta);
    m.pool.bytes(body.unwrap()).to_vec()
}

#[test]
fn rank_0_founds_the_mesh_when_all_its_neighbours_are_there() {
    let mut m = trace(Recipe::mesh(0.5).with_lambda(1.0), 0, 3);
    m.meet(1).tell(1, start(0, false)).expect_waiting(Some(2)).expect_idle();
    m.meet(2).expect_idle().tell(2, start(0, false));
    m.expect_signal(Signal::Joined { clock: Clock(0) });
}

#[test]
fn a_newcomer_joins_with_a_snapshot_of_a_neighbour() {
    let mut m = trace(Recipe::mesh(0.5).with_lambda(1.0), 1, 2);
    m.meet(0).tell(0, start(3, true));
    assert_eq!(m.expect_transmit(0, Kind::Fetch), Message::FetchSnapshot { request: 1 });
    m.tell(0, mark(0, 3)).send(0, Message::Seed { request: 1 }, 5.0).expect_idle();
    m.send(0, Message::Ledger { request: 1, applied: Clock(3) }, 0.0);
    m.expect_signal(Signal::Joined { clock: Clock(0) }).expect_view(5.0).expect_start(0, 0, true).expect_idle();
    // Its neighbour's stream goes on behind the snapshot.
    m.send_quanta(0, quanta(0, 4, 4)).expect_ack(0, 0, 4).look().expect_view(4.0);
}

/// A newcomer whose snapshot has the largest possible count in every element.
fn full() -> Trace {
    let mut m = trace(Recipe::mesh(0.5).with_lambda(1.0), 1, 2);
    m.meet(0).tell(0, start(3, true)).expect_transmit(0, Kind::Fetch);
    m.tell(0, mark(0, 3)).send(0, Message::Seed { request: 1 }, 0.0).expect_idle();
    let words = kernel::ledger::words(LEN);
    m.announce(0, Message::Ledger { request: 1, applied: Clock(3) }, words);
    let (op, into) = m.take_receive(0).unwrap();
    let ledger: &mut [f32] = m.pool.floats_mut(into.unwrap());
    ledger.fill(f32::from_bits(i32::MAX as u32));
    ledger[LEN] = f32::from_bits(LEN as u32);
    m.feed(Input::Completed { op, result: KernelResult::Nothing });
    m.expect_signal(Signal::Joined { clock: Clock(0) }).expect_start(0, 0, true).expect_idle();
    m
}

/// Neither the own message nor the peer's is to blame, so no connection is closed.
#[test]
fn a_full_ledger_ends_this_node_by_name_and_no_peer() {
    let mut m = full();
    m.send_quanta(0, quanta(0, 4, 4)).expect_signal(Signal::LedgerFull { index: 0 }).expect_idle();
    let mut m = full();
    m.tell(0, start(3, true)).step(1.0).expect_quanta(0, 1, 1).expect_signal(Signal::LedgerFull { index: 0 });
    // Quanta of the other sign make room.
    let mut m = full();
    m.step(-1.0).expect_quanta(0, 1, 1).expect_ready(1).expect_idle();
}

/// A message between the snapshot and the stream would be missing for ever: another snapshot is asked for.
#[test]
fn a_snapshot_that_does_not_reach_the_neighbours_stream_is_not_used() {
    let mut m = trace(Recipe::mesh(0.5).with_lambda(1.0), 1, 2);
    m.meet(0).tell(0, start(3, true)).expect_transmit(0, Kind::Fetch);
    m.tell(0, mark(0, 2)).send(0, Message::Seed { request: 1 }, 5.0);
    m.send(0, Message::Ledger { request: 1, applied: Clock(2) }, 0.0).expect_idle();
    m.at(49).feed(Input::Timeout).expect_idle();
    m.at(50).feed(Input::Timeout);
    assert_eq!(m.expect_transmit(0, Kind::Fetch), Message::FetchSnapshot { request: 2 });
    // What is left of the first answer is not mixed into the second.
    m.announce(0, Message::Seed { request: 1 }, LEN);
    assert!(matches!(m.take_receive(0), Some((_, None))));
}

#[test]
fn a_step_is_sent_to_the_neighbours_and_ready_at_once() {
    let mut m = pair();
    m.step(1.0).expect_quanta(1, 1, 1).expect_ready(1).expect_view(-1.0).expect_idle();
}

/// A message that a neighbour could not take would stand in front of the snapshot that it waits for.
#[test]
fn a_neighbour_without_parameters_is_sent_nothing() {
    let mut m = founder(2);
    m.step(1.0).expect_ready(1).expect_idle();
    m.tell(1, start(0, true)).expect_quanta(1, 1, 1).expect_idle();
}

#[test]
fn quanta_are_applied_once_and_acknowledged_each_time() {
    let mut m = pair();
    m.send_quanta(1, quanta(1, 1, 1)).expect_ack(1, 1, 1).look().expect_view(-1.0);
    m.send_quanta(1, quanta(1, 1, 1)).expect_ack(1, 1, 1).look().expect_view(-1.0).expect_idle();
    assert_eq!((m.counters().applied, m.counters().duplicates), (1, 1));
}

#[test]
fn a_gap_in_a_stream_closes_the_connection() {
    let mut m = pair();
    m.send_quanta(1, quanta(1, 3, 3)).expect_close(1, ProtocolError::Gap { expected: 1, got: 3 }).expect_idle();
}

#[test]
fn after_a_broken_connection_unacknowledged_messages_are_sent_again() {
    let mut m = pair();
    m.step(1.0).expect_quanta(1, 1, 1).expect_ready(1);
    m.tell(1, ack(1)).step(1.0).expect_quanta(1, 2, 2).expect_ready(2);
    m.disconnect(1).expect_idle().hello(1, 1).expect_start(1, 1, true);
    m.tell(1, start(0, true)).expect_quanta(1, 2, 2).expect_idle();
    assert_eq!(m.counters().resent, 1);
}

/// Strom 2015: a peer that does not keep up gets the sum. Messages that it may have are not changed: a receiver takes a
/// range of numbers whole or not at all.
#[test]
fn messages_that_wait_for_a_slow_neighbour_become_one() {
    let mut m = pair();
    // Two messages are under way at once; two wait.
    m.step(1.0).expect_quanta(1, 1, 1).expect_ready(1);
    m.step(1.0).expect_quanta(1, 2, 2).expect_ready(2);
    m.step(1.0).expect_ready(3).step(1.0).expect_ready(4).expect_idle();
    // The fifth needs a place: the third and the fourth become one.
    m.step(1.0).expect_ready(5).expect_view(-5.0).expect_idle();
    assert_eq!(m.counters().merged, 1);
    m.tell(1, ack(1)).expect_quanta(1, 3, 4).tell(1, ack(2)).expect_quanta(1, 5, 5).expect_idle();
}

/// A message that one neighbour may have is not merged, though another has not been sent it.
#[test]
fn a_message_that_is_under_way_to_one_neighbour_is_not_merged() {
    let mut m = founder(3);
    m.tell(1, start(0, true)).tell(2, start(0, true)).expect_idle();
    for number in 1..=2 {
        m.step(1.0).expect_quanta(1, number, number).expect_quanta(2, number, number).expect_ready(number);
        m.tell(1, ack(number)).expect_idle();
    }
    // Neighbour 2 has acknowledged nothing, so the next two wait for it.
    m.step(1.0).expect_quanta(1, 3, 3).expect_ready(3).step(1.0).expect_quanta(1, 4, 4).expect_ready(4);
    m.step(1.0).expect_waiting(Some(2)).expect_idle();
    assert_eq!(m.counters().merged, 0);
    m.tell(2, ack(1)).expect_quanta(2, 3, 3).expect_ready(5).expect_idle();
}

#[test]
fn a_lost_neighbour_holds_nothing_back() {
    let mut m = pair();
    for number in 1..=2 {
        m.step(1.0).expect_quanta(1, number, number).expect_ready(number);
    }
    m.at(10).disconnect(1).at(1010).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(1) });
    (3..10).for_each(|number| {
        m.step(1.0).expect_ready(number).expect_idle();
    });
    assert_eq!(m.counters().merged, 0);
    // Its process was given up: only a new one may come.
    m.at(1020).hello(1, 1).expect_transmit(1, Kind::Refuse);
    m.expect_idle();
}

/// A pair in which this node has contributed `value` in every element, with a threshold of a half, and leaves.
fn leaving(end: End, value: f32) -> Trace {
    let mut m = pair_of(Recipe::mesh(0.5).with_lambda(1.0).with_end(end));
    m.step(value).expect_quanta(1, 1, 1).expect_ready(1).expect_view(0.0);
    m.feed(Input::Leave { stay: false, keep: false });
    m
}

#[track_caller]
fn expect_rest(m: &mut Trace, norm: f64, messages: u32, kept: f64) {
    m.expect_event(Event::Rest(Rest { norm, updates: 1.0, messages, kept }));
}

/// The residual is the last message. A peer goes when its neighbours have all its messages and know which was the last.
#[test]
fn a_peer_that_leaves_sends_its_residual_and_waits_for_the_acknowledgements() {
    // A quarter is below the threshold, and stays in the residual.
    let mut m = leaving(End::Send, 0.25);
    m.expect_quanta(1, 2, 2);
    expect_rest(&mut m, 0.5, 1, 0.0);
    m.expect_idle().tell(1, ack(1)).expect_idle().tell(1, ack(2));
    let leave = Leave { origin: PeerId(0), incarnation: OWN, last: Sequence(2), stays: false };
    assert_eq!(m.expect_transmit(1, Kind::Leave), Message::Leave(leave));
    m.expect_idle().tell(1, Message::LeaveAck { origin: PeerId(0), incarnation: OWN });
    m.expect_signal(Signal::Left).expect_view(-0.25).expect_idle();
}

#[test]
fn a_peer_that_leaves_keeps_its_residual() {
    let mut m = leaving(End::Keep, 0.25);
    expect_rest(&mut m, 0.5, 0, 0.5);
    m.expect_idle().tell(1, ack(1));
    m.expect_transmit(1, Kind::Leave);
    m.tell(1, Message::LeaveAck { origin: PeerId(0), incarnation: OWN });
    m.expect_signal(Signal::Left).expect_view(0.0).expect_idle();
}

/// Ordinary messages say nothing of a residual below the threshold, so one of them is enough to know.
#[test]
fn a_residual_below_the_threshold_is_not_spread() {
    let mut m = leaving(End::Spread { messages: 9 }, 0.25);
    m.expect_quanta(1, 2, 2);
    expect_rest(&mut m, 0.5, 1, 0.5);
    m.expect_idle();
}

/// One message has room for 2^15 - 1 smallest quanta per element, about 64 here. The rest follows in further messages.
#[test]
fn a_residual_of_any_size_is_sent() {
    let mut m = pair_of(Recipe::mesh(0.5).with_lambda(1.0).with_end(End::Send));
    m.step(0.25).expect_quanta(1, 1, 1).expect_ready(1);
    let residual = m.machine.saved()[0];
    residual.restore(&mut m.pool, &[200.25f32.to_bits(); LEN]).unwrap();
    m.feed(Input::Leave { stay: false, keep: false });
    // 3 * 63.998 + 8.256. The neighbour has room for two messages at a time.
    m.expect_quanta(1, 2, 2).tell(1, ack(1)).expect_quanta(1, 3, 3);
    let event = m.wants.pop_front();
    let Some(Output::Event(Event::Rest(rest))) = event else { panic!("{event:?}") };
    assert_eq!((rest.messages, rest.kept), (4, 0.0));
    m.tell(1, ack(2)).expect_quanta(1, 4, 4).tell(1, ack(3));
    m.expect_quanta(1, 5, 5).tell(1, ack(4)).tell(1, ack(5)).expect_transmit(1, Kind::Leave);
    m.tell(1, Message::LeaveAck { origin: PeerId(0), incarnation: OWN });
    m.expect_signal(Signal::Left).expect_view(-200.25).expect_idle();
}

/// A mesh scales an update before it encodes it.
#[test]
fn an_update_is_multiplied_by_lambda() {
    let mut m = pair_of(Recipe::mesh(0.5));
    // lambda is one half: two workers.
    m.step(2.0).expect_quanta(1, 1, 1).expect_ready(1).expect_view(-1.0).expect_idle();
    assert_eq!(m.machine.status().residual_norm, 0.0);
}

/// A peer that stays for the end has all messages of all peers in its replica.
#[test]
fn a_peer_that_stays_waits_for_the_last_messages_of_all() {
    let mut m = pair();
    m.feed(Input::Leave { stay: true, keep: false }).expect_transmit(1, Kind::Leave);
    m.tell(1, Message::LeaveAck { origin: PeerId(0), incarnation: OWN }).expect_waiting(Some(1)).expect_idle();
    let leave = Leave { origin: PeerId(1), incarnation: Incarnation(1), last: Sequence(1), stays: true };
    m.tell(1, Message::Leave(leave)).expect_transmit(1, Kind::Ack);
    m.expect_idle().send_quanta(1, quanta(1, 1, 1)).expect_ack(1, 1, 1);
    m.expect_signal(Signal::Left).expect_view(-1.0).expect_idle();
}

fn chain(me: u32) -> Trace {
    trace(Recipe::mesh(0.5).with_lambda(1.0).with_topology(Topology::Mesh { relay: 1 }), me, 3)
}

/// A relay acknowledges a message when the nodes behind it have it, so that no message waits in front of an
/// acknowledgement.
#[test]
fn a_relay_passes_messages_on_and_acknowledges_them_when_those_behind_it_have() {
    let mut m = chain(1);
    m.meet(0).meet(2).tell(2, start(0, false)).tell(0, start(0, true)).expect_transmit(0, Kind::Fetch);
    m.send(0, Message::Seed { request: 1 }, 0.0).send(0, Message::Ledger { request: 1, applied: Clock(0) }, 0.0);
    m.expect_signal(Signal::Joined { clock: Clock(0) }).expect_start(0, 0, true).expect_start(2, 0, true);
    m.tell(2, start(0, true)).expect_idle();
    m.send_quanta(0, quanta(0, 1, 1)).expect_quanta(2, 1, 1).expect_idle();
    m.tell(2, Message::QuantaAck(Ack { origin: PeerId(0), incarnation: Incarnation(1), last: Sequence(1) }));
    m.expect_ack(0, 0, 1).look().expect_view(-1.0).expect_idle();
}

#[test]
fn a_relay_does_not_apply_its_own_message_when_it_comes_back() {
    let mut m = trace(Recipe::mesh(0.5).with_lambda(1.0).with_topology(Topology::Mesh { relay: 1 }), 0, 2);
    m.meet(1).tell(1, start(0, false)).expect_signal(Signal::Joined { clock: Clock(0) }).expect_start(1, 0, true);
    m.step(1.0).expect_ready(1);
    let echo = Quanta { origin: PeerId(0), incarnation: OWN, ..quanta(0, 1, 1) };
    m.announce(1, Message::Quanta(echo), 1);
    assert!(matches!(m.take_receive(1), Some((_, None))));
    assert_eq!((m.counters().duplicates, m.counters().applied), (1, 0));
}
