//! [`Transport`] for [`Streams`]: the calls that a session makes, and the orderly end when the transport is dropped.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use gradwire_core::wire::Header;
use gradwire_core::{Input, OpId, PeerId, Pool, ProtocolError, RunId, Segment, Transport, TransportError};

use super::{PASSES_PER_POLL, QUEUE_MAX, Streams};
use crate::carrier::{Carrier, Stream};
use crate::control::Control;
use crate::link::{Link, State};
use crate::notice::StreamError;
use crate::preamble::KnownRun;

/// How long dropping a transport waits for queued frames to be written.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// How long dropping a transport then waits for its peers to close their side.
const LINGER_MAX: Duration = Duration::from_millis(200);

impl<C: Carrier> Transport for Streams<C> {
    fn place(&self) -> (PeerId, u32) {
        (self.config.rank, self.config.nodes)
    }

    /// `dead_after` less the silence that has passed before a connection is closed: a peer that dies without a trace is
    /// given up `dead_after` after its last byte.
    fn patience(&self) -> Option<Duration> {
        Some(self.config.dead_after - self.silence())
    }

    fn run(&self) -> Option<RunId> {
        self.run.map(|run| run.run)
    }

    fn set_run(&mut self, run: RunId) {
        self.run = Some(KnownRun { run, known: true });
    }

    fn propose_run(&mut self, run: RunId) {
        if !self.run.is_some_and(|run| run.known) {
            self.run = Some(KnownRun { run, known: false });
        }
    }

    fn connects_on_demand(&self) -> bool {
        true
    }

    fn want(&mut self, peers: &[PeerId]) {
        self.set_wishes(peers);
    }

    fn transmit(&mut self, op: OpId, peer: PeerId, header: Header, body: Option<Segment>, pool: &Pool) {
        let rank = peer.index();
        let Some(slot) = self.current_link(rank) else {
            self.ready.push_back(Input::Aborted { op });
            return;
        };
        let Some(link) = &mut self.links[slot] else { unreachable!("an open peer has a link") };
        let idle = link.writer.is_empty();
        link.writer.message(op, &header, body.map(|body| pool.lend(body)));
        link.queued_at = Instant::now();
        if link.writer.len() > QUEUE_MAX {
            self.break_link(slot, format!("the peer does not read: more than {QUEUE_MAX} messages are queued for it"));
        } else if idle {
            // Write at once: waiting for the next `poll` would add latency. If frames were queued already, the
            // connection takes no more bytes for now.
            self.write(slot);
        }
    }

    fn receive(&mut self, op: OpId, peer: PeerId, into: Option<Segment>, _pool: &mut Pool) {
        let slot = self.current_link(peer.index());
        let link = slot.and_then(|slot| self.links[slot].as_mut());
        if !link.is_some_and(|link| link.receive(op, into)) {
            self.ready.push_back(Input::Aborted { op });
        } else if let Some(slot) = slot {
            // The event for bytes that came while the body was held has passed: only this makes them be read.
            self.mark_runnable(slot);
        }
    }

    fn close(&mut self, peer: PeerId, reason: ProtocolError) {
        if let Some(slot) = self.current_link(peer.index()) {
            self.break_link(slot, reason.to_string());
            // After a protocol error there must be a pause, or the two nodes would reconnect in a busy loop.
            let now = Instant::now();
            self.dial_later(peer.index(), now);
        }
    }

    fn busy(&mut self, span: Duration) {
        let millis = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        for slot in 0..self.links.len() {
            let Some(link) = &mut self.links[slot] else { continue };
            if let State::Open { .. } = link.state {
                link.writer.control(Control::Busy { millis });
                // At once: `poll` may not be called again before the computation.
                self.write(slot);
            }
        }
    }

    fn unsent(&self) -> u64 {
        let open = self.links.iter().flatten().filter(|link| matches!(link.state, State::Open { .. }));
        open.map(|link| link.writer.unsent()).sum()
    }

    fn poll(&mut self, pool: &mut Pool, wait: Option<Duration>) -> Result<Option<Input>, TransportError> {
        Ok(Self::poll(self, pool, wait)?)
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.waker))
    }
}

impl<C: Carrier> Drop for Streams<C> {
    /// Writes queued frames for at most a second, closes the sending direction of all connections, and reads for at
    /// most 200 ms until the peers have closed theirs. Closing a socket with unread bytes would reset the connection,
    /// and the peer could lose frames that it has not read yet.
    fn drop(&mut self) {
        let until = Instant::now() + FLUSH_MAX;
        let unsent = |streams: &mut Self| {
            let links = streams.links.iter_mut().flatten().filter(|link| matches!(link.state, State::Open { .. }));
            let mut sink = VecDeque::new();
            links.filter_map(|link| link.write(&mut sink).ok()).fold(false, |unsent, done| unsent | !done)
        };
        while unsent(self) && Instant::now() < until {
            if self.take_events(Some(Duration::from_millis(5))).is_err() {
                break;
            }
        }
        let open = |link: &Link<C::Stream>| matches!(link.state, State::Open { .. });
        self.links.iter_mut().flatten().filter(|link| open(link)).for_each(|link| link.stream.shutdown());
        let until = Instant::now() + LINGER_MAX;
        let mut sink = [0; 4096];
        let mut still: Vec<_> = self.links.iter_mut().flatten().filter(|link| open(link)).collect();
        while !still.is_empty() && Instant::now() < until {
            still.retain_mut(|link| match link.stream.read(&mut sink) {
                Ok(n) => n > 0,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            });
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl<C: Carrier> Streams<C> {
    /// As [`Transport::poll`], with the error's own type.
    ///
    /// # Errors
    /// If the transport as a whole has failed; see [`StreamError`].
    pub fn poll(&mut self, pool: &mut Pool, wait: Option<Duration>) -> Result<Option<Input>, StreamError> {
        // A moment that the clock cannot name never comes.
        let until = wait.and_then(|wait| Instant::now().checked_add(wait));
        loop {
            if let Some(input) = self.next_input() {
                return Ok(Some(input));
            }
            self.on_time(Instant::now())?;
            self.passes = (self.passes + 1) % PASSES_PER_POLL;
            if self.passes == 0 {
                self.take_events(Some(Duration::ZERO))?;
            }
            self.run(pool)?;
            // Inputs come before wake-ups, so that a waker that is called all the time cannot stop the transport.
            if !self.ready.is_empty() {
                continue;
            }
            if std::mem::take(&mut self.woken) {
                return Ok(None);
            }
            let now = Instant::now();
            let rest = until.map(|until| until.saturating_duration_since(now));
            let timer = self.timer.saturating_duration_since(now);
            if rest.is_some_and(|rest| rest.is_zero()) {
                // The time is up. Callers that never wait depend on this look: they would miss all events without it.
                self.take_events(Some(Duration::ZERO))?;
                if self.runnable.is_empty() && !self.accepting && !self.peek() {
                    self.woken = false;
                    return Ok(None);
                }
                self.run(pool)?;
                return Ok(self.next_input());
            }
            self.sleep(rest.map_or(timer, |rest| rest.min(timer)))?;
        }
    }
}
