//! Momentum before a sparse codec (Lin et al. 2018, section 3.2), and DL4J's clipping after one.

use super::tier::Tier;

/// `velocity[i] = momentum * velocity[i] + update[i]`, rounded twice.
///
/// # Panics
/// When the lengths differ.
pub fn accelerate(velocity: &mut [f32], update: &[f32], momentum: f32) {
    assert_eq!(velocity.len(), update.len());
    Tier::best().run(|| {
        for (velocity, update) in velocity.iter_mut().zip(update) {
            *velocity = momentum * *velocity + update;
        }
    });
}

/// Cuts the residual to ±`limit`; returns how many elements were cut, and how much that was in all.
pub fn clip(residual: &mut [f32], limit: f32) -> (u32, f64) {
    let (mut elements, mut lost) = (0, 0.0);
    for x in residual {
        let over = x.abs() - limit;
        if over > 0.0 {
            (elements, lost) = (elements + 1, lost + f64::from(over));
            *x = limit.copysign(*x);
        }
    }
    (elements, lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_counted() {
        let mut x = [0.5, -3.0, 2.25, -2.0];
        assert_eq!(clip(&mut x, 2.0), (2, 1.25));
        assert_eq!(x, [0.5, -2.0, 2.0, -2.0]);
    }

    #[test]
    fn velocity_is_the_sum_of_what_came_decayed() {
        let mut velocity = [1.0, -2.0];
        accelerate(&mut velocity, &[0.5, 0.5], 0.5);
        assert_eq!(velocity, [1.0, -0.5]);
    }
}
