//! Reference models in `f64`: the parameters of a shard after contributions have been merged in a given order.
//!
//! Each merge rule has a model ([`Merging`]), and so has each commit step ([`Commit`]). The models are written from the
//! formulas of the papers, independently of the rules in `core/src/rule`, so that a mistake there is not repeated here.
//! State of a rule is state of its model. [`Reference`] combines a merge rule and a commit step.

use std::cell::Cell;

use gradwire_core::Recipe;
use gradwire_core::recipe::{Compensate, Merge, Outer, Payload, Scaling, Staleness, VelocityScale, Weigh};

/// The model of a merge rule: how contributions become one update, or one vector of parameters.
trait Merging {
    /// Takes a contribution of `weight` examples. Returns the merged vector if the rule commits at once.
    fn admit(&mut self, x: &[f64], weight: f64, staleness: u64) -> Option<Vec<f64>>;

    /// Ends a round, or the run. Returns the merged vector of the gathered contributions, if there are any.
    fn take(&mut self) -> Option<Vec<f64>>;
}

/// The model of a commit step: how a merged vector changes the parameters.
trait Commit {
    /// Changes `params` by the merged vector. `rate`: the learning rate that its updates were made with.
    fn commit(&mut self, params: &mut [f64], merged: &[f64], rate: f64);
}

/// The weight of a contribution in a mean: its examples m, or `m (m / H)` of H steps in units of 1/16.
pub fn weight(recipe: &Recipe, examples: u64, steps: u64) -> u64 {
    match recipe.weigh() {
        Weigh::Examples => examples,
        Weigh::Batch => ((examples as f64).powi(2) / steps as f64 * 16.0).round() as u64,
    }
}

/// The parameters of one shard, or of a whole vector, and the rules that change them.
pub struct Reference {
    compensate: Compensation,
    merge: Box<dyn Merging>,
    commit: Box<dyn Commit>,
    pub params: Vec<f64>,
    /// Of the gathered contributions: the sum of their learning rates times their weights, and of their weights.
    rates: [f64; 2],
    /// Contributions of a larger staleness are dropped before they change anything.
    drop_above: u64,
    /// Number of commits so far.
    pub version: u64,
}

impl Reference {
    /// A model of the recipe's rules, at version 0 with these parameters.
    pub fn new(recipe: &Recipe, workers: u32, initial: &[f32]) -> Self {
        let staleness = recipe.staleness();
        let merge: Box<dyn Merging> = match recipe.merge() {
            Merge::Mean | Merge::TrimmedMean { trim: 0 } => Box::new(Mean::default()),
            Merge::TrimmedMean { trim } => Box::new(Whole::new(move |rows| trimmed(rows, trim as usize))),
            Merge::Median => Box::new(Whole::new(|rows| trimmed(rows, rows.len()))),
            Merge::NormClip => Box::new(Whole::new(norm_clip)),
            Merge::CentredClip { radius, iterations } => {
                let centre = Cell::new(vec![0.0; initial.len()]);
                Box::new(Whole::new(move |rows| centred_clip(rows, &centre, radius.into(), iterations)))
            }
            Merge::Krum { faulty, best } => {
                Box::new(Whole::new(move |rows| krum(rows, faulty as usize, best as usize)))
            }
            Merge::Adasum => Box::new(Whole::new(move |rows| {
                by_tensor(rows, workers, |rows| adasum(rows.iter().map(|(x, _)| x.clone()).collect()))
            })),
            Merge::Rda => Box::new(Whole::new(move |rows| by_tensor(rows, workers, radial))),
            Merge::Vote { length } => {
                let last = Cell::new(vec![0.0; initial.len()]);
                Box::new(Whole::new(move |rows| vote(rows, &last, length.into())))
            }
            Merge::MeanOfSenders => Box::new(Whole::new(of_senders)),
            Merge::Sum { lambda } if recipe.has_rounds() => {
                Box::new(RoundSum { lambda: lambda.of(workers), sum: None })
            }
            // The programs contribute the vector by which the center has to move.
            Merge::Elastic { .. } if recipe.is_synchronous() => Box::new(RoundSum { lambda: 1.0, sum: None }),
            Merge::Elastic { .. } => Box::new(Sum { lambda: 1.0, staleness }),
            Merge::Sum { lambda } => Box::new(Sum { lambda: lambda.of(workers), staleness }),
            Merge::Softsync { updates } => Box::new(Softsync { updates, staleness, count: 0, sum: Vec::new() }),
        };
        let zeros = || vec![0.0; initial.len()];
        let commit: Box<dyn Commit> = match (recipe.payload(), recipe.outer()) {
            (Payload::Parameters, _) => Box::new(Replace),
            // The programs subtract the mean that they get.
            (Payload::Updates, Outer::None) | (Payload::Gradients, _) => Box::new(Subtract),
            (Payload::Updates, Outer::Momentum { mu, rate, look, scale }) => {
                let (mu, rate, by_rate) = (f64::from(mu.of(workers)), f64::from(rate), scale == VelocityScale::Rate);
                Box::new(Momentum { mu, rate, look, by_rate, velocity: zeros() })
            }
            (Payload::Updates, Outer::DelayedNesterov { mu, rate, pushes }) => {
                let (mu, rate) = (f64::from(mu.of(workers)), f64::from(rate));
                let pushes = pushes.of(workers);
                Box::new(DelayedNesterov { mu, rate, pushes, count: 0, sum: zeros(), velocity: zeros() })
            }
            (Payload::Updates, Outer::Adagrad { rate, floor }) => {
                Box::new(Adagrad { rate: rate.into(), floor: floor.into(), sums: zeros() })
            }
            (Payload::Updates, Outer::Adam { mu, beta, rate, floor }) => {
                let [mu, beta, rate, floor] = [mu, beta, rate, floor].map(f64::from);
                Box::new(Adam { mu, beta, rate, floor, means: zeros(), squares: zeros() })
            }
        };
        let compensate = Compensation { rule: recipe.compensate(), state: zeros(), history: Vec::new() };
        Self {
            compensate,
            merge,
            commit,
            rates: [0.0; 2],
            params: initial.iter().map(|x| f64::from(*x)).collect(),
            drop_above: staleness.drop_above.unwrap_or(u64::MAX),
            version: 0,
        }
    }

    /// Takes a contribution of `weight` examples that was computed from version `base`.
    pub fn push(&mut self, x: &[f64], weight: u64, base: u64) {
        self.push_at(1.0, x, weight, base);
    }

    /// The same with updates that were made with this learning rate.
    pub fn push_at(&mut self, rate: f64, x: &[f64], weight: u64, base: u64) {
        let staleness = self.version.saturating_sub(base);
        if staleness <= self.drop_above {
            self.rates[0] += rate * weight as f64;
            self.rates[1] += weight as f64;
        }
        let x = if staleness > self.drop_above { x.to_vec() } else { self.compensate.correct(x, &self.params, base) };
        let merged = self.merge.admit(&x, weight as f64, staleness);
        self.apply(merged);
    }

    /// Ends a round. A round without contributions increases the version too.
    pub fn end_round(&mut self) {
        let version = self.version + 1;
        self.end();
        self.version = version;
    }

    /// Ends the run: commits contributions that are still gathered.
    pub fn end(&mut self) {
        let merged = self.merge.take();
        self.apply(merged);
    }

    fn apply(&mut self, merged: Option<Vec<f64>>) {
        if let Some(merged) = merged {
            self.compensate.history.push(self.params.clone());
            let [sum, weight] = std::mem::take(&mut self.rates);
            self.commit.commit(&mut self.params, &merged, sum / weight);
            self.version += 1;
        }
    }
}

/// The correction of late updates, with the parameters of each version.
struct Compensation {
    rule: Compensate,
    state: Vec<f64>,
    history: Vec<Vec<f64>>,
}

impl Compensation {
    /// Odena 2016 (the released code) and Zheng et al. 2017, on updates: learning rate times gradient.
    fn correct(&mut self, x: &[f64], now: &[f64], base: u64) -> Vec<f64> {
        let moved = |i: usize| now[i] - self.history.get(base as usize).map_or(now[i], |got| got[i]);
        let limited = |x: f64, correction: f64, bounded| {
            x + if bounded { correction.clamp(-x.abs(), x.abs()) } else { correction }
        };
        let state = &mut self.state;
        let corrected = |(i, x): (usize, &f64)| match self.rule {
            Compensate::None => *x,
            Compensate::Magnitude { keep, length, least, .. } => {
                state[i] = f64::from(keep) * state[i] + (1.0 - f64::from(keep)) * x.abs();
                f64::from(length) * x / (state[i] + f64::from(least))
            }
            Compensate::Delay { strength, worker_rate, bounded } => {
                let factor = f64::from(strength) / f64::from(worker_rate);
                limited(*x, factor * x * x * moved(i), bounded)
            }
            Compensate::DelayAdaptive { strength, worker_rate, keep, bounded } => {
                let gradient = x / f64::from(worker_rate);
                state[i] = f64::from(keep) * state[i] + (1.0 - f64::from(keep)) * gradient.powi(2);
                let lambda = f64::from(strength) / (state[i] + 1e-7).sqrt();
                limited(*x, lambda / f64::from(worker_rate) * x * x * moved(i), bounded)
            }
        };
        x.iter().enumerate().map(corrected).collect()
    }
}

/// `sum(m x) / sum(m)` over a round, where m is the number of examples behind x.
#[derive(Default)]
struct Mean {
    weight: f64,
    sum: Vec<f64>,
}

impl Merging for Mean {
    fn admit(&mut self, x: &[f64], weight: f64, _staleness: u64) -> Option<Vec<f64>> {
        self.sum.resize(x.len(), 0.0);
        self.sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += weight * x);
        self.weight += weight;
        None
    }

    fn take(&mut self) -> Option<Vec<f64>> {
        let (weight, sum) = (std::mem::take(&mut self.weight), std::mem::take(&mut self.sum));
        (weight > 0.0).then(|| sum.into_iter().map(|sum| sum / weight).collect())
    }
}

/// Rules that need all contributions of a round: vectors with their weights.
struct Whole<F> {
    rows: Vec<(Vec<f64>, f64)>,
    merge: F,
}

impl<F: Fn(&[(Vec<f64>, f64)]) -> Vec<f64>> Whole<F> {
    fn new(merge: F) -> Self {
        Self { rows: Vec::new(), merge }
    }
}

impl<F: Fn(&[(Vec<f64>, f64)]) -> Vec<f64>> Merging for Whole<F> {
    fn admit(&mut self, x: &[f64], weight: f64, _staleness: u64) -> Option<Vec<f64>> {
        self.rows.push((x.to_vec(), weight));
        None
    }

    fn take(&mut self) -> Option<Vec<f64>> {
        let rows = std::mem::take(&mut self.rows);
        (!rows.is_empty()).then(|| (self.merge)(&rows))
    }
}

/// The mean of the values of each element that remain after the cut (Yin et al. 2018). The cut is limited: it leaves at
/// least one value of an odd number, and two of an even one.
fn trimmed(rows: &[(Vec<f64>, f64)], trim: usize) -> Vec<f64> {
    let cut = trim.min((rows.len() - 1) / 2);
    let mean = |i| {
        let mut column: Vec<f64> = rows.iter().map(|(x, _)| x[i]).collect();
        column.sort_unstable_by(f64::total_cmp);
        let kept = &column[cut..column.len() - cut];
        kept.iter().sum::<f64>() / kept.len() as f64
    };
    (0..rows[0].0.len()).map(mean).collect()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// `sum(m x min(1, median |x| / |x|)) / sum(m)`
fn norm_clip(rows: &[(Vec<f64>, f64)]) -> Vec<f64> {
    let mut norms: Vec<f64> = rows.iter().map(|(x, _)| norm(x)).collect();
    norms.sort_unstable_by(f64::total_cmp);
    let median = (norms[(norms.len() - 1) / 2] + norms[norms.len() / 2]) / 2.0;
    let total: f64 = rows.iter().map(|(_, weight)| weight).sum();
    let mut merged = vec![0.0; rows[0].0.len()];
    for (x, weight) in rows {
        let factor = if norm(x) > median { median / norm(x) } else { 1.0 } * weight / total;
        merged.iter_mut().zip(x).for_each(|(merged, x)| *merged += factor * x);
    }
    merged
}

/// The weighted mean of rows.
fn mean(rows: &[(Vec<f64>, f64)]) -> Vec<f64> {
    let total: f64 = rows.iter().map(|(_, weight)| weight).sum();
    let of = |i| rows.iter().map(|(x, weight)| weight / total * x[i]).sum();
    (0..rows[0].0.len()).map(of).collect()
}

/// Bernstein et al. 2019: the sign of the sum of signs. Of ties, the opposite of the last result.
fn vote(rows: &[(Vec<f64>, f64)], last: &Cell<Vec<f64>>, length: f64) -> Vec<f64> {
    let last_one = last.take();
    let of = |i: usize| {
        let sum: f64 = rows.iter().map(|(x, _)| if x[i] >= 0.0 { 1.0 } else { -1.0 }).sum();
        let tie = if last_one[i] > 0.0 { -1.0 } else { 1.0 };
        length * if sum == 0.0 { tie } else { sum.signum() }
    };
    let voted: Vec<f64> = (0..last_one.len()).map(of).collect();
    last.set(voted.clone());
    voted
}

/// The weighted mean of each element over the rows that are not 0 there. An element without such a row is 0.
fn of_senders(rows: &[(Vec<f64>, f64)]) -> Vec<f64> {
    let of = |i| {
        let senders: Vec<_> =
            rows.iter().filter(|(x, _)| x[i] != 0.0).map(|(x, weight)| (vec![x[i]], *weight)).collect();
        if senders.is_empty() { 0.0 } else { mean(&senders)[0] }
    };
    (0..rows[0].0.len()).map(of).collect()
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// Karimireddy et al. 2021, algorithm 2.
fn centred_clip(rows: &[(Vec<f64>, f64)], centre: &Cell<Vec<f64>>, radius: f64, iterations: u32) -> Vec<f64> {
    let mut v = centre.take();
    for _ in 0..iterations {
        let clipped = |(x, weight): &(Vec<f64>, f64)| {
            let way = difference(x, &v);
            let factor = if norm(&way) > radius { radius / norm(&way) } else { 1.0 };
            (way.iter().map(|x| factor * x).collect(), *weight)
        };
        let way = mean(&rows.iter().map(clipped).collect::<Vec<_>>());
        v.iter_mut().zip(way).for_each(|(v, way)| *v += way);
    }
    centre.set(v.clone());
    v
}

/// Blanchard et al. 2017, section 4. Of equal scores, the smaller weight and the smaller content go first.
fn krum(rows: &[(Vec<f64>, f64)], faulty: usize, best: usize) -> Vec<f64> {
    let n = rows.len();
    if n < 3 {
        return mean(rows);
    }
    let faulty = faulty.min((n - 3) / 2);
    let score = |(x, _): &(Vec<f64>, f64)| -> f64 {
        let mut distances: Vec<f64> = rows.iter().map(|(y, _)| norm(&difference(x, y)).powi(2)).collect();
        distances.sort_unstable_by(f64::total_cmp);
        distances[1..n - faulty - 1].iter().sum()
    };
    // Contributions are multiples of 2^-10: scores are too, of 2^-20, but for the root and the square in between.
    let score = |row| (score(row) * f64::from(1 << 20)).round();
    let mut sorted: Vec<_> = rows.iter().map(|row| (score(row), row.1, row)).collect();
    sorted.sort_by(|a, b| (a.0, a.1, &a.2.0).partial_cmp(&(b.0, b.1, &b.2.0)).unwrap());
    let chosen: Vec<_> = sorted.into_iter().take(best.min(n - faulty)).map(|(_, _, row)| row.clone()).collect();
    mean(&chosen)
}

/// Merges both tensors of a scenario by themselves. The first has an element for each worker.
fn by_tensor(rows: &[(Vec<f64>, f64)], workers: u32, merge: impl Fn(&[(Vec<f64>, f64)]) -> Vec<f64>) -> Vec<f64> {
    let own = rows[0].0.len().min(workers as usize);
    let cut = |range: std::ops::Range<usize>| {
        let rows: Vec<_> = rows.iter().map(|(x, weight)| (x[range.clone()].to_vec(), *weight)).collect();
        merge(&rows)
    };
    [cut(0..own), cut(own..rows[0].0.len())].concat()
}

/// Maleki et al. 2021, section 3.3, over neighbours.
fn adasum(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    while rows.len() > 1 {
        let pair = |pair: &[Vec<f64>]| {
            let [a, b] = pair else { return pair[0].clone() };
            let share = |x: &[f64]| if norm(x) == 0.0 { 1.0 } else { 1.0 - product(a, b) / (2.0 * product(x, x)) };
            let sum: Vec<f64> = a.iter().zip(b).map(|(x, y)| share(a) * x + share(b) * y).collect();
            // What is left of a pair that has cancelled is rounding.
            let each = (share(a) * norm(a)).powi(2) + (share(b) * norm(b)).powi(2);
            if product(&sum, &sum) > 1e-12 * each { sum } else { vec![0.0; sum.len()] }
        };
        rows = rows.chunks(2).map(pair).collect();
    }
    rows.swap_remove(0)
}

/// The weighted mean of the norms, in the direction of the weighted mean of the directions, of rows that are not 0. If the
/// directions cancel, the weighted mean of the rows.
fn radial(all: &[(Vec<f64>, f64)]) -> Vec<f64> {
    let rows: Vec<_> = all.iter().filter(|(x, _)| norm(x) > 0.0).cloned().collect();
    if rows.is_empty() {
        return all[0].0.clone();
    }
    let lengths: Vec<_> = rows.iter().map(|(x, weight)| (vec![norm(x)], *weight)).collect();
    let directions: Vec<_> =
        rows.iter().map(|(x, weight)| (x.iter().map(|x_i| x_i / norm(x)).collect(), *weight)).collect();
    let (length, direction) = (mean(&lengths)[0], mean(&directions));
    if norm(&direction) < 1e-12 {
        return mean(&rows);
    }
    direction.iter().map(|x| x / norm(&direction) * length).collect()
}

/// `lambda a(tau) x` for each contribution at once, where tau is its staleness and a the staleness rule.
struct Sum {
    lambda: f32,
    staleness: Staleness,
}

impl Merging for Sum {
    fn admit(&mut self, x: &[f64], _weight: f64, staleness: u64) -> Option<Vec<f64>> {
        let factor = f64::from(self.lambda) * factor(self.staleness, staleness)?;
        Some(x.iter().map(|x| factor * x).collect())
    }

    fn take(&mut self) -> Option<Vec<f64>> {
        None
    }
}

/// `lambda sum(x)` over a round: bulk-synchronous SSP.
struct RoundSum {
    lambda: f32,
    sum: Option<Vec<f64>>,
}

impl Merging for RoundSum {
    fn admit(&mut self, x: &[f64], _weight: f64, _staleness: u64) -> Option<Vec<f64>> {
        let sum = self.sum.get_or_insert_with(|| vec![0.0; x.len()]);
        sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += f64::from(self.lambda) * x);
        None
    }

    fn take(&mut self) -> Option<Vec<f64>> {
        self.sum.take()
    }
}

/// `1/c sum(a(tau) x)` over c contributions (Zhang et al. 2016). At the end of the run, k < c contributions may be
/// left; they are divided by k.
struct Softsync {
    updates: u32,
    staleness: Staleness,
    count: u32,
    sum: Vec<f64>,
}

impl Merging for Softsync {
    fn admit(&mut self, x: &[f64], _weight: f64, staleness: u64) -> Option<Vec<f64>> {
        let factor = factor(self.staleness, staleness)?;
        self.sum.resize(x.len(), 0.0);
        self.sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += factor * x);
        self.count += 1;
        if self.count == self.updates { self.take() } else { None }
    }

    fn take(&mut self) -> Option<Vec<f64>> {
        let (count, sum) = (std::mem::take(&mut self.count), std::mem::take(&mut self.sum));
        (count > 0).then(|| sum.into_iter().map(|sum| sum / f64::from(count)).collect())
    }
}

/// The factor a(tau) of a staleness rule, or `None` if the rule drops the contribution.
fn factor(rule: Staleness, staleness: u64) -> Option<f64> {
    if rule.drop_above.is_some_and(|limit| staleness > limit) {
        return None;
    }
    let tau = staleness as f64;
    Some(match rule.scaling {
        Scaling::Const => 1.0,
        Scaling::Inverse => 1.0 / tau.max(1.0),
        Scaling::InversePlusOne => 1.0 / (tau + 1.0),
        Scaling::Exp { base } => f64::from(base).powf(tau),
        Scaling::Poly { power } => (tau + 1.0).powf(-f64::from(power)),
    })
}

/// For merged parameters: they become the new parameters.
struct Replace;

impl Commit for Replace {
    fn commit(&mut self, params: &mut [f64], merged: &[f64], _rate: f64) {
        params.copy_from_slice(merged);
    }
}

/// For merged updates: they are subtracted from the parameters.
struct Subtract;

impl Commit for Subtract {
    fn commit(&mut self, params: &mut [f64], merged: &[f64], _rate: f64) {
        params.iter_mut().zip(merged).for_each(|(param, merged)| *param -= merged);
    }
}

/// Block momentum (Chen and Huo 2016): the merged update is a gradient for SGD with momentum, Nesterov's if `look`.
struct Momentum {
    mu: f64,
    rate: f64,
    look: bool,
    /// SlowMo (Wang et al. 2020, algorithm 1).
    by_rate: bool,
    velocity: Vec<f64>,
}

impl Commit for Momentum {
    fn commit(&mut self, params: &mut [f64], merged: &[f64], rate: f64) {
        let unit = if self.by_rate { rate } else { 1.0 };
        for (i, merged) in merged.iter().enumerate() {
            let gradient = merged / unit;
            self.velocity[i] = self.mu * self.velocity[i] + self.rate * gradient;
            let ahead = self.rate * gradient + self.mu * self.velocity[i];
            params[i] -= unit * if self.look { ahead } else { self.velocity[i] };
        }
    }
}

/// Liu et al. 2024, algorithm 3: every `pushes`-th update, momentum takes the sum of the updates since the last time.
struct DelayedNesterov {
    mu: f64,
    rate: f64,
    pushes: u32,
    count: u32,
    sum: Vec<f64>,
    velocity: Vec<f64>,
}

impl Commit for DelayedNesterov {
    fn commit(&mut self, params: &mut [f64], merged: &[f64], _rate: f64) {
        self.count += 1;
        let is_full = self.count == self.pushes;
        for (i, merged) in merged.iter().enumerate() {
            self.sum[i] += merged;
            let mut step = *merged;
            if is_full {
                self.velocity[i] = self.mu * self.velocity[i] + std::mem::take(&mut self.sum[i]);
                step += self.mu * self.velocity[i];
            }
            params[i] -= self.rate * step;
        }
        if is_full {
            self.count = 0;
        }
    }
}

/// Duchi et al. 2011, on updates.
struct Adagrad {
    rate: f64,
    floor: f64,
    sums: Vec<f64>,
}

impl Commit for Adagrad {
    fn commit(&mut self, params: &mut [f64], merged: &[f64], _rate: f64) {
        for (i, merged) in merged.iter().enumerate() {
            self.sums[i] += merged.powi(2);
            params[i] -= self.rate * merged / (self.sums[i] + self.floor).sqrt();
        }
    }
}

/// Reddi et al. 2021, algorithm 2, on updates.
struct Adam {
    mu: f64,
    beta: f64,
    rate: f64,
    floor: f64,
    means: Vec<f64>,
    squares: Vec<f64>,
}

impl Commit for Adam {
    fn commit(&mut self, params: &mut [f64], merged: &[f64], _rate: f64) {
        for (i, merged) in merged.iter().enumerate() {
            self.means[i] = self.mu * self.means[i] + (1.0 - self.mu) * merged;
            self.squares[i] = self.beta * self.squares[i] + (1.0 - self.beta) * merged.powi(2);
            params[i] -= self.rate * self.means[i] / (self.squares[i].sqrt() + self.floor);
        }
    }
}
