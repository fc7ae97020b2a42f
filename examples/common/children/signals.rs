//! The signals that a supervisor receives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

/// Signals that end a run.
const STOPPING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
/// Signals that are passed on and have no other effect: launchers send them before a job ends, and users to their
/// programs.
const PASSED: [Signal; 2] = [Signal::USR1, Signal::USR2];

/// A signal that has arrived.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// End the run.
    Stop(Signal),
    /// Pass it on.
    Pass(Signal),
    /// Suspend the run: Ctrl-Z at the terminal.
    Suspend,
}

impl Received {
    fn signal(self) -> Signal {
        match self {
            Self::Stop(signal) | Self::Pass(signal) => signal,
            Self::Suspend => Signal::TSTP,
        }
    }
}

/// Signals that have arrived since the last look.
pub(super) struct Signals(Vec<(Received, Arc<AtomicBool>)>);

impl Signals {
    /// Takes the signals over from here on.
    pub(super) fn catch() -> std::io::Result<Self> {
        let stopping = STOPPING.into_iter().filter(|signal| *signal != Signal::HUP || !is_ignored(*signal));
        let all = stopping.map(Received::Stop).chain(PASSED.map(Received::Pass)).chain([Received::Suspend]);
        let caught = all.map(|received| {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(received.signal().as_raw(), Arc::clone(&flag))?;
            Ok((received, flag))
        });
        caught.collect::<std::io::Result<_>>().map(Self)
    }

    /// The signals since the last call.
    pub(super) fn take(&self) -> impl Iterator<Item = Received> {
        self.0.iter().filter(|(_, flag)| flag.swap(false, Ordering::Relaxed)).map(|(received, _)| *received)
    }
}

/// True if this process was started with the signal ignored, as `nohup` does with SIGHUP.
pub fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal.as_raw() - 1)) != 0
}

/// The name of a signal, or its number.
pub fn name(signal: i32) -> String {
    const NAMES: [(Signal, &str); 14] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::TERM, "SIGTERM"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::XFSZ, "SIGXFSZ"),
    ];
    let known = NAMES.iter().find(|(known, _)| known.as_raw() == signal);
    known.map_or_else(|| format!("signal {signal}"), |(_, name)| format!("signal {signal} ({name})"))
}
