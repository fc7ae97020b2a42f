//! Figure 3 of Zhang et al. 2016 in virtual time: 30 workers with a batch of 4 and momentum 0.9 at a rate of 0.05. With
//! n-softsync (here `updates=30/n`), a constant rate fails from some n on, and a rate that is divided by the staleness does
//! not.
//!
//! `cargo run --release -p gradwire-examples --example staleness` prints the table of BENCHMARKS.md, a row after the other.

mod run;

use gradwire_examples::task::Name;
use run::{Place, accuracy};

fn main() {
    println!("| momentum | staleness | n = 1 | n = 15 | n = 30 |\n|---|---|---|---|---|");
    for place in [Place::Workers, Place::Server] {
        for staleness in ["const", "inverse", "inverse-plus-one"] {
            let cells = [1, 15, 30].map(|n| {
                let ends = (1..=5).map(|seed| accuracy(n, staleness, place, Name::Digits.hidden(), 240, seed));
                let mut ends: Vec<f64> = ends.collect();
                ends.sort_by(f64::total_cmp);
                let [least, median, most] = [0, 2, 4].map(|at| 100.0 * ends[at]);
                format!("{median:.1} % ({least:.1} to {most:.1})")
            });
            println!("| {place:?} | {staleness} | {} |", cells.join(" | "));
        }
    }
}
