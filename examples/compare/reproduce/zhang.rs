//! Figure 3 of Zhang et al. 2016: with n-softsync, a constant rate fails from some n on, and a rate that is divided by
//! the staleness does not.

use std::time::Duration;

use gradwire::sim::{Links, Network, Outcome, Speed};
use gradwire_examples::task::Name;

use super::training::{Training, ends};
use super::{Cell, Error, Size, Table};

const WORKERS: u32 = 30;
const BATCH: usize = 4;
const RATE: f32 = 0.05;
const MOMENTUM: f32 = 0.9;
/// Of the paper, at every n: on CIFAR-10, after 140 epochs.
const INVERSE: &str = "82 %";

/// Where the momentum is.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) enum Place {
    /// At the server, as in the paper.
    Server,
    /// In the optimizer of each worker.
    Workers,
}

/// The runs of a recipe, with so many steps of each worker.
pub(crate) fn runs(recipe: &str, place: Place, size: Size) -> Result<Vec<Outcome>, Error> {
    let (hidden, steps) = size.of((vec![48], 180), (Name::Digits.hidden().to_vec(), 240));
    let base = Training { hidden, ..Training::new(recipe, WORKERS, Name::Digits, BATCH, RATE) };
    let training = match place {
        Place::Server => Training { recipe: format!("{recipe} outer=momentum mu={MOMENTUM}"), ..base },
        Place::Workers => Training { momentum: MOMENTUM, ..base },
    };
    let speed = Speed::constant(Duration::from_millis(1)).jitter(0.3);
    training.run(size.seeds, |simulation, _| {
        simulation.speed(speed.clone()).links(Links::over(Network::calm())).steps(steps)
    })
}

pub(super) fn tables(size: Size) -> Result<Vec<Table>, Error> {
    size.of(&[Place::Server][..], &[Place::Server, Place::Workers]).iter().map(|place| table(*place, size)).collect()
}

fn table(place: Place, size: Size) -> Result<Table, Error> {
    let at = if place == Place::Server { "the server, as in the paper" } else { "each worker" };
    let columns = ["n", "staleness", "constant rate", "published", "rate over staleness", "published "];
    let title = format!(
        "Digits, {WORKERS} workers, batch {BATCH}, rate {RATE}, momentum {MOMENTUM} at {at}: accuracy (published: \
         CIFAR-10)"
    );
    let mut table = Table::new(title, &columns);
    let cell = |outcomes: &[Outcome]| Cell::Shares(ends(outcomes).1, 1);
    let sync = runs("hardsync", place, size)?;
    table.row(vec![
        Cell::text("hardsync"),
        Cell::Number(0.0, 1),
        cell(&sync),
        Cell::text("82 %"),
        Cell::None,
        Cell::None,
    ]);
    let rows = [(1, "82 %"), (2, "lower"), (15, "10 %"), (30, "10 %")];
    for (n, published) in size.of(&rows[2..3], &rows) {
        let recipe = format!("softsync updates={}", WORKERS / n);
        let constant = runs(&format!("{recipe} staleness=const"), place, size)?;
        let inverse = runs(&format!("{recipe} staleness=inverse"), place, size)?;
        let late: Vec<f64> = inverse.iter().map(|outcome| outcome.staleness.mean()).collect();
        table.row(vec![
            Cell::Number((*n).into(), 0),
            Cell::Number(late.iter().sum::<f64>() / late.len() as f64, 1),
            cell(&constant),
            Cell::text(*published),
            cell(&inverse),
            Cell::text(INVERSE),
        ]);
    }
    table.note("CIFAR-10 and its network of 90,000 parameters are not here, so accuracies do not line up. Which runs fail does.");
    table.note(
        "Accuracies of the paper are read from its text: 90 % and about 18 % of error. 0 %: the run has diverged.",
    );
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both halves of the figure.
    #[test]
    fn division_by_staleness_saves_what_a_constant_rate_loses() {
        let size = Size { seeds: 1, quick: true };
        let accuracy = |n: u32, staleness: &str, place| {
            ends(&runs(&format!("softsync updates={} staleness={staleness}", WORKERS / n), place, size).unwrap()).1[0]
        };
        for place in [Place::Server, Place::Workers] {
            assert!(accuracy(1, "const", place) > 0.85, "{place:?}");
            for n in [15, 30] {
                let [constant, inverse] = ["const", "inverse"].map(|staleness| accuracy(n, staleness, place));
                assert!(constant < 0.2 && inverse > 0.85, "{place:?}, n = {n}: {constant} and {inverse}");
            }
        }
    }
}
