//! The collective, input by input: members of views, and rounds among them.

use alloc::vec::Vec;

use super::*;
use crate::recipe::{Outer, Topology};
use crate::rider::Rider;
use crate::wire::{Commit, Leave, Part, Report};

/// A chain of workers: `k` sends its means to `k - 1`, and results to `k + 1`.
fn chain() -> Recipe {
    Recipe::sync().with_topology(Topology::Tree { fan_in: 1 })
}

/// A part of the only chunk, in view 1.
pub(super) fn part(round: u64, weight: u64) -> Part {
    Part { view: Sequence(1), round: Clock(round), chunk: 0, weight, finishing: false, rider: None }
}

pub(super) fn up(round: u64, weight: u64) -> Message {
    Message::Up(part(round, weight))
}

pub(super) fn down(round: u64, weight: u64) -> Message {
    Message::Down(part(round, weight))
}

impl Trace {
    /// The coordinator, rank 0, commits a view of the first `members` ranks. The node stops, reports, and enters it.
    #[track_caller]
    pub(super) fn commit(&mut self, view: u64, members: u32, round: u64, donor: u32) -> &mut Self {
        let number = Sequence(view);
        self.tell(0, Message::Prepare { view: number });
        let report = self.expect_report();
        assert_eq!(report.view, number, "{report:?}");
        self.tell(0, Message::Members { view: number, first: PeerId(0), mask: (1 << members) - 1 });
        let (round, donor) = (Clock(round), PeerId(donor));
        self.tell(0, Message::Commit(Commit { view: number, round, donor, last: false, returns: false }));
        self.expect_event(Event::View { number: view, members })
    }

    #[track_caller]
    pub(super) fn expect_report(&mut self) -> Report {
        match self.expect_transmit(0, Kind::Report) {
            Message::Report(report) => report,
            message => panic!("{message:?}"),
        }
    }

    /// A mean or a result goes out.
    #[track_caller]
    fn expect_part(&mut self, to: u32, kind: Kind, round: u64, weight: u64, value: f32) -> &mut Self {
        let (op, message, body) = self.expect_sending(to, kind);
        let (Message::Up(part) | Message::Down(part)) = message else { panic!("{message:?}") };
        assert_eq!((part.round.0, part.weight), (round, weight), "{message:?}");
        assert_eq!(body.map(|body| self.pool.floats(body).to_vec()), (weight > 0).then(|| alloc::vec![value; LEN]));
        self.feed(Input::Completed { op, result: KernelResult::Nothing })
    }
}

/// Worker `me` of a chain of `workers`, which has met its neighbours and taken parameters of 1.0 in view 1.
fn member(me: u32, workers: u32) -> Trace {
    member_of(chain(), me, workers)
}

pub(super) fn member_of(recipe: Recipe, me: u32, workers: u32) -> Trace {
    let mut m = trace(recipe, me, workers);
    m.hello(0, 1).expect_event(joined(0, 1)).expect_report();
    if me + 1 < workers {
        m.hello(me + 1, 1).expect_event(joined(me + 1, 1)).expect_idle();
    }
    m.commit(1, workers, 0, 0);
    assert_eq!(m.expect_transmit(0, Kind::Fetch), Message::FetchParameters { view: Sequence(1) });
    m.send(0, Message::Parameters { view: Sequence(1), round: Clock(0), vector: 0, riders: None }, 1.0);
    m.expect_signal(Signal::Joined { clock: Clock(0) }).expect_view(1.0).expect_idle();
    m
}

/// Rank 0 of two, which hosts the coordinator, in view 1 with parameters of zero.
fn root() -> Trace {
    let mut r = trace(chain(), 0, 2);
    r.hello(1, 1).expect_event(joined(1, 1)).expect_idle();
    r.tell(1, report(0, 0, false));
    assert_eq!(r.expect_transmit(1, Kind::View), Message::Prepare { view: Sequence(1) });
    r.tell(1, report(1, 0, false));
    // The coordinator's own node enters first.
    r.expect_event(Event::View { number: 1, members: 2 }).expect_signal(Signal::Joined { clock: Clock(0) });
    expect_commit(&mut r, 1, 0b11, 0);
    r.expect_idle();
    r
}

fn report(view: u64, round: u64, has: bool) -> Message {
    let (view, round) = (Sequence(view), Clock(round));
    let (entered, members) = (Sequence(0), 0);
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

#[track_caller]
fn expect_commit(r: &mut Trace, view: u64, mask: u64, round: u64) {
    let view = Sequence(view);
    assert_eq!(r.expect_transmit(1, Kind::Member), Message::Members { view, first: PeerId(0), mask });
    let commit = Commit { view, round: Clock(round), donor: PeerId(0), last: false, returns: true };
    assert_eq!(r.expect_transmit(1, Kind::View), Message::Commit(commit));
}

/// Riders are averaged as the contributions are. All members get the mean with the result, and newcomers get the first
/// and the last one with the state.
#[test]
fn riders_are_averaged_and_given_to_newcomers() {
    let rider = Rider::new;
    let riders = |first, last| Some([rider(first), rider(last)].map(Option::unwrap));
    let mut m = member(1, 3);
    let advised = |m: &Trace| m.machine.advice().riders;
    assert_eq!(advised(&m), None);
    m.send(2, Message::Up(Part { rider: rider(8.0), ..part(1, 3) }), 5.0).expect_idle();
    m.feed(Input::Rider { rider: rider(4.0) }).step(1.0);
    let message = m.expect_transmit(0, Kind::Up);
    assert_eq!(message, Message::Up(Part { rider: rider(7.0), ..part(1, 4) }));
    m.send(0, Message::Down(Part { rider: rider(6.0), ..part(1, 6) }), 2.0);
    assert_eq!(m.expect_transmit(2, Kind::Down), Message::Down(Part { rider: rider(6.0), ..part(1, 6) }));
    m.expect_ready(1);
    assert_eq!(advised(&m), riders(6.0, 6.0));
    // A worker without a rider: the mean is not known, and the last one stays.
    m.send(2, Message::Up(part(2, 3)), 5.0).step(1.0);
    assert_eq!(m.expect_transmit(0, Kind::Up), Message::Up(part(2, 4)));
    m.send(0, Message::Down(part(2, 6)), 2.0);
    let _ = m.expect_transmit(2, Kind::Down);
    m.expect_ready(2);
    assert_eq!(advised(&m), riders(6.0, 6.0));
    m.step(1.0);
    m.send(2, Message::Up(Part { rider: rider(1.0), ..part(3, 1) }), 5.0);
    assert_eq!(m.expect_transmit(0, Kind::Up), Message::Up(Part { rider: rider(2.5), ..part(3, 2) }));
    m.send(0, Message::Down(Part { rider: rider(2.0), ..part(3, 6) }), 2.0);
    let _ = m.expect_transmit(2, Kind::Down);
    m.expect_ready(3);
    assert_eq!(advised(&m), riders(6.0, 2.0));
    // The donor of a view.
    m.commit(2, 3, 3, 1);
    m.tell(2, Message::FetchParameters { view: Sequence(2) });
    let given = Message::Parameters { view: Sequence(2), round: Clock(3), vector: 0, riders: riders(6.0, 2.0) };
    assert_eq!(m.expect_transmit(2, Kind::State), given);
    let mut newcomer = trace(chain(), 1, 2);
    newcomer.hello(0, 1).expect_event(joined(0, 1)).expect_report();
    newcomer.commit(1, 2, 3, 0);
    let _ = newcomer.expect_transmit(0, Kind::Fetch);
    let state = Message::Parameters { view: Sequence(1), round: Clock(3), vector: 0, riders: riders(6.0, 2.0) };
    newcomer.send(0, state, 1.0).expect_signal(Signal::Joined { clock: Clock(3) });
    assert_eq!(advised(&newcomer), riders(6.0, 2.0));
}

#[test]
fn a_member_joins_with_the_donors_parameters() {
    member(1, 2);
}

#[test]
fn a_leaf_sends_its_contribution_up_and_takes_the_result() {
    let mut m = member(1, 2);
    m.step(0.5).expect_part(0, Kind::Up, 1, 1, 0.5).expect_waiting(Some(0)).expect_idle();
    m.send(0, down(1, 2), 0.25).expect_ready(1).expect_view(0.75).expect_idle();
}

/// The mean is weighted by examples, and made when the contribution and all children's means are there.
#[test]
fn an_inner_node_sends_the_weighted_mean_of_its_subtree() {
    let mut m = member(1, 3);
    m.send(2, up(1, 3), 5.0).expect_idle();
    m.step(1.0).expect_part(0, Kind::Up, 1, 4, 4.0);
    m.send(0, down(1, 6), 2.0).expect_part(2, Kind::Down, 1, 6, 2.0).expect_ready(1).expect_view(-1.0).expect_idle();
}

#[test]
fn the_root_makes_the_result_and_sends_it_down() {
    let mut r = root();
    r.step(1.0).expect_waiting(Some(1)).expect_idle();
    r.send(1, up(1, 3), 5.0).expect_part(1, Kind::Down, 1, 4, 4.0).expect_ready(1).expect_view(-4.0).expect_idle();
}

/// The application goes on only when all that other members need of the round has been sent: a driver on the
/// application's thread may not come back to the machine for long.
#[test]
fn the_application_waits_until_results_have_been_sent() {
    let mut r = root();
    r.step(1.0).send(1, up(1, 1), 1.0);
    let (op, ..) = r.expect_sending(1, Kind::Down);
    r.expect_idle();
    r.feed(Input::Completed { op, result: KernelResult::Nothing }).expect_ready(1);
}

/// A round is all or nothing: a new view begins it anew, with the same contributions.
#[test]
fn a_round_that_is_broken_off_leaves_no_trace_and_is_done_in_the_next_view() {
    let mut m = member(1, 3);
    m.step(1.0).send(2, up(1, 3), 5.0).expect_part(0, Kind::Up, 1, 4, 4.0);
    // Worker 2 is lost: the coordinator forms a view without it.
    m.commit(2, 2, 0, 0);
    let again = Part { view: Sequence(2), ..part(1, 1) };
    let (op, message, _) = m.expect_sending(0, Kind::Up);
    assert_eq!(message, Message::Up(again));
    m.feed(Input::Completed { op, result: KernelResult::Nothing }).expect_view(1.0);
    m.send(0, Message::Down(Part { weight: 2, ..again }), 0.5).expect_ready(1).expect_view(0.5).expect_idle();
}

/// A member that has not seen the end of a round takes its result from the donor; its contribution is in it.
#[test]
fn a_member_that_is_behind_takes_the_result_of_its_round_from_the_donor() {
    let mut m = member(1, 2);
    m.step(1.0).expect_part(0, Kind::Up, 1, 1, 1.0);
    m.commit(2, 2, 1, 0);
    assert_eq!(m.expect_transmit(0, Kind::Fetch), Message::FetchParameters { view: Sequence(2) });
    m.send(0, Message::Parameters { view: Sequence(2), round: Clock(1), vector: 0, riders: None }, 7.0);
    m.expect_ready(1).expect_view(7.0).expect_idle();
}

#[test]
fn the_donor_gives_its_parameters_to_each_member_once() {
    let mut r = root();
    r.tell(1, Message::FetchParameters { view: Sequence(1) });
    let parameters = Message::Parameters { view: Sequence(1), round: Clock(0), vector: 0, riders: None };
    assert_eq!(r.expect_transmit(1, Kind::State), parameters);
    r.tell(1, Message::FetchParameters { view: Sequence(1) }).expect_idle();
}

/// A message of a view that this node has not heard of waits: its body stays with the sender.
#[test]
fn a_message_of_the_next_view_waits_for_the_view() {
    let mut m = member(1, 3);
    let next = Part { view: Sequence(2), ..part(1, 3) };
    m.announce(2, Message::Up(next), LEN).expect_idle();
    m.commit(2, 3, 0, 0).receive(2, 5.0).expect_idle();
    m.step(1.0);
    let (_, message, _) = m.expect_sending(0, Kind::Up);
    assert_eq!(message, Message::Up(Part { weight: 4, ..next }));
}

/// The connection broke before the view came: there is no peer to answer.
#[test]
fn an_early_message_of_a_broken_connection_is_dropped() {
    for broken in [false, true] {
        let mut m = member(1, 3);
        m.tell(0, Message::Prepare { view: Sequence(2) }).expect_report();
        m.tell(2, Message::FetchParameters { view: Sequence(2) }).expect_idle();
        if broken {
            m.disconnect(2);
        }
        m.tell(0, Message::Members { view: Sequence(2), first: PeerId(0), mask: 0b111 });
        let (view, round, donor) = (Sequence(2), Clock(0), PeerId(1));
        m.tell(0, Message::Commit(Commit { view, round, donor, last: false, returns: false }));
        m.expect_event(Event::View { number: 2, members: 3 });
        if !broken {
            m.expect_transmit(2, Kind::State);
        }
        m.expect_idle();
    }
}

#[test]
fn a_message_of_an_ended_view_is_dropped() {
    let mut m = member(1, 3);
    m.commit(2, 3, 0, 0);
    m.announce(2, up(1, 3), LEN);
    assert!(matches!(m.take_receive(2), Some((_, None))));
    m.step(1.0).expect_waiting(Some(2)).expect_idle();
}

#[test]
fn a_contribution_that_is_not_finite_is_left_out_of_the_mean() {
    let mut r = root();
    r.step(1.0).send(1, up(1, 3), f32::NAN);
    let reason = Rejection::NonFinite { shard: ShardId(0), index: 0 };
    r.expect_event(Event::Rejected { peer: PeerId(1), reason });
    r.expect_part(1, Kind::Down, 1, 1, 1.0).expect_ready(1).expect_view(-1.0).expect_idle();
    assert_eq!(r.counters().rejected, 1);
}

/// A round without examples ends as well, and changes nothing.
#[test]
fn a_round_without_examples_changes_nothing() {
    let mut m = member(1, 2);
    m.feed(Input::Step { weight: 0 }).expect_part(0, Kind::Up, 1, 0, 0.0);
    m.tell(0, down(1, 0))
        .expect_signal(Signal::Ready { clock: Clock(1), changed: false })
        .expect_view(1.0)
        .expect_idle();
}

#[test]
fn a_part_of_another_round_is_refused() {
    let mut m = member(1, 3);
    m.announce(2, up(3, 1), LEN).expect_close(2, ProtocolError::Gap { expected: 1, got: 3 });
    let mut m = member(1, 3);
    m.announce(2, up(1, 1), 3).expect_close(2, ProtocolError::Length { kind: Kind::Up, expected: 16, got: 12 });
    let mut m = member(1, 2);
    // A result before the contribution.
    m.announce(0, down(1, 2), LEN).expect_close(0, ProtocolError::Unexpected { kind: Kind::Down }).expect_idle();
}

#[test]
fn a_lost_member_is_reported_to_the_coordinator() {
    let mut m = member(1, 3);
    m.at(10).disconnect(2).expect_idle();
    m.at(1010).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(2) });
    assert_eq!(m.expect_transmit(0, Kind::Member), Message::Lost { first: PeerId(0), mask: 0b100 });
    // Until it is met again.
    m.expect_idle().at(1020).hello(2, 1);
    assert!(m.expect_report().broken);
    assert_eq!(m.expect_transmit(0, Kind::Member), Message::Lost { first: PeerId(0), mask: 0 });
    m.expect_idle();
}

/// Messages of the view may have got lost with the connection.
#[test]
fn a_connection_that_broke_in_the_view_is_reported_when_it_is_back() {
    let mut m = member(1, 3);
    m.at(10).disconnect(2).expect_idle();
    m.at(20).hello(2, 1);
    assert!(m.expect_report().broken);
    m.expect_idle();
}

/// A worker that stays contributes no examples, until all other workers stay as well; that round is the last.
#[test]
fn the_run_ends_with_a_round_in_which_all_are_finishing() {
    let mut m = member(1, 2);
    m.feed(Input::Leave { stay: true, keep: false });
    let finishing = Part { finishing: true, ..part(1, 0) };
    assert_eq!(m.expect_transmit(0, Kind::Up), Message::Up(finishing));
    m.tell(0, Message::Down(finishing));
    assert!(m.expect_report().last);
    m.expect_idle().tell(0, Message::Release);
    let leave = Leave { origin: PeerId(1), incarnation: OWN, last: Sequence(0), stays: false };
    assert_eq!(m.expect_transmit(0, Kind::Leave), Message::Leave(leave));
    m.expect_signal(Signal::Left).expect_view(1.0).expect_idle();
}

/// A worker that leaves at once waits for its release: a view must first be formed without it.
#[test]
fn a_worker_that_leaves_reports_it_and_goes_when_it_is_released() {
    let mut m = member(1, 2);
    m.feed(Input::Leave { stay: false, keep: false });
    assert!(m.expect_report().leaves);
    m.expect_idle().tell(0, Message::Release).expect_transmit(0, Kind::Leave);
    m.expect_signal(Signal::Left).expect_idle();
}

/// A goodbye is sent again when the coordinator's node comes back. If the node has been given up before the goodbye has
/// failed, as between threads, it is not needed.
#[test]
fn a_goodbye_to_a_lost_coordinator_is_not_repeated() {
    for is_lost in [false, true] {
        let mut m = member(1, 2);
        m.feed(Input::Leave { stay: false, keep: false }).expect_report();
        m.tell(0, Message::Release);
        let (op, _, _) = m.expect_sending(0, Kind::Leave);
        m.at(10).disconnect(0);
        if is_lost {
            m.at(5_000).feed(Input::Timeout).expect_idle();
        }
        m.feed(Input::Aborted { op });
        if !is_lost {
            m.expect_idle().hello(0, 1).expect_report();
            m.expect_report();
            m.expect_transmit(0, Kind::Leave);
        }
        m.expect_signal(Signal::Left).expect_idle();
    }
}

#[test]
fn a_view_without_this_node_is_ignored() {
    let mut m = member(1, 3);
    m.tell(0, Message::Prepare { view: Sequence(2) }).expect_report();
    m.tell(0, Message::Members { view: Sequence(2), first: PeerId(0), mask: 0b101 });
    let commit = Commit { view: Sequence(2), round: Clock(0), donor: PeerId(0), last: false, returns: false };
    m.tell(0, Message::Commit(commit)).expect_idle();
    assert_eq!(m.machine.status().view, 1);
}

/// With two chunks in a ring, each worker is the root of one.
#[test]
fn in_a_ring_each_chunk_has_another_root() {
    let mut r = trace(Recipe::sync().with_topology(Topology::Ring).with_chunk(2), 0, 2);
    r.hello(1, 1).expect_event(joined(1, 1));
    r.tell(1, self::report(0, 0, false)).expect_transmit(1, Kind::View);
    r.tell(1, self::report(1, 0, false));
    r.expect_event(Event::View { number: 1, members: 2 }).expect_signal(Signal::Joined { clock: Clock(0) });
    expect_commit(&mut r, 1, 0b11, 0);
    r.step(1.0);
    // Of chunk 1 this node is not the root: it sends its part.
    let Message::Up(sent) = r.expect_transmit(1, Kind::Up) else { panic!("a part") };
    assert_eq!((sent.chunk, sent.weight), (1, 1));
    r.announce(1, up(1, 1), 2).receive(1, 3.0);
    // Of chunk 0 it is: the result is the mean of 1 and 3.
    let (op, message, body) = r.expect_sending(1, Kind::Down);
    assert_eq!((message, r.pool.floats(body.unwrap())), (down(1, 2), [2.0; 2].as_slice()));
    r.feed(Input::Completed { op, result: KernelResult::Nothing });
    r.announce(1, Message::Down(Part { chunk: 1, ..part(1, 2) }), 2).receive(1, 2.0);
    r.expect_ready(1).expect_view(-2.0).expect_idle();
}

/// A member of a collective with an outer optimizer, which has two vectors of its own.
fn stateful(me: u32) -> Trace {
    let cluster = Cluster { workers: 2, servers: 0 };
    let patience = Patience::new(Duration::from_secs(1));
    let outer = Outer::Adam { mu: 0.9, beta: 0.99, rate: 0.01, floor: 1e-3 };
    let recipe = chain().with_outer(outer);
    let setup = Setup { incarnation: OWN, patience, ..Setup::new(PeerId(me), cluster, recipe, &Layout::flat(LEN), 0) };
    trace_machine(Node::new(setup.clone()).unwrap(), setup)
}

/// A newcomer needs all of the donor's state: an outer optimizer without its momentum would go another way.
#[test]
fn a_newcomer_gets_the_vectors_of_the_commit_step_too() {
    let mut m = stateful(1);
    m.hello(0, 1).expect_event(joined(0, 1)).expect_report();
    m.commit(1, 2, 4, 0).expect_transmit(0, Kind::Fetch);
    let vector = |vector| Message::Parameters { view: Sequence(1), round: Clock(4), vector, riders: None };
    m.send(0, vector(0), 1.0).expect_idle().send(0, vector(1), 2.0).expect_idle().send(0, vector(2), 3.0);
    m.expect_signal(Signal::Joined { clock: Clock(4) }).expect_view(1.0);
    let saved: Vec<_> = m.machine.saved().into_iter().map(|saved| saved.save(&m.pool)).collect();
    assert_eq!(saved, [2.0f32, 3.0].map(|value| alloc::vec![value.to_bits(); LEN]));
    // A vector that comes twice, or that there is not, is refused.
    let mut m = stateful(1);
    m.hello(0, 1).expect_event(joined(0, 1)).expect_report();
    m.commit(1, 2, 4, 0).expect_transmit(0, Kind::Fetch);
    m.send(0, vector(0), 1.0).announce(0, vector(0), LEN);
    m.expect_close(0, ProtocolError::NoSuchShard { got: ShardId(0) }).expect_idle();
}

/// The run has gone on without this worker, while its application computes a gradient. The gradient is of a state that
/// is no more: it is dropped and counted, and the application is told at once.
#[test]
fn a_gradient_of_a_state_that_the_run_has_left_behind_is_dropped() {
    let mut m = trace(chain().with_payload(Payload::Gradients), 1, 2);
    m.hello(0, 1).expect_event(joined(0, 1)).expect_report();
    let state =
        |view, round| Message::Parameters { view: Sequence(view), round: Clock(round), vector: 0, riders: None };
    m.commit(1, 2, 0, 0).expect_transmit(0, Kind::Fetch);
    m.send(0, state(1, 0), 1.0).expect_signal(Signal::Joined { clock: Clock(0) });
    m.commit(2, 2, 4, 0).expect_transmit(0, Kind::Fetch);
    m.send(0, state(2, 4), 7.0).expect_idle();
    m.step(0.5).expect_ready(4).expect_view(7.0).expect_idle();
    assert_eq!((m.counters().lost, m.machine.adoption()), (1, Adoption::Told));
    // The next one is of the state that it has got.
    let part = Part { view: Sequence(2), ..part(5, 1) };
    let (_, message, _) = m.step(0.25).expect_sending(0, Kind::Up);
    assert_eq!((message, m.counters().lost, m.machine.adoption()), (Message::Up(part), 1, Adoption::None));
}

/// With gradients, the application makes the state of a round's mean. A peer that asks before that waits, and is
/// answered once.
#[test]
fn a_donor_answers_when_its_application_has_given_the_state() {
    let cluster = Cluster { workers: 2, servers: 0 };
    let (patience, recipe) = (Patience::new(Duration::from_secs(1)), chain().with_payload(Payload::Gradients));
    let setup = Setup::new(PeerId(0), cluster, recipe, &Layout::flat(LEN), 0);
    let setup = Setup { incarnation: OWN, patience, ..setup };
    let mut r = trace_machine(Node::new(setup.clone()).unwrap(), setup);
    r.hello(1, 1).expect_event(joined(1, 1)).tell(1, report(0, 0, false)).expect_transmit(1, Kind::View);
    r.tell(1, report(1, 0, false)).expect_event(Event::View { number: 1, members: 2 });
    r.expect_signal(Signal::Joined { clock: Clock(0) });
    expect_commit(&mut r, 1, 0b11, 0);
    r.step(1.0).send(1, up(1, 1), 3.0).expect_part(1, Kind::Down, 1, 2, 2.0).expect_ready(1).expect_view(2.0);
    for _ in 0..3 {
        r.tell(1, Message::FetchParameters { view: Sequence(1) }).expect_idle();
    }
    r.step(1.0);
    let state = Message::Parameters { view: Sequence(1), round: Clock(1), vector: 0, riders: None };
    assert_eq!(r.expect_transmit(1, Kind::State), state);
    r.expect_idle();
}

#[test]
fn a_donor_sends_every_vector_of_its_state() {
    let mut r = stateful(0);
    r.hello(1, 1).expect_event(joined(1, 1)).tell(1, report(0, 0, false)).expect_transmit(1, Kind::View);
    r.tell(1, report(1, 0, false)).expect_event(Event::View { number: 1, members: 2 });
    r.expect_signal(Signal::Joined { clock: Clock(0) });
    expect_commit(&mut r, 1, 0b11, 0);
    r.tell(1, Message::FetchParameters { view: Sequence(1) });
    for vector in 0..3 {
        let (view, round) = (Sequence(1), Clock(0));
        assert_eq!(r.expect_transmit(1, Kind::State), Message::Parameters { view, round, vector, riders: None });
    }
    r.expect_idle();
}

/// A coordinator that has started again hears of every worker that its members have lost.
#[test]
fn a_restarted_coordinator_is_told_who_is_lost() {
    let mut m = member(1, 3);
    m.disconnect(2).at(2000).feed(Input::Timeout);
    m.wants.clear();
    for incarnation in [1, 2] {
        m.disconnect(0).hello(0, incarnation);
        let is_told = |want: &Output| matches!(want, Output::Transmit { header, .. } if *header.message() == Message::Lost { first: PeerId(0), mask: 0b100 });
        assert_eq!(m.wants.iter().filter(|want| is_told(want)).count(), 1);
        m.wants.clear();
    }
}

/// The list of members comes again, from its start, when the connection broke before the commit.
#[test]
fn a_list_of_members_that_comes_twice_counts_once() {
    let mut m = member(1, 3);
    let (view, mask) = (Sequence(2), 0b11);
    m.tell(0, Message::Prepare { view }).expect_report();
    m.tell(0, Message::Members { view, first: PeerId(0), mask });
    m.disconnect(0).hello(0, 1);
    m.wants.clear();
    m.tell(0, Message::Members { view, first: PeerId(0), mask });
    let (round, donor) = (Clock(0), PeerId(0));
    m.tell(0, Message::Commit(Commit { view, round, donor, last: false, returns: false }));
    m.expect_event(Event::View { number: 2, members: 2 });
}

/// The vectors of a member: the contribution, and the parameters before and after the round. In a tree of gradients,
/// which can be given range by range, also the parts of each child.
#[test]
fn chunks_share_a_few_buffers() {
    let (len, chunk) = (8 << 20, 64 << 10);
    let bytes_of = |recipe: Recipe, topology, workers| {
        let cluster = Cluster { workers, servers: 0 };
        let recipe = recipe.with_topology(topology).with_chunk(chunk);
        let setup = Setup::new(PeerId(0), cluster, recipe, &Layout::flat(len), 0);
        Node::new(setup).unwrap().buffers().iter().sum::<usize>()
    };
    let (vector, inbox, rest) = (4 * len, 4 * chunk as usize, 128 << 10);
    let bytes = |topology, workers| bytes_of(Recipe::averaging(1), topology, workers);
    for workers in [2, 3, 8] {
        // Five chains of each member, at most.
        let most = 3 * vector + 5 * (2 * workers as usize - 1) * inbox + rest;
        let got = bytes(Topology::Ring, workers);
        assert!(got <= most, "{workers} workers: expected at most {most} bytes, got {got}");
    }
    for fan_in in [2, 4] {
        let topology = Topology::Tree { fan_in };
        let (got, most) = (bytes(topology, 3), 3 * vector + 5 * (2 + fan_in as usize) * inbox + rest);
        assert!((3 * vector..=most).contains(&got), "a tree: expected 3 vectors to {most} bytes, got {got}");
    }
    let got = bytes_of("gradients".parse().unwrap(), Topology::Tree { fan_in: 2 }, 3);
    // In addition, the state of the application and of a donor.
    assert!((7 * vector..8 * vector).contains(&got), "a tree of gradients: expected 7 vectors, got {got} bytes");
}

/// The same in a tree, whose chunks share as many inboxes as a window allows. A member above can add a body to a message
/// that has none, so that chains without examples count.
#[test]
fn a_leaf_of_a_tree_begins_a_chain_when_another_has_ended() {
    for weight in [0, 1] {
        let recipe = chain().with_chunk(1);
        let cluster = Cluster { workers: 2, servers: 0 };
        let (patience, layout) = (Patience::new(Duration::from_secs(1)), Layout::flat(16));
        let setup =
            Setup { incarnation: OWN, patience, under_way: 0, ..Setup::new(PeerId(1), cluster, recipe, &layout, 0) };
        let mut m = trace_machine(Node::new(setup.clone()).unwrap(), setup);
        m.hello(0, 1).expect_event(joined(0, 1)).expect_report();
        m.commit(1, 2, 0, 0).expect_transmit(0, Kind::Fetch);
        let parameters = Message::Parameters { view: Sequence(1), round: Clock(0), vector: 0, riders: None };
        m.announce(0, parameters, 16).receive(0, 1.0).expect_signal(Signal::Joined { clock: Clock(0) });
        m.feed(Input::Step { weight });
        for chunk in 0..4 {
            let Message::Up(sent) = m.expect_transmit(0, Kind::Up) else { panic!("a part") };
            assert_eq!((sent.chunk, sent.weight), (chunk, weight));
        }
        m.expect_idle();
        m.announce(0, Message::Down(Part { chunk: 2, ..part(1, 1) }), 1).receive(0, 1.0);
        let Message::Up(sent) = m.expect_transmit(0, Kind::Up) else { panic!("a part") };
        assert_eq!((sent.chunk, sent.weight), (4, weight));
        m.expect_idle();
    }
}

/// A member that is alone makes all chunks at once, and has few buffers for them.
#[test]
fn chunks_wait_for_a_buffer() {
    for topology in [Topology::Ring, Topology::Tree { fan_in: 1 }] {
        let recipe = Recipe::sync().with_topology(topology).with_chunk(1);
        let cluster = Cluster { workers: 1, servers: 0 };
        let setup = Setup { under_way: 0, ..Setup::new(PeerId(0), cluster, recipe, &Layout::flat(16), 0) };
        let mut r = trace_machine(Node::new(setup.clone()).unwrap(), setup);
        r.expect_event(Event::View { number: 1, members: 1 }).expect_signal(Signal::Joined { clock: Clock(0) });
        for round in 1..3 {
            r.feed(Input::Step { weight: 1 }).expect_signal(Signal::Ready { clock: Clock(round), changed: true });
        }
    }
}

/// A member begins few chains at once, also without examples, because the next member can add a body to a message of a
/// ring that has none.
#[test]
fn a_member_of_a_ring_begins_a_chain_when_another_has_ended() {
    for weight in [0, 1] {
        let recipe = Recipe::sync().with_topology(Topology::Ring).with_chunk(1);
        let cluster = Cluster { workers: 2, servers: 0 };
        let (patience, layout) = (Patience::new(Duration::from_secs(1)), Layout::flat(16));
        let setup =
            Setup { incarnation: OWN, patience, under_way: 0, ..Setup::new(PeerId(0), cluster, recipe, &layout, 0) };
        let mut r = trace_machine(Node::new(setup.clone()).unwrap(), setup);
        r.hello(1, 1).expect_event(joined(1, 1));
        r.tell(1, self::report(0, 0, false)).expect_transmit(1, Kind::View);
        r.tell(1, self::report(1, 0, false));
        r.expect_event(Event::View { number: 1, members: 2 }).expect_signal(Signal::Joined { clock: Clock(0) });
        expect_commit(&mut r, 1, 0b11, 0);
        r.feed(Input::Step { weight });
        // The other member is the root of the odd chunks.
        for chunk in [1, 3, 5] {
            let Message::Up(sent) = r.expect_transmit(1, Kind::Up) else { panic!("a part") };
            assert_eq!((sent.chunk, sent.weight), (chunk, weight));
            r.expect_idle();
            r.announce(1, Message::Down(Part { chunk, ..part(1, weight) }), weight as usize);
            if weight > 0 {
                r.receive(1, 1.0);
            }
        }
    }
}
