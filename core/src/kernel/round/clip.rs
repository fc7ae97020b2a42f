//! Contributions that are scaled down to a norm before they are added up.

use super::{Fact, combine, order};
use crate::kernel::norm::{square_root, squares};

/// `into` = the mean of the rows, weighted by examples, each scaled down to the median of their norms. Of an even number
/// of norms, the median is the mean of the two in the middle.
pub(super) fn to_median_norm<'a>(into: &mut [f32], row: impl Fn(usize) -> &'a [f32], facts: &mut [Fact]) {
    facts.iter_mut().for_each(|fact| fact.square = squares(row(fact.row as usize)));
    order::sort(facts, &row);
    let limit = 0.5 * (square_root(facts[(facts.len() - 1) / 2].square) + square_root(facts[facts.len() / 2].square));
    weigh(facts, limit);
    combine(into, row, facts);
}

/// Sets the factor of each row to its share of the examples, times the factor that scales a vector with that square of
/// a norm down to `limit`.
pub(super) fn weigh(facts: &mut [Fact], limit: f64) {
    let total: f64 = facts.iter().map(|fact| fact.weight as f64).sum();
    for fact in facts {
        let norm = square_root(fact.square);
        let scale = if norm > limit { limit / norm } else { 1.0 };
        fact.factor = fact.weight as f64 / total * scale;
    }
}
