//! Small charts of a loss over time, in one line.

use gradwire::compare::{Report, Row, Sample};

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The axes that all charts of a report share.
pub(crate) struct Axes {
    /// Seconds at the right end.
    pub(crate) end: f64,
    /// Logarithms of the smallest and the largest loss.
    low: f64,
    high: f64,
    columns: usize,
}

impl Axes {
    /// For charts with so many columns. They end at 2T, or with the last run.
    pub(crate) fn of(report: &Report, columns: usize) -> Self {
        let samples = || report.rows.iter().filter_map(middle).flatten();
        let last = samples().map(|sample| sample.seconds).fold(0.0, f64::max);
        let logs = || samples().map(|sample| log(sample.loss)).filter(|log| log.is_finite());
        Self {
            end: report.target_time.map_or(last, |time| last.min(2.0 * time)),
            low: logs().fold(f64::INFINITY, f64::min),
            high: logs().fold(f64::NEG_INFINITY, f64::max),
            columns,
        }
    }

    /// The chart of a row: its run with the median loss at the end. Blank after the end of the run.
    pub(crate) fn chart(&self, row: &Row) -> String {
        let Some(curve) = middle(row) else { return " ".repeat(self.columns) };
        (0..self.columns).map(|column| self.bar(curve, column)).collect()
    }

    fn bar(&self, curve: &[Sample], column: usize) -> char {
        let at = self.end * (column as f64 + 0.5) / self.columns as f64;
        let Some(before) = curve.iter().rposition(|sample| sample.seconds <= at) else { return ' ' };
        if before + 1 == curve.len() {
            return ' ';
        }
        let share = (log(curve[before].loss) - self.low) / (self.high - self.low);
        let bar = (share * BARS.len() as f64) as usize;
        if share.is_finite() { BARS[bar.min(BARS.len() - 1)] } else { BARS[BARS.len() - 1] }
    }
}

fn log(loss: f64) -> f64 {
    loss.max(1e-9).ln()
}

/// The curve of the run with the median loss at the end.
fn middle(row: &Row) -> Option<&[Sample]> {
    let mut curves: Vec<&[Sample]> = row.runs.iter().map(|run| &run.curve[..]).collect();
    let end = |curve: &[Sample]| curve.last().map_or(f64::INFINITY, |sample| sample.loss);
    curves.sort_by(|a, b| end(a).total_cmp(&end(b)));
    curves.get(curves.len() / 2).copied()
}
