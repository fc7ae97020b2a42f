//! Krum and multi-Krum (Blanchard et al. 2017): the contributions that have the nearest neighbours.

use super::clip::weigh;
use super::{BLOCK, Fact, combine, order};
use crate::kernel::norm::squared_distance;

/// `into` = the mean, weighted by examples, of the `best` rows with the smallest scores. The score of a row is the sum of
/// the squared distances to its n - faulty - 2 nearest neighbours. At most (n - 3) / 2 of n rows count as faulty. Two
/// rows are equally far from each other, so nothing can be said of them, and both are taken.
///
/// `rest`: 8 (n + 1) n bytes.
pub(super) fn nearest<'a>(
    into: &mut [f32],
    row: impl Fn(usize) -> &'a [f32],
    facts: &mut [Fact],
    rest: &mut [u32],
    [faulty, best]: [usize; 2],
) {
    let n = facts.len();
    let faulty = faulty.min(n.saturating_sub(3) / 2);
    if n > 2 {
        let (distances, sorted) = bytemuck::cast_slice_mut(&mut rest[..2 * (n + 1) * n]).split_at_mut(n * n);
        measure(distances, &row, n, into.len());
        for (fact, distances) in facts.iter_mut().zip(distances.chunks_exact(n)) {
            sorted.copy_from_slice(distances);
            sorted.sort_unstable_by(f64::total_cmp);
            // The first is the distance 0 of the row to itself.
            fact.square = sorted[1..n - faulty - 1].iter().sum();
        }
        order::sort(facts, &row);
    }
    let best = if n > 2 { best.clamp(1, n - faulty) } else { n };
    let chosen = &mut facts[..best];
    if let [only] = chosen {
        return into.copy_from_slice(row(only.row as usize));
    }
    weigh(chosen, f64::INFINITY);
    combine(into, row, chosen);
}

/// Squared distances between all pairs of `n` rows of `len` elements.
fn measure<'a>(distances: &mut [f64], row: impl Fn(usize) -> &'a [f32], n: usize, len: usize) {
    distances.fill(0.0);
    for start in (0..len).step_by(BLOCK) {
        let block = start..len.min(start + BLOCK);
        for i in 0..n {
            for j in i + 1..n {
                // The same bits in both directions: the sign of a difference does not change its square.
                distances[i * n + j] += squared_distance(&row(i)[block.clone()], &row(j)[block.clone()]);
            }
        }
    }
    for i in 0..n {
        for j in 0..i {
            distances[i * n + j] = distances[j * n + i];
        }
    }
}
