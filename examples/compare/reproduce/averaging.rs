//! Averaging every H steps: a step takes c + x / H, where c is the time of its computation and x that of a round. The
//! first table lines up with the table of PaddlePaddle FleetX (local SGD of ResNet-50 on 4 machines). The second has the
//! loss over H, on tasks that can tell periods apart.

use std::time::Duration;

use gradwire::sim::{Links, Simulation, Speed, Step, Worker};
use gradwire::{Cluster, Layout, Recipe};
use gradwire_examples::task::Name;

use super::training::{Training, ends};
use super::{Cell, Error, Size, Table};

/// Period, images per second and top-1 accuracy of FleetX: ResNet-50 on ImageNet, 4 machines of 8 GPUs with 128 images
/// each.
const FLEETX: [(u32, f64, f64); 5] =
    [(1, 8271.0, 0.7579), (2, 8716.0, 0.7533), (4, 8763.0, 0.7551), (8, 9185.0, 0.7511), (16, 9431.0, 0.7429)];
/// The same with AdaComm.
const ADACOMM: (f64, f64) = (8946.0, 0.7555);
/// Images of a step of all machines.
const IMAGES: f64 = 4096.0;
const MACHINES: u32 = 4;

/// c and x in seconds, from the first and the last row of the published table.
fn fitted() -> (f64, f64) {
    let [(first, fast, _), .., (last, slow, _)] = FLEETX;
    let (one, many) = (IMAGES / fast, IMAGES / slow);
    let x = (one - many) / (1.0 / f64::from(first) - 1.0 / f64::from(last));
    (one - x / f64::from(first), x)
}

/// Machines with steps of c and a ring whose round takes x, for a model of this length.
fn machines(recipe: Recipe, layout: Layout) -> Simulation {
    let (c, x) = fitted();
    let bytes = 4.0 * layout.len() as f64;
    // A ring sends 2 (N - 1) / N of the vector from each machine.
    let bits = 8.0 * 2.0 * f64::from(MACHINES - 1) / f64::from(MACHINES) * bytes / x;
    Simulation::new(layout, recipe, Cluster { workers: MACHINES, servers: 0 })
        .speed(Speed::constant(Duration::from_secs_f64(c)))
        .links(Links::new(Duration::from_micros(20)).bandwidth(bits as u64))
}

/// Images per second with averaging every `period` steps.
fn images_per_second(period: u32) -> Result<f64, Error> {
    let recipe: Recipe = format!("averaging topology=ring period={period}").parse()?;
    let seconds = |steps| -> Result<f64, Error> {
        let run = machines(recipe, Layout::flat(100_000)).steps(steps);
        Ok(run.run(|_: &Worker| |_: &[f32], _: &mut [f32]| Step::of(1))?.time.as_secs_f64())
    };
    // The difference leaves out joining and the end.
    Ok(IMAGES * 64.0 / (seconds(128)? - seconds(64)?))
}

/// Images per second, and the loss of a run, where the period follows the loss. The mixture in place of ImageNet.
fn adacomm(size: Size) -> Result<f64, Error> {
    let training = Training::new("adacomm topology=ring period=16", MACHINES, Name::Mixture, 16, 0.2);
    let layout = Name::Mixture.open(&training.hidden, 1, None).map_err(|error| error.to_string())?.layout();
    let (c, x) = fitted();
    let bits = 8.0 * 1.5 * 4.0 * layout.len() as f64 / x;
    let outcomes = training.run(1, |simulation, epoch| {
        simulation
            .speed(Speed::constant(Duration::from_secs_f64(c)))
            .links(Links::new(Duration::from_micros(20)).bandwidth(bits as u64))
            .steps(size.of(1, 5) * epoch)
    })?;
    let steps = outcomes[0].workers[0].steps;
    Ok(IMAGES * steps as f64 / outcomes[0].time.as_secs_f64())
}

pub(super) fn tables(size: Size) -> Result<Vec<Table>, Error> {
    Ok(vec![speed(size)?, loss(size)?])
}

fn speed(size: Size) -> Result<Table, Error> {
    let (c, x) = fitted();
    let title = format!(
        "{MACHINES} machines, c = {c:.3} s, x = {x:.3} s, both from the rows of H = 1 and 16 of FleetX: images/s"
    );
    let mut table = Table::new(title, &["H", "simulated", "published", "difference", "published top-1 accuracy"]);
    for (period, images, accuracy) in FLEETX {
        let ours = images_per_second(period)?;
        table.row(vec![
            Cell::Number(period.into(), 0),
            Cell::Number(ours, 0),
            Cell::Number(images, 0),
            Cell::Share(ours / images - 1.0, 1),
            Cell::Share(accuracy, 2),
        ]);
    }
    let (ours, (images, accuracy)) = (adacomm(size)?, ADACOMM);
    table.row(vec![
        Cell::text("AdaComm, from 16 on"),
        Cell::Number(ours, 0),
        Cell::Number(images, 0),
        Cell::Share(ours / images - 1.0, 1),
        Cell::Share(accuracy, 2),
    ]);
    table.note("Two numbers are fitted, so the first and the last row show that the simulator computes c + x / H; those between are predictions.");
    table.note("Periods of AdaComm follow the loss, here that of the mixture (5 epochs, 4 workers, batch 16). The published first period is not known.");
    Ok(table)
}

const WORKERS: u32 = 16;
const BATCH: usize = 4;
const RATES: [f32; 6] = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6];

fn loss(size: Size) -> Result<Table, Error> {
    let recipes = [
        ("1", "averaging period=1"),
        ("2", "averaging period=2"),
        ("4", "averaging period=4"),
        ("8", "averaging period=8"),
        ("16", "averaging period=16"),
        ("30", "averaging period=30"),
        ("30, block momentum", "bmuf period=30"),
        ("30, slow momentum", "slowmo period=30"),
        ("30, Nesterov (DiLoCo)", "diloco period=30"),
        ("AdaComm, from 30 on", "adacomm period=30"),
    ];
    let columns = ["H", "digits: loss", "rate", "accuracy", "mixture: loss", "rate ", "accuracy "];
    let title = format!(
        "{WORKERS} workers, batch {BATCH}, 6 epochs of the digits and 2 of the mixture: validation loss at the end, each row \
         at the best of the rates {RATES:?}"
    );
    let mut table = Table::new(title, &columns);
    for (name, recipe) in size.of(&[recipes[0], recipes[5]][..], &recipes[..]) {
        let mut cells = vec![Cell::text(*name)];
        for (task, epochs) in [(Name::Digits, size.of(2, 6)), (Name::Mixture, size.of(1, 2))] {
            cells.extend(best(recipe, task, epochs, size)?);
        }
        table.row(cells);
    }
    table.note("Rates are chosen by the median of the loss over the seeds that the row shows.");
    Ok(table)
}

/// Loss, rate and accuracy at the best rate.
fn best(recipe: &str, task: Name, epochs: u64, size: Size) -> Result<[Cell; 3], Error> {
    let mut best: Option<(f64, f32, Vec<f64>, Vec<f64>)> = None;
    for rate in size.of(&RATES[2..3], &RATES[..]) {
        let training = Training::new(recipe, WORKERS, task, BATCH, *rate);
        let (losses, accuracies) =
            ends(&training.run(size.seeds, |simulation, epoch| simulation.steps(epochs * epoch))?);
        let median = super::table::spread(&losses)[1];
        if best.as_ref().is_none_or(|(least, ..)| median < *least) {
            best = Some((median, *rate, losses, accuracies));
        }
    }
    let (_, rate, losses, accuracies) = best.ok_or("no rates")?;
    Ok([Cell::Runs(losses, 3), Cell::Number(rate.into(), 2), Cell::Shares(accuracies, 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The speed of the simulator is c + x / H, and that is the published one within 5 %.
    #[test]
    fn a_step_takes_c_and_a_share_of_x() {
        let (c, x) = fitted();
        for (period, images, _) in FLEETX {
            let (ours, law) = (images_per_second(period).unwrap(), IMAGES / (c + x / f64::from(period)));
            assert!((ours / law - 1.0).abs() < 0.005, "{period}: {ours}, expected {law}");
            assert!((ours / images - 1.0).abs() < 0.05, "{period}: {ours}, published {images}");
        }
    }
}
