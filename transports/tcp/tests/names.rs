//! Names and addresses: nodes in one process, with a resolver of the test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gradwire_core::{Input, PeerId, Pool};
use gradwire_tcp::{Builder, Key, Listening, Notice, Tcp, TcpError};

/// The limit of each wait, far above its usual length.
const PATIENCE: Duration = Duration::from_secs(30);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn key() -> Key {
    Key::parse(&"a".repeat(64)).unwrap()
}

/// A builder, and the receiver of its notices.
fn noted(builder: Builder) -> (Builder, Receiver<Notice>) {
    let (sender, notices) = channel();
    (builder.notices(move |notice| drop(sender.send(notice))), notices)
}

/// Polls all nodes until each is connected to all other nodes.
#[track_caller]
fn connect(nodes: &mut [Tcp]) {
    let (begun, count) = (Instant::now(), nodes.len());
    let mut connected = vec![vec![false; count]; count];
    let mut pool = Pool::new([0]);
    while (0..count).any(|i| (0..count).any(|j| i != j && !connected[i][j])) {
        assert!(begun.elapsed() < PATIENCE, "{connected:?}");
        for (node, connected) in nodes.iter_mut().zip(&mut connected) {
            match node.poll(&mut pool, Some(Duration::from_millis(1))).unwrap() {
                Some(Input::Connected { peer }) => connected[peer.index()] = true,
                Some(Input::Disconnected { peer }) => connected[peer.index()] = false,
                _ => {}
            }
        }
    }
}

fn port_of(node: &Tcp) -> u16 {
    node.carrier().listens_at().port()
}

/// A port that no program gets by chance as long as this process lives.
fn free_port() -> u16 {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};

    // A bound socket that does not listen lets a node listen there, as long as both allow it.
    let socket = std::mem::ManuallyDrop::new(socket(AddressFamily::INET, SocketType::STREAM, None).unwrap());
    sockopt::set_socket_reuseaddr(&*socket, true).unwrap();
    bind(&*socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    SocketAddr::try_from(getsockname(&*socket).unwrap()).unwrap().port()
}

/// The lookup of a name hangs for as long as the run lasts. Meanwhile connected peers are served, and the node that knows
/// an address goes on using it.
#[test]
fn a_name_server_that_hangs_holds_nothing_up() {
    let zero = Builder::new(0, 3, "127.0.0.1:0").open().unwrap();
    let meet = zero.carrier().listens_at();
    let answers = Arc::new(AtomicUsize::new(0));
    let hangs = Arc::new(Mutex::new(()));
    let held = hangs.lock().unwrap();
    let (asked, waiting) = (Arc::clone(&answers), Arc::clone(&hangs));
    let one = Builder::new(1, 3, &format!("head:{}", meet.port())).resolver(move |_| {
        // The first answer is prompt; the later ones do not come.
        if asked.fetch_add(1, Ordering::SeqCst) > 0 {
            drop(waiting.lock());
        }
        Ok(vec![meet])
    });
    let one = one.dead_after(Duration::from_secs(2)).open().unwrap();
    let two = Builder::new(2, 3, &meet.to_string()).dead_after(Duration::from_secs(2)).open().unwrap();
    let mut nodes = [zero, one, two];
    connect(&mut nodes);
    let [zero, mut one, mut two] = nodes;
    drop(zero);
    // Dialling fails, so the name is looked up again, and this hangs. Each call of `poll` returns in time all the same,
    // and the peer that is there stays connected.
    let (mut pool, begun, mut longest) = (Pool::new([0]), Instant::now(), Duration::ZERO);
    while begun.elapsed() < Duration::from_secs(4) || answers.load(Ordering::SeqCst) < 2 {
        assert!(begun.elapsed() < PATIENCE, "no second lookup");
        let before = Instant::now();
        let input = one.poll(&mut pool, Some(Duration::from_millis(5))).unwrap();
        longest = longest.max(before.elapsed());
        assert_ne!(input, Some(Input::Disconnected { peer: PeerId(2) }));
        let _ = two.poll(&mut pool, Some(Duration::from_millis(1))).unwrap();
    }
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    // Rank 0 comes back. The lookup still hangs, and the known address is good.
    let zero = Builder::new(0, 3, &meet.to_string()).open().unwrap();
    let (mut pool, mut all, begun) = (Pool::new([0]), [zero, one, two], Instant::now());
    loop {
        assert!(begun.elapsed() < PATIENCE);
        let inputs: Vec<_> =
            all.iter_mut().map(|node| node.poll(&mut pool, Some(Duration::from_millis(1))).unwrap()).collect();
        if inputs[1] == Some(Input::Connected { peer: PeerId(0) }) {
            break;
        }
    }
    drop(held);
}

/// From the beginning no name is known, at rank 0 and elsewhere. Later it is.
#[test]
fn a_name_may_become_known_late() {
    let port = free_port();
    let known = Arc::new(AtomicBool::new(false));
    let open = |rank| {
        let known = Arc::clone(&known);
        noted(Builder::new(rank, 3, &format!("late:{port}")).key(key()).resolver(move |address| {
            let found = known.load(Ordering::SeqCst).then(|| vec![SocketAddr::from(([127, 0, 0, 1], address.port()))]);
            found.ok_or_else(|| io::ErrorKind::NotFound.into())
        }))
    };
    let (builders, notices): (Vec<_>, Vec<_>) = (0..3).map(open).unzip();
    let mut nodes: Vec<_> = builders.into_iter().map(|builder| builder.open().unwrap()).collect();
    let mut pool = Pool::new([0]);
    let begun = Instant::now();
    // Until a notice reports the failure.
    let reason = loop {
        assert!(begun.elapsed() < PATIENCE);
        for node in &mut nodes {
            node.poll(&mut pool, Some(Duration::from_millis(1))).unwrap();
        }
        if let Ok(Notice::Unreachable { reason, .. }) = notices[1].try_recv() {
            break reason;
        }
    };
    assert_eq!(reason, "entity not found");
    known.store(true, Ordering::SeqCst);
    connect(&mut nodes);
}

/// The addresses of a name are tried in turn: one refuses connections, one accepts them and sends no bytes.
#[test]
fn all_addresses_of_a_name_are_tried() {
    let zero = Builder::new(0, 2, "127.0.0.1:0").open().unwrap();
    let meet = zero.carrier().listens_at();
    let dead = at(&format!("127.0.0.1:{}", free_port()));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    let one = Builder::new(1, 2, &format!("head:{}", meet.port())).resolver(move |_| Ok(vec![dead, silent_at, meet]));
    let begun = Instant::now();
    connect(&mut [zero, one.open().unwrap()]);
    // The silent address accepts the connection and sends no greeting, which takes up to 5 s.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

/// Where rank 0 listens, depending on the addresses that its own host has for its name.
#[test]
fn rank_0_listens_where_the_others_look_for_it() {
    let open = |addresses: &'static [&str], keyed: bool| {
        let builder = Builder::new(0, 2, "head:0").resolver(|_| Ok(addresses.iter().copied().map(at).collect()));
        let (builder, notices) = noted(if keyed { builder.key(key()) } else { builder });
        builder
            .open()
            .map(|node| (node.carrier().bound(), notices.try_iter().map(|it| it.to_string()).collect::<Vec<_>>()))
    };
    // Debian: the name of a host is 127.0.1.1 on this host.
    for keyed in [true, false] {
        let (bound, notices) = open(&["127.0.1.1:0"], keyed).unwrap();
        assert_eq!(bound.ip().to_string(), "127.0.1.1");
        assert!(
            notices[0].starts_with("listens on 127.0.1.1:0: here, all addresses of head are of this"),
            "{notices:?}"
        );
        assert!(notices[0].contains("--listen 0.0.0.0:PORT"), "{notices:?}");
    }
    // Two address families, and addresses that this host does not have: the address of a service or of a router.
    for addresses in [&["192.0.2.7:0"][..], &["[2001:db8::7]:0"], &["127.0.1.1:0", "192.0.2.7:0"]] {
        let (bound, notices) = open(addresses, true).unwrap();
        assert!(bound.ip().is_unspecified(), "{bound}");
        assert_eq!(notices, [""; 0]);
        let error = open(addresses, false).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, TcpError::Open { .. }), "{text}");
        assert!(text.contains("(head:0) without a key") && text.contains("--insecure-open"), "{text}");
    }
    // By address: all of its family.
    let literal = |meet: &str| Builder::new(0, 2, meet).key(key()).open().unwrap().carrier().bound().to_string();
    assert!(literal("192.0.2.7:0").starts_with("0.0.0.0:"));
    assert!(literal("127.0.0.1:0").starts_with("127.0.0.1:"));
}

#[test]
fn nodes_meet_over_ipv6() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: nodes_meet_over_ipv6 (this host has no IPv6)");
        return;
    }
    let zero = Builder::new(0, 3, "[::1]:0").open().unwrap();
    let meet = zero.carrier().listens_at().to_string();
    assert!(meet.starts_with("[::1]:"), "{meet}");
    let [one, two] = [1, 2].map(|rank| Builder::new(rank, 3, &meet).open().unwrap());
    connect(&mut [zero, one, two]);
}

/// A listener for both families takes IPv4 and IPv6 peers, and tells each family addresses that it can dial.
#[test]
fn one_listener_takes_both_families() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: one_listener_takes_both_families (this host has no IPv6)");
        return;
    }
    let zero = Builder::new(0, 3, "head:0").resolver(|_| Ok(vec![at("192.0.2.7:0")])).key(key()).open().unwrap();
    let port = port_of(&zero);
    let one = Builder::new(1, 3, &format!("127.0.0.1:{port}")).key(key()).open().unwrap();
    let two = Builder::new(2, 3, &format!("[::1]:{port}")).key(key()).open().unwrap();
    connect(&mut [zero, one, two]);
}

/// A worker that cannot be dialled, since it is behind a NAT, is connected all the same: workers dial servers, although
/// the ranks of servers are higher, and a worker that is not dialled by a higher rank dials it.
#[test]
fn a_node_that_cannot_be_dialled_dials() {
    let open = |servers: u32| {
        let zero = Builder::new(0, 3, "127.0.0.1:0").servers(servers).open().unwrap();
        let meet = zero.carrier().listens_at().to_string();
        let node = |rank| Builder::new(rank, 3, &meet).servers(servers);
        // Nothing listens there.
        let worker = node(1).advertise(&format!("127.0.0.1:{}", free_port())).open().unwrap();
        [zero, worker, node(2).open().unwrap()]
    };
    connect(&mut open(1));
    connect(&mut open(0));
}

/// Nodes that do not agree about the number of servers tell why they do not connect.
#[test]
fn another_number_of_servers_is_refused() {
    let zero = Builder::new(0, 3, "127.0.0.1:0").open().unwrap();
    let meet = zero.carrier().listens_at().to_string();
    let one = Builder::new(1, 3, &meet).servers(1).open().unwrap();
    let mut nodes = [zero, one, Builder::new(2, 3, &meet).open().unwrap()];
    let (mut pool, begun) = (Pool::new([0]), Instant::now());
    let error = loop {
        assert!(begun.elapsed() < PATIENCE);
        let polled = nodes.iter_mut().map(|node| node.poll(&mut pool, Some(Duration::from_millis(1))));
        if let Some(error) = polled.filter_map(Result::err).next() {
            break error.to_string();
        }
    };
    assert!(error.contains("use one number of workers and servers on all nodes"), "{error}");
}

/// A port that is taken: by rank 0 of a run, with and without a key, or by another program.
#[test]
fn who_has_the_port_is_told() {
    for keyed in [false, true] {
        let with_key = |builder: Builder| if keyed { builder.key(key()) } else { builder };
        let (builder, notices) = noted(with_key(Builder::new(0, 2, "127.0.0.1:0")));
        let mut first = builder.open().unwrap();
        let meet = first.carrier().listens_at().to_string();
        let stop = AtomicBool::new(false);
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    first.poll(&mut Pool::new([0]), Some(Duration::from_millis(1))).unwrap();
                }
            });
            let second = with_key(Builder::new(0, 2, &meet)).open();
            stop.store(true, Ordering::Relaxed);
            second.unwrap_err()
        });
        let rank = (!keyed).then_some(0);
        let text = error.to_string();
        assert!(matches!(error, TcpError::Listen { found: Some(found), .. } if found == Listening { rank }), "{text}");
        assert!(text.starts_with(&format!("cannot listen on {meet}: ")), "{text}");
        assert!(text.contains("in use") && text.contains("end that run, or use another port"), "{text}");
        let told = notices.recv_timeout(PATIENCE).unwrap().to_string();
        assert!(keyed || told.contains("rank 0: rank 0 is taken by a running process"), "{told}");
    }
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Builder::new(0, 2, &other.local_addr().unwrap().to_string()).open().unwrap_err().to_string();
    assert!(error.contains("another program uses this port, and does not answer as a gradwire node"), "{error}");
}

/// A node that is started while the process that had its port ends gets the port.
#[test]
fn a_port_that_is_given_up_soon_is_waited_for() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let meet = other.local_addr().unwrap().to_string();
    let ends = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(other);
    });
    let node = Builder::new(0, 2, &meet).open().unwrap();
    assert_eq!(node.carrier().listens_at().to_string(), meet);
    ends.join().unwrap();
}

/// Nodes of two clusters at one port name both.
#[test]
fn other_clusters_are_named() {
    let (builder, notices) = noted(Builder::new(0, 2, "127.0.0.1:0").cluster("digits"));
    let mut zero = builder.open().unwrap();
    let meet = zero.carrier().listens_at().to_string();
    let long = "x".repeat(63) + "ü";
    let mut one = Builder::new(1, 2, &meet).cluster(&long).open().unwrap();
    let (mut pool, begun) = (Pool::new([0]), Instant::now());
    let error = loop {
        assert!(begun.elapsed() < PATIENCE);
        let _ = zero.poll(&mut pool, Some(Duration::from_millis(1))).unwrap();
        if let Err(error) = one.poll(&mut pool, Some(Duration::from_millis(1))) {
            break error.to_string();
        }
    };
    assert!(error.contains(&format!("expected cluster \"digits\", got \"{long}\"")), "{error}");
    let told = notices.recv_timeout(PATIENCE).unwrap().to_string();
    // The name is cut to the length that a preamble holds.
    assert!(told.contains(&format!("expected cluster \"digits\", got \"{}\"", "x".repeat(63))), "{told}");
}
