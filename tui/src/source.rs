//! Sources of frames: a node of a live run, a thread of this process, or a recording.
//!
//! A live source runs on a thread of its own and sends [`Update`]s through a bounded channel.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use gradwire::monitor::{Frames, MonitorKey, subscribe};
use gradwire_core::telemetry::{Frame, MAGIC};

use crate::refusal::{self, Stage};

/// Capacity of the channel. A frame that finds it full is dropped; the next report of the node replaces it.
const CHANNEL_CAPACITY: usize = 8192;
/// Time between two attempts to connect.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A message from a live source.
pub(crate) enum Update {
    /// A frame of the run.
    Frame(Box<Frame>),
    /// The connection failed, for this reason. The source connects again.
    Disconnected(String),
}

/// Subscribes to the monitor address of a node, at `rate` reports per second. Connects again after a failure.
pub(crate) fn connect(address: String, rate: u8, key: Option<MonitorKey>) -> Receiver<Update> {
    spawn(move |updates| {
        while let Err((stage, error)) = follow(&address, rate, key, updates) {
            let reason = refusal::words(stage, &error, key.is_some());
            if updates.send(Update::Disconnected(format!("{address}: {reason}"))).is_err() {
                return;
            }
            thread::sleep(RETRY_AFTER);
        }
    })
}

/// Sends the frames of one connection. Returns `Ok` when the receiver is gone.
fn follow(
    address: &str,
    rate: u8,
    key: Option<MonitorKey>,
    updates: &SyncSender<Update>,
) -> Result<(), (Stage, io::Error)> {
    let mut stream = subscribe(address, rate, key).map_err(|error| (Stage::Greeting, error))?;
    let (mut frames, mut stage) = (Frames::default(), Stage::Subscribed);
    loop {
        let frame = frames.next(&mut stream).map_err(|error| (stage, error))?;
        stage = Stage::Following;
        // Not a blocking send: a slow screen must not let the connection fill up, or the node would close it.
        if let Err(TrySendError::Disconnected(_)) = updates.try_send(Update::Frame(Box::new(frame))) {
            return Ok(());
        }
    }
}

/// Runs `produce` on a thread of its own and returns the other end of its channel.
pub(crate) fn spawn(produce: impl FnOnce(&SyncSender<Update>) + Send + 'static) -> Receiver<Update> {
    // Bounded: a reader that stops must not make the sender's memory grow.
    let (sender, receiver) = sync_channel(CHANNEL_CAPACITY);
    thread::spawn(move || produce(&sender));
    receiver
}

/// Reads all frames of a recording.
///
/// # Errors
/// On an I/O error, and when the file is not a recording of this version or has a malformed frame.
pub(crate) fn read_recording(path: &Path) -> io::Result<Vec<Frame>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut magic = [0; 8];
    file.read_exact(&mut magic)?;
    if magic != MAGIC {
        let text = "expected a recording of version 4 (made with --record), got another file";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let (mut frames, mut all) = (Frames::default(), Vec::new());
    loop {
        match frames.next(&mut file) {
            Ok(frame) => all.push(frame),
            // The end of the file, or a last frame that is incomplete because the recorder was killed.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(all),
            Err(error) => return Err(error),
        }
    }
}
