//! The coordinator, report by report. Worker 0 hosts it, unless a test says otherwise.

use alloc::vec;
use alloc::vec::Vec;

use super::View;
use super::coordinator::{Command, Coordinator};
use crate::id::{Clock, Incarnation, PeerId, Sequence};
use crate::time::{Duration, Instant};
use crate::wire::Report;

struct Trace {
    coordinator: Coordinator,
    now: Instant,
}

const GRACE: Duration = Duration::from_secs(1);

fn coordinator(workers: u32, quorum: u32) -> Trace {
    Trace { coordinator: Coordinator::new(PeerId(0), workers, quorum, GRACE), now: Instant::ORIGIN }
}

/// A member that has done `round` rounds, and has heard of `view`.
fn at(view: u64, round: u64) -> Report {
    let (view, round) = (Sequence(view), Clock(round));
    Report { view, entered: view, members: 3, round, has: true, leaves: false, last: false, broken: false, told: false }
}

/// A member that has stopped for view `view`, and had entered view `entered`.
fn stopped(view: u64, entered: u64, round: u64) -> Report {
    Report { entered: Sequence(entered), ..at(view, round) }
}

/// A member without parameters.
fn new(view: u64) -> Report {
    Report { has: false, ..stopped(view, 0, 0) }
}

fn prepare(to: u32) -> Command {
    Command::Prepare { to: PeerId(to) }
}

fn commit(to: u32) -> Command {
    Command::Commit { to: PeerId(to), returns: false }
}

/// The commit to a worker whose state counts for nothing.
fn commit_new(to: u32) -> Command {
    Command::Commit { to: PeerId(to), returns: true }
}

fn release(to: u32) -> Command {
    Command::Release { to: PeerId(to) }
}

fn refuse(to: u32) -> Command {
    Command::Refuse { to: PeerId(to) }
}

impl Trace {
    /// Process 1 of a worker reports.
    fn hear(&mut self, from: u32, report: Report) -> &mut Self {
        self.hear_of(from, 1, report)
    }

    fn hear_of(&mut self, from: u32, incarnation: u64, report: Report) -> &mut Self {
        self.coordinator.on_report(PeerId(from), Incarnation(incarnation), report, self.now);
        self
    }

    /// A worker says which workers it has lost.
    fn hears_lost(&mut self, from: u32, mask: u64) -> &mut Self {
        self.coordinator.on_lost_by(PeerId(from), PeerId(0), mask);
        self.coordinator.advance(self.now);
        self
    }

    fn lose(&mut self, worker: u32) -> &mut Self {
        self.coordinator.on_lost(PeerId(worker));
        self.coordinator.advance(self.now);
        self
    }

    fn at(&mut self, millis: u64) -> &mut Self {
        self.now = Instant::from_nanos(millis * 1_000_000);
        self.coordinator.advance(self.now);
        self
    }

    /// Takes the commands, whatever they are.
    fn take(&mut self) -> &mut Self {
        while self.coordinator.take_command().is_some() {}
        self
    }

    fn number(&self) -> u64 {
        self.coordinator.number().0
    }

    #[track_caller]
    fn expect(&mut self, commands: &[Command]) -> &mut Self {
        let got: Vec<_> = core::iter::from_fn(|| self.coordinator.take_command()).collect();
        assert_eq!(got, commands);
        self
    }

    #[track_caller]
    fn expect_view(&mut self, number: u64, members: &[u32], round: u64, donor: u32) -> &mut Self {
        let members = members.iter().copied().map(PeerId).collect();
        let view = View { number: Sequence(number), members, round: Clock(round), donor: PeerId(donor), last: false };
        assert_eq!(*self.coordinator.view(), view);
        self
    }
}

/// Workers in view 1, at round 2. The coordinator is at another node.
fn dedicated(workers: u32) -> Trace {
    let coordinator = Coordinator::new(PeerId(workers), workers, 0, GRACE);
    let mut c = Trace { coordinator, now: Instant::ORIGIN };
    (0..workers).for_each(|worker| ignore(c.hear(worker, new(0))));
    (0..workers).for_each(|worker| ignore(c.hear(worker, new(1))));
    (0..workers).for_each(|worker| ignore(c.hear(worker, at(1, 2))));
    c.take();
    c
}

fn ignore(_: &mut Trace) {}

/// Three workers in view 1, with no round done.
fn three(quorum: u32) -> Trace {
    let mut c = coordinator(3, quorum);
    c.hear(0, at(0, 0)).hear(1, new(0)).expect(&[]);
    c.hear(2, new(0)).expect(&[prepare(0), prepare(1), prepare(2)]);
    c.hear(0, at(1, 0)).hear(1, new(1)).expect(&[]);
    c.hear(2, new(1)).expect(&[commit(0), commit_new(1), commit_new(2)]);
    c.expect_view(1, &[0, 1, 2], 0, 0);
    c
}

/// A number of workers in view 1, at round 2, with the quorum that is the default.
fn many(workers: u32) -> Trace {
    let mut c = coordinator(workers, 0);
    c.hear(0, at(0, 0));
    (1..workers).for_each(|worker| ignore(c.hear(worker, new(0))));
    (0..workers).for_each(|worker| ignore(c.hear(worker, if worker == 0 { at(1, 0) } else { new(1) })));
    (0..workers).for_each(|worker| ignore(c.hear(worker, at(1, 2))));
    c.take();
    c
}

#[test]
fn the_first_view_has_all_workers_and_the_coordinators_parameters() {
    three(1);
}

/// A view is committed only when every member has stopped: else two views could share a round.
#[test]
fn a_view_waits_until_all_its_members_have_stopped() {
    let mut c = three(1);
    c.lose(2).expect(&[prepare(0), prepare(1)]);
    c.hear(0, stopped(2, 1, 4)).expect(&[]);
    // A report that was under way when the member was told to stop does not count. The member is told again.
    c.hear(1, at(1, 4)).expect(&[prepare(1)]);
    c.hear(1, stopped(2, 1, 4)).expect(&[commit(0), commit(1)]).expect_view(2, &[0, 1], 4, 0);
}

/// A round that is done at one member is done: the others take the parameters of that member.
#[test]
fn the_donor_is_the_first_member_with_the_most_rounds() {
    let mut c = three(1);
    c.lose(0).expect(&[prepare(1), prepare(2)]);
    c.hear(1, stopped(2, 1, 4)).hear(2, stopped(2, 1, 5)).expect(&[commit(1), commit(2)]).expect_view(2, &[1, 2], 5, 2);
}

#[test]
fn a_restarted_worker_starts_a_new_view_without_parameters() {
    let mut c = three(1);
    c.hear_of(2, 2, new(0)).expect(&[prepare(0), prepare(1), prepare(2)]);
    c.hear(0, stopped(2, 1, 3)).hear(1, stopped(2, 1, 3)).hear_of(2, 2, new(2));
    c.expect(&[commit(0), commit(1), commit_new(2)]).expect_view(2, &[0, 1, 2], 3, 0);
}

/// The parameters of a checkpoint are older than those of the run that goes on.
#[test]
fn a_restarted_worker_with_a_checkpoint_takes_the_parameters_of_the_run() {
    let mut c = three(1);
    c.hear_of(2, 2, stopped(0, 0, 7)).expect(&[prepare(0), prepare(1), prepare(2)]);
    c.hear(0, stopped(2, 1, 3)).hear(1, stopped(2, 1, 3)).hear_of(2, 2, stopped(2, 0, 7));
    c.expect(&[commit(0), commit(1), commit_new(2)]).expect_view(2, &[0, 1, 2], 3, 0);
}

#[test]
fn a_broken_connection_starts_a_new_view_once() {
    let mut c = three(1);
    c.hear(1, Report { broken: true, ..at(1, 2) }).expect(&[prepare(0), prepare(1), prepare(2)]);
    // The other end of the connection reports it as well, of a view that is about to end.
    c.hear(2, Report { broken: true, ..at(1, 2) }).expect(&[prepare(2)]);
    c.hear(0, stopped(2, 1, 2)).hear(1, stopped(2, 1, 2)).hear(2, stopped(2, 1, 2)).expect(&[
        commit(0),
        commit(1),
        commit(2),
    ]);
    // The report of view 1 is late by now.
    c.hear(1, Report { broken: true, ..at(1, 2) }).expect(&[]);
}

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

/// The worker that has lost most others is left out, whoever was the first to say so.
#[test]
fn the_worker_with_most_conflicts_is_left_out() {
    let mut c = many(4);
    c.hears_lost(1, 0b1100);
    while c.coordinator.take_command().is_some() {}
    [0, 1, 2, 3].into_iter().for_each(|worker| ignore(c.hear(worker, stopped(2, 1, 2))));
    c.expect(&[commit(0), commit(2), commit(3)]).expect_view(2, &[0, 2, 3], 2, 0);
}

/// A report of a process that was given up: it was only cut off.
#[test]
fn a_member_that_was_given_up_comes_back_as_a_newcomer() {
    let mut c = three(1);
    c.lose(2).expect(&[prepare(0), prepare(1)]);
    c.hear(0, stopped(2, 1, 2)).hear(1, stopped(2, 1, 2)).expect(&[commit(0), commit(1)]);
    c.hear(2, at(1, 3)).expect(&[prepare(0), prepare(1), prepare(2)]);
    c.hear(0, stopped(3, 2, 2)).hear(1, stopped(3, 2, 2)).hear(2, stopped(3, 1, 3));
    c.expect(&[commit(0), commit(1), commit_new(2)]).expect_view(3, &[0, 1, 2], 2, 0);
}

/// It has not heard of the view in which it was to take the parameters, so it still has none that count.
#[test]
fn a_newcomer_that_has_not_entered_its_view_is_one_in_the_next_view_too() {
    for has_entered in [false, true] {
        let mut c = three(1);
        c.lose(2).expect(&[prepare(0), prepare(1)]);
        c.hear(0, stopped(2, 1, 2)).hear(1, stopped(2, 1, 2)).expect(&[commit(0), commit(1)]);
        c.hear(2, at(1, 3)).expect(&[prepare(0), prepare(1), prepare(2)]);
        c.hear(0, stopped(3, 2, 2)).hear(1, stopped(3, 2, 2)).hear(2, stopped(3, 1, 3));
        c.expect(&[commit(0), commit(1), commit_new(2)]);
        c.lose(1).expect(&[prepare(0), prepare(2)]);
        let entered = if has_entered { 3 } else { 1 };
        c.hear(0, stopped(4, 3, 2)).hear(2, stopped(4, entered, 2));
        c.expect(&[commit(0), if has_entered { commit(2) } else { commit_new(2) }]);
    }
}

/// A coordinator that was cut off waits. When the others are back, nothing has happened, and their rounds count.
#[test]
fn a_coordinator_without_half_of_the_view_waits_and_goes_on_with_all() {
    let mut c = many(4);
    c.lose(1).expect(&[prepare(0), prepare(2), prepare(3)]);
    c.lose(2).expect(&[prepare(0), prepare(3)]);
    c.lose(3).hear(0, stopped(3, 1, 2)).expect(&[]).at(60_000).expect(&[]);
    assert_eq!(c.coordinator.awaited(), Some(PeerId(1)));
    // Half of the view is enough, as the coordinator can be on one side only. But the others come back as well.
    c.hear(1, at(1, 3)).expect(&[prepare(1)]);
    assert_eq!(c.coordinator.deadline(), Some(c.now.after(GRACE)));
    c.hear(2, at(1, 2)).expect(&[prepare(2)]);
    c.hear(3, at(1, 2)).expect(&[prepare(0), prepare(1), prepare(2), prepare(3)]);
    [0, 2, 3].into_iter().for_each(|worker| ignore(c.hear(worker, stopped(4, 1, 2))));
    c.hear(1, stopped(4, 1, 3)).expect(&[commit(0), commit(1), commit(2), commit(3)]);
    c.expect_view(4, &[0, 1, 2, 3], 3, 1);
}

/// Those that are back wait for the others of the view before, but not for ever.
#[test]
fn a_coordinator_that_was_alone_waits_for_the_others_for_a_while() {
    let mut c = many(4);
    c.lose(1).lose(2).lose(3);
    while c.coordinator.take_command().is_some() {}
    c.at(5000).hear(1, at(1, 2)).expect(&[prepare(1)]).at(5999).expect(&[]);
    c.at(6000).expect(&[prepare(0), prepare(1)]);
    assert_eq!(c.coordinator.deadline(), None);
}

/// The members that are back may go again before the others have come.
#[test]
fn a_coordinator_that_is_alone_again_waits_anew() {
    let mut c = many(4);
    c.lose(1).lose(2).lose(3);
    while c.coordinator.take_command().is_some() {}
    c.at(5000).hear(1, at(1, 2)).expect(&[prepare(1)]).at(5500).lose(1).expect(&[]);
    c.at(5600).hear(1, at(1, 2)).expect(&[prepare(1)]).at(6599).expect(&[]);
    c.at(6600).expect(&[prepare(0), prepare(1)]);
}

/// A commit may have been lost with the connection. It is repeated with all that it said.
#[test]
fn a_worker_hears_again_that_the_run_has_gone_on_without_it() {
    let mut c = three(1);
    [0, 1].into_iter().for_each(|worker| c.coordinator.on_reconnected(PeerId(worker)));
    c.expect(&[commit(0), commit_new(1)]);
}

/// When a worker that was given up is back, those that it had lost may be back as well. It says so again if not.
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

/// The view before counts, and not the first one. Those that have left count for neither side.
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

/// Only who has said so has left: a worker that was given up does not count towards a fixed quorum.
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
    // It has met the other again, and is a member of the next view, with what it has.
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

/// Nobody else can give the last round to worker 1: the run ends when it and worker 0 meet again.
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

/// A worker that was cut off at the end may have contributed something that the others never got.
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

/// Only the donor has entered its view when two others lose it.
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

/// A worker that the others have lost has done the last round of its view. In the next one, a newcomer contributes.
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
    c.hear_of(1, 2, new(0)).expect(&[refuse(1)]);
    // A worker that lost its connection may have missed its release.
    c.coordinator.on_reconnected(PeerId(2));
    c.expect(&[release(2)]);
}

/// A restarted coordinator learns of the run from the members' reports. It waits for all members, but not for ever.
#[test]
fn a_restarted_coordinator_goes_on_with_the_members_that_report() {
    let mut c = coordinator(3, 1);
    c.at(10).hear(0, new(0)).hear(1, at(7, 4)).expect(&[]);
    assert_eq!(c.coordinator.deadline(), Some(c.now.after(GRACE)));
    c.at(1009).expect(&[]);
    c.at(1010).expect(&[prepare(0), prepare(1)]);
    // Its numbers go on above those of the run.
    c.hear(0, new(8)).hear(1, stopped(8, 7, 4)).expect(&[commit_new(0), commit(1)]).expect_view(8, &[0, 1], 4, 1);
}

/// If all workers resume from a checkpoint, a worker that is late would miss rounds: all are waited for.
#[test]
fn workers_that_resume_wait_for_all() {
    let mut c = coordinator(2, 1);
    c.at(10).hear(0, at(0, 5)).at(60_000).expect(&[]);
    c.hear(1, at(0, 5)).expect(&[prepare(0), prepare(1)]);
    c.hear(0, stopped(1, 0, 5)).hear(1, stopped(1, 0, 5));
    c.expect(&[commit(0), commit(1)]).expect_view(1, &[0, 1], 5, 0);
}

/// When nobody can have the parameters of a run any more, the run is lost, and no worker starts another in its place.
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

/// A coordinator without a worker starts the run with the parameters of the first member.
#[test]
fn a_dedicated_coordinator_takes_the_first_members_parameters() {
    let mut c = Trace { coordinator: Coordinator::new(PeerId(2), 2, 1, GRACE), now: Instant::ORIGIN };
    c.hear(0, new(0)).hear(1, new(0)).expect(&[prepare(0), prepare(1)]);
    c.hear(0, new(1)).hear(1, new(1)).expect(&[commit(0), commit_new(1)]).expect_view(1, &[0, 1], 0, 0);
}
