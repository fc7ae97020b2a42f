//! Medians, and the bootstrap of paired differences.

use gradwire_sim::simulation::Random;

use super::report::Summary;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 2000;
/// Share of resamples beyond each bound of the interval: a confidence of 95 %.
const BEYOND: f64 = 0.025;
/// Seed of the resamples: equal differences have equal intervals.
const SEED: u64 = 0x0c0_4242;

/// The largest probability with which a difference between equal rules is shown. Five pairs of the same sign have it.
const CHANCE_MAX: f64 = 0.0625;

/// Fewest pairs from which a difference is shown: with fewer, equal signs are too likely by chance.
pub(super) const PAIRS_MIN: usize = 5;

/// The median: of an even number of values, the mean of the two in the middle. Infinite values are larger, or smaller,
/// than all others. 0 without values.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let Some(upper) = values.get(values.len() / 2).copied() else { return 0.0 };
    if values.len() % 2 == 1 { upper } else { middle(values[values.len() / 2 - 1], upper) }
}

/// The mean of two values, of which the infinite one counts. 0 for opposite infinities.
fn middle(lower: f64, upper: f64) -> f64 {
    let mean = lower / 2.0 + upper / 2.0;
    if mean.is_nan() { 0.0 } else { mean }
}

pub(super) fn summary(values: &[f64]) -> Summary {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Summary { median: median(values), least, most }
}

/// The differences of pairs. Two equal infinities have none.
pub(super) fn differences(values: &[f64], of: &[f64]) -> Vec<f64> {
    values.iter().zip(of).map(|(a, b)| if a == b { 0.0 } else { a - b }).collect()
}

/// The interval that holds the median of the population with a confidence of 95 %: the percentile bootstrap (Efron 1979).
/// (0, 0) without differences.
pub(super) fn interval(differences: &[f64]) -> (f64, f64) {
    let mut random = Random::new(SEED, 0);
    let count = differences.len();
    if count == 0 {
        return (0.0, 0.0);
    }
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let resample: Vec<f64> = (0..count).map(|_| differences[random.below(count as u64) as usize]).collect();
            median(&resample)
        })
        .collect();
    medians.sort_unstable_by(f64::total_cmp);
    let beyond = (BEYOND * RESAMPLES as f64) as usize;
    (medians[beyond], medians[RESAMPLES - 1 - beyond])
}

/// True if differences of pairs show that there is one: their interval does not contain 0, and so many equal signs are
/// rare by chance. The second condition is needed, since the interval is too narrow for few pairs.
pub(super) fn is_shown(differences: &[f64], (low, high): (f64, f64)) -> bool {
    (low > 0.0 || high < 0.0) && chance(differences) <= CHANCE_MAX
}

/// The probability of signs that are at least as unequal, if both signs are equally likely: the two-sided sign test.
/// Differences of 0 count against the larger side.
fn chance(differences: &[f64]) -> f64 {
    let above = differences.iter().filter(|difference| **difference > 0.0).count();
    let below = differences.iter().filter(|difference| **difference < 0.0).count();
    let (count, against) = (differences.len(), differences.len() - above.max(below));
    let (mut ways, mut sum) = (1.0, 0.0);
    for i in 0..=against {
        sum += ways;
        ways *= (count - i) as f64 / (i + 1) as f64;
    }
    (2.0 * sum * 0.5f64.powi(count as i32)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: f64 = f64::INFINITY;

    #[test]
    fn medians_of_odd_and_even_numbers_of_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 8.0]), 3.0);
        assert_eq!(median(&[MANY, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[MANY, 1.0, 2.0, MANY]), MANY);
        assert_eq!(median(&[MANY, -MANY]), 0.0);
        assert_eq!(median(&[]), 0.0);
        assert_eq!(summary(&[3.0, 1.0, MANY]), Summary { median: 3.0, least: 1.0, most: MANY });
    }

    #[test]
    fn differences_are_taken_pair_by_pair() {
        assert_eq!(differences(&[3.0, MANY, MANY, 1.0], &[1.0, MANY, 1.0, MANY]), [2.0, 0.0, MANY, -MANY]);
    }

    /// The median of 5 of 5 values is the only value below 0 with probability P(B(5, 1/5) >= 3) = 5.8 %: more than 2.5 %.
    #[test]
    fn the_interval_of_five_pairs_is_their_range() {
        assert_eq!(interval(&[1.0, 2.0, 3.0, 4.0, 5.0]), (1.0, 5.0));
        assert_eq!(interval(&[-1.0, 2.0, 3.0, 4.0, 5.0]), (-1.0, 5.0));
        assert_eq!(interval(&[0.25, -0.5, 1.0, 2.0, 0.125]), interval(&[0.25, -0.5, 1.0, 2.0, 0.125]));
        assert_eq!(interval(&[]), (0.0, 0.0));
    }

    /// With n pairs of which j are against: 2 (1 + n + ... + C(n, j)) / 2^n.
    #[test]
    fn the_sign_test_counts_the_smaller_side() {
        let of = |count: usize, against: usize| {
            let pairs: Vec<f64> = (0..count).map(|i| if i < against { -1.0 } else { 1.0 }).collect();
            let turned: Vec<f64> = pairs.iter().map(|pair| -pair).collect();
            assert_eq!(chance(&pairs), chance(&turned));
            chance(&pairs)
        };
        assert_eq!([of(5, 0), of(5, 1), of(7, 1), of(9, 1)], [0.0625, 0.375, 0.125, 20.0 / 512.0]);
        assert_eq!([of(4, 2), of(1, 0), chance(&[])], [1.0, 1.0, 1.0]);
        assert_eq!(chance(&[1.0, 1.0, 1.0, 1.0, 0.0]), 0.375);
    }

    #[test]
    fn a_difference_is_shown_if_nearly_all_seeds_agree() {
        let shown = |pairs: &[f64]| is_shown(pairs, interval(pairs));
        assert!(shown(&[1.0, 2.0, 3.0, 4.0, 5.0]) && shown(&[-1.0; 5]) && shown(&[MANY; 5]));
        assert!(!shown(&[-1.0, 2.0, 3.0, 4.0, 5.0]) && !shown(&[1.0; 4]) && !shown(&[0.0; 5]) && !shown(&[]));
        // The interval of seven pairs does not contain 0 if one is against. That happens by chance in one of eight cases.
        let pairs = |count: i32| -> Vec<f64> { (0..count).map(|i| f64::from(if i == 0 { -1 } else { i })).collect() };
        assert!(interval(&pairs(7)).0 > 0.0 && !shown(&pairs(7)));
        assert!(shown(&pairs(10)));
    }
}
