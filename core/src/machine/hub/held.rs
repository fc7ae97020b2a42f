//! Messages that wait for a free buffer or for their turn.
//!
//! A server can hold a message of each of a thousand workers. So the messages are linked in two ways: all of them in order
//! of arrival, and those of each peer. A message is put in, found by its peer and taken out without a look at the rest.

use alloc::vec::Vec;
use core::ops::Range;

use super::Incoming;
use super::table::Table;
use crate::id::PeerId;

/// The place of a held message.
type Place = u32;

#[derive(Debug)]
pub(super) struct Held {
    places: Vec<Entry>,
    free: Vec<Place>,
    all: Ends,
    /// By peer.
    peers: Table<Ends>,
    /// Messages of all peers that have been held so far.
    arrivals: u64,
}

#[derive(Copy, Clone, Debug)]
struct Entry {
    incoming: Incoming,
    arrival: u64,
    /// The neighbours in order of arrival: in the list of all, and in that of the peer.
    links: [Link; 2],
}

#[derive(Copy, Clone, Debug, Default)]
struct Link {
    before: Option<Place>,
    after: Option<Place>,
}

/// The ends of a list.
#[derive(Copy, Clone, Debug, Default)]
struct Ends {
    first: Option<Place>,
    last: Option<Place>,
    count: usize,
}

/// The two lists that a message is in.
#[derive(Copy, Clone, Debug)]
enum List {
    All,
    OfPeer,
}

impl Held {
    /// For messages of peers of these ranks: of all of them, or of few.
    pub(super) fn new(peers: Range<u32>, sparse: bool) -> Self {
        let count = if sparse { 0 } else { peers.len() };
        Self {
            places: Vec::with_capacity(count),
            free: Vec::with_capacity(count),
            all: Ends::default(),
            peers: if sparse { Table::sparse(peers) } else { Table::dense(peers, |_| Ends::default()) },
            arrivals: 0,
        }
    }

    /// Messages of this peer.
    pub(super) fn count_of(&self, peer: PeerId) -> usize {
        self.of(peer).count
    }

    fn of(&self, peer: PeerId) -> Ends {
        self.peers.get(peer).copied().unwrap_or_default()
    }

    pub(super) fn push(&mut self, incoming: Incoming) {
        self.arrivals += 1;
        let entry = Entry { incoming, arrival: self.arrivals, links: [Link::default(); 2] };
        let place = self.free.pop().unwrap_or(self.places.len() as Place);
        match self.places.get_mut(place as usize) {
            Some(reused) => *reused = entry,
            None => self.places.push(entry),
        }
        for list in [List::All, List::OfPeer] {
            let ends = self.ends(list, incoming.peer);
            let before = ends.last.replace(place);
            ends.first.get_or_insert(place);
            ends.count += 1;
            self.link(place, list).before = before;
            if let Some(before) = before {
                self.link(before, list).after = Some(place);
            }
        }
    }

    /// All messages, in order of arrival.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Incoming> {
        self.walk(List::All, self.all.first).map(|(_, entry)| &entry.incoming)
    }

    /// The messages of a peer, in order of arrival.
    pub(super) fn iter_of(&self, peer: PeerId) -> impl Iterator<Item = &Incoming> {
        self.walk(List::OfPeer, self.of(peer).first).map(|(_, entry)| &entry.incoming)
    }

    /// The first message that is due.
    pub(super) fn find(&self, mut due: impl FnMut(&Incoming) -> bool) -> Option<Place> {
        self.walk(List::All, self.all.first).find(|(_, entry)| due(&entry.incoming)).map(|(place, _)| place)
    }

    /// The first message of a peer that is due, with its number in order of arrival.
    pub(super) fn find_of(&self, peer: PeerId, mut due: impl FnMut(&Incoming) -> bool) -> Option<(u64, Place)> {
        let mut of_peer = self.walk(List::OfPeer, self.of(peer).first);
        of_peer.find(|(_, entry)| due(&entry.incoming)).map(|(place, entry)| (entry.arrival, place))
    }

    pub(super) fn take(&mut self, place: Place) -> Incoming {
        let Entry { incoming, links, .. } = self.places[place as usize];
        for (list, Link { before, after }) in [List::All, List::OfPeer].into_iter().zip(links) {
            match before {
                Some(before) => self.link(before, list).after = after,
                None => self.ends(list, incoming.peer).first = after,
            }
            match after {
                Some(after) => self.link(after, list).before = before,
                None => self.ends(list, incoming.peer).last = before,
            }
            self.ends(list, incoming.peer).count -= 1;
        }
        self.free.push(place);
        incoming
    }

    /// Drops the messages of a peer.
    pub(super) fn drop_of(&mut self, peer: PeerId) {
        while let Some(place) = self.of(peer).first {
            self.take(place);
        }
    }

    fn walk(&self, list: List, first: Option<Place>) -> impl Iterator<Item = (Place, &Entry)> {
        let next = move |place: &Place| self.places[*place as usize].links[list as usize].after;
        core::iter::successors(first, next).map(|place| (place, &self.places[place as usize]))
    }

    fn ends(&mut self, list: List, peer: PeerId) -> &mut Ends {
        match list {
            List::All => &mut self.all,
            List::OfPeer => self.peers.entry(peer, Ends::default),
        }
    }

    fn link(&mut self, place: Place, list: List) -> &mut Link {
        &mut self.places[place as usize].links[list as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Sequence;
    use crate::wire::Message;

    fn message(peer: u32, number: u64) -> Incoming {
        Incoming { peer: PeerId(peer), message: Message::Prepare { view: Sequence(number) }, length: 0 }
    }

    /// The same as a plain list, for random operations.
    #[test]
    fn messages_are_found_in_order_of_arrival_of_all_peers_and_of_each() {
        let (mut held, mut list) = (Held::new(0..3, false), Vec::new());
        let mut state = 1u64;
        for number in 0..2000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (choice, peer) = (state >> 61, (state >> 40) as u32 % 3);
            let of_peer = |incoming: &Incoming| incoming.peer == PeerId(peer);
            match choice {
                0..4 => {
                    held.push(message(peer, number));
                    list.push(message(peer, number));
                }
                4 | 5 => {
                    let place = held.find(of_peer);
                    assert_eq!(held.find_of(PeerId(peer), |_| true).map(|(_, place)| place), place);
                    let expected = list.iter().position(of_peer).map(|at| list.remove(at));
                    assert_eq!(place.map(|place| held.take(place)), expected);
                }
                6 => {
                    let expected = if list.is_empty() { None } else { Some(list.remove(0)) };
                    assert_eq!(held.find(|_| true).map(|place| held.take(place)), expected);
                }
                _ if number % 5 == 0 => {
                    held.drop_of(PeerId(peer));
                    list.retain(|incoming| !of_peer(incoming));
                }
                _ => {}
            }
            assert!(held.iter().eq(&list), "{held:?} {list:?}");
            for peer in (0..3).map(PeerId) {
                assert!(held.iter_of(peer).eq(list.iter().filter(|incoming| incoming.peer == peer)));
                assert_eq!(held.count_of(peer), held.iter_of(peer).count());
            }
        }
    }
}
