//! Rounds of a server that wait for the first contributions only, input by input.

use super::server::server;
use super::*;
use crate::recipe::{Codec, Topology};
use crate::status::Counters;

fn recipe(pace: &str) -> Recipe {
    alloc::format!("hardsync pace=first {pace}").parse().unwrap()
}

/// A server of `workers` workers that have all been welcomed.
fn first(pace: &str, workers: u32) -> Trace {
    server(recipe(pace), workers)
}

impl Trace {
    /// Applied, late, deferred, duplicates.
    #[track_caller]
    fn expect_counts(&mut self, applied: u64, late: u64, deferred: u64, duplicates: u64) -> &mut Self {
        let Counters { applied: a, late: l, deferred: d, duplicates: dup, .. } = self.counters();
        assert_eq!([a, l, d, dup], [applied, late, deferred, duplicates]);
        self
    }

    /// The machine has given the hint that worker 1 is always late.
    fn hinted(&mut self) -> bool {
        let hint = Event::Hint(crate::recipe::Hint::AlwaysLate { worker: PeerId(1), contributions: 16 });
        let at = self.wants.iter().position(|want| matches!(want, Output::Event(event) if *event == hint));
        at.is_some_and(|at| self.wants.remove(at).is_some())
    }

    /// Any reports of a stall.
    fn stalled(&mut self) -> &mut Self {
        self.wants.retain(|want| match want {
            Output::Transmit { header, .. } => header.kind() != Kind::Awaits,
            want => !matches!(want, Output::Event(Event::Stalled { .. })),
        });
        self
    }

    /// A push of process 1. Its body has arrived, and is being scanned.
    fn push_to_scan(&mut self, worker: u32, sequence: u64, base: u64) -> OpId {
        let (op, _) = self.push_header(worker, sequence, base).unwrap();
        self.machine.handle_input(self.now, Input::Completed { op, result: KernelResult::Nothing }).unwrap();
        self.compute()
    }

    /// The kernel that the machine asks for, which is left to the test.
    fn compute(&mut self) -> OpId {
        match self.machine.poll_output() {
            Output::Compute { op, .. } => op,
            output => panic!("{output:?}"),
        }
    }

    /// A scan ends, and the machine begins to merge.
    fn scanned(&mut self, op: OpId) -> OpId {
        self.machine.handle_input(self.now, Input::Completed { op, result: KernelResult::Finite }).unwrap();
        self.compute()
    }

    /// The header of a push, whose body stays with its sender. The machine begins to read it.
    fn push_header(&mut self, worker: u32, sequence: u64, base: u64) -> Option<(OpId, Option<Segment>)> {
        self.announce(worker, Message::Push(push_message(worker, 1, sequence, base)), LEN).take_receive(worker)
    }

    fn complete(&mut self, (op, into): (OpId, Option<Segment>), value: f32) -> &mut Self {
        into.into_iter().for_each(|into| self.pool.floats_mut(into).fill(value));
        self.feed(Input::Completed { op, result: KernelResult::Nothing })
    }
}

/// Chen et al. 2016, section 3.2: a round takes the first contributions, and drops the rest.
#[test]
fn a_round_takes_the_first_contributions_and_drops_the_rest() {
    let mut s = first("count=2", 3);
    s.push(2, 1, 0, 3.0).expect_idle();
    s.push(0, 1, 0, 1.0).expect_params(0, 1, 1, 1).expect_params(2, 1, 1, 1).expect_view(-2.0);
    // The late one goes on with the parameters of the round that is open, and can be in time for it.
    s.push(1, 1, 0, 9.0).expect_params(1, 1, 1, 1).expect_view(-2.0).expect_counts(2, 1, 0, 0);
    s.push(1, 2, 1, 1.0).push(2, 2, 1, 1.0).expect_params(1, 2, 2, 2).expect_params(2, 2, 2, 2).expect_view(-3.0);
    // Two rounds behind.
    s.push(1, 3, 2, 0.0).push(2, 3, 2, 0.0).expect_params(1, 3, 3, 3).expect_params(2, 3, 3, 3);
    s.push(0, 2, 1, 9.0).expect_params(0, 2, 3, 3).expect_view(-3.0).expect_counts(6, 2, 0, 0).expect_idle();
    assert_eq!(s.machine.status().staleness.max(), 0);
}

/// A round merges in rank order, so its result does not depend on the order in which the same contributions come.
#[test]
fn a_round_is_merged_in_rank_order() {
    let view = |order: [u32; 3]| {
        let mut s = first("count=3", 4);
        for worker in order {
            s.push(worker, 1, 0, [0.1, 1e7, 0.3, 0.7][worker as usize]);
        }
        let view = Segment::floats(s.machine.view(), 0, LEN);
        s.pool.floats(view)[0].to_bits()
    };
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    assert_eq!(orders.map(view), [view([0, 1, 2]); 6]);
}

/// The grace begins with the last of the first contributions, and is not prolonged by more.
#[test]
fn a_round_waits_for_a_grace_and_no_longer() {
    let mut s = first("count=2 grace=200ms", 4);
    s.at(10).push(3, 1, 0, 1.0).at(50).push(0, 1, 0, 1.0).expect_idle();
    assert_eq!(s.until(), Some(Instant::from_nanos(250_000_000)));
    s.at(240).push(1, 1, 0, 1.0).expect_idle();
    s.at(249).feed(Input::Timeout).expect_idle();
    s.at(250).feed(Input::Timeout);
    s.expect_params(0, 1, 1, 1).expect_params(1, 1, 1, 1).expect_params(3, 1, 1, 1).expect_idle();
    // A deadline that has fired is gone.
    assert!(s.until().is_none_or(|until| until > Instant::from_nanos(251_000_000)));
    s.push(2, 1, 0, 9.0).expect_params(2, 1, 1, 1).expect_view(-1.0);
    // If all are there, nothing is waited for.
    for worker in [2, 1, 3] {
        let sequence = 2;
        s.at(300).push(worker, sequence, 1, 1.0).expect_idle();
    }
    s.push(0, 2, 1, 1.0);
    for worker in 0..4 {
        s.expect_params(worker, 2, 2, 2);
    }
    s.expect_counts(7, 1, 0, 0).expect_idle();
}

/// An adaptive grace waits for the workers that are expected before the cap, until they should be here.
#[test]
fn an_adaptive_grace_waits_for_the_workers_that_are_expected() {
    let mut s = first("count=2 cap=100ms", 4);
    let until = |ms: f64| Some(Instant::from_nanos((ms * 1e6) as u64));
    // Nothing is known of 2 and 3: the cap.
    s.at(10).push(0, 1, 0, 1.0).at(20).push(1, 1, 0, 1.0).expect_idle();
    assert_eq!(s.until(), until(120.0));
    s.at(50).push(2, 1, 0, 1.0).expect_idle();
    assert_eq!(s.until(), until(120.0));
    s.at(120).feed(Input::Timeout);
    s.expect_params(0, 1, 1, 1).expect_params(1, 1, 1, 1).expect_params(2, 1, 1, 1).expect_idle();
    // 2 took 50 ms, so it is expected at 170, and twice 25 ms later at the latest. 3 is a round behind.
    s.at(130).push(0, 2, 1, 1.0).at(140).push(1, 2, 1, 1.0).expect_idle();
    assert_eq!(s.until(), until(220.0));
    s.at(170).push(2, 2, 1, 1.0);
    s.expect_params(0, 2, 2, 2).expect_params(1, 2, 2, 2).expect_params(2, 2, 2, 2).expect_idle();
    // The deviation of 2 is three quarters of 25 ms now.
    s.at(180).push(0, 3, 2, 1.0).at(190).push(1, 3, 2, 1.0).expect_idle();
    assert_eq!(s.until(), until(257.5));
    s.at(258).feed(Input::Timeout).expect_params(0, 3, 3, 3).expect_params(1, 3, 3, 3).expect_idle();
    // It took 130 ms, and goes on at 300.
    s.at(300).push(2, 3, 2, 9.0).expect_params(2, 3, 3, 3);
    s.at(310).push(0, 4, 3, 1.0).at(320).push(1, 4, 3, 1.0).expect_idle();
    assert_eq!(s.until(), until(420.0));
    s.at(420).feed(Input::Timeout).expect_params(0, 4, 4, 4).expect_params(1, 4, 4, 4).expect_idle();
    // 3 computes a contribution to this round, and takes too long. 2 is a round behind.
    s.at(425).push(3, 1, 0, 9.0).expect_params(3, 1, 4, 4);
    s.at(430).push(0, 5, 4, 1.0).push(1, 5, 4, 1.0).expect_params(0, 5, 5, 5).expect_params(1, 5, 5, 5).expect_idle();
}

/// A contribution is in time if its body is here: a slow connection holds up no round.
#[test]
fn a_body_that_is_under_way_when_its_round_closes_is_late() {
    let mut s = first("count=2", 3);
    let receive = s.push_header(0, 1, 0).unwrap();
    s.push(1, 1, 0, 1.0).push(2, 1, 0, 1.0).expect_params(1, 1, 1, 1).expect_params(2, 1, 1, 1).expect_idle();
    s.complete(receive, 9.0).expect_params(0, 1, 1, 1).expect_view(-1.0).expect_counts(2, 1, 0, 0).expect_idle();
}

/// A contribution that comes while a round is being merged is late, and is answered with the result.
#[test]
fn a_contribution_to_a_closed_round_waits_for_the_next_version() {
    let mut s = first("count=1 late=drop", 2);
    let scan = s.push_to_scan(0, 1, 0);
    let merge = s.scanned(scan);
    assert_eq!(s.push_header(1, 1, 0), None, "it is held");
    s.feed(Input::Completed { op: merge, result: KernelResult::Nothing });
    s.receive(1, 9.0).expect_params(0, 1, 1, 1).expect_params(1, 1, 1, 1).expect_counts(1, 1, 0, 0).expect_idle();
}

/// A welcome that got lost is not said again with the parameters of a round that is closed.
#[test]
fn a_closed_round_welcomes_nobody() {
    let mut s = first("count=1", 2);
    s.push(0, 1, 0, 1.0).expect_params(0, 1, 1, 1).push(1, 1, 0, 9.0);
    let (op, ..) = s.expect_sending(1, Kind::Params);
    s.disconnect(1).feed(Input::Aborted { op }).expect_idle();
    let scan = s.push_to_scan(0, 2, 1);
    let merge = s.scanned(scan);
    s.hello(1, 1).expect_idle();
    s.feed(Input::Completed { op: merge, result: KernelResult::Nothing });
    s.expect_params(0, 2, 2, 2).expect_params(1, 1, 2, 2).expect_idle();
}

/// With fewer members than the count, a round waits for all of them.
#[test]
fn the_count_is_at_most_the_number_of_members() {
    let mut s = first("count=3", 4);
    s.at(10).disconnect(3).push(0, 1, 0, 1.0).push(1, 1, 0, 1.0).expect_idle();
    s.at(1010).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(3) }).expect_idle();
    s.push(2, 1, 0, 1.0);
    for worker in 0..3 {
        s.expect_params(worker, 1, 1, 1);
    }
    s.at(1020).disconnect(2).push(0, 2, 1, 1.0).push(1, 2, 1, 1.0).expect_idle();
    s.at(2020).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(2) });
    s.expect_params(0, 2, 2, 2).expect_params(1, 2, 2, 2).expect_idle();
    // Members that leave are not waited for either.
    s.push(0, 3, 2, 1.0).expect_idle();
    s.tell(
        1,
        Message::Leave(crate::wire::Leave {
            origin: PeerId(1),
            incarnation: Incarnation(1),
            last: Sequence(2),
            stays: true,
        }),
    );
    s.expect_params(0, 3, 3, 3).expect_idle();
}

/// A worker that was late in a round may wait at another shard until the members that are left have gone on here. A round
/// that waits for such members alone does so for a limited time, and gives them the parameters of the next one.
#[test]
fn a_round_does_not_wait_for_ever_for_a_member_that_was_late_in_it() {
    let mut s = first("count=2", 3);
    s.push(0, 1, 0, 1.0).push(1, 1, 0, 1.0).expect_params(0, 1, 1, 1).expect_params(1, 1, 1, 1);
    s.push(2, 1, 0, 9.0).expect_params(2, 1, 1, 1);
    let leave = crate::wire::Leave { origin: PeerId(1), incarnation: Incarnation(1), last: Sequence(1), stays: true };
    s.tell(1, Message::Leave(leave)).expect_idle();
    s.at(100).push(0, 2, 1, 1.0).expect_idle();
    s.at(2099).feed(Input::Timeout).stalled().expect_idle();
    s.at(2100).feed(Input::Timeout).stalled();
    s.expect_params(0, 2, 2, 2).expect_params(2, 1, 2, 2).expect_idle();
    // It had begun before, and is late again. The next round waits for twice as long.
    s.push(2, 2, 1, 9.0).expect_params(2, 2, 2, 2).expect_counts(3, 2, 0, 0);
    s.at(3000).push(0, 3, 2, 1.0).at(6900).push(2, 3, 2, 1.0);
    s.stalled();
    s.expect_params(0, 3, 3, 3).expect_params(2, 3, 3, 3).expect_idle();
    // It was in time, so it is not excused any more.
    s.at(7000).push(0, 4, 3, 1.0).at(20_000).feed(Input::Timeout);
    s.stalled();
    s.expect_idle().push(2, 4, 3, 1.0).expect_params(0, 4, 4, 4).expect_params(2, 4, 4, 4).expect_idle();
}

/// A worker that has entered may wait at another shard for its next round.
#[test]
fn a_round_does_not_wait_for_ever_for_a_newcomer() {
    let mut s = first("count=n", 3);
    s.at(10).disconnect(2).push(0, 1, 0, 1.0).expect_idle();
    s.at(1010).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(2) }).expect_idle();
    s.hello(2, 2).expect_event(joined(2, 2)).expect_params(2, 0, 0, 0);
    s.push(1, 1, 0, 1.0).expect_idle();
    s.at(3009).feed(Input::Timeout).stalled().expect_idle();
    s.at(3010).feed(Input::Timeout).stalled();
    s.expect_params(0, 1, 1, 1).expect_params(1, 1, 1, 1).expect_params(2, 0, 1, 1).expect_idle();
    s.push(0, 2, 1, 1.0).push(1, 2, 1, 1.0).push_of(2, 2, 1, 1, 1.0);
    for (worker, sequence) in [(0, 2), (1, 2), (2, 1)] {
        s.expect_params(worker, sequence, 2, 2);
    }
    s.expect_idle();
}

/// A refused contribution does not count among the first, and its worker is not waited for.
#[test]
fn a_refused_contribution_is_none_of_the_first() {
    let mut s = first("count=2", 3);
    s.push(0, 1, 0, f32::NAN).push(1, 1, 0, 1.0);
    let rejected = |want: &Output| matches!(want, Output::Event(Event::Rejected { peer: PeerId(0), .. }));
    assert!(rejected(&s.wants.pop_front().unwrap()));
    s.expect_idle();
    s.push(2, 1, 0, 1.0);
    for worker in 0..3 {
        s.expect_params(worker, 1, 1, 1);
    }
    // If all other contributions are refused, one ends the round.
    s.push(0, 2, 1, f32::NAN).push(1, 2, 1, f32::NAN);
    s.wants.clear();
    s.push(2, 2, 1, 1.0);
    for worker in 0..3 {
        s.expect_params(worker, 2, 2, 2);
    }
    s.expect_view(-2.0).expect_idle();
}

/// A worker that is always late contributes nothing: a hint says so, once.
#[test]
fn a_worker_that_is_always_late_is_named_once() {
    let mut s = first("count=1", 2);
    let late = |s: &mut Trace, rounds: core::ops::RangeInclusive<u64>| {
        for round in rounds {
            s.push(0, round, round - 1, 0.0).expect_params(0, round, round, round).push(1, round, round - 1, 9.0);
            if s.hinted() {
                return Some(round);
            }
            s.expect_params(1, round, round, round);
        }
        None
    };
    assert_eq!(late(&mut s, 1..=15), None);
    // In time once.
    s.push(1, 16, 15, 0.0).expect_params(1, 16, 16, 16).push(0, 16, 15, 9.0).expect_params(0, 16, 16, 16);
    assert_eq!(late(&mut s, 17..=40), Some(32));
    s.expect_params(1, 32, 32, 32);
    assert_eq!(late(&mut s, 33..=80), None);
    s.expect_idle();
    // Late contributions that are kept are no loss.
    let mut s = first("count=1 late=next", 2);
    assert_eq!(late(&mut s, 1..=40), None);
}

/// A worker that is in time at one shard has a part in the result.
#[test]
fn a_worker_that_is_late_at_one_of_two_shards_is_not_named() {
    let mut s = trace(recipe("count=1").with_topology(Topology::Servers { shards: 2 }), 2, 2);
    for worker in 0..2 {
        s.hello(worker, 1).expect_event(joined(worker, 1));
    }
    let params = |s: &mut Trace, to: u32| {
        let (op, ..) = s.expect_sending(to, Kind::Params);
        s.feed(Input::Completed { op, result: KernelResult::Nothing });
    };
    [0, 1, 0, 1].into_iter().for_each(|worker| params(&mut s, worker));
    for round in 0..20 {
        for (shard, first) in [(0, 0), (1, 1)] {
            for worker in [first, 1 - first] {
                let push = Push { shard: ShardId(shard), ..push_message(worker, 1, round + 1, round) };
                s.announce(worker, Message::Push(push), LEN / 2).receive(worker, 0.0);
                params(&mut s, worker);
            }
        }
    }
    s.expect_counts(40, 40, 0, 0).expect_idle();
}

/// A process that is started again takes part in the next round, if its rank has contributed to the open one.
#[test]
fn a_rank_contributes_once_to_a_round() {
    let mut s = first("count=2", 3);
    s.push(0, 1, 0, 1.0).expect_idle();
    s.disconnect(0).hello(0, 2).expect_event(joined(0, 2)).expect_idle();
    s.push(1, 1, 0, 3.0).expect_params(0, 0, 1, 1).expect_params(1, 1, 1, 1).expect_view(-2.0);
    s.push_of(0, 2, 1, 1, 1.0).push(2, 1, 0, 9.0).expect_params(2, 1, 1, 1);
    s.push(2, 2, 1, 1.0).expect_params(0, 1, 2, 2).expect_params(2, 2, 2, 2).expect_view(-3.0);
    s.expect_counts(4, 1, 0, 0).expect_idle();
    // One that sends a second contribution from the same version has to wait with it.
    s.push(2, 3, 2, 1.0);
    assert_eq!(s.push_header(2, 4, 2), None);
    s.expect_idle();
}

/// A contribution of an earlier process of a worker is dropped.
#[test]
fn a_contribution_of_an_earlier_process_is_dropped() {
    let mut s = first("count=2", 3);
    let scan = s.push_to_scan(0, 1, 0);
    s.disconnect(0).hello(0, 2).expect_event(joined(0, 2)).expect_params(0, 0, 0, 0);
    s.push_of(0, 2, 1, 0, 1.0).expect_idle();
    s.feed(Input::Completed { op: scan, result: KernelResult::Finite }).expect_counts(0, 1, 0, 0);
    s.receive(0, 1.0).expect_idle();
    s.push(1, 1, 0, 3.0).expect_params(0, 1, 1, 1).expect_params(1, 1, 1, 1).expect_view(-2.0).expect_idle();
}

/// A contribution that waits for its round when its worker is given up is merged once, though the worker sends it again.
#[test]
fn a_worker_that_was_given_up_contributes_once() {
    let mut s = first("count=2", 3);
    s.at(10).push(0, 1, 0, 1.0).disconnect(0);
    s.at(1010).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(0) }).expect_idle();
    s.at(1020).hello(0, 1).expect_event(joined(0, 1)).expect_idle();
    s.push(0, 1, 0, 1.0).expect_idle();
    s.push(1, 1, 0, 3.0).expect_params(0, 1, 1, 1).expect_params(1, 1, 1, 1).expect_view(-2.0);
    // It comes back when its round is over.
    s.push(0, 2, 1, 1.0).disconnect(0);
    s.at(2020).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(0) });
    s.push(1, 2, 1, 1.0).expect_params(1, 2, 2, 2);
    s.hello(0, 1).expect_event(joined(0, 1)).expect_params(0, 2, 2, 2);
    s.push(0, 2, 1, 1.0).expect_params(0, 2, 2, 2).expect_counts(4, 0, 0, 2).expect_view(-3.0).expect_idle();
}

/// A round does not wait for a worker that is rounds behind, unless the round needs all.
#[test]
fn a_round_names_the_member_that_it_can_expect_next() {
    let mut s = first("count=3", 4);
    for round in 0..3 {
        for worker in [0, 1, 3] {
            s.push(worker, round + 1, round, 0.0);
        }
        for worker in [0, 1, 3] {
            s.expect_params(worker, round + 1, round + 1, round + 1);
        }
    }
    s.expect_idle().expect_waiting(None);
    s.push(3, 4, 3, 0.0).push(1, 4, 3, 0.0).expect_waiting(Some(0));
    let awaited = s.machine.waiting().map(|waiting| (waiting.at, waiting.clock));
    assert_eq!(awaited, Some((Clock(3), Clock(4))));
    s.push(0, 4, 3, 0.0).expect_waiting(None);
    let mut s = first("count=n", 3);
    s.push(2, 1, 0, 0.0).expect_waiting(Some(0));
    s.push(0, 1, 0, 0.0).expect_waiting(Some(1));
}

/// Each shard has its own first.
#[test]
fn a_worker_can_be_in_time_at_one_shard_and_late_at_another() {
    let mut s = trace(recipe("count=2").with_topology(Topology::Servers { shards: 2 }), 3, 3);
    for worker in 0..3 {
        s.hello(worker, 1).expect_event(joined(worker, 1));
    }
    let params = |s: &mut Trace, to: u32, shard: u32, sequence, version, value: f32| {
        let (op, message, body) = s.expect_sending(to, Kind::Params);
        assert_eq!(s.pool.floats(body.unwrap()), [value; LEN / 2]);
        s.feed(Input::Completed { op, result: KernelResult::Nothing });
        let Message::Params(reply) = message else { panic!("{message:?}") };
        assert_eq!((reply.shard.0, reply.sequence.0, reply.version.0), (shard, sequence, version), "{message:?}");
    };
    for (worker, shard) in [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)] {
        params(&mut s, worker, shard, 0, 0, 0.0);
    }
    let push = |s: &mut Trace, worker: u32, shard: u32, value| {
        let message = Message::Push(Push { shard: ShardId(shard), ..push_message(worker, 1, 1, 0) });
        s.announce(worker, message, LEN / 2).receive(worker, value);
    };
    push(&mut s, 0, 0, 1.0);
    push(&mut s, 1, 0, 1.0);
    params(&mut s, 0, 0, 1, 1, -1.0);
    params(&mut s, 1, 0, 1, 1, -1.0);
    push(&mut s, 2, 0, 9.0);
    params(&mut s, 2, 0, 1, 1, -1.0);
    push(&mut s, 2, 1, 3.0);
    s.expect_idle();
    push(&mut s, 1, 1, 3.0);
    params(&mut s, 1, 1, 1, 1, -3.0);
    params(&mut s, 2, 1, 1, 1, -3.0);
    push(&mut s, 0, 1, 9.0);
    params(&mut s, 0, 1, 1, 1, -3.0);
    s.expect_counts(4, 2, 0, 0).expect_idle();
}

/// With `late=next`, a late contribution is in the next round, its worker goes on at once, and the round waits for as
/// many other contributions as ever.
#[test]
fn a_late_contribution_joins_the_next_round() {
    let mut s = first("count=2 late=next", 3);
    s.push(0, 1, 0, 1.0).push(2, 1, 0, 1.0).expect_params(0, 1, 1, 1).expect_params(2, 1, 1, 1).expect_view(-1.0);
    s.push(1, 1, 0, 7.0).expect_params(1, 1, 1, 1).expect_counts(2, 0, 1, 0);
    // Its worker can contribute to the same round from the present version.
    s.push(1, 2, 1, 1.0).expect_idle();
    s.push(0, 2, 1, 1.0).expect_params(0, 2, 2, 2).expect_params(1, 2, 2, 2).expect_view(-4.0);
    let staleness = s.machine.status().staleness;
    assert_eq!((staleness.max(), staleness.sum(), staleness.count()), (1, 1, 5));
    // Two rounds late, and sent again.
    s.push(0, 3, 2, 0.0).push(1, 3, 2, 0.0).expect_params(0, 3, 3, 3).expect_params(1, 3, 3, 3);
    s.push(2, 2, 1, 6.0).expect_params(2, 2, 3, 3).expect_idle();
    s.disconnect(2).hello(2, 1).push(2, 2, 1, 6.0).expect_params(2, 2, 3, 3);
    s.push(0, 4, 3, 0.0).push(1, 4, 3, 0.0).expect_params(0, 4, 4, 4).expect_params(1, 4, 4, 4);
    s.expect_view(-6.0).expect_counts(10, 0, 2, 1).expect_idle();
}

/// A worker has one vote in a round, also if its late contribution joins it: the mean of its two.
#[test]
fn a_late_contribution_is_no_second_vote() {
    let mut s = first("count=3 late=next merge=median", 4);
    for worker in 0..3 {
        s.push(worker, 1, 0, 1.0);
    }
    for worker in 0..3 {
        s.expect_params(worker, 1, 1, 1);
    }
    s.push(3, 1, 0, 9.0).expect_params(3, 1, 1, 1).expect_view(-1.0).expect_counts(3, 0, 1, 0);
    // The median of 1, 2 and (9 + 9) / 2; of 1, 2, 9 and 9 it would be 5.5.
    s.push(3, 2, 1, 9.0).push(0, 2, 1, 1.0).push(1, 2, 1, 2.0).expect_view(-3.0);
    // The median of 1 and (9 + 0) / 2.
    let mut s = first("count=2 late=next merge=median", 3);
    s.push(0, 1, 0, 1.0).push(1, 1, 0, 1.0).expect_params(0, 1, 1, 1).expect_params(1, 1, 1, 1);
    s.push(2, 1, 0, 9.0).expect_params(2, 1, 1, 1).push(2, 2, 1, 0.0).push(0, 2, 1, 1.0);
    s.expect_view(-1.0 - 2.75).expect_counts(5, 0, 1, 0);
}

/// The last contributions of a run that are late are in its parameters.
#[test]
fn late_contributions_are_merged_at_the_end() {
    let mut s = first("count=1 late=next", 2);
    s.push(0, 1, 0, 1.0).expect_params(0, 1, 1, 1);
    let leave = |worker, stays| {
        let (origin, incarnation) = (PeerId(worker), Incarnation(1));
        Message::Leave(crate::wire::Leave { origin, incarnation, last: Sequence(1), stays })
    };
    s.tell(0, leave(0, true)).push(1, 1, 0, 3.0).expect_params(1, 1, 1, 1).expect_view(-1.0);
    s.tell(1, leave(1, true)).expect_params(0, 1, 2, 2).expect_params(1, 1, 2, 2).expect_view(-4.0);
}

/// Encoded contributions without examples have no body. They count among the first.
#[test]
fn contributions_without_a_body_end_a_round() {
    let mut s = server(recipe("count=2").with_codec(Codec::Bf16), 3);
    for worker in [2, 0] {
        s.tell(worker, Message::Push(Push { weight: 0, ..push_message(worker, 1, 1, 0) }));
    }
    s.expect_params(0, 1, 1, 1).expect_params(2, 1, 1, 1).expect_view(0.0).expect_idle();
    assert_eq!(s.counters().empty, 2);
}
