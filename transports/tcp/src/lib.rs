//! TCP transport between machines: built on mio, without an async runtime, encrypted with a pre-shared key.
//!
//! ```
//! use gradwire_core::{PeerId, Transport};
//! use gradwire_tcp::{Builder, Key};
//!
//! let node = Builder::new(0, 2, "127.0.0.1:0").key(Key::generate()?).open()?;
//! assert_eq!(node.place(), (PeerId(0), 2));
//! println!("rank 1 dials {}", node.carrier().listens_at());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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

mod address;
mod error;
mod key;
mod listen;
mod name;
mod noise;
mod probe;
mod socket;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use address::{Address, AddressError};
pub use error::TcpError;
use gradwire_core::PeerId;
use gradwire_stream::parts::Preamble;
pub use gradwire_stream::{Config, Notice, Refusal, Runs, StreamError, Streams};
use gradwire_stream::{DEAD_AFTER_MAX, DEAD_AFTER_MIN};
pub use key::{Key, KeyError};
pub use listen::Listeners;
use name::{Name, Resolver};
pub use probe::Listening;
use socket::Setup;
pub use socket::{Socket, Sockets};

/// How long [`Builder::open`] waits for the addresses of the meeting point.
const LOOKUP_MAX: Duration = Duration::from_secs(1);
/// How long [`Builder::open`] waits for a port that is in use, and the pause between two attempts.
const IN_USE_MAX: Duration = Duration::from_secs(1);
const IN_USE_PAUSE: Duration = Duration::from_millis(50);

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
    resolver: Arc<Resolver>,
    config: Config,
}

impl Builder {
    /// The node of this rank among `nodes` nodes, workers and servers together. `meet` is the meeting point, where the
    /// other ranks reach rank 0: `HOST:PORT`, with a name, an IPv4 address or an IPv6 address in brackets. All addresses
    /// of a name are tried, and an unknown name is looked up until it is known.
    pub fn new(rank: u32, nodes: u32, meet: &str) -> Self {
        let (meet, config) = (meet.to_string(), Config::new(rank, nodes));
        let resolver = Arc::new(name::system);
        Self { meet, listen: None, advertise: None, key: None, insecure_open: false, resolver, config }
    }

    /// Where to listen: `HOST:PORT`, with port 0 for any free port. Default: rank 0 listens at the port of the meeting
    /// point, and the other ranks at any free port; on loopback only if the meeting point has no other addresses, else at
    /// all addresses of the host.
    #[must_use]
    pub fn listen(self, address: &str) -> Self {
        Self { listen: Some(address.to_string()), ..self }
    }

    /// Where other nodes reach this node (`HOST:PORT`), if that differs from where it listens, for example behind NAT.
    /// Port 0 stands for the port where it listens. A host name is resolved on this node. Default: the address that its
    /// connection to rank 0 comes from.
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

    /// The number of servers: the nodes of the last ranks. Workers dial servers; of two workers, or of two servers, the
    /// higher rank dials the lower one, which dials as well if that takes long; and all dial rank 0. So of two nodes, one
    /// can be behind a NAT, unless it is rank 0. All nodes need the same number. Default: 0.
    #[must_use]
    pub fn servers(mut self, servers: u32) -> Self {
        self.config.servers = servers;
        self
    }

    /// Looks addresses of host names up. It runs on a thread of its own, and may block. Default: the resolver of the
    /// system.
    #[must_use]
    pub fn resolver(self, resolver: impl Fn(&Address) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self { resolver: Arc::new(resolver), ..self }
    }

    /// Starts to listen, and returns the transport. Does not wait for other nodes: they are dialled and accepted while
    /// the transport is polled. It waits up to a second for the address of a host name, and up to ten for the addresses
    /// of [`listen`](Self::listen) and [`advertise`](Self::advertise). The name of the meeting point may be unknown at
    /// this time: it is looked up again and again. A port that is in use is tried again for a second, since a process that
    /// was killed may not have ended yet.
    ///
    /// # Errors
    /// When the rank or an address is invalid, the system refuses to listen there, or listening there without a key is
    /// not allowed.
    pub fn open(mut self) -> Result<Tcp, TcpError> {
        let (rank, nodes) = (self.config.rank.0, self.config.nodes);
        if rank >= nodes {
            return Err(TcpError::Rank { nodes, got: rank });
        }
        let meet = parse("meet", &self.meet)?;
        let [listen, advertise] = [("listen", &self.listen), ("advertise", &self.advertise)]
            .map(|(what, text)| text.as_ref().map(|text| parse(what, text)).transpose());
        let (listen, advertise) = (listen?, advertise?);
        let name = Name::new(meet.clone(), Arc::clone(&self.resolver));
        let listeners = match &listen {
            Some(listen) => self.listen_at(listen)?,
            None => self.listen_for(&meet, &name)?,
        };
        let failed = |address, error| TcpError::Listen { address, error, found: None };
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let bound = listeners.address().map_err(|error| failed(unknown, error))?;
        let reached = match meet.literal().filter(|_| bound.ip().is_unspecified() && rank == 0 && listen.is_none()) {
            Some(literal) => SocketAddr::new(literal.ip(), bound.port()),
            None => bound,
        };
        let own = match advertise {
            Some(advertise) => {
                let mut own = self.look_up("advertise", &advertise)?[0];
                if own.port() == 0 {
                    own.set_port(bound.port());
                }
                own.to_string()
            }
            None => bound.to_string(),
        };
        let open = self.may_open() || listen.is_some();
        let (meet, key, dead_after) = (self.meet, self.key, self.config.dead_after);
        let sockets = Sockets::new(Setup { meet, name, own, reached, bound, key, open, dead_after });
        Streams::new(sockets, listeners, self.config).map_err(|error| failed(bound, error))
    }

    /// Whether this node may listen beyond loopback.
    fn may_open(&self) -> bool {
        self.key.is_some() || self.insecure_open
    }

    /// Listens at the addresses of [`listen`](Self::listen).
    fn listen_at(&self, listen: &Address) -> Result<Listeners, TcpError> {
        let addresses = self.look_up("listen", listen)?;
        if let Some(address) = addresses.iter().find(|address| !address.ip().is_loopback() && !self.may_open()) {
            let name = (!listen.is_literal()).then(|| listen.to_string());
            return Err(TcpError::Open { address: *address, name });
        }
        let taken = parse("meet", &self.meet)?.taken();
        self.listened(|| Listeners::bind(&addresses, taken))
    }

    /// Listens where the other nodes look for this one, as the meeting point says: on loopback, if that is where the
    /// meeting point is, else at all addresses. The address at which other nodes meet rank 0 need not belong to its
    /// host: it can be the address of a service or of a router, and the host may know itself by another address than
    /// the other nodes do.
    fn listen_for(&mut self, meet: &Address, name: &Name) -> Result<Listeners, TcpError> {
        let is_zero = self.config.rank == PeerId(0);
        let port = if is_zero { meet.port() } else { 0 };
        let found = name.wait(LOOKUP_MAX);
        let beyond = found.as_ref().ok().and_then(|all| all.iter().find(|address| !address.ip().is_loopback()));
        match (&found, beyond) {
            (Ok(all), None) => {
                let mut all = all.clone();
                all.iter_mut().for_each(|address| address.set_port(port));
                if !meet.is_literal() {
                    let reason = format!(
                        "here, all addresses of {} are of this machine only, so other machines cannot connect; if they \
                         should, give the name its address in /etc/hosts, or set listen (--listen 0.0.0.0:PORT)",
                        meet.host()
                    );
                    self.tell(&all, reason);
                }
                // Peers of this host reach one address as well as another.
                let bind = if is_zero { Listeners::bind } else { Listeners::bind_first };
                self.listened(|| bind(&all, meet.taken()))
            }
            (Ok(_), Some(beyond)) if !self.may_open() => {
                let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
                let name = (!meet.is_literal()).then(|| meet.to_string());
                Err(TcpError::Open { address: if is_zero { *beyond } else { all }, name: name.filter(|_| is_zero) })
            }
            (Err(error), _) if !self.may_open() => {
                let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                let all = loopback.map(|ip: IpAddr| SocketAddr::new(ip, port));
                let reason = format!("{} has no address yet ({error}), and there is no key for more", meet.host());
                self.tell(&all, reason);
                self.listened(|| {
                    if is_zero { Listeners::bind(&all, meet.taken()) } else { Listeners::bind_first(&all, None) }
                })
            }
            _ => self.listened(|| match meet.literal() {
                Some(SocketAddr::V4(_)) if is_zero => {
                    Listeners::bind(&[SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))], None)
                }
                _ => Listeners::bind_all(port, meet.taken()),
            }),
        }
    }

    /// Listens. Where the port is in use, tries again for [`IN_USE_MAX`], unless a gradwire node answers there.
    fn listened(&self, bind: impl Fn() -> Result<Listeners, (SocketAddr, io::Error)>) -> Result<Listeners, TcpError> {
        let Config { cluster, nodes, rank, .. } = &self.config;
        let until = Instant::now() + IN_USE_MAX;
        loop {
            let (address, error) = match bind() {
                Ok(listeners) => return Ok(listeners),
                Err(failed) => failed,
            };
            let is_in_use = error.kind() == io::ErrorKind::AddrInUse;
            let ask = || probe::node_at(address, &Preamble::question(cluster, *nodes, rank.0));
            let found = if is_in_use { ask() } else { None };
            if !is_in_use || found.is_some() || Instant::now() >= until {
                return Err(TcpError::Listen { address, error, found });
            }
            std::thread::sleep(IN_USE_PAUSE);
        }
    }

    /// Tells where this node listens, and why.
    fn tell(&mut self, addresses: &[SocketAddr], reason: String) {
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        (self.config.notices)(Notice::Listens { address: addresses.join(" and "), reason });
    }

    /// The addresses of a host of this node's own configuration, at least one.
    fn look_up(&self, what: &'static str, address: &Address) -> Result<Vec<SocketAddr>, TcpError> {
        let name = Name::new(address.clone(), Arc::clone(&self.resolver));
        name.wait(LOOKUP_MAX * 10).map_err(|error| TcpError::Name { what, got: address.to_string(), error })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("meet", &self.meet).field("keyed", &self.key.is_some()).finish_non_exhaustive()
    }
}

/// Parses `HOST:PORT`. `what` names the setting in errors.
fn parse(what: &'static str, text: &str) -> Result<Address, TcpError> {
    text.parse().map_err(|error| TcpError::Address { what, got: text.to_string(), error })
}

#[cfg(test)]
mod tests;
