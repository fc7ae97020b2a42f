//! [`Results`]: runs that have ended, as text. A comparison that was stopped goes on from them.
//!
//! The first line is `gradwire-compare` and the version of the format. Each further line is a run, in fields with tabs
//! between them: the key of the run, why it failed (`-`: it did not), the share of time in which workers compute, the
//! times of steps as `p50:p90`, the test as `loss:accuracy`, and its curve. A point of the curve is
//! `seconds:examples:bytes:loss:accuracy`, and points have blanks between them. `-` stands for what does not exist.
//! Numbers are written so that reading gives the same bits.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::report::Sample;

/// The version of the format.
const VERSION: u32 = 2;
const NAME: &str = "gradwire-compare";

/// What is kept of a run that has ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// Why it failed, without tabs and line ends. `None`: it ended with its budget.
    pub(super) failed: Option<String>,
    /// Share of the time in which workers compute, the mean over workers. `None`: no time has passed.
    pub(super) compute: Option<f64>,
    /// Seconds that half and nine tenths of the steps do not exceed. `None`: there are no steps.
    pub(super) steps: Option<[f64; 2]>,
    /// The loss and the accuracy on the test part, of the parameters with the smallest validation loss.
    pub(super) test: Option<(f64, Option<f64>)>,
    pub(super) curve: Vec<Sample>,
}

/// Runs that have ended, by the digest of all settings that decide them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    runs: BTreeMap<String, Record>,
}

/// Results that were read from a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Reading {
    /// The runs.
    pub results: Results,
    /// Length in bytes of all whole lines. Text that is to be appended goes there.
    pub whole: usize,
    /// The last line had no end, as after an interrupted write, and was dropped.
    pub is_cut: bool,
}

/// Why a text holds no results.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResultsError {
    /// The first line is not that of results.
    NotResults,
    /// The text has another version of the format.
    Version {
        /// The version of this library.
        expected: u32,
        /// The version of the text.
        got: String,
    },
    /// A whole line is not a run.
    BadLine {
        /// Its number, from 1.
        line: usize,
    },
}

impl Results {
    /// The first line of a text of results, with its end.
    pub fn header() -> String {
        format!("{NAME} {VERSION}\n")
    }

    /// Reads a text. A last line without an end is dropped. An empty text has no runs.
    ///
    /// # Errors
    /// If the text is something else, has another version, or a whole line is damaged.
    pub fn read(text: &str) -> Result<Reading, ResultsError> {
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        let is_cut = whole < text.len();
        let mut lines = text[..whole].lines();
        let mut results = Self::default();
        let Some(first) = lines.next() else {
            // An interrupted first write leaves a part of the header.
            let is_header = Self::header().starts_with(text);
            return if is_header { Ok(Reading { results, whole, is_cut }) } else { Err(ResultsError::NotResults) };
        };
        match first.split_once(' ') {
            Some((NAME, version)) if version == VERSION.to_string() => {}
            Some((NAME, version)) => {
                return Err(ResultsError::Version { expected: VERSION, got: version.to_string() });
            }
            _ => return Err(ResultsError::NotResults),
        }
        for (at, line) in lines.enumerate() {
            let (key, record) = read_line(line).ok_or(ResultsError::BadLine { line: at + 2 })?;
            results.runs.insert(key, record);
        }
        Ok(Reading { results, whole, is_cut })
    }

    /// Number of runs.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// True if there are no runs.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn find(&self, key: &str) -> Option<&Record> {
        self.runs.get(key)
    }
}

impl Record {
    /// The line of a run, with its end.
    pub(super) fn line(&self, key: &str) -> String {
        let mut line = String::from(key);
        let failed = self.failed.as_deref().unwrap_or("-");
        let optional = |x: Option<f64>| x.map_or_else(|| "-".into(), |x| format!("{x:?}"));
        // Writing to a string does not fail.
        let _ = write!(line, "\t{failed}\t{}\t", optional(self.compute));
        let steps = self.steps.map_or_else(|| "-".into(), |[p50, p90]| format!("{p50:?}:{p90:?}"));
        let test = self.test.map_or_else(|| "-".into(), |(loss, accuracy)| format!("{loss:?}:{}", optional(accuracy)));
        let _ = write!(line, "{steps}\t{test}\t");
        for (at, Sample { seconds, examples, bytes, loss, accuracy }) in self.curve.iter().enumerate() {
            let between = if at > 0 { " " } else { "" };
            let _ = write!(line, "{between}{seconds:?}:{examples}:{bytes}:{loss:?}:{}", optional(*accuracy));
        }
        line.push('\n');
        line
    }
}

fn read_line(line: &str) -> Option<(String, Record)> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [key, failed, compute, steps, test, curve] = fields[..] else { return None };
    // `Some(None)`: the number does not exist.
    let optional = |text: &str| if text == "-" { Some(None) } else { text.parse().ok().map(Some) };
    let sample = |text: &str| {
        let fields: Vec<&str> = text.split(':').collect();
        let [seconds, examples, bytes, loss, accuracy] = fields[..] else { return None };
        Some(Sample {
            seconds: seconds.parse().ok().filter(|x: &f64| x.is_finite())?,
            examples: examples.parse().ok()?,
            bytes: bytes.parse().ok()?,
            loss: loss.parse().ok().filter(|x: &f64| !x.is_nan())?,
            accuracy: optional(accuracy)?,
        })
    };
    let seconds_of = |text: &str| {
        let (p50, p90) = text.split_once(':')?;
        let seconds = |text: &str| text.parse().ok().filter(|x: &f64| x.is_finite());
        Some([seconds(p50)?, seconds(p90)?])
    };
    let judged = |text: &str| {
        let (loss, accuracy) = text.split_once(':')?;
        Some((loss.parse().ok().filter(|x: &f64| !x.is_nan())?, optional(accuracy)?))
    };
    let record = Record {
        failed: (failed != "-").then(|| failed.to_string()),
        compute: optional(compute)?,
        steps: if steps == "-" { None } else { Some(seconds_of(steps)?) },
        test: if test == "-" { None } else { Some(judged(test)?) },
        curve: curve.split(' ').filter(|text| !text.is_empty()).map(sample).collect::<Option<_>>()?,
    };
    Some((key.to_string(), record)).filter(|(key, _)| !key.is_empty())
}

impl fmt::Display for ResultsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotResults => write!(f, "expected results of a comparison, got something else"),
            Self::Version { expected, got } => {
                write!(f, "expected results in version {expected} of the format, got version {got}")
            }
            Self::BadLine { line } => write!(f, "line {line}: expected the results of a run, got something else"),
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for ResultsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ResultsError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let sample = |seconds, loss, accuracy| Sample { seconds, examples: 64, bytes: 1 << 40, loss, accuracy };
        Record {
            failed: None,
            compute: Some(1.0 / 3.0),
            steps: Some([0.1, 1.0 / 3.0]),
            test: Some((0.7, Some(1.0 / 3.0))),
            curve: vec![sample(0.0, 2.3, None), sample(0.1 + 0.2, f64::INFINITY, Some(0.1))],
        }
    }

    fn text() -> String {
        let failed = Record {
            failed: Some("stuck: node 3 waits".into()),
            compute: None,
            steps: None,
            test: None,
            curve: Vec::new(),
        };
        Results::header() + &record().line("aa") + &failed.line("bb")
    }

    #[test]
    fn results_are_read_as_they_were_written() {
        let reading = Results::read(&text()).unwrap();
        assert_eq!((reading.results.len(), reading.whole, reading.is_cut), (2, text().len(), false));
        assert_eq!(reading.results.find("aa"), Some(&record()));
        assert_eq!(reading.results.find("bb").unwrap().failed.as_deref(), Some("stuck: node 3 waits"));
        assert!(Results::read("").unwrap().results.is_empty());
    }

    /// Wherever a write was interrupted, the lines before it remain.
    #[test]
    fn a_cut_last_line_is_dropped() {
        let text = text();
        for end in 0..text.len() {
            let reading = Results::read(&text[..end]).unwrap();
            let lines = text[..end].matches('\n').count();
            assert_eq!(reading.results.len(), lines.saturating_sub(1), "{end}");
            assert_eq!(reading.is_cut, end > 0 && !text[..end].ends_with('\n'), "{end}");
            assert!(text[..reading.whole].is_empty() || text[..reading.whole].ends_with('\n'));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let cases = [
            ("gradwire-compare 1\n", "expected results in version 2 of the format, got version 1"),
            ("hello\n", "expected results of a comparison, got something else"),
            ("hello", "expected results of a comparison, got something else"),
            (
                "gradwire-compare 2\naa\t-\t0.5\t0.1:0.2\t0.3:-\t\nbb\n",
                "line 3: expected the results of a run, got something else",
            ),
            (
                "gradwire-compare 2\naa\t-\t0.5\t-\t-\t1:2:3:NaN:-\n",
                "line 2: expected the results of a run, got something else",
            ),
            ("gradwire-compare 2\naa\t-\t0.5\t0.1\t-\t\n", "line 2: expected the results of a run, got something else"),
            (
                "gradwire-compare 2\naa\t-\t0.5\t-\tNaN:-\t\n",
                "line 2: expected the results of a run, got something else",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(Results::read(text).unwrap_err().to_string(), expected, "{text:?}");
        }
    }
}
