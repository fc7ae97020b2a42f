//! Machines of unequal speed under a fixed period, and under periods that follow the speed: four simulated workers,
//! with steps of 0.58, 0.75, 1.51 and 3.33 s of virtual time. And periods that follow the loss: four equal workers,
//! with messages that take a second each.
//!
//! `cargo bench --bench unequal` prints a table of each as Markdown: the share of the time in which the machines compute,
//! and the loss over virtual seconds. `-- --json`: an object per row. `cargo test` runs a minute of virtual time.

mod machines;

use gradwire_core::{Duration, Recipe};
use gradwire_sim::Network;
use machines::{Outcome, STEP_MS, run};

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
const SECONDS: [u64; 5] = [60, 120, 240, 600, 1200];
const SEEDS: u64 = 5;

fn main() {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    let small = !has("--bench") || has("--test");
    let (seconds, seeds) = if small { (&SECONDS[..1], 1) } else { (&SECONDS[..], SEEDS) };
    table(&RECIPES, Network::calm(), STEP_MS, seconds, seeds, has("--json"));
    println!();
    let far = Network { latency: FAR_LATENCY, ..Network::calm() };
    table(&FAR, far, FAR_STEP_MS, seconds, seeds, has("--json"));
}

fn table(recipes: &[&str], network: Network, step_ms: [u64; 4], seconds: &[u64], seeds: u64, json: bool) {
    if !json {
        let times: String = seconds.iter().map(|at| format!(" {at} s |")).collect();
        println!(
            "| recipe | busy | least busy | rounds | examples |{times}\n|---|---|---|---|---|{}",
            "---|".repeat(seconds.len())
        );
    }
    for text in recipes {
        let recipe: Recipe = text.parse().expect("a recipe");
        let outcomes: Vec<Outcome> = (1..=seeds).map(|seed| run(network, recipe, step_ms, seed, seconds)).collect();
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
