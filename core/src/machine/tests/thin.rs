//! B-FASGD (Odena 2016): contributions that repeat the last one, and steps without a fetch, input by input.

use super::server::server;
use super::*;
use crate::recipe::Hint;
use crate::rider::Rider;

/// The rank of the server in runs of one worker.
const S: u32 = 1;

fn recipe() -> Recipe {
    "fasgd keep=0.5 length=0.5 least=0.5 push_cost=1000 fetch_cost=1000".parse().unwrap()
}

fn repeat(worker: u32, incarnation: u64, sequence: u64, base: u64) -> Message {
    Message::Push(Push { repeats: true, fetches: false, ..push_message(worker, incarnation, sequence, base) })
}

fn receipt(sequence: u64, magnitude: f64) -> Message {
    Message::Receipt { shard: ShardId(0), sequence: Sequence(sequence), magnitude: Rider::new(magnitude) }
}

fn answer(sequence: u64, magnitude: Option<f64>) -> Message {
    let answer = reply(Occasion::Answer { reference: None }, sequence, sequence, sequence);
    Message::Params(Reply { magnitude: magnitude.and_then(Rider::new), ..answer })
}

#[test]
fn a_server_applies_the_last_contribution_of_the_worker_again() {
    let mut s = server(recipe(), 2);
    s.push(0, 1, 0, 1.0);
    // The mean of magnitudes is 1/2 of the first one.
    assert_eq!(s.expect_transmit(0, Kind::Params), answer_of(0, 1, 1, 0, 0.5));
    s.push(1, 1, 0, 4.0);
    assert_eq!(s.expect_transmit(1, Kind::Params), answer_of(1, 1, 2, 1, 2.25));
    s.tell(0, repeat(0, 1, 2, 1));
    assert_eq!(s.expect_transmit(0, Kind::Ack), receipt(2, 1.625));
    // 0.5 * 1 / (0.5 + 0.5), 0.5 * 4 / (2.25 + 0.5) of staleness 1, 0.5 * 1 / (1.625 + 0.5) of staleness 1.
    let expected = -(0.5 + 0.5 * (0.5 * 4.0 / 2.75) + 0.5 * (0.5 / 2.125));
    let view = Segment::floats(s.machine.view(), 0, LEN);
    assert!(s.pool.floats(view).iter().all(|x| (x - expected as f32).abs() < 1e-6), "{:?}", s.pool.floats(view));
    // It is known when it comes again.
    s.tell(0, repeat(0, 1, 2, 1));
    assert_eq!(s.expect_transmit(0, Kind::Ack), receipt(2, 1.625));
    s.expect_idle();
    assert_eq!((s.counters().applied, s.counters().repeated, s.counters().duplicates), (3, 1, 1));
}

fn answer_of(_to: u32, sequence: u64, version: u64, row: u64, magnitude: f64) -> Message {
    let answer = reply(Occasion::Answer { reference: None }, sequence, version, row);
    Message::Params(Reply { magnitude: Rider::new(magnitude), ..answer })
}

/// Neither a worker that has sent nothing yet nor a new process of one can have something repeated; and it is told no
/// magnitude.
#[test]
fn what_a_server_does_not_have_cannot_be_repeated() {
    let refused = ProtocolError::NothingToRepeat { got: Sequence(1) };
    let mut s = server(recipe(), 2);
    s.push(0, 1, 0, 1.0).expect_params(0, 1, 1, 0);
    s.tell(1, repeat(1, 1, 1, 0)).expect_close(1, refused);
    s.disconnect(0).hello(0, 2).expect_event(joined(0, 2));
    let welcome = s.expect_transmit(0, Kind::Params);
    assert!(matches!(welcome, Message::Params(reply) if reply.magnitude.is_none()), "{welcome:?}");
    let input = s.header(0, 2, 0, repeat(0, 2, 1, 1));
    s.feed(input).expect_close(0, refused);
    // Without B-FASGD, no contribution with examples is without a body.
    let mut s = server("fasgd".parse().unwrap(), 1);
    s.push(0, 1, 0, 1.0).expect_params(0, 1, 1, 1);
    let length = ProtocolError::Length { kind: Kind::Push, expected: 16, got: 0 };
    s.tell(0, repeat(0, 1, 2, 1)).expect_close(0, length);
}

/// A contribution that is refused is not kept.
#[test]
fn a_refused_contribution_is_not_repeated() {
    let mut s = server(recipe(), 1);
    s.push(0, 1, 0, f32::NAN);
    assert!(matches!(s.wants.pop_front(), Some(Output::Event(Event::Rejected { .. }))));
    let answer = s.expect_transmit(0, Kind::Params);
    assert!(matches!(answer, Message::Params(reply) if reply.magnitude.is_none()), "{answer:?}");
}

/// Worker 0 of one, which has met the server and taken parameters.
fn worker() -> Trace {
    let mut w = trace(recipe(), 0, 1);
    w.hello(S, 1).expect_idle();
    w.send(S, Message::Params(reply(Occasion::Welcome { lead: 0 }, 0, 0, 0)), 1.0);
    w.expect_signal(Signal::Joined { clock: Clock(0) }).expect_event(Event::Hint(Hint::Repeats)).expect_idle();
    w
}

/// The next push: base, and whether it repeats and fetches.
#[track_caller]
fn expect_push(w: &mut Trace, base: u64, repeats: bool, fetches: bool) {
    let (op, message, body) = w.expect_sending(S, Kind::Push);
    w.feed(Input::Completed { op, result: KernelResult::Nothing });
    let Message::Push(push) = message else { panic!("{message:?}") };
    assert_eq!(
        (push.base.0, push.repeats, push.fetches, body.is_none()),
        (base, repeats, fetches, repeats),
        "{push:?}"
    );
}

#[test]
fn a_worker_sends_everything_until_it_knows_the_magnitude() {
    let mut w = worker();
    for sequence in 1..4 {
        w.step(0.5);
        expect_push(&mut w, sequence - 1, false, true);
        w.send(S, answer(sequence, None), 0.25).expect_ready(sequence);
    }
    w.step(0.5);
    expect_push(&mut w, 3, false, true);
    w.send(S, answer(4, Some(1e-6)), 0.5).expect_ready(4);
    // The last contribution with a body was made from version 3.
    for sequence in 5..7 {
        w.step(0.125);
        expect_push(&mut w, 3, true, false);
        let own = Signal::Ready { clock: Clock(sequence), changed: false };
        w.tell(S, receipt(sequence, 1e-6)).expect_signal(own).expect_view(0.5);
    }
    assert_eq!((w.counters().skipped_pushes, w.counters().skipped_fetches), (2, 2));
    // A magnitude that is large for the cost: everything is sent, from the version that was taken last.
    w.step(0.125);
    expect_push(&mut w, 3, true, false);
    w.tell(S, receipt(7, 1e30)).expect_signal(Signal::Ready { clock: Clock(7), changed: false });
    w.step(0.125);
    expect_push(&mut w, 4, false, true);
}

/// As many updates are sent as the shares add up to.
#[test]
fn a_share_of_the_updates_is_sent() {
    let mut w = worker();
    w.step(0.5);
    expect_push(&mut w, 0, false, true);
    // With least / 10 = 0.05, the share is a quarter.
    w.send(S, answer(1, Some(1000.0 / 3.0 - 0.05)), 0.5).expect_ready(1);
    let (mut sent, mut fetched) = (Vec::new(), Vec::new());
    for sequence in 2..14u64 {
        w.step(0.5);
        let Message::Push(push) = w.expect_transmit(S, Kind::Push) else { panic!() };
        sent.push(!push.repeats);
        fetched.push(push.fetches);
        let magnitude = Rider::new(1000.0 / 3.0 - 0.05);
        let receipt = Message::Receipt { shard: ShardId(0), sequence: Sequence(sequence), magnitude };
        match push.fetches {
            true => _ = w.send(S, answer(sequence, Some(1000.0 / 3.0 - 0.05)), 0.5).expect_ready(sequence),
            false => {
                w.tell(S, receipt).expect_signal(Signal::Ready { clock: Clock(sequence), changed: false });
            }
        }
    }
    let at = |due: &[bool]| due.iter().enumerate().filter(|(_, due)| **due).map(|(at, _)| at).collect::<Vec<_>>();
    // Pushes and fetches take turns.
    assert_eq!((at(&sent), at(&fetched)), (alloc::vec![3, 7, 11], alloc::vec![1, 5, 9]));
}

/// A resumed worker goes on where its meters were, after the one contribution that the server has to get.
#[test]
fn the_meters_outlive_a_suspension() {
    let magnitude = Some(1000.0 / 3.0 - 0.05);
    let pushes = |w: &mut Trace, first: u64, count: u64| {
        let mut sent = Vec::new();
        for sequence in first..first + count {
            w.step(0.5);
            let Message::Push(push) = w.expect_transmit(S, Kind::Push) else { panic!() };
            sent.push(!push.repeats);
            w.send(S, answer(sequence, magnitude), 0.5);
            w.wants.clear();
        }
        sent
    };
    let mut w = worker();
    assert_eq!(pushes(&mut w, 1, 3), [true, false, false]);
    let saved: Vec<_> = w.machine.saved().iter().map(|buffer| buffer.save(&w.pool)).collect();
    assert_eq!(saved, [[0.5f32.to_bits(); 2]]);
    let mut resumed = worker();
    let buffers = resumed.machine.saved();
    buffers[0].restore(&mut resumed.pool, &saved[0]).unwrap();
    assert_eq!(pushes(&mut resumed, 1, 3), [true, false, true]);
}

/// A restarted server has nothing to repeat. A broken connection changes nothing.
#[test]
fn a_worker_sends_everything_to_a_restarted_server() {
    let mut w = worker();
    w.step(0.5);
    expect_push(&mut w, 0, false, true);
    w.send(S, answer(1, Some(1e-6)), 0.5).expect_ready(1);
    w.step(0.5);
    expect_push(&mut w, 0, true, false);
    // The same again after a broken connection.
    w.disconnect(S).hello(S, 1);
    expect_push(&mut w, 0, true, false);
    w.tell(S, receipt(2, 1e-6)).expect_signal(Signal::Ready { clock: Clock(2), changed: false });
    w.disconnect(S).hello(S, 2);
    w.expect_transmit(S, Kind::State);
    w.step(0.5);
    let welcome = Message::Params(reply(Occasion::Welcome { lead: 0 }, 2, 1, 1));
    let input = w.header(S, 2, LEN * 4, welcome);
    w.feed(input).receive(S, 0.5);
    expect_push(&mut w, 1, false, true);
}
