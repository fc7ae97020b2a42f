//! The worker, input by input. The server has the rank after the workers; `S` is its rank here.

use super::*;
use crate::recipe::{Codec, End, Hint, Pace, Threshold, TopK, Topology};
use crate::status::Rest;
use crate::wire::Leave;

/// The rank of the server in runs of one worker.
const S: u32 = 1;

/// Worker 0 of one, which has met the server and taken parameters of 1.0.
fn worker(recipe: Recipe) -> Trace {
    let mut w = trace(recipe, 0, 1);
    w.hello(S, 1).expect_idle();
    w.send(S, params(Occasion::Welcome { lead: 0 }, 0, 0, 0), 1.0);
    w.expect_signal(Signal::Joined { clock: Clock(0) }).expect_view(1.0).expect_idle();
    w
}

fn params(occasion: Occasion, sequence: u64, version: u64, row: u64) -> Message {
    Message::Params(reply(occasion, sequence, version, row))
}

fn answer(sequence: u64, version: u64, row: u64) -> Message {
    params(Occasion::Answer { reference: None }, sequence, version, row)
}

fn overlapping() -> Recipe {
    Recipe::asynchronous().with_lambda(1.0).with_pace(Pace::Asynchronous { overlap: true })
}

#[track_caller]
fn expect_push(w: &mut Trace, sequence: u64, base: u64) {
    let message = w.expect_transmit(S, Kind::Push);
    let Message::Push(push) = message else { panic!("{message:?}") };
    assert_eq!((push.sequence.0, push.base.0), (sequence, base), "{message:?}");
}

fn leave(last: u64, stays: bool) -> Message {
    Message::Leave(Leave { origin: PeerId(0), incarnation: OWN, last: Sequence(last), stays })
}

#[test]
fn a_worker_joins_when_it_has_all_shards() {
    let mut w = trace(Recipe::asynchronous().with_lambda(1.0).with_topology(Topology::Servers { shards: 2 }), 0, 1);
    w.expect_waiting(Some(S)).hello(S, 1).expect_idle();
    let welcome = |shard| {
        let occasion = Occasion::Welcome { lead: 0 };
        Message::Params(Reply { shard: ShardId(shard), ..reply(occasion, 0, 0, 3) })
    };
    w.announce(S, welcome(1), LEN / 2).receive(S, 1.0).expect_waiting(Some(S)).expect_idle();
    w.announce(S, welcome(0), LEN / 2).receive(S, 1.0);
    w.expect_signal(Signal::Joined { clock: Clock(3) }).expect_view(1.0).expect_waiting(None).expect_idle();
}

#[test]
fn a_step_is_done_when_the_server_has_answered() {
    let mut w = worker(Recipe::asynchronous().with_lambda(1.0));
    w.step(0.5);
    expect_push(&mut w, 1, 0);
    w.expect_waiting(Some(S)).expect_idle();
    assert_eq!(w.machine.handle_input(w.now, Input::Step { weight: 1 }), Err(Misuse::NotReady));
    w.send(S, answer(1, 1, 1), 0.5).expect_ready(1).expect_view(0.5).expect_idle();
    // The next contribution is made from the version that has come.
    w.step(0.25);
    expect_push(&mut w, 2, 1);
}

#[test]
fn a_worker_tells_the_time_of_its_steps_and_takes_that_of_the_reference() {
    let micros = |micros: u64| StepTime::new(Duration::from_micros(micros));
    let mut w = worker("hardsync period=8 adapt=speed".parse().unwrap());
    assert_eq!(w.machine.advice().reference, None);
    w.feed(Input::StepTime { mean: micros(70) }).step(0.5);
    let message = w.expect_transmit(S, Kind::Push);
    let Message::Push(push) = message else { panic!("{message:?}") };
    assert_eq!(push.step_time, Some(micros(70)));
    let answer = |reference, sequence| params(Occasion::Answer { reference }, sequence, sequence, sequence);
    w.send(S, answer(Some(micros(30)), 1), 0.5).expect_ready(1);
    assert_eq!(w.machine.advice().reference, Some(micros(30)));
    w.step(0.5);
    let _ = w.expect_transmit(S, Kind::Push);
    w.send(S, answer(None, 2), 0.5).expect_ready(2);
    assert_eq!(w.machine.advice().reference, Some(micros(30)));
}

/// A window of two: the worker computes while its last contribution travels, and sees its own updates meanwhile.
#[test]
fn with_overlap_a_worker_is_one_contribution_ahead_of_the_answers() {
    let mut w = worker(overlapping());
    w.step(0.5);
    expect_push(&mut w, 1, 0);
    w.expect_ready(1).expect_view(0.5);
    w.step(0.25);
    expect_push(&mut w, 2, 0);
    // Two are under way: the third has to wait for an answer.
    w.expect_view(0.25).expect_waiting(Some(S)).expect_idle();
    w.send(S, answer(1, 1, 1), 0.5).expect_ready(2).expect_idle();
}

/// Ho et al. 2013: read-my-writes. Parameters that lack the last contribution get it again before they are used.
#[test]
fn own_updates_under_way_are_applied_to_parameters_that_lack_them() {
    let mut w = worker(overlapping());
    w.step(0.5);
    expect_push(&mut w, 1, 0);
    w.expect_ready(1).step(0.25);
    expect_push(&mut w, 2, 0);
    // Another worker has moved the parameters by 10 as well.
    w.send(S, answer(1, 2, 1), -9.5).expect_ready(2).expect_view(-9.75);
}

/// The server sends parameters for a slow worker's push again and again; different answers are never mixed.
#[test]
fn rows_that_arrive_while_another_is_received_wait() {
    let mut w = worker(overlapping());
    w.step(0.5);
    expect_push(&mut w, 1, 0);
    w.expect_ready(1).step(0.25);
    expect_push(&mut w, 2, 0);
    w.announce(S, answer(1, 1, 1), LEN);
    let (op, into) = w.take_receive(S).unwrap();
    assert!(into.is_some());
    // The second answer is held until the first is complete.
    w.announce(S, answer(2, 2, 2), LEN).expect_idle();
    w.pool.floats_mut(into.unwrap()).fill(0.5);
    w.feed(Input::Completed { op, result: KernelResult::Nothing });
    w.receive(S, 0.25).expect_ready(2).expect_view(0.25).expect_idle();
}

#[test]
fn after_a_broken_connection_unanswered_contributions_are_pushed_again() {
    let mut w = worker(Recipe::asynchronous().with_lambda(1.0));
    w.step(0.5);
    expect_push(&mut w, 1, 0);
    w.disconnect(S).expect_idle();
    w.hello(S, 1);
    expect_push(&mut w, 1, 0);
    assert_eq!(w.counters().resent, 1);
    w.send(S, answer(1, 1, 1), 0.5).expect_ready(1).expect_idle();
    // With everything answered, nothing is pushed again.
    w.disconnect(S).hello(S, 1).expect_idle();
    assert_eq!(w.counters().resent, 1);
}

#[test]
fn parameters_whose_transmission_broke_off_are_not_used() {
    let mut w = worker(Recipe::asynchronous().with_lambda(1.0));
    w.step(0.5);
    expect_push(&mut w, 1, 0);
    w.announce(S, answer(1, 1, 1), LEN);
    let (op, _) = w.take_receive(S).unwrap();
    w.disconnect(S).feed(Input::Aborted { op }).expect_waiting(Some(S)).expect_idle();
    w.hello(S, 1);
    expect_push(&mut w, 1, 0);
    w.send(S, answer(1, 1, 1), 0.5).expect_ready(1).expect_view(0.5).expect_idle();
}

/// Ho et al. 2013, section 3: with bound s, a worker at clock c computes when the row clock is at least c - s.
#[test]
fn a_worker_waits_for_the_row_clock_of_its_bound() {
    let mut w = worker(Recipe::ssp(1).with_lambda(1.0));
    w.step(0.0);
    expect_push(&mut w, 1, 0);
    w.expect_ready(1).send(S, answer(1, 1, 0), 1.0);
    w.step(0.0);
    expect_push(&mut w, 2, 0);
    // At clock 2 the row clock must be 1. The answer alone does not help.
    w.send(S, answer(2, 2, 0), 1.0).expect_waiting(Some(S)).expect_idle();
    w.send(S, answer(2, 3, 1), 1.0).expect_ready(2).expect_idle();
}

/// A worker that enters behind its own contributions starts ahead of the row clock.
#[test]
fn a_welcome_tells_a_worker_its_lead() {
    let mut w = trace(Recipe::ssp(1).with_lambda(1.0), 0, 1);
    w.hello(S, 1).send(S, params(Occasion::Welcome { lead: 1 }, 0, 4, 7), 1.0);
    w.expect_signal(Signal::Joined { clock: Clock(8) });
}

/// A restarted server gets the parameters back, and the contributions under way to its earlier process count as lost.
#[test]
fn a_restarted_server_is_offered_the_parameters() {
    let mut w = worker(Recipe::asynchronous().with_lambda(1.0));
    w.step(0.5);
    expect_push(&mut w, 1, 0);
    w.send(S, answer(1, 1, 1), 0.5).expect_ready(1);
    w.step(0.25);
    expect_push(&mut w, 2, 1);
    w.disconnect(S).hello(S, 2);
    let (op, message, body) = w.expect_sending(S, Kind::State);
    let Message::Offer(offer) = message else { panic!("{message:?}") };
    assert_eq!((offer.version, offer.row, offer.sequence, offer.whole), (Clock(1), Clock(1), Sequence(2), true));
    assert_eq!(w.pool.floats(body.unwrap()), [0.5; LEN]);
    w.feed(Input::Completed { op, result: KernelResult::Nothing }).expect_idle();
    // It is welcomed at the clock of the other workers, and its stream goes on behind the lost contributions.
    w.send(S, params(Occasion::Welcome { lead: 0 }, 2, 1, 1), 0.5).expect_ready(1).expect_view(0.5).expect_idle();
    assert_eq!((w.counters().lost, w.counters().resent), (1, 0));
    w.step(0.125);
    expect_push(&mut w, 3, 1);
}

/// All contributions that were under way are lost, and all are counted.
#[test]
fn every_contribution_that_a_restarted_server_has_lost_is_counted() {
    let mut w = worker(overlapping());
    w.step(0.5);
    expect_push(&mut w, 1, 0);
    w.expect_ready(1).step(0.25);
    expect_push(&mut w, 2, 0);
    w.disconnect(S).hello(S, 2);
    let (op, message, _) = w.expect_sending(S, Kind::State);
    assert!(matches!(message, Message::Offer(offer) if offer.sequence == Sequence(2)), "{message:?}");
    w.feed(Input::Completed { op, result: KernelResult::Nothing });
    w.send(S, params(Occasion::Welcome { lead: 0 }, 2, 0, 0), 1.0);
    assert_eq!(w.counters().lost, 2);
}

#[test]
fn a_leaving_worker_says_so_when_everything_is_answered() {
    let mut w = worker(overlapping());
    w.step(0.5);
    expect_push(&mut w, 1, 0);
    w.expect_ready(1).feed(Input::Leave { stay: false, keep: false }).expect_idle();
    w.send(S, answer(1, 1, 1), 0.5);
    assert_eq!(w.expect_transmit(S, Kind::Leave), leave(1, false));
    w.expect_signal(Signal::Left).expect_idle();
}

#[test]
fn a_worker_that_stays_takes_the_final_parameters_and_says_goodbye() {
    let mut w = worker(Recipe::asynchronous().with_lambda(1.0));
    w.feed(Input::Leave { stay: true, keep: false });
    assert_eq!(w.expect_transmit(S, Kind::Leave), leave(0, true));
    w.expect_waiting(Some(S)).expect_idle();
    w.send(S, params(Occasion::Final, 0, 9, 9), 7.0).expect_view(7.0);
    assert_eq!(w.expect_transmit(S, Kind::Leave), leave(0, false));
    w.expect_signal(Signal::Left).expect_idle();
}

/// A farewell that was under way when the connection broke is sent again.
#[test]
fn a_farewell_that_got_lost_is_said_again() {
    let mut w = worker(Recipe::asynchronous().with_lambda(1.0));
    w.feed(Input::Leave { stay: false, keep: false });
    let (op, ..) = w.expect_sending(S, Kind::Leave);
    w.disconnect(S).feed(Input::Aborted { op }).expect_idle();
    w.hello(S, 1);
    assert_eq!(w.expect_transmit(S, Kind::Leave), leave(0, false));
    w.expect_signal(Signal::Left).expect_idle();
}

/// One element of four is sent, the first of equal ones. Three of them stay in the residual.
fn sparse() -> Recipe {
    let codec = Codec::TopK(TopK::all(0.25));
    Recipe::asynchronous().with_lambda(1.0).with_codec(codec).with_pull(codec)
}

/// A worker that has contributed 0.5 in every element, and leaves.
fn leaving(end: End) -> Trace {
    let mut w = worker(sparse().with_end(end));
    w.step(0.5);
    expect_push(&mut w, 1, 0);
    w.send(S, answer(1, 1, 1), 0.5).expect_ready(1);
    w.feed(Input::Leave { stay: false, keep: false });
    w
}

/// The worker says how its residual of norm sqrt(3) / 2 ended.
#[track_caller]
fn expect_rest(w: &mut Trace, messages: u32, kept: f64) {
    let norm = 0.75f64.sqrt();
    let rest = Rest { norm, updates: norm, messages, kept };
    w.expect_event(Event::Rest(rest));
    assert_eq!(w.machine.status().rest, Some(rest));
    // One contribution with a density of a quarter is less than one message per element.
    let hint = Hint::LateElements { density: 0.25, messages: 1 };
    w.expect_event(Event::Hint(hint));
}

#[track_caller]
fn expect_left(w: &mut Trace, sequence: u64) {
    assert_eq!(w.expect_transmit(S, Kind::Leave), leave(sequence, false));
    w.expect_signal(Signal::Left).expect_idle();
}

#[test]
fn a_leaving_worker_keeps_its_residual() {
    let mut w = leaving(End::Keep);
    expect_rest(&mut w, 0, 0.75f64.sqrt());
    expect_left(&mut w, 1);
}

/// Clipped values are no part of the residual, also if the worker leaves before that has ended.
#[test]
fn a_leaving_worker_tells_of_its_residual_when_it_has_been_clipped() {
    let codec = Codec::Threshold(Threshold { clip: 0.5, ..Threshold::fixed(0.5) });
    let mut w = worker(sparse().with_codec(codec).with_end(End::Keep));
    let update = Segment::floats(w.machine.contribution(), 0, LEN);
    w.pool.floats_mut(update).fill(0.375);
    w.machine.handle_input(w.now, Input::Step { weight: 1 }).unwrap();
    w.feed(Input::Leave { stay: false, keep: false });
    expect_push(&mut w, 1, 0);
    let event = w.wants.pop_front();
    let Some(Output::Event(Event::Rest(rest))) = event else { panic!("{event:?}") };
    assert_eq!((rest.norm, rest.kept), (0.5, 0.5));
    let status = w.machine.status();
    assert_eq!((status.residual_norm, status.clipped), (0.5, 0.5));
}

#[test]
fn a_leaving_worker_sends_its_residual() {
    let mut w = leaving(End::Send);
    expect_push(&mut w, 2, 1);
    expect_rest(&mut w, 1, 0.0);
    w.expect_idle().send(S, answer(2, 2, 2), 0.0);
    expect_left(&mut w, 2);
}

/// Each message has one element, like all messages of this recipe. One of three stays.
#[test]
fn a_leaving_worker_spreads_its_residual() {
    let mut w = leaving(End::Spread { messages: 2 });
    expect_push(&mut w, 2, 1);
    w.expect_idle().send(S, answer(2, 2, 2), 0.0);
    expect_push(&mut w, 3, 2);
    expect_rest(&mut w, 2, 0.5);
    w.expect_idle().send(S, answer(3, 3, 3), 0.0);
    expect_left(&mut w, 3);
}

#[test]
fn dense_answers_to_sparse_contributions_call_for_a_hint() {
    let mut w = trace(sparse().with_pull(Codec::F32), 0, 1);
    w.hello(S, 1).send(S, params(Occasion::Welcome { lead: 0 }, 0, 0, 0), 1.0);
    w.expect_signal(Signal::Joined { clock: Clock(0) }).expect_event(Event::Hint(Hint::DensePull)).expect_idle();
}

/// A suspended worker leaves its residual where it is; a checkpoint saves it.
#[test]
fn a_suspended_worker_keeps_its_residual() {
    let mut w = worker(sparse());
    w.step(0.5);
    expect_push(&mut w, 1, 0);
    w.send(S, answer(1, 1, 1), 0.5).expect_ready(1);
    w.feed(Input::Leave { stay: false, keep: true });
    assert_eq!(w.expect_transmit(S, Kind::Leave), leave(1, false));
    let saved: Vec<_> = w.machine.saved().into_iter().map(|saved| saved.save(&w.pool)).collect();
    let half = 0.5f32.to_bits();
    assert_eq!(saved[0].iter().filter(|word| **word == half).count(), 3, "{saved:?}");
}

/// The residual of a checkpoint that is older than the run may have been sent already.
#[test]
fn an_outdated_worker_drops_its_saved_residual() {
    let resumed = Some(Resumed { at: Clock(1), made: 1 });
    let mut w = trace_of(sparse(), 0, 1, |setup| Setup { resumed, ..setup });
    let residual = w.machine.saved()[0];
    residual.restore(&mut w.pool, &[1.0f32.to_bits(); LEN]).unwrap();
    w.hello(S, 1);
    w.expect_signal(Signal::ResumedElsewhere { peer: PeerId(S), at: Clock(0) });
    w.tell(S, Message::Again).expect_event(Event::Outdated).expect_idle();
    assert_eq!(residual.save(&w.pool), [0; LEN]);
}

#[test]
fn a_lost_server_is_reported_and_waited_for() {
    let mut w = worker(Recipe::asynchronous().with_lambda(1.0));
    w.at(10).disconnect(S).expect_idle();
    w.at(1010).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(S) }).expect_idle();
    let mut w =
        trace_of(Recipe::asynchronous().with_lambda(1.0), 0, 1, |setup| Setup { patience: Patience::none(), ..setup });
    w.hello(S, 1).send(S, params(Occasion::Welcome { lead: 0 }, 0, 0, 0), 1.0);
    w.expect_signal(Signal::Joined { clock: Clock(0) });
    w.disconnect(S).expect_signal(Signal::Cut { peer: PeerId(S) }).expect_idle();
}

/// Without a server that has failed, a worker cannot go on. One that was told to end may come back.
#[test]
fn a_worker_ends_with_the_failure_of_its_server() {
    let failed = |failure| Message::Failed { failure };
    let mut w = worker(Recipe::asynchronous().with_lambda(1.0));
    let (peer, failure) = (PeerId(S), Failure::Executor);
    w.tell(S, failed(failure)).expect_event(Event::PeerFailed { peer, failure });
    w.expect_signal(Signal::PeerFailed { peer, failure }).expect_idle();
    let mut w = worker(Recipe::asynchronous().with_lambda(1.0));
    let failure = Failure::Cancelled;
    w.tell(S, failed(failure)).expect_event(Event::PeerFailed { peer, failure });
    w.expect_event(Event::PeerLost { peer }).expect_idle();
}

/// A wait for a server that waits for a silent worker is excused. A node that is connected here has announced it here.
#[test]
fn a_wait_for_the_server_of_a_silent_worker_is_excused() {
    let awaits = |on, silent_ms| Message::Awaits { on: PeerId(on), at: Clock(0), silent_ms };
    let until = |millis: u64| Some(Instant::from_nanos(millis * 1_000_000));
    let waiting = || {
        let mut w = trace(Recipe::ssp(0).with_lambda(1.0), 0, 2);
        w.hello(2, 1).send(2, params(Occasion::Welcome { lead: 0 }, 0, 0, 0), 1.0);
        w.expect_signal(Signal::Joined { clock: Clock(0) });
        w.at(100).step(0.5).expect_transmit(2, Kind::Push);
        w
    };
    let mut w = waiting();
    w.tell(2, awaits(1, 2000));
    assert_eq!(w.machine.awaited_silence(), until(2100));
    // It ends by itself, or when the server waits no more.
    w.at(2200).feed(Input::Timeout);
    assert_eq!(w.machine.awaited_silence(), None);
    let mut w = waiting();
    w.hello(1, 1).tell(1, Message::Silence { span_ms: 4000 });
    assert_eq!(w.machine.awaited_silence(), None, "the server is not known to wait for it");
    w.at(200).tell(2, awaits(1, 1));
    assert_eq!(w.machine.awaited_silence(), until(4100));
    // A server of its own.
    let mut w = waiting();
    w.tell(2, Message::Silence { span_ms: 1000 });
    assert_eq!(w.machine.awaited_silence(), until(1100));
}

/// The time of a head start is excused, until a server says that a starter holds it up, or is lost.
#[test]
fn a_head_start_is_excused_while_the_starters_push() {
    let waiting = |me: u32| {
        let mut w = trace("async starters=1 head_start=9".parse().unwrap(), me, 2);
        w.hello(2, 1).expect_idle();
        w
    };
    assert!(waiting(1).machine.awaited_silence().is_some());
    assert_eq!(waiting(0).machine.awaited_silence(), None, "a starter waits for no head start");
    let mut w = waiting(1);
    w.tell(2, Message::Awaits { on: PeerId(0), at: Clock(3), silent_ms: 0 });
    assert_eq!(w.machine.awaited_silence(), None);
    let mut w = waiting(1);
    w.at(10).disconnect(2);
    assert_eq!(w.machine.awaited_silence(), None);
    let mut w = waiting(1);
    w.send(2, params(Occasion::Welcome { lead: 0 }, 0, 9, 9), 1.0).expect_signal(Signal::Joined { clock: Clock(9) });
    assert_eq!(w.machine.awaited_silence(), None);
}

#[test]
fn replies_that_cannot_be_are_refused() {
    let cases: [(Message, usize, ProtocolError); 4] = [
        (answer(1, 1, 1), LEN, ProtocolError::Gap { expected: 0, got: 1 }),
        (answer(0, 1, 1), 3, ProtocolError::Length { kind: Kind::Params, expected: 16, got: 12 }),
        (
            Message::Params(Reply { shard: ShardId(1), ..reply(Occasion::Answer { reference: None }, 0, 1, 1) }),
            LEN,
            ProtocolError::NoSuchShard { got: ShardId(1) },
        ),
        (
            Message::Delta(reply(Occasion::Answer { reference: None }, 0, 1, 1)),
            1,
            ProtocolError::Length { kind: Kind::Delta, expected: 16, got: 4 },
        ),
    ];
    for (message, floats, reason) in cases {
        let mut w = worker(Recipe::asynchronous().with_lambda(1.0));
        w.announce(S, message, floats).expect_close(S, reason).expect_idle();
    }
}

/// A contribution that asks for no parameters.
fn push_only(w: &mut Trace, value: f32) {
    let contribution = Segment::floats(w.machine.contribution(), 0, LEN);
    w.pool.floats_mut(contribution).fill(value);
    w.feed(Input::Push { weight: 1 });
}

fn receipt(sequence: u64) -> Message {
    Message::Receipt { shard: ShardId(0), sequence: Sequence(sequence), magnitude: None }
}

#[track_caller]
fn expect_asking(w: &mut Trace, sequence: u64, base: u64, fetches: bool) {
    let message = w.expect_transmit(S, Kind::Push);
    let Message::Push(push) = message else { panic!("{message:?}") };
    assert_eq!((push.sequence.0, push.base.0, push.fetches), (sequence, base, fetches), "{message:?}");
}

/// Dean et al. 2012: pushes and fetches are apart.
#[test]
fn a_push_without_a_fetch_is_over_with_its_receipt() {
    let mut w = worker(Recipe::asynchronous().with_lambda(1.0).with_period(1).with_fetch(3));
    let own = Signal::Ready { clock: Clock(1), changed: false };
    push_only(&mut w, 0.5);
    expect_asking(&mut w, 1, 0, false);
    w.expect_waiting(Some(S)).tell(S, receipt(1)).expect_signal(own).expect_view(1.0).expect_idle();
    // After a broken connection, the worker repeats its request.
    push_only(&mut w, 0.5);
    expect_asking(&mut w, 2, 0, false);
    w.disconnect(S).hello(S, 1);
    expect_asking(&mut w, 2, 0, false);
    w.tell(S, receipt(2)).expect_signal(Signal::Ready { clock: Clock(2), changed: false }).expect_idle();
    // The contributions between two fetches are made from the version that was fetched last.
    w.step(0.5);
    expect_asking(&mut w, 3, 0, true);
    w.send(S, answer(3, 7, 3), 0.25).expect_ready(3).expect_view(0.25);
    push_only(&mut w, 0.5);
    expect_asking(&mut w, 4, 7, false);
    w.tell(S, receipt(5)).expect_close(S, ProtocolError::Gap { expected: 4, got: 5 });
}

/// Contributions with a receipt are in no parameters that the worker could offer to a restarted server.
#[test]
fn contributions_since_the_last_fetch_count_as_lost_with_their_server() {
    let mut w = worker(Recipe::asynchronous().with_lambda(1.0).with_fetch(3));
    w.step(0.5);
    expect_asking(&mut w, 1, 0, true);
    w.send(S, answer(1, 1, 1), 0.5).expect_ready(1);
    for sequence in [2, 3] {
        push_only(&mut w, 0.5);
        expect_asking(&mut w, sequence, 1, false);
        w.tell(S, receipt(sequence)).expect_signal(Signal::Ready { clock: Clock(sequence), changed: false });
    }
    w.disconnect(S).hello(S, 2);
    let offer = w.expect_transmit(S, Kind::State);
    assert!(matches!(offer, Message::Offer(offer) if offer.sequence == Sequence(3) && offer.version == Clock(1)));
    let welcome = params(Occasion::Welcome { lead: 0 }, 3, 1, 1);
    let input = w.header(S, 2, LEN * 4, welcome);
    w.feed(input).receive(S, 0.5);
    assert_eq!(w.counters().lost, 2);
}
