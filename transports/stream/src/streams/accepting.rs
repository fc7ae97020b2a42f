//! The accept side of [`Streams`]: a place for each newcomer, and reports of the strangers that are closed.
//!
//! The promises while any number of strangers connects: memory, descriptors and work in each pass are bounded, open
//! connections keep their turn, and a node that sends its greeting as soon as it is connected gets in.

use std::io;
use std::time::Instant;

use mio::Interest;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::{LISTENER, Streams};
use crate::carrier::{Carrier, Stream};
use crate::causes::{Cause, Rejected};
use crate::link::{Link, State};
use crate::notice::{Refusal, StreamError};
use crate::preamble::Preamble;
use crate::strangers::STRANGERS_MAX;

/// Connections accepted in one pass over the links. Fewer than half of [`STRANGERS_MAX`], so that each is looked at once
/// before another one can take its place.
const ACCEPTS_PER_PASS: usize = 16;
/// Descriptors that strangers leave to the application, for instance for checkpoints.
const SPARE_DESCRIPTORS: u64 = 8;
/// Strangers that are looked at once more before one of them is closed.
const LAST_LOOKS: usize = 4;

/// The number of descriptors that this process may have.
pub(super) fn descriptors_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

impl<C: Carrier> Streams<C> {
    /// Accepts connections, at most [`ACCEPTS_PER_PASS`].
    pub(super) fn accept(&mut self, now: Instant) -> Result<(), StreamError> {
        // Without a free descriptor, `accept` fails even if no connection is pending: only the event shows that one is.
        let mut pending = std::mem::take(&mut self.pending);
        for _ in 0..ACCEPTS_PER_PASS {
            match self.carrier.accept(&mut self.listener) {
                Ok(stream) => {
                    pending = false;
                    self.admit(stream, now)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accepting = false;
                    self.restore_reserve();
                    return Ok(());
                }
                // The connection was closed before it was accepted. The next one may be well.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                }
                // The descriptor in reserve lets the newcomer in.
                Err(error) if is_exhausted(&error) && self.reserve.take().is_some() => {}
                // A stranger has to give its descriptor.
                Err(error) if is_exhausted(&error) && pending && self.make_room(now)? => self.take_place(),
                // The cause may pass, for instance when a descriptor becomes free.
                Err(_) => {
                    (self.accepting, self.failed) = (false, true);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Tries again to accept, if that has failed. Registering again raises an event if a connection is pending.
    pub(super) fn retry_accepting(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.failed) {
            self.poll.registry().reregister(&mut self.listener, LISTENER, Interest::READABLE)?;
        }
        Ok(())
    }

    /// Takes an accepted connection as a stranger, and closes other strangers for it if there is no room.
    fn admit(&mut self, stream: C::Stream, now: Instant) -> Result<(), StreamError> {
        if stream.descriptor().is_some_and(|number| self.is_short(number)) {
            self.take_place();
        }
        while self.strangers.len() >= self.places && self.make_room(now)? {}
        let host = stream.host();
        let slot = self.insert(Link::new(stream, None, now))?;
        self.strangers.push(slot, host);
        Ok(())
    }

    /// Reduces the number of places below the number of strangers, but not to 0.
    fn take_place(&mut self) {
        self.places = self.strangers.len().saturating_sub(1).max(1);
    }

    /// Adds a place, up to the maximum. Called now and then, since descriptors may have become free.
    pub(super) fn add_place(&mut self) {
        self.places = STRANGERS_MAX.min(self.places + 1);
    }

    /// Whether descriptors run short, if the last one has this number. Strangers do not get the descriptors for peers
    /// that are not connected and for the application.
    fn is_short(&self, number: u64) -> bool {
        let rest = self.descriptors_max.saturating_sub(number + 1);
        // Most processes have so many that the peers need not be counted.
        rest < SPARE_DESCRIPTORS + self.peers.len() as u64 && {
            let open = self.peers.iter().filter(|peer| peer.open).count();
            rest < SPARE_DESCRIPTORS + (self.peers.len() - 1 - open) as u64
        }
    }

    /// Ends the wait of one stranger: it completes its greeting, or is closed. Returns false if there is no stranger.
    fn make_room(&mut self, now: Instant) -> Result<bool, StreamError> {
        for _ in 0..LAST_LOOKS {
            let Some(slot) = self.strangers.crowded_out() else { return Ok(false) };
            // Its bytes may have come since it was looked at. A process that does its part must not be closed.
            let before = self.strangers.len();
            self.greet(slot, now)?;
            if self.strangers.len() < before {
                self.mark_runnable(slot);
                return Ok(true);
            }
            if self.strangers.crowded_out() == Some(slot) {
                break;
            }
        }
        if let Some(link) = self.strangers.crowded_out().and_then(|slot| self.remove(slot)) {
            let reason = || "closed for a newer connection: too many have not sent their greeting".to_string();
            self.count_rejected(&link, Cause::Crowded, None, reason);
            drop(link);
            self.restore_reserve();
        }
        Ok(true)
    }

    /// Takes the descriptor in reserve back, if it was used. Called when a connection has been closed, before the
    /// application can take its descriptor, and now and then.
    pub(super) fn restore_reserve(&mut self) {
        if self.reserve.is_none() {
            self.reserve = self.poll.registry().try_clone().ok();
        }
    }

    /// An accepted connection failed before it was open.
    pub(super) fn on_stranger_failed(&mut self, mut link: Link<C::Stream>, error: &io::Error) {
        let cause = match error.kind() {
            io::ErrorKind::TimedOut => Cause::Slow,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Cause::HungUp,
            io::ErrorKind::InvalidData => Cause::Foreign,
            // A node that cannot take part should end with the reason instead of dialling for ever.
            io::ErrorKind::PermissionDenied => {
                link.stream.refuse(&Preamble::bare(Refusal::Key).emit());
                Cause::Key
            }
            io::ErrorKind::Unsupported => {
                // The node finds the difference in the version of this answer, before the refusal.
                link.stream.refuse(&Preamble::bare(Refusal::Key).emit());
                Cause::Version
            }
            _ => Cause::Other,
        };
        self.count_rejected(&link, cause, None, || error.to_string());
        drop(link);
        self.restore_reserve();
    }

    /// Counts a rejected stranger, and reports it if a notice for this cause is due.
    pub(super) fn count_rejected(
        &mut self,
        link: &Link<C::Stream>,
        cause: Cause,
        refusal: Option<Refusal>,
        reason: impl FnOnce() -> String,
    ) {
        let describe = || Rejected { address: link.stream.seen(), reason: reason(), refusal };
        let notice = self.causes.count(cause, Instant::now(), describe);
        notice.into_iter().for_each(|notice| (self.config.notices)(notice));
    }
}

/// Whether an accepted connection has not completed its greeting.
pub(super) fn is_stranger<S>(link: &Link<S>) -> bool {
    link.dialled.is_none() && !matches!(link.state, State::Open { .. })
}

/// Whether the process or the system has no descriptor, or no memory, for another connection.
fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| exhausted.contains(&errno))
}
