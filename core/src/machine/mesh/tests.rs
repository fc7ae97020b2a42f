//! The parts of a mesh peer, each alone.

use alloc::vec;
use alloc::vec::Vec;

use super::marks::{Mark, Marks};
use super::neighbours::{Neighbours, Start};
use super::slots::{Slots, ack};
use crate::id::{Clock, Incarnation, PeerId, Sequence};
use crate::recipe::Correction;
use crate::vectors::Vectors;
use crate::wire::Quanta;

const ME: PeerId = PeerId(0);
/// The peer that is neighbour 0.
const PEER: PeerId = PeerId(1);

fn slots(relay: bool, neighbours: usize) -> Slots {
    let mut slots = Slots::new(&mut Vectors::default(), relay, neighbours, 64, 64);
    slots.enter(neighbours);
    slots
}

/// Messages `first` to `last` of this node.
fn own(first: u64, last: u64) -> Quanta {
    let (first, last) = (Sequence(first), Sequence(last));
    Quanta { origin: ME, incarnation: Incarnation(1), first, last, base: Clock(0) }
}

/// An own message of 8 bytes that is due to the first `due` neighbours.
fn put(slots: &mut Slots, number: u64, due: usize) -> usize {
    let slot = slots.free_own().unwrap();
    slots.occupy(slot, None, own(number, number), 8, true);
    slots.set_ready(slot);
    (0..due).for_each(|to| slots.set_due(slot, to, false));
    slot
}

#[test]
fn two_messages_are_open_at_once_and_the_order_is_that_of_arrival() {
    let mut slots = slots(false, 1);
    let [one, two, three] = [1, 2, 3].map(|number| put(&mut slots, number, 1));
    assert_eq!(slots.next_to_send(0), Some(one));
    assert!(!slots.on_sending(one, 0, PEER));
    assert_eq!(slots.next_to_send(0), Some(two));
    assert!(!slots.on_sending(two, 0, PEER));
    assert_eq!(slots.next_to_send(0), None);
    slots.on_sent(one);
    assert!(slots.take_unneeded(one).is_none());
    slots.set_unneeded(one, 0);
    assert_eq!(slots.take_unneeded(one).unwrap().ack(), ack(&own(1, 1)));
    assert_eq!(slots.next_to_send(0), Some(three));
}

#[test]
fn a_new_connection_sends_again_what_was_not_acknowledged() {
    let mut slots = slots(false, 2);
    let slot = put(&mut slots, 1, 2);
    assert!(!slots.on_sending(slot, 0, PEER));
    slots.on_sent(slot);
    assert_eq!((slots.next_to_send(0), slots.next_to_send(1)), (None, Some(slot)));
    slots.restart(0);
    slots.restart(1);
    assert_eq!((slots.next_to_send(0), slots.next_to_send(1)), (Some(slot), Some(slot)));
    assert!(slots.on_sending(slot, 0, PEER) && !slots.on_sending(slot, 1, PeerId(2)));
}

#[test]
fn messages_that_a_neighbour_may_have_are_not_merged() {
    let mut slots = slots(false, 2);
    let [one, two, three, four] = [1, 2, 3, 4].map(|number| put(&mut slots, number, 2));
    assert!(!slots.on_sending(one, 0, PEER));
    slots.on_sent(one);
    slots.set_due(two, 1, true);
    assert_eq!(slots.pair_to_merge(), Some([three, four]));
    let spare = slots.on_merging([three, four]);
    assert_eq!((slots.pair_to_merge(), slots.next_to_send(0)), (None, Some(two)));
    assert_eq!(slots.end_merge(), Some([three, four]));
    slots.take_spare(three, 12);
    slots.join([three, four]);
    assert_eq!(slots.body(three).buffer, spare.buffer);
    assert_eq!((slots.body(three).len, slots.entry(three).count()), (12, 2));
    assert_eq!(slots.free_own(), Some(four));
}

#[test]
fn a_relay_has_slots_for_each_neighbour() {
    let mut slots = slots(true, 2);
    for _ in 0..2 {
        let slot = slots.free_inbound(1).unwrap();
        slots.occupy(slot, Some(1), Quanta { origin: PeerId(2), ..own(1, 1) }, 8, true);
    }
    assert_eq!((slots.free_inbound(0).is_some(), slots.free_inbound(1)), (true, None));
    assert!(slots.taking(PeerId(2)).is_some() && slots.taking(PeerId(1)).is_none());
}

/// In a new view every own message is due again, to the neighbours of that view. Messages of other origins come again
/// as well.
#[test]
fn a_view_keeps_own_messages_only() {
    let mut slots = slots(true, 2);
    let slot = put(&mut slots, 1, 1);
    assert!(!slots.on_sending(slot, 0, PEER));
    let foreign = slots.free_inbound(1).unwrap();
    slots.occupy(foreign, Some(1), Quanta { origin: PeerId(2), ..own(1, 1) }, 8, true);
    assert!(!slots.is_quiet());
    slots.set_ready(foreign);
    assert!(slots.is_quiet());
    slots.enter(1);
    assert_eq!((slots.next_to_send(0), slots.first_awaited()), (Some(slot), Some(0)));
    assert!(slots.own().eq([slot]) && slots.has_own_up_to(slot, Sequence(1)) && !slots.are_all_free());
    slots.on_sent(slot);
    slots.enter(0);
    assert!(slots.take_unneeded(slot).is_some() && slots.are_all_free());
}

#[test]
fn neighbours_are_all_members_or_the_tree_around_a_node() {
    let ranks = |members: &[u32], me: u32, fan_out| {
        let members: Vec<_> = members.iter().copied().map(PeerId).collect();
        let mut neighbours = Neighbours::new(9, fan_out);
        neighbours.enter(PeerId(me), &members);
        (0..neighbours.len()).map(|index| neighbours.get(index).0).collect::<Vec<_>>()
    };
    let all = [0, 1, 2, 3, 4, 5, 6];
    assert_eq!(ranks(&all, 2, 0), [0, 1, 3, 4, 5, 6]);
    assert_eq!((ranks(&all, 0, 2), ranks(&all, 1, 2), ranks(&all, 6, 2)), (vec![1, 2], vec![0, 3, 4], vec![2]));
    // Without rank 1, the tree is another one.
    let some = [0, 2, 3, 4, 6];
    assert_eq!((ranks(&some, 2, 0), ranks(&some, 2, 2)), (vec![0, 3, 4, 6], vec![0, 4, 6]));
    assert_eq!((Neighbours::most(9, 0), Neighbours::most(9, 2), Neighbours::most(2, 2)), (8, 3, 1));
}

/// A node that is in the view takes no snapshot any more, even if its connection breaks. In a relay tree, a message
/// reaches all members behind a neighbour.
#[test]
fn messages_are_merged_only_when_no_snapshot_can_have_one_of_them() {
    let view = Sequence(4);
    let (mut mesh, mut relay) = (Neighbours::new(3, 0), Neighbours::new(3, 1));
    for neighbours in [&mut mesh, &mut relay] {
        neighbours.enter(ME, &[0, 1, 2].map(PeerId));
        neighbours.set_start(PeerId(1), Start { view, have: Sequence(0) });
        neighbours.forget_start(PeerId(1));
    }
    assert!(mesh.is_past_snapshots(0, view) && !mesh.is_past_snapshots(1, view) && !relay.is_past_snapshots(0, view));
    assert!(mesh.start(PeerId(1), view).is_none() && !mesh.is_past_snapshots(0, view.next()));
    relay.set_start(PeerId(2), Start { view, have: Sequence(0) });
    assert!(relay.is_past_snapshots(0, view));
}

#[test]
fn a_node_begins_after_the_first_ranks() {
    let correction = Correction { starters: 2, head_start: 5, ..Correction::none() };
    let mut marks = Marks::new(3);
    let begins = |marks: &Marks| marks.may_begin(PeerId(2), &correction);
    assert!(marks.may_begin(PeerId(1), &correction) && !begins(&marks));
    *marks.get_mut(PeerId(0)) = Mark::new(Incarnation(1), Sequence(3));
    assert_eq!(marks.slowest_starter(&correction), Some(PeerId(1)));
    marks.get_mut(PeerId(1)).out = true;
    assert_eq!((begins(&marks), marks.slowest_starter(&correction)), (false, Some(PeerId(0))));
    marks.get_mut(PeerId(0)).sequence = Sequence(5);
    assert!(begins(&marks));
}

#[test]
fn a_snapshot_does_not_undo_an_announced_end() {
    let origin = PeerId(1);
    let mut marks = Marks::new(2);
    *marks.get_mut(origin) = Mark { last: Some(Sequence(4)), ..Mark::new(Incarnation(1), Sequence(0)) };
    let mut offered = [Mark::default(), Mark::new(Incarnation(1), Sequence(4))];
    marks.adopt(&offered);
    assert!(marks.get(origin).is_complete());
    // The end was that of another process.
    offered[1].incarnation = Incarnation(2);
    marks.adopt(&offered);
    assert!(!marks.get(origin).is_over());
}

#[test]
fn a_view_undoes_the_end_of_an_earlier_process() {
    let mut marks = Marks::new(3);
    for rank in 0..3 {
        *marks.get_mut(PeerId(rank)) = Mark { last: Some(Sequence(4)), ..Mark::new(Incarnation(1), Sequence(4)) };
    }
    marks.enter(&[PeerId(0), PeerId(1)], |origin| Incarnation(u64::from(origin.0) + 1));
    let over: Vec<_> = marks.iter().map(|(_, mark)| (mark.last.is_some(), mark.out)).collect();
    assert_eq!(over, [(true, false), (false, false), (true, true)]);
}

#[test]
fn a_new_process_of_an_origin_begins_at_its_first_message() {
    let mark = Mark::new(Incarnation(1), Sequence(4));
    assert_eq!((mark.next(Incarnation(1)), mark.next(Incarnation(2))), (Sequence(5), Sequence(1)));
    assert!(mark.may_flow(Incarnation(1)) && !mark.may_flow(Incarnation(2)));
    // One ledger may hold messages of a process that the other has never heard of.
    assert!(!Mark::default().may_flow(Incarnation(1)));
    assert!(!mark.stands_for_the_same(&Mark::new(Incarnation(2), Sequence(4))));
    assert!(Mark::default().stands_for_the_same(&Mark::default()));
    // The other ledger may hold messages of the process before, of which this one has never heard.
    assert!(!Mark::default().stands_for_the_same(&Mark::new(Incarnation(2), Sequence(0))));
}

/// Messages that take much are rare: their buffers give back their memory when a short message has come after them.
#[test]
fn a_buffer_of_a_long_message_gives_back_its_memory_after_a_short_one() {
    let mut slots = Slots::new(&mut Vectors::default(), false, 1, 2000, 64);
    let mut pass = |length| {
        let slot = slots.free_own().unwrap();
        slots.occupy(slot, None, own(1, 1), length, true);
        slots.set_ready(slot);
        let buffer = slots.room(slot).buffer;
        let entry = slots.take_unneeded(slot).unwrap();
        (buffer, slots.take_unused(entry.length))
    };
    let (buffer, unused) = pass(1000);
    assert_eq!(unused, None);
    assert_eq!(pass(125), (buffer, None));
    assert_eq!(pass(124), (buffer, Some(buffer)));
    // There is nothing more to give back, and memory of 64 bytes stays.
    assert_eq!([pass(124).1, pass(64).1, pass(4).1, pass(4).1], [None, None, Some(buffer), None]);
    assert_eq!([pass(64).1, pass(4).1], [None, None]);
}
