//! The mesh, input by input.

use alloc::vec::Vec;

use super::*;
use crate::recipe::{End, Topology};
use crate::status::{Presence, Rest};
use crate::wire::{Ack, Commit, Leave, Quanta, Report, SnapshotMark, Wanted};

const FIRST: Sequence = Sequence(1);

/// A member of view 1 has the receiver's messages up to `last`.
fn have(last: u64) -> Message {
    Message::Have { view: FIRST, last: Sequence(last) }
}

/// The report of a member that has heard of view `view` and has entered view `entered`.
fn report(view: u64, entered: u64) -> Message {
    let (view, entered, round) = (Sequence(view), Sequence(entered), Clock(0));
    let (has, members) = (entered > Sequence(0), 2);
    Message::Report(Report {
        view,
        entered,
        members,
        round,
        has,
        leaves: false,
        last: false,
        broken: false,
        told: false,
    })
}

/// Messages `first` to `last` of process 1 of a peer.
fn quanta(origin: u32, first: u64, last: u64) -> Quanta {
    let (first, last) = (Sequence(first), Sequence(last));
    Quanta { origin: PeerId(origin), incarnation: Incarnation(1), first, last, base: Clock(0) }
}

fn mark(view: u64, origin: u32, sequence: u64) -> Message {
    // A mark names no process before its first message.
    let incarnation = Incarnation(u64::from(sequence > 0));
    let (origin, sequence) = (PeerId(origin), Sequence(sequence));
    Message::SnapshotMark(SnapshotMark { view: Sequence(view), origin, incarnation, sequence, last: None })
}

/// Own messages up to `last` have been taken.
fn ack(last: u64) -> Message {
    Message::QuantaAck(Ack { origin: PeerId(0), incarnation: OWN, last: Sequence(last) })
}

impl Trace {
    #[track_caller]
    fn expect_have(&mut self, to: u32, view: u64, last: u64) -> &mut Self {
        let (view, last) = (Sequence(view), Sequence(last));
        assert_eq!(self.expect_transmit(to, Kind::Mark), Message::Have { view, last });
        self
    }

    /// The coordinator, which is at rank 0, forms a view in which this node is.
    #[track_caller]
    fn enter_view(&mut self, view: u64, members: u64, donor: u32, returns: bool) -> &mut Self {
        let number = Sequence(view);
        self.tell(0, Message::Members { view: number, first: PeerId(0), mask: members });
        let (round, donor) = (Clock(0), PeerId(donor));
        self.tell(0, Message::Commit(Commit { view: number, round, donor, last: false, returns }));
        self.expect_event(Event::View { number: view, members: members.count_ones() })
    }

    /// This node is told to stop.
    #[track_caller]
    fn prepare(&mut self, view: u64) -> &mut Self {
        self.tell(0, Message::Prepare { view: Sequence(view) }).expect_transmit(0, Kind::Report);
        self
    }

    #[track_caller]
    fn expect_fetch(&mut self, from: u32, view: u64, wanted: Wanted) -> &mut Self {
        let view = Sequence(view);
        assert_eq!(self.expect_transmit(from, Kind::Fetch), Message::FetchSnapshot { view, wanted });
        self
    }

    /// The donor's base and ledger come.
    fn give(&mut self, from: u32, view: u64, base: f32, applied: u64) -> &mut Self {
        let view = Sequence(view);
        self.send(from, Message::Seed { view }, base).expect_idle();
        self.send(from, Message::Ledger { view, applied: Clock(applied) }, 0.0)
    }

    /// This node, which hosts the coordinator, commits a view.
    #[track_caller]
    fn expect_commit(&mut self, to: u32) -> &mut Self {
        self.expect_transmit(to, Kind::Member);
        self.expect_transmit(to, Kind::View);
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

/// Rank 0 of a full mesh, which has founded it. The other members have not entered the view yet.
fn founder(workers: u32) -> Trace {
    founder_of(Recipe::mesh(0.5).with_lambda(1.0), workers)
}

fn founder_of(recipe: Recipe, workers: u32) -> Trace {
    let mut m = trace(recipe, 0, workers);
    (1..workers).for_each(|peer| {
        m.hello(peer, 1).expect_event(joined(peer, 1)).expect_idle();
    });
    (1..workers).for_each(|peer| {
        m.tell(peer, report(0, 0));
    });
    (1..workers).for_each(|peer| assert_eq!(m.expect_transmit(peer, Kind::View), Message::Prepare { view: FIRST }));
    (1..workers).for_each(|peer| {
        m.tell(peer, report(1, 0));
    });
    m.expect_event(Event::View { number: 1, members: workers });
    (1..workers).for_each(|peer| {
        m.expect_commit(peer);
    });
    (1..workers).for_each(|peer| {
        m.expect_have(peer, 1, 0);
    });
    m.expect_signal(Signal::Joined { clock: Clock(0) }).expect_idle();
    m
}

/// A founder with one neighbour, which has entered the view.
fn pair() -> Trace {
    pair_of(Recipe::mesh(0.5).with_lambda(1.0))
}

fn pair_of(recipe: Recipe) -> Trace {
    let mut m = founder_of(recipe, 2);
    m.tell(1, have(0)).expect_idle();
    m
}

/// Rank 1 of three, which has entered view 1 with three messages of rank 0 and `two` of rank 2.
fn member(two: u64) -> Trace {
    let mut m = entering();
    m.tell(0, mark(1, 0, 3)).tell(0, mark(1, 1, 0)).tell(0, mark(1, 2, two)).give(0, 1, 5.0, 3 + two);
    m.expect_have(0, 1, 3).expect_have(2, 1, two).expect_signal(Signal::Joined { clock: Clock(1) }).expect_view(5.0);
    m.tell(0, have(0)).tell(2, have(0)).expect_idle();
    m
}

/// Rank 1 of three, which has asked for a snapshot.
fn entering() -> Trace {
    let mut m = trace(Recipe::mesh(0.5).with_lambda(1.0), 1, 3);
    m.hello(0, 1).expect_event(joined(0, 1)).expect_transmit(0, Kind::Report);
    m.hello(2, 1).expect_event(joined(2, 1)).expect_idle();
    m.prepare(1).enter_view(1, 0b111, 0, true).expect_fetch(0, 1, Wanted::All).expect_idle();
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
fn rank_0_founds_the_mesh_when_all_are_there() {
    let mut m = trace(Recipe::mesh(0.5).with_lambda(1.0), 0, 3);
    m.hello(1, 1).expect_event(joined(1, 1)).tell(1, report(0, 0)).expect_waiting(Some(2)).expect_idle();
    founder(3);
}

#[test]
fn a_newcomer_joins_with_a_snapshot_of_the_donor() {
    let mut m = member(0);
    // Its neighbours' streams go on behind the snapshot.
    m.send_quanta(0, quanta(0, 4, 4)).expect_ack(0, 0, 4).look().expect_view(4.0);
}

/// A newcomer with a snapshot of the largest possible count in every element.
fn full() -> Trace {
    let mut m = entering();
    m.tell(0, mark(1, 0, 3)).tell(0, mark(1, 1, 0)).tell(0, mark(1, 2, 0));
    m.send(0, Message::Seed { view: FIRST }, 0.0).expect_idle();
    let words = kernel::ledger::words(LEN);
    m.announce(0, Message::Ledger { view: FIRST, applied: Clock(3) }, words);
    let (op, into) = m.take_receive(0).unwrap();
    let ledger: &mut [f32] = m.pool.floats_mut(into.unwrap());
    ledger.fill(f32::from_bits(i32::MAX as u32));
    ledger[LEN] = f32::from_bits(LEN as u32);
    m.feed(Input::Completed { op, result: KernelResult::Nothing });
    m.expect_have(0, 1, 3).expect_have(2, 1, 0).expect_signal(Signal::Joined { clock: Clock(1) });
    m.tell(0, have(0)).expect_idle();
    m
}

/// Neither the own message nor the peer's is to blame, so no connection is closed.
#[test]
fn a_full_ledger_ends_this_node_by_name_and_no_peer() {
    let mut m = full();
    m.send_quanta(0, quanta(0, 4, 4)).expect_signal(Signal::LedgerFull { index: 0 }).expect_idle();
    let mut m = full();
    m.step(1.0).expect_quanta(0, 1, 1).expect_signal(Signal::LedgerFull { index: 0 });
    // Quanta of the other sign make room.
    let mut m = full();
    m.step(-1.0).expect_quanta(0, 1, 1).expect_ready(1).expect_idle();
}

/// A member that is as far as the donor in the streams of the workers that are gone keeps its ledger.
#[test]
fn a_member_enters_the_next_view_with_its_own_ledger() {
    let mut m = member(2);
    m.prepare(2).enter_view(2, 0b011, 0, false).expect_fetch(0, 2, Wanted::Marks).expect_idle();
    // The stream of a member goes on, wherever the donor is in it.
    m.tell(0, mark(2, 0, 9)).tell(0, mark(2, 1, 0)).tell(0, mark(2, 2, 2)).expect_have(0, 2, 3).expect_idle();
    m.tell(0, Message::Have { view: Sequence(2), last: Sequence(0) }).step(1.0).expect_quanta(0, 1, 1).expect_ready(1);
}

/// Messages of a worker that is gone reach all members or no member: here the donor lacks one. Own messages are added
/// to the donor's ledger, and sent to all again.
#[test]
fn a_member_takes_the_donors_ledger_if_a_lost_stream_differs() {
    let mut m = member(2);
    m.step(1.0).expect_quanta(0, 1, 1).expect_quanta(2, 1, 1).expect_ready(1).expect_view(4.0);
    m.send_quanta(2, quanta(2, 3, 3)).expect_ack(2, 2, 3).look().expect_view(3.0);
    m.prepare(2).enter_view(2, 0b011, 0, false).expect_fetch(0, 2, Wanted::Marks);
    m.tell(0, mark(2, 0, 3)).tell(0, mark(2, 1, 0)).tell(0, mark(2, 2, 2)).expect_fetch(0, 2, Wanted::Ledger);
    m.tell(0, mark(2, 0, 3)).tell(0, mark(2, 1, 0)).tell(0, mark(2, 2, 2)).expect_idle();
    m.send(0, Message::Ledger { view: Sequence(2), applied: Clock(5) }, 0.0).expect_have(0, 2, 3);
    m.tell(0, Message::Have { view: Sequence(2), last: Sequence(0) }).expect_quanta(0, 1, 1);
    m.look().expect_view(4.0).expect_idle();
}

/// The run has gone on without this node. Its contribution is not lost.
#[test]
fn a_member_that_was_cut_off_comes_back_with_its_messages() {
    let mut m = member(0);
    m.step(1.0).expect_quanta(0, 1, 1).expect_quanta(2, 1, 1).expect_ready(1);
    m.prepare(3).enter_view(3, 0b111, 2, true).expect_fetch(2, 3, Wanted::All).expect_idle();
    m.tell(2, mark(3, 0, 8)).tell(2, mark(3, 1, 0)).tell(2, mark(3, 2, 4)).give(2, 3, 5.0, 12);
    m.expect_have(0, 3, 8).expect_have(2, 3, 4).look().expect_view(4.0);
    m.tell(2, Message::Have { view: Sequence(3), last: Sequence(0) }).expect_quanta(2, 1, 1).expect_idle();
}

/// Half of an answer is of no use when the connection to the donor breaks: all of it is asked for again.
#[test]
fn a_snapshot_that_breaks_off_is_asked_for_again() {
    let mut m = entering();
    m.tell(0, mark(1, 0, 3)).announce(0, Message::Seed { view: FIRST }, LEN);
    let (op, _) = m.take_receive(0).unwrap();
    m.disconnect(0).feed(Input::Aborted { op }).expect_idle();
    m.hello(0, 1).expect_transmit(0, Kind::Report);
    m.expect_fetch(0, 1, Wanted::All);
    m.tell(0, mark(1, 0, 3)).tell(0, mark(1, 1, 0)).tell(0, mark(1, 2, 0)).give(0, 1, 5.0, 3);
    m.expect_have(0, 1, 3).expect_have(2, 1, 0).expect_signal(Signal::Joined { clock: Clock(1) });
}

/// A part of an answer is still being written where the next answer goes to.
#[test]
fn another_donor_is_asked_when_the_last_answer_is_written() {
    let mut m = entering();
    m.announce(0, Message::Seed { view: FIRST }, LEN);
    let (op, _) = m.take_receive(0).unwrap();
    m.prepare(2).enter_view(2, 0b111, 2, true).expect_idle();
    m.feed(Input::Completed { op, result: KernelResult::Nothing }).expect_fetch(2, 2, Wanted::All).expect_idle();
}

/// The end of a stream is that of one process. The next process has not left, though it is no member yet.
#[test]
fn an_end_that_an_earlier_process_has_announced_is_none() {
    for restarts in [false, true] {
        let mut m = member(0);
        let (origin, incarnation, last) = (PeerId(2), Incarnation(1), Sequence(0));
        m.tell(2, Message::StreamEnd { origin, incarnation, last }).expect_idle();
        if restarts {
            m.disconnect(2).hello(2, 2).expect_event(joined(2, 2)).expect_have(2, 1, 0);
        }
        m.prepare(2).enter_view(2, 0b011, 0, false).expect_fetch(0, 2, Wanted::Marks);
        let expected = if restarts { Presence::Present } else { Presence::Left };
        assert_eq!(m.machine.status().workers[1].state, expected);
    }
}

/// Messages of the view before must not enter the ledger of the next, in which the receiver may be elsewhere.
#[test]
fn messages_of_the_view_before_are_dropped() {
    let mut m = member(0);
    m.prepare(2).send_quanta(2, quanta(2, 1, 1)).expect_ack(2, 2, 1);
    m.enter_view(2, 0b111, 0, false).expect_fetch(0, 2, Wanted::Marks);
    m.announce(2, Message::Quanta(quanta(2, 2, 2)), LEN);
    assert!(matches!(m.take_receive(2), Some((_, None))));
    // An acknowledgement of that view says nothing of this one.
    m.expect_idle();
}

/// No member makes messages while the view changes, nor without most of the members.
#[test]
fn nobody_outside_a_quorum_steps() {
    let mut m = member(0);
    m.prepare(2).step(1.0).expect_idle();
    let mut m = member(0);
    m.at(10).disconnect(0).disconnect(2).expect_idle().at(1010).feed(Input::Timeout);
    m.expect_event(Event::PeerLost { peer: PeerId(0) }).expect_event(Event::PeerLost { peer: PeerId(2) });
    m.step(1.0).expect_waiting(Some(0)).expect_idle();
    // With one of the other two, it is most of them.
    m.hello(2, 1).expect_ready(1).expect_have(2, 1, 0).tell(2, have(0)).expect_quanta(2, 1, 1).expect_idle();
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
    m.tell(1, have(0)).expect_quanta(1, 1, 1).expect_idle();
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
    m.disconnect(1).expect_idle().hello(1, 1).expect_have(1, 1, 0).expect_commit(1);
    m.tell(1, have(1)).expect_quanta(1, 2, 2).expect_idle();
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
    m.tell(1, have(0)).tell(2, have(0)).expect_idle();
    for number in 1..=2 {
        m.step(1.0).expect_quanta(1, number, number).expect_quanta(2, number, number).expect_ready(number);
        m.tell(1, ack(number)).expect_idle();
    }
    // Neighbour 2 has acknowledged nothing, and neighbour 1 may have the next two.
    m.step(1.0).expect_quanta(1, 3, 3).expect_ready(3).step(1.0).expect_quanta(1, 4, 4).expect_ready(4);
    m.step(1.0).expect_ready(5).step(1.0).expect_ready(6);
    assert_eq!(m.counters().merged, 0);
    // The two that only wait become one.
    m.step(1.0).expect_ready(7).expect_idle();
    assert_eq!(m.counters().merged, 1);
    m.tell(2, ack(1)).expect_quanta(2, 3, 3).expect_idle();
}

/// Messages that a neighbour may have stay as they are. Each of two neighbours holds back two others of them.
#[test]
fn neighbours_that_are_held_up_at_different_messages_hold_back_nobody() {
    let mut m = founder(4);
    for peer in 1..=3 {
        m.tell(peer, have(0)).expect_idle();
    }
    for number in 1..=4 {
        m.step(1.0).expect_quanta(1, number, number);
        if number <= 2 {
            m.expect_quanta(2, number, number);
        }
        m.expect_quanta(3, number, number).expect_ready(number);
        m.tell(1, ack(number)).expect_idle();
        if number <= 2 {
            m.tell(3, ack(number)).expect_idle();
        }
    }
    for number in 5..40 {
        m.step(1.0).expect_quanta(1, number, number).expect_ready(number);
        m.tell(1, ack(number)).expect_idle();
    }
    // All that neither has been sent is one message and the last one.
    assert_eq!(m.counters().merged, 33);
    m.tell(2, ack(1)).expect_quanta(2, 3, 3).tell(2, ack(2)).expect_quanta(2, 4, 4).expect_idle();
    m.tell(3, ack(3)).expect_quanta(3, 5, 38).expect_idle();
}

#[test]
fn a_lost_neighbour_holds_nothing_back() {
    let mut m = pair();
    for number in 1..=2 {
        m.step(1.0).expect_quanta(1, number, number).expect_ready(number);
    }
    m.at(10).disconnect(1).at(1010).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(1) });
    m.expect_event(Event::View { number: 2, members: 1 });
    (3..10).for_each(|number| {
        m.step(1.0).expect_ready(number).expect_idle();
    });
    assert_eq!(m.counters().merged, 0);
    // It was only cut off: it is a member of the next view.
    m.at(1020).hello(1, 1).expect_idle();
    m.tell(1, report(1, 1));
    assert_eq!(m.expect_transmit(1, Kind::View), Message::Prepare { view: Sequence(3) });
    m.tell(1, report(3, 1)).expect_event(Event::View { number: 3, members: 2 });
    m.expect_transmit(1, Kind::Member);
    let Message::Commit(commit) = m.expect_transmit(1, Kind::View) else { panic!("a commit") };
    assert!(commit.returns && commit.donor == PeerId(0));
    m.expect_have(1, 3, 0).expect_idle();
}

/// A pair in which this node has contributed `value` in every element, with a threshold of a half, and leaves.
fn leaving(end: End, value: f32) -> Trace {
    let mut m = pair_of(Recipe::mesh(0.5).with_lambda(1.0).with_end(end));
    m.step(value).expect_quanta(1, 1, 1).expect_ready(1).expect_view(0.0);
    m.feed(Input::Leave { stay: false, keep: false });
    m
}

/// This node, which hosts the coordinator, announces its last message, and is the last to leave.
#[track_caller]
fn leave(m: &mut Trace, last: u64) {
    let (origin, incarnation, last) = (PeerId(0), OWN, Sequence(last));
    assert_eq!(m.expect_transmit(1, Kind::Ack), Message::StreamEnd { origin, incarnation, last });
    m.expect_transmit(1, Kind::View);
    m.tell(1, report(2, 1)).expect_commit(1).expect_idle();
    let goodbye = Leave { origin: PeerId(1), incarnation: Incarnation(1), last: Sequence(0), stays: false };
    m.tell(1, Message::Leave(goodbye));
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
    leave(&mut m, 2);
    m.expect_signal(Signal::Left).expect_view(-0.25).expect_idle();
}

#[test]
fn a_peer_that_leaves_keeps_its_residual() {
    let mut m = leaving(End::Keep, 0.25);
    expect_rest(&mut m, 0.5, 0, 0.5);
    m.expect_idle().tell(1, ack(1));
    leave(&mut m, 1);
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
    m.expect_quanta(1, 5, 5).tell(1, ack(4)).tell(1, ack(5));
    leave(&mut m, 5);
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
    m.feed(Input::Leave { stay: true, keep: false }).expect_transmit(1, Kind::Ack);
    m.expect_waiting(Some(1)).expect_idle();
    let (origin, incarnation, last) = (PeerId(1), Incarnation(1), Sequence(1));
    m.tell(1, Message::StreamEnd { origin, incarnation, last }).expect_idle();
    m.send_quanta(1, quanta(1, 1, 1)).expect_ack(1, 1, 1).expect_idle();
    // It has all of them now. The coordinator releases both when the other has, too.
    let Message::Report(at_end) = report(1, 1) else { unreachable!() };
    m.tell(1, Message::Report(Report { last: true, ..at_end })).expect_transmit(1, Kind::Release);
    m.expect_idle().tell(1, Message::Leave(Leave { origin, incarnation, last: Sequence(0), stays: false }));
    m.expect_signal(Signal::Left).expect_view(-1.0).expect_idle();
}

/// A goodbye is sent again when the coordinator's node comes back. If the node has been given up before the goodbye has
/// failed, as between threads, it is not needed.
#[test]
fn a_goodbye_to_a_lost_coordinator_is_not_repeated() {
    for is_lost in [false, true] {
        let mut m = trace(Recipe::mesh(0.5).with_lambda(1.0), 1, 2);
        m.hello(0, 1).expect_event(joined(0, 1)).expect_transmit(0, Kind::Report);
        m.feed(Input::Leave { stay: false, keep: false }).expect_transmit(0, Kind::Report);
        m.tell(0, Message::Release);
        let (op, _, _) = m.expect_sending(0, Kind::Leave);
        m.at(10).disconnect(0);
        if is_lost {
            m.at(5_000).feed(Input::Timeout).expect_idle();
        }
        m.feed(Input::Aborted { op });
        if !is_lost {
            m.expect_idle().hello(0, 1).expect_transmit(0, Kind::Report);
            m.expect_transmit(0, Kind::Leave);
        }
        m.expect_signal(Signal::Left).expect_idle();
    }
}

fn chain(me: u32) -> Trace {
    trace(Recipe::mesh(0.5).with_lambda(1.0).with_topology(Topology::Mesh { relay: 1 }), me, 3)
}

/// A relay acknowledges a message when the nodes behind it have it, so that no message waits in front of an
/// acknowledgement.
#[test]
fn a_relay_passes_messages_on_and_acknowledges_them_when_those_behind_it_have() {
    let mut m = chain(1);
    m.hello(0, 1).expect_event(joined(0, 1)).expect_transmit(0, Kind::Report);
    m.hello(2, 1).expect_event(joined(2, 1)).prepare(1).enter_view(1, 0b111, 0, true).expect_fetch(0, 1, Wanted::All);
    m.tell(0, mark(1, 0, 1)).tell(0, mark(1, 1, 0)).tell(0, mark(1, 2, 0)).give(0, 1, 0.0, 1);
    m.expect_have(0, 1, 1).expect_have(2, 1, 0).expect_signal(Signal::Joined { clock: Clock(0) });
    m.tell(0, have(0)).tell(2, have(0)).expect_idle();
    m.send_quanta(0, quanta(0, 2, 2)).expect_quanta(2, 2, 2).expect_idle();
    m.tell(2, Message::QuantaAck(Ack { origin: PeerId(0), incarnation: Incarnation(1), last: Sequence(2) }));
    m.expect_ack(0, 0, 2).look().expect_view(-1.0).expect_idle();
}

/// A message that this node has from a snapshot is passed on: the nodes behind this one may lack it.
#[test]
fn a_relay_passes_on_what_it_has_from_a_snapshot() {
    let mut m = chain(1);
    m.hello(0, 1).expect_event(joined(0, 1)).expect_transmit(0, Kind::Report);
    m.hello(2, 1).expect_event(joined(2, 1)).prepare(1).enter_view(1, 0b111, 0, true).expect_fetch(0, 1, Wanted::All);
    m.tell(0, mark(1, 0, 1)).tell(0, mark(1, 1, 0)).tell(0, mark(1, 2, 0)).give(0, 1, 0.0, 1);
    m.expect_have(0, 1, 1).expect_have(2, 1, 0).expect_signal(Signal::Joined { clock: Clock(0) });
    m.tell(0, have(0)).tell(2, have(0)).expect_idle();
    m.send_quanta(0, quanta(0, 1, 1)).expect_quanta(2, 1, 1).expect_idle().look().expect_view(0.0);
    // The second time, there is nothing to do.
    m.tell(2, Message::QuantaAck(Ack { origin: PeerId(0), incarnation: Incarnation(1), last: Sequence(1) }));
    m.expect_ack(0, 0, 1).send_quanta(0, quanta(0, 1, 1)).expect_ack(0, 0, 1).expect_idle();
}

#[test]
fn a_relay_does_not_apply_its_own_message_when_it_comes_back() {
    let mut m = trace(Recipe::mesh(0.5).with_lambda(1.0).with_topology(Topology::Mesh { relay: 1 }), 0, 2);
    m.hello(1, 1).expect_event(joined(1, 1)).tell(1, report(0, 0)).expect_transmit(1, Kind::View);
    m.tell(1, report(1, 0)).expect_event(Event::View { number: 1, members: 2 }).expect_commit(1).expect_have(1, 1, 0);
    m.expect_signal(Signal::Joined { clock: Clock(0) }).tell(1, have(0));
    m.step(1.0).expect_quanta(1, 1, 1).expect_ready(1);
    let echo = Quanta { origin: PeerId(0), incarnation: OWN, ..quanta(0, 1, 1) };
    m.announce(1, Message::Quanta(echo), 1);
    assert!(matches!(m.take_receive(1), Some((_, None))));
    assert_eq!((m.counters().duplicates, m.counters().applied), (1, 0));
}

/// Rank 1 of a chain of three, with its neighbours in view 1 as well.
fn relay() -> Trace {
    let mut m = chain(1);
    m.hello(0, 1).expect_event(joined(0, 1)).expect_transmit(0, Kind::Report);
    m.hello(2, 1).expect_event(joined(2, 1)).prepare(1).enter_view(1, 0b111, 0, true).expect_fetch(0, 1, Wanted::All);
    m.tell(0, mark(1, 0, 0)).tell(0, mark(1, 1, 0)).tell(0, mark(1, 2, 0)).give(0, 1, 0.0, 0);
    m.expect_have(0, 1, 0).expect_have(2, 1, 0).expect_signal(Signal::Joined { clock: Clock(0) });
    m.tell(0, have(0)).tell(2, have(0)).expect_idle();
    m
}

/// Also a message that was made in a view before.
#[test]
fn a_relay_knows_its_own_messages_in_the_next_view() {
    let mut m = relay();
    m.step(1.0).expect_quanta(0, 1, 1).expect_quanta(2, 1, 1).expect_ready(1);
    let (origin, incarnation, last) = (PeerId(1), OWN, Sequence(1));
    let taken = Message::QuantaAck(Ack { origin, incarnation, last });
    m.tell(0, taken).tell(2, taken).expect_idle();
    m.prepare(2).enter_view(2, 0b111, 0, false).expect_fetch(0, 2, Wanted::Marks);
    let own = SnapshotMark { view: Sequence(2), origin, incarnation, sequence: last, last: None };
    m.tell(0, mark(2, 0, 0)).tell(0, Message::SnapshotMark(own)).tell(0, mark(2, 2, 0));
    m.expect_have(0, 2, 0).expect_have(2, 2, 0);
    m.tell(0, Message::Have { view: Sequence(2), last }).tell(2, Message::Have { view: Sequence(2), last });
    m.announce(0, Message::Quanta(Quanta { origin, incarnation, ..quanta(0, 1, 1) }), 1);
    assert!(matches!(m.take_receive(0), Some((_, None))));
    assert_eq!((m.counters().duplicates, m.counters().applied), (1, 0));
}

/// A message of a new process says that the end of the one before does not count: a relay does not pass that end on.
#[test]
fn a_message_of_a_new_process_takes_back_the_end_of_the_last_one() {
    let mut m = relay();
    let (origin, incarnation, last) = (PeerId(2), Incarnation(1), Sequence(0));
    let end = Message::StreamEnd { origin, incarnation, last };
    m.tell(2, end);
    assert_eq!(m.expect_transmit(0, Kind::Ack), end);
    m.send_quanta(2, Quanta { incarnation: Incarnation(2), ..quanta(2, 1, 1) }).expect_quanta(0, 1, 1).expect_idle();
    m.disconnect(0).hello(0, 1).expect_transmit(0, Kind::Report);
    m.expect_have(0, 1, 0).tell(0, have(0)).expect_quanta(0, 1, 1).expect_idle();
}
