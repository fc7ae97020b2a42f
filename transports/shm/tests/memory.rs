//! Long bodies that are read from the memory of their sender: processes that are killed, stopped or restarted meanwhile,
//! and processes that may not be read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use gradwire_core::wire::{Header, Message};
use gradwire_core::{BufferId, Clock, Incarnation, Input, OpId, PeerId, Pool, Segment, Sequence, Transport};
use gradwire_shm::{Builder, Notice, Shm};
use rustix::process::{Pid, Signal};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a body: more than a ring has.
const LEN: u32 = 3 << 20;
const BODY: Segment = Segment { buffer: BufferId(0), start: 0, len: LEN };
/// The variable that makes this program the other process: its part, and the directory.
const PART: &str = "GRADWIRE_TEST_PART";

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gradwire-memory-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

/// A node of two with its buffer, and its notices.
struct Node {
    transport: Shm,
    pool: Pool,
    notices: Receiver<Notice>,
}

impl Node {
    fn open(rank: u32, directory: &Path) -> Self {
        let (sender, notices) = channel();
        let builder = Builder::new(rank, 2).directory(directory).dead_after(Duration::from_millis(500));
        let transport = builder.notices(move |notice| drop(sender.send(notice))).open().unwrap();
        let mut pool = Pool::new([LEN as usize]);
        pool.bytes_mut(BODY).fill(rank as u8 + 1);
        Self { transport, pool, notices }
    }

    /// Polls until an input is the one that is looked for, and returns those before it.
    #[track_caller]
    fn until(&mut self, found: impl Fn(&Input) -> bool) -> Vec<Input> {
        let (begun, mut before) = (Instant::now(), Vec::new());
        loop {
            assert!(
                begun.elapsed() < PATIENCE,
                "got only {before:?}; {:?}",
                self.notices.try_iter().collect::<Vec<_>>()
            );
            match self.transport.poll(&mut self.pool, Some(Duration::from_millis(5))).unwrap() {
                Some(input) if found(&input) => return before,
                input => before.extend(input),
            }
        }
    }

    fn send(&mut self, op: u64) {
        let (me, _) = self.transport.place();
        let message = Message::Parameters { view: Sequence(1), round: Clock(1), vector: 0, riders: None };
        let header = Header::new(0, me, Incarnation(1), LEN, message);
        self.transport.transmit(OpId(op), PeerId(1 - me.0), header, Some(BODY), &self.pool);
    }

    fn receive(&mut self, op: u64) {
        let (me, _) = self.transport.place();
        self.transport.receive(OpId(op), PeerId(1 - me.0), Some(BODY), &mut self.pool);
    }

    /// What slows the connection down, as far as this node was told.
    fn slow(&self) -> Option<String> {
        self.notices
            .try_iter()
            .find_map(|notice| if let Notice::Slow { reason, .. } = notice { Some(reason) } else { None })
    }
}

fn is_connected(input: &Input) -> bool {
    matches!(input, Input::Connected { .. })
}

fn is_header(input: &Input) -> bool {
    matches!(input, Input::Header { .. })
}

fn completes(op: u64) -> impl Fn(&Input) -> bool {
    move |input| matches!(input, Input::Completed { op: of, .. } if *of == OpId(op))
}

fn aborts(op: u64) -> impl Fn(&Input) -> bool {
    move |input| *input == Input::Aborted { op: OpId(op) }
}

/// The other process: rank 1. The test of this name is run again by `start`.
#[test]
fn other_process() {
    let Ok(part) = std::env::var(PART) else { return };
    let (part, directory) = part.rsplit_once(' ').unwrap();
    let mut node = Node::open(1, Path::new(directory));
    node.until(is_connected);
    match part {
        // Sends a body, and waits for its end, or for that of the other process.
        "sends" => {
            node.send(1);
            node.until(completes(1));
            node.until(|input| matches!(input, Input::Disconnected { .. }));
        }
        // Cannot read the other process, and sends the body of that back.
        "receives and sends" => {
            node.until(is_header);
            let slow = node.slow().unwrap();
            assert!(slow.contains("its memory cannot be read: memory of process 0: expected"), "{slow}");
            node.receive(2);
            node.until(completes(2));
            assert!(node.pool.bytes(BODY).iter().all(|byte| *byte == 1));
            node.send(3);
            node.until(completes(3));
        }
        // Stops before it reads the body that comes. When it goes on, the sender has written to the memory.
        "stops" => {
            node.until(is_header);
            rustix::process::kill_process(rustix::process::getpid(), Signal::STOP).unwrap();
            node.receive(2);
            node.until(aborts(2));
        }
        part => panic!("{part}"),
    }
}

fn start(part: &str, directory: &Path, through: &[&str]) -> Child {
    let program = std::env::current_exe().unwrap();
    let mut words: Vec<_> = through.iter().map(std::ffi::OsString::from).collect();
    words.extend([program.into(), "other_process".into(), "--exact".into(), "--nocapture".into()]);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env(PART, format!("{part} {}", directory.display()));
    command.spawn().unwrap()
}

fn has_ended(child: &mut Child) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    false
}

/// A process is killed while its body waits to be read. The body is aborted, and a new process takes its place.
#[test]
fn a_body_of_a_killed_process_is_aborted_and_a_new_process_is_read() {
    let directory = scratch("killed");
    let mut node = Node::open(0, &directory);
    for _ in 0..2 {
        let mut child = start("sends", &directory, &[]);
        node.until(is_connected);
        node.until(is_header);
        child.kill().unwrap();
        child.wait().unwrap();
        node.receive(7);
        let before = node.until(aborts(7));
        assert_eq!(before, [Input::Disconnected { peer: PeerId(1) }]);
    }
    let mut child = start("sends", &directory, &[]);
    node.until(is_header);
    assert_eq!(node.slow(), None);
    node.receive(8);
    node.until(completes(8));
    assert!(node.pool.bytes(BODY).iter().all(|byte| *byte == 2));
    drop(node);
    assert!(has_ended(&mut child));
    let _ = std::fs::remove_dir_all(directory);
}

/// A receiver is stopped in front of a body. The sender gives it up, and gets its memory back. When the receiver goes on,
/// it must not take what is there now.
#[test]
fn a_body_that_a_stopped_process_has_not_read_is_not_read_later() {
    let directory = scratch("stopped");
    let mut node = Node::open(0, &directory);
    let mut child = start("stops", &directory, &[]);
    node.until(is_connected);
    node.send(1);
    let before = node.until(aborts(1));
    assert_eq!(before, [Input::Disconnected { peer: PeerId(1) }]);
    node.pool.bytes_mut(BODY).fill(0);
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    assert!(has_ended(&mut child));
    drop(node);
    let _ = std::fs::remove_dir_all(directory);
}

/// A process in a process namespace of its own does not see the number of this process, and cannot read it. It says so, and
/// a body for it comes through the ring. This process can read the other one.
#[test]
fn a_process_that_cannot_read_another_one_gets_bodies_through_the_ring() {
    let through = ["unshare", "--pid", "--fork", "--kill-child"];
    if !Command::new(through[0]).args(&through[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        println!("skipped: a process namespace cannot be made here");
        return;
    }
    let directory = scratch("namespace");
    let mut node = Node::open(0, &directory);
    let mut child = start("receives and sends", &directory, &through);
    node.until(is_connected);
    node.send(1);
    node.until(completes(1));
    node.until(is_header);
    assert_eq!(node.slow(), None);
    node.receive(8);
    node.until(completes(8));
    assert!(node.pool.bytes(BODY).iter().all(|byte| *byte == 1));
    drop(node);
    assert!(has_ended(&mut child));
    let _ = std::fs::remove_dir_all(directory);
}
