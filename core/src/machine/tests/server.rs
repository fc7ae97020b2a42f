//! The server, input by input.

use alloc::string::ToString;

use super::*;
use crate::recipe::{Codec, Mu, Outer, Staleness, TopK, Topology, VelocityScale};
use crate::status::Presence;
use crate::wire::{Leave, Offer};

/// A server (rank `workers`). All of its workers have joined and been welcomed.
pub(super) fn server(recipe: Recipe, workers: u32) -> Trace {
    let mut server = trace(recipe, workers, workers);
    for worker in 0..workers {
        server.hello(worker, 1).expect_event(joined(worker, 1));
    }
    for worker in 0..workers {
        server.expect_params(worker, 0, 0, 0);
    }
    server.expect_idle();
    server
}

#[test]
fn a_server_starts_when_all_workers_are_there() {
    let mut s = trace(Recipe::asynchronous().with_lambda(1.0), 2, 2);
    s.at(1).hello(0, 1).expect_event(joined(0, 1));
    s.expect_idle();
    s.expect_waiting(Some(1));
    // A wait that lasts is reported, and the nodes that wait for this one are told which node it waits for.
    s.at(2000).feed(Input::Timeout).expect_event(Event::Stalled {
        on: PeerId(1),
        at: Clock(0),
        since: Instant::ORIGIN,
    });
    let awaits = Message::Awaits { on: PeerId(1), at: Clock(0), silent_ms: 0 };
    assert_eq!(s.expect_transmit(0, Kind::Awaits), awaits);
    s.at(2100).hello(1, 1).expect_event(joined(1, 1));
    s.expect_params(0, 0, 0, 0).expect_params(1, 0, 0, 0).expect_idle();
}

#[test]
fn asynchronous_pushes_are_answered_at_once() {
    let mut s = server(Recipe::asynchronous().with_lambda(1.0), 2);
    s.at(5).push(1, 1, 0, 0.5).expect_params(1, 1, 1, 0).expect_idle();
    s.at(6).push(0, 1, 0, 0.25).expect_params(0, 1, 2, 1).expect_idle();
    let staleness = s.machine.status().staleness;
    assert_eq!((staleness.sum(), staleness.count()), (1, 2));
}

/// Zhang et al. 2016, section 3: two updates make one application.
#[test]
fn softsync_applies_every_second_push() {
    let mut s = server(Recipe::softsync(2).with_staleness(Staleness::constant()), 3);
    s.push(2, 1, 0, 1.0).expect_params(2, 1, 0, 0);
    s.push(0, 1, 0, 1.0).expect_params(0, 1, 1, 0);
    s.push(1, 1, 0, 1.0).expect_params(1, 1, 1, 1).expect_idle();
    assert_eq!((s.counters().applications, s.counters().applied), (1, 3));
}

/// Ho et al. 2013, section 3: a worker one beyond the bound waits for the slowest, and for no other worker.
#[test]
fn a_worker_beyond_the_bound_waits_for_the_slowest() {
    let mut s = server(Recipe::ssp(1).with_lambda(1.0), 2);
    s.push(0, 1, 0, 0.0).expect_params(0, 1, 1, 0);
    s.push(0, 2, 1, 0.0).expect_idle();
    assert_eq!(s.machine.waiting().map(|waiting| (waiting.on, waiting.at)), Some((PeerId(1), Clock(0))));
    s.push(1, 1, 0, 0.0).expect_params(0, 2, 3, 1).expect_params(1, 1, 3, 1).expect_idle();
}

#[test]
fn a_lost_worker_holds_nobody_back() {
    let mut s = server(Recipe::ssp(0).with_lambda(1.0), 2);
    s.at(10).push(0, 1, 0, 0.0).expect_idle();
    s.at(20).disconnect(1).expect_idle();
    s.at(1019).feed(Input::Timeout).expect_idle();
    s.at(1020).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(1) });
    s.expect_params(0, 1, 1, 1).expect_idle();
    assert_eq!(s.machine.status().workers[1].state, Presence::Lost);
    // It comes back, anew, at the clock of the other workers.
    s.at(2000).hello(1, 2).expect_event(joined(1, 2));
    s.expect_params(1, 0, 1, 1);
    s.push_of(1, 2, 1, 1, 0.0).expect_idle();
    s.push(0, 2, 1, 0.0).receive(1, 0.0).expect_params(0, 2, 2, 2).expect_params(1, 1, 2, 2).expect_idle();
}

/// A worker that was given up enters at the clock of the others. A welcome that got lost with its connection is said with the
/// next answer: else the worker would count clocks from where it was, and wait for more than the server knows of.
#[test]
fn a_welcome_that_got_lost_is_said_with_the_next_answer() {
    let mut s = server(Recipe::ssp(2).with_lambda(1.0), 2);
    s.push(1, 1, 0, 0.0).expect_params(1, 1, 1, 0);
    s.at(20).disconnect(1).at(1020).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(1) });
    s.at(1100).hello(1, 1).expect_event(joined(1, 1)).expect_params(1, 1, 1, 0);
    s.at(1110).disconnect(1).at(1120).hello(1, 1).expect_idle();
    let occasions = [(2, 1), (3, 2)].map(|(sequence, base)| {
        s.push(1, sequence, base, 0.0);
        let Message::Params(reply) = s.expect_transmit(1, Kind::Params) else { panic!() };
        s.expect_idle();
        reply.occasion
    });
    assert_eq!(occasions, [Occasion::Welcome { lead: 1 }, Occasion::Answer { reference: None }]);
}

#[test]
fn a_short_break_is_forgiven() {
    let mut s = server(Recipe::ssp(0).with_lambda(1.0), 2);
    // Its welcome may have got lost with the connection: it is said again.
    s.at(10).disconnect(1).at(900).hello(1, 1).expect_params(1, 0, 0, 0).expect_idle();
    s.at(901).push(0, 1, 0, 0.0).expect_idle();
    s.push(1, 1, 0, 0.0).expect_params(0, 1, 1, 1).expect_params(1, 1, 1, 1).expect_idle();
    assert_eq!(s.counters().reconnects, 1);
}

/// Dean et al. 2012, section 4.1: the other workers begin when the starters have pushed so often, at the clock of the
/// slowest.
#[test]
fn the_other_workers_begin_after_the_head_start() {
    let start = |text: &str| {
        let mut s = trace(text.parse().unwrap(), 3, 3);
        for worker in 0..3 {
            s.hello(worker, 1).expect_event(joined(worker, 1));
        }
        s.expect_params(0, 0, 0, 0).expect_idle();
        s
    };
    let mut s = start("async lambda=1 starters=1 head_start=2");
    // The starter is the one that the others wait for.
    s.expect_waiting(Some(0));
    // A worker that comes again has no welcome that could have got lost.
    s.at(10).disconnect(1).at(20).hello(1, 1).expect_idle();
    s.push(0, 1, 0, 1.0).expect_params(0, 1, 1, 1).expect_idle();
    s.push(0, 2, 1, 1.0).expect_params(0, 2, 2, 2);
    s.expect_params(1, 0, 2, 2).expect_params(2, 0, 2, 2).expect_idle();
    s.push(1, 1, 2, 1.0).expect_params(1, 1, 3, 2).expect_idle();
    s.expect_waiting(None);

    // A starter that ends or is lost lets the others begin.
    let mut s = start("async starters=1 head_start=9");
    let leave = Leave { origin: PeerId(0), incarnation: Incarnation(1), last: Sequence(0), stays: true };
    s.tell(0, Message::Leave(leave)).expect_params(1, 0, 0, 0).expect_params(2, 0, 0, 0).expect_idle();
    let mut s = start("async starters=1 head_start=9");
    s.at(20).disconnect(0).expect_idle();
    s.at(1020).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(0) });
    s.expect_params(1, 0, 0, 0).expect_params(2, 0, 0, 0).expect_idle();
    // It comes back as any worker.
    s.at(2000).hello(0, 2).expect_event(joined(0, 2)).expect_params(0, 0, 0, 0).expect_idle();
}

/// Contributions of a round are taken in rank order, not in the order of arrival.
#[test]
fn a_round_is_taken_in_rank_order() {
    let recipe = Recipe::sync().with_topology(Topology::Servers { shards: 1 });
    let mut s = server(recipe, 3);
    s.push(2, 1, 0, 3.0).expect_idle();
    s.push(1, 1, 0, 2.0).expect_idle();
    s.push(0, 1, 0, 1.0);
    s.receive(1, 2.0).receive(2, 3.0);
    s.expect_params(0, 1, 1, 1).expect_params(1, 1, 1, 1).expect_params(2, 1, 1, 1).expect_idle();
}

/// DyLU: each answer tells the time of a step at the 90th percentile of the speeds of the workers that take part.
#[test]
fn answers_tell_the_speed_of_the_fastest_worker_that_takes_part() {
    let micros = |micros: u64| StepTime::new(Duration::from_micros(micros));
    let told = |s: &mut Trace, to: u32| match s.expect_transmit(to, Kind::Params) {
        Message::Params(Reply { occasion: Occasion::Answer { reference }, .. }) => reference,
        message => panic!("{message:?}"),
    };
    let push = |s: &mut Trace, worker, sequence, base, time: Option<StepTime>| {
        let push = Push { step_time: time, ..push_message(worker, 1, sequence, base) };
        let input = s.header(worker, 1, LEN * 4, Message::Push(push));
        s.feed(input).receive(worker, 0.0);
    };
    let mut s = server("hardsync period=8 adapt=speed".parse().unwrap(), 2);
    push(&mut s, 0, 1, 0, Some(micros(50)));
    push(&mut s, 1, 1, 0, Some(micros(20)));
    assert_eq!([told(&mut s, 0), told(&mut s, 1)], [Some(micros(20)); 2]);
    push(&mut s, 0, 2, 1, Some(micros(60)));
    push(&mut s, 1, 2, 1, Some(micros(200)));
    assert_eq!([told(&mut s, 0), told(&mut s, 1)], [Some(micros(60)); 2]);
    // The speed of a lost worker does not count.
    push(&mut s, 0, 3, 2, Some(micros(300)));
    s.at(20).disconnect(1).at(1020).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(1) });
    assert_eq!(told(&mut s, 0), Some(micros(300)));
    s.expect_idle();
    // Servers of other recipes tell no speed, though they hear one.
    let mut s = server(Recipe::asynchronous(), 1);
    push(&mut s, 0, 1, 0, Some(micros(50)));
    assert_eq!(told(&mut s, 0), None);
}

/// Encoded contributions without examples have no body: a round of them needs no kernel, and has to go on without the
/// end of one.
#[test]
fn a_round_without_bodies_ends_at_once() {
    let mut s = server("hardsync codec=bf16".parse().unwrap(), 3);
    for worker in [2, 1, 0] {
        s.tell(worker, Message::Push(Push { weight: 0, ..push_message(worker, 1, 1, 0) }));
    }
    s.expect_params(0, 1, 1, 1).expect_params(1, 1, 1, 1).expect_params(2, 1, 1, 1).expect_idle();
}

/// A contribution that comes twice is applied once, and answered again.
#[test]
fn a_push_that_comes_again_is_answered_and_not_applied() {
    let mut s = server(Recipe::asynchronous().with_lambda(1.0), 2);
    s.push(0, 1, 0, 1.0).expect_params(0, 1, 1, 0);
    s.at(10).disconnect(0).at(20).hello(0, 1).expect_idle();
    s.push(0, 1, 0, 1.0).expect_params(0, 1, 1, 0).expect_idle();
    assert_eq!((s.counters().applied, s.counters().duplicates), (1, 1));
}

/// A zombie's contribution to a round that is over is dropped and counted, and the zombie is told where the other
/// workers are.
#[test]
fn a_contribution_to_a_round_that_is_over_is_late() {
    let mut s = server(Recipe::sync().with_topology(Topology::Servers { shards: 1 }), 2);
    s.at(10).disconnect(1).push(0, 1, 0, 1.0).expect_idle();
    s.at(1010).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(1) }).expect_params(0, 1, 1, 1);
    s.at(1500).hello(1, 1).expect_event(joined(1, 1));
    s.expect_params(1, 0, 1, 1);
    s.push(1, 1, 0, 9.0).expect_params(1, 1, 1, 1).expect_idle();
    assert_eq!(s.counters().late, 1);
    s.push(0, 2, 1, 1.0).push(1, 2, 1, 1.0).expect_params(0, 2, 2, 2).expect_params(1, 2, 2, 2).expect_idle();
}

#[test]
fn peers_that_break_the_protocol_are_named_and_cut_off() {
    // Each changes the push, the digest of its header, or the floats of its body.
    type Change = fn(&mut Push, &mut u32, &mut usize);
    let broken: [(Change, &str); 6] = [
        (|_, digest, _| *digest ^= 1, "expected contract "),
        (|_, _, floats| *floats = 3, "expected 16 bytes after Push, got 12"),
        (|push, _, _| push.shard = ShardId(7), "expected a shard that this node holds, got shard 7"),
        (|push, _, _| push.incarnation = Incarnation(5), "expected incarnation 1, got incarnation 5"),
        (|push, _, _| push.sequence = Sequence(3), "expected sequence 1, got 3"),
        (|push, _, _| push.base = Clock(9), "expected a base of at most clock 0, got clock 9"),
    ];
    for (change, expected) in broken {
        let mut s = server(Recipe::asynchronous().with_lambda(1.0), 2);
        let (mut push, mut digest, mut floats) = (push_message(0, 1, 1, 0), s.setup.contract.digest() as u32, LEN);
        change(&mut push, &mut digest, &mut floats);
        let header = Header::new(digest, PeerId(0), Incarnation(1), floats as u32 * 4, Message::Push(push));
        s.feed(Input::Header { peer: PeerId(0), header });
        let Some(Output::Close { peer: PeerId(0), reason }) = s.wants.pop_front() else { panic!("{expected}") };
        assert!(reason.to_string().starts_with(expected), "{reason}, not {expected}");
        // The other worker is served as before.
        s.push(1, 1, 0, 1.0).expect_params(1, 1, 1, 0).expect_idle();
    }
}

#[test]
fn a_message_of_another_role_is_refused() {
    let mut s = server(Recipe::asynchronous().with_lambda(1.0), 2);
    s.tell(0, Message::Prepare { view: Sequence(1) });
    s.expect_close(0, ProtocolError::Unexpected { kind: Kind::View }).expect_idle();
}

/// Monitors show staleness in full, and each contribution under one heading.
#[test]
fn contributions_are_counted_by_what_became_of_them() {
    let mut s = server(Recipe::asynchronous().with_lambda(1.0), 2);
    for number in 1..=3 {
        s.push(0, number, number - 1, 0.5).expect_params(0, number, number, 0);
    }
    s.push(1, 1, 0, 0.5).expect_params(1, 1, 4, 1).expect_idle();
    let staleness = s.machine.status().staleness;
    assert_eq!((staleness.sum(), staleness.count()), (3, 4));
    s.push(1, 2, 4, f32::NAN);
    s.push(1, 3, 4, f32::INFINITY);
    let input = s.header(0, 1, 0, Message::Push(Push { weight: 0, ..push_message(0, 1, 4, 4) }));
    s.feed(input);
    let counters = s.counters();
    assert_eq!((counters.rejected, counters.empty, counters.dropped), (2, 1, 0));
    assert_eq!((counters.applied, counters.applications), (4, 4));
}

/// A contribution that was under way when its worker restarted is applied, but it does not count for the new process.
#[test]
fn a_contribution_of_an_earlier_process_is_not_answered() {
    let mut s = server(Recipe::asynchronous().with_lambda(1.0), 2);
    let input = s.header(0, 1, LEN * 4, Message::Push(push_message(0, 1, 1, 0)));
    s.feed(input);
    let (op, into) = s.take_receive(0).unwrap();
    s.disconnect(0).hello(0, 2).expect_event(joined(0, 2)).expect_params(0, 0, 0, 0);
    s.pool.floats_mut(into.unwrap()).fill(1.0);
    s.feed(Input::Completed { op, result: KernelResult::Nothing }).expect_idle();
    assert_eq!((s.counters().applied, s.machine.status().workers[0].clock), (1, Clock(0)));
    // The stream of the new process begins with its first contribution.
    s.push_of(0, 2, 1, 0, 1.0).expect_params(0, 1, 2, 0).expect_idle();
    assert_eq!((s.counters().applied, s.counters().duplicates), (2, 0));
}

/// Parameters that are sent again say of which moment they are, even if the server has gone on since.
#[test]
fn an_echo_that_is_sent_again_has_its_own_version_and_row() {
    let codec = Codec::TopK(TopK::all(0.25));
    let mut s = server(Recipe::asynchronous().with_lambda(1.0).with_pull(codec), 2);
    s.push(0, 1, 0, 1.0);
    let (op, message, _) = s.expect_sending(0, Kind::Delta);
    assert!(matches!(message, Message::Delta(reply) if (reply.version, reply.row) == (Clock(1), Clock(0))));
    s.disconnect(0).feed(Input::Aborted { op }).expect_idle();
    s.push(1, 1, 0, 1.0).expect_transmit(1, Kind::Delta);
    s.hello(0, 1).expect_params(0, 1, 1, 0).expect_idle();
    // The rest follows with the next answer.
    s.push(0, 2, 1, 1.0);
    let message = s.expect_transmit(0, Kind::Delta);
    assert!(matches!(message, Message::Delta(reply) if (reply.version, reply.row) == (Clock(3), Clock(1))));
}

/// The process that a server's echo was for is gone: the next one gets whole parameters.
#[test]
fn a_restarted_worker_gets_no_difference() {
    let codec = Codec::TopK(TopK::all(0.25));
    let mut s = server(Recipe::asynchronous().with_lambda(1.0).with_pull(codec), 1);
    s.push(0, 1, 0, 1.0).expect_transmit(0, Kind::Delta);
    s.disconnect(0).hello(0, 2).expect_event(joined(0, 2)).expect_params(0, 0, 1, 1).expect_idle();
}

/// A worker's offer of shard 0, behind `sequence` contributions of its own.
fn offer(sequence: u64, version: u64) -> Message {
    let (sequence, version) = (Sequence(sequence), Clock(version));
    Message::Offer(Offer { shard: ShardId(0), sequence, row: Clock(3), version, whole: true })
}

/// A worker's offer broke off, and the restarted server has begun without it. The worker's stream goes on where it
/// says.
#[test]
fn a_worker_that_was_lost_before_its_offer_is_heard_when_it_is_back() {
    let mut s = trace(Recipe::asynchronous().with_lambda(1.0), 2, 2);
    s.hello_of(0, 1, true).expect_event(joined(0, 1)).hello_of(1, 1, true).expect_event(joined(1, 1));
    s.at(10).send(0, offer(4, 7), 1.0).expect_waiting(Some(1)).expect_idle();
    s.at(20).disconnect(1).at(1020).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(1) });
    s.expect_params(0, 4, 7, 3).expect_idle();
    s.at(1100).hello_of(1, 1, true).expect_event(joined(1, 1)).expect_idle();
    s.send(1, offer(5, 6), 2.0).expect_params(1, 5, 7, 3).expect_idle();
    s.push(1, 6, 7, 0.5).expect_params(1, 6, 8, 3).expect_idle();
}

/// Workers hold the parameters of a server that starts again, and not the state of its optimizer.
#[test]
fn a_restarted_server_says_that_its_outer_optimizer_begins_anew() {
    let outer = Outer::Momentum { mu: Mu::Fixed(0.5), rate: 1.0, look: false, scale: VelocityScale::Update };
    let recipe = Recipe::asynchronous().with_lambda(1.0).with_outer(outer);
    let mut s = trace(recipe, 1, 1);
    s.hello_of(0, 1, true).expect_event(joined(0, 1)).at(10).send(0, offer(4, 7), 1.0);
    s.expect_event(Event::OuterLost).expect_params(0, 4, 7, 3).expect_idle();
    // The first velocity is the update.
    s.push(0, 5, 7, 0.5).expect_params(0, 5, 8, 4).expect_view(0.5);
    s.push(0, 6, 8, 0.5).expect_params(0, 6, 9, 5).expect_view(-0.25);
    // A new server has no such state to lose.
    server(recipe, 1);
}

/// Two contributions would be two votes, so their mean is its contribution: both are made from the same parameters.
#[test]
fn a_worker_that_is_started_again_in_a_round_counts_once() {
    let mut s = server("hardsync merge=median".parse().unwrap(), 3);
    s.push(0, 1, 0, 4.0).expect_idle();
    s.disconnect(0).hello(0, 2).expect_event(joined(0, 2)).expect_params(0, 0, 0, 0);
    s.push_of(0, 2, 1, 0, 8.0).push(1, 1, 0, 5.0).push(2, 1, 0, 9.0);
    s.expect_params(0, 1, 1, 1).expect_params(1, 1, 1, 1).expect_params(2, 1, 1, 1).expect_idle().expect_view(-6.0);
    assert_eq!((s.counters().applied, s.counters().dropped), (4, 0));
    // It has a vote in the next round. A worker that is lost has no vote, and two are left: their mean.
    s.push_of(0, 2, 2, 1, 2.0).at(100).disconnect(2).push(1, 2, 1, 4.0);
    s.at(1100).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(2) });
    s.expect_params(0, 2, 2, 2).expect_params(1, 2, 2, 2).expect_idle().expect_view(-9.0);
}

fn silence(span_ms: u32) -> Message {
    Message::Silence { span_ms }
}

/// A server that waits for worker 1, which has announced a silence of 5 s.
fn held_up_by_silence(change: impl FnOnce(Setup) -> Setup) -> Trace {
    let mut s = trace_of(Recipe::ssp(0).with_lambda(1.0), 2, 2, change);
    for worker in 0..2 {
        s.hello(worker, 1).expect_event(joined(worker, 1));
    }
    s.expect_params(0, 0, 0, 0).expect_params(1, 0, 0, 0);
    s.at(100).tell(1, silence(5000)).expect_idle();
    s.at(200).push(0, 1, 0, 0.0);
    s
}

/// While the worker that a server waits for is silent as it has announced, the wait is excused, also at the workers
/// that wait for the server.
#[test]
fn a_wait_for_a_silent_worker_is_excused_and_passed_on() {
    let mut s = held_up_by_silence(|setup| setup);
    let awaits = |silent_ms| Message::Awaits { on: PeerId(1), at: Clock(0), silent_ms };
    assert_eq!(s.expect_transmit(0, Kind::Awaits), awaits(4900));
    s.expect_idle();
    assert_eq!(s.machine.awaited_silence(), Some(Instant::from_nanos(5_100_000_000)));
    // A longer silence is passed on as well.
    s.at(300).tell(1, silence(9000));
    assert_eq!(s.expect_transmit(0, Kind::Awaits), awaits(9000));
    // The worker goes on earlier.
    s.at(400).tell(1, silence(0));
    assert_eq!(s.machine.awaited_silence(), None);
    s.push(1, 1, 0, 0.0).expect_waiting(None);
}

#[cfg(planted)]
#[test]
#[should_panic(expected = "Awaits to 0 expected")]
fn a_planted_silence_that_is_not_passed_on_is_found() {
    let bug = Some(crate::planted::Bug::SilenceNotPassedOn);
    held_up_by_silence(|setup| Setup { bug, ..setup }).expect_transmit(0, Kind::Awaits);
}

/// An announced silence is over when its time is.
#[test]
fn an_excuse_ends_with_the_silence() {
    let mut s = held_up_by_silence(|setup| setup);
    s.expect_transmit(0, Kind::Awaits);
    s.at(5200).feed(Input::Timeout);
    assert_eq!(s.machine.awaited_silence(), None);
}

/// A worker that comes during the silence of this node's application hears of it.
#[test]
fn a_node_announces_its_silence_to_all_and_takes_it_back() {
    let mut s = server(Recipe::asynchronous().with_lambda(1.0), 2);
    s.at(100).feed(Input::Silence { span: Duration::from_secs(3) });
    for worker in 0..2 {
        assert_eq!(s.expect_transmit(worker, Kind::Silence), silence(3000));
    }
    s.at(1100).disconnect(1).hello(1, 1);
    assert_eq!(s.expect_transmit(1, Kind::Silence), silence(2000));
}

/// A worker that says that it has failed is lost at once.
#[test]
fn a_failed_worker_is_lost_at_once() {
    let mut s = server(Recipe::ssp(0).with_lambda(1.0), 2);
    s.push(0, 1, 0, 0.0).expect_idle();
    let failure = Failure::NonFinite { index: 3 };
    s.tell(1, Message::Failed { failure }).expect_event(Event::PeerFailed { peer: PeerId(1), failure });
    s.expect_event(Event::PeerLost { peer: PeerId(1) });
    s.expect_params(0, 1, 1, 1).expect_idle();
    assert_eq!(s.machine.status().workers[1].state, Presence::Lost);
    // Its connection closes after that. A new process of its rank is welcome.
    s.disconnect(1).expect_idle();
    s.hello(1, 2).expect_event(joined(1, 2));
}

/// Dean et al. 2012: a push that asks for no parameters is answered with a receipt, also when it comes again.
#[test]
fn a_push_without_a_fetch_gets_a_receipt() {
    let mut s = server(Recipe::asynchronous().with_lambda(1.0).with_fetch(2), 2);
    let quiet = |sequence| Message::Push(Push { fetches: false, ..push_message(0, 1, sequence, 0) });
    let receipt = |sequence| Message::Receipt { shard: ShardId(0), sequence: Sequence(sequence), magnitude: None };
    s.send(0, quiet(1), 0.5);
    assert_eq!(s.expect_transmit(0, Kind::Ack), receipt(1));
    s.send(0, quiet(1), 0.5);
    assert_eq!(s.expect_transmit(0, Kind::Ack), receipt(1));
    s.push(1, 1, 0, 0.5).expect_params(1, 1, 2, 1);
    // Without a contribution, a worker only asks for parameters.
    s.tell(0, Message::Push(Push { weight: 0, ..push_message(0, 1, 2, 0) })).expect_params(0, 2, 2, 1).expect_idle();
    assert_eq!((s.counters().duplicates, s.counters().applied, s.counters().empty), (1, 2, 1));
}

/// With a codec for parameters, the welcome of a worker that does not wait for it repeats the parameters that the
/// worker holds: the next difference is right whether it has arrived or not.
#[test]
fn an_unsolicited_welcome_repeats_what_the_worker_holds() {
    let mut s = server(Recipe::asynchronous().with_lambda(1.0).with_fetch(2).with_pull(Codec::F16), 2);
    s.push(0, 1, 0, 0.5);
    s.expect_transmit(0, Kind::Delta);
    s.at(10).disconnect(0).at(5000).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(0) });
    s.push(1, 1, 0, 0.5);
    s.expect_transmit(1, Kind::Delta);
    s.at(5001).hello(0, 1).expect_event(joined(0, 1)).expect_params(0, 1, 1, 0);
    s.send(0, Message::Push(Push { fetches: false, ..push_message(0, 1, 2, 0) }), 0.5);
    s.expect_transmit(0, Kind::Ack);
    s.push(0, 3, 0, 0.5);
    s.expect_transmit(0, Kind::Delta);
}
