//! Threads of one process.
//!
//! A body is lent, not copied: the receiver copies it straight from the sender's buffer into its own place, once,
//! and then the loan ends. Headers are passed as values. Nothing is allocated per message once the queues have
//! grown to their working size.
//!
//! An endpoint that is dropped is gone for good: its peers see it disconnect, and what they had under way with it is
//! aborted.
//!
//! ```
//! use gradwire_core::Transport;
//! let endpoints = gradwire_mem::Mem::cluster(3);
//! assert_eq!(endpoints[2].place(), (gradwire_core::PeerId(2), 3));
//! ```

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::time::Instant as Clock;

use gradwire_core::kernel::KernelResult;
use gradwire_core::wire::Header;
use gradwire_core::{Duration, Input, Lent, OpId, PeerId, Pool, ProtocolError, Segment, Transport};

/// One node's end of an in-process network.
#[derive(Debug)]
pub struct Mem {
    me: PeerId,
    mailboxes: Arc<[Arc<Mailbox>]>,
    /// What was found out while doing something else.
    ready: VecDeque<Input>,
    /// Messages that have come, by peer. The front's header may have been given and its body not yet read.
    streams: Vec<Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    messages: VecDeque<Message>,
    /// The front's header has been given.
    reading: bool,
    connected: bool,
    /// Own operations with this peer that have not ended.
    open: Vec<OpId>,
}

#[derive(Debug)]
struct Message {
    op: OpId,
    header: Header,
    body: Option<Lent>,
}

/// What other threads put in for this one.
#[derive(Debug, Default)]
struct Mailbox {
    letters: Mutex<Letters>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Letters {
    queue: VecDeque<(PeerId, Letter)>,
    woken: bool,
}

#[derive(Debug)]
enum Letter {
    Message(Message),
    /// The receiver has read what this operation sent.
    Received(OpId),
    Disconnected,
}

impl Mem {
    /// Endpoints of `nodes` nodes, in order of rank, all connected with each other.
    pub fn cluster(nodes: u32) -> Vec<Self> {
        let mailboxes: Arc<[_]> = (0..nodes).map(|_| Arc::new(Mailbox::default())).collect();
        let endpoint = |me| {
            let peers = (0..nodes).filter(|peer| *peer != me).map(PeerId);
            let ready = peers.map(|peer| Input::Connected { peer }).collect();
            let stream = |peer| Stream { connected: peer != me, ..Stream::default() };
            Self { me: PeerId(me), mailboxes: Arc::clone(&mailboxes), ready, streams: (0..nodes).map(stream).collect() }
        };
        (0..nodes).map(endpoint).collect()
    }

    fn post(&self, to: PeerId, letter: Letter) {
        let mailbox = &self.mailboxes[to.index()];
        mailbox.lock().queue.push_back((self.me, letter));
        mailbox.arrived.notify_one();
    }

    fn on_letter(&mut self, from: PeerId, letter: Letter) {
        let stream = &mut self.streams[from.index()];
        match letter {
            Letter::Message(message) if stream.connected => {
                stream.messages.push_back(message);
                self.give_next(from);
            }
            Letter::Received(op) => {
                if let Some(index) = stream.open.iter().position(|open| *open == op) {
                    stream.open.swap_remove(index);
                    self.ready.push_back(Input::Completed { op, result: KernelResult::Nothing });
                }
            }
            Letter::Disconnected if stream.connected => self.drop_stream(from),
            Letter::Message(_) | Letter::Disconnected => {}
        }
    }

    fn drop_stream(&mut self, peer: PeerId) {
        let stream = &mut self.streams[peer.index()];
        stream.connected = false;
        stream.reading = false;
        stream.messages.clear();
        self.ready.push_back(Input::Disconnected { peer });
        self.ready.extend(stream.open.drain(..).map(|op| Input::Aborted { op }));
    }

    /// Gives the headers at the front of a stream, up to one whose body must be read first.
    fn give_next(&mut self, peer: PeerId) {
        loop {
            let stream = &mut self.streams[peer.index()];
            let Some(front) = stream.messages.front().filter(|_| !stream.reading) else { return };
            let header = front.header;
            stream.reading = front.body.is_some();
            if !stream.reading
                && let Some(message) = stream.messages.pop_front()
            {
                self.post(peer, Letter::Received(message.op));
            }
            self.ready.push_back(Input::Header { peer, header });
        }
    }
}

impl Transport for Mem {
    type Error = Infallible;

    fn place(&self) -> (PeerId, u32) {
        (self.me, self.mailboxes.len() as u32)
    }

    fn patience(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn transmit(&mut self, op: OpId, peer: PeerId, header: Header, body: Option<Segment>, pool: &Pool) {
        let stream = &mut self.streams[peer.index()];
        if !stream.connected {
            self.ready.push_back(Input::Aborted { op });
            return;
        }
        stream.open.push(op);
        self.post(peer, Letter::Message(Message { op, header, body: body.map(|body| pool.lend(body)) }));
    }

    fn receive(&mut self, op: OpId, peer: PeerId, into: Option<Segment>, pool: &mut Pool) {
        let stream = &mut self.streams[peer.index()];
        let Some(message) = stream.messages.pop_front().filter(|_| stream.reading) else {
            self.ready.push_back(Input::Aborted { op });
            return;
        };
        stream.reading = false;
        if let (Some(into), Some(body)) = (into, &message.body) {
            pool.bytes_mut(into).copy_from_slice(body.bytes());
        }
        let sender_op = message.op;
        // The loan ends before the sender hears of it: it may write to its buffer at once.
        drop(message);
        self.post(peer, Letter::Received(sender_op));
        self.ready.push_back(Input::Completed { op, result: KernelResult::Nothing });
        self.give_next(peer);
    }

    fn close(&mut self, peer: PeerId, _reason: ProtocolError) {
        if self.streams[peer.index()].connected {
            self.post(peer, Letter::Disconnected);
            self.drop_stream(peer);
        }
    }

    fn poll(&mut self, _pool: &mut Pool, wait: Option<Duration>) -> Result<Option<Input>, Infallible> {
        let until = wait.map(|wait| Clock::now() + wait);
        let mailbox = Arc::clone(&self.mailboxes[self.me.index()]);
        loop {
            if let Some(input) = self.ready.pop_front() {
                return Ok(Some(input));
            }
            let mut letters = mailbox.lock();
            loop {
                if let Some((from, letter)) = letters.queue.pop_front() {
                    drop(letters);
                    self.on_letter(from, letter);
                    break;
                }
                if std::mem::take(&mut letters.woken) {
                    return Ok(None);
                }
                letters = match until.map(|until| until.saturating_duration_since(Clock::now())) {
                    None => mailbox.arrived.wait(letters).unwrap_or_else(PoisonError::into_inner),
                    Some(Duration::ZERO) => return Ok(None),
                    Some(rest) => mailbox.arrived.wait_timeout(letters, rest).unwrap_or_else(PoisonError::into_inner).0,
                };
            }
        }
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.mailboxes[self.me.index()]))
    }
}

impl Drop for Mem {
    fn drop(&mut self) {
        for peer in (0..self.streams.len() as u32).map(PeerId) {
            if self.streams[peer.index()].connected {
                self.post(peer, Letter::Disconnected);
            }
        }
    }
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Letters> {
        // Nothing that holds the lock can panic between two steps that belong together.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.lock().woken = true;
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests;
