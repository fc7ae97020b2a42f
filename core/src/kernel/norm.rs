//! The Euclidean norm of a vector, and scaling in place: the factor lambda of a mesh, and gradient clipping by norm (Lin
//! et al. 2018, section 3.2).

use super::tier::Tier;

/// Sum of squares, in f64: squares of floats do not overflow there.
pub fn squares(x: &[f32]) -> f64 {
    sum(x, |x| x * x)
}

/// Sum of the elements, in f64.
pub fn total(x: &[f32]) -> f64 {
    sum(x, |x| x)
}

/// The sum of a function over the elements.
#[inline(always)]
fn sum(x: &[f32], of: impl Fn(f64) -> f64) -> f64 {
    // Eight sums in a fixed order: the same result with any vector instructions.
    let mut lanes = [0.0f64; 8];
    let (chunks, rest) = x.as_chunks::<8>();
    Tier::best().run(|| {
        // Sums of the closure's own stay in registers; captured ones are stored and loaded for each chunk.
        let mut sums = lanes;
        for chunk in chunks {
            for lane in 0..8 {
                sums[lane] += of(f64::from(chunk[lane]));
            }
        }
        lanes = sums;
    });
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += of(f64::from(*x));
    }
    lanes.into_iter().sum()
}

/// The inner product of two vectors of equal length, in f64.
pub fn product(x: &[f32], y: &[f32]) -> f64 {
    pairs(x, y, |x, y| f64::from(x) * f64::from(y))
}

/// The square of the Euclidean distance between two vectors of equal length, in f64.
pub fn squared_distance(x: &[f32], y: &[f32]) -> f64 {
    pairs(x, y, |x, y| {
        let difference = f64::from(x) - f64::from(y);
        difference * difference
    })
}

/// The sum of a function over pairs of elements, in the order of [`squares`].
#[inline(always)]
fn pairs(x: &[f32], y: &[f32], of: impl Fn(f32, f32) -> f64) -> f64 {
    assert_eq!(x.len(), y.len());
    let mut lanes = [0.0f64; 8];
    let ((x, rest), (y, others)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    Tier::best().run(|| {
        let mut sums = lanes;
        for (x, y) in x.iter().zip(y) {
            for lane in 0..8 {
                sums[lane] += of(x[lane], y[lane]);
            }
        }
        lanes = sums;
    });
    for ((lane, x), y) in lanes.iter_mut().zip(rest).zip(others) {
        *lane += of(*x, *y);
    }
    lanes.into_iter().sum()
}

/// The factor that scales a vector down to the norm `limit`. `None`: its norm is not larger, or there is no limit, or an
/// element is not finite: a factor of 0 would take the other elements along.
pub fn factor(squares: f64, limit: f32) -> Option<f32> {
    let limit = f64::from(limit);
    (limit > 0.0 && squares.is_finite() && squares > limit * limit).then(|| (limit / square_root(squares)) as f32)
}

/// `x[i] = factor * x[i]`.
pub fn scale(x: &mut [f32], factor: f32) {
    Tier::best().run(|| x.iter_mut().for_each(|x| *x *= factor));
}

/// Newton's iteration, because core has no square root without std. The first guess halves the exponent, and each
/// iteration doubles the correct digits.
pub fn square_root(x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let guess = f64::from_bits((x.to_bits() >> 1) + (1023u64 << 51));
    (0..5).fold(guess, |y, _| 0.5 * (y + x / y))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn the_norm_is_that_of_a_naive_loop_and_clipping_reaches_the_limit() {
        let mut x: Vec<f32> = (0..1003).map(|i| ((i * 37 % 101) as f32 - 50.0) / 8.0).collect();
        let naive: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        assert!((squares(&x) - naive).abs() < 1e-9 * naive);
        // Multiples of 1/8 that are small enough to be added up without rounding.
        assert_eq!(total(&x), x.iter().map(|x| f64::from(*x)).sum());
        assert_eq!([factor(naive, 0.0), factor(naive, 1e6), factor(f64::INFINITY, 1.0)], [None; 3]);
        scale(&mut x, factor(naive, 2.0).unwrap());
        assert!((squares(&x) - 4.0).abs() < 1e-5, "{}", squares(&x));
    }

    #[test]
    fn products_and_distances_are_those_of_naive_loops() {
        let x: Vec<f32> = (0..1003).map(|i| ((i * 37 % 101) as f32 - 50.0) / 8.0).collect();
        let y: Vec<f32> = (0..1003).map(|i| ((i * 53 % 97) as f32 - 40.0) / 4.0).collect();
        let sum =
            |of: fn(f64, f64) -> f64| -> f64 { x.iter().zip(&y).map(|(x, y)| of((*x).into(), (*y).into())).sum() };
        // Multiples of 1/64 that are small enough to be added up without rounding.
        assert_eq!(product(&x, &y), sum(|x, y| x * y));
        assert_eq!(squared_distance(&x, &y), sum(|x, y| (x - y) * (x - y)));
        assert_eq!([squared_distance(&x, &x), product(&[], &[])], [0.0; 2]);
    }

    #[test]
    fn square_roots_are_accurate_at_any_size() {
        for x in [1e-300, 2e-30, 0.25, 2.0, 9.0, 1e30, 1e300] {
            let root = square_root(x);
            assert!((root * root / x - 1.0).abs() < 1e-14, "{x}: {root}");
        }
        assert_eq!(square_root(0.0), 0.0);
    }
}
