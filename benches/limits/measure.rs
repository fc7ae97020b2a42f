//! Measuring and reporting: times, medians, random numbers, and the rows of the table.

use std::time::Instant;

use gradwire::pages;
use gradwire_core::Storage;

/// The aim of a row, which its ratio must reach.
#[derive(Copy, Clone)]
pub(crate) enum Limit {
    None,
    AtLeast(f64),
    AtMost(f64),
}

/// Prints rows, and counts the aims that were reached.
pub(crate) struct Report {
    json: bool,
    missed: Vec<String>,
    held: u32,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        if !json {
            println!("{:46} {:>9} {:>12} {:8} {:>8} {:>8}", "", "density", "value", "unit", "ratio", "limit");
        }
        Self { json, missed: Vec::new(), held: 0 }
    }

    /// Prints a row: `value` is the measurement in `unit`, `ratio` the number that the limit applies to. A density of 0
    /// is left out.
    pub(crate) fn row(&mut self, name: &str, density: f64, value: f64, unit: &str, ratio: f64, limit: Limit) {
        let (number, sign, met) = match limit {
            Limit::None => (None, "", true),
            Limit::AtLeast(least) => (Some(least), ">=", ratio >= least),
            Limit::AtMost(most) => (Some(most), "<=", ratio <= most),
        };
        if self.json {
            let limit = number.map_or_else(|| "null".into(), |limit| format!("{limit}"));
            println!(
                "{{\"name\":\"{name}\",\"density\":{density:e},\"value\":{value:.4},\"unit\":\"{unit}\",\
                 \"limit\":{limit},\"ratio\":{ratio:.4},\"met\":{met}}}"
            );
        } else {
            let limit = number.map_or_else(String::new, |limit| format!("{sign} {limit}"));
            let mark = if met { "" } else { "  missed" };
            let density = if density > 0.0 { format!("{density:.1e}") } else { String::new() };
            println!("{name:46} {density:>9} {value:>12.3} {unit:8} {ratio:>8.3} {limit:>8}{mark}");
        }
        match number {
            Some(_) if !met => {
                self.missed.push(format!("{name} at {density:e}: {ratio:.3}, limit {sign} {}", number.unwrap_or(0.0)))
            }
            Some(_) => self.held += 1,
            None => {}
        }
    }

    /// Prints how many limits were held, and the ones that were missed.
    pub(crate) fn end(self) {
        if !self.json {
            println!("\n{} limits held, {} missed", self.held, self.missed.len());
            self.missed.iter().for_each(|missed| println!("  {missed}"));
        }
    }
}

/// The duration of `work` in seconds.
pub(crate) fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// The median; of an even number of values, the upper one of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A generator of random numbers (xorshift64). A fixed seed gives the same data in every run.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Uniform in 0..1.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Approximately standard normal: the sum of twelve uniform numbers, minus 6.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// A buffer of `len` floats, allocated as the buffers of a session, with values from `of`.
pub(crate) fn floats(len: usize, mut of: impl FnMut() -> f64) -> Storage {
    let mut storage = pages::zeroed(len * 4);
    storage.floats_mut().iter_mut().for_each(|x| *x = of() as f32);
    storage
}
