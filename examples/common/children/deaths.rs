//! The ends of child processes, in order of time.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// How a process has ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    /// The number of the signal that ended it.
    Signal(i32),
}

impl Exit {
    /// The exit code that a shell would show: 128 + n for signal n.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => u8::try_from(code).unwrap_or(u8::MAX),
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }

    /// True for signals that a program does not cause itself: a user, another program, or the system at the end of its
    /// memory has ended it.
    pub(super) fn is_from_outside(self) -> bool {
        use rustix::process::Signal;
        let outside = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::KILL, Signal::TERM];
        outside.into_iter().any(|signal| self == Self::Signal(signal.as_raw()))
    }

    /// True for a process that has handled a signal to end, by its exit code: it was told to leave the run.
    pub(super) fn has_left(self) -> bool {
        use rustix::process::Signal;
        [Signal::HUP, Signal::INT, Signal::TERM].into_iter().any(|signal| self == Self::Code(128 + signal.as_raw()))
    }

    /// How a process has ended. It stays a zombie, so that its number is not used again. `None`: it is running.
    pub(super) fn of(process: Pid) -> Option<Self> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(process), options) {
            Ok(status) => status.map(|status| match status.terminating_signal() {
                Some(signal) => Self::Signal(signal),
                None => Self::Code(status.exit_status().unwrap_or(1)),
            }),
            Err(rustix::io::Errno::INTR) => None,
            // No such child: its exit code is lost.
            Err(_) => Some(Self::Code(1)),
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by {}", super::signals::name(*signal)),
        }
    }
}

/// Waits for the ends of processes.
pub(super) struct Deaths {
    /// The kernel adds a process to the ready list of an epoll instance when it ends. So they come in order of time,
    /// also if they have ended while this process was busy.
    #[cfg(target_os = "linux")]
    epoll: OwnedFd,
}

impl Deaths {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            #[cfg(target_os = "linux")]
            epoll: rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?,
        })
    }

    /// Watches the process of a rank, as long as the returned descriptor exists. `None` where the system has no such
    /// descriptors (Linux before 5.3): the caller has to look.
    #[cfg(target_os = "linux")]
    pub(super) fn watch(&self, rank: u32, process: Pid) -> Option<OwnedFd> {
        use rustix::event::epoll;
        let handle = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty()).ok()?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        epoll::add(&self.epoll, &handle, epoll::EventData::new_u64(rank.into()), flags).ok()?;
        Some(handle)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn watch(&self, _: u32, _: Pid) -> Option<OwnedFd> {
        None
    }

    /// Waits for the end of a process, or for a signal, or until the time is over. Returns the rank.
    #[cfg(target_os = "linux")]
    pub(super) fn next(&self, timeout: Duration) -> Option<u32> {
        use rustix::event::epoll;
        // A buffer for one event: the list keeps its order.
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 1];
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.subsec_nanos()) };
        match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok((ready, _)) => ready.first().and_then(|event| u32::try_from(event.data.u64()).ok()),
            Err(rustix::io::Errno::INTR) => None,
            Err(_) => {
                thread::sleep(Duration::from_millis(20));
                None
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn next(&self, timeout: Duration) -> Option<u32> {
        thread::sleep(timeout);
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::process::{Child, Command};

    use super::*;

    /// Processes that have ended before anything was asked come in the order in which they have ended.
    #[test]
    fn ends_come_in_order_of_time() {
        let deaths = Deaths::new().unwrap();
        let mut children: Vec<Child> = (0..4).map(|_| Command::new("sleep").arg("600").spawn().unwrap()).collect();
        let handles: Vec<_> =
            children.iter().zip(0..).map(|(child, rank)| deaths.watch(rank, Pid::from_child(child)).unwrap()).collect();
        assert_eq!(deaths.next(Duration::from_millis(1)), None);
        let order = [2, 0, 3, 1];
        for rank in order {
            let process = Pid::from_child(&children[rank]);
            assert_eq!(Exit::of(process), None);
            children[rank].kill().unwrap();
            while Exit::of(process).is_none() {
                thread::yield_now();
            }
            assert_eq!(Exit::of(process), Some(Exit::Signal(9)));
        }
        let ended: Vec<_> = std::iter::from_fn(|| deaths.next(Duration::from_millis(1))).collect();
        assert_eq!(ended, order.map(|rank| rank as u32));
        for child in &mut children {
            child.wait().unwrap();
        }
        drop(handles);
    }
}
