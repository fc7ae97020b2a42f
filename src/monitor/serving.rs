//! [`serve`]: one thread that serves all clients of a listener, and gives no client more than its share.
//!
//! A client begins *unproven*, until it has sent its part of the greeting, for which it has [`PATIENCE`] in all. A
//! newcomer always gets a place: the oldest client of the host with the most unproven clients is closed for it.
//! A client that completes its greeting when the service is full takes the place of the client that is furthest behind.
//! So neither silent nor slow clients keep newcomers out, and threads, memory and descriptors are bounded.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use rustix::process::{Resource, getrlimit};

use super::network::PATIENCE;

/// Most clients of a listener that have not completed their greeting.
pub(super) const UNPROVEN_MAX: usize = 64;
/// Most connections accepted in a round. A quarter of the places, so that a newcomer has some rounds to greet.
const ACCEPTS_PER_ROUND: usize = 16;
/// Least time from one round over all clients to the next: it bounds the processor time of the thread.
const ROUND: Duration = Duration::from_millis(5);
/// Bytes read from one client in a round.
const READ_PER_ROUND: usize = 64 * 1024;
/// Bytes that the system buffers for a client, so that one that does not read is noticed soon.
const SEND_BUFFER: usize = 128 * 1024;
/// Descriptors that clients leave to the rest of the process, besides one for each node.
const SPARE_DESCRIPTORS: u64 = 16;

/// The protocol of a listener with its clients.
pub(super) trait Service: Send + 'static {
    /// The service's state for one client.
    type Client;
    /// The longest time between two looks at [`is_urgent`](Self::is_urgent). `None`: it never is.
    const LOOK: Option<Duration> = None;

    /// Most clients that have completed their greeting, and descriptors that the nodes of the run need.
    fn limits(&self) -> (usize, u64);

    /// A client has connected. Bytes appended to `output` are sent to it.
    fn open(&mut self, output: &mut Vec<u8>) -> Self::Client;

    /// Bytes of a client have come. The service removes the bytes that it consumes from `input`.
    ///
    /// # Errors
    /// If the connection has to be closed.
    fn receive(&mut self, client: &mut Self::Client, input: &mut Vec<u8>, output: &mut Vec<u8>)
    -> io::Result<Standing>;

    /// All bytes have been sent to a client that has completed its greeting. Appends more if it is time, and returns
    /// when to ask again. `None`: never.
    ///
    /// # Errors
    /// If the connection is complete, and has to be closed.
    fn send(&mut self, client: &mut Self::Client, now: Instant, output: &mut Vec<u8>) -> io::Result<Option<Instant>>;

    /// Whether the next bytes are to be sent to a client before it is time.
    fn is_urgent(&self, client: &Self::Client) -> bool {
        let _ = client;
        false
    }

    /// All bytes have been handed to the system.
    fn delivered(&self, client: &Self::Client) {
        let _ = client;
    }

    /// When the connection is closed in any case.
    fn ends_at(&self, client: &Self::Client) -> Option<Instant> {
        let _ = client;
        None
    }
}

/// How far a client has come, by the bytes that it has sent.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its greeting is incomplete.
    Unproven,
    /// It has completed its greeting, and its new bytes call for nothing.
    Proven,
    /// It has completed its greeting, and has done something that is worth its place.
    Active,
}

struct Connection<C> {
    stream: TcpStream,
    /// The host: an IPv4 address, or the first half of an IPv6 address.
    host: u64,
    client: C,
    input: Vec<u8>,
    /// Bytes to send, of which `sent` have been sent.
    output: Vec<u8>,
    sent: usize,
    /// When it connected, when its greeting was complete, or when it was last active.
    since: Instant,
    proven: bool,
    /// Since when no byte could be sent, although there are some.
    stuck_since: Option<Instant>,
    /// When to ask the service for more bytes.
    send_at: Option<Instant>,
    /// When the connection is closed in any case.
    ends_at: Option<Instant>,
}

/// Listens at an address. Beyond loopback, that has to be allowed.
///
/// # Errors
/// If the system refuses, or the address is beyond loopback without `allowed`.
pub(super) fn listen(address: impl ToSocketAddrs, allowed: bool) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    let at = listener.local_addr()?;
    if !allowed && !at.ip().is_loopback() {
        let text = format!(
            "monitor: listening at {at} without a key lets anyone watch: expected a key, a loopback address, or \
             `open` set to true"
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok((listener, at))
}

/// Serves the clients of a listener, on a thread with this name, until the process ends.
///
/// # Errors
/// If no thread can be started.
pub(super) fn serve(listener: TcpListener, name: &str, service: impl Service) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    thread::Builder::new().name(name.into()).spawn(move || {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let mut serving =
            Serving { listener, service, clients: Vec::new(), places: UNPROVEN_MAX, descriptors, accept_at: None };
        loop {
            // An error of the poll passes, or leaves nothing to do: training goes on without monitors.
            let _ = serving.round();
            thread::sleep(ROUND);
        }
    })?;
    Ok(())
}

/// One client without a socket: takes bytes as they come, appends the bytes of the answer, and returns whether the
/// greeting is complete. After an error, the connection would be closed.
pub type Feed = Box<dyn FnMut(&[u8], &mut Vec<u8>) -> io::Result<bool>>;

/// Feeds a service from the caller.
pub(super) fn feed(mut service: impl Service) -> Feed {
    let mut client = service.open(&mut Vec::new());
    let (mut input, mut proven) = (Vec::new(), false);
    Box::new(move |bytes, output| {
        input.extend(bytes);
        proven |= service.receive(&mut client, &mut input, output)? != Standing::Unproven;
        Ok(proven)
    })
}

struct Serving<S: Service> {
    listener: TcpListener,
    service: S,
    /// In the order in which they connected.
    clients: Vec<Connection<S::Client>>,
    /// Places for unproven clients: `UNPROVEN_MAX`, or fewer when descriptors run short.
    places: usize,
    /// The number of descriptors that this process may have.
    descriptors: u64,
    /// When to accept again, after that has failed.
    accept_at: Option<Instant>,
}

impl<S: Service> Serving<S> {
    /// Waits for something to do, and does a bounded part of it.
    fn round(&mut self) -> io::Result<()> {
        let (accepts, events) = self.wait()?;
        let now = Instant::now();
        let mut open: Vec<_> = self.clients.drain(..).collect();
        let mut kept = Vec::with_capacity(open.len());
        for (mut client, event) in open.drain(..).zip(events) {
            let alive = event.is_empty() || self.read(&mut client, now).is_ok();
            if alive && self.advance(&mut client, now).is_ok() {
                kept.push(client);
            }
        }
        self.clients = kept;
        while self.clients.iter().filter(|client| client.proven).count() > self.service.limits().0 {
            self.close_one(true);
        }
        if accepts {
            self.places = UNPROVEN_MAX.min(self.places + 1);
            self.accept(now);
        }
        Ok(())
    }

    /// Waits until a client or the listener is ready, or it is time to send something. Returns whether a connection
    /// waits to be accepted, and the events of each client.
    fn wait(&self) -> io::Result<(bool, Vec<PollFlags>)> {
        let now = Instant::now();
        let accepts = self.accept_at.is_none_or(|at| now >= at);
        let listens = if accepts { PollFlags::IN } else { PollFlags::empty() };
        let mut polled = vec![PollFd::new(&self.listener, listens)];
        polled.extend(self.clients.iter().map(|client| {
            let writes = if client.sent < client.output.len() { PollFlags::OUT } else { PollFlags::empty() };
            PollFd::new(&client.stream, PollFlags::IN | writes)
        }));
        let due = self.clients.iter().filter_map(Connection::due).chain(self.accept_at.filter(|_| !accepts));
        let look = S::LOOK.filter(|_| self.clients.iter().any(|client| client.proven)).map(|look| now + look);
        let due = due.chain(look).min();
        let wait = due.map(|due| due.saturating_duration_since(now));
        let wait = wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() });
        poll(&mut polled, wait.as_ref())?;
        let mut events = polled.iter().map(PollFd::revents);
        Ok((events.next().is_some_and(|event| !event.is_empty()) && accepts, events.collect()))
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_ROUND.min(self.places.div_ceil(4)) {
            match self.listener.accept() {
                Ok((stream, address)) => self.admit(stream, address.ip(), now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // No descriptor is left, most likely. One unproven client is closed, and accepting is tried again
                    // later.
                    self.close_one(false);
                    self.accept_at = Some(now + PATIENCE / 20);
                    return;
                }
            }
        }
    }

    /// Takes a new connection, and closes unproven clients for it if there is no room.
    fn admit(&mut self, stream: TcpStream, address: IpAddr, now: Instant) {
        let spare = SPARE_DESCRIPTORS + self.service.limits().1;
        let number = u64::try_from(stream.as_raw_fd()).unwrap_or(0);
        let unproven = |serving: &Self| serving.clients.iter().filter(|client| !client.proven).count();
        if number + 1 + spare > self.descriptors {
            self.places = unproven(self).saturating_sub(1).max(1);
        }
        while unproven(self) >= self.places {
            self.close_one(false);
        }
        let ready = stream
            .set_nonblocking(true)
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| Ok(sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER)?));
        let mut output = Vec::new();
        let client = self.service.open(&mut output);
        let (input, sent, proven) = (Vec::new(), 0, false);
        let mut client = Connection {
            stream,
            host: host(address),
            client,
            input,
            output,
            sent,
            since: now,
            proven,
            stuck_since: None,
            send_at: None,
            ends_at: None,
        };
        if ready.is_ok() && client.write(now).is_ok() {
            self.clients.push(client);
        }
    }

    /// Closes a client to make room for another one. `proven`: of the clients that have completed their greeting, the
    /// one to which nothing can be sent for longest; if all can be sent to, the least recently active one. Otherwise,
    /// of the unproven clients, the oldest of the host with the most.
    fn close_one(&mut self, proven: bool) {
        let class = self.clients.iter().enumerate().filter(|(_, client)| client.proven == proven);
        let worst = if proven {
            class.min_by_key(|(_, client)| (client.stuck_since.is_none(), client.stuck_since.unwrap_or(client.since)))
        } else {
            let of_host = |host| class.clone().filter(|(_, client)| client.host == host).count();
            // `max_by_key` returns the last of several, which has to be the oldest.
            class.clone().rev().max_by_key(|(_, client)| of_host(client.host))
        };
        if let Some(index) = worst.map(|(index, _)| index) {
            self.clients.remove(index);
        }
    }

    /// Reads the bytes that a client has sent, up to a limit.
    fn read(&mut self, client: &mut Connection<S::Client>, now: Instant) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        let mut total = 0;
        while total < READ_PER_ROUND {
            match client.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    total += n;
                    client.input.extend(&bytes[..n]);
                    let standing = self.service.receive(&mut client.client, &mut client.input, &mut client.output)?;
                    if !client.proven && standing != Standing::Unproven {
                        (client.proven, client.send_at, client.since) = (true, Some(now), now);
                    }
                    if standing == Standing::Active {
                        client.since = now;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends the bytes that are due to a client. An error if its time is up.
    fn advance(&mut self, client: &mut Connection<S::Client>, now: Instant) -> io::Result<()> {
        client.write(now)?;
        let is_due = |at| now >= at || self.service.is_urgent(&client.client);
        if client.sent == client.output.len() && client.send_at.is_some_and(is_due) {
            (client.sent, client.send_at) = (0, None);
            client.output.clear();
            client.send_at = self.service.send(&mut client.client, now, &mut client.output)?;
            client.write(now)?;
        }
        if client.proven && client.sent == client.output.len() {
            self.service.delivered(&client.client);
        }
        client.ends_at = self.service.ends_at(&client.client);
        match client.time_up() {
            Some(end) if now >= end => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl<C> Connection<C> {
    /// Sends bytes, as far as the system takes them.
    fn write(&mut self, now: Instant) -> io::Result<()> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => (self.sent, self.stuck_since) = (self.sent + n, None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck_since.get_or_insert(now);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// When the connection is closed, unless the client does something.
    fn time_up(&self) -> Option<Instant> {
        let since = if self.proven { self.stuck_since } else { Some(self.since) };
        [since.map(|since| since + PATIENCE), self.ends_at].into_iter().flatten().min()
    }

    /// When the connection has something to do next, if nothing comes.
    fn due(&self) -> Option<Instant> {
        let sends = self.send_at.filter(|_| self.sent == self.output.len());
        [sends, self.time_up()].into_iter().flatten().min()
    }
}

/// A number for a host: equal for all addresses of an IPv6 network of 64 bits, and for all loopback addresses.
fn host(address: IpAddr) -> u64 {
    match address.to_canonical() {
        address if address.is_loopback() => 0,
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
    }
}
