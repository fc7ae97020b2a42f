//! The transport: connections to all other nodes, and what becomes of them.

mod greeting;
mod transport;

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::task::Wake;
use std::time::{Duration, Instant as Clock};

use gradwire_core::kernel::KernelResult;
use gradwire_core::{Input, OpId, PeerId, Pool};
use mio::{Events, Interest, Poll, Token};

use crate::carrier::{Carrier, Stream};
use crate::control::Control;
use crate::link::{Link, State};
use crate::notice::{Notice, StreamError};
use crate::reader::Step;

/// Connections at once that have not said who they are.
pub const STRANGERS_MAX: usize = 64;
/// How long one may take for that.
pub const GREETING_MAX: Duration = Duration::from_secs(5);
/// Those among them from one host.
const STRANGERS_OF_HOST_MAX: usize = 8;
/// Connections accepted in one turn.
const ACCEPTS: usize = 16;
/// Messages without a body taken from one connection in one turn.
const STEPS: usize = 64;
/// Frames that may wait for one peer. Machines keep far below it; more is a peer that never reads.
const QUEUE_MAX: usize = 64 * 1024;
/// First and last pause between attempts to connect.
const PAUSE: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Handshakes that a peer may end in a row before it counts as another program.
const HANDSHAKES: u32 = 5;
/// Peers that cannot be reached are told of so often.
const TELL: Duration = Duration::from_secs(10);
/// Strangers that are turned away are told of one by one as long as they are no more than this apart.
const TELL_OF_STRANGERS: Duration = Duration::from_millis(100);
/// Rounds of work after which events are taken, though there is work left.
const ROUNDS: u32 = 16;

/// How often to look at the clock while peers are missing.
const TICK: Duration = Duration::from_millis(10);

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST: usize = 2;

/// What a stream transport is told at its start.
pub struct Config {
    /// This node's rank.
    pub rank: PeerId,
    /// How many nodes there are.
    pub nodes: u32,
    /// Name of the cluster: nodes of another one are turned away.
    pub cluster: String,
    /// The base figure of all timeouts: a peer that is silent for so long is given up.
    pub dead_after: Duration,
    /// How long to look for something to do before going to sleep: waking up costs tens of microseconds.
    pub spin: Duration,
    /// Gets what people should know.
    pub notices: Box<dyn FnMut(Notice) + Send>,
}

/// A transport over connections of a [`Carrier`].
pub struct Streams<C: Carrier> {
    carrier: C,
    config: Config,
    cluster: u64,
    /// Of this process.
    instance: u64,
    poll: Poll,
    events: Events,
    waker: Arc<Doorbell>,
    listener: C::Listener,
    /// Connections have come in.
    accepting: bool,
    links: Vec<Option<Link<C::Stream>>>,
    /// Links to carry on.
    runnable: Vec<usize>,
    /// The list that is not in use.
    resting: Vec<usize>,
    peers: Vec<Peer>,
    ready: VecDeque<Input>,
    /// Operations whose transmission is complete.
    sent: VecDeque<OpId>,
    /// When to look at the clock next.
    timer: Clock,
    /// When it was last looked at.
    looked: Clock,
    /// Rounds of work, to look for events among them.
    rounds: u32,
    woken: bool,
    flooded: u64,
    told_of_flood: Clock,
    /// When a stranger that is turned away may be told of again.
    tell: Clock,
    random: u64,
}

#[derive(Debug)]
struct Peer {
    /// Its connection, open or being greeted over.
    link: Option<usize>,
    open: bool,
    /// Times that its being connected waits to be told: until then the machine means an earlier connection.
    untold: u32,
    /// Of the process at its last connection.
    instance: u64,
    address: Option<String>,
    /// When to dial, if that is this node's part.
    dial: Clock,
    attempts: u32,
    /// Handshakes that it ended in a row, and since when.
    ended: u32,
    ending: Clock,
    /// Until when it has said that it may be silent.
    busy: Option<Clock>,
    /// When its being out of reach may be told of again.
    tell: Clock,
    /// Since when it has refused this node.
    refused: Option<Clock>,
}

#[derive(Debug)]
struct Doorbell(mio::Waker);

impl Wake for Doorbell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // It fails only when the transport is gone.
        let _ = self.0.wake();
    }
}

impl<C: Carrier> Streams<C> {
    /// A node that listens at `listener`.
    ///
    /// # Errors
    /// When the system does not let it wait for connections.
    pub fn new(carrier: C, mut listener: C::Listener, config: Config) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Doorbell(mio::Waker::new(poll.registry(), WAKER)?));
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let now = Clock::now();
        let peer = |rank| Peer {
            link: None,
            open: false,
            untold: 0,
            instance: 0,
            address: carrier.address(PeerId(rank)),
            dial: now,
            attempts: 0,
            ended: 0,
            ending: now,
            busy: None,
            tell: now,
            refused: None,
        };
        let instance = RandomState::new().build_hasher().finish() | 1;
        Ok(Self {
            peers: (0..config.nodes).map(peer).collect(),
            carrier,
            cluster: digest(&config.cluster),
            config,
            instance,
            poll,
            events: Events::with_capacity(256),
            waker,
            listener,
            accepting: true,
            links: Vec::new(),
            runnable: Vec::new(),
            resting: Vec::new(),
            ready: VecDeque::new(),
            sent: VecDeque::new(),
            timer: now,
            looked: now,
            rounds: 0,
            woken: false,
            flooded: 0,
            told_of_flood: now,
            tell: now,
            random: instance,
        })
    }

    /// The carrier.
    pub fn carrier(&self) -> &C {
        &self.carrier
    }

    // Time

    fn silence(&self) -> Duration {
        self.config.dead_after * 2 / 5
    }

    fn on_time(&mut self, now: Clock) -> Result<(), StreamError> {
        let every = self.config.dead_after / 10;
        let gap = now.saturating_duration_since(std::mem::replace(&mut self.looked, now));
        if gap > every {
            // Nobody has been reading: that is no silence of theirs.
            for link in self.links.iter_mut().flatten() {
                (link.heard, link.began) = (link.heard + gap, link.began + gap);
            }
        }
        if now < self.timer {
            return Ok(());
        }
        self.accepting = true;
        let complete = self.peers.iter().filter(|peer| peer.open).count() + 1 == self.peers.len();
        self.timer = now + if complete { every / 2 } else { TICK.min(every) };
        for slot in 0..self.links.len() {
            let Some(link) = &mut self.links[slot] else { continue };
            match link.state {
                State::Establishing | State::Greeting { .. } if now > link.began + GREETING_MAX => {
                    self.on_greeting_failed(slot, &io::Error::new(io::ErrorKind::TimedOut, "it said nothing for 5 s"))?;
                }
                State::Establishing | State::Greeting { .. } => {}
                State::Open { peer } => {
                    let busy = self.peers[peer].busy.filter(|until| now < *until);
                    if link.reader.is_held() || busy.is_some() {
                        // It is this node that does not read, or it has been told.
                        link.heard = now;
                    }
                    if now >= link.said + every && link.writer.is_empty() {
                        link.writer.control(Control::Alive);
                        link.said = now;
                        self.mark(slot);
                    }
                    let link = self.links[slot].as_ref();
                    if link.is_some_and(|link| now > link.heard + self.silence()) {
                        let reason = format!("silent for {:.1} s", self.silence().as_secs_f64());
                        self.break_link(slot, reason);
                    }
                }
            }
        }
        for rank in 0..self.config.rank.index() {
            let peer = &self.peers[rank];
            if peer.link.is_none() && now >= peer.dial && peer.address.is_some() {
                self.dial(rank, now)?;
            }
        }
        if self.flooded > 0 && now > self.told_of_flood + Duration::from_secs(1) {
            self.told_of_flood = now;
            let count = std::mem::take(&mut self.flooded);
            (self.config.notices)(Notice::Flooded { count });
        }
        Ok(())
    }

    /// Somewhat more or less than `pause`, so that nodes do not keep step.
    fn jitter(&mut self, pause: Duration) -> Duration {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        pause.mul_f64(0.75 + 0.5 * (self.random >> 40) as f64 / (1u64 << 24) as f64)
    }

    fn dial_later(&mut self, rank: usize, now: Clock) {
        let attempts = self.peers[rank].attempts.min(16);
        let pause = self.jitter(PAUSE[1].min(PAUSE[0] * 2u32.pow(attempts.min(8))));
        let peer = &mut self.peers[rank];
        peer.attempts += 1;
        peer.dial = now + pause;
    }

    /// The connection to a peer, if it is the one that the machine knows of.
    fn told(&self, rank: usize) -> Option<usize> {
        let peer = &self.peers[rank];
        peer.link.filter(|_| peer.open && peer.untold == 0)
    }

    /// The next thing that the machine is told.
    fn next(&mut self) -> Option<Input> {
        let input = self.ready.pop_front()?;
        if let Input::Connected { peer } = input {
            self.peers[peer.index()].untold -= 1;
        }
        Some(input)
    }

    // Connections

    fn dial(&mut self, rank: usize, now: Clock) -> Result<(), StreamError> {
        let Some(address) = self.peers[rank].address.clone() else { return Ok(()) };
        self.dial_later(rank, now);
        match self.carrier.dial(&address) {
            Ok(stream) => {
                let slot = self.insert(Link::new(stream, Some(rank as u32), now))?;
                self.peers[rank].link = Some(slot);
                Ok(())
            }
            Err(error) => {
                self.unreachable(rank, error.to_string(), now);
                Ok(())
            }
        }
    }

    fn unreachable(&mut self, rank: usize, reason: String, now: Clock) {
        let peer = &mut self.peers[rank];
        if now >= peer.tell {
            peer.tell = now + TELL;
            let address = peer.address.clone().unwrap_or_default();
            (self.config.notices)(Notice::Unreachable { peer: PeerId(rank as u32), address, reason });
        }
    }

    fn accept(&mut self, now: Clock) -> Result<(), StreamError> {
        for _ in 0..ACCEPTS {
            match self.carrier.accept(&mut self.listener) {
                Ok(stream) => {
                    let strangers = self.links.iter().flatten().filter(|link| is_stranger(link));
                    let host = stream.host();
                    let same = strangers.clone().filter(|link| host.is_some() && link.stream.host() == host).count();
                    if strangers.count() >= STRANGERS_MAX || same >= STRANGERS_OF_HOST_MAX {
                        self.flooded += 1;
                        continue;
                    }
                    self.insert(Link::new(stream, None, now))?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accepting = false;
                    return Ok(());
                }
                // One that went before it was accepted; or no descriptor is left, which passes: later, then.
                Err(_) => {
                    self.accepting = false;
                    self.flooded += 1;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, mut link: Link<C::Stream>) -> Result<usize, StreamError> {
        let slot = self.links.iter().position(Option::is_none).unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(link.stream.source(), Token(FIRST + slot), interest)?;
        link.runnable = false;
        self.links[slot] = Some(link);
        self.mark(slot);
        Ok(slot)
    }

    fn remove(&mut self, slot: usize) -> Option<Link<C::Stream>> {
        let mut link = self.links[slot].take()?;
        // It fails only for what was never registered.
        let _ = self.poll.registry().deregister(link.stream.source());
        self.runnable.retain(|runnable| *runnable != slot);
        for peer in &mut self.peers {
            if peer.link == Some(slot) {
                (peer.link, peer.open) = (None, false);
            }
        }
        Some(link)
    }

    fn mark(&mut self, slot: usize) {
        if let Some(link) = self.links[slot].as_mut().filter(|link| !link.runnable) {
            link.runnable = true;
            self.runnable.push(slot);
        }
    }

    /// An open connection is no more: what was under way on it is aborted.
    fn break_link(&mut self, slot: usize, reason: String) {
        let Some(mut link) = self.remove(slot) else { return };
        let State::Open { peer: rank } = link.state else { return };
        let peer = PeerId(rank as u32);
        self.ready.push_back(Input::Disconnected { peer });
        let open = link.reader.open();
        let aborted = link.writer.abort().chain(open);
        self.ready.extend(aborted.map(|op| Input::Aborted { op }));
        let entry = &mut self.peers[rank];
        (entry.attempts, entry.dial, entry.busy) = (0, Clock::now(), None);
        (self.config.notices)(Notice::Disconnected { peer, reason });
    }

    fn on_greeting_failed(&mut self, slot: usize, error: &io::Error) -> Result<(), StreamError> {
        let now = Clock::now();
        let Some(link) = self.remove(slot) else { return Ok(()) };
        match link.dialled {
            Some(rank) => {
                let rank = rank as usize;
                // Who answers and hangs up again and again has something else in mind than this protocol.
                let hung_up = matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::InvalidData
                        | io::ErrorKind::PermissionDenied
                );
                let peer = &mut self.peers[rank];
                peer.ended = if hung_up { peer.ended + 1 } else { 0 };
                if peer.ended <= 1 {
                    peer.ending = now;
                }
                // One that has been here is no stranger: its host is in trouble, and that passes.
                let strange = peer.instance == 0 && now > peer.ending + self.config.dead_after / 2;
                if peer.ended >= HANDSHAKES && strange {
                    let (address, times) = (peer.address.clone().unwrap_or_default(), peer.ended);
                    return Err(StreamError::Handshake { peer: PeerId(rank as u32), address, times });
                }
                self.unreachable(rank, error.to_string(), now);
            }
            None => self.turned_away(&link, error.to_string()),
        }
        Ok(())
    }

    fn turned_away(&mut self, link: &Link<C::Stream>, reason: String) {
        let now = Clock::now();
        if now < self.tell {
            self.flooded += 1;
            return;
        }
        self.tell = now + TELL_OF_STRANGERS;
        (self.config.notices)(Notice::TurnedAway { address: link.stream.seen(), reason });
    }

    // Work

    fn run(&mut self, pool: &mut Pool) -> Result<(), StreamError> {
        if self.accepting {
            self.accept(Clock::now())?;
        }
        let mut slots = std::mem::replace(&mut self.runnable, std::mem::take(&mut self.resting));
        for slot in slots.drain(..) {
            let Some(link) = &mut self.links[slot] else { continue };
            link.runnable = false;
            if self.run_link(slot, pool)? {
                self.mark(slot);
            }
        }
        self.resting = slots;
        Ok(())
    }

    /// Carries a link on; true when it is to be carried on again, without waiting.
    fn run_link(&mut self, slot: usize, pool: &mut Pool) -> Result<bool, StreamError> {
        let now = Clock::now();
        let Some(link) = &self.links[slot] else { return Ok(false) };
        if !matches!(link.state, State::Open { .. }) {
            self.greet(slot, now)?;
        }
        let Some(Link { state: State::Open { peer }, .. }) = self.links[slot] else { return Ok(false) };
        let id = PeerId(peer as u32);
        self.write(slot);
        for _ in 0..STEPS {
            let Some(link) = &mut self.links[slot] else { return Ok(false) };
            match link.step(pool, now) {
                Ok(Step::Header(header)) => self.ready.push_back(Input::Header { peer: id, header }),
                Ok(Step::Body(op)) => self.ready.push_back(Input::Completed { op, result: KernelResult::Nothing }),
                Ok(Step::Control(Control::Busy { millis })) => {
                    self.peers[peer].busy = Some(now + Duration::from_millis(millis.into()));
                }
                Ok(Step::Control(_)) => {}
                Ok(Step::Book(book)) => self.on_book(peer, book),
                Ok(Step::Held) if !link.stream.is_over(link.reader.held()) => return Ok(false),
                Ok(Step::Blocked) => return Ok(false),
                Ok(Step::Ended | Step::Held) => {
                    self.break_link(slot, "it ended the connection".to_string());
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

    fn write(&mut self, slot: usize) {
        let Some(link) = &mut self.links[slot] else { return };
        let result = link.write(&mut self.sent);
        self.ready.extend(self.sent.drain(..).map(|op| Input::Completed { op, result: KernelResult::Nothing }));
        if let Err(error) = result {
            self.break_link(slot, error.to_string());
        }
    }

    fn take_events(&mut self, wait: Option<Duration>) -> Result<(), StreamError> {
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        // Events borrow the queue that marking needs.
        let mut slots = std::mem::take(&mut self.runnable);
        for event in &self.events {
            match event.token() {
                LISTENER => self.accepting = true,
                WAKER => self.woken = true,
                Token(token) => {
                    let slot = token - FIRST;
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

    /// Looks at the links without asking the system; true when one has work.
    fn peek(&mut self) -> bool {
        let mut found = false;
        for slot in 0..self.links.len() {
            let Some(link) = &mut self.links[slot] else { continue };
            let (reads, writes) = link.wants();
            if link.stream.peek(reads, writes) {
                self.mark(slot);
                found = true;
            }
        }
        found
    }

    /// Waits for something to happen: looks for a while, then sleeps.
    fn sleep(&mut self, wait: Duration) -> Result<(), StreamError> {
        let begun = Clock::now();
        let spin = self.config.spin.min(wait);
        loop {
            if self.peek() {
                return Ok(());
            }
            self.take_events(Some(Duration::ZERO))?;
            if !self.runnable.is_empty() || self.accepting || self.woken {
                return Ok(());
            }
            if begun.elapsed() >= spin {
                break;
            }
            std::hint::spin_loop();
        }
        for slot in 0..self.links.len() {
            let Some(link) = &mut self.links[slot] else { continue };
            let (reads, writes) = link.wants();
            if link.stream.arm(reads, writes) {
                self.mark(slot);
            }
        }
        let wait = if self.runnable.is_empty() { wait } else { Duration::ZERO };
        self.take_events(Some(wait))
    }
}

fn is_stranger<S>(link: &Link<S>) -> bool {
    link.dialled.is_none() && !matches!(link.state, State::Open { .. })
}

/// FNV-1a: guards against mistakes, not against people.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl<C: Carrier> std::fmt::Debug for Streams<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("rank", &self.config.rank).field("nodes", &self.config.nodes).finish()
    }
}
