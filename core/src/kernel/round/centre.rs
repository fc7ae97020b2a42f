//! Centred clipping (Karimireddy et al. 2021, "Learning from history for Byzantine robust optimization").

use super::clip::weigh;
use super::{BLOCK, Fact, order};
use crate::kernel::norm::squared_distance;
use crate::kernel::tier::Tier;

/// Moves `into`, the result of the last round, by the mean, weighted by examples, of the ways to the rows, each clipped
/// to `radius`; so many times.
pub(super) fn clipped<'a>(
    into: &mut [f32],
    row: impl Fn(usize) -> &'a [f32],
    facts: &mut [Fact],
    radius: f64,
    iterations: u32,
) {
    for _ in 0..iterations {
        facts.iter_mut().for_each(|fact| fact.square = squared_distance(row(fact.row as usize), into));
        order::sort(facts, &row);
        weigh(facts, radius);
        for start in (0..into.len()).step_by(BLOCK) {
            let len = (into.len() - start).min(BLOCK);
            let into = &mut into[start..start + len];
            let mut sums = [0.0f64; BLOCK];
            for fact in &*facts {
                let x = &row(fact.row as usize)[start..start + len];
                Tier::best().run(|| add(&mut sums, x, into, fact.factor));
            }
            into.iter_mut().zip(sums).for_each(|(into, sum)| *into = (f64::from(*into) + sum) as f32);
        }
    }
}

#[inline(always)]
fn add(sums: &mut [f64; BLOCK], x: &[f32], from: &[f32], factor: f64) {
    for ((sum, x), from) in sums.iter_mut().zip(x).zip(from) {
        *sum += (f64::from(*x) - f64::from(*from)) * factor;
    }
}
