//! The end of a process by a signal.
//!
//! The first signal asks the process to stop: it does not begin another step, contributes its rest, writes its
//! checkpoint and leaves. Waits to join end at once. All other waits are cancelled shortly before the grace is over,
//! and at its end the process ends in any case. A second signal of the same kind ends it at once.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use gradwire::Canceller;
use rustix::process::Signal;

use super::children::is_ignored;

/// The time between the end of the waits and the end of the process. Connections are closed in it.
const CLOSING: Duration = Duration::from_millis(300);

/// Whether a signal has come, and which one.
pub struct Stop {
    asked: Arc<AtomicBool>,
    /// The number of the last signal; 0: no signal has come.
    signal: Arc<AtomicUsize>,
    /// Makes the last line of a process that did not end in time, from the number of the signal.
    summary: Arc<Mutex<Option<Summary>>>,
}

type Summary = Box<dyn Fn(i32) -> String + Send>;

impl Stop {
    /// Ends this process at most `grace` after SIGTERM, SIGINT or SIGHUP. All nodes of this process share `canceller`.
    ///
    /// # Errors
    /// If the operating system does not install the handlers.
    pub fn on_signals(grace: Duration, canceller: &Canceller) -> std::io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        let (mut comes, tell) = UnixStream::pair()?;
        let asked = stop_on_signals(|number| {
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)?;
            signal_hook::low_level::pipe::register(number, tell.try_clone()?).map(drop)
        })?;
        let (canceller, number) = (canceller.clone(), Arc::clone(&signal));
        let summary: Arc<Mutex<Option<Summary>>> = Arc::default();
        let at_last = Arc::clone(&summary);
        // A handler may do next to nothing. This thread does the rest.
        thread::Builder::new().name("stop".to_string()).spawn(move || {
            let _ = comes.read_exact(&mut [0]);
            canceller.cancel_after(grace.saturating_sub(CLOSING));
            thread::sleep(grace);
            let number = number.load(Ordering::Relaxed);
            let text = format!("ended by signal {number}, {:.1} s after it: --grace is over", grace.as_secs_f64());
            let _ = writeln!(std::io::stderr(), "{text}");
            if let Some(summary) = &*at_last.lock().unwrap_or_else(PoisonError::into_inner) {
                let _ = writeln!(std::io::stderr(), "{}", summary(number as i32));
            }
            std::process::exit(128 + number as i32);
        })?;
        Ok(Self { asked, signal, summary })
    }

    /// Sets the last line of a process that does not end within the grace. `summary` gets the number of the signal.
    pub fn summary(&self, summary: impl Fn(i32) -> String + Send + 'static) {
        *self.summary.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(summary));
    }

    /// For a process that ends by itself soon after [`is_asked`](Self::is_asked): without a grace.
    ///
    /// # Errors
    /// If the operating system does not install the handlers.
    pub fn asked_by_signals() -> std::io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        let asked = stop_on_signals(|number| {
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize).map(drop)
        })?;
        Ok(Self { asked, signal, summary: Arc::default() })
    }

    /// True if the process has to stop.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The number of the last signal; 0 before the first one.
    pub fn signal(&self) -> i32 {
        self.signal.load(Ordering::Relaxed) as i32
    }

    /// The exit code of a process that a signal has ended before the end of the run: 128 + the number of the signal.
    pub fn code(&self) -> u8 {
        128 + self.signal() as u8
    }
}

/// A flag that the first SIGTERM, SIGINT or SIGHUP sets. The second one of a kind ends the process at once, with exit
/// code 128 + its number.
///
/// # Errors
/// If the operating system does not install the handler, and the errors of `also`, which is called for each signal.
fn stop_on_signals(also: impl Fn(i32) -> std::io::Result<()>) -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    // A write beyond the limit for files is then an error, as on a full disk, and not the end of the process.
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default())?;
    let hangup = (!is_ignored(Signal::HUP)).then_some(Signal::HUP);
    for signal in [Signal::INT, Signal::TERM].into_iter().chain(hangup).map(Signal::as_raw) {
        let again = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
        signal_hook::flag::register(signal, again)?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
        also(signal)?;
    }
    Ok(stop)
}
