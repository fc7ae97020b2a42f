//! [`TcpError`]: why a node could not be set up.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::address::AddressError;
use crate::probe::Listening;

/// Why [`Builder::open`](crate::Builder::open) failed.
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the value that was expected, the value that came, and the cause")]
pub enum TcpError {
    /// The rank is not below the number of nodes.
    Rank { nodes: u32, got: u32 },
    /// The setting `what` is not `HOST:PORT`.
    Address { what: &'static str, got: String, error: AddressError },
    /// The address of the host in the setting `what` was not found.
    Name { what: &'static str, got: String, error: io::Error },
    /// The address, of the host `name` if it was given by name, can be reached from other hosts, and there is no key.
    Open { address: SocketAddr, name: Option<String> },
    /// The system refused to listen at the address. `found`: the gradwire node that listens there.
    Listen { address: SocketAddr, error: io::Error, found: Option<Listening> },
}

impl fmt::Display for TcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rank { nodes, got } => write!(f, "rank: expected less than {nodes} (workers and servers), got {got}"),
            Self::Address { what, got, error } => write!(f, "{what}: expected HOST:PORT, got \"{got}\" ({error})"),
            Self::Name { what, got, error } => {
                write!(f, "{what}: expected a host with an address, got \"{got}\" ({error})")
            }
            Self::Open { address, name } => {
                let name = name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
                write!(
                    f,
                    "listening on {address}{name} without a key lets anyone who can reach it take part: expected a key, \
                     a loopback address, or insecure_open (--insecure-open)"
                )
            }
            Self::Listen { address, error, found } => {
                write!(f, "cannot listen on {address}: {}", Words { error, found: *found })
            }
        }
    }
}

/// The cause of a failure to listen, and its remedy.
struct Words<'a> {
    error: &'a io::Error,
    found: Option<Listening>,
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = self.error;
        match (error.kind(), self.found) {
            (io::ErrorKind::AddrInUse, Some(Listening { rank: Some(rank) })) => {
                write!(f, "rank {rank} of a gradwire run listens there ({error}); end that run, or use another port")
            }
            (io::ErrorKind::AddrInUse, Some(Listening { rank: None })) => write!(
                f,
                "a gradwire node listens there, which may be rank 0 of another run ({error}); end that run, or use \
                 another port"
            ),
            (io::ErrorKind::AddrInUse, None) => write!(
                f,
                "another program uses this port, and does not answer as a gradwire node ({error}); use another port"
            ),
            (io::ErrorKind::AddrNotAvailable, _) => write!(
                f,
                "this machine has no such address ({error}); expected an address of its own for listen (--listen), or \
                 all of them: 0.0.0.0:PORT or [::]:PORT; the address that others use belongs in meet or advertise"
            ),
            (io::ErrorKind::PermissionDenied, _) => {
                write!(f, "{error}; ports below 1024 are those of the system, use a higher one")
            }
            _ => error.fmt(f),
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for TcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for TcpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address { error, .. } => Some(error),
            Self::Name { error, .. } | Self::Listen { error, .. } => Some(error),
            _ => None,
        }
    }
}
