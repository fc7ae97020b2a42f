//! Processes of one host: a ring of shared memory each way between two of them.
//!
//! Each node listens at a Unix socket in a directory that only its user can enter. Whoever dials makes a sealed piece
//! of anonymous memory for the pair and passes it over; from then on bytes travel through that, and the socket serves
//! as doorbell (a byte wakes a sleeper) and as sign of life (it ends with its process). So one `epoll` waits for rings,
//! newcomers and deaths alike, where a futex would need a thread or a timeout for the others. Before sleeping, a node
//! looks for work for a while: waking up costs a hundred times more than being awake.
//!
//! What is common to stream transports is told in [`gradwire_stream`].
//!
//! ```no_run
//! let transport = gradwire_shm::Builder::new(0, 4).cluster("digits").open()?;
//! # Ok::<(), gradwire_shm::ShmError>(())
//! ```
//!
//! Contents of shared memory are not trusted: a segment must be sealed against shrinking and growing and have the
//! right size, positions are read once and checked, and what they point to is copied out before it is looked at.
//! Processes of the same user can spoil each other's messages; they cannot make this one read or write elsewhere.
//!
//! Copies of a body on its way: into the ring, and out of it.

mod ring;
mod socket;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use gradwire_stream::{Config, Notice, Refusal, StreamError, Streams};
pub use socket::{Pair, Sockets};

/// What tests and fuzzing look at.
pub mod parts {
    pub use crate::ring::{End, Segment};
}

/// One node's end of a host's memory.
pub type Shm = Streams<Sockets>;

/// Bytes of each ring unless set: two for each pair of nodes. They fit the second-level cache of a core.
pub const RING_LEN: usize = 1 << 20;
const SPIN: Duration = Duration::from_micros(50);

/// Sets a node up.
pub struct Builder {
    directory: Option<PathBuf>,
    ring_len: usize,
    config: Config,
}

/// What keeps a node from being set up.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum ShmError {
    /// A rank that the cluster does not have.
    Rank { nodes: u32, got: u32 },
    /// The length of a ring.
    Ring { got: usize },
    /// The directory cannot be made or used.
    Directory { path: PathBuf, error: io::Error },
    /// Others can enter the directory, or it is somebody else's.
    Shared { path: PathBuf, owner: u32, mode: u32 },
    /// Too long for the address of a socket.
    Path { path: PathBuf, limit: usize, got: usize },
    /// A live process listens there.
    Taken { path: PathBuf },
    /// The system does not let this node listen there.
    Listen { path: PathBuf, error: io::Error },
    /// The system gives no memory that can be shared, or not enough, or does not seal it.
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
                "directory {}: expected one that only this user can enter (mode 0700), got mode {mode:04o} of user \
                 {owner}",
                path.display()
            ),
            Self::Path { path, limit, got } => {
                write!(f, "socket {}: expected at most {limit} bytes of path, got {got}", path.display())
            }
            Self::Taken { path } => write!(f, "socket {}: a process with this rank takes part already", path.display()),
            Self::Listen { path, error } => write!(f, "socket {}: {error}", path.display()),
            Self::Memory { wanted, error } => write!(
                f,
                "shared memory: the system gives no {wanted} bytes that can be sealed and shared ({error}); the tcp \
                 transport needs none"
            ),
        }
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
    /// A node of `nodes`, workers and servers together.
    pub fn new(rank: u32, nodes: u32) -> Self {
        let config = Config {
            rank: gradwire_core::PeerId(rank),
            nodes,
            cluster: "gradwire".to_string(),
            dead_after: Duration::from_secs(5),
            spin: SPIN,
            notices: Box::new(|_| {}),
        };
        Self { directory: None, ring_len: RING_LEN, config }
    }

    /// The cluster's name: it names the directory, and nodes of another one are turned away.
    #[must_use]
    pub fn cluster(mut self, name: &str) -> Self {
        self.config.cluster = name.to_string();
        self
    }

    /// Where the sockets are. Unless set: `gradwire-NAME` in `$XDG_RUNTIME_DIR`, or `gradwire-UID-NAME` in the
    /// directory for temporary files.
    #[must_use]
    pub fn directory(self, path: &Path) -> Self {
        Self { directory: Some(path.to_path_buf()), ..self }
    }

    /// Bytes of each ring, a power of two. [`RING_LEN`] unless set.
    #[must_use]
    pub fn ring_len(self, ring_len: usize) -> Self {
        Self { ring_len, ..self }
    }

    /// The base figure of all timeouts: a peer that is silent for so long is given up. 5 s unless set.
    #[must_use]
    pub fn dead_after(mut self, dead_after: Duration) -> Self {
        self.config.dead_after = dead_after.max(Duration::from_millis(100));
        self
    }

    /// How long to look for something to do before sleeping; zero where nodes outnumber processors. 50 µs unless set.
    #[must_use]
    pub fn spin(mut self, spin: Duration) -> Self {
        self.config.spin = spin;
        self
    }

    /// Gets what people should know: who comes, goes, and is turned away.
    #[must_use]
    pub fn notices(mut self, notices: impl FnMut(Notice) + Send + 'static) -> Self {
        self.config.notices = Box::new(notices);
        self
    }

    /// Listens, and is a transport from then on. Waits for nobody.
    ///
    /// # Errors
    /// When the directory is not this user's alone, the rank is taken, or there is no memory to share.
    pub fn open(self) -> Result<Shm, ShmError> {
        let (rank, nodes) = (self.config.rank.0, self.config.nodes);
        if rank >= nodes {
            return Err(ShmError::Rank { nodes, got: rank });
        }
        if !self.ring_len.is_power_of_two() || !(4096..=1 << 30).contains(&self.ring_len) {
            return Err(ShmError::Ring { got: self.ring_len });
        }
        // Better now than when a peer comes: what the dialled side of all pairs will take is tried out.
        for wanted in [self.ring_len, self.ring_len * nodes as usize] {
            ring::Segment::create(wanted.next_power_of_two())
                .map_err(|error| ShmError::Memory { wanted: wanted * 2, error })?;
        }
        let directory = self.directory.unwrap_or_else(|| socket::default_directory(&self.config.cluster));
        let (listener, path) = socket::listen(&directory, rank)?;
        let sockets = Sockets::new(directory, rank, self.ring_len);
        Streams::new(sockets, listener, self.config).map_err(|error| ShmError::Listen { path, error })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("ring_len", &self.ring_len).finish_non_exhaustive()
    }
}
