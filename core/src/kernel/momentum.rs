//! Momentum before a sparse codec (momentum correction, Lin et al. 2018, section 3.2), decay of the residual before a codec
//! (Sarfi et al. 2025), and clipping of the residual after it, as in DL4J.

use super::tier::Tier;

/// `velocity[i] = momentum * velocity[i] + update[i]`, rounded twice.
///
/// # Panics
/// If the lengths differ.
pub fn accelerate(velocity: &mut [f32], update: &[f32], momentum: f32) {
    assert_eq!(velocity.len(), update.len());
    Tier::best().run(|| {
        for (velocity, update) in velocity.iter_mut().zip(update) {
            *velocity = momentum * *velocity + update;
        }
    });
}

/// `residual[i] = factor * residual[i]`. Returns the amount by which the sum of the magnitudes fell. `factor` is from 0
/// to below 1, so no magnitude grows.
pub fn decay(residual: &mut [f32], factor: f32) -> f64 {
    // Eight sums in a fixed order: the same result with any vector instructions. In f64, because a sum of many small
    // differences would lose most of them in f32.
    let mut lanes = [0.0f64; 8];
    let (chunks, rest) = residual.as_chunks_mut::<8>();
    let forget = |x: &mut f32| {
        let old = core::mem::replace(x, factor * *x);
        f64::from(old).abs() - f64::from(*x).abs()
    };
    Tier::best().run(|| {
        for chunk in chunks {
            for lane in 0..8 {
                lanes[lane] += forget(&mut chunk[lane]);
            }
        }
    });
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += forget(x);
    }
    lanes.into_iter().sum()
}

/// Clamps the residual to ±`limit`. Returns the number of elements that changed, the amount by which the sum of their
/// magnitudes fell, and the sum of squares of all elements after that.
pub fn clip(residual: &mut [f32], limit: f32) -> (u32, f64, f64) {
    let (mut elements, mut lost, mut squares) = (0, 0.0, 0.0);
    for x in residual {
        // Summed in f64: in f32, a sum of many small differences would lose most of them.
        let over = x.abs() - limit;
        if over > 0.0 {
            (elements, lost) = (elements + 1, lost + f64::from(over));
            *x = limit.copysign(*x);
        }
        squares += f64::from(*x) * f64::from(*x);
    }
    (elements, lost, squares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn clipping_counts_elements_and_the_removed_magnitude_and_measures_the_rest() {
        let mut x = [0.5, -3.0, 2.25, -2.0];
        assert_eq!(clip(&mut x, 2.0), (2, 1.25, 12.25));
        assert_eq!(x, [0.5, -2.0, 2.0, -2.0]);
    }

    /// Each element is rounded once, and the kept and the forgotten magnitudes add up to the old ones.
    #[test]
    fn decay_scales_each_element_and_measures_what_it_forgets() {
        let old: Vec<f32> = (0..1003).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
        for factor in [0.0, 0.5, 0.95] {
            let mut new = old.clone();
            let forgotten = decay(&mut new, factor);
            assert!(old.iter().zip(&new).all(|(old, new)| *new == factor * old), "{factor}");
            let sum = |x: &[f32]| -> f64 { x.iter().map(|x| f64::from(*x).abs()).sum() };
            let expected = sum(&old) - sum(&new);
            assert!((forgotten - expected).abs() < 1e-9 * expected, "{factor}: {forgotten}, expected {expected}");
        }
    }

    #[test]
    fn velocity_decays_by_the_momentum_and_adds_the_update() {
        let mut velocity = [1.0, -2.0];
        accelerate(&mut velocity, &[0.5, 0.5], 0.5);
        assert_eq!(velocity, [1.0, -0.5]);
    }
}
