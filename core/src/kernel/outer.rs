//! The step of an outer optimizer: from a merged update to new parameters and new state, in one pass.
//!
//! `d` is the merged update times its scale, `w` the parameters:
//!
//! | step | state | formula |
//! |---|---|---|
//! | [`Step::Momentum`] | velocity v | `v' = mu v + rate d`, `w' = w - v'`; looking ahead `w' = w - (rate d + mu v')` |
//! | [`Step::Rated`] | velocity v | `v' = mu v + (rate / inner) d`, `w' = w - inner v'`; looking ahead `w' = w - inner ((rate / inner) d + mu v')` |
//! | [`Step::Delayed`] | velocity v, sum b | `b' = b + rate d`, `w' = w - rate d`; at a milestone `v' = mu v + b'`, `w' = w - (rate d + mu v')`, `b'' = 0` |
//! | [`Step::Adagrad`] | sum s | `s' = s + d d`, `w' = w - rate d / sqrt(s' + floor)` |
//! | [`Step::Adam`] | mean m, square s | `m' = mu m + (1 - mu) d`, `s' = beta s + (1 - beta) d d`, `w' = w - rate m' / (sqrt(s') + floor)` |
//!
//! Every operation rounds on its own, in the order of the formula, so that all executors agree bit for bit.

use super::tier::Tier;

/// Elements that are worked on at once: few enough to stay in the first cache.
const BLOCK: usize = 1024;

/// The formula of a step, with its numbers.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Step {
    /// Momentum: one vector of state.
    Momentum {
        /// The share of the velocity that is kept, from 0 to below 1.
        mu: f32,
        /// Factor on the merged update.
        rate: f32,
        /// Go on from where the velocity will lead (Nesterov).
        look: bool,
    },
    /// Momentum with a velocity per unit of the learning rate that the updates were made with (SlowMo, Wang et al. 2020,
    /// algorithm 1): one vector of state. With `inner` 1, it is [`Step::Momentum`], bit for bit.
    Rated {
        /// The share of the velocity that is kept, from 0 to below 1.
        mu: f32,
        /// Factor on the merged update.
        rate: f32,
        /// Go on from where the velocity will lead (Nesterov).
        look: bool,
        /// The learning rate of the updates, relative to that at the start, above 0.
        inner: f32,
    },
    /// Momentum that waits for a milestone, and then takes all updates since the last one at once: two vectors of state.
    Delayed {
        /// The share of the velocity that is kept at a milestone, from 0 to below 1.
        mu: f32,
        /// Factor on the merged update.
        rate: f32,
        /// This step is a milestone.
        milestone: bool,
    },
    /// A rate for each element: one vector of state.
    Adagrad {
        /// Factor on the step.
        rate: f32,
        /// Added to the sum of squares, above 0.
        floor: f32,
    },
    /// Momentum and a rate for each element: two vectors of state.
    Adam {
        /// The share of the mean that is kept.
        mu: f32,
        /// The share of the mean square that is kept.
        beta: f32,
        /// Factor on the step.
        rate: f32,
        /// Added to the root of the mean square, above 0.
        floor: f32,
    },
}

impl Step {
    /// Vectors of state.
    pub const fn vectors(&self) -> usize {
        match self {
            Self::Momentum { .. } | Self::Rated { .. } | Self::Adagrad { .. } => 1,
            Self::Adam { .. } | Self::Delayed { .. } => 2,
        }
    }
}

/// A vector of state: where it goes, and where it comes from. `None`: it is changed in place.
pub type State<'a> = (&'a mut [f32], Option<&'a [f32]>);

/// Writes the parameters after a step to `into`, and the state after it to `state`. `from`: the parameters before it;
/// `None`: the parameters in `into`. `update` times `scale` is the merged update.
///
/// # Panics
/// If the lengths differ, or the state is not that of the step.
pub fn run(
    step: Step,
    scale: f32,
    into: &mut [f32],
    from: Option<&[f32]>,
    update: &[f32],
    state: [Option<State<'_>>; 2],
) {
    let len = into.len();
    let is_whole = |state: &State<'_>| state.0.len() == len && state.1.is_none_or(|old| old.len() == len);
    assert!(update.len() == len && from.is_none_or(|from| from.len() == len));
    assert!(state.iter().flatten().all(is_whole) && state.iter().flatten().count() == step.vectors());
    let [mut first, mut second] = state;
    for start in (0..len).step_by(BLOCK) {
        let block = start..len.min(start + BLOCK);
        let (into, update) = (&mut into[block.clone()], &update[block.clone()]);
        // In place from here on. The copies are of a block, which stays in the cache.
        if let Some(from) = from {
            into.copy_from_slice(&from[block.clone()]);
        }
        let [first, second] = [&mut first, &mut second].map(|state| {
            let Some((new, old)) = state else { return &mut [][..] };
            let new = &mut new[block.clone()];
            if let Some(old) = old {
                new.copy_from_slice(&old[block.clone()]);
            }
            new
        });
        Tier::best().run(|| match step {
            Step::Momentum { mu, rate, look } => momentum(into, first, update, mu, rate * scale, look),
            Step::Rated { mu, rate, look, inner } => rated(into, first, update, mu, rate * scale / inner, look, inner),
            Step::Delayed { mu, rate, milestone } => {
                delayed(into, [first, second], update, mu, rate * scale, milestone)
            }
            Step::Adagrad { rate, floor } => adagrad(into, first, update, scale, rate, floor),
            Step::Adam { mu, beta, rate, floor } => adam(into, [first, second], update, scale, [mu, beta, rate, floor]),
        });
    }
}

#[inline(always)]
fn momentum(params: &mut [f32], velocity: &mut [f32], update: &[f32], mu: f32, rate: f32, look: bool) {
    let each = params.iter_mut().zip(velocity).zip(update);
    if mu == 0.0 {
        // Without the product of 0, which has a sign: bit for bit the step without an optimizer.
        each.for_each(|((param, velocity), update)| {
            *velocity = rate * update;
            *param -= *velocity;
        });
    } else if look {
        each.for_each(|((param, velocity), update)| {
            let step = rate * update;
            *velocity = mu * *velocity + step;
            *param -= step + mu * *velocity;
        });
    } else {
        each.for_each(|((param, velocity), update)| {
            *velocity = mu * *velocity + rate * update;
            *param -= *velocity;
        });
    }
}

#[inline(always)]
fn rated(params: &mut [f32], velocity: &mut [f32], update: &[f32], mu: f32, rate: f32, look: bool, inner: f32) {
    let each = params.iter_mut().zip(velocity).zip(update);
    if look {
        each.for_each(|((param, velocity), update)| {
            let step = rate * update;
            *velocity = mu * *velocity + step;
            *param -= inner * (step + mu * *velocity);
        });
    } else {
        each.for_each(|((param, velocity), update)| {
            *velocity = mu * *velocity + rate * update;
            *param -= inner * *velocity;
        });
    }
}

#[inline(always)]
fn delayed(params: &mut [f32], [velocity, sums]: [&mut [f32]; 2], update: &[f32], mu: f32, rate: f32, milestone: bool) {
    let each = params.iter_mut().zip(velocity).zip(sums).zip(update);
    if milestone {
        each.for_each(|(((param, velocity), sum), update)| {
            let step = rate * update;
            *velocity = mu * *velocity + (*sum + step);
            *param -= step + mu * *velocity;
            *sum = 0.0;
        });
    } else {
        each.for_each(|(((param, _), sum), update)| {
            let step = rate * update;
            *sum += step;
            *param -= step;
        });
    }
}

#[inline(always)]
fn adagrad(params: &mut [f32], sums: &mut [f32], update: &[f32], scale: f32, rate: f32, floor: f32) {
    for ((param, sum), update) in params.iter_mut().zip(sums).zip(update) {
        let step = scale * update;
        *sum += step * step;
        *param -= rate * step / root(*sum + floor);
    }
}

#[inline(always)]
fn adam(
    params: &mut [f32],
    [means, squares]: [&mut [f32]; 2],
    update: &[f32],
    scale: f32,
    [mu, beta, rate, floor]: [f32; 4],
) {
    for (((param, mean), square), update) in params.iter_mut().zip(means).zip(squares).zip(update) {
        let step = scale * update;
        *mean = mu * *mean + (1.0 - mu) * step;
        *square = beta * *square + (1.0 - beta) * (step * step);
        *param -= rate * *mean / (root(*square) + floor);
    }
}

/// The square root, rounded correctly; 0 of anything that is not above 0. With std it is one instruction, without it
/// [`newton`], with the same bits.
#[inline(always)]
pub(super) fn root(x: f32) -> f32 {
    #[cfg(feature = "std")]
    let y = f32::sqrt(x);
    #[cfg(not(feature = "std"))]
    let y = newton(x);
    if x > 0.0 { y } else { 0.0 }
}

/// The square root of a number above 0, rounded correctly. Core has no square root without std.
///
/// Newton's iteration in f64, without a branch: the first guess halves the exponent, and each iteration doubles the
/// correct digits. The root of a float is never as near to the middle of two floats as the error of the last iteration.
#[cfg(any(test, not(feature = "std")))]
#[inline(always)]
fn newton(x: f32) -> f32 {
    let wide = f64::from(x);
    let mut y = f64::from_bits((wide.to_bits() >> 1) + (1023u64 << 51));
    for _ in 0..4 {
        y = 0.5 * (y + wide / y);
    }
    if x < f32::INFINITY { y as f32 } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const STEPS: [Step; 9] = [
        Step::Rated { mu: 0.9, rate: 0.7, look: true, inner: 0.3 },
        Step::Rated { mu: 0.9, rate: 0.7, look: false, inner: 2.5 },
        Step::Delayed { mu: 0.9, rate: 0.7, milestone: false },
        Step::Delayed { mu: 0.9, rate: 0.7, milestone: true },
        Step::Momentum { mu: 0.9, rate: 0.7, look: true },
        Step::Momentum { mu: 0.9, rate: 0.7, look: false },
        Step::Momentum { mu: 0.0, rate: 1.0, look: true },
        Step::Adagrad { rate: 0.5, floor: 1e-8 },
        Step::Adam { mu: 0.9, beta: 0.99, rate: 0.1, floor: 1e-3 },
    ];

    /// The formulas of the table, one element after the other.
    fn naive(step: Step, w: f32, d: f32, scale: f32, state: [f32; 2]) -> (f32, [f32; 2]) {
        let [a, b] = state;
        match step {
            Step::Momentum { mu: 0.0, rate, .. } => (w - rate * scale * d, [rate * scale * d, b]),
            Step::Momentum { mu, rate, look } => {
                let moved = rate * scale * d;
                let v = mu * a + moved;
                (if look { w - (moved + mu * v) } else { w - v }, [v, b])
            }
            Step::Rated { mu, rate, look, inner } => {
                let moved = rate * scale / inner * d;
                let v = mu * a + moved;
                (w - inner * if look { moved + mu * v } else { v }, [v, b])
            }
            Step::Delayed { rate, milestone: false, .. } => {
                let moved = rate * scale * d;
                (w - moved, [a, b + moved])
            }
            Step::Delayed { mu, rate, milestone: true } => {
                let moved = rate * scale * d;
                let v = mu * a + (b + moved);
                (w - (moved + mu * v), [v, 0.0])
            }
            Step::Adagrad { rate, floor } => {
                let d = scale * d;
                let s = a + d * d;
                (w - rate * d / (s + floor).sqrt(), [s, b])
            }
            Step::Adam { mu, beta, rate, floor } => {
                let d = scale * d;
                let (m, s) = (mu * a + (1.0 - mu) * d, beta * b + (1.0 - beta) * (d * d));
                (w - rate * m / (s.sqrt() + floor), [m, s])
            }
        }
    }

    proptest! {
        #[test]
        fn all_forms_equal_the_formulas_bit_for_bit(
            rows in prop::collection::vec((-1e3f32..1e3, -10f32..10.0, -10f32..10.0, 0f32..10.0), 0..1500),
            scale in prop::sample::select(vec![1.0f32, 0.25, 0.3]))
        {
            let column = |of: fn(&(f32, f32, f32, f32)) -> f32| rows.iter().map(of).collect::<Vec<f32>>();
            let (params, update) = (column(|row| row.0), column(|row| row.1));
            for step in STEPS {
                // The sums of Adagrad are squares.
                let is_sum = matches!(step, Step::Adagrad { .. });
                let first = if is_sum { column(|row| row.3) } else { column(|row| row.2) };
                let second = column(|row| row.3);
                let expected: Vec<_> = (0..rows.len())
                    .map(|i| naive(step, params[i], update[i], scale, [first[i], second[i]])).collect();
                let expected: Vec<[u32; 3]> =
                    expected.iter().map(|(w, [a, b])| [w.to_bits(), a.to_bits(), b.to_bits()]).collect();
                for in_place in [false, true] {
                    let mut new = [params.clone(), first.clone(), second.clone()];
                    if !in_place {
                        new.iter_mut().for_each(|vector| vector.fill(f32::NAN));
                        if step.vectors() < 2 { new[2].copy_from_slice(&second); }
                    }
                    let [into, one, two] = &mut new;
                    let old = |vector| (!in_place).then_some(vector);
                    let state = [
                        Some((&mut one[..], old(&first[..]))),
                        (step.vectors() > 1).then_some((&mut two[..], old(&second[..]))),
                    ];
                    run(step, scale, into, old(&params[..]), &update, state);
                    let got: Vec<[u32; 3]> =
                        (0..rows.len()).map(|i| [0, 1, 2].map(|of| new[of][i].to_bits())).collect();
                    prop_assert_eq!(&got, &expected);
                }
            }
        }

        #[test]
        fn roots_are_rounded_correctly(bits in prop_oneof![0u32..0x7f80_0000, Just(0x7f7f_ffff)]) {
            let x = f32::from_bits(bits);
            prop_assert_eq!(root(x).to_bits(), x.sqrt().to_bits(), "{}", x);
            // Not for 0; infinity is one of them.
            let x = f32::from_bits(bits + 1);
            prop_assert_eq!(newton(x).to_bits(), x.sqrt().to_bits(), "{}", x);
        }
    }

    #[test]
    fn without_momentum_the_step_is_that_without_an_optimizer() {
        let (from, update) = ([1.0f32, -0.0, 0.0, 5.5, -0.0], [0.3f32, -0.0, -0.0, 1e-3, 0.0]);
        for scale in [1.0f32, 0.1] {
            let mut plain = [0.0; 5];
            super::super::apply::apply(&mut plain, &from, &update, scale);
            for look in [false, true] {
                let (mut into, mut velocity) = ([f32::NAN; 5], [-3.0; 5]);
                let step = Step::Momentum { mu: 0.0, rate: 1.0, look };
                run(step, scale, &mut into, Some(&from), &update, [Some((&mut velocity, None)), None]);
                assert_eq!(into.map(f32::to_bits), plain.map(f32::to_bits));
            }
        }
    }

    /// From a velocity of 0, one step moves by `rate d`, or by `rate (1 + mu) d` looking ahead. With a constant update,
    /// both tend to `rate / (1 - mu) d` a step.
    #[test]
    fn the_first_step_and_the_limit_are_those_of_momentum() {
        for (look, first) in [(false, 0.5), (true, 0.75)] {
            let (mut w, mut v) = ([0.0f32], [0.0f32]);
            let mut moved = Vec::new();
            for _ in 0..60 {
                let before = w[0];
                let step = Step::Momentum { mu: 0.5, rate: 0.5, look };
                run(step, 1.0, &mut w, None, &[1.0], [Some((&mut v, None)), None]);
                moved.push(before - w[0]);
            }
            assert_eq!((moved[0], moved[59]), (first, 1.0));
        }
    }

    /// SlowMo, against its formula: with every learning rate, the velocity has the unit of a gradient. A rate that stays that
    /// of the start changes no bit.
    #[test]
    fn a_velocity_over_the_rate_follows_the_rate_at_once() {
        for look in [false, true] {
            let (mut w, mut v, mut exact) = ([0.0f32], [0.0f32], [0.0f64; 2]);
            // Gradients of 1: the update is the learning rate.
            for inner in [1.0f32, 0.5, 0.125, 2.0, 4.0, 0.25] {
                let step = Step::Rated { mu: 0.5, rate: 0.5, look, inner };
                run(step, 1.0, &mut w, None, &[inner], [Some((&mut v, None)), None]);
                exact[1] = 0.5 * exact[1] + 0.5;
                exact[0] -= f64::from(inner) * if look { 0.5 + 0.5 * exact[1] } else { exact[1] };
                // All of these numbers are exact.
                assert_eq!([w[0], v[0]].map(f64::from), exact);
            }
            let after = |step| {
                let (mut w, mut v) = ([0.3f32, -0.0], [0.7f32, -0.0]);
                for update in [[0.1, 0.0], [-0.3, -0.0]] {
                    run(step, 0.7, &mut w, None, &update, [Some((&mut v, None)), None]);
                }
                [w, v].map(|vector| vector.map(f32::to_bits))
            };
            let (mu, rate) = (0.9, 0.7);
            assert_eq!(after(Step::Rated { mu, rate, look, inner: 1.0 }), after(Step::Momentum { mu, rate, look }));
        }
    }

    /// The steps from one milestone to the next move by as much as one step of Nesterov's momentum on their sum.
    #[test]
    fn delayed_steps_add_up_to_one_of_nesterov() {
        let updates: Vec<f32> = (0..8u8).map(|i| f32::from(i * 7 % 5) - 1.5).collect();
        let (mut w, mut v, mut sums) = ([0.0f32], [0.0f32], [0.0f32]);
        let (mut exact, mut velocity) = (0.0f64, 0.0f64);
        for group in updates.chunks(4) {
            for (i, update) in group.iter().enumerate() {
                let step = Step::Delayed { mu: 0.5, rate: 0.25, milestone: i == 3 };
                run(step, 1.0, &mut w, None, &[*update], [Some((&mut v, None)), Some((&mut sums, None))]);
            }
            let sum = 0.25 * group.iter().map(|update| f64::from(*update)).sum::<f64>();
            velocity = 0.5 * velocity + sum;
            exact -= sum + 0.5 * velocity;
            // All of these numbers are exact.
            assert_eq!((f64::from(w[0]), f64::from(v[0]), sums[0]), (exact, velocity, 0.0));
        }
    }

    #[test]
    fn adaptive_steps_do_not_depend_on_the_scale_and_bear_zeros() {
        for step in
            [Step::Adagrad { rate: 0.5, floor: 1e-30 }, Step::Adam { mu: 0.9, beta: 0.99, rate: 0.1, floor: 1e-30 }]
        {
            let after = |factor: f32| {
                let (mut w, mut a, mut b) = ([0.0f32; 3], [0.0f32; 3], [0.0f32; 3]);
                for _ in 0..5 {
                    let state = [Some((&mut a[..], None)), (step.vectors() > 1).then_some((&mut b[..], None))];
                    run(step, 1.0, &mut w, None, &[factor, -2.0 * factor, 0.0], state);
                }
                w
            };
            let (one, large) = (after(1.0), after(1024.0));
            assert_eq!(one[2], 0.0);
            assert!(one.iter().zip(large).all(|(one, large)| (one - large).abs() <= 1e-6), "{one:?} {large:?}");
        }
    }
}
