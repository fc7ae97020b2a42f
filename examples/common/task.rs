//! Tasks: the data that workers learn from, and the model that learns them. One file per task.

pub mod digits;
pub mod mixture;
pub mod perceptron;
pub mod sequence;

mod math;

use std::path::Path;

use gradwire::Layout;

use super::data::DataError;
use sequence::Sequences;

/// A model and its data. Workers and evaluators on several threads have a copy each.
pub trait Task: Send {
    /// Another model of the same task. The data are shared.
    fn copy(&self) -> Box<dyn Task>;
    /// The task in words, for the header of a run.
    fn about(&self) -> String;
    /// The tensors in the parameter vector.
    fn layout(&self) -> Layout;
    /// Random initial parameters.
    fn initial(&self, seed: u64) -> Vec<f32>;
    /// A digest of the training data.
    fn digest(&self) -> u64;
    /// Number of training examples.
    fn examples(&self) -> usize;
    /// Writes the gradient of the mean loss over training examples, and returns that loss.
    fn gradient(&mut self, params: &[f32], indices: &[usize], gradient: &mut [f32]) -> f32;
    /// The share of the test examples that the model classifies correctly, and the mean loss over them.
    fn evaluate(&mut self, params: &[f32]) -> (f64, f64) {
        self.evaluate_on(params, Part::All)
    }
    /// [`evaluate`](Self::evaluate) on a part of the test examples.
    fn evaluate_on(&mut self, params: &[f32], part: Part) -> (f64, f64);
}

/// A part of the examples that are not trained on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Part {
    All,
    /// Every other example: for choices, such as a learning rate or the end of a run.
    Validation,
    /// The rest: for the final figure, which nothing has chosen by.
    Test,
}

impl Part {
    /// The positions of its examples, of so many.
    pub fn positions(self, all: usize) -> impl Iterator<Item = usize> {
        let (first, step) = match self {
            Self::All => (0, 1),
            Self::Validation => (0, 2),
            Self::Test => (1, 2),
        };
        (first..all).step_by(step)
    }
}

/// The tasks by name.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Digits,
    Sequence,
    Mixture,
}

impl Name {
    pub const ALL: [Self; 3] = [Self::Digits, Self::Sequence, Self::Mixture];

    /// The value of `--task`.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Sequence => "sequence",
            Self::Mixture => "mixture",
        }
    }

    /// The sizes of the hidden layers, if `--hidden` is not set.
    pub const fn hidden(self) -> &'static [usize] {
        match self {
            Self::Digits => &[256, 128],
            Self::Sequence => &[48],
            Self::Mixture => &[64, 64],
        }
    }

    /// The learning rate of one worker with plain SGD and batches of 16.
    ///
    /// `cluster --workers 1 --recipe sync --rate R --seed S`, 20 epochs, loss on the test data, median of seeds 1 to 3:
    ///
    /// | rate | 0.025 | 0.05 | 0.1 | 0.2 | 0.4 | 0.8 |
    /// |---|---|---|---|---|---|---|
    /// | digits | 0.094 | 0.074 | 0.066 | 0.057 | 0.057 | |
    /// | sequence | | 0.103 | 0.106 | 0.082 | 0.088 | 0.092 |
    /// | mixture | 0.095 | 0.101 | 0.111 | 0.111 | 0.111 | 0.121 |
    ///
    /// The model of the mixture has overfitted a little by then, the less the lower the rate. For digits 0.1 is half of
    /// the best rate. By default, four workers use four times the rate of one, and from 0.2
    /// `local-sparse` did not learn with some seeds.
    pub const fn rate(self) -> f32 {
        match self {
            Self::Digits => 0.1,
            Self::Sequence => 0.2,
            Self::Mixture => 0.1,
        }
    }

    /// Loads or generates the data. `data`: a directory with images, for digits only.
    pub fn open(self, hidden: &[usize], seed: u64, data: Option<&Path>) -> Result<Box<dyn Task>, DataError> {
        Ok(match self {
            Self::Digits => Box::new(digits::open(hidden, seed, data)?),
            Self::Sequence => Box::new(Sequences::new(hidden[0], seed)),
            Self::Mixture => Box::new(mixture::new(hidden, seed)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gradient of a task equals difference quotients of its loss.
    #[test]
    fn gradients_are_derivatives_of_the_loss() {
        for name in Name::ALL {
            let mut task = name.open(&[12, 8][..name.hidden().len()], 1, None).unwrap();
            let mut params = task.initial(7);
            let indices = [3, 1, 4, 15];
            let (mut gradient, mut unused) = (vec![f32::NAN; params.len()], vec![0.0; params.len()]);
            task.gradient(&params, &indices, &mut gradient);
            let largest = gradient.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            for i in (0..params.len()).step_by(params.len() / 97) {
                let (at, by) = (params[i], 1e-2);
                let mut loss = |x: f32| {
                    params[i] = x;
                    f64::from(task.gradient(&params, &indices, &mut unused))
                };
                let quotient = (loss(at + by) - loss(at - by)) / f64::from(2.0 * by);
                params[i] = at;
                let error = (quotient - f64::from(gradient[i])).abs();
                assert!(error < 0.01 * f64::from(largest), "{name:?}, {i}: {quotient} and {}", gradient[i]);
            }
        }
    }

    /// The validation part and the test part are halves, without an example in common.
    #[test]
    fn parts_are_disjoint_halves() {
        let of = |part: Part| part.positions(359).collect::<Vec<_>>();
        let mut both = [of(Part::Validation), of(Part::Test)].concat();
        assert_eq!((of(Part::Validation).len(), of(Part::Test).len()), (180, 179));
        both.sort_unstable();
        assert_eq!((both, of(Part::All)), ((0..359).collect(), (0..359).collect()));
        for name in Name::ALL {
            let mut task = name.open(name.hidden(), 1, None).unwrap();
            let params = task.initial(1);
            let [all, validation, test] =
                [Part::All, Part::Validation, Part::Test].map(|part| task.evaluate_on(&params, part).1);
            assert!(validation != test, "{name:?}");
            assert!((validation.min(test)..validation.max(test)).contains(&all), "{name:?}: {validation} {test} {all}");
        }
    }

    /// One worker learns each task with plain SGD at the rate that is the default.
    #[test]
    fn plain_sgd_learns_every_task() {
        for name in Name::ALL {
            let mut task = name.open(name.hidden(), 1, None).unwrap();
            let mut params = task.initial(1);
            let mut gradient = vec![0.0; params.len()];
            let mut order: Vec<usize> = (0..task.examples()).collect();
            for epoch in 0..6 {
                crate::data::shuffle(&mut order, epoch);
                for batch in order.chunks(16) {
                    task.gradient(&params, batch, &mut gradient);
                    params.iter_mut().zip(&gradient).for_each(|(p, g)| *p -= name.rate() * g);
                }
            }
            let (accuracy, loss) = task.evaluate(&params);
            assert!(accuracy > 0.93 && loss < 0.25, "{name:?}: {accuracy}, {loss}");
        }
    }

    /// The data and the initial parameters depend on the seed and on nothing else.
    #[test]
    fn a_seed_repeats() {
        for name in Name::ALL {
            let evaluated = |seed| {
                let mut task = name.open(name.hidden(), seed, None).unwrap();
                let params = task.initial(1);
                (task.evaluate(&params), task.copy().evaluate(&params))
            };
            let (first, copy) = evaluated(1);
            assert_eq!((first, first), (evaluated(1).0, copy), "{name:?}");
            assert_ne!(first, evaluated(2).0, "{name:?}");
        }
    }
}
