//! Tables as Markdown or JSON.

use std::fmt::Write as _;

use gradwire_examples::outcome::number;

/// A table of a figure.
pub(crate) struct Table {
    /// The setting, in a sentence.
    pub(crate) title: String,
    /// With units.
    pub(crate) columns: Vec<String>,
    /// As many cells as columns in each.
    pub(crate) rows: Vec<Vec<Cell>>,
    /// What does not line up with the publication, and why.
    pub(crate) notes: Vec<String>,
}

/// The contents of a cell.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Text(String),
    /// A number, and its digits after the point.
    Number(f64, usize),
    /// A share, and the digits of its percentage.
    Share(f64, usize),
    /// A figure of several runs, with the digits of the numbers. Infinite: the run failed.
    Runs(Vec<f64>, usize),
    /// The same, as shares.
    Shares(Vec<f64>, usize),
    /// There is no such number.
    None,
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The number of the cell, or the median of its runs.
    #[cfg(test)]
    pub(crate) fn value(&self) -> Option<f64> {
        match self {
            Self::Text(_) | Self::None => None,
            Self::Number(x, _) | Self::Share(x, _) => Some(*x),
            Self::Runs(runs, _) | Self::Shares(runs, _) => Some(spread(runs)[1]),
        }
    }

    fn markdown(&self) -> String {
        let runs = |runs: &[f64], digits: usize, factor: f64, unit: &str| {
            let [least, median, most] = spread(runs).map(|x| finite(factor * x, digits));
            if least != most { format!("{median}{unit} ({least} to {most})") } else { format!("{median}{unit}") }
        };
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(x, digits) => finite(*x, *digits),
            Self::Share(x, digits) => format!("{} %", finite(100.0 * x, *digits)),
            Self::Runs(all, digits) => runs(all, *digits, 1.0, ""),
            Self::Shares(all, digits) => runs(all, *digits, 100.0, " %"),
            Self::None => String::new(),
        }
    }

    fn json(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{}\"", escaped(text)),
            Self::Number(x, digits) => number(*x, *digits + 2),
            Self::Share(x, digits) => number(*x, *digits + 4),
            Self::Runs(all, digits) | Self::Shares(all, digits) => {
                let all: Vec<String> = all.iter().map(|x| number(*x, *digits + 4)).collect();
                format!("[{}]", all.join(","))
            }
            Self::None => "null".into(),
        }
    }
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.columns.len(), "{}: a cell per column", self.title);
        self.rows.push(cells);
    }

    pub(crate) fn note(&mut self, note: &str) {
        self.notes.push(note.into());
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text =
            format!("{}\n\n| {} |\n|{}\n", self.title, self.columns.join(" | "), "---|".repeat(self.columns.len()));
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(Cell::markdown).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        self.notes.iter().for_each(|note| text += &format!("- {note}\n"));
        text
    }

    /// A JSON object per row. Its keys are the names of the columns. Runs are arrays, by seed.
    pub(crate) fn json(&self, figure: &str) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let _ = write!(text, "{{\"figure\":\"{figure}\",\"table\":\"{}\"", escaped(&self.title));
            for (column, cell) in self.columns.iter().zip(row) {
                let _ = write!(text, ",\"{}\":{}", escaped(column), cell.json());
            }
            text += "}\n";
        }
        text
    }
}

/// The least, the median and the largest value.
pub(crate) fn spread(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => [f64::NAN; 3],
        len => [sorted[0], sorted[(len - 1) / 2], sorted[len - 1]],
    }
}

fn finite(x: f64, digits: usize) -> String {
    if x.is_finite() { format!("{x:.digits$}") } else { "∞".into() }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
