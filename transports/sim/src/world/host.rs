//! The training program of a worker: it computes, contributes, and takes the new parameters.

use gradwire_core::kernel::apply;
use gradwire_core::kernel::tier::Tier;
use gradwire_core::recipe::Payload;
use gradwire_core::{Adoption, Duration, Input, Machine, Order, PeerId, Segment, Signal, Tape};

use super::{Scheduled, World};
use crate::node::{Entry, Life, Log, Phase};

impl World {
    pub(super) fn record(&mut self, me: PeerId, entry: Entry) {
        self.log.push(Log { at: self.now, node: me, entry });
    }

    pub(super) fn on_signal(&mut self, me: PeerId, signal: Signal) {
        self.record(me, Entry::Signal(signal));
        let (len, now) = (self.plan.layout.len(), self.now);
        let node = &mut self.nodes[me.index()];
        let Some(machine) = node.machine.as_ref() else { return };
        let view = Segment::floats(machine.view(), 0, len);
        match signal {
            Signal::Joined { .. } => {
                node.local.start(&mut node.params, node.pool.floats(view), now);
                node.local.follow(machine.advice());
                self.compute_next(me);
            }
            Signal::Ready { changed, .. } => {
                self.give_late(me);
                let node = &mut self.nodes[me.index()];
                let Some(machine) = node.machine.as_ref() else { return };
                let adopts = machine.adoption() != Adoption::None;
                if self.plan.recipe.payload() != Payload::Gradients || adopts {
                    node.local.take(&mut node.params, node.pool.floats(view), changed || adopts, now);
                } else if changed {
                    // The optimizer of the program is gradient descent at rate 1.
                    apply::in_place(Tier::best(), &mut node.params, node.pool.floats(view), 1.0);
                }
                node.local.follow(machine.advice());
                let next = machine.contribution();
                let contribution = node.pool.floats_mut(Segment::floats(next, 0, len));
                if let Some(weight) = node.local.second(&mut node.params, contribution) {
                    if let Some(app) = node.app.as_mut() {
                        app.second(node.step, weight);
                    }
                    self.step_machine(me, weight, false);
                } else if node.phase == Phase::Finishing {
                    self.step_machine(me, 0, true);
                } else {
                    self.stepped(me);
                }
            }
            Signal::Left => {
                let carries = self.plan.recipe.payload() == Payload::Gradients;
                if !carries || machine.adoption() != Adoption::None {
                    node.params.copy_from_slice(node.pool.floats(view));
                }
                self.end(me, Life::Done);
            }
            Signal::Finished => self.end(me, Life::Done),
            Signal::Cut { peer } | Signal::PeerFailed { peer, .. } => {
                // A session reports the error, its process ends, and its connections close.
                self.crash(me, None);
                self.end(me, Life::Cut(peer));
            }
            Signal::ResumedElsewhere { .. }
            | Signal::OtherRun { .. }
            | Signal::Resume { .. }
            | Signal::Restore
            | Signal::ContractDiffers { .. }
            | Signal::LedgerFull { .. } => {}
        }
    }

    pub(super) fn compute_next(&mut self, me: PeerId) {
        let node = &mut self.nodes[me.index()];
        node.phase = Phase::Computing;
        let app = node.app.as_mut().expect("only workers join");
        let (takes, epoch) = (app.duration(node.step), node.epoch);
        self.schedule(self.now.after(takes), Scheduled::Computed { node: me, epoch });
    }

    pub(super) fn on_computed(&mut self, me: PeerId) -> Option<PeerId> {
        let (len, now) = (self.plan.layout.len(), self.now);
        let node = &mut self.nodes[me.index()];
        if node.life != Life::Up {
            return None;
        }
        if node.step >= self.plan.steps {
            return self.finish(me);
        }
        let app = node.app.as_mut()?;
        let gradients = self.plan.recipe.payload() == Payload::Gradients;
        let in_place = if gradients { None } else { app.sync(node.step, &mut node.params) };
        let examples = in_place.unwrap_or_else(|| app.update(node.step, &node.params, &mut node.update));
        let contribution = Segment::floats(node.machine.as_ref()?.contribution(), 0, len);
        let contribution = node.pool.floats_mut(contribution);
        app.loss(node.step).into_iter().for_each(|loss| node.local.report_loss(loss));
        if let Some(scale) = app.rate(node.step) {
            node.local.set_learning_rate(scale);
            node.machine.as_mut()?.handle_input(now, Input::Rate { scale }).expect("a machine that was ready");
        }
        let due = match in_place {
            Some(_) => node.local.stepped(&mut node.params, examples, contribution, now),
            None => node.local.step(&mut node.params, &node.update, examples, contribution, now),
        };
        match due {
            Some(weight) => {
                if node.local.contributes() {
                    app.contributes(node.step, weight);
                }
                node.phase = Phase::Syncing;
                let fetches = node.local.fetches();
                self.step_machine(me, weight, fetches);
            }
            None => self.stepped(me),
        }
        Some(me)
    }

    pub(super) fn step_machine(&mut self, me: PeerId, weight: u64, fetches: bool) {
        let now = self.now;
        self.give_state(me);
        let node = &mut self.nodes[me.index()];
        node.made += u64::from(weight > 0);
        if let Some(count) = node.local.timed_length()
            && node.phase == Phase::Syncing
            && self.plan.tapes.get(me.index()) == Some(&Tape::Record)
        {
            self.record(me, Entry::Order(Order::Steps { count }));
        }
        let node = &mut self.nodes[me.index()];
        let machine = node.machine.as_mut().expect("a machine that was ready");
        for note in node.local.notes().into_iter().flatten() {
            machine.handle_input(now, note).expect("a machine that was ready");
        }
        let gives_ranges = fetches && weight > 0 && self.plan.ranges > 1 && self.plan.recipe.is_collective();
        let input = match fetches {
            _ if gives_ranges => Input::Begin { weight },
            true => Input::Step { weight },
            false => Input::Push { weight },
        };
        machine.handle_input(now, input).expect("a machine that was ready");
        if gives_ranges {
            self.cut(me);
        }
        self.drive(me);
    }

    /// Cuts the contribution into ranges, which the program gives later. Until then, they are not numbers.
    fn cut(&mut self, me: PeerId) {
        let len = self.plan.layout.len();
        let node = &mut self.nodes[me.index()];
        let contribution = node.machine.as_ref().map(|machine| Segment::floats(machine.contribution(), 0, len));
        let contribution = node.pool.floats_mut(contribution.expect("a machine that was ready"));
        node.whole.clear();
        node.whole.extend_from_slice(contribution);
        contribution.fill(f32::NAN);
        let mut cuts = vec![0, len];
        cuts.extend((1..self.plan.ranges).map(|_| self.ranges.below(len as u64 + 1) as usize));
        cuts.sort_unstable();
        node.ranges = cuts.windows(2).map(|pair| pair[0]..pair[1]).collect();
        for i in (1..node.ranges.len()).rev() {
            node.ranges.swap(i, self.ranges.below(i as u64 + 1) as usize);
        }
        self.schedule_range(me);
    }

    fn schedule_range(&mut self, me: PeerId) {
        let node = &mut self.nodes[me.index()];
        let (epoch, made, left) = (node.epoch, node.made, node.ranges.len());
        let app = node.app.as_mut().expect("only workers contribute");
        let share = self.ranges.unit() / f64::from(self.plan.ranges);
        let takes = Duration::from_nanos((app.duration(node.step).as_nanos() as f64 * share) as u64);
        self.schedule(self.now.after(takes), Scheduled::Given { node: me, epoch, made, left });
    }

    /// The program gives the next range.
    pub(super) fn on_given(&mut self, me: PeerId) -> Option<PeerId> {
        let input = self.write_range(me)?;
        if !self.nodes[me.index()].ranges.is_empty() {
            self.schedule_range(me);
        }
        self.feed(me, input)
    }

    /// The run has gone on without the contribution. The program first gives the rest of it, to no effect.
    fn give_late(&mut self, me: PeerId) {
        while let Some(input) = self.write_range(me) {
            let (now, node) = (self.now, &mut self.nodes[me.index()]);
            let machine = node.machine.as_mut().expect("the machine that is ready");
            machine.handle_input(now, input).expect("a range at any time after the beginning");
        }
    }

    fn write_range(&mut self, me: PeerId) -> Option<Input> {
        let node = &mut self.nodes[me.index()];
        let (range, machine) = (node.ranges.pop()?, node.machine.as_ref()?);
        let into = Segment::floats(machine.contribution(), range.start, range.len());
        node.pool.floats_mut(into).copy_from_slice(&node.whole[range.clone()]);
        Some(Input::Given { first: range.start, len: range.len() })
    }

    /// With `payload=gradients`: gives the program's parameters to its machine.
    fn give_state(&mut self, me: PeerId) {
        let node = &mut self.nodes[me.index()];
        let given = node.machine.as_ref().and_then(|machine| machine.carried(0));
        if let Some([given, _]) = given {
            node.pool.floats_mut(Segment::floats(given, 0, node.params.len())).copy_from_slice(&node.params);
        }
    }

    pub(super) fn stepped(&mut self, me: PeerId) {
        let node = &mut self.nodes[me.index()];
        if let Some(app) = node.app.as_mut() {
            app.done(node.step, &node.params);
        }
        node.step += 1;
        self.compute_next(me);
    }

    /// Contributes the local steps of a period that has begun, then leaves.
    pub(super) fn finish(&mut self, me: PeerId) -> Option<PeerId> {
        let len = self.plan.layout.len();
        let node = &mut self.nodes[me.index()];
        let contribution = Segment::floats(node.machine.as_ref()?.contribution(), 0, len);
        if let Some(weight) = node.local.rest(&mut node.params, node.pool.floats_mut(contribution)) {
            if let Some(app) = node.app.as_mut() {
                app.contributes(node.step, weight);
            }
            node.phase = Phase::Syncing;
            self.step_machine(me, weight, true);
            return Some(me);
        }
        node.phase = Phase::Finishing;
        self.give_state(me);
        self.feed(me, Input::Leave { stay: true, keep: self.plan.suspend })
    }
}
