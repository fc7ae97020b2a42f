//! The mean of lengths in the mean direction (as in Decoupled DiLoCo 2026): contributions that are nearly orthogonal do
//! not get shorter when they are merged.

use super::{Fact, combine, order};
use crate::kernel::norm::{scale, square_root, squares};

/// `into` = the mean norm of the rows, in the direction of the mean of their directions, both weighted by examples. Rows
/// of zeros do not count. Where the directions cancel, `into` is the weighted mean.
pub(super) fn radial<'a>(into: &mut [f32], row: impl Fn(usize) -> &'a [f32], facts: &mut [Fact]) {
    facts.iter_mut().for_each(|fact| fact.square = squares(row(fact.row as usize)));
    order::sort(facts, &row);
    // Zeros come first.
    let zeros = facts.partition_point(|fact| fact.square == 0.0);
    let facts = &mut facts[zeros..];
    let total: f64 = facts.iter().map(|fact| fact.weight as f64).sum();
    let mut length = 0.0;
    for fact in &mut *facts {
        let norm = square_root(fact.square);
        length += fact.weight as f64 / total * norm;
        fact.factor = fact.weight as f64 / total / norm;
    }
    combine(into, &row, facts);
    let direction = square_root(squares(into));
    if direction < 1e-12 {
        facts.iter_mut().for_each(|fact| fact.factor = fact.weight as f64 / total);
        return combine(into, row, facts);
    }
    scale(into, (length / direction) as f32);
}
