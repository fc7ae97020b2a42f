//! Compression as ratios to its limits. The limit of a kernel is an axpy in place over the same memory, measured in the
//! same round; the limit of a message's size is the entropy of its positions and signs.
//!
//! `cargo bench --bench limits` prints a table, and with `-- --json` a JSON object per row. `-- --elements N` sets the
//! length of the vectors (default 14.6 million). Without `--bench`, as under `cargo test`, it runs once at a small
//! size.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod kernels;
mod measure;
mod steps;
mod wire;

use measure::Report;

/// The parameters of the acoustic model in Strom 2015.
const STROM: usize = 14_600_000;
/// The length of vectors that fit into the caches.
const CACHED: usize = 1 << 16;
/// Shares of the elements that are sent.
const DENSITIES: [f64; 6] = [1e-1, 1e-2, 3.6e-3, 1e-3, 1e-4, 1e-5];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let small = !has("--bench") || has("--test");
    let elements = args.iter().position(|arg| arg == "--elements").map(|at| args[at + 1].parse().unwrap());
    let large = elements.unwrap_or(if small { 1 << 14 } else { STROM });
    let mut report = Report::new(has("--json"));
    for (len, rounds) in [(large, if small { 1 } else { 15 }), (CACHED.min(large), if small { 1 } else { 301 })] {
        for density in DENSITIES.into_iter().filter(|density| !small || *density == 1e-2) {
            kernels::sparse(&mut report, len, density, rounds);
        }
        kernels::threads(&mut report, len, rounds);
        kernels::dense(&mut report, len, rounds);
    }
    wire::even(&mut report, large);
    wire::uneven(&mut report, large);
    wire::strom(&mut report, large);
    report.end();
}
