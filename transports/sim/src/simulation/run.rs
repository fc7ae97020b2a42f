//! One run: the world, the learners in it, and the curve.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gradwire_core::status::{Counters, Histogram};
use gradwire_core::{Duration, Instant, PeerId};

use super::outcome::{self, End, Outcome, Point, WorkerOutcome};
use super::step_times::StepTimes;
use super::{Error, Learner, Next, Simulation, Speed, Step, Validation, Worker};
use crate::node::{App, Life};
use crate::plan::Plan;
use crate::random::Random;
use crate::world::World;

/// Concern of the random times of the steps of worker 0; those of the other workers follow.
const SPEEDS: u64 = 1 << 33;
/// Events after which a run looks whether the sweep has been stopped.
const GLANCE: u64 = 1024;

/// Runs a simulation whose settings are checked. `stop`: ends the run when it becomes true.
pub(super) fn run<L: Learner + 'static>(
    simulation: &Simulation,
    run: usize,
    learner: &impl Fn(&Worker) -> L,
    watch: &mut dyn FnMut(&Point) -> Next,
    stop: Option<&AtomicBool>,
) -> Result<Outcome, Error> {
    let Simulation { ref layout, recipe, cluster, seed, patience, ref faults, ref links, ref ends, .. } = *simulation;
    let mut faults: Vec<_> = faults.iter().map(|(at, fault)| (Instant::ORIGIN.after(*at), *fault)).collect();
    faults.sort_by_key(|(at, _)| *at);
    let initial = simulation.initial_params();
    let shared = Arc::new(Mutex::new(Shared::new(cluster.workers, initial.clone())));
    let plan = Plan {
        network: links.network(),
        lines: links.lines(cluster),
        patience,
        // A run without a number of steps ends in another way.
        steps: ends.steps.unwrap_or(u64::MAX / 2),
        initial,
        faults,
        ..Plan::new(seed, layout.clone(), recipe, cluster)
    };
    let steps = plan.steps;
    let world = World::new(plan, |me| {
        Box::new(Program {
            me,
            learner: learner(&simulation.worker(run, me)),
            speed: simulation.speed_at(me).clone(),
            random: Random::new(seed, SPEEDS + u64::from(me.0)),
            steps,
            contributed: false,
            loss: None,
            shared: Arc::clone(&shared),
        })
    })?;
    let validator = learner(&simulation.worker(run, PeerId(0)));
    let runner = Runner {
        simulation,
        world,
        shared,
        validator,
        watch,
        stop,
        curve: Vec::new(),
        best: None,
        recorded: None,
        events: 0,
    };
    Ok(runner.run())
}

/// The state that the workers of a run share with its loop.
struct Shared {
    now: Instant,
    workers: Vec<Tally>,
    /// The worker whose parameters are validated.
    observed: PeerId,
    /// Its parameters after its last synchronisation.
    params: Vec<f32>,
    examples: u64,
    /// Examples when the parameters were synchronised.
    seen: u64,
    step_times: StepTimes,
    /// Sum of the training losses since the last point, and their examples.
    losses: (f64, u64),
    /// A worker and a step that are not finite.
    diverged: Option<(PeerId, u64)>,
}

#[derive(Clone, Default)]
struct Tally {
    steps: u64,
    examples: u64,
    contributions: u64,
    busy: Duration,
    /// The end of its last step.
    stepped: Option<Instant>,
    /// The beginning and the time of the step that it computes.
    computing: Option<(Instant, Duration)>,
}

impl Tally {
    /// The time of the present step so far. A pause stops the computation.
    fn present(&self, now: Instant) -> Duration {
        self.computing.map_or(Duration::ZERO, |(since, takes)| now.since(since).min(takes))
    }
}

impl Shared {
    fn new(workers: u32, params: Vec<f32>) -> Self {
        Self {
            now: Instant::ORIGIN,
            workers: vec![Tally::default(); workers as usize],
            observed: PeerId(0),
            params,
            examples: 0,
            seen: 0,
            step_times: StepTimes::default(),
            losses: (0.0, 0),
            diverged: None,
        }
    }
}

/// The lock is never held while a learner runs, so a panic leaves the state whole.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A learner, as the program of a worker.
struct Program<L> {
    me: PeerId,
    learner: L,
    speed: Speed,
    random: Random,
    /// Steps until the end.
    steps: u64,
    /// The synchronisation under way has a contribution.
    contributed: bool,
    /// The training loss of the last step.
    loss: Option<f32>,
    shared: Arc<Mutex<Shared>>,
}

/// Are all elements finite? Without branches, since vectors are long.
fn is_finite(vector: &[f32]) -> bool {
    vector.iter().map(|x| x.to_bits() & !(1 << 31)).fold(0, u32::max) < f32::INFINITY.to_bits()
}

impl<L: Learner> Program<L> {
    /// Counts a step that the learner has computed. Returns its examples.
    fn count(&mut self, number: u64, step: Step, finite: bool) -> u32 {
        self.loss = step.loss;
        let shared = &mut *lock(&self.shared);
        let tally = &mut shared.workers[self.me.index()];
        tally.busy += tally.present(shared.now);
        tally.computing = None;
        tally.steps += 1;
        if let Some(before) = tally.stepped.replace(shared.now) {
            shared.step_times.add(shared.now.since(before));
        }
        if let Some(loss) = step.loss {
            shared.losses.0 += f64::from(loss) * f64::from(step.examples);
            shared.losses.1 += u64::from(step.examples);
        }
        if !finite {
            shared.diverged.get_or_insert((self.me, number));
        }
        step.examples
    }
}

impl<L: Learner> App for Program<L> {
    fn duration(&mut self, step: u64) -> Duration {
        if step >= self.steps {
            // All steps are done: the worker leaves.
            return Duration::ZERO;
        }
        let now = lock(&self.shared).now;
        let takes = self.learner.step_time().unwrap_or_else(|| self.speed.draw(&mut self.random, now));
        lock(&self.shared).workers[self.me.index()].computing = Some((now, takes));
        takes
    }

    fn update(&mut self, step: u64, params: &[f32], update: &mut [f32]) -> u32 {
        let ended = self.learner.step(params, update);
        let finite = is_finite(update);
        if !finite {
            // The run ends with this event.
            update.fill(0.0);
        }
        self.count(step, ended, finite)
    }

    fn sync(&mut self, step: u64, params: &mut [f32]) -> Option<u32> {
        let ended = self.learner.sync(params)?;
        Some(self.count(step, ended, is_finite(params)))
    }

    fn loss(&mut self, _step: u64) -> Option<f32> {
        self.loss
    }

    fn rate(&mut self, step: u64) -> Option<f32> {
        let scale = self.learner.rate()?;
        if !scale.is_finite() {
            lock(&self.shared).diverged.get_or_insert((self.me, step));
        }
        Some(scale).filter(|scale| scale.is_finite())
    }

    fn contributes(&mut self, _step: u64, weight: u64) {
        self.contributed = true;
        let shared = &mut *lock(&self.shared);
        shared.examples += weight;
        let tally = &mut shared.workers[self.me.index()];
        tally.examples += weight;
        tally.contributions += u64::from(weight > 0);
    }

    fn second(&mut self, step: u64, weight: u64) {
        self.contributes(step, weight);
    }

    fn done(&mut self, _step: u64, params: &[f32]) {
        if std::mem::take(&mut self.contributed) {
            let shared = &mut *lock(&self.shared);
            if shared.observed == self.me {
                shared.params.copy_from_slice(params);
                shared.seen = shared.examples;
            }
        }
    }
}

/// The loop of a run.
struct Runner<'a, L> {
    simulation: &'a Simulation,
    world: World,
    shared: Arc<Mutex<Shared>>,
    /// A learner for validations only.
    validator: L,
    watch: &'a mut dyn FnMut(&Point) -> Next,
    stop: Option<&'a AtomicBool>,
    curve: Vec<Point>,
    /// The smallest validation loss, with its parameters.
    best: Option<(f64, Vec<f32>)>,
    /// The moment of the last point, and the events before it.
    recorded: Option<(Instant, u64)>,
    events: u64,
}

/// The moments at which the curve gets a point.
struct Moments<'a> {
    every: Option<Duration>,
    next: Option<Instant>,
    at: std::slice::Iter<'a, Duration>,
    listed: Option<Instant>,
}

impl<'a> Moments<'a> {
    fn new(every: Option<Duration>, at: &'a [Duration]) -> Self {
        let mut at = at.iter();
        let listed = at.next().map(|at| Instant::ORIGIN.after(*at));
        Self { every, next: every.map(|every| Instant::ORIGIN.after(every)), at, listed }
    }

    /// The next moment, if it is before `limit`, or at it and `including`.
    fn take(&mut self, limit: Instant, including: bool) -> Option<Instant> {
        let next = [self.next, self.listed].into_iter().flatten().min()?;
        if next > limit || (next == limit && !including) {
            return None;
        }
        if self.next == Some(next) {
            self.next = self.every.map(|every| next.after(every));
        }
        while self.listed.is_some_and(|listed| listed <= next) {
            self.listed = self.at.next().map(|at| Instant::ORIGIN.after(*at));
        }
        Some(next)
    }
}

impl<L: Learner> Runner<'_, L> {
    fn run(mut self) -> Outcome {
        let (now, mut end) = self.events();
        if end == End::Steps {
            let done = self.ranks().find(|worker| self.world.life(*worker) == Life::Done);
            let observed = done.unwrap_or_default();
            let shared = &mut *lock(&self.shared);
            shared.observed = observed;
            shared.params.copy_from_slice(self.world.params(observed));
        }
        // The point that has ended the run, or the point at its last moment, is the last one already.
        let is_recorded = self.recorded == Some((now, self.events)) && end != End::Steps;
        if !is_recorded
            && let Some(found) = self.record(now)
            && end.is_good()
            && found != End::Stopped
        {
            end = found;
        }
        self.outcome(now, end)
    }

    fn ranks(&self) -> impl Iterator<Item = PeerId> + use<L> {
        (0..self.simulation.cluster.workers).map(PeerId)
    }

    /// Carries out events until the run ends. Returns when and why.
    fn events(&mut self) -> (Instant, End) {
        let simulation = self.simulation;
        let (record, ends) = (&simulation.record, &simulation.ends);
        let over = ends.time.map(|time| Instant::ORIGIN.after(time));
        let mut moments = Moments::new(record.every, &record.at);
        let mut next_examples = record.examples;
        if !record.is_empty()
            && let Some(end) = self.record(Instant::ORIGIN)
        {
            return (Instant::ORIGIN, end);
        }
        let mut is_over = false;
        loop {
            let now = self.world.now();
            if is_over {
                let is_done = |worker| self.world.life(worker) == Life::Done;
                return (now, if self.ranks().any(is_done) { End::Steps } else { End::Lost });
            }
            let next = self.world.next_at().map(|next| next.max(now));
            // A point shows the state after all events up to its moment.
            let (limit, including) = match (next, over) {
                (Some(next), Some(over)) if next > over => (over, true),
                (Some(next), _) => (next, false),
                (None, _) => (now, true),
            };
            while let Some(at) = moments.take(limit, including) {
                if let Some(end) = self.record(at) {
                    return (at, end);
                }
            }
            let Some(next) = next else { return (now, End::Stuck { waits: self.waits() }) };
            if let Some(over) = over.filter(|over| next > *over) {
                return (over, End::Time);
            }
            if self.events >= ends.events {
                return (now, End::Events { limit: ends.events });
            }
            if self.events.is_multiple_of(GLANCE) && self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return (now, End::Stopped);
            }
            lock(&self.shared).now = next;
            self.events += 1;
            let touched = self.world.pump().flatten();
            let now = self.world.now();
            if touched.is_none_or(|node| self.world.life(node) != Life::Up) {
                self.observe();
                is_over = self.world.is_over();
            }
            let (examples, diverged) = {
                let shared = lock(&self.shared);
                (shared.examples, shared.diverged)
            };
            if let Some((worker, step)) = diverged {
                return (now, End::Diverged { worker, step: Some(step) });
            }
            if let Some(due) = next_examples.filter(|due| examples >= *due) {
                let every = record.examples.unwrap_or(1);
                next_examples = Some(due + every * ((examples - due) / every + 1));
                if let Some(end) = self.record(now) {
                    return (now, end);
                }
            }
            if ends.examples.is_some_and(|limit| examples >= limit) {
                return (now, End::Examples);
            }
        }
    }

    /// Chooses the worker whose parameters are validated: the present one, unless its process is gone.
    fn observe(&mut self) {
        let is_gone = |worker| matches!(self.world.life(worker), Life::Down | Life::Cut(_));
        let present = lock(&self.shared).observed;
        if is_gone(present)
            && let Some(other) = self.ranks().find(|worker| !is_gone(*worker))
        {
            lock(&self.shared).observed = other;
        }
    }

    /// Adds a point to the curve. Returns why the run ends here, if it does.
    fn record(&mut self, at: Instant) -> Option<End> {
        let params = std::mem::take(&mut lock(&self.shared).params);
        let validation = self.validator.validate(&params);
        if let Some(Validation { loss, .. }) = validation {
            self.keep_best(loss, &params);
        }
        let point = {
            let shared = &mut *lock(&self.shared);
            shared.params = params;
            let (sum, examples) = std::mem::take(&mut shared.losses);
            Point {
                time: at.since(Instant::ORIGIN),
                steps: shared.workers.iter().map(|tally| tally.steps).sum(),
                examples: shared.examples,
                seen: shared.seen,
                bytes: self.world.bytes(),
                rounds: shared.workers[shared.observed.index()].contributions,
                loss: (examples > 0).then(|| sum / examples as f64),
                validation,
            }
        };
        self.curve.push(point);
        self.recorded = Some((at, self.events));
        let next = (self.watch)(&point);
        if validation.is_some_and(|validation| !validation.loss.is_finite()) {
            return Some(End::Diverged { worker: lock(&self.shared).observed, step: None });
        }
        if validation.is_some_and(|validation| self.is_target(validation)) {
            return Some(End::Target);
        }
        (next != Next::Continue).then_some(End::Stopped)
    }

    fn keep_best(&mut self, loss: f64, params: &[f32]) {
        match &mut self.best {
            Some(best) if loss < best.0 => {
                best.0 = loss;
                best.1.copy_from_slice(params);
            }
            None if loss.is_finite() => self.best = Some((loss, params.to_vec())),
            _ => {}
        }
    }

    fn is_target(&self, Validation { loss, accuracy }: Validation) -> bool {
        let ends = &self.simulation.ends;
        ends.loss.is_some_and(|target| loss <= target)
            || ends.accuracy.is_some_and(|target| accuracy.is_some_and(|accuracy| accuracy >= target))
    }

    fn waits(&self) -> Vec<(PeerId, Option<PeerId>)> {
        let up = (0..self.simulation.cluster.nodes()).map(PeerId).filter(|node| self.world.life(*node) == Life::Up);
        up.map(|node| {
            let status = self.world.status(node);
            (node, status.and_then(|status| status.waiting).map(|waiting| waiting.on))
        })
        .collect()
    }

    fn outcome(mut self, now: Instant, end: End) -> Outcome {
        let time = now.since(Instant::ORIGIN);
        let (mut staleness, mut counters) = (Histogram::default(), Counters::default());
        for status in (0..self.simulation.cluster.nodes()).filter_map(|node| self.world.status(PeerId(node))) {
            staleness.merge(&status.staleness);
            outcome::add(&mut counters, &status.counters);
        }
        let test = self.best.take().and_then(|(_, params)| self.validator.test(&params));
        let shared = &mut *lock(&self.shared);
        let workers = shared.workers.iter().enumerate().map(|(rank, tally)| {
            let busy = tally.busy + tally.present(now);
            WorkerOutcome {
                life: self.world.life(PeerId(rank as u32)),
                steps: tally.steps,
                examples: tally.examples,
                contributions: tally.contributions,
                busy,
                waited: time.saturating_sub(busy),
            }
        });
        let workers = workers.collect();
        let params = std::mem::take(&mut shared.params);
        Outcome {
            test,
            step_times: std::mem::take(&mut shared.step_times),
            end,
            time,
            curve: self.curve,
            workers,
            digest: outcome::digest(&params),
            params,
            bytes: self.world.bytes(),
            staleness,
            counters,
            events: self.events,
            trace: self.world.trace(),
        }
    }
}
