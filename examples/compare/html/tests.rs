//! Pages of a small comparison.

use std::time::Duration;

use gradwire::compare::{Comparison, Model, Report, Seat};
use gradwire::sim::{Learner, Links, MBIT, Speed, Step, Validation};
use gradwire::{Layout, Recipe};

use super::*;

/// Finds the mean of random numbers.
struct Mean;

struct Worker(Seat, u64);

impl Model for Mean {
    type Learner = Worker;

    fn name(&self) -> String {
        "mean of <numbers> & more".into()
    }

    fn layout(&self) -> Layout {
        Layout::flat(1)
    }

    fn initial(&self, _seed: u64) -> Vec<f32> {
        vec![0.0]
    }

    fn learner(&self, seat: &Seat) -> Worker {
        Worker(seat.clone(), 0)
    }
}

impl Learner for Worker {
    fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
        let error = |position| params[0] - 2.0 * self.0.random(position).unit() as f32;
        update[0] = self.0.rate * self.0.positions(self.1).map(error).sum::<f32>() / self.0.batch as f32;
        self.1 += 1;
        Step::of(self.0.batch)
    }

    fn validate(&mut self, params: &[f32]) -> Option<Validation> {
        Some(Validation::of(f64::from((params[0] - 1.0) * (params[0] - 1.0)) + 0.01))
    }
}

fn report() -> Report {
    let averaging: Recipe = "averaging period=5".parse().unwrap();
    Comparison::new(4, 2)
        .rule("averaging <5>", averaging)
        .rule("async", Recipe::asynchronous())
        .speeds([Duration::from_millis(10), Duration::from_millis(30)].map(Speed::constant))
        .links(Links::new(Duration::from_millis(1)).bandwidth(100 * MBIT))
        .examples(800)
        .rates(0.05..=1.0, 2)
        .seeds(3)
        .run(&Mean)
        .unwrap()
}

#[test]
fn a_page_is_whole_and_needs_no_other_file() {
    let report = report();
    let page = page(&report, "compare --recipes \"a&b\"");
    let count = |text: &str| page.matches(text).count();
    // Three plots of losses, the bars, and a sample of each line in the legend.
    assert_eq!(count("<svg"), 4 + report.rows.len());
    assert_eq!((count("<svg"), count("<table>")), (count("</svg>"), count("</table>")));
    // A line per seed and row in each plot of losses, but for the two references, which send nothing.
    for (at, row) in report.rows.iter().enumerate() {
        let plots = if row.kind == Kind::Rule { 3 } else { 2 };
        // Plotters writes colours in capital letters, and the legend does not.
        let colour = format!("stroke=\"#{:06X}\"", plots::colour(at).0);
        assert_eq!(count(&colour), plots * row.runs.len(), "{}", row.name);
    }
    for row in &report.rows {
        // In the legend, beside the bars, and in the table.
        assert_eq!(count(&escaped(&row.name)).min(3), 3, "{}", row.name);
    }
    for text in ["examples of all workers", "virtual seconds", "MB of all messages", "share of the virtual time (%)"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(report.verdict.iter().all(|sentence| page.contains(&escaped(sentence))));
    assert!(page.contains("compare --recipes &quot;a&amp;b&quot;") && page.contains("averaging &lt;5&gt;"));
    assert!(
        !page.contains("<5") && !page.contains("<numbers") && !page.contains("<script") && !page.contains("#010101")
    );
    // The only address is the name of a namespace.
    assert_eq!(count("http"), count("http://www.w3.org/2000/svg"));
    assert!(!page.contains("NaN") && !page.contains(">inf"), "numbers are finite, or ∞");
    assert!(page.len() < 300_000, "{}", page.len());
}

#[test]
fn numbers_have_three_digits_that_count() {
    let cases = [(0.0, "0"), (0.0123, "0.012"), (1.234, "1.23"), (56.78, "56.8"), (789.4, "789"), (12_345.0, "12.3 k")];
    for (x, expected) in cases {
        assert_eq!(digits(x), expected);
    }
    assert_eq!([digits(f64::INFINITY), digits(2.5e6)], ["∞", "2.50 M"]);
}
