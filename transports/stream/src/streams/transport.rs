//! What the session asks of it, and its end.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant as Clock};

use gradwire_core::wire::Header;
use gradwire_core::{Input, OpId, PeerId, Pool, ProtocolError, Segment, Transport};

use super::{QUEUE_MAX, ROUNDS, Streams};
use crate::carrier::{Carrier, Stream};
use crate::control::Control;
use crate::link::{Link, State};
use crate::notice::StreamError;

impl<C: Carrier> Transport for Streams<C> {
    type Error = StreamError;

    fn place(&self) -> (PeerId, u32) {
        (self.config.rank, self.config.nodes)
    }

    /// A peer whose connection broke has been silent for up to two fifths of the base figure.
    fn patience(&self) -> Option<Duration> {
        Some(self.config.dead_after - self.silence())
    }

    fn transmit(&mut self, op: OpId, peer: PeerId, header: Header, body: Option<Segment>, pool: &Pool) {
        let rank = peer.index();
        let Some(slot) = self.told(rank) else {
            self.ready.push_back(Input::Aborted { op });
            return;
        };
        let Some(link) = &mut self.links[slot] else { unreachable!("an open peer has a link") };
        let idle = link.writer.is_empty();
        link.writer.message(op, &header, body.map(|body| pool.lend(body)));
        link.said = Clock::now();
        if link.writer.len() > QUEUE_MAX {
            self.break_link(slot, format!("it does not read: {QUEUE_MAX} messages wait for it"));
        } else if idle {
            self.write(slot);
        }
    }

    fn receive(&mut self, op: OpId, peer: PeerId, into: Option<Segment>, _pool: &mut Pool) {
        let slot = self.told(peer.index());
        let link = slot.and_then(|slot| self.links[slot].as_mut());
        if !link.is_some_and(|link| link.receive(op, into)) {
            self.ready.push_back(Input::Aborted { op });
        } else if let Some(slot) = slot {
            self.mark(slot);
        }
    }

    fn close(&mut self, peer: PeerId, reason: ProtocolError) {
        if let Some(slot) = self.told(peer.index()) {
            self.break_link(slot, reason.to_string());
            let now = Clock::now();
            self.dial_later(peer.index(), now);
        }
    }

    fn busy(&mut self, span: Duration) {
        let millis = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        for slot in 0..self.links.len() {
            let Some(link) = &mut self.links[slot] else { continue };
            if let State::Open { .. } = link.state {
                link.writer.control(Control::Busy { millis });
                self.write(slot);
            }
        }
    }

    fn poll(&mut self, pool: &mut Pool, wait: Option<Duration>) -> Result<Option<Input>, StreamError> {
        let until = wait.map(|wait| Clock::now() + wait);
        loop {
            if let Some(input) = self.next() {
                return Ok(Some(input));
            }
            self.on_time(Clock::now())?;
            self.rounds = (self.rounds + 1) % ROUNDS;
            if self.rounds == 0 {
                self.take_events(Some(Duration::ZERO))?;
            }
            self.run(pool)?;
            if !self.ready.is_empty() {
                continue;
            }
            if std::mem::take(&mut self.woken) {
                return Ok(None);
            }
            let now = Clock::now();
            let rest = until.map(|until| until.saturating_duration_since(now));
            let timer = self.timer.saturating_duration_since(now);
            if rest.is_some_and(|rest| rest.is_zero()) {
                self.take_events(Some(Duration::ZERO))?;
                if self.runnable.is_empty() && !self.accepting && !self.peek() {
                    self.woken = false;
                    return Ok(None);
                }
                self.run(pool)?;
                return Ok(self.next());
            }
            self.sleep(rest.map_or(timer, |rest| rest.min(timer)))?;
        }
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.waker))
    }
}

impl<C: Carrier> Drop for Streams<C> {
    /// What has been handed over is sent, for at most a second; then connections are ended, and what still comes is
    /// read for a moment, so that the other side can read what was sent before it sees the end.
    fn drop(&mut self) {
        let until = Clock::now() + Duration::from_secs(1);
        let unsent = |streams: &mut Self| {
            let links = streams.links.iter_mut().flatten().filter(|link| matches!(link.state, State::Open { .. }));
            let mut sink = VecDeque::new();
            links.filter_map(|link| link.write(&mut sink).ok()).fold(false, |unsent, done| unsent | !done)
        };
        while unsent(self) && Clock::now() < until {
            if self.take_events(Some(Duration::from_millis(5))).is_err() {
                break;
            }
        }
        let open = |link: &Link<C::Stream>| matches!(link.state, State::Open { .. });
        self.links.iter_mut().flatten().filter(|link| open(link)).for_each(|link| link.stream.shutdown());
        let until = Clock::now() + Duration::from_millis(200);
        let mut sink = [0; 4096];
        let mut still: Vec<_> = self.links.iter_mut().flatten().filter(|link| open(link)).collect();
        while !still.is_empty() && Clock::now() < until {
            still.retain_mut(|link| match link.stream.read(&mut sink) {
                Ok(n) => n > 0,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            });
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
