//! Properties of the threshold pass: all tiers against a naive loop, exactness, putting quanta back.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

const TAU: f32 = 1.0 / 64.0;

/// The loop in the documentation of the module.
fn oracle(update: &[f32], residual: &mut [f32], quantum: Quantum) -> (Vec<Entry>, u32) {
    let (mut entries, mut non_finite) = (Vec::new(), 0);
    for i in 0..update.len() {
        let acc = residual[i] + update[i];
        if !acc.is_finite() {
            non_finite += 1;
        } else if acc.abs() >= quantum.threshold {
            let q = (acc.abs() / quantum.tau).trunc().min(QUANTA_MAX as f32);
            entries.push(Entry { index: i as u32, count: if acc < 0.0 { -(q as i32) } else { q as i32 } });
            residual[i] = if acc < 0.0 { acc + q * quantum.tau } else { acc - q * quantum.tau };
        } else {
            residual[i] = acc;
        }
    }
    (entries, non_finite)
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Floats around tau, large floats, and special values.
fn float() -> impl Strategy<Value = f32> {
    prop_oneof![
        20 => -0.05f32..0.05,
        2 => -2f32..2.0,
        1 => prop::sample::select(vec![0.0, -0.0, TAU, -TAU, 2.0 * TAU, 1e-40, 3e38, -3e38, 1e7]),
    ]
}

fn vectors(strange: bool) -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    let update = prop_oneof![60 => float(), u32::from(strange) => any::<f32>()];
    (0usize..400).prop_flat_map(move |len| {
        (prop::collection::vec(update.clone(), len), prop::collection::vec(-0.015f32..0.015, len))
    })
}

proptest! {
    #[test]
    fn every_tier_agrees_with_the_oracle((update, residual) in vectors(true), wide in any::<bool>()) {
        let quantum = if wide { Quantum::with_threshold(1.4 * TAU, TAU) } else { Quantum::of(TAU) };
        let mut expected = residual.clone();
        let (entries, non_finite) = oracle(&update, &mut expected, quantum);
        let mut squares = None;
        for tier in Tier::all() {
            let (mut left, mut words) = (residual.clone(), vec![u32::MAX; 2 * update.len()]);
            let taken = take(tier, Some(&update), &mut left, quantum, &mut words);
            prop_assert_eq!(bits(&left), bits(&expected), "{}", tier.name());
            prop_assert_eq!(read(&words[..taken.words]).collect::<Vec<_>>(), entries.clone());
            prop_assert_eq!((taken.entries, taken.non_finite), (entries.len() as u32, non_finite));
            prop_assert_eq!(squares.get_or_insert(taken.squares).to_bits(), taken.squares.to_bits());
            let exact: f64 = left.iter().map(|r| f64::from(*r) * f64::from(*r)).sum();
            prop_assert!((taken.squares - exact).abs() <= 1e-5 * exact || !taken.squares.is_finite());
        }
    }

    /// Lengths of several blocks and a remainder.
    #[test]
    fn tiers_agree_on_long_vectors(len in 0usize..3 * BLOCK, seed in any::<u32>()) {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 * 0.04 - 0.02
        };
        let update: Vec<f32> = (0..len).map(|_| next()).collect();
        let mut first_result = None;
        for tier in Tier::all() {
            let (mut left, mut words) = (vec![0.001; len], vec![0; 2 * len]);
            let taken = take(tier, Some(&update), &mut left, Quantum::of(TAU), &mut words);
            words.truncate(taken.words);
            let result = (bits(&left), words, taken);
            prop_assert_eq!(first_result.get_or_insert_with(|| result.clone()), &result);
        }
    }

    /// Exactly. After a pass the residual is below tau.
    #[test]
    fn quanta_plus_residual_is_the_sum_of_updates(
        updates in prop::collection::vec(prop::collection::vec(-400i32..400, 20), 1..40))
    {
        let (mut residual, mut sent, mut total) = (vec![0.0f32; 20], [0i32; 20], [0i32; 20]);
        for update in updates {
            let floats: Vec<f32> = update.iter().map(|x| *x as f32 / 1024.0).collect();
            let mut words = vec![0; 40];
            let taken = take(Tier::best(), Some(&floats), &mut residual, Quantum::of(TAU), &mut words);
            read(&words[..taken.words]).for_each(|entry| sent[entry.index as usize] += entry.count);
            for i in 0..20 {
                total[i] += update[i];
                prop_assert_eq!(sent[i] as f32 * TAU + residual[i], total[i] as f32 / 1024.0);
                prop_assert!(residual[i].abs() < TAU);
            }
        }
    }

    #[test]
    fn below_the_threshold_the_residual_is_the_sum(update in prop::collection::vec(-0.9f32..0.9, 1..50)) {
        let mut residual = vec![0.0; update.len()];
        let taken = take(Tier::best(), Some(&update), &mut residual, Quantum::of(1.0), &mut [0; 100]);
        prop_assert_eq!(taken.entries, 0);
        prop_assert_eq!(residual, update);
    }

    #[test]
    fn emitted_quanta_can_be_put_back((mut update, mut residual) in vectors(false)) {
        update.iter_mut().for_each(|x| *x = x.clamp(-400.0, 400.0));
        let acc: Vec<f32> = update.iter().zip(&residual).map(|(u, r)| u + r).collect();
        let mut words = vec![0; 2 * acc.len()];
        let taken = take(Tier::best(), Some(&update), &mut residual, Quantum::of(TAU), &mut words);
        put_back(&mut residual, TAU, &words[..taken.words]);
        prop_assert_eq!(&residual, &acc);
    }
}
