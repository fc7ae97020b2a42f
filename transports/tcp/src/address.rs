//! [`Address`]: `HOST:PORT`, as users write it. Nothing here looks a name up.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// `HOST:PORT`. The host is a name, an IPv4 address, or an IPv6 address in brackets, with its interface if it is
/// link-local: `[fe80::1%eth0]:29510`.
///
/// ```
/// use gradwire_tcp::Address;
///
/// let address: Address = "first:29510".parse()?;
/// assert_eq!((address.host(), address.port()), ("first", 29510));
/// assert_eq!("[fd00::7]:1".parse::<Address>()?.with_port(2).to_string(), "[fd00::7]:2");
/// assert!("fd00::7:1".parse::<Address>().is_err()); // without brackets
/// # Ok::<(), gradwire_tcp::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address; an IPv6 address stands here without brackets.
    host: String,
    port: u16,
}

/// Why a text is no `HOST:PORT`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no port behind the host.
    NoPort,
    /// The port is no number from 0 to 65535.
    Port,
    /// There is no host before the port.
    NoHost,
    /// An IPv6 address has no brackets, so that its port cannot be told from it.
    Brackets,
    /// The host has characters that no host name has, or the text in brackets is no IPv6 address.
    Host,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPort => "no port",
            Self::Port => "the port is no number from 0 to 65535",
            Self::NoHost => "no host; all addresses of this machine are 0.0.0.0 and [::]",
            Self::Brackets => "an IPv6 address needs brackets: [::1]:29510",
            Self::Host => "the host is no name and no address",
        })
    }
}

impl std::error::Error for AddressError {}

impl std::str::FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let port = |port: &str| {
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            port.parse::<u16>().ok().filter(|_| digits).ok_or(AddressError::Port)
        };
        if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or(AddressError::Host)?;
            let plain = host.split_once('%').map_or(host, |(plain, _)| plain);
            plain.parse::<Ipv6Addr>().map_err(|_| AddressError::Host)?;
            let rest = rest.strip_prefix(':').ok_or(AddressError::NoPort)?;
            return Ok(Self { host: host.to_string(), port: port(rest)? });
        }
        let (host, after) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        if host.contains(':') {
            return Err(AddressError::Brackets);
        }
        if host.is_empty() {
            return Err(AddressError::NoHost);
        }
        if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || !byte.is_ascii()) {
            return Err(AddressError::Host);
        }
        Ok(Self { host: host.to_string(), port: port(after)? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Address {
    /// The host: a name or an address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port. 0 stands for any free one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port, if it is a certain one.
    pub(crate) fn taken(&self) -> Option<u16> {
        Some(self.port).filter(|port| *port > 0)
    }

    /// The same host with another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Self { host: self.host.clone(), port }
    }

    /// Whether the host is an address and not a name.
    pub(crate) fn is_literal(&self) -> bool {
        self.host.contains(':') || self.host.parse::<IpAddr>().is_ok()
    }

    /// The text of an address.
    pub(crate) fn of(address: SocketAddr) -> Self {
        let host = match address {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
            address => address.ip().to_string(),
        };
        Self { host, port: address.port() }
    }

    /// The address, if the host is one and not a name.
    pub fn literal(&self) -> Option<SocketAddr> {
        let (host, interface) =
            self.host.split_once('%').map_or((&*self.host, None), |(host, name)| (host, Some(name)));
        match (host.parse::<IpAddr>().ok()?, interface) {
            (ip, None) => Some(SocketAddr::new(ip, self.port)),
            (IpAddr::V6(ip), Some(name)) => Some(SocketAddrV6::new(ip, self.port, 0, scope(name)?).into()),
            (IpAddr::V4(_), Some(_)) => None,
        }
    }
}

/// The number of a network interface. `None`: there is no such interface at this moment.
fn scope(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    // A name of a directory: of one interface, and not of another place.
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
    let path = std::path::Path::new("/sys/class/net").join(if plain { name } else { return None }).join("ifindex");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
