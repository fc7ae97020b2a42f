//! Which workers become members of the next view, and whether there are enough.

use super::*;

/// Two members that have lost each other cannot go on together. The one that is left out stops, and comes back when
/// they have met again. Its state counts for nothing then.
#[test]
fn a_member_that_another_has_lost_is_left_out_until_they_meet_again() {
    let mut c = three(1);
    c.hears_lost(1, 0b100).expect(&[prepare(0), prepare(1), prepare(2)]);
    c.hear(2, stopped(2, 1, 2)).hear(0, stopped(2, 1, 2)).hear(1, stopped(2, 1, 2));
    c.expect(&[commit(0), commit(1)]).expect_view(2, &[0, 1], 2, 0);
    // The other end has lost the connection as well.
    c.hears_lost(2, 0b10).expect(&[]);
    c.hears_lost(1, 0).expect(&[]);
    c.hears_lost(2, 0).expect(&[prepare(0), prepare(1), prepare(2)]);
    c.hear(0, stopped(3, 2, 5)).hear(1, stopped(3, 2, 5)).hear(2, stopped(3, 1, 7));
    c.expect(&[commit(0), commit(1), commit_new(2)]).expect_view(3, &[0, 1, 2], 5, 0);
}

/// The worker that has lost most workers is left out, even if it was the first to say so.
#[test]
fn the_worker_with_most_conflicts_is_left_out() {
    let mut c = many(4);
    c.hears_lost(1, 0b1100);
    while c.coordinator.take_command().is_some() {}
    [0, 1, 2, 3].into_iter().for_each(|worker| ignore(c.hear(worker, stopped(2, 1, 2))));
    c.expect(&[commit(0), commit(2), commit(3)]).expect_view(2, &[0, 2, 3], 2, 0);
}

/// A coordinator that was cut off waits. When the other members are back, nothing has happened, and their rounds count.
#[test]
fn a_coordinator_without_half_of_the_view_waits_and_goes_on_with_all() {
    let mut c = many(4);
    c.lose(1).expect(&[prepare(0), prepare(2), prepare(3)]);
    c.lose(2).expect(&[prepare(0), prepare(3)]);
    c.lose(3).hear(0, stopped(3, 1, 2)).expect(&[]).at(60_000).expect(&[]);
    assert_eq!(c.coordinator.awaited(), Some(PeerId(1)));
    // Half of the view is enough, as the coordinator can be on one side only. But the other members come back as well.
    c.hear(1, at(1, 3)).expect(&[prepare(1)]);
    assert_eq!(c.coordinator.deadline(), Some(c.now.after(GRACE)));
    c.hear(2, at(1, 2)).expect(&[prepare(2)]);
    c.hear(3, at(1, 2)).expect(&[prepare(0), prepare(1), prepare(2), prepare(3)]);
    [0, 2, 3].into_iter().for_each(|worker| ignore(c.hear(worker, stopped(4, 1, 2))));
    c.hear(1, stopped(4, 1, 3)).expect(&[commit(0), commit(1), commit(2), commit(3)]);
    c.expect_view(4, &[0, 1, 2, 3], 3, 1);
}

/// Members that are back wait for the rest of the view before, but not for ever.
#[test]
fn a_coordinator_that_was_alone_waits_for_the_others_for_a_while() {
    let mut c = many(4);
    c.lose(1).lose(2).lose(3);
    while c.coordinator.take_command().is_some() {}
    c.at(5000).hear(1, at(1, 2)).expect(&[prepare(1)]).at(5999).expect(&[]);
    c.at(6000).expect(&[prepare(0), prepare(1)]);
    assert_eq!(c.coordinator.deadline(), None);
}

/// The members that are back may go again before the rest has come.
#[test]
fn a_coordinator_that_is_alone_again_waits_anew() {
    let mut c = many(4);
    c.lose(1).lose(2).lose(3);
    while c.coordinator.take_command().is_some() {}
    c.at(5000).hear(1, at(1, 2)).expect(&[prepare(1)]).at(5500).lose(1).expect(&[]);
    c.at(5600).hear(1, at(1, 2)).expect(&[prepare(1)]).at(6599).expect(&[]);
    c.at(6600).expect(&[prepare(0), prepare(1)]);
}

/// When a worker that was given up is back, the workers that it had lost may be back as well. It says so again if not.
#[test]
fn what_a_worker_had_lost_before_it_was_given_up_does_not_count() {
    let mut c = three(1);
    c.hears_lost(1, 0b100).expect(&[prepare(0), prepare(1), prepare(2)]);
    c.lose(1).expect(&[prepare(0), prepare(2)]);
    c.hear(0, stopped(3, 1, 2)).hear(2, stopped(3, 1, 2)).expect(&[commit(0), commit(2)]);
    c.hear(1, at(1, 2)).expect(&[prepare(0), prepare(1), prepare(2)]);
    c.hear(0, stopped(4, 3, 2)).hear(1, stopped(4, 1, 2)).hear(2, stopped(4, 3, 2));
    c.expect(&[commit(0), commit_new(1), commit(2)]).expect_view(4, &[0, 1, 2], 2, 0);
}

/// The view before counts, and not the first one. Workers that have left count for neither side.
#[test]
fn half_of_the_view_before_is_enough() {
    let mut c = many(5);
    for (view, lost, left) in [(2, 4, vec![0, 1, 2, 3]), (3, 3, vec![0, 1, 2]), (4, 2, vec![0, 1])] {
        c.lose(lost);
        left.iter().for_each(|worker| ignore(c.hear(*worker, stopped(view, view - 1, 2))));
        let members: Vec<_> = left.iter().map(|worker| PeerId(*worker)).collect();
        assert_eq!((c.coordinator.view().number, &c.coordinator.view().members), (Sequence(view), &members));
    }
    let mut c = many(5);
    c.lose(3).lose(4);
    [0, 1, 2].into_iter().for_each(|worker| ignore(c.hear(worker, stopped(3, 1, 2))));
    c.expect_view(3, &[0, 1, 2], 2, 0);
    c.lose(1).lose(2);
    assert_eq!(c.coordinator.awaited(), Some(PeerId(1)));
    let mut c = many(4);
    c.hear(3, Report { leaves: true, ..at(1, 2) }).lose(2);
    [0, 1].into_iter().for_each(|worker| ignore(c.hear(worker, stopped(c.coordinator.number().0, 1, 2))));
    assert_eq!(c.coordinator.view().members, [PeerId(0), PeerId(1)]);
}

/// A restarted coordinator knows the size of the view before from its members.
#[test]
fn a_restarted_coordinator_waits_for_half_of_the_view_before() {
    let mut c = coordinator(6, 0);
    let of_five = |view, entered| Report { members: 5, ..stopped(view, entered, 4) };
    c.at(10).hear(0, new(0)).hear(1, of_five(7, 7)).at(5000).expect(&[]);
    assert_eq!(c.coordinator.deadline(), None);
    c.hear(2, of_five(7, 7)).expect(&[prepare(0), prepare(1), prepare(2)]);
    c.hear(0, new(8)).hear(1, of_five(8, 7)).hear(2, of_five(8, 7));
    c.expect(&[commit_new(0), commit(1), commit(2)]).expect_view(8, &[0, 1, 2], 4, 1);
}

/// A worker that was given up long before knows an older view, which had more members.
#[test]
fn a_restarted_coordinator_counts_the_members_of_the_newest_view() {
    let mut c = coordinator(8, 0);
    let of = |members, view| Report { members, ..stopped(view, view, 4) };
    c.at(10).hear(0, new(0)).hear(1, of(2, 7)).hear(2, of(8, 5)).at(1009).expect(&[]);
    c.at(1010).expect(&[prepare(0), prepare(1), prepare(2)]);
}

/// Only a worker that has said so has left: a worker that was given up does not count towards a fixed quorum.
#[test]
fn workers_that_were_given_up_do_not_count_as_leavers() {
    let mut c = coordinator(4, 3);
    c.hear(0, at(0, 0)).hear(1, new(0)).hear(2, new(0)).hear(3, new(0));
    [0, 1, 2, 3].into_iter().for_each(|worker| ignore(c.hear(worker, if worker == 0 { at(1, 0) } else { new(1) })));
    while c.coordinator.take_command().is_some() {}
    c.lose(1).expect(&[prepare(0), prepare(2), prepare(3)]);
    c.lose(2).lose(3).hear(0, stopped(2, 1, 2)).expect(&[]);
    // It stops, and waits.
    c.hear(1, at(1, 2)).expect(&[prepare(1)]);
    c.hear(2, at(1, 2)).expect(&[prepare(2)]).at(1000).expect(&[prepare(0), prepare(1), prepare(2)]);
}

#[cfg(planted)]
#[test]
#[should_panic(expected = "assertion")]
fn a_planted_count_of_the_ejected_as_leavers_is_found() {
    let mut c = coordinator(4, 3);
    c.coordinator.bug = Some(crate::planted::Bug::EjectedAsLeft);
    c.hear(0, at(0, 0)).hear(1, new(0)).hear(2, new(0)).hear(3, new(0));
    [0, 1, 2, 3].into_iter().for_each(|worker| ignore(c.hear(worker, if worker == 0 { at(1, 0) } else { new(1) })));
    while c.coordinator.take_command().is_some() {}
    c.lose(1).expect(&[prepare(0), prepare(2), prepare(3)]);
    c.lose(2).lose(3).hear(0, stopped(2, 1, 2)).expect(&[]);
}

#[cfg(planted)]
#[test]
#[should_panic(expected = "assertion")]
fn a_planted_quorum_that_is_off_by_one_is_found() {
    let mut c = three(2);
    c.coordinator.bug = Some(crate::planted::Bug::QuorumOffByOne);
    c.lose(2).expect(&[prepare(0), prepare(1)]);
    c.lose(1).expect(&[]);
}

#[test]
fn below_the_quorum_no_view_is_prepared() {
    let mut c = three(2);
    c.lose(2).expect(&[prepare(0), prepare(1)]);
    c.lose(1).expect(&[]);
    assert_eq!(c.coordinator.awaited(), Some(PeerId(1)));
    c.hear_of(2, 2, new(0)).expect(&[prepare(2)]).at(1000).expect(&[prepare(0), prepare(2)]);
    c.hear(0, stopped(3, 1, 4)).hear_of(2, 2, new(3));
    c.expect(&[commit(0), commit_new(2)]).expect_view(3, &[0, 2], 4, 0);
}

/// Only the donor has entered its view when two other workers lose it.
#[test]
fn a_worker_with_the_parameters_is_a_member_before_those_without() {
    let mut c = dedicated(4);
    (1..4).for_each(|worker| ignore(c.hear_of(worker, 2, new(0))));
    let number = c.take().number();
    c.hear(0, stopped(number, 1, 2));
    (1..4).for_each(|worker| ignore(c.hear_of(worker, 2, new(number))));
    c.expect(&[commit(0), commit_new(1), commit_new(2), commit_new(3)]);
    c.hear(0, at(number, 2)).hears_lost(1, 0b1).hears_lost(2, 0b1).take();
    let next = c.number();
    c.hear(0, stopped(next, number, 2)).hear_of(3, 2, new(next));
    c.expect(&[commit(0), commit_new(3)]).expect_view(next, &[0, 3], 2, 0);
}

/// The workers that were never away cannot be members together with one that comes back.
#[test]
fn a_worker_that_was_given_up_is_no_member_instead_of_one_that_was_there_all_the_time() {
    let mut c = many(4);
    c.lose(1).lose(2).hears_lost(3, 0b110).take();
    c.hear(1, at(1, 2)).hear(2, at(1, 2)).take();
    (0..4).for_each(|worker| ignore(c.hear(worker, stopped(c.number(), 1, 2))));
    c.expect(&[commit(0), commit(3)]);
}

/// The same, before the coordinator gives up the worker.
#[test]
fn a_worker_that_is_not_connected_is_no_member_instead_of_one_that_is() {
    let mut c = many(3);
    c.coordinator.note_connected(|worker| worker != PeerId(1));
    c.hears_lost(2, 0b10).expect(&[prepare(0), prepare(1), prepare(2)]);
    c.hear(0, stopped(2, 1, 2)).hear(2, stopped(2, 1, 2)).expect(&[commit(0), commit(2)]);
}

/// Workers that were there all the time come first. If they are without parameters, they wait for the one that has them.
#[test]
fn a_view_without_parameters_waits_for_a_member_that_was_left_out() {
    let mut c = dedicated(3);
    (1..3).for_each(|worker| ignore(c.hear_of(worker, 2, new(0))));
    let number = c.take().number();
    c.hear(0, stopped(number, 1, 2)).hear_of(1, 2, new(number)).hear_of(2, 2, new(number));
    c.expect(&[commit(0), commit_new(1), commit_new(2)]);
    c.coordinator.note_connected(|worker| worker != PeerId(0));
    c.hears_lost(1, 0b1).hears_lost(2, 0b1).take();
    let next = c.number();
    c.hear_of(1, 2, new(next)).hear_of(2, 2, new(next)).expect(&[]);
    assert_eq!(c.coordinator.awaited(), Some(PeerId(0)));
    // They have met again.
    c.hears_lost(1, 0).hears_lost(2, 0).take();
    let last = c.number();
    c.hear_of(1, 2, new(last)).hear_of(2, 2, new(last)).hear(0, stopped(last, number, 2));
    c.expect(&[commit(0), commit_new(1), commit_new(2)]).expect_view(last, &[0, 1, 2], 2, 0);
}

/// Once it is a member again, a worker is as good as any other.
#[test]
fn a_worker_that_was_given_up_counts_again_when_it_is_a_member() {
    let mut c = many(3);
    c.lose(1).hear(0, stopped(2, 1, 2)).hear(2, stopped(2, 1, 2)).take();
    c.hear(1, stopped(2, 1, 2));
    (0..3).for_each(|worker| ignore(c.hear(worker, stopped(3, 2, 2))));
    (0..3).for_each(|worker| ignore(c.hear(worker, at(3, 2))));
    c.take().hears_lost(1, 0b100).take();
    (0..3).for_each(|worker| ignore(c.hear(worker, stopped(4, 3, 2))));
    c.expect(&[commit(0), commit(1)]);
}

/// A process that has stopped for the next view is replaced before the view is committed.
#[test]
fn a_new_process_has_to_stop_itself() {
    let mut c = three(1);
    c.hears_lost(1, 0b100).take();
    c.hears_lost(1, 0).take();
    let number = c.number();
    c.hear(2, stopped(number, 1, 2)).hear(1, stopped(number, 1, 2));
    c.coordinator.on_new_process(PeerId(2), Incarnation(2));
    c.hear(0, stopped(number, 1, 2)).expect(&[]);
    c.hear_of(2, 2, new(0)).expect(&[prepare(0), prepare(1), prepare(2)]);
    c.hear(0, stopped(number + 1, 1, 2)).hear(1, stopped(number + 1, 1, 2)).hear_of(2, 2, new(number + 1));
    c.expect(&[commit(0), commit(1), commit_new(2)]).expect_view(number + 1, &[0, 1, 2], 2, 0);
    // The process that is connected has stopped: it counts, though its connection was made before its report came.
    c.hears_lost(1, 0b100).take();
    c.hears_lost(1, 0).take();
    let number = c.number();
    c.hear(0, stopped(number, number - 1, 2)).hear(1, stopped(number, number - 1, 2));
    c.coordinator.on_new_process(PeerId(2), Incarnation(2));
    c.hear_of(2, 2, stopped(number, number - 1, 2));
    c.expect(&[commit(0), commit(1), commit(2)]);
}
