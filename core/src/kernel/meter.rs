//! Meters: of a sequence of occasions, each with a share from 0 to 1, so many are due as the shares add up to.
//!
//! ```text
//! due = floor(sum + share + phase) > floor(sum + phase);  sum = sum + share, less 1 from 1 on
//! ```
//! Odena 2016 draws a random number at each occasion. Core has no randomness, and a run must be repeatable from its tape;
//! so the shares are added up instead. The mean rate is the same, without the variance of draws. The phase takes the
//! place of independent draws: meters of equal shares with other phases are due at other occasions.
//!
//! The sums are in a buffer, so that a checkpoint saves them.

/// Adds `share` to `sum`, and says whether the occasion is due. After n occasions of a constant share p, n p are due, give or
/// take less than 1. A share of 1 or more is always due, and changes nothing.
///
/// `share` is not NaN, and 0 or more; `phase` is from 0 to below 1. A sum that is out of its range, as from a damaged
/// checkpoint, is taken for the nearest number from 0 to 1.
pub fn turn(sum: &mut f32, share: f32, phase: f32) -> bool {
    if share >= 1.0 {
        return true;
    }
    let (before, phase) = (f64::from(sum.clamp(0.0, 1.0)), f64::from(phase));
    let after = before + f64::from(share);
    *sum = (if after >= 1.0 { after - 1.0 } else { after }) as f32;
    // Positive numbers: the conversion rounds down.
    (after + phase) as u64 > (before + phase) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(share: f32, phase: f32, occasions: u32) -> u32 {
        let mut sum = 0.0;
        (0..occasions).map(|_| u32::from(turn(&mut sum, share, phase))).sum()
    }

    #[test]
    fn the_rate_is_the_share() {
        for share in [0.0, 1e-4, 0.01, 0.1, 0.25, 1.0 / 3.0, 0.5, 0.7, 0.999, 1.0] {
            for phase in [0.0, 0.25, 0.9] {
                let rate = f64::from(count(share, phase, 10_000)) / 10_000.0;
                assert!((rate - f64::from(share)).abs() <= 1e-4, "{share}, {phase}: {rate}");
            }
        }
    }

    #[test]
    fn the_rate_of_changing_shares_is_their_mean() {
        let (mut sum, mut expected, mut due) = (0.0, 0.0, 0);
        for i in 0..10_000u32 {
            let share = (i * 7919 % 1000) as f32 / 999.0;
            expected += f64::from(share);
            due += u32::from(turn(&mut sum, share, 0.5));
        }
        assert!((f64::from(due) - expected).abs() < 1.0 + 1e-3, "{due} {expected}");
    }

    #[test]
    fn a_whole_share_is_always_due_and_leaves_the_sum() {
        for start in [0.0f32, 0.3, 0.999_999_9] {
            let mut sum = start;
            assert!((0..100).all(|_| turn(&mut sum, 1.0, 0.7)));
            assert_eq!(sum, start);
        }
    }

    #[test]
    fn other_phases_are_due_at_other_occasions() {
        let first = |phase| {
            let mut sum = 0.0;
            (1..).find(|_| turn(&mut sum, 0.25, phase))
        };
        assert_eq!([0.0, 0.25, 0.5, 0.75].map(first), [4, 3, 2, 1].map(Some));
    }

    #[test]
    fn a_sum_out_of_range_is_brought_back() {
        for damaged in [-1e30f32, 1e30, f32::MAX] {
            let mut sum = damaged;
            let due = (0..1000).filter(|_| turn(&mut sum, 0.5, 0.0)).count();
            assert!((499..=501).contains(&due) && (0.0..=1.0).contains(&sum), "{damaged}: {due}");
        }
    }
}
