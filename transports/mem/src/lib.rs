//! Transport between the threads of one process.
//!
//! ```
//! use gradwire_core::{PeerId, Transport};
//! use gradwire_mem::Mem;
//!
//! let nodes = Mem::cluster(3); // one for each thread
//! assert_eq!(nodes[2].place(), (PeerId(2), 3));
//! ```
//!
//! Each node has a [`Mem`] and moves it into its thread. A node sends by putting a message into the receiver's mailbox,
//! a queue behind a mutex. The body is lent, not copied: the receiver copies it once, from the sender's buffer into its
//! own, and then the loan ends. Sending and receiving allocate nothing once the queues have grown to their working
//! size.
//!
//! Two nodes are connected when one of them wants the other ([`Transport::want`]), and stay connected: a connection costs
//! no more than its queues. Without a call of `want`, all nodes are connected.
//!
//! A `Mem` that is dropped does not come back: its peers get `Disconnected`, and their operations with it are aborted.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::time::Instant;

use gradwire_core::kernel::KernelResult;
use gradwire_core::wire::Header;
use gradwire_core::{
    Duration, Input, Lent, OpId, PeerId, Pool, ProtocolError, RunId, Segment, Transport, TransportError,
};

/// One node's end of an in-process network.
///
/// ```
/// use gradwire_core::wire::{Header, Message, Push};
/// use gradwire_core::{BufferId, Clock, Incarnation, Input, OpId, PeerId, Pool, Segment, Sequence, ShardId, Transport};
/// use gradwire_mem::Mem;
///
/// let mut nodes = Mem::cluster(2);
/// let (mut b, mut a) = (nodes.pop().unwrap(), nodes.pop().unwrap());
/// // Each node has a pool, here with one buffer of two floats.
/// let (mut a_pool, mut b_pool) = (Pool::new([8]), Pool::new([8]));
/// let floats = Segment { buffer: BufferId(0), start: 0, len: 8 };
/// a_pool.floats_mut(floats).copy_from_slice(&[1.0, 2.0]);
///
/// let (shard, worker, incarnation) = (ShardId(0), PeerId(0), Incarnation(1));
/// let (sequence, base) = (Sequence(1), Clock(0));
/// let (weight, repeats, fetches, step_time, rider) = (1, false, true, None, None);
/// let push = Push { shard, worker, incarnation, sequence, base, weight, repeats, fetches, step_time, rider };
/// let header = Header::new(0, worker, incarnation, 8, Message::Push(push));
/// a.transmit(OpId(1), PeerId(1), header, Some(floats), &a_pool);
///
/// assert_eq!(b.poll(&mut b_pool, None)?, Some(Input::Connected { peer: PeerId(0) }));
/// assert_eq!(b.poll(&mut b_pool, None)?, Some(Input::Header { peer: PeerId(0), header }));
/// b.receive(OpId(1), PeerId(0), Some(floats), &mut b_pool);
/// assert!(matches!(b.poll(&mut b_pool, None)?, Some(Input::Completed { op: OpId(1), .. })));
/// assert_eq!(b_pool.floats(floats), [1.0, 2.0]);
/// # Ok::<(), gradwire_core::TransportError>(())
/// ```
#[derive(Debug)]
pub struct Mem {
    /// This node's rank.
    me: PeerId,
    /// Mailboxes of all nodes, by rank.
    mailboxes: Arc<[Arc<Mailbox>]>,
    /// The run of all nodes, and whether one of them has set it. Until then it is a random name.
    run: Arc<Mutex<(RunId, bool)>>,
    /// Inputs for the machine, in order.
    ready: VecDeque<Input>,
    /// State of each peer, by rank.
    streams: Vec<Stream>,
    /// The peers that this node wants have been connected: as [`Transport::want`] has said, or all with the first call.
    begun: bool,
    /// Processors of this machine.
    processors: usize,
    /// How long to look for letters before sleeping: waking up from sleep costs tens of microseconds.
    spin: Duration,
}

/// How long a node looks for letters before it sleeps, where its threads have processors of their own.
const SPIN: Duration = Duration::from_micros(50);

/// The state that this node keeps for one peer.
#[derive(Debug, Default)]
struct Stream {
    /// Messages that have arrived and not been received.
    messages: VecDeque<Message>,
    /// The machine has the header of the first message, and has not received its body.
    reading: bool,
    connected: bool,
    /// There was a connection, and there will be no other.
    ended: bool,
    /// This node's transmissions to the peer that have not ended.
    open: Vec<OpId>,
}

#[derive(Debug)]
struct Message {
    /// The sender's operation.
    op: OpId,
    header: Header,
    body: Option<Lent>,
}

/// The queue through which other threads reach one node.
#[derive(Debug, Default)]
struct Mailbox {
    letters: Mutex<Letters>,
    /// There are letters, or the waker was called. Changed with the lock held, and read without it.
    has_news: AtomicBool,
    /// Notified when a letter is added or the waker is called, if the node sleeps.
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Letters {
    /// Sender and letter, in order of arrival.
    queue: VecDeque<(PeerId, Letter)>,
    /// The waker was called.
    woken: bool,
    /// The node has been dropped: no letter is taken from here any more.
    closed: bool,
    /// The node sleeps. A notification is a system call, which is spared if it does not.
    sleeps: bool,
}

#[derive(Debug)]
enum Letter {
    /// The sender wants the connection.
    Connected,
    Message(Message),
    /// The message of this operation has been received: its buffer is free again.
    Received(OpId),
    /// The sender has closed the connection or was dropped.
    Disconnected,
}

impl Mem {
    /// The ends of a network of `nodes` nodes, in order of rank.
    pub fn cluster(nodes: u32) -> Vec<Self> {
        let mailboxes: Arc<[_]> = (0..nodes).map(|_| Arc::new(Mailbox::default())).collect();
        let drawn = RunId::drawn(RandomState::new().build_hasher().finish());
        let run = Arc::new(Mutex::new((drawn, false)));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let spin = spin(2 * nodes as usize, processors);
        let endpoint = |me| Self {
            me: PeerId(me),
            mailboxes: Arc::clone(&mailboxes),
            run: Arc::clone(&run),
            ready: VecDeque::new(),
            streams: (0..nodes).map(|_| Stream::default()).collect(),
            begun: false,
            processors,
            spin,
        };
        (0..nodes).map(endpoint).collect()
    }

    /// Posts a letter. Returns false if the node has been dropped.
    fn post(&self, to: PeerId, letter: Letter) -> bool {
        let mut open = true;
        self.mailboxes[to.index()].put(|letters| {
            open = !letters.closed;
            if open {
                letters.queue.push_back((self.me, letter));
            }
        });
        open
    }

    /// Connects this node with all others, unless it has been told whom it wants.
    fn maybe_begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            (0..self.streams.len() as u32).for_each(|peer| self.connect(PeerId(peer)));
        }
    }

    /// Connects this node with a peer, if it was not before. A peer that has been dropped ends the connection at once.
    fn connect(&mut self, peer: PeerId) {
        let stream = &mut self.streams[peer.index()];
        if peer == self.me || stream.connected || stream.ended {
            return;
        }
        stream.connected = true;
        self.ready.push_back(Input::Connected { peer });
        if !self.post(peer, Letter::Connected) {
            self.disconnect(peer);
        }
    }

    /// Handles a letter from this node's mailbox.
    fn on_letter(&mut self, from: PeerId, letter: Letter) {
        let stream = &mut self.streams[from.index()];
        match letter {
            Letter::Connected if !stream.connected && !stream.ended => {
                stream.connected = true;
                self.ready.push_back(Input::Connected { peer: from });
            }
            Letter::Message(message) if stream.connected => {
                stream.messages.push_back(message);
                self.deliver_headers(from);
            }
            Letter::Received(op) => {
                // Unknown after a disconnect, which has aborted the operation already.
                if let Some(index) = stream.open.iter().position(|open| *open == op) {
                    stream.open.swap_remove(index);
                    self.ready.push_back(Input::Completed { op, result: KernelResult::Nothing });
                }
            }
            Letter::Disconnected if stream.connected => self.disconnect(from),
            // Both nodes wanted the connection, the sender did not know that this node had closed it, or it has been
            // dropped: a later wish finds that out.
            Letter::Message(_) | Letter::Connected | Letter::Disconnected => {}
        }
    }

    /// Ends the connection on this side, and aborts the operations on it.
    fn disconnect(&mut self, peer: PeerId) {
        let stream = &mut self.streams[peer.index()];
        (stream.connected, stream.ended) = (false, true);
        stream.reading = false;
        // Ends the loans of the sender's buffers.
        stream.messages.clear();
        self.ready.push_back(Input::Disconnected { peer });
        self.ready.extend(stream.open.drain(..).map(|op| Input::Aborted { op }));
    }

    /// Passes headers from a peer to the machine, up to and including the first message with a body: the contract of
    /// [`Transport`] is that the next header comes only after that body has been received.
    fn deliver_headers(&mut self, peer: PeerId) {
        loop {
            let stream = &mut self.streams[peer.index()];
            let Some(front) = stream.messages.front().filter(|_| !stream.reading) else { return };
            let header = front.header;
            stream.reading = front.body.is_some();
            // A message without a body is complete: its sender need not wait for a call of `receive`.
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
    fn place(&self) -> (PeerId, u32) {
        (self.me, self.mailboxes.len() as u32)
    }

    /// Zero: a thread that has dropped its end cannot connect again.
    fn patience(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn run(&self) -> Option<RunId> {
        Some(self.run.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// The first node that sets the run sets it for all. Nodes that have been given different runs refuse each other's
    /// hello.
    fn set_run(&mut self, run: RunId) {
        let mut shared = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        if !shared.1 {
            *shared = (run, true);
        }
    }

    fn propose_run(&mut self, run: RunId) {
        let mut shared = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        if !shared.1 {
            shared.0 = run;
        }
    }

    fn connects_on_demand(&self) -> bool {
        true
    }

    fn want(&mut self, peers: &[PeerId]) {
        self.begun = true;
        peers.iter().for_each(|peer| self.connect(*peer));
    }

    fn set_caller_driven(&mut self, caller_driven: bool) {
        // A node that its caller does not drive has two threads.
        let threads = if caller_driven { 1 } else { 2 };
        self.spin = spin(threads * self.mailboxes.len(), self.processors);
    }

    fn transmit(&mut self, op: OpId, peer: PeerId, header: Header, body: Option<Segment>, pool: &Pool) {
        self.maybe_begin();
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
        // The loan must end before the sender is notified: it may write to its buffer at once.
        drop(message);
        self.post(peer, Letter::Received(sender_op));
        self.ready.push_back(Input::Completed { op, result: KernelResult::Nothing });
        self.deliver_headers(peer);
    }

    fn close(&mut self, peer: PeerId, _reason: ProtocolError) {
        if self.streams[peer.index()].connected {
            self.post(peer, Letter::Disconnected);
            self.disconnect(peer);
        }
    }

    fn poll(&mut self, _pool: &mut Pool, wait: Option<Duration>) -> Result<Option<Input>, TransportError> {
        self.maybe_begin();
        // A moment that the clock cannot name never comes.
        let until = wait.and_then(|wait| Instant::now().checked_add(wait));
        let mailbox = Arc::clone(&self.mailboxes[self.me.index()]);
        let mut spin = self.spin;
        loop {
            if let Some(input) = self.ready.pop_front() {
                return Ok(Some(input));
            }
            let mut letters = mailbox.lock();
            loop {
                if let Some((from, letter)) = letters.queue.pop_front() {
                    // Handling a letter can post into other mailboxes: holding two locks could deadlock.
                    drop(letters);
                    self.on_letter(from, letter);
                    break;
                }
                // After the letters: a waker that is called all the time must not hold them up.
                if std::mem::take(&mut letters.woken) {
                    return Ok(None);
                }
                mailbox.has_news.store(false, Ordering::Relaxed);
                let rest = until.map(|until| until.saturating_duration_since(Instant::now()));
                if rest == Some(Duration::ZERO) {
                    return Ok(None);
                }
                let spin = std::mem::take(&mut spin);
                if !spin.is_zero() {
                    drop(letters);
                    mailbox.spin(rest.map_or(spin, |rest| rest.min(spin)));
                    letters = mailbox.lock();
                    continue;
                }
                letters.sleeps = true;
                letters = match rest {
                    None => mailbox.arrived.wait(letters).unwrap_or_else(PoisonError::into_inner),
                    Some(rest) => mailbox.arrived.wait_timeout(letters, rest).unwrap_or_else(PoisonError::into_inner).0,
                };
                letters.sleeps = false;
            }
        }
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.mailboxes[self.me.index()]))
    }
}

impl Drop for Mem {
    fn drop(&mut self) {
        // Nodes that want this one from now on find that it is gone. Those that have wanted it hear of it below.
        self.mailboxes[self.me.index()].lock().closed = true;
        // Peers would wait for ever without this: no socket closes when a thread ends.
        for peer in (0..self.streams.len() as u32).map(PeerId) {
            if peer != self.me && !self.streams[peer.index()].ended {
                self.post(peer, Letter::Disconnected);
            }
        }
    }
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Letters> {
        // A poisoned lock is still good: no code that holds it can panic halfway through a change.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the letters, and wakes the node if it sleeps.
    fn put(&self, change: impl FnOnce(&mut Letters)) {
        let mut letters = self.lock();
        change(&mut letters);
        self.has_news.store(true, Ordering::Release);
        let sleeps = letters.sleeps;
        drop(letters);
        if sleeps {
            // Only the mailbox's own node waits for it.
            self.arrived.notify_one();
        }
    }

    /// Waits until there are news, for at most `span`, without sleeping.
    fn spin(&self, span: Duration) {
        let begun = Instant::now();
        while !self.has_news.load(Ordering::Acquire) && begun.elapsed() < span {
            std::hint::spin_loop();
        }
    }
}

/// How long a node spins, if all nodes together have so many threads. A thread that spins must not take the processor
/// from one that could work.
fn spin(threads: usize, processors: usize) -> Duration {
    if threads <= processors { SPIN } else { Duration::ZERO }
}

impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.put(|letters| letters.woken = true);
    }
}

#[cfg(test)]
mod tests;
