//! Contributions that are given range by range, input by input.

use core::ops::Range;

use super::collective::{member_of, part, up};
use super::*;
use crate::recipe::{Codec, Topology};
use crate::wire::Part;

/// A rule whose contributions sessions give range by range. A tree of other rules begins with the last range.
fn gradients() -> Recipe {
    Recipe::preset("gradients").expect("a preset")
}

/// A chain of workers whose vector of four floats travels in two chunks.
fn chunked(me: u32, workers: u32) -> Trace {
    member_of(gradients().with_topology(Topology::Tree { fan_in: 1 }).with_chunk(2), me, workers)
}

/// A part of a chunk in round 1 of view 1.
fn chunk(chunk: u32, weight: u64) -> Part {
    Part { chunk, ..part(1, weight) }
}

impl Trace {
    /// The application begins a contribution. It has written nothing yet: the buffer holds no numbers.
    fn begin(&mut self) -> &mut Self {
        let contribution = Segment::floats(self.machine.contribution(), 0, LEN);
        self.pool.floats_mut(contribution).fill(f32::NAN);
        self.feed(Input::Begin { weight: 1 })
    }

    /// The application gives a range, with `value` in every element.
    fn write(&mut self, range: Range<usize>, value: f32) -> &mut Self {
        let (first, len) = (range.start, range.len());
        let into = Segment::floats(self.machine.contribution(), first, len);
        self.pool.floats_mut(into).fill(value);
        self.feed(Input::Given { first, len })
    }

    #[track_caller]
    fn expect_misuse(&mut self, input: Input, misuse: Misuse) -> &mut Self {
        assert_eq!(self.machine.handle_input(self.now, input), Err(misuse));
        self.drain();
        self
    }

    /// A mean or a result of a chunk goes out, with `value` in both elements.
    #[track_caller]
    fn expect_chunk(&mut self, to: u32, kind: Kind, expected: Part, value: f32) -> &mut Self {
        let (op, message, body) = self.expect_sending(to, kind);
        let (Message::Up(part) | Message::Down(part)) = message else { panic!("{message:?}") };
        assert_eq!(part, expected);
        assert_eq!(self.pool.floats(body.unwrap()), [value; 2]);
        self.feed(Input::Completed { op, result: KernelResult::Nothing })
    }

    /// A message about a chunk, with a body of `value` in both elements.
    fn send_chunk(&mut self, from: u32, message: Message, value: f32) -> &mut Self {
        self.announce(from, message, 2).receive(from, value)
    }
}

/// The parent has a range's chunk although the other range was never given. Until it is, the node waits for no peer.
#[test]
fn a_leaf_sends_the_chunks_of_a_range_before_it_has_the_others() {
    let mut m = chunked(1, 2);
    m.begin().expect_idle();
    m.write(2..4, 0.5).expect_chunk(0, Kind::Up, chunk(1, 1), 0.5).expect_waiting(None).expect_idle();
    // Its result may even come before the rest is given, and does not end the round.
    m.send_chunk(0, Message::Down(chunk(1, 2)), 0.25).expect_idle();
    m.write(0..2, 1.5).expect_chunk(0, Kind::Up, chunk(0, 1), 1.5).expect_waiting(Some(0)).expect_idle();
    m.send_chunk(0, Message::Down(chunk(0, 2)), 0.75).expect_ready(1).expect_idle();
    let view = Segment::floats(m.machine.view(), 0, LEN);
    assert_eq!(m.pool.floats(view), [0.75, 0.75, 0.25, 0.25]);
}

/// A node between others makes the mean of a chunk as soon as the children's parts and its own are there.
#[test]
fn an_inner_node_reduces_the_chunks_of_a_range_before_it_has_the_others() {
    let mut m = chunked(1, 3);
    m.begin();
    m.send_chunk(2, Message::Up(chunk(0, 3)), 5.0).send_chunk(2, Message::Up(chunk(1, 3)), 1.0).expect_idle();
    m.write(0..2, 1.0).expect_chunk(0, Kind::Up, chunk(0, 4), 4.0).expect_idle();
    m.write(2..4, 1.0).expect_chunk(0, Kind::Up, chunk(1, 4), 1.0).expect_idle();
}

/// A chunk that several ranges cover waits for all of them.
#[test]
fn a_chunk_waits_for_all_of_its_ranges() {
    let mut m = chunked(1, 2);
    m.begin().write(1..3, 1.0).expect_idle();
    m.write(3..3, 1.0).expect_idle();
    m.write(3..4, 1.0).expect_chunk(0, Kind::Up, chunk(1, 1), 1.0).expect_idle();
    m.write(0..1, 1.0).expect_chunk(0, Kind::Up, chunk(0, 1), 1.0).expect_idle();
}

/// The application still writes other ranges of the buffer, and a transmission lends whole buffers.
#[test]
fn the_contribution_is_not_lent_before_all_of_it_is_there() {
    let mut m = chunked(1, 2);
    let own = m.machine.contribution();
    m.begin().write(2..4, 1.0);
    let (_, _, body) = m.expect_sending(0, Kind::Up);
    assert_ne!(body.unwrap().buffer, own);
    m.write(0..2, 1.0);
    let (_, _, body) = m.expect_sending(0, Kind::Up);
    assert_eq!(body.unwrap().buffer, own);
}

/// A round is all or nothing, also when a view ends that has seen a part of a contribution.
#[test]
fn a_round_begins_anew_with_the_ranges_that_are_there() {
    let mut m = chunked(1, 3);
    m.begin().send_chunk(2, Message::Up(chunk(1, 3)), 5.0).send_chunk(2, Message::Up(chunk(0, 3)), 5.0);
    m.write(2..4, 1.0).expect_chunk(0, Kind::Up, chunk(1, 4), 4.0).expect_idle();
    // Worker 2 is lost.
    m.commit(2, 2, 0, 0);
    let again = |of: Part| Part { view: Sequence(2), ..of };
    m.expect_chunk(0, Kind::Up, again(chunk(1, 1)), 1.0).expect_view(1.0).expect_idle();
    m.send_chunk(0, Message::Down(again(chunk(1, 2))), 0.5).expect_view(1.0).expect_idle();
    m.write(0..2, 1.0).expect_chunk(0, Kind::Up, again(chunk(0, 1)), 1.0);
    m.send_chunk(0, Message::Down(again(chunk(0, 2))), 0.5).expect_ready(1).expect_view(0.5).expect_idle();
}

/// The run has gone on without this node: the application is told at once, and the rest has no effect.
#[test]
fn ranges_of_a_contribution_that_is_dropped_have_no_effect() {
    let recipe = gradients().with_topology(Topology::Tree { fan_in: 1 }).with_chunk(2);
    let mut m = member_of(recipe, 1, 2);
    m.begin().write(2..4, 0.5).expect_chunk(0, Kind::Up, chunk(1, 1), 0.5);
    let (number, round, donor) = (Sequence(2), Clock(3), PeerId(0));
    m.tell(0, Message::Prepare { view: number }).expect_report();
    m.tell(0, Message::Members { view: number, first: PeerId(0), mask: 0b11 });
    m.tell(0, Message::Commit(crate::wire::Commit { view: number, round, donor, last: false, returns: true }));
    m.expect_event(Event::View { number: 2, members: 2 }).expect_transmit(0, Kind::Fetch);
    m.send(0, Message::Parameters { view: number, round, vector: 0, riders: None }, 7.0).expect_ready(3);
    m.write(0..2, 0.5).expect_idle();
    assert_eq!((m.machine.adoption(), m.counters().lost), (Adoption::Told, 1));
    // The next contribution is whole, and none of these ranges count for it.
    m.begin().write(2..4, 0.5);
    let next = Part { view: number, round: Clock(4), ..chunk(1, 1) };
    m.expect_chunk(0, Kind::Up, next, 0.5).expect_idle();
}

/// A member of a mesh encodes the whole vector, and begins when it is there.
#[test]
fn a_mesh_begins_with_the_last_range() {
    let mut m = member_of(Recipe::sparse(1.0), 1, 2);
    m.begin().write(2..4, 1.0).expect_waiting(None).expect_idle();
    m.write(0..2, 1.0);
    let (_, message, _) = m.expect_sending(0, Kind::Up);
    assert_eq!(message, up(1, 1));
}

/// The norm of a contribution is that of all of it: before, a part of the buffer holds no numbers.
#[test]
fn a_contribution_is_measured_when_all_of_it_is_there() {
    let recipe = gradients().with_topology(Topology::Tree { fan_in: 1 }).with_chunk(2).with_codec(Codec::Bf16);
    let mut m = member_of(recipe, 1, 2);
    // In bf16, 1 + 2^-9 becomes 1.
    let value = 1.0 + 1.0 / 512.0;
    m.begin().write(2..4, value);
    let _ = m.expect_transmit(0, Kind::Up);
    m.expect_idle().write(0..2, value);
    let _ = m.expect_transmit(0, Kind::Up);
    let status = m.machine.status();
    assert_eq!(status.residual_updates, status.residual_norm / (f64::from(value) * 2.0));
}

/// Without examples, no range is needed.
#[test]
fn a_contribution_without_examples_has_no_ranges() {
    let mut m = chunked(1, 2);
    m.feed(Input::Begin { weight: 0 });
    for index in 0..2 {
        let message = m.expect_transmit(0, Kind::Up);
        assert_eq!(message, Message::Up(chunk(index, 0)));
    }
    m.feed(Input::Given { first: 0, len: 4 }).expect_idle();
}

#[test]
fn a_range_twice_or_outside_is_a_misuse_and_changes_nothing() {
    let mut m = chunked(1, 2);
    m.begin().write(2..4, 1.0).expect_chunk(0, Kind::Up, chunk(1, 1), 1.0);
    for (first, len) in [(3, 1), (0, 3), (0, 5), (4, 1), (usize::MAX, 2)] {
        let misuse = m.machine.handle_input(m.now, Input::Given { first, len }).unwrap_err();
        assert!(matches!(misuse, Misuse::Range { .. }), "{misuse:?}");
    }
    m.expect_misuse(Input::Begin { weight: 1 }, Misuse::NotReady);
    m.expect_misuse(Input::Step { weight: 1 }, Misuse::NotReady);
    m.expect_misuse(Input::Leave { stay: true, keep: false }, Misuse::NotReady).expect_idle();
    m.write(0..2, 1.0).expect_chunk(0, Kind::Up, chunk(0, 1), 1.0).expect_idle();
    m.expect_misuse(Input::Given { first: 0, len: 1 }, Misuse::Range { first: 0, len: 1 });
    // Servers take whole contributions.
    let mut worker = trace(Recipe::asynchronous(), 0, 2);
    worker.expect_misuse(Input::Begin { weight: 1 }, Misuse::NotReady);
    worker.expect_misuse(Input::Given { first: 0, len: 1 }, Misuse::NotReady);
}
