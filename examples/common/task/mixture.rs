//! Points of a mixture of Gaussians, classified by a multi-layer perceptron: the toy task of Liu et al. 2024
//! ("Asynchronous Local-SGD Training for Language Modeling"), at a smaller size.
//!
//! Each of [`CLASSES`] classes is a mixture of [`CLUSTERS`] Gaussians of equal weight and spread, with centres that are
//! random points of the unit sphere. A class is not the side of a plane, so a linear model does not learn it. The
//! Gaussians overlap, so the loss of any classifier is above 0: at the end of a run, it tells models apart that all
//! have the same accuracy.
//!
//! The perceptron classifies points instead of estimating the mixture. Its loss is a cross-entropy, as that of the
//! other tasks, so that one learning rate, one accuracy and one unit of loss serve all of them.

use super::math::{normal, seeded};
use super::perceptron::Perceptron;
use crate::data::{Data, next};

const CLASSES: u8 = 4;
/// Gaussians of a class.
const CLUSTERS: usize = 8;
const DIMENSIONS: usize = 32;
/// Standard deviation of each coordinate around its centre.
const SPREAD: f32 = 0.2;
/// Number of training and test points.
const TRAIN: usize = 16_000;
const TEST: usize = 2000;

/// The default number of points.
pub fn new(hidden: &[usize], seed: u64) -> Perceptron {
    sized(hidden, seed, TRAIN, TEST)
}

/// So many points to learn from, and to test with. The first points of a seed do not depend on these numbers.
pub fn sized(hidden: &[usize], seed: u64, train: usize, test: usize) -> Perceptron {
    let mut state = seeded(seed ^ 0x6a05_51a2);
    let centres: Vec<_> = (0..usize::from(CLASSES) * CLUSTERS).map(|_| centre(&mut state)).collect();
    // The test points have a generator of their own, and are the same for every number of training points.
    let train = points(&centres, train, seeded(state));
    let test = points(&centres, test, seeded(state ^ 1));
    let about = format!(
        "{} points in {DIMENSIONS} dimensions ({} more to test), {CLASSES} classes of {CLUSTERS} Gaussians",
        train.len(),
        test.len()
    );
    Perceptron::new(about, train, test, hidden)
}

/// A random point of the unit sphere.
fn centre(state: &mut u64) -> [f32; DIMENSIONS] {
    let centre = [0.0; DIMENSIONS].map(|_: f32| normal(state));
    let length = centre.iter().map(|x| x * x).sum::<f32>().sqrt();
    centre.map(|x| x / length)
}

/// So many random points of the mixture. Cluster k belongs to class k modulo the number of classes.
fn points(centres: &[[f32; DIMENSIONS]], count: usize, mut state: u64) -> Data {
    let (mut images, mut labels) = (Vec::with_capacity(count * DIMENSIONS), Vec::with_capacity(count));
    for _ in 0..count {
        let cluster = (next(&mut state) % centres.len() as u64) as usize;
        images.extend(centres[cluster].iter().map(|x| x + SPREAD * normal(&mut state)));
        labels.push((cluster % usize::from(CLASSES)) as u8);
    }
    Data { pixels: DIMENSIONS, images, labels, classes: (0..CLASSES).collect(), source: None }
}

#[cfg(test)]
mod tests {
    use super::super::Task;
    use super::*;

    #[test]
    fn more_points_begin_with_the_same_points() {
        let mut few = sized(&[8], 1, 100, 50);
        let mut many = sized(&[8], 1, 5000, 50);
        let params = few.initial(1);
        assert_eq!((few.examples(), many.examples()), (100, 5000));
        assert_eq!(few.evaluate(&params), many.evaluate(&params));
        let mut gradients = [vec![0.0; params.len()], vec![0.0; params.len()]];
        few.gradient(&params, &[0, 42, 99], &mut gradients[0]);
        many.gradient(&params, &[0, 42, 99], &mut gradients[1]);
        assert_eq!(gradients[0], gradients[1]);
    }

    /// A point is nearest to the centre of its own cluster in all but a few cases: the loss that is left is small, and
    /// is not 0.
    #[test]
    fn clusters_overlap_a_little() {
        let mut state = seeded(3);
        let centres: Vec<_> = (0..usize::from(CLASSES) * CLUSTERS).map(|_| centre(&mut state)).collect();
        let data = points(&centres, 4000, state);
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let wrong = (0..data.len()).filter(|point| {
            let to = |k: &usize| distance(&centres[*k], data.image(*point));
            let nearest = (0..centres.len()).min_by(|a, b| to(a).total_cmp(&to(b))).unwrap();
            nearest % usize::from(CLASSES) != usize::from(data.labels[*point])
        });
        let wrong = wrong.count() as f64 / data.len() as f64;
        assert!((0.005..0.05).contains(&wrong), "{wrong}");
    }
}
