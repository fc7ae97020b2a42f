//! Shared-memory transport between processes of one host: two ring buffers, one per direction, between each two nodes.
//!
//! ```
//! use gradwire_core::{PeerId, Transport};
//! use gradwire_shm::Builder;
//!
//! let directory = std::env::temp_dir().join(format!("gradwire-front-{}", std::process::id()));
//! let node = Builder::new(0, 2).directory(&directory).open()?;
//! assert_eq!(node.place(), (PeerId(0), 2));
//! # drop(node);
//! # std::fs::remove_dir(&directory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Builder`] sets a node up and returns [`Shm`], its transport. Framing, reconnecting, keep-alive and limits are
//! common to stream transports and described in [`gradwire_stream`].
//!
//! Each node listens at a Unix socket, in a directory that only its user can enter. The dialling node creates a
//! *segment*, a sealed piece of anonymous memory that holds both rings, and passes it over the socket. From then on,
//! bytes travel through the rings. The socket remains as *doorbell* (a byte sent over it wakes a sleeping peer), and
//! tells when the other process has ended. So one `epoll` waits for bytes, new connections and the death of peers;
//! a futex would need a thread or a timeout for the latter two. A node polls for a while before it sleeps, because
//! waking up costs about a hundred times more than finding work while awake.
//!
//! The content of shared memory is not trusted. A segment must be sealed against shrinking and growing, and have a
//! valid size. Positions are read once and checked. Bytes are copied out of the ring before they are parsed. So a
//! process of the same user can spoil messages, but cannot make this process read or write outside of the ring.
//!
//! A short body is copied twice: into the ring, and out of it. A long one stays with its sender, and the receiver copies
//! it from there, with the system call `process_vm_readv` (cross-memory attach). The system can forbid that: Yama
//! (`kernel.yama.ptrace_scope` above 0), process namespaces, filters of system calls. So both sides try it when they
//! connect. Where it fails, long bodies pass through the ring too, and a [`Notice`] says so.

mod attach;
mod offers;
mod ring;
mod socket;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use gradwire_stream::{Config, Notice, Refusal, Runs, StreamError, Streams};
use gradwire_stream::{DEAD_AFTER_MAX, DEAD_AFTER_MIN};
pub use socket::{Pair, Sockets};

/// The ring buffers, which fuzzing uses directly. Not a stable API: this module can change in any release.
#[doc(hidden)]
pub mod parts {
    pub use crate::ring::{End, Segment};
}

/// One node's end of a shared-memory network.
pub type Shm = Streams<Sockets>;

/// Default length of a ring in bytes. Each two nodes have two rings, which together fit the second-level cache of a
/// core.
pub const RING_LEN: usize = 1 << 20;

/// Settings of one node. [`open`](Self::open) makes the transport.
///
/// ```
/// use std::time::Duration;
///
/// use gradwire_core::{Input, PeerId, Pool, Transport};
/// use gradwire_shm::Builder;
///
/// // In practice each node is a process. All use the same cluster name, or the same directory.
/// let directory = std::env::temp_dir().join(format!("gradwire-example-{}", std::process::id()));
/// let mut first = Builder::new(0, 2).directory(&directory).open()?;
/// let mut second = Builder::new(1, 2).directory(&directory).open()?;
///
/// // Nodes connect while they poll.
/// let mut pool = Pool::new([0]);
/// let poll = Some(Duration::from_millis(10));
/// let connected = Some(Input::Connected { peer: PeerId(1) });
/// while first.poll(&mut pool, poll)? != connected {
///     second.poll(&mut pool, poll)?;
/// }
/// # drop((first, second));
/// # std::fs::remove_dir(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Builder {
    directory: Option<PathBuf>,
    ring_len: usize,
    attach: bool,
    config: Config,
}

/// Why [`Builder::open`] failed.
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the value that was expected, the value that came, and the cause")]
pub enum ShmError {
    /// The rank is not below the number of nodes.
    Rank { nodes: u32, got: u32 },
    /// The length of a ring is not a power of two from 4 KiB to 1 GiB.
    Ring { got: usize },
    /// The directory cannot be created or read.
    Directory { path: PathBuf, error: io::Error },
    /// The directory belongs to another user, lets other users in, or is a link.
    Shared { path: PathBuf, owner: u32, mode: u32 },
    /// The path of the socket is longer than the system allows.
    Path { path: PathBuf, limit: usize, got: usize },
    /// A running process listens at this node's socket.
    Taken { path: PathBuf },
    /// The system refused to listen at the socket.
    Listen { path: PathBuf, error: io::Error },
    /// The system does not provide `wanted` bytes of memory that can be shared and sealed.
    Memory { wanted: usize, error: io::Error },
}

impl fmt::Display for ShmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rank { nodes, got } => write!(f, "rank: expected less than {nodes} (workers and servers), got {got}"),
            Self::Ring { got } => write!(f, "ring: expected a power of two from 4 KiB to 1 GiB, got {got} bytes"),
            Self::Directory { path, error } => write!(f, "directory {}: {error}", path.display()),
            Self::Shared { path, owner, mode } => write!(
                f,
                "directory {}: expected a directory of this user that only it can enter (mode 0700), got mode \
                 {mode:04o} of user {owner}; choose another directory",
                path.display()
            ),
            Self::Path { path, limit, got } => {
                write!(
                    f,
                    "socket {}: expected a path of at most {limit} bytes, got {got}; choose a shorter directory",
                    path.display()
                )
            }
            Self::Taken { path } => write!(
                f,
                "socket {}: a running process already has this rank; stop it, or use another cluster name or directory",
                path.display()
            ),
            Self::Listen { path, error } => write!(f, "socket {}: {error}", path.display()),
            Self::Memory { wanted, error } => write!(
                f,
                "shared memory: expected {wanted} bytes that can be shared and sealed, got an error ({error}); use \
                 shorter rings, or the tcp transport"
            ),
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for ShmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ShmError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory { error, .. } | Self::Listen { error, .. } | Self::Memory { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl Builder {
    /// The node of this rank among `nodes` nodes, workers and servers together.
    pub fn new(rank: u32, nodes: u32) -> Self {
        Self { directory: None, ring_len: RING_LEN, attach: true, config: Config::new(rank, nodes) }
    }

    /// The cluster's name. Nodes of another cluster are refused, and the default directory depends on the name.
    /// Default: `gradwire`.
    #[must_use]
    pub fn cluster(mut self, name: &str) -> Self {
        self.config.cluster = name.to_string();
        self
    }

    /// The directory of the sockets, the same for all nodes. It is created if necessary. Default: `gradwire-NAME` in
    /// `$XDG_RUNTIME_DIR` if that is set, else `gradwire-UID-NAME` in the directory for temporary files, else in `/tmp`;
    /// `NAME` is the cluster's name. One that cannot be used is left out, with a [`Notice`]: after `su`, the environment
    /// may name a directory of another user.
    #[must_use]
    pub fn directory(self, path: &Path) -> Self {
        Self { directory: Some(path.to_path_buf()), ..self }
    }

    /// Length of each ring in bytes: a power of two from 4 KiB to 1 GiB. It counts for the connections that this node
    /// dials. Default: [`RING_LEN`].
    #[must_use]
    pub fn ring_len(self, ring_len: usize) -> Self {
        Self { ring_len, ..self }
    }

    /// Whether long bodies are read from the memory of their sender (cross-memory attach), where the system permits it.
    /// Both nodes of a connection must have it on. Default: true. A [`Notice`] tells of connections where the system
    /// forbids it. Turn it off where a filter ends processes that make the system call `process_vm_readv`.
    #[must_use]
    pub fn attach(self, attach: bool) -> Self {
        Self { attach, ..self }
    }

    /// All timeouts are fractions of this: a peer that is silent for so long is given up. At least 100 ms; shorter
    /// times are raised to that. Default: 5 s.
    #[must_use]
    pub fn dead_after(mut self, dead_after: Duration) -> Self {
        self.config.dead_after = dead_after.clamp(DEAD_AFTER_MIN, DEAD_AFTER_MAX);
        self
    }

    /// How long to poll for work before sleeping. Polling answers small messages faster, and occupies a processor:
    /// zero where nodes outnumber processors. Default: 50 µs.
    #[must_use]
    pub fn spin(mut self, spin: Duration) -> Self {
        self.config.spin = spin;
        self
    }

    /// Called with each [`Notice`]: connections that open, break or are refused. It runs on the thread that polls the
    /// transport, and should not block. Default: notices are dropped.
    #[must_use]
    pub fn notices(mut self, notices: impl FnMut(Notice) + Send + 'static) -> Self {
        self.config.notices = Box::new(notices);
        self
    }

    /// Starts to listen, and returns the transport. Does not wait for other nodes: they are dialled and accepted while
    /// the transport is polled.
    ///
    /// # Errors
    /// When the rank or the length of rings is invalid, the directory or socket cannot be used, a running process has
    /// this rank, or the system does not provide enough shared memory.
    pub fn open(mut self) -> Result<Shm, ShmError> {
        let (rank, nodes) = (self.config.rank.0, self.config.nodes);
        if rank >= nodes {
            return Err(ShmError::Rank { nodes, got: rank });
        }
        if !self.ring_len.is_power_of_two() || !(4096..=1 << 30).contains(&self.ring_len) {
            return Err(ShmError::Ring { got: self.ring_len });
        }
        // Segments are created only when nodes connect. Reserving (and releasing) the memory for all rings now makes a
        // lack of it an error of this call rather than a failure during the run.
        for wanted in [self.ring_len, self.ring_len * nodes as usize] {
            ring::Segment::create(wanted.next_power_of_two())
                .map_err(|error| ShmError::Memory { wanted: wanted * 2, error })?;
        }
        let given = self.directory.map(|directory| vec![directory]);
        let directories = given.unwrap_or_else(|| socket::default_directories(&self.config.cluster));
        let (listener, directory, path, skipped) = socket::listen_in(directories, rank)?;
        if !skipped.is_empty() {
            let reasons: Vec<_> = skipped.iter().map(ToString::to_string).collect();
            let reason = format!("{}; all processes need the same directory", reasons.join("; "));
            (self.config.notices)(Notice::Listens { address: path.display().to_string(), reason });
        }
        let sockets = Sockets::new(directory, rank, self.ring_len, self.attach);
        Streams::new(sockets, listener, self.config).map_err(|error| ShmError::Listen { path, error })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("ring_len", &self.ring_len).finish_non_exhaustive()
    }
}
