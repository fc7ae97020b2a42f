//! Machines of a network: TCP on mio, without an async runtime, encrypted by a pre-shared key.
//!
//! Rank 0 is the meeting point. All others dial it, and are told by it where the rest is to be found, also when
//! someone comes back at another address. What is common to stream transports (framing, reconnecting, keeping alive,
//! limits) is told in [`gradwire_stream`].
//!
//! ```no_run
//! use gradwire_tcp::{Builder, Key};
//!
//! let key = Key::from_file("cluster.key".as_ref())?;
//! let transport = Builder::new(2, 4, "10.0.0.1:29510").key(key).open()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With a key, every connection begins with a Noise handshake (`NNpsk0`, X25519, AES-256-GCM, SHA-256) whose prologue
//! is the version of this protocol; whoever does not have the key learns nothing and is not heard. Without one, a node
//! listens on loopback only, unless it is told otherwise in so many words ([`Builder::insecure_open`]).
//!
//! Copies of a body on its way: the kernel's two. With a key, two more (sealed into records of 64 KiB, opened from
//! them).

#![forbid(unsafe_code)]

mod key;
mod noise;
mod socket;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

pub use gradwire_stream::{Config, Notice, Refusal, StreamError, Streams};
pub use key::{Key, KeyError};
use mio::net::TcpListener;
pub use socket::{Socket, Sockets};

/// What fuzzing feeds bytes to.
pub mod parts {
    pub use crate::noise::Sealed;
}

/// One node's end of a network.
pub type Tcp = Streams<Sockets>;

/// How long a node looks for something to do before it sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// Sets a node up.
pub struct Builder {
    meet: String,
    listen: Option<String>,
    advertise: Option<String>,
    key: Option<Key>,
    insecure_open: bool,
    config: Config,
}

/// What keeps a node from being set up.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum TcpError {
    /// A rank that the cluster does not have.
    Rank { nodes: u32, got: u32 },
    /// No address of ours.
    Address { what: &'static str, got: String, error: io::Error },
    /// Anyone who can reach this address could take part.
    Open { address: SocketAddr },
    /// The system does not let this node listen there.
    Listen { address: SocketAddr, error: io::Error },
}

impl fmt::Display for TcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rank { nodes, got } => write!(f, "rank: expected less than {nodes} (workers and servers), got {got}"),
            Self::Address { what, got, error } => write!(f, "{what}: expected HOST:PORT, got \"{got}\" ({error})"),
            Self::Open { address } => write!(
                f,
                "listening on {address} without a key lets anyone who can reach it take part: expected a key, a \
                 loopback address, or the explicit word that this is wanted"
            ),
            Self::Listen { address, error } => write!(f, "listening on {address}: {error}"),
        }
    }
}

impl std::error::Error for TcpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address { error, .. } | Self::Listen { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl Builder {
    /// A node of `nodes`, workers and servers together. Rank 0 listens at `meet`, the others dial it.
    pub fn new(rank: u32, nodes: u32, meet: &str) -> Self {
        let config = Config {
            rank: gradwire_core::PeerId(rank),
            nodes,
            cluster: "gradwire".to_string(),
            dead_after: Duration::from_secs(5),
            spin: SPIN,
            notices: Box::new(|_| {}),
        };
        let meet = meet.to_string();
        Self { meet, listen: None, advertise: None, key: None, insecure_open: false, config }
    }

    /// Where to listen: `HOST:PORT`, port 0 for any. Unless set: rank 0 at the meeting point; others at any port, of
    /// loopback if the meeting point is there, else of all interfaces.
    #[must_use]
    pub fn listen(self, address: &str) -> Self {
        Self { listen: Some(address.to_string()), ..self }
    }

    /// Where others reach this node, if it is not where it listens. A name is looked up here, not by the others.
    #[must_use]
    pub fn advertise(self, address: &str) -> Self {
        Self { advertise: Some(address.to_string()), ..self }
    }

    /// The key that all nodes share.
    #[must_use]
    pub fn key(self, key: Key) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Listens beyond loopback without a key: anyone who can connect can take part, read and change everything.
    #[must_use]
    pub fn insecure_open(self, yes: bool) -> Self {
        Self { insecure_open: yes, ..self }
    }

    /// The cluster's name: nodes of another one are turned away.
    #[must_use]
    pub fn cluster(mut self, name: &str) -> Self {
        self.config.cluster = name.to_string();
        self
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
    /// When an address is none, or must not be listened at.
    pub fn open(self) -> Result<Tcp, TcpError> {
        let (rank, nodes) = (self.config.rank.0, self.config.nodes);
        if rank >= nodes {
            return Err(TcpError::Rank { nodes, got: rank });
        }
        let address = match (&self.listen, rank) {
            (Some(listen), _) => resolve("listen", listen)?,
            (None, 0) => resolve("meet", &self.meet)?,
            // A name that is not known yet will be by the first attempt; it is not this host's.
            (None, _) => match resolve("meet", &self.meet) {
                Ok(meet) if meet.ip().is_loopback() => SocketAddr::new(meet.ip(), 0),
                Err(error) if !has_port(&self.meet) => return Err(error),
                Ok(_) | Err(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            },
        };
        if self.key.is_none() && !self.insecure_open && !address.ip().is_loopback() {
            return Err(TcpError::Open { address });
        }
        let listen = |error| TcpError::Listen { address, error };
        let listener = TcpListener::bind(address).map_err(listen)?;
        let bound = listener.local_addr().map_err(listen)?;
        let own = match self.advertise {
            Some(advertise) => resolve("advertise", &advertise)?.to_string(),
            None => bound.to_string(),
        };
        let sockets = Sockets::new(self.meet, own, bound, self.key, self.config.dead_after);
        Streams::new(sockets, listener, self.config).map_err(listen)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("meet", &self.meet).field("keyed", &self.key.is_some()).finish_non_exhaustive()
    }
}

fn resolve(what: &'static str, text: &str) -> Result<SocketAddr, TcpError> {
    let failed = |error| TcpError::Address { what, got: text.to_string(), error };
    let mut found = text.to_socket_addrs().map_err(failed)?;
    found.next().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

fn has_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests;
