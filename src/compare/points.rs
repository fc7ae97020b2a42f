//! The points that settings are tuned over: those of Halton 1960, in log space, the same for every rule.

use super::report::Trial;

/// A number of a recipe that is tuned besides the learning rate.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Number {
    /// The key in the text form of the recipe.
    pub(super) key: String,
    pub(super) from: f64,
    pub(super) to: f64,
}

/// The radical inverse of `index` in a base: its digits, mirrored at the point. From 0 to below 1.
fn radical_inverse(mut index: u64, base: u64) -> f64 {
    let (mut inverse, mut digit) = (0.0, 1.0);
    while index > 0 {
        digit /= base as f64;
        inverse += digit * (index % base) as f64;
        index /= base;
    }
    inverse
}

/// The value at a place from 0 to 1 of a range, in log space.
fn within(from: f64, to: f64, place: f64) -> f64 {
    if from == to { from } else { from * (to / from).powf(place) }
}

/// The learning rates of so many points.
pub(super) fn rates(from: f32, to: f32, points: usize) -> Vec<f32> {
    let rate = |point| three(within(f64::from(from), f64::from(to), radical_inverse(point, 2))) as f32;
    (1..=points as u64).map(rate).collect()
}

/// Three digits: a tuned value is as exact as it is printed.
fn three(x: f64) -> f64 {
    format!("{x:.2e}").parse().unwrap_or(x)
}

impl Number {
    /// The values of so many points, as texts. Values of a range between whole numbers are whole.
    pub(super) fn values(&self, points: usize) -> Vec<String> {
        let is_whole = self.from.fract() == 0.0 && self.to.fract() == 0.0;
        let value = |point| {
            let x = within(self.from, self.to, radical_inverse(point, 3));
            if is_whole { format!("{x:.0}") } else { format!("{}", three(x)) }
        };
        (1..=points as u64).map(value).collect()
    }
}

/// The best trial: the one with the smallest loss; of equal ones, the first.
pub(super) fn best(trials: &[Trial]) -> Option<&Trial> {
    trials.iter().reduce(|best, trial| if trial.loss < best.loss { trial } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_those_of_halton() {
        let halves: Vec<f64> = (1..=7).map(|point| radical_inverse(point, 2)).collect();
        assert_eq!(halves, [0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]);
        let thirds: Vec<f64> = (1..=4).map(|point| radical_inverse(point, 3)).collect();
        let expected = [1.0 / 3.0, 2.0 / 3.0, 1.0 / 9.0, 4.0 / 9.0];
        assert!(thirds.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-12), "{thirds:?}");
    }

    #[test]
    fn points_are_even_in_log_space() {
        assert_eq!(rates(0.01, 1.0, 3), [0.1, 0.0316, 0.316]);
        assert_eq!(rates(0.2, 0.2, 1), [0.2]);
        let number = |from, to| Number { key: "period".into(), from, to };
        assert_eq!(number(1.0, 27.0).values(3), ["3", "9", "1"]);
        assert_eq!(number(0.5, 4.0).values(2), ["1", "2"]);
        assert_eq!(number(0.1, 0.8).values(2), ["0.2", "0.4"]);
    }

    #[test]
    fn the_best_trial_has_the_smallest_loss() {
        let trial = |rate, loss| Trial { rate, number: None, loss };
        let trials = [trial(0.1, 0.5), trial(0.2, 0.25), trial(0.3, 0.25), trial(0.4, f64::INFINITY)];
        assert_eq!(best(&trials), Some(&trials[1]));
        assert_eq!(best(&[]), None);
    }
}
