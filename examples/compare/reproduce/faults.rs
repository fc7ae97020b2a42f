//! The curves of rules under faults: a slow worker, steps with a heavy tail, and kills.

use std::time::Duration;

use gradwire::PeerId;
use gradwire::sim::{Fault, GBIT, Links, Outcome, Simulation, Speed};
use gradwire_examples::task::Name;

use super::training::Training;
use super::{Cell, Error, Size, Table};

const WORKERS: u32 = 4;
const BATCH: usize = 16;
const RATE: f32 = 0.4;
const STEP: Duration = Duration::from_millis(100);
/// The loss that counts as learned.
const TARGET: f64 = 0.2;
/// In runs of an eighth of the time.
const QUICK_TARGET: f64 = 0.8;
const TIME: Duration = Duration::from_secs(120);
const RECIPES: [&str; 7] = ["sync", "averaging period=20", "hardsync", "backup-workers", "ssp", "async", "mesh"];

#[derive(Copy, Clone, Debug)]
enum Faults {
    None,
    /// One of the workers takes four times as long.
    Slow,
    /// One step in twenty takes ten times as long.
    Tail,
    /// A worker is killed every 6 s, one after the other, and started again after 1 s.
    Kills,
}

const FAULTS: [(&str, Faults); 4] = [
    ("none", Faults::None),
    ("one worker 4 times slower", Faults::Slow),
    ("1 step in 20 takes 10 times as long", Faults::Tail),
    ("a kill every 6 s", Faults::Kills),
];

impl Faults {
    fn set(self, simulation: Simulation) -> Simulation {
        let speed = Speed::constant(STEP).jitter(0.1);
        match self {
            Self::None => simulation.speed(speed),
            Self::Slow => {
                let slow = Speed::constant(4 * STEP).jitter(0.1);
                simulation.speed(speed).speed_of(PeerId(WORKERS - 1), slow)
            }
            Self::Tail => simulation.speed(speed.tail(0.05, 10.0)),
            Self::Kills => {
                let kill = |simulation: Simulation, number: u32| {
                    let crash = Fault::Crash { node: PeerId(number % WORKERS), restart: Some(Duration::from_secs(1)) };
                    simulation.fault(number * Duration::from_secs(6), crash)
                };
                (1..20).fold(simulation.speed(speed), kill)
            }
        }
    }
}

fn run(recipe: &str, faults: Faults, size: Size) -> Result<Vec<Outcome>, Error> {
    let training = Training::new(recipe, WORKERS, Name::Mixture, BATCH, RATE);
    training.run(size.seeds, |simulation, _| {
        faults
            .set(simulation)
            .links(Links::new(Duration::from_millis(1)).bandwidth(GBIT))
            .record_every(Duration::from_secs(1))
            .until(size.of(TIME / 8, TIME))
    })
}

/// Virtual seconds to the target. Infinite if a run does not reach it.
fn seconds(outcomes: &[Outcome], target: f64) -> Vec<f64> {
    let reached = |outcome: &Outcome| outcome.first_with_loss(target).map(|point| point.time.as_secs_f64());
    outcomes.iter().map(|outcome| reached(outcome).unwrap_or(f64::INFINITY)).collect()
}

pub(super) fn tables(size: Size) -> Result<Vec<Table>, Error> {
    let (target, time) = size.of((QUICK_TARGET, TIME / 8), (TARGET, TIME));
    let time = time.as_secs();
    let title = format!(
        "Mixture of Gaussians, {WORKERS} workers, batch {BATCH}, rate {RATE}, steps of 100 ms within 10 %, 1 Gbit/s: virtual \
         seconds to a validation loss of {target}"
    );
    let mut columns: Vec<String> = vec!["recipe".into()];
    let faults = size.of(&[FAULTS[0], FAULTS[3]][..], &FAULTS[..]);
    columns.extend(faults.iter().map(|(name, _)| (*name).into()));
    columns.push(format!("loss after {time} s, none"));
    columns.push(format!("loss after {time} s, kills"));
    let mut table = Table { columns, ..Table::new(title, &[]) };
    for recipe in size.of(&RECIPES[..1], &RECIPES[..]) {
        let all = faults.iter().map(|(_, faults)| run(recipe, *faults, size)).collect::<Result<Vec<_>, _>>()?;
        let mut cells = vec![Cell::text(format!("`{recipe}`"))];
        cells.extend(all.iter().map(|outcomes| Cell::Runs(seconds(outcomes, target), 1)));
        let loss = |outcomes: &[Outcome]| Cell::Runs(super::training::ends(outcomes).0, 3);
        cells.extend([loss(&all[0]), loss(&all[all.len() - 1])]);
        table.row(cells);
    }
    table.note("A killed worker is started again after 1 s. Kills go round the workers; worker 0 hosts the coordinator of a tree.");
    Ok(vec![table])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A killed worker delays the others, and does not end the run.
    #[test]
    fn runs_survive_kills() {
        let size = Size { seeds: 1, quick: true };
        let losses = |faults| super::super::training::ends(&run("sync", faults, size).unwrap()).0[0];
        let (calm, killed) = (losses(Faults::None), losses(Faults::Kills));
        assert!(calm < killed && killed < 1.0, "{calm}, with kills {killed}");
    }
}
