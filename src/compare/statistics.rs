//! Medians, and the bootstrap of paired differences.

use gradwire_sim::simulation::Random;

use super::report::Summary;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 2000;
/// Share of resamples beyond each bound of the interval: a confidence of 95 %.
const BEYOND: f64 = 0.025;
/// Seed of the resamples: equal differences have equal intervals.
const SEED: u64 = 0x0c0_4242;

/// Fewest pairs from which a difference is shown. Four of four pairs have the same sign in one of eight cases of no
/// difference.
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

/// True if an interval of so many pairs shows a difference.
pub(super) fn is_shown(pairs: usize, (low, high): (f64, f64)) -> bool {
    pairs >= PAIRS_MIN && (low > 0.0 || high < 0.0)
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
    fn a_difference_is_shown_if_all_of_five_seeds_agree() {
        let (low, high) = interval(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!((low, high), (1.0, 5.0));
        assert!(is_shown(5, (low, high)));
        let (low, high) = interval(&[-1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!((low, high), (-1.0, 5.0));
        assert!(!is_shown(5, (low, high)));
        // One of ten: P(the median of 10 is at most the mean of -1 and 1) = P(B(10, 1/10) >= 5) = 0.2 %.
        let ten: Vec<f64> = (0..10).map(|i| if i == 0 { -1.0 } else { f64::from(i) }).collect();
        assert!(is_shown(10, interval(&ten)));
    }

    #[test]
    fn few_or_equal_pairs_show_nothing() {
        assert!(!is_shown(4, interval(&[1.0, 1.0, 1.0, 1.0])));
        assert!(!is_shown(5, interval(&[0.0; 5])));
        assert!(is_shown(5, interval(&[MANY; 5])));
        assert_eq!(interval(&[0.25, -0.5, 1.0, 2.0, 0.125]), interval(&[0.25, -0.5, 1.0, 2.0, 0.125]));
    }
}
