//! Adasum (Maleki et al. 2021): pairs of contributions are added up where they are orthogonal, and averaged where they
//! are parallel.
//!
//! ```text
//! A(a, b) = (1 - a·b / (2 |a|²)) a + (1 - a·b / (2 |b|²)) b
//! ```
//! The pairs form a binary tree over the rows in rank order. Every partial result is a sum of rows with factors, so its
//! products follow from the products of rows: one pass for these, and one for the result.
//!
//! The rows are parts of contributions: a tensor of each. So every tensor has factors of its own, as in Horovod.

use core::ops::Range;

use super::{BLOCK, Fact, combine};
use crate::kernel::MEAN_MAX;
use crate::kernel::norm::product;

/// Below this square, a vector counts as zero: its factor is 1 (the root of the smallest normal double, as in Horovod).
const TINY: f64 = 1.5e-154;

/// A sum of rows whose square is below this share of the squares of its rows counts as zero: they have cancelled, and the
/// rest is rounding. Its direction has no meaning, but its factor would be large, and take half of the other side away.
const CANCELLED: f64 = 1e-12;

/// `into` = the Adasum of the rows. `rest`: 8 n² bytes.
pub(super) fn adasum<'a>(into: &mut [f32], row: impl Fn(usize) -> &'a [f32], facts: &mut [Fact], rest: &mut [u32]) {
    let n = facts.len();
    let products: &mut [f64] = bytemuck::cast_slice_mut(&mut rest[..2 * n * n]);
    measure(products, &row, n, into.len());
    facts.iter_mut().for_each(|fact| fact.factor = 1.0);
    let mut stride = 1;
    while stride < n {
        for start in (0..n - stride).step_by(2 * stride) {
            pair(facts, products, start..start + stride, start + stride..n.min(start + 2 * stride));
        }
        stride *= 2;
    }
    combine(into, row, facts);
}

/// `into` = the first row paired with the second, the result with the third, and so on: the own contribution of a node of
/// a tree, and the results of its children. A single row is the result, bit for bit.
///
/// # Panics
/// If there is no row, there are more than [`MEAN_MAX`], or lengths differ.
pub fn in_turn(into: &mut [f32], rows: &[&[f32]]) {
    let n = rows.len();
    assert!((1..=MEAN_MAX).contains(&n) && rows.iter().all(|row| row.len() == into.len()));
    if let [only] = rows {
        return into.copy_from_slice(only);
    }
    let products = &mut [0.0; MEAN_MAX * MEAN_MAX][..n * n];
    measure(products, |row| rows[row], n, into.len());
    let mut facts = [Fact { weight: 1, square: 0.0, factor: 1.0, row: 0 }; MEAN_MAX];
    facts.iter_mut().zip(0..).for_each(|(fact, row)| fact.row = row);
    for row in 1..n {
        pair(&mut facts[..n], products, 0..row, row..row + 1);
    }
    // The next node of the tree has the sum alone, and cannot see that its rows have cancelled.
    if square(&facts[..n], products, &(0..n)).is_none() {
        return into.fill(0.0);
    }
    combine(into, |row| rows[row], &facts[..n]);
}

/// Products of all pairs of `n` rows of `len` elements: those with i <= j are at i n + j.
fn measure<'a>(products: &mut [f64], row: impl Fn(usize) -> &'a [f32], n: usize, len: usize) {
    products.fill(0.0);
    for start in (0..len).step_by(BLOCK) {
        let block = start..len.min(start + BLOCK);
        for i in 0..n {
            for j in i..n {
                products[i * n + j] += product(&row(i)[block.clone()], &row(j)[block.clone()]);
            }
        }
    }
}

/// The inner product of two sums of rows with their factors.
fn of(facts: &[Fact], products: &[f64], rows: &Range<usize>, others: &Range<usize>) -> f64 {
    let n = facts.len();
    let pairs = rows.clone().flat_map(|i| others.clone().map(move |j| (i, j)));
    pairs.map(|(i, j)| facts[i].factor * facts[j].factor * products[i.min(j) * n + i.max(j)]).sum()
}

/// The square of a sum of rows; `None` if it counts as zero.
fn square(facts: &[Fact], products: &[f64], rows: &Range<usize>) -> Option<f64> {
    let each: f64 = rows.clone().map(|i| of(facts, products, &(i..i + 1), &(i..i + 1))).sum();
    let square = of(facts, products, rows, rows);
    (square >= TINY && square > CANCELLED * each).then_some(square)
}

/// Changes the factors of rows so that the sum of both ranges is the Adasum of the sums of each.
fn pair(facts: &mut [Fact], products: &[f64], a: Range<usize>, b: Range<usize>) {
    let both = of(facts, products, &a, &b);
    let [one, other] =
        [&a, &b].map(|rows| square(facts, products, rows).map_or(1.0, |square| 1.0 - both / (2.0 * square)));
    facts[a].iter_mut().for_each(|fact| fact.factor *= one);
    facts[b].iter_mut().for_each(|fact| fact.factor *= other);
}
