//! [`Streams`], the transport: it owns the connections of this node, and decides when to dial, accept, read, write and
//! disconnect. Here: timers, dialling, the table of links, and the loop over links with work. `accepting` gives strangers
//! their places; `greeting` exchanges preambles and addresses; `wishes` says which peers are connected; `transport`
//! implements [`Transport`](gradwire_core::Transport) and the end.
//!
//! Two tables describe connections. `links` holds each connection by *slot*, strangers included; `peers` holds each
//! rank, with the slot of its connection. The poll reports readiness once per change (edge-triggered): a link with work
//! left at the end of a pass must stay in `runnable`, because no further event would announce it.

mod accepting;
mod greeting;
mod transport;
mod wishes;

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::task::Wake;
use std::time::{Duration, Instant};

use gradwire_core::kernel::KernelResult;
use gradwire_core::{Input, OpId, PeerId, Pool, RunId};
use mio::{Events, Interest, Poll, Registry, Token};

use crate::carrier::{Carrier, Stream};
use crate::causes::Causes;
use crate::control::Control;
use crate::link::{Link, State};
use crate::notice::{Notice, StreamError};
use crate::preamble::{KnownRun, cluster_digest};
use crate::reader::Step;
use crate::strangers::{STRANGERS_MAX, Strangers};

/// How long carrier handshake and greeting of a connection may take together.
pub const GREETING_MAX: Duration = Duration::from_secs(5);
/// Least value of [`Config::dead_after`]: below it, the load of a host alone makes peers look dead.
pub const DEAD_AFTER_MIN: Duration = Duration::from_millis(100);
/// Largest value of [`Config::dead_after`]: a century. Sums of longer times with the clock would overflow.
pub const DEAD_AFTER_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// Frames read from one connection in one pass, so that one busy peer does not delay the rest.
const STEPS_PER_PASS: usize = 64;
/// Most frames queued for one peer. Machines queue far fewer; a longer queue means that the peer never reads.
const QUEUE_MAX: usize = 64 * 1024;
/// Pauses between attempts to dial: the first, and the longest. They double from one to the other.
const REDIAL_MIN: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(1);
/// Longest pause after a peer has closed the connection during the greeting. It runs, and may have too many connections
/// to greet at this moment.
const REDIAL_CROWDED: Duration = Duration::from_millis(250);
/// Handshakes in a row that a peer may answer wrongly before another kind of program, or another key, is assumed there.
const FAILED_HANDSHAKES_MAX: u32 = 5;
/// Least time between two notices that the same peer is unreachable.
const UNREACHABLE_NOTICE_EVERY: Duration = Duration::from_secs(10);
/// Passes over the links between two looks at the poll while there is always work left. Without them, new connections
/// and the waker would have to wait for a moment without work.
const PASSES_PER_POLL: u32 = 16;
/// Looks at links that are seen without the kernel between two looks at the poll, while a node spins.
const PEEKS_PER_POLL: u32 = 32;
/// Interval of the timer while peers are missing, so that dialling keeps close to its pauses.
const TICK: Duration = Duration::from_millis(10);
/// How long a node polls before it sleeps, unless configured.
const SPIN: Duration = Duration::from_micros(50);
/// `dead_after`, unless configured.
const DEAD_AFTER: Duration = Duration::from_secs(5);

/// Tokens of the poll. Links follow: slot `i` has token `FIRST_LINK + i`.
const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST_LINK: usize = 2;

/// The settings that all stream transports share. Their builders fill it in.
pub struct Config {
    /// This node's rank.
    pub rank: PeerId,
    /// Number of nodes, workers and servers together.
    pub nodes: u32,
    /// Number of servers, which are the nodes of the last ranks. It decides which node of a pair dials, see
    /// [`Streams`].
    pub servers: u32,
    /// Name of the cluster. Nodes of another cluster are refused.
    pub cluster: String,
    /// All timeouts are fractions of this: a peer that is silent for so long is given up.
    pub dead_after: Duration,
    /// How long to poll for work before sleeping: waking up from sleep costs tens of microseconds. Zero where nodes
    /// outnumber processors.
    pub spin: Duration,
    /// Called with each [`Notice`], on the thread that polls the transport.
    pub notices: Box<dyn FnMut(Notice) + Send>,
}

impl Config {
    /// The defaults: no servers, cluster `gradwire`, `dead_after` 5 s, `spin` 50 µs, notices dropped.
    pub fn new(rank: u32, nodes: u32) -> Self {
        Self {
            rank: PeerId(rank),
            nodes,
            servers: 0,
            cluster: "gradwire".to_string(),
            dead_after: DEAD_AFTER,
            spin: SPIN,
            notices: Box::new(|_| {}),
        }
    }
}

/// A [`Transport`](gradwire_core::Transport) over the connections of a [`Carrier`].
///
/// It has no thread of its own: connections are dialled, accepted, read and kept alive within `poll`. If `poll` is not
/// called for two fifths of `dead_after`, peers disconnect this node, unless it has announced the pause with `busy`.
/// Dropping the transport sends queued frames for at most a second, and then closes the connections.
pub struct Streams<C: Carrier> {
    carrier: C,
    config: Config,
    /// Digest of the cluster's name.
    cluster: u64,
    /// The run of this node. `None`: it has not been given one, and no peer has named one yet.
    run: Option<KnownRun>,
    /// Random number of this process, never 0. It distinguishes a peer that reconnects from one that was restarted.
    instance: u64,
    poll: Poll,
    events: Events,
    waker: Arc<PollWaker>,
    listener: C::Listener,
    /// Connections may be waiting at the listener.
    accepting: bool,
    /// An event has shown that a connection is waiting.
    pending: bool,
    /// The last call of `accept` has failed. It raises no new event when the cause has passed.
    failed: bool,
    /// A descriptor for a newcomer that comes when no other one is left, until it is used.
    reserve: Option<Registry>,
    /// The number of descriptors that this process may have.
    descriptors_max: u64,
    /// The slots of strangers.
    strangers: Strangers,
    /// Places for strangers: `STRANGERS_MAX`, or fewer when descriptors run short.
    places: usize,
    /// Rejected strangers, by cause.
    causes: Causes,
    /// Connections by slot. Slots are reused.
    links: Vec<Option<Link<C::Stream>>>,
    /// Slots of links that may have bytes to read, or room to write. Each slot is listed at most once.
    runnable: Vec<usize>,
    /// The second list of `run`, kept so that no pass allocates.
    spare: Vec<usize>,
    /// Nodes by rank. The entry of this node stays unused.
    peers: Vec<Peer>,
    /// Inputs for the machine, in order.
    ready: VecDeque<Input>,
    /// Scratch list of operations with frames that have been written.
    sent: VecDeque<OpId>,
    /// When timers are due next.
    timer: Instant,
    /// When the clock was last read in `on_time`: a long gap means that this node did not poll.
    last_time: Instant,
    /// Passes since the last look at the poll, modulo `PASSES_PER_POLL`.
    passes: u32,
    /// The waker was called.
    woken: bool,
    /// State of the generator behind `jitter`.
    random: u64,
}

#[derive(Debug)]
struct Peer {
    /// Slot of its connection: open, or dialled by this node and not yet open.
    link: Option<usize>,
    /// The connection in `link` is open.
    open: bool,
    /// `Connected` inputs of this peer in `ready`. Until the machine has taken the last of them, its calls refer to an
    /// earlier connection and must not reach the present one.
    unseen_connects: u32,
    /// Instance of the process at the last connection. 0: it was never connected.
    instance: u64,
    /// Where to dial it.
    address: Option<String>,
    /// When to dial next, if this node dials it.
    dial_at: Instant,
    /// Attempts to dial since the last open connection.
    attempts: u32,
    /// Handshakes in a row that the peer has ended, and when the first of them ended.
    failed_handshakes: u32,
    failing_since: Instant,
    /// Until when it has announced that it may be silent.
    busy_until: Option<Instant>,
    /// When the next notice that it is unreachable may be given.
    unreachable_notice_at: Instant,
    /// When it first refused this node, without a connection since.
    refused_since: Option<Instant>,
    /// The machine of this node wants to be connected with it.
    wanted: bool,
    /// What this node has said of that on the present connection.
    told: bool,
    /// Its machine wants to be connected with this node, as far as it has said on the present connection.
    wants: bool,
    /// Since when neither wants the open connection.
    spare_since: Option<Instant>,
}

#[derive(Debug)]
struct PollWaker(mio::Waker);

impl Wake for PollWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // This fails only after the transport has been dropped. Then no call of `poll` is left to wake.
        let _ = self.0.wake();
    }
}

impl<C: Carrier> Streams<C> {
    /// Starts a transport that accepts connections from `listener`. Dialling begins with the first call of `poll`.
    ///
    /// # Errors
    /// When the poll cannot be created, or `listener` cannot be registered with it.
    pub fn new(carrier: C, mut listener: C::Listener, config: Config) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(PollWaker(mio::Waker::new(poll.registry(), WAKER)?));
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let reserve = Some(poll.registry().try_clone()?);
        let now = Instant::now();
        let peer = |rank| Peer {
            link: None,
            open: false,
            unseen_connects: 0,
            instance: 0,
            address: carrier.address(PeerId(rank)),
            dial_at: now,
            attempts: 0,
            failed_handshakes: 0,
            failing_since: now,
            busy_until: None,
            unreachable_notice_at: now,
            refused_since: None,
            wanted: true,
            told: true,
            wants: true,
            spare_since: None,
        };
        // The keys of the standard library's hash maps are random; 0 is reserved for "never connected".
        let draw = || RandomState::new().build_hasher().finish();
        let instance = draw() | 1;
        // Until the caller sets a run, or a peer knows one.
        let run = (config.rank == PeerId(0)).then(|| KnownRun { run: RunId::drawn(draw()), known: false });
        Ok(Self {
            peers: (0..config.nodes).map(peer).collect(),
            carrier,
            cluster: cluster_digest(&config.cluster),
            run,
            config,
            instance,
            poll,
            events: Events::with_capacity(256),
            waker,
            listener,
            accepting: true,
            pending: false,
            failed: false,
            reserve,
            descriptors_max: accepting::descriptors_max(),
            strangers: Strangers::default(),
            places: STRANGERS_MAX,
            causes: Causes::default(),
            links: Vec::new(),
            runnable: Vec::new(),
            spare: Vec::new(),
            ready: VecDeque::new(),
            sent: VecDeque::new(),
            timer: now,
            last_time: now,
            passes: 0,
            woken: false,
            random: instance,
        })
    }

    /// The carrier, for example to ask where it listens.
    pub fn carrier(&self) -> &C {
        &self.carrier
    }

    // Time

    /// How long a peer may be silent before it is disconnected.
    fn silence(&self) -> Duration {
        self.config.dead_after * 2 / 5
    }

    /// Runs the timers that are due: greetings, keep-alive, silence, dialling.
    fn on_time(&mut self, now: Instant) -> Result<(), StreamError> {
        let every = self.config.dead_after / 10;
        let gap = now.saturating_duration_since(std::mem::replace(&mut self.last_time, now));
        // Shorter gaps are normal, and too short to matter for the silence limit.
        if gap > every {
            // This node did not poll for `gap`: bytes may have been waiting unread all the time. So the gap must not
            // count as silence of its peers.
            for link in self.links.iter_mut().flatten() {
                (link.heard_at, link.started_at) = (link.heard_at + gap, link.started_at + gap);
            }
        }
        if now < self.timer {
            return Ok(());
        }
        self.retry_accepting()?;
        self.restore_reserve();
        self.add_place();
        self.timer = now + if self.is_complete() { every / 2 } else { TICK.min(every) };
        for slot in 0..self.links.len() {
            let Some(link) = &mut self.links[slot] else { continue };
            match link.state {
                State::Establishing | State::Greeting { .. } if now > link.started_at + link.patience() => {
                    let text = format!("expected a greeting within {} s, got none", link.patience().as_secs());
                    self.on_greeting_failed(slot, &io::Error::new(io::ErrorKind::TimedOut, text))?;
                }
                State::Establishing | State::Greeting { .. } => {}
                State::Open { peer } => {
                    let busy = self.peers[peer].busy_until.filter(|until| now < *until);
                    if link.reader.is_held() || busy.is_some() {
                        // This node does not read, or the peer has announced its silence: neither counts.
                        link.heard_at = now;
                    }
                    if now >= link.queued_at + every && link.writer.is_empty() {
                        link.writer.control(Control::Alive);
                        link.queued_at = now;
                        self.mark_runnable(slot);
                    }
                    let link = self.links[slot].as_ref();
                    if link.is_some_and(|link| now > link.heard_at + self.silence()) {
                        let reason = format!("silent for {:.1} s", self.silence().as_secs_f64());
                        self.break_link(slot, reason);
                    }
                }
            }
        }
        for rank in 0..self.peers.len() {
            if self.is_dial_due(rank, now) {
                self.dial(rank, now)?;
            }
        }
        self.let_go(now);
        while let Some(notice) = self.causes.next_due(now) {
            (self.config.notices)(notice);
        }
        Ok(())
    }

    /// `pause` times a random factor from 0.75 to 1.25, so that nodes started together do not all dial at once.
    fn jitter(&mut self, pause: Duration) -> Duration {
        // A linear congruential generator (Knuth's MMIX constants). Quality does not matter here.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        pause.mul_f64(0.75 + 0.5 * (self.random >> 40) as f64 / (1u64 << 24) as f64)
    }

    /// Sets the time of the next attempt to dial: exponential back-off with jitter.
    fn dial_later(&mut self, rank: usize, now: Instant) {
        let doublings = self.peers[rank].attempts.min(8);
        let pause = self.jitter(REDIAL_MAX.min(REDIAL_MIN * 2u32.pow(doublings)));
        let peer = &mut self.peers[rank];
        peer.attempts += 1;
        peer.dial_at = now + pause;
    }

    /// Slot of the open connection to a peer, if it is the connection that the machine knows of.
    fn current_link(&self, rank: usize) -> Option<usize> {
        let peer = &self.peers[rank];
        peer.link.filter(|_| peer.open && peer.unseen_connects == 0)
    }

    /// Takes the next input for the machine.
    fn next_input(&mut self) -> Option<Input> {
        let input = self.ready.pop_front()?;
        if let Input::Connected { peer } = input {
            self.peers[peer.index()].unseen_connects -= 1;
        }
        Some(input)
    }

    // Connections

    /// Whether it is this node that dials `rank`, and not the other way round, if both want each other. All nodes dial
    /// rank 0, since they know its address. Workers dial servers. Else the higher rank dials.
    pub(super) fn dials(&self, rank: usize) -> bool {
        let (me, workers) = (self.config.rank.index(), self.config.nodes.saturating_sub(self.config.servers) as usize);
        match (me, rank) {
            (me, rank) if me == rank => false,
            (_, 0) => true,
            (0, _) => false,
            (me, rank) if (me < workers) != (rank < workers) => me < workers,
            (me, rank) => me > rank,
        }
    }

    fn dial(&mut self, rank: usize, now: Instant) -> Result<(), StreamError> {
        let Some(address) = self.peers[rank].address.clone() else { return Ok(()) };
        // The next attempt is scheduled before this one is known to fail, so that every kind of failure is covered.
        self.dial_later(rank, now);
        match self.carrier.dial(&address) {
            Ok(stream) => {
                let slot = self.insert(Link::new(stream, Some(rank as u32), now))?;
                self.peers[rank].link = Some(slot);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let peer = &mut self.peers[rank];
                (peer.attempts, peer.dial_at) = (peer.attempts.saturating_sub(1), now);
                Ok(())
            }
            Err(error) => {
                self.notify_unreachable(rank, error.to_string(), now);
                Ok(())
            }
        }
    }

    fn notify_unreachable(&mut self, rank: usize, reason: String, now: Instant) {
        // The other node may want the connection, and reach this one.
        if !self.dials(rank) {
            return;
        }
        let peer = &mut self.peers[rank];
        if now >= peer.unreachable_notice_at {
            peer.unreachable_notice_at = now + UNREACHABLE_NOTICE_EVERY;
            let address = peer.address.clone().unwrap_or_default();
            (self.config.notices)(Notice::Unreachable { peer: PeerId(rank as u32), address, reason });
        }
    }

    /// Adds a link in a free slot, registers it with the poll, and marks it runnable.
    fn insert(&mut self, mut link: Link<C::Stream>) -> Result<usize, StreamError> {
        let slot = self.links.iter().position(Option::is_none).unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(link.stream.source(), Token(FIRST_LINK + slot), interest)?;
        // `mark_runnable` sets this together with the list. The first pass finds out whether the link has work.
        link.runnable = false;
        self.links[slot] = Some(link);
        self.mark_runnable(slot);
        Ok(slot)
    }

    /// Removes a link from all tables. Its operations are left to the caller.
    fn remove(&mut self, slot: usize) -> Option<Link<C::Stream>> {
        let mut link = self.links[slot].take()?;
        // The slot may be reused at once: a stale entry would list the next link twice.
        self.runnable.retain(|runnable| *runnable != slot);
        if accepting::is_stranger(&link) {
            self.strangers.remove(slot);
            // It is closed next, which also ends the registration: a system call less for each.
            return Some(link);
        }
        // This fails only for a source that was never registered.
        let _ = self.poll.registry().deregister(link.stream.source());
        for peer in &mut self.peers {
            if peer.link == Some(slot) {
                (peer.link, peer.open, peer.spare_since) = (None, false, None);
            }
        }
        Some(link)
    }

    fn mark_runnable(&mut self, slot: usize) {
        if let Some(link) = self.links[slot].as_mut().filter(|link| !link.runnable) {
            link.runnable = true;
            self.runnable.push(slot);
        }
    }

    /// Closes an open connection: reports it to the machine, aborts its operations, and schedules dialling.
    fn break_link(&mut self, slot: usize, reason: String) {
        let Some(link) = self.remove(slot) else { return };
        let State::Open { peer: rank } = link.state else { return };
        let peer = PeerId(rank as u32);
        // Its descriptor has to be free for `restore_reserve`. And lent bodies that the peer reads from memory may be
        // given back only afterwards.
        drop(link.stream);
        // The contract of `Transport`: first `Disconnected`, then the end of each operation.
        self.ready.push_back(Input::Disconnected { peer });
        let aborted = link.writer.abort().chain(link.reader.open());
        self.ready.extend(aborted.map(|op| Input::Aborted { op }));
        self.peers[rank].dial_at = Instant::now();
        self.restore_reserve();
        (self.config.notices)(Notice::Disconnected { peer, reason });
    }

    /// A connection failed before it was open: reports it, and ends the run if the peer keeps answering wrongly.
    fn on_greeting_failed(&mut self, slot: usize, error: &io::Error) -> Result<(), StreamError> {
        let now = Instant::now();
        let Some(link) = self.remove(slot) else { return Ok(()) };
        let Some(rank) = link.dialled else {
            self.on_stranger_failed(link, error);
            return Ok(());
        };
        let rank = rank as usize;
        let peer = &mut self.peers[rank];
        // A peer that answers, again and again, but not as a node with this key, has another key or speaks another
        // protocol. That does not pass by itself. A connection that ends without an answer is no evidence: the peer may
        // be starting, ending, or making room for other connections.
        let wrong = [io::ErrorKind::InvalidData, io::ErrorKind::PermissionDenied, io::ErrorKind::Unsupported];
        let wrong = wrong.contains(&error.kind());
        peer.failed_handshakes = if wrong { peer.failed_handshakes + 1 } else { 0 };
        if peer.failed_handshakes <= 1 {
            peer.failing_since = now;
        }
        // A peer that was connected before has the right key: its host is overloaded or restarting.
        let strange = peer.instance == 0 && now > peer.failing_since + self.config.dead_after / 2;
        if peer.failed_handshakes >= FAILED_HANDSHAKES_MAX && strange {
            let (address, times) = (peer.address.clone().unwrap_or_default(), peer.failed_handshakes);
            return Err(StreamError::Handshake { peer: PeerId(rank as u32), address, times });
        }
        let hung_up = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        let reason = if hung_up.contains(&error.kind()) {
            peer.dial_at = peer.dial_at.min(now + REDIAL_CROWDED);
            "it closed the connection during the greeting (too many connections there, or another program)".to_string()
        } else {
            error.to_string()
        };
        self.notify_unreachable(rank, reason, now);
        Ok(())
    }

    // Work

    /// One pass: accepts connections, and lets each runnable link read and write a bounded amount.
    fn run(&mut self, pool: &mut Pool) -> Result<(), StreamError> {
        if self.accepting {
            self.accept(Instant::now())?;
        }
        // Links that stay runnable go into the other list, so that this pass visits each link once.
        let mut slots = std::mem::replace(&mut self.runnable, std::mem::take(&mut self.spare));
        for slot in slots.drain(..) {
            let Some(link) = &mut self.links[slot] else { continue };
            link.runnable = false;
            if self.run_link(slot, pool)? {
                self.mark_runnable(slot);
            }
        }
        self.spare = slots;
        Ok(())
    }

    /// Lets one link write and read. Returns true when it stopped only at its limit, and must run again.
    fn run_link(&mut self, slot: usize, pool: &mut Pool) -> Result<bool, StreamError> {
        let now = Instant::now();
        let Some(link) = &self.links[slot] else { return Ok(false) };
        if !matches!(link.state, State::Open { .. }) {
            self.greet(slot, now)?;
        }
        // The greeting may have opened or removed the link.
        let Some(Link { state: State::Open { peer }, .. }) = self.links[slot] else { return Ok(false) };
        let id = PeerId(peer as u32);
        self.write(slot);
        for _ in 0..STEPS_PER_PASS {
            let Some(link) = &mut self.links[slot] else { return Ok(false) };
            match link.step(pool, now) {
                Ok(Step::Header(header)) => {
                    link.spoke = true;
                    self.ready.push_back(Input::Header { peer: id, header });
                }
                Ok(Step::Body(op)) => self.ready.push_back(Input::Completed { op, result: KernelResult::Nothing }),
                Ok(Step::Control(Control::Busy { millis })) => {
                    self.peers[peer].busy_until = Some(now + Duration::from_millis(millis.into()));
                }
                Ok(Step::Control(Control::Wanted { wanted })) => self.on_wish(peer, wanted, now),
                Ok(Step::Control(Control::Alive | Control::Book { .. })) => {}
                Ok(Step::Book(book)) => self.on_book(peer, book),
                // A held body is not read, so a closed connection would go unnoticed: ask the carrier.
                Ok(Step::Held) if !link.stream.is_over(link.reader.held()) => return Ok(false),
                Ok(Step::Blocked) => return Ok(false),
                Ok(Step::Ended | Step::Held) => {
                    self.break_link(slot, "the peer closed the connection".to_string());
                    return Ok(false);
                }
                Err(error) => {
                    self.break_link(slot, error.to_string());
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Writes queued frames of a link, and completes their operations.
    fn write(&mut self, slot: usize) {
        let Some(link) = &mut self.links[slot] else { return };
        let result = link.write(&mut self.sent);
        // Also on an error: these frames were written before it.
        self.ready.extend(self.sent.drain(..).map(|op| Input::Completed { op, result: KernelResult::Nothing }));
        if let Err(error) = result {
            self.break_link(slot, error.to_string());
        }
    }

    /// Waits for events for at most `wait`, and marks their links runnable.
    fn take_events(&mut self, wait: Option<Duration>) -> Result<(), StreamError> {
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        // `events` is borrowed below, so `mark_runnable`, which borrows all of `self`, cannot be called.
        let mut slots = std::mem::take(&mut self.runnable);
        for event in &self.events {
            match event.token() {
                LISTENER => (self.accepting, self.pending) = (true, true),
                WAKER => self.woken = true,
                Token(token) => {
                    let slot = token - FIRST_LINK;
                    let Some(link) = self.links.get_mut(slot).and_then(Option::as_mut) else { continue };
                    link.stream.stirred();
                    if !std::mem::replace(&mut link.runnable, true) {
                        slots.push(slot);
                    }
                }
            }
        }
        self.runnable = slots;
        Ok(())
    }

    /// Checks all links for work without a system call, and marks the ones that have some. Returns whether any has.
    fn peek(&mut self) -> bool {
        let mut found = false;
        for slot in 0..self.links.len() {
            let Some(link) = &mut self.links[slot] else { continue };
            let (reads, writes) = link.wants();
            if link.stream.peek(reads, writes) {
                self.mark_runnable(slot);
                found = true;
            }
        }
        found
    }

    /// Looks at the links between two looks at the kernel, while this node spins.
    fn peeks_per_poll(&self) -> u32 {
        if self.links.iter().flatten().all(|link| link.stream.can_peek()) { PEEKS_PER_POLL } else { 1 }
    }

    /// Waits until there is work, for at most `wait`: polls for `spin` first, and then sleeps.
    fn sleep(&mut self, wait: Duration) -> Result<(), StreamError> {
        let begun = Instant::now();
        let spin = self.config.spin.min(wait);
        let peeks_per_poll = self.peeks_per_poll();
        for peeks in 1u32.. {
            if self.peek() {
                return Ok(());
            }
            if peeks.is_multiple_of(peeks_per_poll) {
                self.take_events(Some(Duration::ZERO))?;
            }
            if !self.runnable.is_empty() || self.accepting || self.woken {
                return Ok(());
            }
            if begun.elapsed() >= spin {
                break;
            }
            std::hint::spin_loop();
        }
        // From here on peers wake this node up. Work that came before it armed must not be slept over, so `arm` checks
        // once more.
        for slot in 0..self.links.len() {
            let Some(link) = &mut self.links[slot] else { continue };
            let (reads, writes) = link.wants();
            if link.stream.arm(reads, writes) {
                self.mark_runnable(slot);
            }
        }
        let wait = if self.runnable.is_empty() { wait } else { Duration::ZERO };
        self.take_events(Some(wait))
    }
}

impl<C: Carrier> std::fmt::Debug for Streams<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("rank", &self.config.rank).field("nodes", &self.config.nodes).finish()
    }
}
