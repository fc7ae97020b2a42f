//! The parts of a mesh peer, each alone.

use alloc::vec;

use super::marks::{End, Mark, Marks};
use super::neighbours::Neighbours;
use super::slots::{Slots, ack};
use crate::id::{Clock, Incarnation, PeerId, Sequence};
use crate::recipe::Correction;
use crate::vectors::Vectors;
use crate::wire::{Quanta, SnapshotMark};

const ME: PeerId = PeerId(0);

fn slots(relay: bool, neighbours: usize) -> Slots {
    Slots::new(&mut Vectors::default(), relay, neighbours, 64)
}

/// Messages `first` to `last` of this node.
fn own(first: u64, last: u64) -> Quanta {
    let (first, last) = (Sequence(first), Sequence(last));
    Quanta { origin: ME, incarnation: Incarnation(1), first, last, base: Clock(0) }
}

/// An own message of 8 bytes that is due to the first `due` neighbours.
fn put(slots: &mut Slots, number: u64, due: usize) -> usize {
    let slot = slots.free_own().unwrap();
    slots.occupy(slot, None, own(number, number), 8);
    slots.set_ready(slot);
    (0..due).for_each(|to| slots.set_due(slot, to, false));
    slot
}

#[test]
fn two_messages_are_open_at_once_and_the_order_is_that_of_arrival() {
    let mut slots = slots(false, 1);
    let [one, two, three] = [1, 2, 3].map(|number| put(&mut slots, number, 1));
    assert_eq!(slots.next_to_send(0), Some(one));
    slots.on_sending(one, 0);
    assert_eq!(slots.next_to_send(0), Some(two));
    slots.on_sending(two, 0);
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
    slots.on_sending(slot, 0);
    slots.on_sent(slot);
    assert_eq!(slots.first_needed(ME, 0), Some(Sequence(1)));
    assert_eq!((slots.on_reconnected(0), slots.on_reconnected(1)), (1, 0));
    assert_eq!((slots.next_to_send(0), slots.next_to_send(1)), (Some(slot), Some(slot)));
}

#[test]
fn messages_that_a_neighbour_may_have_are_not_merged() {
    let mut slots = slots(false, 2);
    let [one, two, three, four] = [1, 2, 3, 4].map(|number| put(&mut slots, number, 2));
    slots.on_sending(one, 0);
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
        slots.occupy(slot, Some(1), Quanta { origin: PeerId(2), ..own(1, 1) }, 8);
    }
    assert_eq!((slots.free_inbound(0).is_some(), slots.free_inbound(1)), (true, None));
    assert!(slots.is_taking(PeerId(2)) && !slots.is_taking(PeerId(1)));
}

#[test]
fn neighbours_are_all_peers_or_the_tree_around_a_node() {
    let ranks = |me: u32, fan_out| {
        let neighbours = Neighbours::new(PeerId(me), 7, fan_out);
        neighbours.iter().map(|neighbour| neighbour.peer.0).collect::<alloc::vec::Vec<_>>()
    };
    assert_eq!(ranks(2, 0), [0, 1, 3, 4, 5, 6]);
    assert_eq!((ranks(0, 2), ranks(1, 2), ranks(6, 2)), (vec![1, 2], vec![0, 3, 4], vec![2]));
    let inner = Neighbours::new(PeerId(1), 7, 2);
    assert!(inner.is_leaf(PeerId(3)) && !inner.is_leaf(PeerId(0)));
}

#[test]
fn a_node_begins_after_the_first_ranks() {
    let correction = Correction { starters: 2, head_start: 5, ..Correction::none() };
    let mut marks = Marks::new(3);
    let begins = |marks: &Marks| marks.may_begin(PeerId(2), &correction);
    assert!(marks.may_begin(PeerId(1), &correction) && !begins(&marks));
    *marks.get_mut(PeerId(0)) = Mark::new(Incarnation(1), Sequence(3));
    assert_eq!(marks.slowest_starter(&correction), Some(PeerId(1)));
    marks.get_mut(PeerId(1)).lost = true;
    assert_eq!((begins(&marks), marks.slowest_starter(&correction)), (false, Some(PeerId(0))));
    marks.get_mut(PeerId(0)).sequence = Sequence(5);
    assert!(begins(&marks));
}

#[test]
fn a_snapshot_does_not_undo_an_announced_end() {
    let origin = PeerId(1);
    let mut marks = Marks::new(2);
    let end = Some(End { last: Sequence(4), stays: true });
    *marks.get_mut(origin) = Mark { end, ..Mark::new(Incarnation(1), Sequence(0)) };
    let mut mark = SnapshotMark {
        request: 1,
        origin,
        incarnation: Incarnation(1),
        sequence: Sequence(4),
        last: None,
        lost: false,
    };
    marks.adopt(&mark);
    assert!(marks.get(origin).is_complete());
    // The end was that of another process.
    mark.incarnation = Incarnation(2);
    marks.adopt(&mark);
    assert!(!marks.get(origin).is_over());
}
