//! The factor on a late update, by the recipe's [`Staleness`].
//!
//! Nodes on different platforms must compute the same bits. So the functions here use only operations that IEEE 754
//! defines exactly, and not `powf`, which differs between platforms.

use crate::kernel::norm::square_root;
use crate::recipe::{Scaling, Staleness};

impl Staleness {
    /// The factor on an update of staleness `tau`, in (0, 1]. `None`: the update is dropped.
    pub fn scale(&self, tau: u64) -> Option<f32> {
        if self.drop_above.is_some_and(|limit| tau > limit) {
            return None;
        }
        Some(match self.scaling {
            Scaling::Const => 1.0,
            Scaling::Inverse => 1.0 / tau.max(1) as f32,
            Scaling::InversePlusOne => 1.0 / tau.saturating_add(1) as f32,
            Scaling::Exp { base } => power_of(base, tau),
            Scaling::Poly { power } => 1.0 / root_power(tau.saturating_add(1), power),
        })
    }
}

/// base^n by repeated squaring.
fn power_of(base: f32, mut n: u64) -> f32 {
    let (mut square, mut result) = (f64::from(base), 1.0f64);
    while n > 0 {
        if n & 1 == 1 {
            result *= square;
        }
        square *= square;
        n >>= 1;
    }
    // Above 0: only `drop_above` drops an update, and counts it.
    (result as f32).max(f32::MIN_POSITIVE)
}

/// x^power for x ≥ 1 and power ≤ 16: the whole part by multiplication, the binary fraction by repeated square roots.
fn root_power(x: u64, power: f32) -> f32 {
    let whole = power as u64;
    let mut fraction = f64::from(power) - whole as f64;
    let (mut root, mut result) = (x as f64, 1.0f64);
    for _ in 0..whole {
        result *= x as f64;
    }
    for _ in 0..24 {
        root = square_root(root);
        fraction *= 2.0;
        if fraction >= 1.0 {
            result *= root;
            fraction -= 1.0;
        }
    }
    result as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(scaling: Scaling) -> Staleness {
        Staleness { scaling, drop_above: None }
    }

    #[test]
    fn factors_are_those_of_the_published_rules() {
        let scales = |s: Staleness| [0, 1, 2, 9].map(|tau| s.scale(tau).unwrap());
        assert_eq!(scales(Staleness::constant()), [1.0; 4]);
        assert_eq!(scales(Staleness::inverse()), [1.0, 1.0, 0.5, 1.0 / 9.0]);
        assert_eq!(scales(Staleness::inverse_plus_one()), [1.0, 0.5, 1.0 / 3.0, 0.1]);
        assert_eq!(scales(rule(Scaling::Exp { base: 0.5 })), [1.0, 0.5, 0.25, 1.0 / 512.0]);
    }

    #[test]
    fn an_update_is_dropped_strictly_above_the_limit() {
        let rule = Staleness::constant().dropping_above(3);
        assert_eq!(rule.scale(3), Some(1.0));
        assert_eq!(rule.scale(4), None);
    }

    proptest! {
        #[test]
        fn poly_agrees_with_powf(tau in 0u64..100_000, power in 0.01f32..16.0) {
            let got = f64::from(rule(Scaling::Poly { power }).scale(tau).unwrap());
            let expected = ((tau + 1) as f64).powf(-f64::from(power));
            prop_assert!((got - expected).abs() <= 1e-5 * expected + 1e-38, "{got} {expected}");
        }

        #[test]
        fn exp_agrees_with_powi(tau in 0u64..200, base in 0.5f32..1.0) {
            let got = f64::from(rule(Scaling::Exp { base }).scale(tau).unwrap());
            let expected = f64::from(base).powi(tau as i32).max(f64::from(f32::MIN_POSITIVE));
            prop_assert!((got - expected).abs() <= 1e-6 * expected, "{got} {expected}");
        }

        #[test]
        fn factors_lie_above_zero_and_never_rise_with_staleness(tau in 0u64..1_000_000, which in 0usize..5) {
            let rule = rule([Scaling::Const, Scaling::Inverse, Scaling::InversePlusOne,
                Scaling::Exp { base: 0.7 }, Scaling::Poly { power: 0.5 }][which]);
            let (now, later) = (rule.scale(tau).unwrap(), rule.scale(tau + 1).unwrap());
            prop_assert!(now > 0.0 && now <= 1.0 && later > 0.0 && later <= now);
        }
    }
}
