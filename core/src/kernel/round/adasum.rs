//! Adasum (Maleki et al. 2021): pairs of contributions are added up where they are orthogonal, and averaged where they
//! are parallel.
//!
//! ```text
//! A(a, b) = (1 - a·b / (2 |a|²)) a + (1 - a·b / (2 |b|²)) b
//! ```
//! The pairs form a binary tree over the rows in rank order. Every partial result is a sum of rows with factors, so its
//! products follow from the products of rows: one pass for these, and one for the result.

use super::{BLOCK, Fact, combine};
use crate::kernel::norm::product;

/// Below this square, a vector counts as zero: its factor is 1 (the root of the smallest normal double, as in Horovod).
const TINY: f64 = 1.5e-154;

/// `into` = the Adasum of the rows. `rest`: 8 n² bytes.
pub(super) fn adasum<'a>(into: &mut [f32], row: impl Fn(usize) -> &'a [f32], facts: &mut [Fact], rest: &mut [u32]) {
    let n = facts.len();
    let products: &mut [f64] = bytemuck::cast_slice_mut(&mut rest[..2 * n * n]);
    products.fill(0.0);
    for start in (0..into.len()).step_by(BLOCK) {
        let block = start..into.len().min(start + BLOCK);
        for i in 0..n {
            for j in i..n {
                products[i * n + j] += product(&row(i)[block.clone()], &row(j)[block.clone()]);
            }
        }
    }
    facts.iter_mut().for_each(|fact| fact.factor = 1.0);
    let mut stride = 1;
    while stride < n {
        for start in (0..n - stride).step_by(2 * stride) {
            let (a, b) = (start..start + stride, start + stride..n.min(start + 2 * stride));
            let of = |rows: &core::ops::Range<usize>, others: &core::ops::Range<usize>| -> f64 {
                let pairs = rows.clone().flat_map(|i| others.clone().map(move |j| (i, j)));
                pairs.map(|(i, j)| facts[i].factor * facts[j].factor * products[i.min(j) * n + i.max(j)]).sum()
            };
            let both = of(&a, &b);
            let [one, other] =
                [of(&a, &a), of(&b, &b)].map(|square| if square < TINY { 1.0 } else { 1.0 - both / (2.0 * square) });
            facts[a].iter_mut().for_each(|fact| fact.factor *= one);
            facts[b].iter_mut().for_each(|fact| fact.factor *= other);
        }
        stride *= 2;
    }
    combine(into, row, facts);
}
