//! The guardian: a process that ends the children if the supervisor is killed.
//!
//! The supervisor's end of a socket closes with the supervisor, however that ends. The guardian then kills the sessions
//! of all children that are known by then. A child announces itself before it becomes its program, so that no child is
//! missed. The guardian has a session of its own: a signal to the supervisor's process group does not reach it.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use rustix::net::{SendFlags, send};
use rustix::process::{Pid, setsid};

use super::session::{self, Mark};

/// The environment variable of a guardian, with the mark of the launch.
const GUARDIAN: &str = "GRADWIRE_GUARDIAN";

/// The guardian, as the supervisor sees it: its process, and the socket to it.
pub(super) struct Guardian {
    process: Child,
    link: Link,
}

/// A way to tell the guardian about a child.
pub(super) struct Link(UnixStream);

impl Guardian {
    /// Starts this program again, as the guardian. `main` must begin with [`run_if_guardian`].
    pub(super) fn start(mark: &Mark) -> std::io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let process = Command::new(std::env::current_exe()?)
            .env(GUARDIAN, mark.text())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { process, link: Link(ours) })
    }

    pub(super) fn link(&self) -> std::io::Result<Link> {
        self.link.0.try_clone().map(Link)
    }

    /// The child has ended, with its session, and its number may be used again.
    pub(super) fn release(&self, child: Pid) {
        self.link.write(-child.as_raw_nonzero().get());
    }
}

impl Link {
    /// Announces a child. Allocates nothing, and sends no SIGPIPE, so a process may call it between `fork` and `exec`.
    pub(super) fn announce(&self, child: Pid) {
        self.write(child.as_raw_nonzero().get());
    }

    /// Without a guardian, children still have their death signal: errors are ignored.
    fn write(&self, number: i32) {
        let _ = send(self.0.as_fd(), &number.to_ne_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        let _ = self.link.0.shutdown(std::net::Shutdown::Both);
        let _ = self.process.wait();
    }
}

/// Runs the guardian to its end, if this process is one.
pub fn run_if_guardian() -> bool {
    let Ok(mark) = std::env::var(GUARDIAN) else { return false };
    let _ = setsid();
    let (mut stdin, mut number) = (std::io::stdin(), [0; 4]);
    let mut children = BTreeSet::new();
    while stdin.read_exact(&mut number).is_ok() {
        match i32::from_ne_bytes(number) {
            child @ 1.. => children.insert(child),
            ended => children.remove(&-ended),
        };
    }
    let leaders: Vec<_> = children.into_iter().filter_map(Pid::from_raw).collect();
    session::kill(&leaders, &Mark::from_text(mark));
    true
}
