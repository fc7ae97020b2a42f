//! The staleness of n-softsync (Zhang et al. 2016, §3.2 and Figure 1): with N workers and a mean of every c = N / n
//! updates, an update is (N - 1) / c versions late on average.

use std::time::Duration;

use gradwire::sim::{Simulation, Speed, Step, Worker};
use gradwire::{Cluster, Layout, Recipe};

use super::{Cell, Error, Size, Table};

const WORKERS: u32 = 30;
/// n, and what the paper says about its staleness.
const ROWS: [(u32, &str); 4] = [(1, "0, 1 or 2"), (2, ""), (15, "15 on average"), (30, "30 on average")];

pub(super) fn tables(size: Size) -> Result<Vec<Table>, Error> {
    let steps = size.of(400, 4000);
    let columns = ["n", "c", "mean staleness", "(N - 1) / c", "most", "share above 2n", "published"];
    let mut table = Table::new(
        format!(
            "n-softsync of {WORKERS} workers, {steps} steps of each, times of steps uniform within 30 % of their mean"
        ),
        &columns,
    );
    for (n, published) in ROWS {
        let c = WORKERS / n;
        let recipe: Recipe = format!("softsync updates={c}").parse()?;
        let outcome = Simulation::new(Layout::flat(4), recipe, Cluster { workers: WORKERS, servers: 1 })
            .speed(Speed::constant(Duration::from_millis(100)).jitter(0.3))
            .steps(steps)
            .run(|_: &Worker| |_: &[f32], _: &mut [f32]| Step::of(1))?;
        let staleness = &outcome.staleness;
        let above: u64 = staleness.buckets()[2 * n as usize + 1..].iter().sum();
        table.row(vec![
            Cell::Number(n.into(), 0),
            Cell::Number(c.into(), 0),
            Cell::Number(staleness.mean(), 2),
            Cell::Number(f64::from(WORKERS - 1) / f64::from(c), 2),
            Cell::Number(staleness.max() as f64, 0),
            Cell::Share(above as f64 / staleness.count() as f64, 4),
            Cell::text(published),
        ]);
    }
    table.note("Published: at most 0.01 % of the updates of n = 15 and 30 are later than 2n.");
    table.note("Zhang et al. round the mean to n: N / c.");
    Ok(vec![table])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_the_law() {
        let tables = tables(Size { seeds: 1, quick: true }).unwrap();
        for row in &tables[0].rows {
            let [mean, law] = [2, 3].map(|column| row[column].value().unwrap());
            assert!((mean / law - 1.0).abs() < 0.05, "{mean}, expected {law}");
            let (n, most) = (row[0].value().unwrap(), row[4].value().unwrap());
            assert!(most <= 2.0 * n + 2.0, "n = {n}: at most {most}");
        }
    }
}
