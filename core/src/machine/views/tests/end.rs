//! The end of the run, for one worker or for all.

use super::*;

/// A worker that leaves goes when the next view does not count on it.
#[test]
fn a_worker_that_leaves_is_released_after_the_next_view() {
    let mut c = three(1);
    c.hear(2, Report { leaves: true, ..at(1, 2) }).expect(&[prepare(0), prepare(1)]);
    c.hear(0, stopped(2, 1, 2)).expect(&[]);
    c.hear(1, stopped(2, 1, 2)).expect(&[commit(0), commit(1), release(2)]).expect_view(2, &[0, 1], 2, 0);
    // It had reported that it leaves, so its disappearance starts no view.
    c.lose(2).expect(&[]);
}

/// A member of a mesh may have to deliver its messages again before it can leave.
#[test]
fn a_worker_that_does_not_leave_yet_is_a_member_of_the_next_view() {
    let mut c = three(1);
    c.hear(2, Report { leaves: true, ..at(1, 2) }).expect(&[prepare(0), prepare(1)]);
    c.hear(2, at(1, 2)).expect(&[prepare(0), prepare(1), prepare(2)]);
    for worker in 0..3 {
        c.hear(worker, stopped(3, 1, 2));
    }
    c.expect(&[commit(0), commit(1), commit(2)]).expect_view(3, &[0, 1, 2], 2, 0);
    // After its release, it can only go.
    c.hear(2, Report { leaves: true, ..at(3, 2) }).expect(&[prepare(0), prepare(1)]);
    c.hear(0, stopped(4, 3, 2)).hear(1, stopped(4, 3, 2)).expect(&[commit(0), commit(1), release(2)]);
    c.hear(2, at(3, 2)).expect(&[]);
    let last = Report { last: true, entered: Sequence(4), members: 2, ..at(4, 3) };
    c.hear(0, last).hear(1, last).expect(&[release(0), release(1)]);
}

/// Two workers that lose each other at the end both have the last round, though only one is in the next view.
#[test]
fn a_worker_with_the_last_round_is_not_refused() {
    let mut c = three(1);
    let last = Report { last: true, ..at(1, 3) };
    c.hear(1, last).hear(2, last).expect(&[]);
    c.hears_lost(2, 0b010).expect(&[prepare(0), prepare(1), prepare(2)]);
    c.hear(0, last).expect(&[release(0), release(1), release(2), prepare(0)]);
}

/// Two workers lose each other at the end, and one of them lacks the last round. The other needs no further view.
#[test]
fn a_worker_that_lacks_the_last_round_is_a_member_instead_of_one_that_has_it() {
    [false, true].into_iter().for_each(lacks_the_last_round);
}

fn lacks_the_last_round(meets: bool) {
    let mut c = many(4);
    let last = |view| Report { last: true, ..stopped(view, 1, 3) };
    [0, 1, 2].into_iter().for_each(|worker| ignore(c.hear(worker, last(1))));
    c.hears_lost(1, 0b1000).expect(&[prepare(0), prepare(1), prepare(2), prepare(3)]);
    c.hear(0, last(2)).hear(2, last(2)).hear(3, stopped(2, 1, 2));
    c.expect(&[commit(0), commit(2), commit(3)]);
    if !meets {
        let all = [release(0), release(1), release(2), release(3)];
        c.hear(3, Report { entered: Sequence(2), ..last(2) }).expect(&all);
        return;
    }
    // It has met the other again, and is a member of the next view, with its own state.
    c.hears_lost(1, 0).expect(&[prepare(0), prepare(1), prepare(2), prepare(3)]);
    c.hear(0, last(3)).hear(1, last(3)).hear(2, last(3)).hear(3, stopped(3, 2, 2));
    c.expect(&[commit(0), commit(1), commit(2), commit(3)]);
}

/// Both lack the last round. The one that was left out is a member when the other has the round.
#[test]
fn a_worker_that_was_left_out_at_the_end_has_a_view_of_its_own() {
    let mut c = many(4);
    let last = |view| Report { last: true, ..stopped(view, 1, 3) };
    c.hear(0, last(1)).hear(1, last(1)).hears_lost(2, 0b1000);
    c.expect(&[prepare(0), prepare(1), prepare(2), prepare(3)]);
    c.hear(0, last(2)).hear(1, last(2)).expect(&[]);
    // It hears of the last round before it stops.
    c.hear(2, last(1)).expect(&[prepare(0), prepare(1), prepare(2), prepare(3)]);
    c.hear(3, stopped(3, 1, 2)).hear(0, last(3)).hear(1, last(3)).hear(2, last(3));
    c.expect(&[commit(0), commit(1), commit(3)]);
    c.hear(3, last(3)).expect(&[release(0), release(1), release(2), release(3)]);
}

/// No other worker can give the last round to worker 1: the run ends when it and worker 0 meet again.
#[test]
fn the_run_does_not_end_while_a_member_lacks_the_last_round() {
    for meet in [true, false] {
        let mut c = dedicated(2);
        let last = |view| Report { last: true, ..stopped(view, 1, 3) };
        c.hear(0, last(1)).hears_lost(1, 0b01).expect(&[prepare(0), prepare(1)]);
        c.hear(1, stopped(2, 1, 2)).hear(0, last(2)).expect(&[]);
        assert_eq!(c.coordinator.awaited(), Some(PeerId(1)));
        if meet {
            c.hears_lost(1, 0).expect(&[prepare(0), prepare(1)]);
            c.hear(0, last(3)).hear(1, stopped(3, 1, 2)).expect(&[commit(0), commit(1)]);
            c.hear(1, last(3)).expect(&[release(0), release(1)]);
        } else {
            c.lose(0).expect(&[prepare(1)]);
            c.hear(1, stopped(3, 1, 2)).expect(&[commit(1)]);
        }
    }
}

/// A worker that was cut off at the end may have contributed something that the other workers never got.
#[test]
fn a_worker_that_comes_back_after_the_end_is_released_only_if_it_was_a_member() {
    for was_member in [true, false] {
        let mut c = many(4);
        if !was_member {
            c.lose(3).expect(&[prepare(0), prepare(1), prepare(2)]);
            (0..3).for_each(|worker| ignore(c.hear(worker, stopped(2, 1, 3))));
            c.expect(&[commit(0), commit(1), commit(2)]);
        }
        let view = if was_member { 1 } else { 2 };
        let last = Report { last: true, ..at(view, 3) };
        (0..3).for_each(|worker| ignore(c.hear(worker, last)));
        if was_member {
            c.hear(3, last).expect(&[release(0), release(1), release(2), release(3)]);
            c.coordinator.on_reconnected(PeerId(3));
            c.expect(&[release(3)]);
        } else {
            c.expect(&[release(0), release(1), release(2)]);
            // The released go on as they like. The run stays over.
            (0..3).for_each(|worker| ignore(c.hear(worker, at(2, 3))));
            c.hear(3, Report { last: true, ..at(1, 2) }).expect(&[refuse(3)]);
        }
    }
}

/// A worker that the other members have lost has done the last round of its view. In the next one, a newcomer
/// contributes.
#[test]
fn the_last_round_of_an_earlier_view_is_none_when_a_newcomer_has_come() {
    for has_newcomer in [true, false] {
        let mut c = many(5);
        c.lose(1).take();
        let last = |view, entered| Report { last: true, ..stopped(view, entered, 3) };
        let others = [0, 3, 4];
        others.into_iter().chain([2]).for_each(|worker| ignore(c.hear(worker, stopped(2, 1, 2))));
        c.take().hear(2, last(2, 2)).hears_lost(3, 0b100).hears_lost(4, 0b100);
        if has_newcomer {
            c.hear_of(1, 2, new(0));
        }
        let number = c.take().number();
        if has_newcomer {
            c.hear_of(1, 2, new(number));
        }
        others.into_iter().for_each(|worker| ignore(c.hear(worker, stopped(number, 2, 2))));
        c.take();
        others.into_iter().for_each(|worker| ignore(c.hear(worker, last(number, number))));
        if has_newcomer {
            c.hear_of(1, 2, last(number, number)).expect(&[release(0), release(1), release(3), release(4), refuse(2)]);
        } else {
            c.expect(&[release(0), release(2), release(3), release(4)]);
        }
    }
}

/// Members of a view that has lost its coordinator may end when they know of each other that they have the last round.
#[test]
fn nobody_joins_after_members_have_told_each_other_of_the_last_round() {
    for told in [true, false] {
        let mut c = many(4);
        c.lose(3).take();
        (0..3).for_each(|worker| ignore(c.hear(worker, stopped(2, 1, 2))));
        c.take().lose(2).lose(1).take();
        // Worker 2 has ended. Worker 3 has contributions that it never got.
        c.hear(1, Report { last: true, told, ..at(2, 2) }).hear_of(3, 1, at(1, 2)).at(5000).take();
        let number = c.number();
        // It takes back that it has the last round, since worker 0 has contributed more.
        c.hear(0, stopped(number, 2, 1)).hear(1, Report { told, ..stopped(number, 2, 2) });
        if told {
            c.expect(&[commit(0), commit(1)]);
            c.hear(0, Report { last: true, ..at(number, 2) }).hear(1, Report { last: true, ..at(number, 2) });
            c.expect(&[release(0), release(1), refuse(3)]);
        } else {
            c.expect(&[]).hear(3, stopped(number, 1, 2)).expect(&[commit(0), commit(1), commit_new(3)]);
        }
    }
}

/// If the coordinator's node ended before, the worker would wait for its release in vain.
#[test]
fn the_coordinator_stays_until_a_worker_that_leaves_has_said_goodbye() {
    for is_lost in [false, true] {
        let mut c = three(1);
        c.hear(2, Report { leaves: true, ..at(1, 2) }).expect(&[prepare(0), prepare(1)]);
        c.hear(0, stopped(2, 1, 2)).hear(1, stopped(2, 1, 2)).expect(&[commit(0), commit(1), release(2)]);
        let last = Report { last: true, entered: Sequence(2), members: 2, ..at(2, 3) };
        c.hear(0, last).hear(1, last).expect(&[release(0), release(1)]);
        c.coordinator.on_goodbye(PeerId(1));
        assert!(!c.coordinator.is_alone());
        assert_eq!(c.coordinator.awaited(), Some(PeerId(0)));
        c.coordinator.on_goodbye(PeerId(0));
        assert!(!c.coordinator.is_over());
        assert_eq!(c.coordinator.awaited(), Some(PeerId(2)));
        if is_lost {
            c.lose(2);
        } else {
            c.coordinator.on_goodbye(PeerId(2));
        }
        assert!(c.coordinator.is_alone() && c.coordinator.is_over());
    }
}

#[test]
fn when_all_have_done_the_last_round_they_are_released_and_newcomers_are_refused() {
    let mut c = three(1);
    let last = Report { last: true, ..at(1, 9) };
    c.hear(0, last).hear(1, last).expect(&[]);
    c.hear(2, last).expect(&[release(0), release(1), release(2)]);
    // Workers that lose each other on their way out need no further view.
    c.hears_lost(2, 0b10).hears_lost(2, 0).expect(&[]);
    c.hear_of(1, 2, new(0)).expect(&[refuse(1)]);
    // A worker that lost its connection may have missed its release.
    c.coordinator.on_reconnected(PeerId(2));
    c.expect(&[release(2)]);
}

/// When no worker can have the parameters of a run any more, the run is lost, and no worker starts another in its
/// place.
#[test]
fn without_the_parameters_of_the_run_all_are_refused() {
    let mut c = three(1);
    c.hear_of(1, 2, new(0)).hear_of(2, 2, new(0)).hear_of(0, 2, new(0));
    while c.coordinator.take_command().is_some() {}
    let number = c.coordinator.number().0;
    c.hear_of(0, 2, new(number)).hear_of(1, 2, new(number)).hear_of(2, 2, new(number));
    c.expect(&[refuse(0), refuse(1), refuse(2)]);
}

/// A member that is away can come back with them.
#[test]
fn a_view_without_parameters_waits_for_a_member_that_was_given_up() {
    let mut c = three(1);
    c.hear_of(2, 2, new(0)).lose(1).lose(0);
    while c.coordinator.take_command().is_some() {}
    let number = c.coordinator.number().0;
    c.hear_of(2, 2, new(number)).expect(&[]);
    assert_eq!(c.coordinator.awaited(), Some(PeerId(0)));
    c.hear(1, at(1, 4)).expect(&[prepare(1), prepare(2)]);
    c.hear(1, stopped(number + 1, 1, 4)).hear_of(2, 2, new(number + 1));
    c.expect(&[commit(1), commit_new(2)]).expect_view(number + 1, &[1, 2], 4, 1);
}

/// All workers were killed, and have checkpoints.
#[test]
fn without_a_member_of_the_view_the_newest_checkpoint_counts() {
    let mut c = three(1);
    c.hear_of(0, 2, stopped(0, 0, 7)).hear_of(1, 2, stopped(0, 0, 8)).hear_of(2, 2, stopped(0, 0, 8));
    while c.coordinator.take_command().is_some() {}
    let number = c.coordinator.number().0;
    [(0, 7), (1, 8), (2, 8)]
        .into_iter()
        .for_each(|(rank, round)| ignore(c.hear_of(rank, 2, stopped(number, 0, round))));
    c.expect(&[commit(0), commit(1), commit(2)]).expect_view(number, &[0, 1, 2], 8, 1);
}

/// A worker that was cut off before it heard of its release hears of it if it comes back.
#[test]
fn a_released_worker_that_comes_back_is_released_again() {
    let mut c = three(1);
    let last = Report { last: true, ..at(1, 9) };
    c.hear(0, last).hear(1, last).hear(2, last).expect(&[release(0), release(1), release(2)]);
    c.lose(1).expect(&[]).hear(1, last).expect(&[release(1)]);
}
