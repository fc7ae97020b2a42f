//! Which synchronisation rule is best for a model, a cluster and a network? Measured, in virtual time.
//!
//! A [`Comparison`] names rules, workers, speeds, links and a budget of examples. Your [`Model`] computes real updates;
//! only the time is simulated. The [`Report`] has a row per rule with four criteria, the differences between them, and a
//! verdict that names its conditions.
//!
//! ```
//! use std::time::Duration;
//! use gradwire::compare::{Comparison, Model, Seat};
//! use gradwire::sim::{Learner, Links, MBIT, Speed, Step, Validation};
//! use gradwire::{Layout, Recipe};
//!
//! /// Finds the mean of random numbers around 1.
//! struct Mean;
//!
//! struct Worker(Seat, u64);
//!
//! impl Model for Mean {
//!     type Learner = Worker;
//!
//!     fn name(&self) -> String {
//!         "mean of numbers, version 1".into()
//!     }
//!
//!     fn layout(&self) -> Layout {
//!         Layout::flat(1)
//!     }
//!
//!     fn initial(&self, _seed: u64) -> Vec<f32> {
//!         vec![0.0]
//!     }
//!
//!     fn learner(&self, seat: &Seat) -> Worker {
//!         Worker(seat.clone(), 0)
//!     }
//! }
//!
//! impl Learner for Worker {
//!     fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
//!         let positions = self.0.positions(self.1); // the examples of this step: the same for all rules
//!         let error = |position| params[0] - 2.0 * self.0.random(position).unit() as f32;
//!         update[0] = self.0.rate * positions.map(error).sum::<f32>() / self.0.batch as f32;
//!         self.1 += 1;
//!         Step::of(self.0.batch)
//!     }
//!
//!     fn validate(&mut self, params: &[f32]) -> Option<Validation> {
//!         Some(Validation::of(f64::from((params[0] - 1.0) * (params[0] - 1.0))))
//!     }
//! }
//!
//! let report = Comparison::new(4, 2)
//!     .rule("averaging", "averaging period=5".parse()?)
//!     .rule("async", Recipe::asynchronous())
//!     .speeds([Duration::from_millis(10), Duration::from_millis(30)].map(Speed::constant))
//!     .links(Links::new(Duration::from_millis(1)).bandwidth(100 * MBIT))
//!     .examples(800)
//!     .rates(0.05..=1.0, 2)
//!     .run(&Mean)?;
//! assert_eq!(report.rows.len(), 5); // two references of one worker, sync, and the two rules
//! println!("{}", report.verdict.join("\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Rules of the comparison
//!
//! - A seed gives all rows the same initial parameters and the same order of examples. Budgets are in examples.
//! - Every row is tuned: the same points of the learning rate (Halton points in log space), and of at most one number of
//!   its own; the smallest validation loss counts. The compared runs have other seeds.
//! - Seeds are paired. A difference of two rows is the median of the differences by seed, with its bootstrap interval. If
//!   that contains 0, or the signs of the differences are not rare by chance, no difference is shown. Between equal
//!   rules, a difference is shown in up to 6 % of comparisons.
//! - Runs that fail or diverge are rows. Runs whose loss still improves at the end of the budget are marked.
//!
//! # Criteria
//!
//! | criterion | figures of a run |
//! |---|---|
//! | speed | examples per virtual second without the first eighth of the budget, p50 and p90 of the step time, and the share of time in which workers compute |
//! | attainable loss | the loss on the test part of the parameters with the smallest validation loss; the smallest validation loss until it has not improved by 1 % for a quarter of the samples |
//! | loss for wall-clock | loss at T/4, T/2, T and 2T, and the time to the target; T is that of one worker |
//! | loss for examples | loss at E/4, E/2 and E of the budget E, and the examples to the target |
//! | (bytes) | bytes of all messages until the target |
//!
//! Virtual time has steps and messages. Encoding, decoding and merging take none; [`plan`](crate::plan) has an estimate of
//! them.
//!
//! Losses are those of the parameters of one worker after a synchronisation, as
//! [`Point::validation`](gradwire_sim::simulation::Point::validation) says. The smallest loss of a curve is a little
//! better than the loss of the same parameters on other examples. A model whose learners have a
//! [`test`](gradwire_sim::simulation::Learner::test) part is judged on that in the end, which neither the tuning nor the
//! end of a run has seen.

mod check;
mod comparison;
mod conduct;
mod criteria;
mod error;
mod judge;
mod model;
mod points;
mod progress;
mod report;
mod results;
mod rows;
mod stability;
mod statistics;
#[cfg(test)]
mod tests;
mod verdict;
mod words;

pub use comparison::Comparison;
pub use error::Error;
pub use model::{Model, Seat};
pub use progress::Progress;
pub use report::{
    Attained, Conditions, Criterion, Difference, Figures, Kind, Measure, Report, Row, Run, Sample, Summary, Trial,
    Tuned, Value, Winner,
};
pub use results::{Reading, Results, ResultsError};
pub use stability::{Answer, Stability};
