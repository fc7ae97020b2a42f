//! [`Sockets`], the carrier of the TCP transport: listens, dials, and checks addresses. [`Socket`] is one connection,
//! encrypted if there is a key.

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::time::Duration;

use gradwire_core::PeerId;
use gradwire_stream::{Carrier, Host, Stream};
use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use rustix::net::sockopt;

use crate::key::Key;
use crate::noise::Sealed;

/// The carrier of the TCP transport.
pub struct Sockets {
    /// The meeting point, where rank 0 listens.
    meet: String,
    /// The address that this node announces.
    own: String,
    /// The address where this node listens.
    bound: SocketAddr,
    key: Option<Key>,
    dead_after: Duration,
}

/// A TCP connection.
pub struct Socket {
    stream: TcpStream,
    sealed: Option<Sealed>,
    /// The address of the peer, for notices.
    seen: String,
    peer: Option<IpAddr>,
    /// The TCP connection is established, which a dialled socket has to wait for.
    connected: bool,
    dead_after: Duration,
}

impl Sockets {
    pub(crate) fn new(meet: String, own: String, bound: SocketAddr, key: Option<Key>, dead_after: Duration) -> Self {
        Self { meet, own, bound, key, dead_after }
    }

    /// The address where this node listens, with the port that the system chose if port 0 was configured.
    pub fn listens_at(&self) -> SocketAddr {
        self.bound
    }

    fn socket(&self, stream: TcpStream, seen: String, peer: IpAddr, dials: bool) -> io::Result<Socket> {
        let sealed = self.key.as_ref().map(|key| Sealed::new(key, dials)).transpose()?;
        Ok(Socket { stream, sealed, seen, peer: Some(peer), connected: !dials, dead_after: self.dead_after })
    }
}

impl Carrier for Sockets {
    type Listener = TcpListener;
    type Stream = Socket;

    fn accept(&mut self, listener: &mut TcpListener) -> io::Result<Socket> {
        let (stream, address) = listener.accept()?;
        let socket = self.socket(stream, address.to_string(), address.ip(), false)?;
        socket.tune()?;
        Ok(socket)
    }

    fn dial(&mut self, address: &str) -> io::Result<Socket> {
        // Only the meeting point, from this node's own configuration, can be a host name (see `may_dial`). Resolving it
        // blocks.
        let target = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        self.socket(TcpStream::connect(target)?, address.to_string(), target.ip(), true)
    }

    fn address(&self, rank: PeerId) -> Option<String> {
        (rank == PeerId(0)).then(|| self.meet.clone())
    }

    fn own_address(&self) -> String {
        self.own.clone()
    }

    fn complete(&self, announced: &str, stream: &Socket) -> Result<String, String> {
        match (announced.parse::<SocketAddr>(), stream.peer) {
            // The peer listens on all interfaces. The host that it dialled from is one where it can be reached.
            (Ok(address), Some(peer)) if address.ip().is_unspecified() && address.port() != 0 => {
                Ok(SocketAddr::new(peer, address.port()).to_string())
            }
            _ if self.may_dial(announced) => Ok(announced.to_string()),
            _ => Err(announced.to_string()),
        }
    }

    fn may_dial(&self, address: &str) -> bool {
        // No host names: resolving one blocks, and a peer could choose a name that takes long.
        address
            .parse::<SocketAddr>()
            .is_ok_and(|address| address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast())
    }
}

impl Socket {
    /// Sets the options of the socket. The connection must be established.
    fn tune(&self) -> io::Result<()> {
        // Nagle's algorithm would delay small messages by up to a round trip.
        self.stream.set_nodelay(true)?;
        // Bounds how long sent data may stay unacknowledged when the peer's host or the network has failed.
        let millis = u32::try_from(self.dead_after.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(&self.stream, millis)?;
        Ok(())
    }
}

impl Stream for Socket {
    fn source(&mut self) -> &mut dyn Source {
        &mut self.stream
    }

    fn establish(&mut self) -> io::Result<bool> {
        if !self.connected {
            // The portable order to learn how a non-blocking connect ended: the pending error first, then the peer.
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.peer_addr() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
                Err(error) => return Err(error),
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

    fn protects(&self) -> bool {
        // Authentication covers each record. TCP's own 16-bit checksum misses too much damage.
        self.sealed.is_some()
    }

    fn seen(&self) -> String {
        self.seen.clone()
    }

    fn host(&self) -> Host {
        self.peer.map_or_else(Host::default, Host::of)
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
