//! Starts a child in a session of its own, which ends with its parent.

#![allow(unsafe_code, reason = "`pre_exec` is unsafe: a closure runs between `fork` and `exec`")]

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::process::{getpid, setsid};

use super::guardian::Link;

/// Starts a process. On Linux it is killed when the calling thread ends, so this has to be the main thread.
pub(super) fn spawn(mut command: Command, guardian: Link) -> std::io::Result<Child> {
    #[cfg(target_os = "linux")]
    let parent = getpid();
    let before_exec = move || {
        // The session separates the processes of this child from all other processes. It also keeps signals of the
        // terminal away, which the supervisor passes on.
        setsid()?;
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{Signal, getppid, set_parent_process_death_signal};
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have ended before this process has asked for the signal.
            if getppid() != Some(parent) {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
        }
        guardian.announce(getpid());
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it takes no lock and allocates nothing, also in its error paths.
    unsafe { command.pre_exec(before_exec) };
    command.spawn()
}
