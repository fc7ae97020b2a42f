//! Momentum of merged updates over the period, at a fixed rate and at a matched effective rate. A draft study of LoRA
//! adapters with four learners found that momentum harms at short periods, and that its gain at long ones is mostly that
//! of a larger effective rate, which is `rate / (1 - mu)`.

use gradwire_examples::task::Name;

use super::training::{Training, ends};
use super::{Cell, Error, Size, Table};

const WORKERS: u32 = 4;
const BATCH: usize = 16;
const RATE: f32 = 0.1;
/// Four rounds of the longest period.
const STEPS: u64 = 1024;
const MOMENTA: [f32; 3] = [0.0, 0.5, 0.9];
/// Period, and the loss on held-out text at each momentum.
const PUBLISHED: [(u32, [f64; 3]); 3] =
    [(16, [1.3519, 1.3632, 1.4383]), (64, [1.3578, 1.3614, 1.4193]), (256, [1.3805, 1.3674, 1.3977])];

/// The losses at the end of each seed.
fn losses(period: u32, mu: f32, matched: bool, steps: u64, size: Size) -> Result<Vec<f64>, Error> {
    let rate = if matched { 1.0 - mu } else { 1.0 };
    let recipe = format!("sync period={period} outer=momentum mu={mu} rate={rate}");
    let training = Training::new(recipe, WORKERS, Name::Mixture, BATCH, RATE);
    Ok(ends(&training.run(size.seeds, |simulation, _| simulation.steps(steps))?).0)
}

pub(super) fn tables(size: Size) -> Result<Vec<Table>, Error> {
    let title = format!(
        "Mixture, {WORKERS} workers, batch {BATCH}, rate {RATE}, {STEPS} steps of each: validation loss at the end"
    );
    let columns =
        ["H", "outer rate", "mu 0", "mu 0.5", "mu 0.9", "published, mu 0", "published, 0.5", "published, 0.9"];
    let mut table = Table::new(title, &columns);
    let rows = if size.quick { &PUBLISHED[..1] } else { &PUBLISHED[..] };
    for matched in [false, true] {
        for (period, published) in rows {
            let name = if matched { "1 - mu" } else { "1" };
            let mut cells = vec![Cell::Number((*period).into(), 0), Cell::text(name)];
            for mu in MOMENTA {
                cells.push(Cell::Runs(losses(*period, mu, matched, size.of(STEPS / 4, STEPS), size)?, 3));
            }
            cells.extend(published.map(|loss| if matched { Cell::None } else { Cell::Number(loss, 4) }));
            table.row(cells);
        }
    }
    table.note("Published: a draft, one seed, LoRA of a language model of 9 billion parameters. The losses of different tasks do not compare; the signs of the differences along a row do.");
    Ok(vec![table])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without momentum both rates are 1.
    #[test]
    fn without_momentum_the_rates_are_equal() {
        let size = Size { seeds: 1, quick: true };
        let [fixed, matched] = [false, true].map(|matched| losses(16, 0.0, matched, 64, size).unwrap());
        assert_eq!(fixed, matched);
        assert_ne!(fixed, losses(16, 0.9, false, 64, size).unwrap());
    }
}
