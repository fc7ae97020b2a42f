//! B-FASGD (Odena 2016): the fewer pushes and fetches are sent, the fewer bytes, and the higher the loss. The paper has
//! curves only.

use std::time::Duration;

use gradwire::sim::{Links, Outcome, Speed};
use gradwire_examples::task::Name;

use super::training::{Training, ends};
use super::{Cell, Error, Size, Table};

const WORKERS: u32 = 16;
const BATCH: usize = 4;
const RATE: f32 = 0.1;
/// The largest of 0.001, 0.002, 0.005 and 0.02 with which all five seeds of `fasgd` converge.
const LENGTH: &str = "length=0.001";

/// The runs of FASGD with these costs, and so many steps of each worker.
fn runs(costs: &str, steps: u64, size: Size) -> Result<Vec<Outcome>, Error> {
    let hidden = size.of(vec![32], Name::Digits.hidden().to_vec());
    let recipe = format!("fasgd {LENGTH} {costs}");
    let training = Training { hidden, ..Training::new(recipe, WORKERS, Name::Digits, BATCH, RATE) };
    training.run(size.seeds, |simulation, _| {
        let speed = Speed::constant(Duration::from_millis(10)).jitter(0.3);
        simulation.speed(speed).links(Links::new(Duration::from_millis(1))).steps(steps)
    })
}

pub(super) fn tables(size: Size) -> Result<Vec<Table>, Error> {
    let steps = size.of(100, 400);
    let both = ["push_cost=1e-4 fetch_cost=1e-4", "push_cost=1e-3 fetch_cost=1e-3", "push_cost=1e-2 fetch_cost=1e-2"];
    let one =
        ["fetch_cost=1e-4", "fetch_cost=1e-3", "fetch_cost=1e-2", "push_cost=1e-4", "push_cost=1e-3", "push_cost=1e-2"];
    // The last two rows send as many bytes as those with both costs, by fewer steps.
    let rows = [""].into_iter().chain(one).chain(both).map(|costs| (costs, 400)).chain([("", 136), ("", 32)]);
    let rows: Vec<(&str, u64)> = if size.quick { vec![("", steps), (both[1], steps)] } else { rows.collect() };
    let title =
        format!("Digits, {WORKERS} workers, batch {BATCH}, rate {RATE}, `fasgd {LENGTH}`: bytes and validation loss");
    let columns = ["costs", "steps", "pushes sent", "fetches", "MB", "loss", "accuracy", "staleness"];
    let mut table = Table::new(title, &columns);
    for (costs, steps) in rows {
        let outcomes = runs(costs, steps, size)?;
        let of_all = |of: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(of).collect::<Vec<f64>>();
        let share = |skipped: u64| 1.0 - skipped as f64 / (u64::from(WORKERS) * steps) as f64;
        let (losses, accuracies) = ends(&outcomes);
        table.row(vec![
            Cell::text(if costs.is_empty() { "none" } else { costs }),
            Cell::Number(steps as f64, 0),
            Cell::Shares(of_all(&|of| share(of.counters.skipped_pushes)), 0),
            Cell::Shares(of_all(&|of| share(of.counters.skipped_fetches)), 0),
            Cell::Runs(of_all(&|of| of.bytes as f64 / 1e6), 0),
            Cell::Runs(losses, 3),
            Cell::Shares(accuracies, 1),
            Cell::Runs(of_all(&|of| of.staleness.mean()), 1),
        ]);
    }
    table.note("MB: all bytes of all nodes. Both costs at 0.001 are those of the released code (0.01 times the rate), and of the preset `b-fasgd`.");
    Ok(vec![table])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not sent is saved, and what is learned is not lost.
    #[test]
    fn fewer_messages_send_fewer_bytes() {
        let size = Size { seeds: 1, quick: true };
        let [all, few] = ["", "push_cost=1e-3 fetch_cost=1e-3"].map(|costs| runs(costs, 100, size).unwrap().remove(0));
        assert_eq!((all.counters.skipped_pushes, all.counters.skipped_fetches), (0, 0));
        let sent = 1.0 - few.counters.skipped_pushes as f64 / 1600.0;
        assert!((0.05..0.9).contains(&sent), "{sent}");
        // A push or a fetch that is skipped leaves a header.
        let saved = few.bytes as f64 / all.bytes as f64;
        assert!((saved / sent - 1.0).abs() < 0.2, "{saved} of the bytes for {sent} of the pushes");
        assert!(few.validation().unwrap().loss < 2.0 * all.validation().unwrap().loss);
    }
}
