//! The replica that a ledger of quanta stands for.

use super::tier::Tier;

/// `into[i] = base[i] - unit * ledger[i]`: the product is exact while a count is below 2^24, so replicas with equal
/// ledgers are equal bit for bit.
///
/// # Panics
/// When the lengths differ.
pub fn materialise(into: &mut [f32], base: &[f32], ledger: &[i32], unit: f32) {
    assert!(into.len() == base.len() && into.len() == ledger.len());
    Tier::best().run(|| {
        for ((into, base), count) in into.iter_mut().zip(base).zip(ledger) {
            *into = base - unit * *count as f32;
        }
    });
}
