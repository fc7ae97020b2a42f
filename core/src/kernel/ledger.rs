//! Replicas of a mesh: parameters computed from a ledger of quanta.

use super::tier::Tier;

/// `into[i] = base[i] - unit * ledger[i]`
///
/// A function of the ledger alone: replicas with equal ledgers are equal bit for bit, in whatever order their messages
/// arrived. The product is exact while the magnitude of a count is below 2^24.
///
/// # Panics
/// If the lengths differ.
pub fn materialise(into: &mut [f32], base: &[f32], ledger: &[i32], unit: f32) {
    assert!(into.len() == base.len() && into.len() == ledger.len());
    Tier::best().run(|| {
        for ((into, base), count) in into.iter_mut().zip(base).zip(ledger) {
            *into = base - unit * *count as f32;
        }
    });
}
