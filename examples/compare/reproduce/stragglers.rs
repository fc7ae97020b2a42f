//! Four workers of the speeds of Liu et al. 2024 ("Asynchronous Local-SGD Training for Language Modeling", toy example):
//! loss over virtual time, where steps take 0.58, 0.75, 1.51 and 3.33 s.

use std::time::Duration;

use gradwire::PeerId;
use gradwire::sim::{Outcome, Simulation, Speed};
use gradwire_examples::task::Name;

use super::training::Training;
use super::{Cell, Error, Size, Table};

const STEPS: [f64; 4] = [0.58, 0.75, 1.51, 3.33];
const SECONDS: [u64; 4] = [60, 120, 240, 600];
const BATCH: usize = 16;
const RATES: [f32; 6] = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2];
const RECIPES: [&str; 8] = [
    "hardsync",
    "hardsync period=20",
    "hardsync period=20s",
    "backup-workers count=3",
    "ssp",
    "async",
    "async period=20 adapt=speed",
    "async-diloco period=20",
];

/// The mean of the fastest possible shares of time in which workers compute, where all of them wait for the slowest.
fn synchronous_use() -> f64 {
    STEPS.iter().map(|step| step / STEPS[3]).sum::<f64>() / STEPS.len() as f64
}

fn run(recipe: &str, rate: f32, size: Size) -> Result<Vec<Outcome>, Error> {
    let training = Training::new(recipe, 4, Name::Mixture, BATCH, rate);
    training.run(size.seeds, |simulation: Simulation, _| {
        let speeds = (0..).map(PeerId).zip(STEPS);
        let simulation = speeds.fold(simulation, |simulation, (rank, step)| {
            simulation.speed_of(rank, Speed::constant(Duration::from_secs_f64(step)))
        });
        let seconds = size.of(&SECONDS[..1], &SECONDS[..]);
        simulation
            .record_at(seconds.iter().map(|seconds| Duration::from_secs(*seconds)))
            .until(Duration::from_secs(seconds[seconds.len() - 1]))
    })
}

/// Losses at the recorded moments, by moment and seed.
fn losses(outcomes: &[Outcome]) -> Vec<Vec<f64>> {
    let moments = outcomes.iter().map(|outcome| outcome.curve.len()).max().unwrap_or(1);
    let at = |moment: usize| {
        let loss = |outcome: &Outcome| {
            let point = outcome.curve.get(moment).filter(|_| outcome.end.is_good())?;
            point.validation.map(|validation| validation.loss)
        };
        outcomes.iter().map(|outcome| loss(outcome).unwrap_or(f64::INFINITY)).collect()
    };
    (1..moments).map(at).collect()
}

pub(super) fn tables(size: Size) -> Result<Vec<Table>, Error> {
    let seconds = size.of(&SECONDS[..1], &SECONDS[..]);
    let mut columns: Vec<String> = ["recipe", "rate", "busy", "examples"].map(Into::into).into();
    columns.extend(seconds.iter().map(|seconds| format!("loss at {seconds} s")));
    let title = format!(
        "Mixture of Gaussians, steps of {STEPS:?} s, batch {BATCH}, each row at the best of the rates {RATES:?}: validation \
         loss over virtual seconds"
    );
    let mut table = Table { columns, ..Table::new(title, &[]) };
    for recipe in size.of(&RECIPES[4..6], &RECIPES[..]) {
        let mut best: Option<(f64, f32, Vec<Outcome>)> = None;
        for rate in size.of(&RATES[2..3], &RATES[..]) {
            let outcomes = run(recipe, *rate, size)?;
            let last = losses(&outcomes).pop().unwrap_or_default();
            let median = super::table::spread(&last)[1];
            if best.as_ref().is_none_or(|(least, ..)| median < *least) {
                best = Some((median, *rate, outcomes));
            }
        }
        let (_, rate, outcomes) = best.ok_or("no rates")?;
        let busy = (0..4).map(|rank| outcomes[0].busy(PeerId(rank))).sum::<f64>() / 4.0;
        let examples = outcomes[0].workers.iter().map(|worker| worker.examples).sum::<u64>();
        let mut cells = vec![
            Cell::text(format!("`{recipe}`")),
            Cell::Number(rate.into(), 2),
            Cell::Share(busy, 1),
            Cell::Number(examples as f64, 0),
        ];
        cells.extend(losses(&outcomes).into_iter().map(|losses| Cell::Runs(losses, 3)));
        table.row(cells);
    }
    table.note(&format!(
        "Where all wait for the slowest, workers are busy for {:.1} % of the time: the mean of the steps over the longest.",
        100.0 * synchronous_use()
    ));
    table.note("The publication has curves and no numbers, of a larger mixture (512 dimensions) with AdamW in the workers. Periods that follow the speed learn as much in the end as any row, as published. Delayed momentum gains nothing over them here.");
    Ok(vec![table])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The straggler law.
    #[test]
    fn synchronous_workers_wait_for_the_slowest() {
        let size = Size { seeds: 1, quick: true };
        for (recipe, expected) in [("hardsync", synchronous_use()), ("async", 1.0)] {
            let outcome = &run(recipe, 0.1, size).unwrap()[0];
            let busy = (0..4).map(|rank| outcome.busy(PeerId(rank))).sum::<f64>() / 4.0;
            assert!((busy / expected - 1.0).abs() < 0.03, "{recipe}: {busy}, expected {expected}");
        }
    }
}
