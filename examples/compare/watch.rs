//! The progress on a terminal: one line, which is written again and again.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use gradwire::compare::Progress;

/// Between two lines.
const PERIOD: Duration = Duration::from_millis(200);

/// Shows progress on stderr, if that is a terminal.
pub(crate) struct Watch {
    shows: bool,
    last: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { shows: !quiet && std::io::stderr().is_terminal(), last: None }
    }

    /// Shows the progress, unless the last line is new.
    pub(crate) fn see(&mut self, progress: &Progress<'_>) {
        if !self.shows || self.last.is_some_and(|last| last.elapsed() < PERIOD) {
            return;
        }
        self.last = Some(Instant::now());
        // The rest of a longer line is erased.
        let _ =
            write!(std::io::stderr(), "\r{}\x1b[K", line(progress.ended, progress.runs, progress.left, progress.row));
    }

    /// Erases the line.
    pub(crate) fn end(&mut self) {
        if self.last.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// In at most 79 columns.
fn line(ended: usize, runs: usize, left: Option<Duration>, row: &str) -> String {
    let left = match left.map(|left| left.as_secs()) {
        None => String::new(),
        Some(secs) if secs < 100 => format!(", about {secs} s left"),
        Some(secs) => format!(", about {} min left", secs.div_ceil(60)),
    };
    let line = format!("{ended} of {runs} runs{left} ({row})");
    line.chars().take(79).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_runs_and_time() {
        assert_eq!(line(3, 70, None, "sync"), "3 of 70 runs (sync)");
        assert_eq!(line(3, 70, Some(Duration::from_secs(61)), "sync"), "3 of 70 runs, about 61 s left (sync)");
        assert_eq!(line(3, 70, Some(Duration::from_secs(130)), "sync"), "3 of 70 runs, about 3 min left (sync)");
        assert_eq!(line(3, 70, None, &"x".repeat(100)).len(), 79);
    }
}
