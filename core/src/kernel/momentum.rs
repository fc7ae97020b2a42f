//! Momentum before a sparse codec (momentum correction, Lin et al. 2018, section 3.2), and clipping of the residual
//! after it, as in DL4J.

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

/// Clamps the residual to ±`limit`. Returns the number of elements that changed, the sum of what was removed from their
/// magnitudes, and the sum of squares of all elements after that.
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

    #[test]
    fn clipping_counts_elements_and_the_removed_magnitude_and_measures_the_rest() {
        let mut x = [0.5, -3.0, 2.25, -2.0];
        assert_eq!(clip(&mut x, 2.0), (2, 1.25, 12.25));
        assert_eq!(x, [0.5, -2.0, 2.0, -2.0]);
    }

    #[test]
    fn velocity_decays_by_the_momentum_and_adds_the_update() {
        let mut velocity = [1.0, -2.0];
        accelerate(&mut velocity, &[0.5, 0.5], 0.5);
        assert_eq!(velocity, [1.0, -0.5]);
    }
}
