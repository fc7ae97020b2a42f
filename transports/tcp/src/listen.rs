//! Listening: at one address, at several, or at all addresses of both families.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// The sockets at which a node listens. They take turns, so that a flood of connections at one of them, for instance of
/// one address family, does not keep out connections to another.
pub struct Listeners {
    sockets: Vec<TcpListener>,
    /// Index of the socket that [`accept`](Self::accept) asks first.
    next: usize,
}

impl Listeners {
    /// Listens at all of these addresses, with one port. `meet`: the port of the meeting point, which belongs to rank 0.
    ///
    /// # Errors
    /// The address that failed, and why. An address of a family that this host does not have is left out, unless it is
    /// the only one.
    pub(crate) fn bind(addresses: &[SocketAddr], meet: Option<u16>) -> Result<Self, (SocketAddr, io::Error)> {
        let (mut listeners, mut missing) = (Vec::<TcpListener>::new(), None);
        for address in addresses {
            let mut address = *address;
            if let Some(first) = listeners.first().filter(|_| address.port() == 0) {
                address.set_port(first.local_addr().map_err(|error| (address, error))?.port());
            }
            match bind_one(address, meet) {
                Ok(listener) => listeners.push(listener),
                Err(error) if is_missing(&error) => missing = missing.or(Some((address, error))),
                Err(error) => return Err((address, error)),
            }
        }
        match missing {
            Some(failed) if listeners.is_empty() => Err(failed),
            _ => Ok(Self::new(listeners)),
        }
    }

    /// Listens at the first of these addresses that can be had.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind), for the last address.
    pub(crate) fn bind_first(addresses: &[SocketAddr], meet: Option<u16>) -> Result<Self, (SocketAddr, io::Error)> {
        let mut failed = None;
        for address in addresses {
            match bind_one(*address, meet) {
                Ok(listener) => return Ok(Self::new(vec![listener])),
                Err(error) => failed = Some((*address, error)),
            }
        }
        let none = || (SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), io::ErrorKind::AddrNotAvailable.into());
        Err(failed.unwrap_or_else(none))
    }

    /// Listens at all addresses of this host, of both families if it has both.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind).
    pub(crate) fn bind_all(port: u16, meet: Option<u16>) -> Result<Self, (SocketAddr, io::Error)> {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        match bind_one(all, meet) {
            Err(error) if is_missing(&error) => Self::bind(&[SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))], meet),
            Err(error) => Err((all, error)),
            Ok(listener) => Ok(Self::new(vec![listener])),
        }
    }

    /// The address of the first socket.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.sockets.first().ok_or(io::ErrorKind::NotConnected)?.local_addr()
    }

    /// The next connection of any socket. The socket behind the one that gave it is asked first next time.
    pub(crate) fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let first = self.next;
        let sockets = self.sockets.iter().enumerate();
        for (index, listener) in sockets.clone().skip(first).chain(sockets.take(first)) {
            match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    // Also after an error: it may concern this socket only.
                    self.next = (index + 1) % self.sockets.len();
                    // A socket of both families has IPv4 peers as IPv6 addresses.
                    return result.map(|(stream, address)| (stream, canonical(address)));
                }
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn new(sockets: Vec<TcpListener>) -> Self {
        Self { sockets, next: 0 }
    }
}

impl Source for Listeners {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.sockets.iter_mut().try_for_each(|listener| listener.register(registry, token, interests))
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.sockets.iter_mut().try_for_each(|listener| listener.reregister(registry, token, interests))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.sockets.iter_mut().try_for_each(|listener| listener.deregister(registry))
    }
}

/// `::ffff:10.0.0.1` as `10.0.0.1`.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// Whether this host does not have the family of an address.
fn is_missing(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(code, Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL))
}

/// Listens at an address. With port 0 the system takes a free port. It leaves out ports of connections, even of
/// connections that have ended in the last minute. If no port is left, a listener may still ask for a port by number.
fn bind_one(address: SocketAddr, meet: Option<u16>) -> io::Result<TcpListener> {
    let listen = |address: SocketAddr| match address {
        SocketAddr::V6(all) if all.ip().is_unspecified() => bind_both(address),
        _ => TcpListener::bind(address),
    };
    let bound = listen(address);
    match &bound {
        Err(error) if address.port() == 0 && error.kind() == io::ErrorKind::AddrInUse => {
            let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
            let mut ends = range.split_whitespace().filter_map(|end| end.parse::<u16>().ok());
            let (Some(first), Some(last)) = (ends.next(), ends.next()) else { return bound };
            let ports = (first..=last).filter(|port| Some(*port) != meet);
            let mut listeners = ports.map(|port| listen(SocketAddr::new(address.ip(), port)));
            listeners.find_map(Result::ok).map_or(bound, Ok)
        }
        _ => bound,
    }
}

/// A socket for IPv6 and IPv4, under any setting of the host.
fn bind_both(address: SocketAddr) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None)?;
    sockopt::set_ipv6_v6only(&socket, false)?;
    // As the standard library does: a port of connections that have ended is free.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from_std(std::net::TcpListener::from(socket)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::net::TcpStream as Client;
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    /// Connects `count` clients, and returns them when `listener` has the first of them.
    fn connect(listener: &mut TcpListener, count: usize) -> Vec<Client> {
        let address = listener.local_addr().unwrap();
        let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(4));
        poll.registry().register(listener, Token(0), Interest::READABLE).unwrap();
        let clients = (0..count).map(|_| Client::connect(address).unwrap()).collect();
        poll.poll(&mut events, Some(Duration::from_secs(30))).unwrap();
        assert!(!events.is_empty(), "no connection at {address} within 30 s");
        poll.registry().deregister(listener).unwrap();
        clients
    }

    #[test]
    fn a_flood_at_one_address_does_not_keep_out_a_connection_to_another() {
        // Three addresses of one family: hosts without IPv6 run this test as well.
        let addresses = ["127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"].map(|text| text.parse().unwrap());
        for (flooded, quiet) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            let mut listeners = Listeners::bind(&addresses, None).map_err(|(_, error)| error).unwrap();
            let _flood = connect(&mut listeners.sockets[flooded], 20);
            for round in 0..3 {
                let single = connect(&mut listeners.sockets[quiet], 1);
                let single = single[0].local_addr().unwrap();
                let got: Vec<_> = (0..2).map(|_| listeners.accept().unwrap().1).collect();
                assert!(got.contains(&single), "round {round}, flood at {flooded}, one at {quiet}: {got:?}");
            }
        }
    }

    #[test]
    fn all_connections_of_a_single_socket_are_accepted() {
        let mut listeners = Listeners::bind_all(0, None).map_err(|(_, error)| error).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, listeners.address().unwrap().port()));
        let clients: Vec<_> = (0..5).map(|_| Client::connect(address).unwrap()).collect();
        let mut got = Vec::new();
        while got.len() < clients.len() {
            match listeners.accept() {
                Ok((_, from)) => got.push(from),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        let expected: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        assert_eq!(got, expected);
    }
}
