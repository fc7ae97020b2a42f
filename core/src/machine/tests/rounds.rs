//! Rounds with codecs, input by input: every hop of a tree encodes, and a mesh gathers the messages of all members.

use super::collective::{down, up};
use super::*;
use crate::codec::BodyError;
use crate::recipe::{Codec, Correction, Topology};
use crate::wire::Part;

/// In bf16, 1 + 2^-9 becomes 1.
const STEP: f32 = 1.0 + 1.0 / 512.0;

/// Two elements of a bf16 body, as one float.
fn pair(value: f32) -> f32 {
    f32::from_bits(value.to_bits() >> 16 | value.to_bits())
}

/// Worker `me` of `workers`, in view 1 with parameters of zero that rank 0 has given.
fn member(recipe: Recipe, me: u32, workers: u32) -> Trace {
    let mut m = trace(recipe.with_codec(Codec::Bf16), me, workers);
    for peer in (0..workers).filter(|peer| *peer != me) {
        m.hello(peer, 1).expect_event(joined(peer, 1));
        if peer == 0 {
            m.expect_report();
        }
    }
    m.commit(1, workers, 0, 0);
    m.expect_transmit(0, Kind::Fetch);
    m.send(0, Message::Parameters { view: Sequence(1), round: Clock(0), vector: 0, riders: None }, 0.0);
    m.expect_signal(Signal::Joined { clock: Clock(0) }).expect_idle();
    m
}

fn chain(me: u32, workers: u32) -> Trace {
    member(Recipe::sync().with_topology(Topology::Tree { fan_in: 1 }), me, workers)
}

fn mesh(me: u32, workers: u32) -> Trace {
    member(Recipe::sparse(0.5), me, workers)
}

impl Trace {
    /// A message with a body of `value` in bf16. If the machine takes the body now, it gets it.
    fn send_coded(&mut self, from: u32, message: Message, value: f32) -> &mut Self {
        self.announce(from, message, LEN / 2).receive(from, pair(value))
    }

    /// An encoded mean or result goes out.
    #[track_caller]
    fn expect_coded(&mut self, to: u32, kind: Kind, round: u64, weight: u64, value: f32) -> &mut Self {
        let (op, message, body) = self.expect_sending(to, kind);
        let (Message::Up(part) | Message::Down(part)) = message else { panic!("{message:?}") };
        assert_eq!((part.round.0, part.weight), (round, weight), "{message:?}");
        let body = body.map(|body| self.pool.floats(body).to_vec());
        assert_eq!(body, (weight > 0).then(|| alloc::vec![pair(value); LEN / 2]));
        self.feed(Input::Completed { op, result: KernelResult::Nothing })
    }

    /// Every element of the residual has this value.
    #[track_caller]
    fn expect_residual(&mut self, value: f64) -> &mut Self {
        assert_eq!(self.machine.status().residual_norm, value * (LEN as f64).sqrt());
        self
    }
}

#[test]
fn a_leaf_keeps_what_its_message_lacks() {
    let mut m = chain(1, 2);
    m.step(STEP).expect_coded(0, Kind::Up, 1, 1, 1.0).expect_residual(1.0 / 512.0);
    m.send_coded(0, down(1, 2), 0.5).expect_ready(1).expect_view(-0.5).expect_idle();
    // 2^-9 and 3 * 2^-9 are one step of bf16.
    m.step(1.0 + 3.0 / 512.0).expect_coded(0, Kind::Up, 2, 1, 1.0 + 1.0 / 128.0).expect_residual(0.0);
}

#[test]
fn an_inner_node_decodes_and_encodes_again() {
    let mut m = chain(1, 3);
    m.send_coded(2, up(1, 1), 1.0).expect_idle();
    m.step(STEP).expect_coded(0, Kind::Up, 1, 2, 1.0).expect_residual(1.0 / 1024.0);
    // The result is passed on as it came.
    m.send_coded(0, down(1, 3), 0.25).expect_coded(2, Kind::Down, 1, 3, 0.25);
    m.expect_ready(1).expect_view(-0.25).expect_idle();
}

#[test]
fn a_round_that_begins_anew_sends_the_same_message() {
    let mut m = chain(1, 2);
    m.step(STEP).expect_coded(0, Kind::Up, 1, 1, 1.0);
    m.commit(2, 2, 0, 0);
    m.expect_coded(0, Kind::Up, 1, 1, 1.0).expect_residual(1.0 / 512.0);
    let again = Part { view: Sequence(2), round: Clock(1), chunk: 0, weight: 2, finishing: false, rider: None };
    m.send_coded(0, Message::Down(again), 0.5).expect_ready(1).expect_view(-0.5).expect_idle();
}

/// The round was done at the donor: the contribution is in it, so the residual after the round counts.
#[test]
fn a_member_without_the_result_keeps_the_residual_of_the_round() {
    let mut m = chain(1, 2);
    m.step(STEP).expect_coded(0, Kind::Up, 1, 1, 1.0);
    m.commit(2, 2, 1, 0);
    m.expect_transmit(0, Kind::Fetch);
    m.send(0, Message::Parameters { view: Sequence(2), round: Clock(1), vector: 0, riders: None }, -0.5)
        .expect_ready(1);
    m.expect_view(-0.5).step(1.0 + 3.0 / 512.0).expect_sending(0, Kind::Up);
    m.expect_residual(0.0);
}

#[test]
fn a_malformed_result_breaks_the_connection_and_changes_nothing() {
    let mut m = chain(1, 2);
    m.step(STEP).expect_coded(0, Kind::Up, 1, 1, 1.0);
    m.announce(0, down(1, 2), LEN / 2).receive(0, f32::NAN);
    let event = m.wants.pop_front();
    let refused = |reason| matches!(reason, Rejection::Malformed(BodyError::Value { .. }));
    assert!(matches!(event, Some(Output::Event(Event::Rejected { peer: PeerId(0), reason })) if refused(reason)));
    m.expect_close(0, ProtocolError::Unexpected { kind: Kind::Down }).expect_view(0.0).expect_idle();
}

#[test]
fn a_member_of_a_mesh_sends_its_message_to_all_and_applies_the_mean() {
    let mut m = mesh(1, 3);
    m.step(STEP).expect_coded(0, Kind::Up, 1, 1, 1.0).expect_coded(2, Kind::Up, 1, 1, 1.0);
    m.expect_residual(1.0 / 512.0).expect_waiting(Some(0)).expect_idle();
    m.send_coded(2, up(1, 2), 2.0).expect_idle();
    // (1 * 1 + 1 * 1 + 2 * 2) / 4
    m.send_coded(0, up(1, 1), 1.0).expect_ready(1).expect_view(-1.5).expect_idle();
}

/// Bodies are taken in rank order. Only the coordinator's node, rank 0, does not have to wait.
#[test]
fn bodies_wait_for_their_turn() {
    let mut m = mesh(1, 4);
    m.announce(3, up(1, 1), LEN / 2).announce(0, up(1, 1), LEN / 2);
    assert!(m.take_receive(3).is_none());
    m.receive(0, pair(1.0)).expect_idle();
    m.send_coded(2, up(1, 1), 1.0).receive(3, pair(1.0)).expect_idle();
    m.step(1.0);
    for to in [0, 2, 3] {
        m.expect_coded(to, Kind::Up, 1, 1, 1.0);
    }
    m.expect_ready(1).expect_view(-1.0).expect_idle();
}

/// The coordinator's node is a round ahead. Its message must not stand in front of the coordinator's messages.
#[test]
fn the_next_message_of_the_coordinators_node_is_taken_early() {
    let mut m = mesh(1, 3);
    m.step(1.0).expect_coded(0, Kind::Up, 1, 1, 1.0).expect_coded(2, Kind::Up, 1, 1, 1.0);
    m.send_coded(0, up(1, 1), 1.0).send_coded(0, up(2, 1), 3.0).expect_idle();
    m.send_coded(2, up(1, 1), 1.0).expect_ready(1).expect_view(-1.0).expect_idle();
    m.step(3.0).expect_coded(0, Kind::Up, 2, 1, 3.0).expect_coded(2, Kind::Up, 2, 1, 3.0);
    m.send_coded(2, up(2, 1), 3.0).expect_ready(2).expect_view(-4.0).expect_idle();
}

#[test]
fn a_message_of_a_mesh_is_encoded_once() {
    let mut m = mesh(1, 2);
    m.step(STEP).expect_coded(0, Kind::Up, 1, 1, 1.0);
    m.commit(2, 2, 0, 0);
    m.expect_coded(0, Kind::Up, 1, 1, 1.0).expect_residual(1.0 / 512.0).expect_idle();
}

/// Warm-up and ramp count a node's own messages: one that comes later begins with dense ones.
#[test]
fn a_newcomer_to_a_mesh_begins_with_its_own_first_message() {
    let correction = Correction { warmup: 1, ..Correction::none() };
    let mut m = trace(Recipe::sparse(0.5).with_correction(correction), 1, 2);
    m.hello(0, 1).expect_event(joined(0, 1)).expect_report();
    m.commit(1, 2, 5, 0).expect_transmit(0, Kind::Fetch);
    m.send(0, Message::Parameters { view: Sequence(1), round: Clock(5), vector: 0, riders: None }, 0.0);
    m.expect_signal(Signal::Joined { clock: Clock(5) });
    // Four elements of four, then two, after the two that the first message has left.
    for (round, entries) in [(6, 4), (7, 6), (8, 8)] {
        m.step(1.0).expect_transmit(0, Kind::Up);
        m.tell(0, up(round, 0)).expect_ready(round).expect_idle();
        assert_eq!(m.counters().entries, entries);
        // Parts without examples are counted, each once.
        assert_eq!(m.counters().empty, round - 5);
    }
}

#[test]
fn a_malformed_message_of_a_mesh_is_left_out() {
    let mut m = mesh(1, 2);
    m.step(1.0).expect_coded(0, Kind::Up, 1, 1, 1.0);
    m.announce(0, up(1, 1), LEN / 2).receive(0, f32::NAN);
    assert!(matches!(m.wants.pop_front(), Some(Output::Event(Event::Rejected { peer: PeerId(0), .. }))));
    m.expect_ready(1).expect_view(-1.0).expect_idle();
    assert_eq!(m.counters().rejected, 1);
}

#[test]
fn a_node_that_leaves_says_what_its_residual_holds() {
    let mut m = chain(1, 2);
    m.step(STEP).expect_coded(0, Kind::Up, 1, 1, 1.0);
    m.send_coded(0, down(1, 2), 0.5).expect_ready(1);
    m.feed(Input::Leave { stay: false, keep: false }).expect_report();
    m.tell(0, Message::Release);
    let rest = m.wants.pop_front();
    let Some(Output::Event(Event::Rest(rest))) = rest else { panic!("{rest:?}") };
    assert_eq!((rest.norm, rest.messages, rest.kept), (2.0 / 512.0, 0, 2.0 / 512.0));
    // Relative to the contribution, four elements of `STEP`.
    assert!((rest.updates - 1.0 / 513.0).abs() < 1e-6, "{rest:?}");
    assert_eq!(m.machine.status().rest, Some(rest));
    m.expect_transmit(0, Kind::Leave);
}
