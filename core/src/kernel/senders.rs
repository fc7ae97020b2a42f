//! Means over the workers that have sent an element, weighted by examples: `sum(m_j x_j) / sum(m_j)` over the workers j
//! with `x_j != 0` (the reduction of the programs of SparseLoCo, Sarfi et al. 2025: CCLoco and templar).
//!
//! Sparse messages carry no zeros, so an element that is 0 has not been sent. An element without a sender is 0. Beside the
//! vector, a count per element holds the examples behind it. Counts are floats: exact up to 2^24, and rounded above.
//!
//! Where all workers have sent all elements, [`blend`] is the [running mean](super::mean), and [`scatter`] with [`share`]
//! the sum of a mesh times its scale, bit for bit: the same operations in the same order.

use super::tier::Tier;

/// Blends `x`, with `weight` examples, into the mean of the senders. `first`: `into` and `counts` begin at 0.
///
/// # Panics
/// If lengths differ.
pub fn blend(tier: Tier, into: &mut [f32], counts: &mut [f32], x: &[f32], weight: u64, first: bool) {
    assert!(into.len() == x.len() && counts.len() == x.len());
    let weight = weight as f32;
    if first {
        into.fill(0.0);
        counts.fill(0.0);
    }
    tier.run(|| {
        for ((into, held), x) in into.iter_mut().zip(counts).zip(x) {
            let total = *held + weight;
            let mean = (f64::from(*into) * f64::from(*held) + f64::from(*x) * f64::from(weight))
                * (1.0 / (f64::from(*held) + f64::from(weight)));
            // The first sender's value itself, without the rounding of a product.
            let merged = if *held == 0.0 { *x } else { mean as f32 };
            let sent = *x != 0.0;
            *into = if sent { merged } else { *into };
            *held = if sent { total } else { *held };
        }
    });
}

/// Adds entries of a sparse body, which `read` visits, with `weight` examples: `into += weight / unit * x`, and `weight` to
/// the counts. `first`: `into` and `counts` begin at 0.
///
/// # Errors
/// Those of `read`.
pub fn scatter<E>(
    into: &mut [f32],
    counts: &mut [f32],
    [weight, unit]: [u64; 2],
    first: bool,
    read: impl FnOnce(&mut dyn FnMut(usize, f32)) -> Result<(), E>,
) -> Result<(), E> {
    if first {
        into.fill(0.0);
        counts.fill(0.0);
    }
    let (scale, weight) = ((weight as f64 / unit as f64) as f32, weight as f32);
    read(&mut |index, value| {
        into[index] += scale * value;
        counts[index] += weight;
    })
}

/// Turns sums in units of `unit` examples into means: `sum *= unit / count`. Elements without a sender stay 0.
///
/// # Panics
/// If lengths differ.
pub fn share(tier: Tier, sum: &mut [f32], counts: &[f32], unit: u64) {
    assert_eq!(sum.len(), counts.len());
    let unit = unit as f64;
    tier.run(|| {
        for (sum, held) in sum.iter_mut().zip(counts) {
            // Of 0 senders, the sum is 0: any finite factor will do.
            *sum *= (unit / f64::from(held.max(1.0))) as f32;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::mean;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// Contributions with their weights: a third of the elements is 0.
    fn contributions() -> impl Strategy<Value = Vec<(Vec<f32>, u64)>> {
        let element = prop_oneof![1 => Just(0.0f32), 2 => -1e6f32..1e6];
        (0usize..70).prop_flat_map(move |len| {
            prop::collection::vec((prop::collection::vec(element.clone(), len), 1u64..1000), 1..9)
        })
    }

    /// The mean of the senders of each element, in f64.
    fn oracle(rows: &[(Vec<f32>, u64)]) -> Vec<f64> {
        let mean = |i: usize| {
            let senders = || rows.iter().filter(|(x, _)| x[i] != 0.0);
            let total: f64 = senders().map(|(_, weight)| *weight as f64).sum();
            senders().map(|(x, weight)| f64::from(x[i]) * *weight as f64).sum::<f64>() / total.max(1.0)
        };
        (0..rows[0].0.len()).map(mean).collect()
    }

    /// Both forms, over buffers with the remains of another round.
    fn merged(tier: Tier, rows: &[(Vec<f32>, u64)]) -> [Vec<f32>; 2] {
        let len = rows[0].0.len();
        let (mut blended, mut counts) = (vec![f32::NAN; len], vec![7.0; len]);
        for (i, (x, weight)) in rows.iter().enumerate() {
            blend(tier, &mut blended, &mut counts, x, *weight, i == 0);
        }
        let (mut sum, mut also, unit) = (vec![f32::NAN; len], vec![9.0; len], rows[0].1);
        for (i, (x, weight)) in rows.iter().enumerate() {
            let entries = x.iter().enumerate().filter(|(_, x)| **x != 0.0);
            let read = |visit: &mut dyn FnMut(usize, f32)| {
                entries.for_each(|(i, x)| visit(i, *x));
                Ok::<(), ()>(())
            };
            scatter(&mut sum, &mut also, [*weight, unit], i == 0, read).unwrap();
        }
        assert_eq!(counts, also);
        share(tier, &mut sum, &also, unit);
        [blended, sum]
    }

    proptest! {
        #[test]
        fn an_element_is_the_mean_of_its_senders(rows in contributions()) {
            let (expected, [blended, summed]) = (oracle(&rows), merged(Tier::best(), &rows));
            let largest = rows.iter().flat_map(|(x, _)| x).fold(0f32, |most, x| most.max(x.abs()));
            for i in 0..expected.len() {
                let near = |got: f32| (f64::from(got) - expected[i]).abs() <= 3e-6 * f64::from(largest);
                prop_assert!(near(blended[i]) && near(summed[i]), "{i}: {} {} {}", blended[i], summed[i], expected[i]);
                let mut senders = rows.iter().filter(|(x, _)| x[i] != 0.0);
                // A single sender moves the element by all of its value.
                if let (Some((x, _)), None) = (senders.next(), senders.next()) {
                    prop_assert_eq!(blended[i], x[i]);
                }
            }
            for tier in Tier::all() {
                let got = merged(tier, &rows);
                let bits = |x: &Vec<f32>| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(got.each_ref().map(bits), [&blended, &summed].map(bits));
            }
        }

        /// Without zeros it is the mean, bit for bit: the running one, and that of a mesh.
        #[test]
        fn the_mean_of_all_is_the_mean(rows in contributions()) {
            let rows: Vec<_> = rows.into_iter().map(|(x, weight)| {
                (x.into_iter().map(|x| if x == 0.0 { 1.0 } else { x }).collect::<Vec<f32>>(), weight)
            }).collect();
            let [blended, summed] = merged(Tier::best(), &rows);
            let (mut running, mut held) = (vec![f32::NAN; blended.len()], 0);
            let (mut sum, unit) = (vec![0.0f32; blended.len()], rows[0].1);
            for (x, weight) in &rows {
                mean::in_place(Tier::best(), &mut running, held, [(x, *weight)]);
                held += weight;
                let scale = (*weight as f64 / unit as f64) as f32;
                sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += scale * x);
            }
            let scale = (unit as f64 / held as f64) as f32;
            prop_assert_eq!(blended, running);
            prop_assert_eq!(summed, sum.into_iter().map(|sum| sum * scale).collect::<Vec<_>>());
        }
    }

    #[test]
    fn counts_may_be_large() {
        let (mut into, mut counts) = ([0.0; 1], [0.0; 1]);
        for (x, expected) in [(1.0, 1.0), (3.0, 2.0), (5.0, 3.0)] {
            blend(Tier::best(), &mut into, &mut counts, &[x], u64::MAX / 8, x == 1.0);
            assert!((into[0] - expected).abs() < 1e-6, "{into:?}");
        }
    }
}
