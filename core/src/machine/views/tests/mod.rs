//! The coordinator, report by report. Worker 0 hosts it, unless a test says otherwise.

mod choice;
mod end;

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

    /// Takes all commands, unchecked.
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

/// A round that is done at one member is done: the other members take the parameters of that member.
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

/// The parameters of a checkpoint are older than the parameters of the run that goes on.
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

/// It has not heard of the view in which it was to take the parameters, so it still has no parameters that count.
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

/// A commit may have been lost with the connection. It is repeated with all that it said.
#[test]
fn a_worker_hears_again_that_the_run_has_gone_on_without_it() {
    let mut c = three(1);
    [0, 1].into_iter().for_each(|worker| c.coordinator.on_reconnected(PeerId(worker)));
    c.expect(&[commit(0), commit_new(1)]);
}

/// A restarted coordinator learns of the run from the members' reports. It waits for all members, but not for ever.
#[test]
fn a_restarted_coordinator_goes_on_with_the_members_that_report() {
    let mut c = coordinator(3, 1);
    c.at(10).hear(0, new(0)).hear(1, at(7, 4)).expect(&[]);
    assert_eq!(c.coordinator.deadline(), Some(c.now.after(GRACE)));
    c.at(1009).expect(&[]);
    c.at(1010).expect(&[prepare(0), prepare(1)]);
    // Its numbers go on above the numbers of the run.
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

/// A coordinator without a worker starts the run with the parameters of the first member.
#[test]
fn a_dedicated_coordinator_takes_the_first_members_parameters() {
    let mut c = Trace { coordinator: Coordinator::new(PeerId(2), 2, 1, GRACE), now: Instant::ORIGIN };
    c.hear(0, new(0)).hear(1, new(0)).expect(&[prepare(0), prepare(1)]);
    c.hear(0, new(1)).hear(1, new(1)).expect(&[commit(0), commit_new(1)]).expect_view(1, &[0, 1], 0, 0);
}
