//! The rhythm of workers: the steps of a period, and how long a round waits for its workers. Joined with an exchange, it
//! is a forecast.

use gradwire_core::Cluster;
use gradwire_core::recipe::{Adapt, Grace, Late, Merge, Pace, Span, Topology};

use super::exchange::Exchange;
use super::order::kth;
use super::{Case, Forecast, Parts, PlanError, Recipe, Waits};

/// The share of the time from which on workers count as busy.
const BUSY: f64 = 0.95;

/// The periods of all workers. Times in seconds.
pub(super) struct Rhythm {
    /// Local steps between two synchronisations, by worker.
    steps: Vec<f64>,
    /// Compute of such a period, by worker.
    compute: Vec<f64>,
    /// Coefficient of variation of that compute.
    spread: f64,
}

impl Rhythm {
    pub(super) fn of(case: &Case, recipe: &Recipe) -> Result<Self, PlanError> {
        let count = |steps: f64| case.steps.iter().map(|_| steps).collect::<Vec<f64>>();
        let steps = match recipe.period().span(u64::MAX) {
            Span::Steps(steps) if recipe.adapt() == Adapt::Speed => by_speed(&case.steps, f64::from(steps)),
            Span::Steps(steps) => count(f64::from(steps)),
            Span::Examples(examples) => {
                let batch = case.batch.ok_or(PlanError::NoBatch)?;
                count((examples as f64 / f64::from(batch)).ceil().max(1.0))
            }
            Span::Time(time) => {
                let fitting = |step: &f64| (time.as_secs_f64() / step * (1.0 + 1e-9)).floor().max(1.0);
                case.steps.iter().map(fitting).collect()
            }
        };
        let compute: Vec<f64> = steps.iter().zip(&case.steps).map(|(steps, step)| steps * step).collect();
        let timed = matches!(recipe.period().span(u64::MAX), Span::Time(_));
        let mean = steps.iter().sum::<f64>() / steps.len() as f64;
        // A period in time ends in time, whatever its steps take.
        let spread = if timed { 0.0 } else { case.spread / mean.sqrt() };
        Ok(Self { steps, compute, spread })
    }

    /// The forecast, with an exchange of the same case and recipe.
    pub(super) fn with(self, case: &Case, recipe: &Recipe, cluster: Cluster, exchange: &Exchange) -> Forecast {
        let n = self.steps.len();
        let ledger = matches!(recipe.topology(), Topology::Mesh { .. }) && !recipe.is_collective();
        let whole = exchange.wire + exchange.latency + exchange.code;
        let sum = |values: &[f64]| values.iter().sum::<f64>();
        let mean = |values: &[f64]| sum(values) / n as f64;
        // As `window` of core: one contribution is under way while the next is computed, and the one after it waits.
        let window = match recipe.pace() {
            Pace::Stale { bound } => !ledger && bound > 0,
            Pace::Asynchronous { overlap } => !ledger && overlap,
            Pace::Synchronous | Pace::First { .. } => false,
        };
        let cycle = |compute: f64| match (ledger, window) {
            // Workers send and go on.
            (true, _) => compute + exchange.code + exchange.others,
            (false, true) => compute.max(0.5 * (compute + whole)).max(exchange.way),
            (false, false) => compute + whole,
        };
        // By worker: seconds from one synchronisation to the next, and the periods that count, of all.
        let (mut cycles, counted) = match recipe.pace() {
            Pace::Synchronous | Pace::Stale { bound: 0 } => {
                (vec![kth(&self.compute, self.spread, n) + whole; n], vec![1.0; n])
            }
            Pace::First { count, grace, late } => {
                let k = (count.of(cluster.workers) as usize).clamp(1, n);
                let time_of = |k| kth(&self.compute, self.spread, k);
                let (k, compute) = match grace {
                    Grace::Fixed(grace) => (k, (time_of(k) + grace.as_secs_f64()).min(time_of(n))),
                    // The round waits for the workers that it expects before the cap.
                    Grace::Adaptive { cap } => {
                        let last = time_of(k) + cap.as_secs_f64();
                        let k = (k..=n).rev().find(|k| time_of(*k) <= last).unwrap_or(k);
                        (k, time_of(k))
                    }
                };
                self.first(compute + whole, whole, k, late)
            }
            Pace::Stale { bound } => {
                // The slowest worker sets the pace of all. Of random times, the slack of the bound averages the most
                // part away.
                let slowest = kth(&self.compute, self.spread / (bound as f64 + 1.0).sqrt(), n);
                (vec![cycle(slowest); n], vec![1.0; n])
            }
            Pace::Asynchronous { .. } => (self.compute.iter().map(|compute| cycle(*compute)).collect(), vec![1.0; n]),
        };
        // Messages of a mesh without rounds are merged where the wire is too slow for them; elsewhere a worker waits.
        let demand = cycles.iter().map(|cycle| 1.0 / cycle).sum::<f64>() / n as f64;
        let crowded = if recipe.has_rounds() || ledger { 1.0 } else { (demand * exchange.port).max(1.0) };
        cycles.iter_mut().for_each(|cycle| *cycle *= crowded);

        let rate = (0..n).map(|j| counted[j] * self.steps[j] / cycles[j]).sum::<f64>();
        let done = (0..n).map(|j| self.steps[j] / cycles[j]).sum::<f64>();
        let step = n as f64 / done;
        let useful = (0..n).map(|j| counted[j] * self.compute[j] / cycles[j]).sum::<f64>() / n as f64;
        let busy = (0..n).map(|j| self.compute[j] / cycles[j]).sum::<f64>() / n as f64;
        // Periods per second of the mean worker; their parts are those of its steps.
        let period = done / cycles.iter().map(|cycle| 1.0 / cycle).sum::<f64>();
        let mut parts = self.parts(&cycles, exchange, ledger, busy * step, step, period);
        if crowded > 1.0 || window {
            // Compute hides an unknown share of each part: all that is neither compute nor stragglers is the wire.
            let slowest = self.compute.iter().copied().fold(0.0, f64::max) / period;
            let bound = matches!(recipe.pace(), Pace::Stale { .. });
            let straggle = if bound { (slowest - parts.compute).max(0.0).min(step - parts.compute) } else { 0.0 };
            let wire = (step - parts.compute - straggle).max(0.0);
            parts = Parts { straggle, wire, latency: 0.0, code: 0.0, ..parts };
        }
        let merged = if ledger { (exchange.port / mean(&cycles)).max(1.0) } else { 1.0 };
        let waits = waits(case, &parts, busy, exchange, crowded);
        Forecast {
            rate,
            speed_up: rate / case.alone(),
            step,
            period,
            busy: useful,
            parts,
            bytes: exchange.bytes / (merged * period),
            busiest: exchange.busiest / (merged * period),
            merged,
            staleness: staleness(recipe, n, &cycles, exchange, ledger),
            waits,
            servers: cluster.servers,
        }
    }

    /// Rounds of the first `k` workers: cycles, and the share of a worker's periods that count.
    fn first(&self, round: f64, whole: f64, k: usize, late: Late) -> (Vec<f64>, Vec<f64>) {
        let n = self.compute.len();
        let constant = self.compute.iter().any(|compute| *compute != self.compute[0]);
        // Workers of unequal speed: those that need longer than the round are late each time.
        let cycle = |compute: &f64| if constant { (compute + whole).max(round) } else { round };
        let cycles: Vec<f64> = self.compute.iter().map(cycle).collect();
        let counts = |compute: &f64| match late {
            Late::Next => 1.0,
            Late::Drop if !constant => k as f64 / n as f64,
            Late::Drop if compute + whole > round * (1.0 + 1e-9) => 0.0,
            Late::Drop => 1.0,
        };
        let counted = self.compute.iter().map(counts).collect();
        (cycles, counted)
    }

    /// The parts of a mean step.
    fn parts(&self, cycles: &[f64], exchange: &Exchange, ledger: bool, compute: f64, step: f64, period: f64) -> Parts {
        let per_step = 1.0 / period;
        let code = if ledger { exchange.code + exchange.others } else { exchange.code };
        let (wire, latency) = if ledger { (0.0, 0.0) } else { (exchange.wire, exchange.latency) };
        let (wire, latency, code) = (wire * per_step, latency * per_step, code * per_step);
        let straggle = (step - compute - wire - latency - code).max(0.0);
        // Rounding is not a straggler.
        let straggle = if straggle < 1e-9 * cycles[0] { 0.0 } else { straggle };
        Parts { compute, straggle, wire, latency, code }
    }
}

/// The periods of workers by their speed: DyLU, relative to the 90th percentile.
fn by_speed(steps: &[f64], period: f64) -> Vec<f64> {
    let mut sorted = steps.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let reference = sorted[sorted.len() / 10];
    steps.iter().map(|step| (period * (reference / step).min(1.0) * (1.0 + 1e-9)).floor().max(1.0)).collect()
}

fn waits(case: &Case, parts: &Parts, busy: f64, exchange: &Exchange, crowded: f64) -> Waits {
    if busy >= BUSY {
        return Waits::Nothing;
    }
    let Parts { straggle, wire, latency, code, .. } = *parts;
    let most = straggle.max(wire).max(latency).max(code);
    if straggle == most {
        let longest = case.steps.iter().copied().fold(0.0, f64::max);
        let slowest = case.steps.iter().position(|step| *step == longest).map(|rank| rank as u32);
        let alike = case.steps.iter().all(|step| *step == longest);
        return Waits::Stragglers(slowest.filter(|_| !alike));
    }
    match () {
        () if wire == most || crowded > 1.0 => exchange.place.waits(),
        () if latency == most => Waits::Latency,
        () => Waits::Code,
    }
}

/// The mean staleness in versions: (N - 1) / c for updates that are applied c at a time (Zhang et al. 2016).
fn staleness(recipe: &Recipe, workers: usize, cycles: &[f64], exchange: &Exchange, ledger: bool) -> f64 {
    let others = workers as f64 - 1.0;
    let cycle = cycles.iter().sum::<f64>() / cycles.len() as f64;
    match (recipe.pace(), recipe.merge()) {
        (Pace::Synchronous | Pace::Stale { bound: 0 } | Pace::First { .. }, _) => 0.0,
        // Updates that are under way when a step begins.
        _ if ledger => others * ((exchange.wire + exchange.latency) / cycle + 1.0),
        (pace, merge) => {
            // A contribution under way makes the next one a version older for each worker.
            let window = !matches!(pace, Pace::Asynchronous { overlap: false });
            let updates = if let Merge::Softsync { updates } = merge { f64::from(updates.max(1)) } else { 1.0 };
            if window { 2.0 * others / updates } else { others / updates }
        }
    }
}
