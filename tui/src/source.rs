//! Where frames come from: a node, a recording, or a simulation. Each on a thread of its own, through a bounded channel.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use gradwire::monitor::{Frames, MonitorKey, subscribe};
use gradwire_core::telemetry::{Frame, MAGIC};

/// Frames that wait to be looked at; what comes above is dropped, as monitors are told anew anyway.
const WAITING: usize = 8192;

/// What a source says.
pub(crate) enum Said {
    Frame(Box<Frame>),
    /// The connection is gone, for this reason; it is tried again.
    Lost(String),
}

/// Frames of a node that monitors are told by, again and again if it goes.
pub(crate) fn live(address: String, rate: u8, key: Option<MonitorKey>) -> Receiver<Said> {
    let (tell, told) = sync_channel(WAITING);
    thread::spawn(move || {
        loop {
            let result = subscribe(&address, rate, key).and_then(|mut stream| {
                let mut frames = Frames::default();
                loop {
                    let frame = frames.next(&mut stream)?;
                    if let Err(TrySendError::Disconnected(_)) = tell.try_send(Said::Frame(Box::new(frame))) {
                        return Ok(());
                    }
                }
            });
            let Err(error) = result else { return };
            if tell.send(Said::Lost(format!("{address}: {error}"))).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(500));
        }
    });
    told
}

/// Frames of a thread in this process.
pub(crate) fn own(make: impl FnOnce(&SyncSender<Said>) + Send + 'static) -> Receiver<Said> {
    let (tell, told) = sync_channel(WAITING);
    thread::spawn(move || make(&tell));
    told
}

/// All frames of a recording.
pub(crate) fn recorded(path: &Path) -> io::Result<Vec<Frame>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut magic = [0; 8];
    file.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "expected a recording of version 1, got something else",
        ));
    }
    let (mut frames, mut all) = (Frames::default(), Vec::new());
    loop {
        match frames.next(&mut file) {
            Ok(frame) => all.push(frame),
            // A recording that was cut off is good up to there.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(all),
            Err(error) => return Err(error),
        }
    }
}
