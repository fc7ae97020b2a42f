//! [`Strangers`]: the accepted connections that have not completed their greeting, and which of them has to go when
//! there is no room for another one.
//!
//! A newcomer always gets a place, so silence keeps no process out. The connection that is closed instead comes from the
//! host with the most strangers, and is the oldest of that host: a host that opens many connections competes with itself
//! only. Strangers that have proven that they have the key are a class of their own, since each class keeps half of the
//! places: neither silent connections nor recorded proofs can displace all of the other class.

use std::net::IpAddr;

/// Most strangers that are open at once.
pub const STRANGERS_MAX: usize = 64;

/// The remote end of a connection, as far as strangers are counted by it. Equal values are the same host.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The network: connections are compared by it first.
    network: u64,
    /// The host in that network.
    interface: u64,
}

impl Host {
    /// The host with this address. An IPv6 network is the first 64 bits of an address, since a single host usually owns
    /// all addresses that begin with them. All loopback addresses are one host, the default value.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::default(),
            IpAddr::V4(address) => Self { network: u64::from(u32::from(address)), interface: 0 },
            IpAddr::V6(address) => {
                let bits = u128::from(address);
                Self { network: (bits >> 64) as u64, interface: bits as u64 }
            }
        }
    }
}

/// Strangers, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    list: Vec<Stranger>,
}

#[derive(Copy, Clone, Debug)]
struct Stranger {
    slot: usize,
    host: Host,
    /// It has the key, or a recording of a process that has it.
    proven: bool,
}

impl Strangers {
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn push(&mut self, slot: usize, host: Host) {
        self.list.push(Stranger { slot, host, proven: false });
    }

    /// Removes the stranger in this slot, if there is one.
    pub(crate) fn remove(&mut self, slot: usize) {
        self.list.retain(|stranger| stranger.slot != slot);
    }

    /// Notes that the stranger in this slot has the key.
    pub(crate) fn prove(&mut self, slot: usize) {
        self.list.iter_mut().filter(|stranger| stranger.slot == slot).for_each(|stranger| stranger.proven = true);
    }

    /// The slot of the stranger that has to make room for another one.
    pub(crate) fn crowded_out(&self) -> Option<usize> {
        let proven = 2 * self.list.iter().filter(|stranger| stranger.proven).count() > self.list.len();
        let class = self.list.iter().filter(|stranger| stranger.proven == proven);
        let network = most_frequent(class.clone().map(|stranger| stranger.host.network))?;
        let class = class.filter(|stranger| stranger.host.network == network);
        let interface = most_frequent(class.clone().map(|stranger| stranger.host.interface))?;
        class.clone().find(|stranger| stranger.host.interface == interface).map(|stranger| stranger.slot)
    }
}

/// The most frequent key; of several, the one that comes first.
fn most_frequent(keys: impl Iterator<Item = u64>) -> Option<u64> {
    let mut counts: Vec<(u64, usize)> = Vec::with_capacity(STRANGERS_MAX);
    for key in keys {
        match counts.iter_mut().find(|(other, _)| *other == key) {
            Some((_, count)) => *count += 1,
            None => counts.push((key, 1)),
        }
    }
    // `max_by_key` returns the last of several.
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(address: &str) -> Host {
        Host::of(address.parse().unwrap())
    }

    /// Strangers from these addresses, in slots 0, 1, 2, ...
    fn strangers<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Strangers {
        let mut strangers = Strangers::default();
        addresses.into_iter().enumerate().for_each(|(slot, address)| strangers.push(slot, host(address)));
        strangers
    }

    #[test]
    fn ipv6_addresses_are_counted_by_network_and_loopback_is_one_host() {
        assert_eq!(host("2001:db8:0:1::5").network, host("2001:db8:0:1:ffff::9").network);
        assert_ne!(host("2001:db8:0:1::5").network, host("2001:db8:0:2::5").network);
        assert_ne!(host("192.0.2.1"), host("192.0.2.2"));
        // A socket for both families shows an IPv4 peer like this.
        assert_eq!(host("::ffff:192.0.2.1"), host("192.0.2.1"));
        assert_eq!([host("127.0.0.1"), host("127.8.8.8"), host("::1")], [Host::default(); 3]);
    }

    #[test]
    fn the_oldest_stranger_of_the_host_with_the_most_has_to_go() {
        assert_eq!(strangers([]).crowded_out(), None);
        assert_eq!(strangers(["10.0.0.1", "10.0.0.2", "10.0.0.3"]).crowded_out(), Some(0));
        assert_eq!(strangers(["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2", "10.0.0.2"]).crowded_out(), Some(1));
        let mut strangers = strangers(["10.0.0.1", "10.0.0.2", "10.0.0.2"]);
        strangers.remove(1);
        assert_eq!(strangers.crowded_out(), Some(0));
    }

    /// Within a network, a host with one connection stays while another host has more.
    #[test]
    fn a_network_is_counted_before_its_hosts() {
        let list = ["2001:db8:1::1", "2001:db8:2::1", "2001:db8:2::1", "2001:db8:1::2", "2001:db8:1::2"];
        assert_eq!(strangers(list).crowded_out(), Some(3));
    }

    #[test]
    fn proven_strangers_keep_half_of_the_places_and_no_more() {
        let mut strangers = strangers(["10.0.0.1"; 4]);
        strangers.prove(0);
        strangers.prove(1);
        assert_eq!(strangers.crowded_out(), Some(2));
        strangers.prove(2);
        assert_eq!(strangers.crowded_out(), Some(0));
    }
}
