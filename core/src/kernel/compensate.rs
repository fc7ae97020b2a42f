//! Corrections of a late update, in place, before it is merged. With d an element of the update, w and b the parameters
//! now and as the worker got them, and v the state:
//!
//! ```text
//! magnitude (Odena 2016, FASGD):       v = keep v + (1 - keep) |d|;  d = length d / (v + least)
//! delay (Zheng et al. 2017, DC-ASGD):  d = d + lambda/a d d (w - b)
//! delay, adaptive:                     v = keep v + (1 - keep) (d/a)^2;  lambda' = lambda / sqrt(v + least);  the same
//! ```
//! a is the learning rate of the workers: with the gradient g = d/a, the second formula is `a (g + lambda g g (w - b))`.
//! The formula of FASGD is that of the released code, which produced the figures; the paper prints another one.

use super::outer::root;
use super::tier::Tier;

/// How an update is corrected, with its numbers. The numbers come from the recipe, and have the same names there.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Formula {
    /// Division by the moving mean of magnitudes.
    Magnitude {
        /// The share of the mean that is kept.
        keep: f32,
        /// Factor on the quotient.
        length: f32,
        /// Added to the mean, above 0.
        least: f32,
    },
    /// The correction for a delay.
    Delay {
        /// lambda / a.
        factor: f32,
        /// No element of the correction is larger than that of the update.
        bounded: bool,
    },
    /// The same, with a factor for each element.
    DelayAdaptive {
        /// The strength of the correction, lambda.
        strength: f32,
        /// The learning rate of the workers, a.
        worker_rate: f32,
        /// The share of the mean square that is kept.
        keep: f32,
        /// Added to the mean square, above 0.
        least: f32,
        /// No element of the correction is larger than that of the update.
        bounded: bool,
    },
}

impl Formula {
    /// It has a vector of state.
    pub const fn has_state(&self) -> bool {
        matches!(self, Self::Magnitude { .. } | Self::DelayAdaptive { .. })
    }

    /// It reads the parameters as they are now, and as the worker got them.
    pub const fn reads_parameters(&self) -> bool {
        matches!(self, Self::Delay { .. } | Self::DelayAdaptive { .. })
    }
}

/// Corrects `update` in place. `state`: of the length of the update, or empty if the formula has no state. `params`:
/// now, and as the worker got them; empty if the formula does not read them.
///
/// # Panics
/// If the lengths do not fit.
pub fn run(formula: Formula, update: &mut [f32], state: &mut [f32], [now, got]: [&[f32]; 2]) {
    let (len, expected) = (update.len(), |needed: bool, len: usize| if needed { len } else { 0 });
    assert_eq!(state.len(), expected(formula.has_state(), len));
    assert!([now, got].iter().all(|params| params.len() == expected(formula.reads_parameters(), len)));
    Tier::best().run(|| match formula {
        Formula::Magnitude { keep, length, least } => {
            for (d, mean) in update.iter_mut().zip(state) {
                *mean = keep * *mean + (1.0 - keep) * d.abs();
                *d = length * *d / (*mean + least);
            }
        }
        Formula::Delay { factor, bounded } => {
            for ((d, now), got) in update.iter_mut().zip(now).zip(got) {
                *d = corrected(*d, factor, now - got, bounded);
            }
        }
        Formula::DelayAdaptive { strength, worker_rate, keep, least, bounded } => {
            for (((d, square), now), got) in update.iter_mut().zip(state).zip(now).zip(got) {
                let gradient = *d / worker_rate;
                *square = keep * *square + (1.0 - keep) * (gradient * gradient);
                let factor = strength / root(*square + least) / worker_rate;
                *d = corrected(*d, factor, now - got, bounded);
            }
        }
    });
}

/// `d + factor d d moved`; `bounded`: the second summand is at most as large as the first.
#[inline(always)]
fn corrected(d: f32, factor: f32, moved: f32, bounded: bool) -> f32 {
    let correction = factor * d * d * moved;
    let limit = d.abs();
    d + if bounded { correction.clamp(-limit, limit) } else { correction }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const MAGNITUDE: Formula = Formula::Magnitude { keep: 0.9, length: 0.5, least: 1e-3 };
    const DELAY: Formula = Formula::Delay { factor: 4.0, bounded: false };
    const BOUNDED: Formula = Formula::Delay { factor: 4.0, bounded: true };
    const ADAPTIVE: Formula =
        Formula::DelayAdaptive { strength: 2.0, worker_rate: 0.1, keep: 0.95, least: 1e-7, bounded: false };

    /// The formulas of the table, one element after the other.
    fn naive(formula: Formula, d: f32, state: f32, now: f32, got: f32) -> (f32, f32) {
        match formula {
            Formula::Magnitude { keep, length, least } => {
                let mean = keep * state + (1.0 - keep) * d.abs();
                (length * d / (mean + least), mean)
            }
            Formula::Delay { factor, bounded } => {
                let correction = factor * d * d * (now - got);
                (d + if bounded { correction.max(-d.abs()).min(d.abs()) } else { correction }, state)
            }
            Formula::DelayAdaptive { strength, worker_rate, keep, least, .. } => {
                let g = d / worker_rate;
                let square = keep * state + (1.0 - keep) * (g * g);
                (d + strength / (square + least).sqrt() / worker_rate * d * d * (now - got), square)
            }
        }
    }

    proptest! {
        #[test]
        fn all_forms_equal_the_formulas_bit_for_bit(
            rows in prop::collection::vec((-10f32..10.0, 0f32..10.0, -10f32..10.0, -10f32..10.0), 0..300))
        {
            for formula in [MAGNITUDE, DELAY, BOUNDED, ADAPTIVE] {
                let mut update: Vec<f32> = rows.iter().map(|row| row.0).collect();
                let mut state: Vec<f32> = rows.iter().map(|row| row.1).filter(|_| formula.has_state()).collect();
                let column = |of: fn(&(f32, f32, f32, f32)) -> f32| -> Vec<f32> {
                    rows.iter().map(of).filter(|_| formula.reads_parameters()).collect()
                };
                let (now, got) = (column(|row| row.2), column(|row| row.3));
                run(formula, &mut update, &mut state, [&now, &got]);
                for (i, (d, v, now, got)) in rows.iter().enumerate() {
                    let (expected, after) = naive(formula, *d, *v, *now, *got);
                    prop_assert_eq!(update[i].to_bits(), expected.to_bits());
                    prop_assert!(!formula.has_state() || state[i].to_bits() == after.to_bits());
                }
            }
        }
    }

    /// With a constant magnitude, the mean tends to it, and a step to `length` in the direction of the update.
    #[test]
    fn a_constant_magnitude_makes_steps_of_the_length() {
        let mut state = vec![0.0f32; 2];
        let mut update = vec![0.0; 2];
        for _ in 0..200 {
            update = vec![0.25f32, -64.0];
            run(Formula::Magnitude { keep: 0.9, length: 0.5, least: 1e-12 }, &mut update, &mut state, [&[]; 2]);
        }
        assert!((state[0] - 0.25).abs() < 1e-6 && (state[1] - 64.0).abs() < 1e-4, "{state:?}");
        assert!((update[0] - 0.5).abs() < 1e-6 && (update[1] + 0.5).abs() < 1e-6, "{update:?}");
    }

    /// The scale of all updates does not matter, and an element whose updates are 0 stays where it is.
    #[test]
    fn steps_by_magnitude_do_not_depend_on_the_scale() {
        let after = |scale: f32| {
            let mut state = vec![0.0f32; 3];
            let mut update = vec![0.0; 3];
            for i in 1..9 {
                update = vec![scale * i as f32, -scale / i as f32, 0.0];
                run(Formula::Magnitude { keep: 0.9, length: 0.5, least: 1e-30 }, &mut update, &mut state, [&[]; 2]);
            }
            update
        };
        assert_eq!(after(1.0), after(1024.0));
        assert_eq!(after(1.0)[2], 0.0);
    }

    /// Without a delay, the correction vanishes.
    #[test]
    fn parameters_that_have_not_moved_correct_nothing() {
        for formula in [DELAY, BOUNDED, ADAPTIVE] {
            let (mut update, params) = (vec![0.3f32, -7.0, 1e-20], vec![5.0f32, -1e10, 0.1]);
            let mut state = if formula.has_state() { vec![1.0; 3] } else { Vec::new() };
            run(formula, &mut update, &mut state, [&params, &params]);
            assert_eq!(update, [0.3, -7.0, 1e-20]);
        }
    }

    /// On a quadratic whose diagonal Hessian is `lambda g g`, the corrected gradient is the fresh one.
    #[test]
    fn on_a_quadratic_the_corrected_gradient_is_fresh() {
        let (hessian, rate) = (2.0f32, 0.125f32);
        let (got, now) = (3.0f32, 2.5f32);
        let gradient = hessian * got;
        let lambda = hessian / (gradient * gradient);
        let mut update = vec![rate * gradient];
        run(Formula::Delay { factor: lambda / rate, bounded: false }, &mut update, &mut [], [&[now], &[got]]);
        assert!((update[0] - rate * hessian * now).abs() < 1e-6, "{update:?}");
    }

    /// A bounded correction at most doubles an element, or takes it away.
    #[test]
    fn a_bounded_correction_is_at_most_the_update() {
        let mut update = vec![2.0f32, -2.0, 2.0, -2.0];
        run(BOUNDED, &mut update, &mut [], [&[1e6, 1e6, -1e6, -1e6], &[0.0; 4]]);
        assert_eq!(update, [4.0, 0.0, 0.0, -4.0]);
    }
}
