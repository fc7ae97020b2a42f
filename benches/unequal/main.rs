//! Machines of unequal speed under a fixed period, and under periods that follow the speed: four simulated workers,
//! with steps of 0.58, 0.75, 1.51 and 3.33 s of virtual time. Periods that follow the loss: four equal workers, with
//! messages that take a second each. Means by steps: four unequal workers with data of their own. Momentum at a server
//! of asynchronous workers.
//!
//! `cargo bench --bench unequal` prints a table of each as Markdown: the share of the time in which the machines compute,
//! and the loss over virtual seconds. `-- --json`: an object per row. `cargo test` runs a minute of virtual time.

mod machines;

use gradwire_core::{Duration, Recipe};
use gradwire_sim::simulation::Network;
use machines::{Machines, Outcome, STEP_MS, run};

const RECIPES: [&str; 10] = [
    "sync",
    "sync period=20",
    "sync period=20s",
    "sync period=60s",
    "hardsync period=20 adapt=speed",
    "async period=20",
    "async period=20 adapt=speed",
    "hardsync",
    "backup-workers",
    "backup-workers late=next",
];
/// Over a slow network. Of equal workers, so that no worker waits for another.
const FAR: [&str; 6] = [
    "sync",
    "sync period=5",
    "sync period=20",
    "sync period=20 adapt=loss",
    "sync period=60",
    "sync period=60 adapt=loss",
];
const FAR_STEP_MS: [u64; 4] = [580; 4];
const FAR_LATENCY: Duration = Duration::from_secs(1);
/// Of workers with data of their own.
const OWN: [&str; 6] = [
    "sync",
    "sync period=20",
    "sync period=20s",
    "sync period=20s normalize=steps",
    "sync period=60s",
    "sync period=60s normalize=steps",
];
/// The share of a worker's examples that come from its own classes.
const OWN_SHARE: f64 = 0.9;
/// Of asynchronous workers, with and without momentum at the server.
const MOMENTUM: [&str; 8] = [
    "async period=20 adapt=speed",
    "async period=20 adapt=speed outer=momentum mu=0.9 rate=0.1",
    "async period=20 adapt=speed outer=momentum mu=0.9 rate=0.7",
    "async period=20 adapt=speed outer=momentum mu=0.9 rate=0.1 look=true",
    "async period=20 adapt=speed outer=momentum mu=0.9 rate=0.7 look=true",
    "async period=20 adapt=speed outer=delayed-nesterov mu=0.9 rate=0.1",
    "async period=20 adapt=speed outer=delayed-nesterov mu=0.9 rate=0.7",
    "async period=20 adapt=speed outer=delayed-nesterov mu=0.5 rate=0.7",
];
const SECONDS: [u64; 5] = [60, 120, 240, 600, 1200];
const SEEDS: u64 = 5;

fn main() {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    let small = !has("--bench") || has("--test");
    let (seconds, seeds) = if small { (&SECONDS[..1], 1) } else { (&SECONDS[..], SEEDS) };
    let unequal = Machines { network: Network::calm(), step_ms: STEP_MS, own: 0.0 };
    let far =
        Machines { network: Network { latency: FAR_LATENCY, ..Network::calm() }, step_ms: FAR_STEP_MS, ..unequal };
    let own = Machines { own: OWN_SHARE, ..unequal };
    let tables: [(&[&str], &Machines); 4] = [(&RECIPES, &unequal), (&FAR, &far), (&OWN, &own), (&MOMENTUM, &unequal)];
    for (index, (recipes, machines)) in tables.into_iter().enumerate() {
        if index > 0 {
            println!();
        }
        table(recipes, machines, seconds, seeds, has("--json"));
    }
}

fn table(recipes: &[&str], machines: &Machines, seconds: &[u64], seeds: u64, json: bool) {
    if !json {
        let times: String = seconds.iter().map(|at| format!(" {at} s |")).collect();
        println!(
            "| recipe | busy | least busy | rounds | examples |{times}\n|---|---|---|---|---|{}",
            "---|".repeat(seconds.len())
        );
    }
    for text in recipes {
        let recipe: Recipe = text.parse().expect("a recipe");
        let outcomes: Vec<Outcome> = (1..=seeds).map(|seed| run(machines, recipe, seed, seconds)).collect();
        // Equal for all seeds.
        let Outcome { busy, rounds, examples, .. } = &outcomes[0];
        let (mean, least) = (outcomes[0].mean_busy(), busy.iter().fold(1.0f64, |least, busy| least.min(*busy)));
        let losses = (0..seconds.len()).map(|at| median(outcomes.iter().map(|outcome| outcome.losses[at]).collect()));
        let losses: Vec<String> = losses.map(|loss| format!("{loss:.3}")).collect();
        if json {
            println!(
                "{{\"name\":\"unequal/{text}\",\"busy\":{mean:.4},\"least_busy\":{least:.4},\"rounds\":{rounds},\
                 \"examples\":{examples},\"seconds\":{seconds:?},\"loss\":[{}]}}",
                losses.join(",")
            );
        } else {
            let (mean, least) = (100.0 * mean, 100.0 * least);
            println!("| `{text}` | {mean:.1} % | {least:.1} % | {rounds} | {examples} | {} |", losses.join(" | "));
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
