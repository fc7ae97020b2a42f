//! FASGD against a rate over the staleness, for batches and workers whose product is 128 (Odena 2016, section 4): each at
//! the best of several rates. The paper has curves only.

use std::time::Duration;

use gradwire::sim::{Links, Outcome, Speed};
use gradwire_examples::task::Name;

use super::training::{Training, ends};
use super::{Cell, Error, Size, Table};

/// Examples of a step, and workers.
const GRID: [(usize, u32); 4] = [(1, 128), (4, 32), (8, 16), (32, 4)];
/// Steps of each worker: 8,192 examples of all.
const STEPS: u64 = 64;
/// The rate of a worker under FASGD, whose `length` is varied.
const RATE: f32 = 0.1;

/// A recipe, and the rate of the workers.
type Setting = (String, f32);

fn runs((recipe, rate): &Setting, batch: usize, workers: u32, steps: u64, size: Size) -> Result<Vec<Outcome>, Error> {
    let hidden = size.of(vec![32], Name::Digits.hidden().to_vec());
    let training = Training { hidden, ..Training::new(recipe.as_str(), workers, Name::Digits, batch, *rate) };
    training.run(size.seeds, |simulation, _| {
        let speed = Speed::constant(Duration::from_millis(10)).jitter(0.3);
        simulation.speed(speed).links(Links::new(Duration::from_millis(1))).steps(steps)
    })
}

/// The settings of a rule.
fn settings(fasgd: bool) -> Vec<Setting> {
    match fasgd {
        true => ["5e-4", "1e-3", "2e-3"].map(|length| (format!("fasgd length={length}"), RATE)).into(),
        false => [0.05, 0.1, 0.2].map(|rate| ("async lambda=1 staleness=inverse".to_string(), rate)).into(),
    }
}

pub(super) fn tables(size: Size) -> Result<Vec<Table>, Error> {
    let title = format!(
        "Digits, {} examples, each row at the best of three rates (`length` for FASGD): validation loss and accuracy",
        128 * STEPS
    );
    let mut table = Table::new(title, &["batch", "workers", "rule", "best", "loss", "accuracy", "staleness"]);
    for (batch, workers) in size.of(&GRID[3..], &GRID[..]) {
        for fasgd in [true, false] {
            let mut best: Option<(f64, Setting, Vec<Outcome>)> = None;
            for setting in size.of(settings(fasgd)[1..2].to_vec(), settings(fasgd)) {
                let outcomes = runs(&setting, *batch, *workers, size.of(STEPS / 2, STEPS), size)?;
                let median = super::table::spread(&ends(&outcomes).0)[1];
                if best.as_ref().is_none_or(|(least, ..)| median < *least) {
                    best = Some((median, setting, outcomes));
                }
            }
            let (_, (recipe, rate), outcomes) = best.ok_or("no settings")?;
            let (losses, accuracies) = ends(&outcomes);
            let best = recipe.split_once("length=").map_or_else(|| format!("{rate}"), |(_, length)| length.to_string());
            table.row(vec![
                Cell::Number(*batch as f64, 0),
                Cell::Number((*workers).into(), 0),
                Cell::text(if fasgd { "fasgd" } else { "rate over staleness" }),
                Cell::text(best),
                Cell::Runs(losses, 3),
                Cell::Shares(accuracies, 1),
                Cell::Runs(outcomes.iter().map(|outcome| outcome.staleness.mean()).collect(), 1),
            ]);
        }
    }
    table.note("Published: curves only, in which FASGD is lower, for MNIST, a network 784-200-10, 100,000 iterations and 16 rates. Digits stand for MNIST here.");
    Ok(vec![table])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All workers but one make an update between the parameters and the update of a worker.
    #[test]
    fn the_staleness_is_that_of_the_other_workers() {
        let size = Size { seeds: 1, quick: true };
        let outcome = runs(&settings(false)[1], 8, 16, 32, size).unwrap().remove(0);
        assert!((outcome.staleness.mean() - 15.0).abs() < 1.5, "{}", outcome.staleness.mean());
        assert!(outcome.validation().unwrap().loss.is_finite());
    }
}
