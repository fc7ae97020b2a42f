//! An order of contributions that follows from their contents, so that sums over them do not depend on arrival or rank.

use core::cmp::Ordering;

use super::Fact;

/// Orders rows by their squares, then by weight, then element by element. Rows that are equal in all of these are the
/// same for every sum.
pub fn sort<'a>(facts: &mut [Fact], row: impl Fn(usize) -> &'a [f32]) {
    facts.sort_unstable_by(|a, b| {
        let by_number = a.square.total_cmp(&b.square).then(a.weight.cmp(&b.weight));
        by_number.then_with(|| by_content(row(a.row as usize), row(b.row as usize)))
    });
}

fn by_content(a: &[f32], b: &[f32]) -> Ordering {
    let different = a.iter().zip(b).find(|(a, b)| a.to_bits() != b.to_bits());
    different.map_or(Ordering::Equal, |(a, b)| a.total_cmp(b))
}
