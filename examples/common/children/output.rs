//! The output of child processes: bytes are split into lines, and wait in a queue of limited length for the printer.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::Line;

/// The longest line that stays in one piece, in bytes. Longer lines are split.
const LINE_MAX: usize = 8192;
/// Lines that may wait for the printer. A child that prints faster waits, as with any pipe.
const LINES_MAX: usize = 256;

/// Splits bytes into lines. A line ends at `\n`, at `\r` (progress bars), or at [`LINE_MAX`].
#[derive(Default)]
struct Splitter {
    line: Vec<u8>,
    /// The line has ended at `\r` or at the limit, so that a `\n` that follows at once ends no further line.
    ended: bool,
}

impl Splitter {
    fn push(&mut self, bytes: &[u8], mut emit: impl FnMut(Vec<u8>)) {
        for byte in bytes {
            match byte {
                b'\n' if std::mem::take(&mut self.ended) => {}
                b'\n' => emit(std::mem::take(&mut self.line)),
                b'\r' if self.line.is_empty() => {}
                b'\r' => {
                    emit(std::mem::take(&mut self.line));
                    self.ended = true;
                }
                byte => {
                    self.line.push(*byte);
                    self.ended = self.line.len() == LINE_MAX;
                    if self.ended {
                        emit(std::mem::take(&mut self.line));
                    }
                }
            }
        }
    }

    /// The rest, if the output does not end with a line's end.
    fn rest(self) -> Option<Vec<u8>> {
        (!self.line.is_empty()).then_some(self.line)
    }
}

/// The last line that a process has written to stderr: mostly the reason of its failure.
pub(super) type LastWords = Arc<Mutex<Vec<u8>>>;

/// Lines on their way from the children to the printer.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Line>,
    /// Pipes that are still open.
    pipes: usize,
    /// The supervisor adds no more lines, and starts no more pipes.
    closed: bool,
}

impl Queue {
    /// Reads a pipe to its end on a thread, and adds each line. `line` adds rank and kind. Never stops before the end of
    /// the pipe, since SIGPIPE kills a child if its pipe is closed.
    pub(super) fn read(
        self: &Arc<Self>,
        mut from: impl Read + Send + 'static,
        line: impl Fn(Vec<u8>) -> Line + Send + 'static,
        last: Option<LastWords>,
    ) {
        self.lock().pipes += 1;
        let queue = Arc::clone(self);
        thread::spawn(move || {
            let (mut splitter, mut buffer) = (Splitter::default(), [0; LINE_MAX]);
            let add = |bytes: Vec<u8>| {
                if let Some(last) = last.as_ref().filter(|_| says_why(&bytes)) {
                    last.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&bytes);
                }
                queue.add(line(bytes));
            };
            loop {
                match from.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(len) => splitter.push(&buffer[..len], add),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            splitter.rest().into_iter().for_each(add);
            queue.lock().pipes -= 1;
            queue.changed.notify_all();
        });
    }

    /// Adds a line of a child, when there is room.
    fn add(&self, line: Line) {
        let mut state = self.lock();
        while state.lines.len() >= LINES_MAX {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.lines.push_back(line);
        drop(state);
        self.changed.notify_all();
    }

    /// Adds a line of the supervisor, which never waits for the printer. There are few of them.
    pub(super) fn tell(&self, line: Line) {
        self.lock().lines.push_back(line);
        self.changed.notify_all();
    }

    /// The next line; `None` after the last one.
    pub(super) fn next(&self) -> Option<Line> {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                self.changed.notify_all();
                return Some(line);
            }
            if state.closed && state.pipes == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// No lines and no pipes are added from here on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// True if a process still holds a pipe.
    pub(super) fn has_pipes(&self) -> bool {
        self.lock().pipes > 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// False for lines that follow the message of a failure and add nothing to it: hints, and details, which are indented.
fn says_why(line: &[u8]) -> bool {
    const HINTS: [&[u8]; 3] = [b"note: ", b"Usage: ", b"For more information, try "];
    let is_detail = line.first().is_none_or(u8::is_ascii_whitespace);
    !is_detail && !HINTS.iter().any(|hint| line.starts_with(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        pieces.iter().for_each(|piece| splitter.push(piece, |line| lines.push(line)));
        lines.extend(splitter.rest());
        lines
    }

    #[test]
    fn lines_end_at_both_ends() {
        assert_eq!(split(&[b"a\nb\n\nc"]), [&b"a"[..], b"b", b"", b"c"]);
        assert_eq!(split(&[b"a\r\nb\r\n\r\n"]), [&b"a"[..], b"b", b""]);
        assert_eq!(split(&[b"\r10 %\r20 %", b"\r", b"\n\r30 %\n"]), [&b"10 %"[..], b"20 %", b"30 %"]);
        assert_eq!(split(&[b"\xff\xfe\x00\n\x80"]), [&b"\xff\xfe\x00"[..], b"\x80"]);
        assert!(split(&[]).is_empty());
    }

    #[test]
    fn long_lines_are_split() {
        let long = vec![b'x'; 2 * LINE_MAX + 1];
        assert_eq!(split(&[&long]).iter().map(Vec::len).collect::<Vec<_>>(), [LINE_MAX, LINE_MAX, 1]);
        let whole = [vec![b'x'; LINE_MAX], b"\ny\n".to_vec()].concat();
        assert_eq!(split(&[&whole]).iter().map(Vec::len).collect::<Vec<_>>(), [LINE_MAX, 1]);
    }

    #[test]
    fn details_do_not_stand_for_the_message() {
        let clap = "error: unexpected argument '--x' found\n\n  tip: a similar one exists: '--y'\n\nUsage: node --y\n\n\
                    For more information, try '--help'.";
        let python = "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    f()\nValueError: no";
        let rust = "thread 'main' panicked at a.rs:1:2:\nno\nnote: run with `RUST_BACKTRACE=1` environment variable";
        for (text, why) in [(clap, "error: unexpected argument '--x' found"), (python, "ValueError: no"), (rust, "no")]
        {
            assert_eq!(text.lines().rfind(|line| says_why(line.as_bytes())), Some(why));
        }
    }

    /// A process that prints without end fills no memory, and is read again when the printer goes on.
    #[test]
    fn the_queue_has_a_limit() {
        let queue = Arc::new(Queue::default());
        let endless = std::io::repeat(b'\n').take(100_000);
        queue.read(endless, |bytes| Line { rank: 3, stderr: false, bytes }, None);
        let full = || queue.lock().lines.len() >= LINES_MAX;
        while !full() {
            thread::yield_now();
        }
        thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(queue.lock().lines.len(), LINES_MAX);
        // The supervisor does not wait.
        queue.tell(Line { rank: 0, stderr: true, bytes: Vec::new() });
        queue.close();
        assert_eq!(std::iter::from_fn(|| queue.next()).count(), 100_001);
        assert!(!queue.has_pipes());
    }
}
