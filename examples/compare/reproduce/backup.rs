//! Backup workers (Chen et al. 2016): a round ends with the first N - b of N contributions. If all workers begin
//! together and times are exponential with mean 1, it takes H_N - H_b, where H_k = 1 + 1/2 + … + 1/k.

use std::time::Duration;

use gradwire::sim::Random;
use gradwire::{Cluster, Layout, PeerId, Recipe};
use gradwire_sim::{App, Network, Plan, World};

use super::{Cell, Error, Size, Table};

/// A worker that computes nothing, in random times.
struct Idle {
    random: Random,
    spread: Spread,
}

/// The distribution of the times of steps, with a mean of 1 s.
#[derive(Copy, Clone, Debug)]
enum Spread {
    Exponential,
    /// The probability of a time above t falls with t^-1.5.
    Pareto,
}

impl App for Idle {
    fn duration(&mut self, _step: u64) -> Duration {
        let seconds = match self.spread {
            Spread::Exponential => self.random.exponential(1.0),
            Spread::Pareto => (1.0 - self.random.unit()).powf(-1.0 / 1.5) / 3.0,
        };
        Duration::from_secs_f64(seconds)
    }

    fn update(&mut self, _step: u64, _params: &[f32], _update: &mut [f32]) -> u32 {
        1
    }
}

/// The times at which the server ends its rounds, in seconds since the workers have begun. The world below
/// `gradwire::sim` shows the version of the server's parameters after each event.
fn ends(workers: u32, backup: u32, spread: Spread, rounds: usize, seed: u64) -> Result<Vec<f64>, Error> {
    let recipe: Recipe = format!("backup-workers count={}", workers - backup).parse()?;
    let cluster = Cluster { workers, servers: 1 };
    let network = Network { latency: Duration::from_nanos(1), ..Network::calm() };
    let plan = Plan { network, steps: u64::MAX / 2, ..Plan::new(seed, Layout::flat(1), recipe, cluster) };
    let idle =
        |me: PeerId| -> Box<dyn App> { Box::new(Idle { random: Random::new(seed, 9 + u64::from(me.0)), spread }) };
    let (mut ends, mut begun) = (Vec::new(), None);
    let mut world = World::new(plan, idle)?;
    // The error is how a callback ends a run.
    let over = world.run(u64::MAX, |world, _| {
        if begun.is_none() && world.is_computing(PeerId(0)) {
            begun = Some(world.now());
        }
        let version = world.status(PeerId(workers)).map_or(0, |status| status.clock.0);
        if version > ends.len() as u64
            && let Some(begun) = begun
        {
            ends.push(world.now().since(begun).as_secs_f64());
        }
        if ends.len() == rounds { Err(None) } else { Ok(()) }
    });
    match over {
        Err(Some(halt)) => Err(format!("{halt:?}").into()),
        _ => Ok(ends),
    }
}

/// 1 + 1/2 + … + 1/k.
fn harmonic(k: u32) -> f64 {
    (1..=k).map(|i| 1.0 / f64::from(i)).sum()
}

pub(super) fn tables(size: Size) -> Result<Vec<Table>, Error> {
    let (workers, backups) = size.of((10, &[0, 2][..]), (100, &[0, 1, 2, 4, 6, 8, 12, 20][..]));
    let (firsts, rounds) = size.of((1000, 400), (1000, 2000));
    let title = format!(
        "{workers} workers, times of steps with a mean of 1 s: seconds of a round that waits for all but b, \
         {firsts} first rounds and {rounds} rounds of a run"
    );
    let columns = [
        "b",
        "first round, exponential",
        "H_N - H_b",
        "all rounds, exponential",
        "gain",
        "all rounds, Pareto 1.5",
        "gain ",
    ];
    let mut table = Table::new(title, &columns);
    let mut of_all = [None, None];
    for backup in backups {
        let first = |seed| Ok::<f64, Error>(ends(workers, *backup, Spread::Exponential, 1, seed)?[0]);
        let first = (0..firsts).map(first).sum::<Result<f64, Error>>()? / firsts as f64;
        let mut cells = vec![
            Cell::Number((*backup).into(), 0),
            Cell::Number(first, 3),
            Cell::Number(harmonic(workers) - harmonic(*backup), 3),
        ];
        for (spread, of_all) in [Spread::Exponential, Spread::Pareto].into_iter().zip(&mut of_all) {
            let mean = ends(workers, *backup, spread, rounds, 1)?[rounds - 1] / rounds as f64;
            // What counts is contributions per second, of which a round has fewer.
            let rate = f64::from(workers - backup) / mean;
            cells.extend([Cell::Number(mean, 3), Cell::Number(rate / *of_all.get_or_insert(rate), 2)]);
        }
        table.row(cells);
    }
    table.note("Gain: contributions that count per second, to those of b = 0.");
    table.note("The law is that of the first round, in which all workers begin together. Later, workers that are late finish their steps first, and rounds take longer.");
    table.note("Published: of 100 machines, 96 + 4 backup workers took the least time to converge. Its distribution of step times is not published as numbers.");
    Ok(vec![table])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_round_follows_the_law() {
        let tables = tables(Size { seeds: 1, quick: true }).unwrap();
        for row in &tables[0].rows {
            let [first, law] = [1, 2].map(|column| row[column].value().unwrap());
            assert!((first / law - 1.0).abs() < 0.03, "{first}, expected {law}");
        }
        // Backup workers gain where tails are heavy.
        assert!(tables[0].rows[1][6].value().unwrap() > 1.2);
    }
}
