//! TCP transport between machines: built on mio, without an async runtime, encrypted with a pre-shared key.
//!
//! [`Builder`] sets a node up and returns [`Tcp`], its transport. Rank 0 is the meeting point: the other nodes dial it,
//! and it tells each where the rest listen, again when a node comes back at another address. Framing, reconnecting,
//! keep-alive and limits are common to stream transports and described in [`gradwire_stream`].
//!
//! With a [`Key`], each connection begins with a Noise handshake (`NNpsk0`, X25519, AES-256-GCM, SHA-256). A program
//! without the key learns nothing, and its bytes do not reach the machines. Without a key, a node listens on loopback
//! only, unless [`Builder::insecure_open`] allows more.
//!
//! The kernel copies a body twice, once on each side. A key adds two copies: into encrypted records of 64 KiB, and out
//! of them.

#![forbid(unsafe_code)]

mod key;
mod noise;
mod socket;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use gradwire_stream::DEAD_AFTER_MIN;
pub use gradwire_stream::{Config, Notice, Refusal, Runs, StreamError, Streams};
pub use key::{Key, KeyError};
use mio::net::TcpListener;
pub use socket::{Socket, Sockets};

/// The cipher, which fuzzing feeds directly. Not a stable API: this module can change in any release.
#[doc(hidden)]
pub mod parts {
    pub use crate::noise::Sealed;
}

/// One node's end of a TCP network.
pub type Tcp = Streams<Sockets>;

/// Settings of one node. [`open`](Self::open) makes the transport.
///
/// ```
/// use std::time::Duration;
///
/// use gradwire_core::{Input, PeerId, Pool, Transport};
/// use gradwire_tcp::{Builder, Key};
///
/// // In practice each node is a process, and reads the key from a file: see `Key::from_file`.
/// let key = Key::generate()?;
/// let mut first = Builder::new(0, 2, "127.0.0.1:0").key(key.clone()).open()?;
/// let meet = first.carrier().listens_at().to_string();
/// let mut second = Builder::new(1, 2, &meet).key(key).open()?;
///
/// // Nodes connect while they poll.
/// let mut pool = Pool::new([0]);
/// let poll = Some(Duration::from_millis(10));
/// let connected = Some(Input::Connected { peer: PeerId(1) });
/// while first.poll(&mut pool, poll)? != connected {
///     second.poll(&mut pool, poll)?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Builder {
    meet: String,
    listen: Option<String>,
    advertise: Option<String>,
    key: Option<Key>,
    insecure_open: bool,
    config: Config,
}

/// Why [`Builder::open`] failed.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the value that was expected, the value that came, and the cause")]
pub enum TcpError {
    /// The rank is not below the number of nodes.
    Rank { nodes: u32, got: u32 },
    /// The setting `what` is not `HOST:PORT`, or the host name was not found.
    Address { what: &'static str, got: String, error: io::Error },
    /// The address can be reached from other hosts, and there is no key.
    Open { address: SocketAddr },
    /// The system refused to listen at the address.
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
                 loopback address, or insecure_open (--insecure-open)"
            ),
            Self::Listen { address, error } => write!(f, "cannot listen on {address}: {error}"),
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
    /// The node of this rank among `nodes` nodes, workers and servers together. `meet` is the meeting point
    /// (`HOST:PORT`): rank 0 listens there, and the other ranks dial it.
    pub fn new(rank: u32, nodes: u32, meet: &str) -> Self {
        let (meet, config) = (meet.to_string(), Config::new(rank, nodes));
        Self { meet, listen: None, advertise: None, key: None, insecure_open: false, config }
    }

    /// Where to listen: `HOST:PORT`, with port 0 for any free port. Default: the meeting point for rank 0. The other
    /// ranks take any free port, on loopback if the meeting point is on loopback, else on all interfaces.
    #[must_use]
    pub fn listen(self, address: &str) -> Self {
        Self { listen: Some(address.to_string()), ..self }
    }

    /// Where other nodes reach this node (`HOST:PORT`), if that differs from where it listens, for example behind NAT.
    /// A host name is resolved on this node.
    #[must_use]
    pub fn advertise(self, address: &str) -> Self {
        Self { advertise: Some(address.to_string()), ..self }
    }

    /// The key that all nodes share. Default: no key, no encryption.
    #[must_use]
    pub fn key(self, key: Key) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Allows listening beyond loopback without a key. Any program that can connect can then join the run, and read and
    /// change all messages. Default: false.
    #[must_use]
    pub fn insecure_open(self, yes: bool) -> Self {
        Self { insecure_open: yes, ..self }
    }

    /// The cluster's name. Nodes of another cluster are refused. Default: `gradwire`.
    #[must_use]
    pub fn cluster(mut self, name: &str) -> Self {
        self.config.cluster = name.to_string();
        self
    }

    /// All timeouts are fractions of this: a peer that is silent for so long is given up. At least 100 ms; shorter
    /// times are raised to that. Default: 5 s.
    #[must_use]
    pub fn dead_after(mut self, dead_after: Duration) -> Self {
        self.config.dead_after = dead_after.max(DEAD_AFTER_MIN);
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
    /// When the rank or an address is invalid, the system refuses to listen there, or listening there without a key is
    /// not allowed.
    pub fn open(self) -> Result<Tcp, TcpError> {
        let (rank, nodes) = (self.config.rank.0, self.config.nodes);
        if rank >= nodes {
            return Err(TcpError::Rank { nodes, got: rank });
        }
        let address = match (&self.listen, rank) {
            (Some(listen), _) => resolve("listen", listen)?,
            (None, 0) => resolve("meet", &self.meet)?,
            // The name of the meeting point may not be known yet, in a cluster that is starting. Then it is another
            // host's, so this node must listen on all interfaces. Text without a port will never be an address.
            (None, _) => match resolve("meet", &self.meet) {
                Ok(meet) if meet.ip().is_loopback() => SocketAddr::new(meet.ip(), 0),
                Err(error) if port_of(&self.meet).is_none() => return Err(error),
                Ok(_) | Err(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            },
        };
        if self.key.is_none() && !self.insecure_open && !address.ip().is_loopback() {
            return Err(TcpError::Open { address });
        }
        let listen = |error| TcpError::Listen { address, error };
        let listener = bind(address, port_of(&self.meet)).map_err(listen)?;
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

/// Listens at an address. `meet`: the port of the meeting point, which belongs to rank 0.
///
/// The system takes "any port" from those without connections, also without those that have ended in the last minute.
/// If there is none, a listener may still ask for a port by number.
fn bind(address: SocketAddr, meet: Option<u16>) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address);
    match &bound {
        Err(error) if address.port() == 0 && error.kind() == io::ErrorKind::AddrInUse => {
            let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
            let mut ends = range.split_whitespace().filter_map(|end| end.parse::<u16>().ok());
            let (Some(first), Some(last)) = (ends.next(), ends.next()) else { return bound };
            let ports = (first..=last).filter(|port| Some(*port) != meet);
            let mut listeners = ports.map(|port| TcpListener::bind(SocketAddr::new(address.ip(), port)));
            listeners.find_map(Result::ok).map_or(bound, Ok)
        }
        _ => bound,
    }
}

/// The first address of `HOST:PORT`. `what` names the setting in errors.
fn resolve(what: &'static str, text: &str) -> Result<SocketAddr, TcpError> {
    let failed = |error| TcpError::Address { what, got: text.to_string(), error };
    let mut found = text.to_socket_addrs().map_err(failed)?;
    found.next().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

/// The port of `HOST:PORT`, without resolving the host. `None` if the text has no such form.
fn port_of(text: &str) -> Option<u16> {
    let (host, port) = text.rsplit_once(':')?;
    port.parse().ok().filter(|port| !host.is_empty() && *port > 0)
}

#[cfg(test)]
mod tests;
