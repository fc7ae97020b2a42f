//! Strangers on real sockets, hostile or idle: a node that starts gets in, and connected nodes stay connected.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gradwire_core::{Input, PeerId, Pool};
use gradwire_stream::parts::{Control, PREAMBLE_LEN, Preamble};
use gradwire_tcp::parts::Sealed;
use gradwire_tcp::{Builder, Key, Notice, Refusal, StreamError, Tcp};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

/// Far more than a node needs to get in, on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(30);
/// Less than the time after which a stranger is closed in any case: a node that gets in earlier has not waited for that.
const STRANGER_TIME: Duration = Duration::from_millis(4500);

fn key(digit: &str) -> Key {
    Key::parse(&digit.repeat(64)).unwrap()
}

fn open(rank: u32, nodes: u32, meet: &str, key: Option<&Key>) -> (Tcp, Receiver<Notice>) {
    let (notices, received) = channel();
    let builder = Builder::new(rank, nodes, meet).insecure_open(true).notices(move |notice| drop(notices.send(notice)));
    let builder = key.into_iter().fold(builder, |builder, key| builder.key(key.clone()));
    // All nodes are on one host.
    let host = meet.rsplit_once(':').unwrap().0;
    let builder = if rank > 0 { builder.listen(&format!("{host}:0")) } else { builder };
    (builder.open().unwrap(), received)
}

/// A node that is polled on a thread of its own.
struct Node {
    at: SocketAddr,
    inputs: Receiver<Input>,
    notices: Receiver<Notice>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), StreamError>>>,
}

impl Node {
    fn start(rank: u32, nodes: u32, meet: &str, key: Option<&Key>) -> Self {
        let (mut tcp, notices) = open(rank, nodes, meet, key);
        let (at, stop) = (tcp.carrier().listens_at(), Arc::new(AtomicBool::new(false)));
        let (sender, inputs) = channel();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut pool = Pool::new([0]);
            while !stopped.load(Ordering::Relaxed) {
                if let Some(input) = tcp.poll(&mut pool, Some(Duration::from_millis(10)))? {
                    let _ = sender.send(input);
                }
            }
            Ok(())
        });
        Self { at, inputs, notices, stop, thread: Some(thread) }
    }

    /// Waits until the node is connected to a peer, which must be the next thing that happens.
    #[track_caller]
    fn connects(&self, peer: u32) {
        assert_eq!(self.inputs.recv_timeout(PATIENCE), Ok(Input::Connected { peer: PeerId(peer) }));
    }

    /// Waits until the node ends with an error.
    fn fails(mut self) -> StreamError {
        let begun = Instant::now();
        while !self.thread.as_ref().unwrap().is_finished() && begun.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(10));
        }
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap().expect_err("the node has to end by itself")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let result = thread.join().unwrap();
            assert!(result.is_ok() || thread::panicking(), "{result:?}");
        }
    }
}

/// Connects from the address `from`, if there is one.
fn connect_from(from: Option<SocketAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // Not for the processes that other tests start.
    let stream = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if let Some(from) = from {
        bind(&stream, &from)?;
    }
    connect(&stream, &to)?;
    Ok(stream.into())
}

/// Holds `count` connections to a node, and opens each again as soon as the node has closed it.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Connection `i` comes from the address `from(i)`, and sends `words` piece by piece, one piece in each round of 50
    /// ms. Returns when all connections have been opened once.
    fn start(
        to: SocketAddr,
        count: usize,
        words: Vec<Vec<u8>>,
        from: impl Fn(usize) -> Option<SocketAddr> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, opened) = channel();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut streams: Vec<Option<(TcpStream, usize)>> = (0..count).map(|_| None).collect();
            while !stopped.load(Ordering::Relaxed) {
                for (i, stream) in streams.iter_mut().enumerate() {
                    if stream.is_none() {
                        // This fails while the node's queue of connections is full.
                        *stream = connect_from(from(i), to).ok().map(|stream| (stream, 0));
                    }
                    let Some((open, said)) = stream else { continue };
                    let _ = open.set_nonblocking(true);
                    if let Some(word) = words.get(*said) {
                        let _ = open.write(word);
                        *said += 1;
                    }
                    let mut bytes = [0; 256];
                    let ended = |result: io::Result<usize>| match result {
                        Ok(n) => n == 0,
                        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
                    };
                    if ended(open.read(&mut bytes)) {
                        *stream = None;
                    }
                }
                let _ = ready.send(());
                thread::sleep(Duration::from_millis(50));
            }
        });
        opened.recv_timeout(PATIENCE).unwrap();
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Starts a run of three nodes, of which the last one starts during the flood, is killed, and starts again.
fn get_in(
    at: &str,
    key: Option<&Key>,
    count: usize,
    words: Vec<Vec<u8>>,
    from: impl Fn(usize) -> Option<SocketAddr> + Send + 'static,
) {
    let first = Node::start(0, 3, &format!("{at}:0"), key);
    let meet = first.at.to_string();
    let second = Node::start(1, 3, &meet, key);
    first.connects(1);
    second.connects(0);
    let _flood = Flood::start(first.at, count, words, from);
    for _ in 0..2 {
        let begun = Instant::now();
        let third = Node::start(2, 3, &meet, key);
        // Nothing else has happened meanwhile: the second node is still connected.
        first.connects(2);
        second.connects(2);
        assert!(begun.elapsed() < STRANGER_TIME, "{:?}", begun.elapsed());
        drop(third);
        for node in [&first, &second] {
            assert_eq!(node.inputs.recv_timeout(PATIENCE), Ok(Input::Disconnected { peer: PeerId(2) }));
        }
    }
}

#[test]
fn silent_connections_keep_no_node_out() {
    for count in [64, 640] {
        get_in("127.0.0.1", None, count, Vec::new(), |_| None);
        get_in("127.0.0.1", Some(&key("a")), count, Vec::new(), |_| None);
    }
}

/// Connections that send a preamble so slowly that each byte is news, and connections that send something else.
#[test]
fn slow_connections_keep_no_node_out() {
    let preamble = Preamble::parse(&caller(2)).unwrap().emit();
    let bytes = preamble.iter().map(|byte| vec![*byte]).collect();
    get_in("127.0.0.1", None, 100, bytes, |_| None);
    let bytes = first_message(&key("a")).iter().map(|byte| vec![*byte]).collect();
    get_in("127.0.0.1", Some(&key("a")), 100, bytes, |_| None);
}

/// A preamble as rank 2 of three nodes sends it, to rank `to`.
fn caller(rank: u32) -> [u8; PREAMBLE_LEN] {
    let address = "127.0.0.1:9".to_string();
    Preamble { to: 0, instance: 77, address, ..Preamble::question("gradwire", 3, rank) }.emit()
}

/// The first message of a handshake with this key, as an attacker can record it.
fn first_message(key: &Key) -> Vec<u8> {
    let mut message = Vec::new();
    let mut write = |from: &[u8]| {
        message.extend(from);
        Ok(from.len())
    };
    let mut sealed = Sealed::new(key, true).unwrap();
    assert!(!sealed.establish(&mut |_| Err(io::ErrorKind::WouldBlock.into()), &mut write).unwrap());
    message
}

/// A recorded handshake gets an answer, but no place that a node needs.
#[test]
fn recorded_handshakes_keep_no_node_out() {
    let key = key("a");
    get_in("127.0.0.1", Some(&key), 100, vec![first_message(&key)], |_| None);
}

/// Without a key, any process of the host can greet as a node. One that then sends nothing but signs of life does not
/// hold the place of the node.
#[test]
fn a_greeting_without_messages_does_not_hold_a_rank() {
    let first = Node::start(0, 3, "127.0.0.1:0", None);
    let mut squatter = TcpStream::connect(first.at).unwrap();
    squatter.write_all(&caller(2)).unwrap();
    first.connects(2);
    let alive = thread::spawn(move || {
        while squatter.write_all(&Control::Alive.emit()).is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let _third = Node::start(2, 3, &first.at.to_string(), None);
    assert_eq!(first.inputs.recv_timeout(PATIENCE), Ok(Input::Disconnected { peer: PeerId(2) }));
    first.connects(2);
    alive.join().unwrap();
}

/// Nodes with another key, or with a key on one side only, end with that reason.
#[test]
fn a_node_with_another_key_ends_with_the_reason() {
    let (a, b) = (key("a"), key("b"));
    for (ours, theirs) in [(Some(&a), Some(&b)), (None, Some(&b)), (Some(&a), None)] {
        let first = Node::start(0, 2, "127.0.0.1:0", ours);
        let error = Node::start(1, 2, &first.at.to_string(), theirs).fails();
        let told = matches!(first.notices.recv_timeout(PATIENCE), Ok(Notice::TurnedAway { count: 1, .. }));
        match theirs {
            Some(_) => assert!(matches!(error, StreamError::Handshake { .. }), "{error}"),
            None => assert!(matches!(error, StreamError::Refused { reason: Refusal::Key, .. }), "{error}"),
        }
        assert!(told);
        // Told once, however often the node has tried.
        assert_eq!(first.notices.try_iter().count(), 0);
    }
}

/// Only the beginning of a node's greeting gets an answer, which tells nothing but the version and that the key is missing.
#[test]
fn other_programs_get_no_answer() {
    let keys = [None, Some(key("a"))];
    for first in keys.iter().map(|key| Node::start(0, 2, "127.0.0.1:0", key.as_ref())) {
        let answer = |words: &[u8]| {
            let mut stream = TcpStream::connect(first.at).unwrap();
            stream.write_all(words).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut answer = Vec::new();
            // Reset, if bytes are left unread.
            let _ = stream.read_to_end(&mut answer);
            answer
        };
        for words in ["GET / HTTP/1.1\r\n\r\n", "SSH-2.0-OpenSSH_9.6\r\n", "\x16\x03\x01\x02\x00\x01"] {
            assert_eq!(answer(words.as_bytes()), []);
        }
        let answer = answer(b"GRWP\xff");
        let expected = Preamble { refusal: Some(Refusal::Key), ..Preamble::parse(&caller(1)).unwrap() };
        let (cluster, nodes, rank, to, instance, address) = (0, 0, 0, 0, 0, String::new());
        let cluster_name = String::new();
        let expected = Preamble { cluster, cluster_name, nodes, rank, to, instance, address, ..expected };
        assert_eq!(Preamble::parse(answer.first_chunk().unwrap()), Ok(expected));
    }
}

/// A peer that hangs up without a word may be full, starting or ending: the node goes on, and gets in when it can.
#[test]
fn a_peer_that_hangs_up_without_a_word_is_dialled_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let at = listener.local_addr().unwrap();
    for key in [None, Some(key("a"))] {
        let second = Node::start(1, 2, &at.to_string(), key.as_ref());
        // More than half of `dead_after`, which once was the end.
        let begun = Instant::now();
        let mut times = 0;
        while times < 8 || begun.elapsed() < Duration::from_secs(3) {
            assert!(begun.elapsed() < PATIENCE, "dialled {times} times");
            times += usize::from(listener.accept().is_ok());
            thread::sleep(Duration::from_millis(1));
        }
        let unreachable = second.notices.try_iter().filter(|notice| matches!(notice, Notice::Unreachable { .. }));
        assert_eq!(unreachable.count(), 1);
    }
}

#[test]
fn health_checks_are_told_once() {
    let first = Node::start(0, 2, "127.0.0.1:0", None);
    for _ in 0..100 {
        drop(TcpStream::connect(first.at).unwrap());
    }
    let second = Node::start(1, 2, &first.at.to_string(), None);
    first.connects(1);
    let notices: Vec<_> = first.notices.try_iter().collect();
    let rejected = notices.iter().filter(|notice| matches!(notice, Notice::TurnedAway { .. })).count();
    assert_eq!(rejected, 1, "{notices:?}");
    drop(second);
}

// Processes with other limits, and networks

/// Runs a test of this file again in a process of its own, started by a shell with `setup`.
fn child(test: &str, setup: &str, role: &str) -> Command {
    let script = format!("{setup} && exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(std::env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]);
    command.env("GRADWIRE_TEST_ROLE", role).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn role() -> Option<String> {
    std::env::var("GRADWIRE_TEST_ROLE").ok()
}

/// The first of three nodes, for the next test: prints its address, and ends when its input ends. As "greedy", it takes
/// all descriptors that are left when the last node has been lost.
fn first_of_three(role: &str) {
    let first = Node::start(0, 3, "127.0.0.1:0", None);
    // The test harness has not ended its line.
    println!("\nat {}", first.at);
    let inputs = first.inputs.iter().inspect(|input| println!("{input:?}"));
    let lost = Input::Disconnected { peer: PeerId(2) };
    let _ = inputs.take(3).find(|input| *input == lost).expect("the third node comes and goes");
    // The application can still open files.
    let files: Vec<_> = (0..4).map(|_| std::fs::File::open("/dev/null")).collect();
    assert!(files.iter().all(Result::is_ok), "{files:?}");
    drop(files);
    let mut taken = Vec::new();
    for _ in 0..if role == "modest" { 0 } else { 5 } {
        taken.extend(std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()));
        // Strangers may have gone.
        thread::sleep(Duration::from_millis(100));
    }
    println!("ready");
    first.connects(2);
    println!("back");
    let _ = io::stdin().read(&mut [0]);
}

/// A process with fewer descriptors than there may be strangers. Its connections from strangers leave enough for nodes
/// and the application, and if the application takes all, the node that comes back is let in.
#[test]
fn strangers_leave_descriptors_to_nodes_and_application() {
    if let Some(role) = role() {
        return first_of_three(&role);
    }
    // The application takes no descriptors, or all: while strangers have some, and when there are no strangers.
    for (role, stays) in [("modest", true), ("greedy", true), ("greedy", false)] {
        let name = "strangers_leave_descriptors_to_nodes_and_application";
        let mut process = child(name, "ulimit -n 40", role).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut until =
            |start: &str| lines.find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start}"));
        let at: SocketAddr = until("at ")[3..].parse().unwrap();
        let meet = at.to_string();
        let _second = Node::start(1, 3, &meet, None);
        until("Connected { peer: PeerId(1)");
        let flood = Flood::start(at, 200, Vec::new(), |_| None);
        let third = Node::start(2, 3, &meet, None);
        until("Connected { peer: PeerId(2)");
        let flood = Some(flood).filter(|_| stays);
        drop(third);
        until("ready");
        let begun = Instant::now();
        let _third = Node::start(2, 3, &meet, None);
        until("back");
        assert!(begun.elapsed() < STRANGER_TIME, "{:?}", begun.elapsed());
        drop((process.stdin.take(), flood));
        assert!(process.wait().unwrap().success());
    }
}

/// Connections from eight hosts, and from many IPv6 addresses of one network and of many networks. The addresses exist
/// in a network namespace only.
#[test]
fn strangers_from_many_addresses_keep_no_node_out() {
    const NAME: &str = "strangers_from_many_addresses_keep_no_node_out";
    let setup = "ip link set lo up && ip route add local 10.9.0.0/16 dev lo && ip -6 route add local fd00::/16 dev lo \
                 && echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind";
    if role().is_none() {
        let trial = Command::new("unshare").args(["-n", "sh", "-c", setup]).output();
        if !trial.as_ref().is_ok_and(|output| output.status.success()) {
            println!("skipped: {NAME} (network namespaces are not permitted: {trial:?})");
            return;
        }
        let command = child(NAME, setup, "many");
        let mut inside = Command::new("unshare");
        inside.arg("-n").arg(command.get_program()).args(command.get_args()).env("GRADWIRE_TEST_ROLE", "many");
        let output = inside.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
        return;
    }
    let key = key("a");
    for key in [None, Some(&key)] {
        get_in("10.9.0.1", key, 64, Vec::new(), |i| Some(format!("10.9.1.{}:0", i % 8).parse().unwrap()));
        get_in("[fd00::1]", key, 200, Vec::new(), |i| Some(format!("[fd00:0:0:7::{i}]:0").parse().unwrap()));
        get_in("[fd00::1]", key, 200, Vec::new(), |i| Some(format!("[fd00:0:0:{i}::7]:0").parse().unwrap()));
    }
}
