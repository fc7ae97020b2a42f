//! [`Name`]: the addresses of a host. They are looked up on a thread of their own, since a name server can take minutes
//! to answer, and the thread that polls the transport serves all other nodes in that time.
//!
//! Addresses are tried in turn, from the last good one on. When all have failed, the name is looked up again, at most
//! once a second, while the known addresses stay in use. So a name server that fails does no harm to a node that knows
//! an address, and a host that has moved is found.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::address::Address;

/// Looks the addresses of a host up. It may block.
pub(crate) type Resolver = dyn Fn(&Address) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Least time between the starts of two lookups.
const LOOKUP_EVERY: Duration = Duration::from_secs(1);
/// Time without an answer after which a lookup counts as failed in messages.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Addresses that are kept of a name.
const ADDRESSES_MAX: usize = 16;

/// The addresses of a host. Clones share them.
#[derive(Clone)]
pub(crate) struct Name(Arc<Inner>);

struct Inner {
    address: Address,
    resolver: Arc<Resolver>,
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Default)]
struct State {
    addresses: Vec<SocketAddr>,
    /// The index of the address to try next.
    next: usize,
    /// Attempts since the last lookup or good address.
    tried: usize,
    /// When the lookup that is under way has begun.
    asking_since: Option<Instant>,
    /// When the last lookup has begun.
    asked_at: Option<Instant>,
    /// Why the last lookup has failed.
    error: Option<String>,
}

/// The resolver of the system.
pub(crate) fn system(address: &Address) -> io::Result<Vec<SocketAddr>> {
    use std::net::ToSocketAddrs;
    Ok((address.host(), address.port()).to_socket_addrs()?.collect())
}

impl Name {
    pub(crate) fn new(address: Address, resolver: Arc<Resolver>) -> Self {
        let addresses = address.literal().into_iter().collect();
        let state = Mutex::new(State { addresses, ..State::default() });
        Self(Arc::new(Inner { address, resolver, state, answered: Condvar::new() }))
    }

    /// An address of another node, from rank 0.
    pub(crate) fn literal(address: &str) -> io::Result<Self> {
        let parsed = address.parse::<SocketAddr>();
        let found = parsed.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        let state = Mutex::new(State { addresses: vec![found], ..State::default() });
        let (address, resolver) = (Address::of(found), Arc::new(system) as Arc<Resolver>);
        Ok(Self(Arc::new(Inner { address, resolver, state, answered: Condvar::new() })))
    }

    /// Whether the host is an address, and not a name.
    pub(crate) fn is_literal(&self) -> bool {
        self.0.address.is_literal()
    }

    /// The address to try now. Does not block.
    ///
    /// # Errors
    /// While no address is known. `WouldBlock`: the first answer is to be expected soon.
    pub(crate) fn next(&self, now: Instant) -> io::Result<SocketAddr> {
        let mut state = self.state();
        let known = state.addresses.len();
        if known == 0 {
            self.ask(&mut state, now);
            let since = state.asking_since.map(|since| now.saturating_duration_since(since));
            return Err(match (&state.error, since) {
                (Some(error), _) => io::Error::new(io::ErrorKind::NotFound, error.clone()),
                (None, Some(since)) if since > ANSWER_MAX => {
                    let text = format!("no answer to the lookup of this name for {} s", since.as_secs());
                    io::Error::new(io::ErrorKind::TimedOut, text)
                }
                (None, _) => io::ErrorKind::WouldBlock.into(),
            });
        }
        if state.tried >= known {
            self.ask(&mut state, now);
        }
        let index = state.next % known;
        state.next = index + 1;
        state.tried += 1;
        Ok(state.addresses[index])
    }

    /// The node was met at this address: it is tried first next time.
    pub(crate) fn is_good(&self, address: SocketAddr) {
        let mut state = self.state();
        if let Some(index) = state.addresses.iter().position(|known| *known == address) {
            state.next = index;
        }
        state.tried = 0;
    }

    /// Whether there is more than one address to try.
    pub(crate) fn has_others(&self) -> bool {
        self.state().addresses.len() > 1
    }

    /// All addresses. Blocks until they are known or the lookup has failed, and at most for `limit`.
    ///
    /// # Errors
    /// When the lookup has failed, or has not ended in time.
    pub(crate) fn wait(&self, limit: Duration) -> io::Result<Vec<SocketAddr>> {
        let until = Instant::now() + limit;
        let mut state = self.state();
        loop {
            if !state.addresses.is_empty() {
                return Ok(state.addresses.clone());
            }
            if let Some(error) = &state.error {
                return Err(io::Error::new(io::ErrorKind::NotFound, error.clone()));
            }
            let now = Instant::now();
            self.ask(&mut state, now);
            if now >= until {
                let text = format!("no answer to the lookup of this name for {:.1} s", limit.as_secs_f64());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            let waited = self.0.answered.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Starts a lookup, unless one is under way or the last one is recent.
    fn ask(&self, state: &mut State, now: Instant) {
        let recent = state.asked_at.is_some_and(|at| now < at + LOOKUP_EVERY);
        if state.asking_since.is_some() || recent {
            return;
        }
        if self.0.address.is_literal() {
            match self.0.address.literal() {
                Some(literal) => state.addresses = vec![literal],
                None => state.error = Some("this machine has no such network interface".to_string()),
            }
            return;
        }
        (state.asking_since, state.asked_at) = (Some(now), Some(now));
        let inner = Arc::clone(&self.0);
        let asked = thread::Builder::new().name("lookup".into()).spawn(move || {
            let answer = (inner.resolver)(&inner.address);
            let mut state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.take(answer);
            drop(state);
            inner.answered.notify_all();
        });
        if let Err(error) = asked {
            state.take(Err(error));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, answer: io::Result<Vec<SocketAddr>>) {
        self.asking_since = None;
        self.error = None;
        match answer {
            Ok(found) if !found.is_empty() => {
                // A known address may still be right, for instance if a name server does not know all of them yet.
                let known = std::mem::take(&mut self.addresses);
                for address in found.into_iter().chain(known) {
                    if self.addresses.len() < ADDRESSES_MAX && !self.addresses.contains(&address) {
                        self.addresses.push(address);
                    }
                }
                (self.next, self.tried) = (0, 0);
            }
            Ok(_) => self.error = Some("the name has no address".to_string()),
            Err(error) => self.error = Some(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A name with lookups that end when the test says how. The second end tells that a lookup has begun.
    fn name() -> (Name, Sender<io::Result<Vec<SocketAddr>>>, Receiver<()>) {
        let ((answer, answers), (begun, begins)) = (channel::<io::Result<Vec<SocketAddr>>>(), channel());
        let answers = Mutex::new(answers);
        let resolver = move |_: &Address| {
            begun.send(()).unwrap();
            answers.lock().unwrap().recv().unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        (Name::new("h:1".parse().unwrap(), Arc::new(resolver)), answer, begins)
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_name_is_looked_up_beside_its_caller() {
        let (name, answer, begins) = name();
        let now = Instant::now();
        assert_eq!(name.next(now).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        begins.recv_timeout(PATIENCE).unwrap();
        // The lookup hangs: this does not, and after a while it says so.
        let late = name.next(now + ANSWER_MAX * 2).unwrap_err();
        assert_eq!(late.to_string(), "no answer to the lookup of this name for 6 s");
        answer.send(Ok(vec![at("10.0.0.1:1"), at("[fd00::1]:1")])).unwrap();
        assert_eq!(name.wait(PATIENCE).unwrap().len(), 2);
        assert_eq!(name.next(now).unwrap(), at("10.0.0.1:1"));
        assert_eq!(name.next(now).unwrap(), at("[fd00::1]:1"));
        assert!(begins.try_recv().is_err(), "one lookup is enough");
    }

    #[test]
    fn the_last_good_address_stays_in_use_while_lookups_hang_or_fail() {
        let (name, answer, begins) = name();
        let now = Instant::now();
        let _ = name.next(now);
        answer.send(Ok(vec![at("10.0.0.1:1"), at("10.0.0.2:1")])).unwrap();
        name.wait(PATIENCE).unwrap();
        begins.recv_timeout(PATIENCE).unwrap();
        assert_eq!((name.next(now).unwrap(), name.next(now).unwrap()), (at("10.0.0.1:1"), at("10.0.0.2:1")));
        name.is_good(at("10.0.0.2:1"));
        // After a connection, the good one first; then the other addresses; then a new lookup, which hangs.
        let later = now + LOOKUP_EVERY * 2;
        let all: Vec<_> = (0..5).map(|_| name.next(later).unwrap().to_string()).collect();
        assert_eq!(all, ["10.0.0.2:1", "10.0.0.1:1", "10.0.0.2:1", "10.0.0.1:1", "10.0.0.2:1"]);
        begins.recv_timeout(PATIENCE).unwrap();
        answer.send(Err(io::ErrorKind::NotFound.into())).unwrap();
        while name.state().asking_since.is_some() {
            thread::yield_now();
        }
        assert!(name.next(later).is_ok());
        // The host has moved: its new address comes first, and the old ones are kept behind it.
        let last = later + LOOKUP_EVERY * 2;
        (0..3).for_each(|_| drop(name.next(last)));
        begins.recv_timeout(PATIENCE).unwrap();
        answer.send(Ok(vec![at("10.0.0.9:1")])).unwrap();
        while name.state().asking_since.is_some() {
            thread::yield_now();
        }
        assert_eq!(name.next(last).unwrap(), at("10.0.0.9:1"));
        assert_eq!(name.wait(PATIENCE).unwrap().len(), 3);
    }

    #[test]
    fn a_failed_lookup_is_repeated() {
        let (name, answer, begins) = name();
        let now = Instant::now();
        let _ = name.next(now);
        begins.recv_timeout(PATIENCE).unwrap();
        answer.send(Ok(Vec::new())).unwrap();
        assert_eq!(name.wait(PATIENCE).unwrap_err().to_string(), "the name has no address");
        assert_eq!(name.next(now).unwrap_err().to_string(), "the name has no address");
        assert!(begins.try_recv().is_err(), "not more often than once a second");
        assert!(name.next(now + LOOKUP_EVERY).is_err());
        begins.recv_timeout(PATIENCE).unwrap();
        answer.send(Ok(vec![at("10.0.0.1:1")])).unwrap();
        while name.state().asking_since.is_some() {
            thread::yield_now();
        }
        assert_eq!(name.next(now).unwrap(), at("10.0.0.1:1"));
    }
}
