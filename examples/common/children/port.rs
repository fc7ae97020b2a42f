//! A port for rank 0.

use std::io;
use std::net::SocketAddr;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;

/// A TCP port of loopback, which belongs to rank 0 for as long as this exists, also while rank 0 is not running.
///
/// A port that is only found free goes to the next program that asks for any port. So this socket stays bound, but does
/// not listen: Linux lets another socket bind the same port and listen, if both have SO_REUSEADDR, as listeners of Rust
/// programs do; and it gives the port to no connection and to no program that asks for any port. Unlike an inherited
/// listener, this works for programs that only know the address, and connections are refused while rank 0 is away.
pub struct Port {
    address: SocketAddr,
    #[cfg(target_os = "linux")]
    _bound: OwnedFd,
}

impl Port {
    /// Reserves any free port.
    ///
    /// # Errors
    /// If the operating system has no port left.
    #[cfg(target_os = "linux")]
    pub fn reserve() -> io::Result<Self> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        if let Err(error) = bind(&socket, &at(0)) {
            // "Any port" leaves out the ports of connections that have ended in the last minute. A request by number
            // gets them.
            let by_number = ephemeral_ports().any(|port| bind(&socket, &at(port)).is_ok());
            by_number.then_some(()).ok_or(error)?;
        }
        let address = SocketAddr::try_from(getsockname(&socket)?)?;
        Ok(Self { address, _bound: socket })
    }

    /// Other systems refuse the second socket: the port is free at this moment.
    #[cfg(not(target_os = "linux"))]
    pub fn reserve() -> io::Result<Self> {
        Ok(Self { address: std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()? })
    }

    /// The port, with the address of loopback.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The ports that the system gives to programs that ask for any.
#[cfg(target_os = "linux")]
fn ephemeral_ports() -> std::ops::RangeInclusive<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_whitespace().filter_map(|end| end.parse().ok());
    ends.next().unwrap_or(32_768)..=ends.next().unwrap_or(60_999)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A listener can take the port, again after it has ended, and connections are refused in between.
    #[test]
    fn a_reserved_port_is_taken_by_its_owner() {
        let port = Port::reserve().unwrap();
        for _ in 0..3 {
            let refused = TcpStream::connect(port.address()).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let listener = TcpListener::bind(port.address()).unwrap();
            let _client = TcpStream::connect(port.address()).unwrap();
            drop(listener.accept().unwrap());
            assert_eq!(TcpListener::bind(port.address()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }
}
