//! Runs of several processes over sockets and shared memory. They learn; when a process is killed, stopped,
//! disconnected or misconfigured, its peers report it and go on. Tests wait for output or exit codes of processes,
//! never for a fixed time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
mod process;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use process::{Chaos, Ended, Process, Proxy, port, scratch};

const RECIPES: [&str; 9] =
    ["averaging", "sync", "async", "softsync", "ssp", "mesh", "ring-int8", "sparse", "local-bf16"];

fn cluster(args: &str) -> Ended {
    Process::start("cluster", &format!("--json {args}")).end().succeeded()
}

/// Starts `count` nodes as from one terminal each. Rank 0 listens on a free port.
fn nodes(count: u32, args: &str) -> Vec<Process> {
    let meet = port();
    (0..count).map(|rank| node(rank, count, meet, args)).collect()
}

fn node(rank: u32, count: u32, meet: u16, args: &str) -> Process {
    Process::start("node", &format!("--rank {rank} --processes {count} --meet 127.0.0.1:{meet} --json {args}"))
}

#[test]
fn every_recipe_learns_over_sockets_and_shared_memory() {
    for transport in ["tcp", "shm"] {
        for recipe in RECIPES {
            let ended = cluster(&format!("--transport {transport} --recipe {recipe}"));
            let accuracy: f64 = ended.field("accuracy").parse().unwrap();
            assert!(accuracy >= 0.95, "{recipe} over {transport}: {accuracy}\n{:#?}", ended.said);
        }
    }
}

/// Synchronous recipes end with the same parameters, bit for bit, over every transport.
#[test]
fn synchronous_results_do_not_depend_on_the_transport() {
    for recipe in ["sync", "averaging", "hardsync", "sync --topology ring --chunk 1000", "averaging --topology ring"] {
        let digest =
            |transport| cluster(&format!("--transport {transport} --epochs 3 --recipe {recipe}")).field("digest");
        let expected = digest("mem");
        assert_eq!(digest("tcp"), expected, "{recipe} over tcp");
        assert_eq!(digest("shm"), expected, "{recipe} over shm");
    }
}

#[test]
fn nodes_start_by_hand_and_by_torchrun_variables() {
    let by_hand = nodes(3, "--recipe sync --epochs 1");
    let digests: Vec<_> = by_hand.into_iter().map(|node| node.end().succeeded().field("digest")).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    // MASTER_PORT belongs to torchrun's own store, so nodes use the port after it.
    let meet = (port() - 1).to_string();
    let start = |rank: &str| {
        let env = [
            ("RANK", rank),
            ("WORLD_SIZE", "3"),
            ("LOCAL_RANK", rank),
            ("MASTER_ADDR", "127.0.0.1"),
            ("MASTER_PORT", &meet),
        ];
        Process::start_with("node", "--recipe sync --epochs 1 --json", &env)
    };
    for node in ["0", "1", "2"].map(start) {
        let ended = node.end().succeeded();
        assert!(ended.said.iter().any(|line| line.contains("(torchrun)")), "{:?}", ended.said);
        assert_eq!(ended.field("digest"), digests[0]);
    }
}

/// A long vector has a server beside each worker, in its process, and a short one a single server. The result of rounds is
/// the same.
#[test]
fn long_vectors_have_a_server_in_each_process() {
    let servers = |args: &str, count: usize| {
        let ended: Vec<_> = nodes(3, args).into_iter().map(|node| node.end().succeeded()).collect();
        // A process prints an object for each of its nodes.
        for (rank, ended) in ended.iter().enumerate() {
            let objects = ended.said.iter().filter(|line| line.starts_with("{\"rank\":")).count();
            assert_eq!(objects, 1 + (rank..count).step_by(3).count(), "{args}, rank {rank}: {:#?}", ended.said);
        }
        let digest = |ended: &Ended, rank: usize| {
            let own = ended.said.iter().find(|line| line.starts_with(&format!("{{\"rank\":{rank},")));
            own.unwrap().split_once("\"digest\":\"").unwrap().1[..16].to_string()
        };
        digest(&ended[0], 0)
    };
    for transport in ["tcp", "shm"] {
        let long = format!("--recipe hardsync --epochs 1 --hidden 2800 --transport {transport}");
        let one = servers(&format!("{long} --servers 1"), 1);
        assert_eq!(servers(&long, 3), one, "{transport}");
        assert_eq!(servers(&format!("{long} --servers 4 --shards 4"), 4), one, "{transport}");
    }
    servers("--recipe hardsync --epochs 1", 1);
}

/// The rest waits for a killed worker (rank 0 hosts the coordinator). After a restart it goes on in the current round,
/// and the final parameters equal the result of a run without a failure.
#[test]
fn a_restarted_member_does_not_change_the_result() {
    let args = "--recipe sync --pace 60 --epochs 5";
    let expected = cluster("--recipe sync --epochs 5 --workers 3").field("digest");
    for victim in [1, 0] {
        let meet = port();
        let mut all: Vec<_> = (0..3).map(|rank| node(rank, 3, meet, args)).collect();
        all.iter_mut().for_each(Process::begins);
        all[victim].signal("-KILL");
        // One that is connected with it: in the tree, the others are connected with rank 0 only.
        let other = if victim == 0 { 2 } else { 0 };
        all[other].until(&format!("peer {victim} is disconnected"));
        let again = node(victim as u32, 3, meet, args);
        drop(std::mem::replace(&mut all[victim], again));
        for node in all {
            assert_eq!(node.end().succeeded().field("digest"), expected, "victim {victim}");
        }
    }
}

/// A coordinator on a node of its own, killed and restarted, learns the current round from the workers.
#[test]
fn a_restarted_coordinator_does_not_change_the_result() {
    let args = "--recipe sync --pace 60 --epochs 4 --servers 1 --apart";
    let expected = cluster("--recipe sync --epochs 4 --workers 3").field("digest");
    let meet = port();
    let mut all: Vec<_> = (0..4).map(|rank| node(rank, 4, meet, args)).collect();
    all[..3].iter_mut().for_each(Process::begins);
    all[3].signal("-KILL");
    all[1].until("peer 3 is disconnected");
    let again = node(3, 4, meet, args);
    drop(std::mem::replace(&mut all[3], again));
    let ended: Vec<_> = all.into_iter().map(|node| node.end().succeeded()).collect();
    for node in &ended[..3] {
        assert_eq!(node.field("digest"), expected);
    }
}

/// A killed worker that is not restarted is given up after `dead_after`, and the rest goes on without it.
#[test]
fn a_killed_member_is_given_up() {
    for transport in ["tcp", "shm"] {
        let name = format!("away-{}-{transport}", std::process::id());
        let args =
            format!("--recipe sync --pace 100 --epochs 2 --dead-after 1 --transport {transport} --cluster {name}");
        let mut all = nodes(3, &args);
        all.iter_mut().for_each(Process::begins);
        all[1].signal("-KILL");
        let took = all[2].until("peer 1 was unreachable for too long");
        assert!(took < Duration::from_secs(5), "{took:?}");
        drop(all.remove(1));
        let digests: Vec<_> = all.into_iter().map(|node| node.end().succeeded().field("digest")).collect();
        assert_eq!(digests[0], digests[1]);
    }
}

/// A restarted server gets its parameters back from the workers, and training goes on.
#[test]
fn a_killed_server_gets_its_parameters_back() {
    for recipe in ["async", "ssp", "hardsync"] {
        let args = format!("--recipe {recipe} --pace 60 --epochs 6 --apart");
        let meet = port();
        let mut all: Vec<_> = (0..4).map(|rank| node(rank, 4, meet, &args)).collect();
        all[..3].iter_mut().for_each(Process::begins);
        all[3].signal("-KILL");
        all[1].until("peer 3 is disconnected");
        let again = node(3, 4, meet, &args);
        drop(std::mem::replace(&mut all[3], again));
        let ended: Vec<_> = all.into_iter().map(|node| node.end().succeeded()).collect();
        let accuracy: f64 = ended[0].field("accuracy").parse().unwrap();
        assert!(accuracy > 0.85, "{recipe}: {accuracy}");
    }
}

/// A process that is stopped for longer than `dead_after` is given up, and comes back as a newcomer when it runs again.
#[test]
fn a_stopped_process_is_given_up_and_comes_back() {
    let mut all = nodes(3, "--recipe sync --pace 50 --epochs 16 --dead-after 2");
    all.iter_mut().for_each(Process::begins);
    all[1].signal("-STOP");
    let took = all[2].until("peer 1 was unreachable for too long");
    assert!(took < Duration::from_secs(6), "{took:?}");
    // The view of two may have been reported before, when rank 0 was the first to give the peer up.
    all[1].signal("-CONT");
    all[2].until("3 workers go on together");
    let digests: Vec<_> = all.into_iter().map(|node| node.end().succeeded().field("digest")).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

/// A connection that stays open but carries nothing is closed, with an error that names the silent peer.
#[test]
fn a_silent_connection_is_reported_by_peer() {
    let (listen, args) = (port(), "--recipe sync --pace 100 --epochs 2 --dead-after 2");
    let proxy = Proxy::start(listen, Chaos::Calm);
    let mut first = node(0, 2, listen, args);
    let mut second = node(1, 2, proxy.port, args);
    first.until("first step done");
    second.until("first step done");
    proxy.hole(true);
    assert!(first.until("peer 1 is disconnected: silent") < Duration::from_secs(4));
    second.until("peer 0 is disconnected: silent");
    proxy.hole(false);
    // Rank 1 was given up or reconnected in time, so only rank 0 certainly succeeds.
    first.end().succeeded();
    drop(second);
}

/// Synchronous runs end with the same parameters, whether or not a proxy cuts, delays, splits or damages their
/// connections.
#[test]
fn bad_connections_do_not_change_the_result() {
    let expected = cluster("--recipe sync --epochs 1 --workers 2 --hidden 32").field("digest");
    let key = scratch("chaos").join("key");
    Process::start("node", &format!("keygen {}", key.display())).end().succeeded();
    let sealed = format!("--key-file {}", key.display());
    let cases = [
        (Chaos::Trickle, ""),
        (Chaos::Delay(1), ""),
        (Chaos::Cut(300), ""),
        (Chaos::Cut(20_000), sealed.as_str()),
        (Chaos::Flip(5_000), ""),
        (Chaos::Flip(5_000), sealed.as_str()),
    ];
    for (chaos, security) in cases {
        let listen = port();
        let proxy = Proxy::start(listen, chaos);
        let args = format!("--recipe sync --epochs 1 --hidden 32 {security}");
        let first = node(0, 2, listen, &args);
        let second = node(1, 2, proxy.port, &args);
        for node in [first, second] {
            assert_eq!(node.end().succeeded().field("digest"), expected, "{chaos:?} {security}");
        }
        let harmed = proxy.harmed.load(std::sync::atomic::Ordering::Relaxed);
        assert!(harmed > 0 || matches!(chaos, Chaos::Trickle | Chaos::Delay(_)), "{chaos:?} changed no bytes");
    }
}

/// A run that is killed and resumed ends with the parameters of one without interruption, bit for bit.
#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    for recipe in [
        "sync --momentum 0.5",
        "averaging --optimizer keep --momentum 0.5 --period 5",
        "averaging --optimizer average --momentum 0.5 --topology ring",
    ] {
        let directory = scratch(&format!("resume-{}", recipe.len()));
        let args = format!("--recipe {recipe} --epochs 4 --checkpoint {} --every 10 --run r", directory.display());
        let directory = directory.join("r");
        let expected = cluster(&format!("--recipe {recipe} --epochs 4 --workers 3")).field("digest");
        let mut all = nodes(3, &format!("{args} --pace 100"));
        // Wait until each rank has two checkpoints.
        let has_two = |rank: u32| {
            std::fs::read_dir(directory.join(format!("rank-{rank}"))).is_ok_and(|entries| {
                entries.flatten().filter(|entry| entry.path().extension().is_some_and(|it| it == "gwck")).count() > 1
            })
        };
        all[0].until("first step done");
        let begun = std::time::Instant::now();
        while !(0..3).all(has_two) {
            assert!(begun.elapsed() < process::PATIENCE);
            std::thread::yield_now();
        }
        // Killed together, as by a power failure: some ranks may have written one checkpoint more than the rest.
        all.iter().for_each(|node| node.signal("-KILL"));
        drop(all);
        let newest = |rank: u32| {
            let files = std::fs::read_dir(directory.join(format!("rank-{rank}"))).unwrap().flatten();
            files
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|it| it == "gwck"))
                .max()
                .unwrap()
        };
        let common = (0..3).map(|rank| newest(rank).file_name().unwrap().to_owned()).min().unwrap();
        for rank in 0..3 {
            let path = newest(rank);
            if path.file_name() != Some(&common) {
                std::fs::remove_file(path).unwrap();
            }
        }
        for node in nodes(3, &format!("{args} --resume")) {
            assert_eq!(node.end().succeeded().field("digest"), expected, "{recipe}");
        }
    }
}

/// SIGTERM suspends a run without rounds, and `--resume` goes on. A worker that is killed after that and resumes again
/// from its old checkpoint takes the parameters of the running workers.
#[test]
fn a_suspended_run_goes_on() {
    for recipe in ["mesh", "async --servers 1"] {
        let directory = scratch(&format!("suspend-{}", recipe.len()));
        let args = format!("--recipe {recipe} --epochs 8 --checkpoint {} --dead-after 1", directory.display());
        let mut all = nodes(3, &format!("{args} --pace 200"));
        all[0].until("first step done");
        all.iter().for_each(|node| node.signal("-TERM"));
        let ends: Vec<_> = all.into_iter().map(|node| node.end().terminated()).collect();
        assert!(ends.iter().all(|end| end.said.iter().any(|line| line.contains("\"drained\":true"))), "{recipe}");
        let meet = port();
        let resumed = |rank| node(rank, 3, meet, &format!("{args} --pace 60 --resume"));
        let mut all: Vec<_> = (0..3).map(resumed).collect();
        all.iter_mut().for_each(Process::begins);
        all[2].signal("-KILL");
        let mut again = resumed(2);
        again.until("the run is ahead of this checkpoint");
        drop(std::mem::replace(&mut all[2], again));
        for node in all {
            let ended = node.end().succeeded();
            let accuracy: f64 = ended.field("accuracy").parse().unwrap();
            // Only rank 0 evaluates the model; the other ranks print NaN.
            assert!(!(0.0..0.9).contains(&accuracy), "{recipe}: {accuracy}");
        }
    }
}

#[test]
fn a_process_that_does_not_fit_ends_with_the_reason() {
    let directory = scratch("misfits");
    let [key, other] = ["key", "other"].map(|name| directory.join(name));
    for path in [&key, &other] {
        Process::start("node", &format!("keygen {}", path.display())).end().succeeded();
    }
    let args = format!("--recipe sync --pace 50 --epochs 100 --key-file {}", key.display());
    let meet = port();
    let mut all: Vec<_> = (0..3).map(|rank| node(rank, 3, meet, &args)).collect();
    all.iter_mut().for_each(Process::begins);
    let last = |ended: &Ended| ended.said.last().cloned().unwrap_or_default();
    let intruder = |rank: u32, count: u32, args: &str| node(rank, count, meet, args).end();
    // Another key, no key; a rank that is taken; another number of processes; another cluster.
    let wrong = intruder(1, 3, &format!("--recipe sync --key-file {}", other.display()));
    assert_eq!(wrong.code, Some(5), "{:?}", wrong.said);
    assert!(last(&wrong).contains("its key differs"), "{:?}", wrong.said);
    assert_eq!(intruder(1, 3, "--recipe sync").code, Some(5));
    let taken = intruder(1, 3, &format!("{args} --dead-after 1"));
    assert_eq!(
        (taken.code, last(&taken).contains("rank 1 is taken by a running process")),
        (Some(4), true),
        "{:?}",
        taken.said
    );
    let many = intruder(1, 4, &args);
    assert!(last(&many).contains("expected 3 nodes, got 4"), "{:?}", many.said);
    let foreign = intruder(1, 3, &format!("{args} --cluster other"));
    assert!(last(&foreign).contains("expected cluster "), "{:?}", foreign.said);
    // Clients of other protocols must not disturb the run.
    for words in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "SSH-2.0-OpenSSH_9.6\r\n", "\x16\x03\x01\x02\x00\x01", ""] {
        let mut stream = TcpStream::connect(("127.0.0.1", meet)).unwrap();
        let _ = stream.write_all(words.as_bytes());
    }
    all.iter().for_each(|node| node.signal("-TERM"));
    all.into_iter().for_each(|node| drop(node.end().terminated()));
}

#[test]
fn a_different_recipe_is_refused_with_both_values() {
    let meet = port();
    let mut first = node(0, 2, meet, "--recipe ssp --bound 3 --apart --servers 1");
    let second = node(1, 2, meet, "--recipe ssp --bound 4 --apart --servers 1");
    let second = second.end();
    let lines = || second.said.iter().chain(&[]).cloned().collect::<Vec<_>>().join("\n");
    assert_eq!(second.code, Some(3), "{}", lines());
    assert!(lines().contains("expected \"bound = 4\", got \"bound = 3\""), "{}", lines());
    first.until("expected \"bound = 3\", got \"bound = 4\"");
    assert_eq!(first.end().code, Some(3));
}

/// A worker that gets SIGTERM contributes its rest and leaves, and the remaining workers finish.
#[test]
fn a_worker_leaves_cleanly_on_sigterm() {
    let mut all = nodes(3, "--recipe sync --pace 50 --epochs 4");
    all.iter_mut().for_each(Process::begins);
    all[1].signal("-TERM");
    let drained = all.remove(1).end().terminated();
    assert_eq!(drained.field("drained"), "true");
    all.into_iter().for_each(|node| drop(node.end().succeeded()));
}

#[test]
fn launch_starts_processes_and_reports_their_exit() {
    let ended = Process::start("launch", "-n 3 -- node --recipe mesh --epochs 1").end().succeeded();
    assert!(ended.said.iter().any(|line| line.starts_with("[0] epoch   1")), "{:?}", ended.said);
    let failing = Process::start("launch", "-n 2 -- false").end();
    assert_eq!(failing.code, Some(1));
    let last = failing.said.last().unwrap();
    assert!(
        last.starts_with("launch: process ") && last.ends_with(" failed first (exit code 1)"),
        "{:?}",
        failing.said
    );
    let missing = Process::start("launch", "-n 2 -- /nowhere/at/all").end();
    assert_eq!(missing.code, Some(4));
    let mut stopped = Process::start("launch", "-n 2 -- node --recipe sync --pace 20 --epochs 50");
    stopped.until("first step done");
    stopped.signal("-TERM");
    assert_eq!(stopped.end().code, Some(143));
}

/// Bad input is refused in one line, with an exit code per kind of error.
#[test]
fn bad_input_is_refused_in_one_line() {
    let directory = scratch("bad");
    let open = directory.join("open");
    std::fs::write(&open, "0".repeat(64)).unwrap();
    let short = directory.join("short");
    std::fs::write(&short, "abc\n").unwrap();
    for path in [&open, &short] {
        use std::os::unix::fs::PermissionsExt;
        let mode = if path == &open { 0o644 } else { 0o600 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let config = directory.join("node.toml");
    std::fs::write(&config, "recipe = \"ssp\"\nbound = [1]\n").unwrap();
    let (open, short, config) = (open.display(), short.display(), config.display());
    let node = |args: &str| Process::start("node", args).end();
    for (args, code, text) in [
        ("--rank 0".to_string(), 2, "expected --rank and --processes together"),
        ("--rank 2 --processes 2".into(), 2, "--rank: expected less than 2, got 2"),
        ("--rank 0 --processes 2".into(), 2, "--meet: expected HOST:PORT"),
        ("--rank 0 --processes 2 --meet nonsense".into(), 2, "--meet: expected HOST:PORT, got \"nonsense\" (no port)"),
        (
            "--rank 0 --processes 2 --meet 127.0.0.1".into(),
            2,
            "--meet: expected HOST:PORT, got \"127.0.0.1\" (no port)",
        ),
        ("--rank 0 --processes 2 --meet :29510".into(), 2, "got \":29510\" (no host"),
        ("--rank 0 --processes 2 --meet h:70000".into(), 2, "got \"h:70000\" (the port is no number from 0 to 65535)"),
        ("--rank 0 --processes 2 --meet ::1:9".into(), 2, "got \"::1:9\" (an IPv6 address needs brackets"),
        ("--rank 1 --processes 2 --meet h:0".into(), 2, "got \"h:0\" (no process listens at port 0)"),
        ("--rank 0 --processes 2 --meet h:9 --listen h".into(), 2, "listen: expected HOST:PORT, got \"h\""),
        ("--rank 0 --processes 2 --meet h:9 --listen 192.0.2.1:0".into(), 5, "without a key lets anyone"),
        (
            "--rank 0 --processes 2 --meet h:9 --listen 192.0.2.1:0 --insecure-open".into(),
            4,
            "this machine has no such address",
        ),
        ("--monitor 127.0.0.1".into(), 2, "--monitor: expected HOST:PORT, got \"127.0.0.1\" (no port)"),
        ("--monitor 127.0.0.1:65535".into(), 2, "no port is left for the reports"),
        ("--metrics 127.0.0.1:x".into(), 2, "--metrics: expected HOST:PORT, got \"127.0.0.1:x\""),
        ("--rank 0 --processes 2 --meet 0.0.0.0:0".into(), 5, "without a key lets anyone"),
        ("--rank 0 --processes 0 --meet 127.0.0.1:1".into(), 2, "0 is not in 1..=1024"),
        (format!("--key-file {open}"), 5, "expected a file that only its owner can read"),
        (format!("--key-file {short}"), 5, "expected 64 hexadecimal digits, got 3"),
        ("--key-file /nowhere".into(), 5, "No such file"),
        (format!("--config {config}"), 2, "bound: expected text, a number, true or false, got array"),
        ("--config /nowhere".into(), 2, "No such file"),
        ("--dead-after 0".into(), 2, "--dead-after: expected 0.1 to 86400 seconds, got 0"),
        (format!("--checkpoint {config}"), 6, "--checkpoint: expected a directory in which files can be created, got"),
        ("--checkpoint /proc/nowhere".into(), 6, "got /proc/nowhere (No such file"),
        (
            "--recipe downpour --servers 2 --server-port 65535 --rank 0 --processes 2 --meet 127.0.0.1:29510".into(),
            2,
            "--server-port: expected at most 65534 with 2 servers, got 65535",
        ),
        ("--dead-after NaN".into(), 2, "--dead-after: expected 0.1 to 86400 seconds, got NaN"),
        ("--transport carrier-pigeon".into(), 2, "carrier-pigeon"),
        ("--resume".into(), 2, "--checkpoint"),
        ("--run a/b".into(), 2, "--run: run name: expected letters, digits, '.', '_' or '-', got '/'"),
        ("--recipe sync --apart --servers 1 --rank 0 --processes 1 --meet 127.0.0.1:1".into(), 3, ""),
        (format!("keygen {open}"), 5, "File exists"),
    ] {
        let ended = node(&args);
        let said = ended.said.join("\n");
        assert_eq!(ended.code, Some(code), "{args}: {said}");
        assert!(said.contains(text), "{args}: {said}");
        assert!(!said.contains("panicked"), "{args}: {said}");
    }
}
