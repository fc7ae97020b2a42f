//! The mean of the K-th smallest of N random times: how long a round waits for its slowest worker, or for the first ones.
//!
//! Times have a gamma distribution with given means and one coefficient of variation. Its sums are gamma as well, at
//! spread 1 it is exponential, and for small spreads close to normal.

/// Points of the integral over time.
const POINTS: usize = 400;

/// Probabilities below it are not looked at.
const TINY: f64 = 1e-8;

/// Below this coefficient of variation, times count as constant.
const CONSTANT: f64 = 1e-4;

/// The mean of the `k`-th smallest (from 1) of independent times with these means. `spread`: standard deviation over
/// mean.
///
/// # Panics
/// If `k` is 0 or above the number of times.
pub(super) fn kth(means: &[f64], spread: f64, k: usize) -> f64 {
    assert!((1..=means.len()).contains(&k), "the {k}-th of {} times", means.len());
    let mut groups: Vec<(f64, usize)> = Vec::new();
    let mut sorted = means.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    if spread < CONSTANT {
        return sorted[k - 1];
    }
    for mean in &sorted {
        match groups.last_mut() {
            Some((last, count)) if *last == *mean => *count += 1,
            _ => groups.push((*mean, 1)),
        }
    }
    if means.len() == 1 {
        return sorted[0];
    }
    let later = |time: f64| later(&groups, spread, time, means.len(), k);
    // The mean is the integral of the probability to be later, over all times. It is 1 until `start` and 0 from `end` on.
    let mut beyond = sorted[means.len() - 1];
    while later(beyond) > TINY {
        beyond *= 2.0;
    }
    let start = crossing(&later, 1.0 - TINY, beyond);
    let end = crossing(&later, TINY, beyond);
    let width = (end - start) / POINTS as f64;
    // Simpson's rule.
    let at = |i: usize| later(start + i as f64 * width);
    let inner: f64 = (1..POINTS).map(|i| if i % 2 == 1 { 4.0 } else { 2.0 } * at(i)).sum();
    start + (at(0) + inner + at(POINTS)) * width / 3.0
}

/// The time from 0 to `most` at which a falling probability crosses `level`.
fn crossing(later: &impl Fn(f64) -> f64, level: f64, most: f64) -> f64 {
    let (mut low, mut high) = (0.0, most);
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if later(middle) > level { low = middle } else { high = middle }
    }
    high
}

/// The probability that the `k`-th smallest is later than `time`: that at most `k - 1` are there.
fn later(groups: &[(f64, usize)], spread: f64, time: f64, count: usize, k: usize) -> f64 {
    let shape = 1.0 / (spread * spread);
    // `missing[m]`: the probability that m of the times so far are later. More than count - k of them decide.
    let most = count - k;
    let mut missing = vec![0.0; most + 1];
    missing[0] = 1.0;
    for (mean, times) in groups {
        let there = gamma(shape, shape * time / mean);
        for _ in 0..*times {
            for m in (0..=most).rev() {
                let before = if m > 0 { missing[m - 1] } else { 0.0 };
                missing[m] = missing[m] * there + before * (1.0 - there);
            }
        }
    }
    (1.0 - missing.iter().sum::<f64>()).clamp(0.0, 1.0)
}

/// The regularised lower incomplete gamma function P(a, x).
fn gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let front = (a * x.ln() - x - ln_gamma(a)).exp();
    // The number of terms grows with the root of a.
    let terms = 200 + (20.0 * a.sqrt()) as usize;
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0 / a, 1.0 / a);
        for n in 1..terms {
            term *= x / (a + n as f64);
            sum += term;
            if term < sum * 1e-13 {
                break;
            }
        }
        return (front * sum).clamp(0.0, 1.0);
    }
    // The continued fraction of 1 - P, by the method of Lentz.
    let tiny = 1e-300;
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / tiny, 1.0 / b);
    let mut fraction = d;
    for n in 1..terms {
        let an = -(n as f64) * (n as f64 - a);
        b += 2.0;
        d = 1.0 / nonzero(an * d + b, tiny);
        c = nonzero(b + an / c, tiny);
        fraction *= d * c;
        if (d * c - 1.0).abs() < 1e-13 {
            break;
        }
    }
    (1.0 - front * fraction).clamp(0.0, 1.0)
}

fn nonzero(x: f64, tiny: f64) -> f64 {
    if x.abs() < tiny { tiny } else { x }
}

/// The logarithm of the gamma function, by Stirling's series above 8. `x` above 0.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 8.0 {
        shift += x.ln();
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let series = (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0))) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift
}

#[cfg(test)]
mod tests {
    use super::*;

    fn harmonic(n: usize) -> f64 {
        (1..=n).map(|i| 1.0 / i as f64).sum()
    }

    #[test]
    fn exponential_times_have_the_harmonic_law() {
        for n in [2, 4, 16, 100] {
            for k in [1, n / 2, n - 1, n] {
                let expected = 3.0 * (harmonic(n) - harmonic(n - k));
                let got = kth(&vec![3.0; n], 1.0, k);
                assert!((got / expected - 1.0).abs() < 1e-3, "{k} of {n}: {got}, {expected}");
            }
        }
    }

    #[test]
    fn constant_times_are_sorted() {
        assert_eq!([1, 2, 3].map(|k| kth(&[5.0, 1.0, 3.0], 0.0, k)), [1.0, 3.0, 5.0]);
        assert_eq!(kth(&[2.0], 0.5, 1), 2.0);
    }

    /// The mean of the largest of n normal times is 0.5642 (n = 2), 1.0294 (4), 1.7660 (16) deviations above the mean.
    #[test]
    fn small_spreads_are_normal() {
        for (n, deviations) in [(2, 0.5642), (4, 1.0294), (16, 1.7660)] {
            for spread in [0.001, 0.01, 0.05] {
                let got = (kth(&vec![1.0; n], spread, n) - 1.0) / spread;
                // The skew of the gamma distribution is 2 spread.
                assert!((got - deviations).abs() < 0.005 + spread, "{n} at {spread}: {got}");
            }
        }
    }

    #[test]
    fn one_worker_that_is_much_slower_is_the_last() {
        let got = kth(&[1.0, 1.0, 1.0, 9.0], 0.1, 4);
        assert!((got - 9.0).abs() < 0.001, "{got}");
        let third = kth(&[1.0, 1.0, 1.0, 9.0], 0.1, 3);
        assert!((third - kth(&[1.0; 3], 0.1, 3)).abs() < 0.001, "{third}");
    }

    #[test]
    fn the_gamma_function_is_exact() {
        // P(1, x) = 1 - exp(-x); ln gamma(1/2) = ln sqrt(pi); ln gamma(10) = ln 9!.
        for x in [0.1, 1.0, 3.0, 20.0] {
            assert!((gamma(1.0, x) - (1.0 - (-x).exp())).abs() < 1e-10, "{x}");
        }
        assert!((ln_gamma(0.5) - 0.572_364_942_924_700_1).abs() < 1e-10);
        assert!((ln_gamma(10.0) - 362_880f64.ln()).abs() < 1e-10);
    }
}
