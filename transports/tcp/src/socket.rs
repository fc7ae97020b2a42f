//! [`Sockets`], the carrier of the TCP transport: listens, dials, and checks addresses. [`Socket`] is one connection,
//! encrypted if there is a key.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use gradwire_core::PeerId;
use gradwire_stream::{Carrier, Host, Stream};
use mio::event::Source;
use mio::net::TcpStream;
use rustix::net::sockopt;

use crate::key::Key;
use crate::listen::Listeners;
use crate::name::Name;
use crate::noise::Sealed;

/// How long a connection attempt may take while there are other addresses to try.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// The carrier of the TCP transport.
pub struct Sockets {
    /// The meeting point, where rank 0 is reached, as text and with its addresses.
    meet: String,
    name: Name,
    /// The address that this node announces.
    own: String,
    /// An address of this node's listener.
    reached: SocketAddr,
    bound: SocketAddr,
    key: Option<Key>,
    /// Dialling beyond loopback is allowed.
    open: bool,
    dead_after: Duration,
}

/// The longest interval of TCP's keep-alive that Linux takes, in seconds.
const KEEPALIVE_MAX: u64 = 32_767;

/// A TCP connection.
pub struct Socket {
    stream: TcpStream,
    sealed: Option<Sealed>,
    /// The address of the peer, for notices.
    seen: String,
    /// Where the connection goes to, or comes from.
    peer: SocketAddr,
    /// A dialled socket: the name that the address is of.
    name: Option<Name>,
    /// The TCP connection is established, which a dialled socket has to wait for.
    connected: bool,
    /// The options of the socket are set.
    tuned: bool,
    dead_after: Duration,
}

/// The addresses of a node, and how it protects them.
pub(crate) struct Setup {
    pub(crate) meet: String,
    pub(crate) name: Name,
    pub(crate) own: String,
    pub(crate) reached: SocketAddr,
    pub(crate) bound: SocketAddr,
    pub(crate) key: Option<Key>,
    pub(crate) open: bool,
    pub(crate) dead_after: Duration,
}

impl Sockets {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup { meet, name, own, reached, bound, key, open, dead_after } = setup;
        Self { meet, name, own, reached, bound, key, open, dead_after }
    }

    /// The address where this node listens, with the port that the system chose if port 0 was configured. With several
    /// addresses, it is the one of the meeting point, or the first one; `0.0.0.0` and `[::]` stand for all addresses.
    pub fn listens_at(&self) -> SocketAddr {
        self.reached
    }

    /// Where this node listens, with `0.0.0.0` or `[::]` for all addresses. With several addresses, the first one.
    pub fn bound(&self) -> SocketAddr {
        self.bound
    }

    pub(crate) fn socket(
        &self,
        stream: TcpStream,
        seen: String,
        peer: SocketAddr,
        name: Option<Name>,
    ) -> io::Result<Socket> {
        let dials = name.is_some();
        let sealed = self.key.as_ref().map(|key| Sealed::new(key, dials)).transpose()?;
        let (connected, dead_after) = (!dials, self.dead_after);
        Ok(Socket { stream, sealed, seen, peer, name, connected, tuned: false, dead_after })
    }
}

impl Carrier for Sockets {
    type Listener = Listeners;
    type Stream = Socket;

    fn accept(&mut self, listener: &mut Listeners) -> io::Result<Socket> {
        let (stream, address) = listener.accept()?;
        self.socket(stream, address.to_string(), address, None)
    }

    fn dial(&mut self, address: &str) -> io::Result<Socket> {
        // Only the meeting point, from this node's own configuration, can be a host name (see `may_dial`).
        let name = if address == self.meet { self.name.clone() } else { Name::literal(address)? };
        let target = name.next(Instant::now())?;
        if !self.open && !target.ip().is_loopback() {
            let text = format!("{} is beyond this machine, and there is no key", target.ip());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let seen = if name.is_literal() { address.to_string() } else { format!("{address} at {}", target.ip()) };
        let stream = TcpStream::connect(target).map_err(|error| at(error, &name, target))?;
        self.socket(stream, seen, target, Some(name))
    }

    fn address(&self, rank: PeerId) -> Option<String> {
        (rank == PeerId(0)).then(|| self.meet.clone())
    }

    fn own_address(&self) -> String {
        self.own.clone()
    }

    fn complete(&self, announced: &str, stream: &Socket) -> Result<String, String> {
        match announced.parse::<SocketAddr>() {
            // The peer listens on all interfaces. The host that it dialled from is one where it can be reached.
            Ok(address) if address.ip().is_unspecified() && address.port() != 0 => {
                let mut complete = stream.peer;
                complete.set_port(address.port());
                Ok(complete.to_string())
            }
            _ if self.may_dial(announced) => Ok(announced.to_string()),
            _ => Err(announced.to_string()),
        }
    }

    fn localize(&self, address: &str, stream: &Socket) -> String {
        let Ok(mut local) = address.parse::<SocketAddr>() else { return address.to_string() };
        let zero = stream.peer.ip();
        if local.ip().is_loopback() && !zero.is_loopback() && !zero.is_unspecified() {
            // Rank 0 has heard the node on its own host, at an address that is good there only. From here, that host is
            // where rank 0 is.
            let port = local.port();
            local = stream.peer;
            local.set_port(port);
        } else if let (SocketAddr::V6(local), SocketAddr::V6(zero)) = (&mut local, &stream.peer)
            && local.ip().is_unicast_link_local()
        {
            // The number of an interface means another interface on another host.
            local.set_scope_id(zero.scope_id());
        }
        local.to_string()
    }

    fn may_dial(&self, address: &str) -> bool {
        // No host names: a peer could choose a name that is another's, or that takes long to look up.
        address
            .parse::<SocketAddr>()
            .is_ok_and(|address| address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast())
    }
}

/// An error of a connection, with the address that was tried, if a name stands for it.
fn at(error: io::Error, name: &Name, target: SocketAddr) -> io::Error {
    let kind = error.kind();
    let place = if name.is_literal() { String::new() } else { format!(" at {}", target.ip()) };
    let text = match kind {
        io::ErrorKind::ConnectionRefused => format!("no program listens at this port{place} yet"),
        _ => format!("{error}{place}"),
    };
    io::Error::new(kind, text)
}

impl Socket {
    /// Sets the options of the socket. The connection must be established.
    fn tune(&mut self) -> io::Result<()> {
        // Nagle's algorithm would delay small messages by up to a round trip.
        self.stream.set_nodelay(true)?;
        // Liveness is decided by the keep-alives and timers of the streams. `TCP_USER_TIMEOUT` must stay off: it also
        // counts the time in which the peer's window is closed, and so ends connections to a peer that is alive and
        // only holds a body back. TCP's own keep-alive probes the idle connection of a node that has stopped polling,
        // and so finds hosts that are gone. The kernel takes whole seconds.
        let third = Duration::from_secs((self.dead_after / 3).as_secs().clamp(1, KEEPALIVE_MAX));
        sockopt::set_socket_keepalive(&self.stream, true)?;
        sockopt::set_tcp_keepidle(&self.stream, third)?;
        sockopt::set_tcp_keepintvl(&self.stream, third)?;
        sockopt::set_tcp_keepcnt(&self.stream, 3)?;
        self.tuned = true;
        Ok(())
    }
}

impl Stream for Socket {
    fn source(&mut self) -> &mut dyn Source {
        &mut self.stream
    }

    fn establish(&mut self) -> io::Result<bool> {
        if !self.connected {
            let failed = |error| {
                self.name.as_ref().map_or_else(|| io::ErrorKind::NotConnected.into(), |name| at(error, name, self.peer))
            };
            // The portable order to learn how a non-blocking connect ended: the pending error first, then the peer.
            if let Some(error) = self.stream.take_error()? {
                return Err(failed(error));
            }
            match self.stream.peer_addr() {
                Ok(peer) if self.stream.local_addr().is_ok_and(|local| local == peer) => {
                    // The system chose the port that was dialled as the port to dial from: the socket has reached itself.
                    // It must not keep the port from the program that is to listen there, so it closes without a trace.
                    sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?;
                    return Err(failed(io::ErrorKind::ConnectionRefused.into()));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
                Err(error) => return Err(failed(error)),
            }
            self.connected = true;
            self.tune()?;
        }
        let (mut reads, mut writes) = (&self.stream, &self.stream);
        match &mut self.sealed {
            None => Ok(true),
            Some(sealed) => sealed.establish(&mut |into| reads.read(into), &mut |from| writes.write(from)),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut stream = &self.stream;
        match &mut self.sealed {
            None => stream.read(into),
            Some(sealed) => sealed.read(into, &mut |into| stream.read(into)),
        }
    }

    fn write(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        // An accepted connection without a valid greeting gets no answer. There can be many of them.
        if !self.tuned {
            self.tune()?;
        }
        let mut stream = &self.stream;
        match &mut self.sealed {
            None => stream.write_vectored(from),
            Some(sealed) => sealed.write(from, &mut |from| stream.write(from)),
        }
    }

    fn flush(&mut self) -> io::Result<bool> {
        let mut stream = &self.stream;
        self.sealed.as_mut().map_or(Ok(true), |sealed| sealed.flush(&mut |from| stream.write(from)))
    }

    fn shutdown(&mut self) {
        // This fails only if the connection is closed already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn patience(&self) -> Option<Duration> {
        // Packets to an address that is not in use often get no answer at all: then the next address has its turn.
        let waits = !self.connected && self.name.as_ref().is_some_and(Name::has_others);
        waits.then_some(CONNECT_MAX)
    }

    fn greeted(&mut self) {
        if let Some(name) = &self.name {
            name.is_good(self.peer);
        }
    }

    fn protects(&self) -> bool {
        // Authentication covers each record. TCP's own 16-bit checksum misses too much damage.
        self.sealed.is_some()
    }

    fn seen(&self) -> String {
        self.seen.clone()
    }

    fn host(&self) -> Host {
        Host::of(self.peer.ip())
    }

    fn descriptor(&self) -> Option<u64> {
        u64::try_from(self.stream.as_raw_fd()).ok()
    }

    fn is_proven(&self) -> bool {
        self.sealed.as_ref().is_some_and(Sealed::is_proven)
    }

    fn is_keyed(first: &[u8]) -> bool {
        Sealed::is_greeting(first)
    }

    fn refuse(&mut self, refusal: &[u8]) {
        let mut stream = &self.stream;
        // Bytes left unread would make the system drop the answer, when the socket is closed, and reset the connection.
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write(refusal);
        self.shutdown();
    }
}
