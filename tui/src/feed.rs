//! [`Feed`]: frames from a source into the model. It plays recordings back and writes `--record` files.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use gradwire_core::telemetry::{Frame, MAGIC};

use crate::app::{App, Playback};
use crate::model::{Model, seconds};
use crate::source::Update;

/// A source of frames.
pub(crate) enum Source {
    /// A thread that sends frames as they come.
    Live(Receiver<Update>),
    /// All frames of a recording, in order of time.
    Recording(Vec<Frame>),
}

/// A source, the model that it feeds, and the file to record to.
pub(crate) struct Feed {
    source: Source,
    recorder: Option<Recorder>,
    pub(crate) model: Model,
    /// When the playback position was last advanced.
    advanced: Instant,
    /// Number of frames of the recording that are in the model.
    frames_played: usize,
}

/// A file that receives all frames.
pub(crate) struct Recorder {
    file: BufWriter<File>,
    buffer: Vec<u8>,
}

impl Recorder {
    /// Creates the file; one that exists is an error, unless `overwrite` is set.
    pub(crate) fn create(path: &Path, overwrite: bool) -> io::Result<Self> {
        let mut file = BufWriter::new(new_file(path, overwrite)?);
        file.write_all(&MAGIC)?;
        Ok(Self { file, buffer: Vec::new() })
    }

    fn write(&mut self, frame: &Frame) -> io::Result<()> {
        self.buffer.clear();
        frame.emit(&mut self.buffer);
        self.file.write_all(&self.buffer)
    }
}

/// Creates a file for writing.
///
/// # Errors
/// On an I/O error, and if the file exists, unless `overwrite` is set.
pub(crate) fn new_file(path: &Path, overwrite: bool) -> io::Result<File> {
    if overwrite {
        return File::create(path);
    }
    OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            io::Error::new(error.kind(), "the file exists; expected a new name, or --overwrite")
        }
        _ => error,
    })
}

/// The time of a frame in seconds. `None` for a description of the run.
fn time_of(frame: &Frame) -> Option<f64> {
    match frame {
        Frame::Run(_) => None,
        Frame::Report(report) => Some(seconds(report.at)),
        Frame::Note(note) => Some(seconds(note.at)),
    }
}

/// The time of the run at which a recording begins. Its first frames are those that the board had then: up to the second
/// report of a node. Old notes and the last reports of nodes that have left are among them.
fn start_of(frames: &[Frame]) -> f64 {
    let mut seen = BTreeSet::new();
    let first = frames.iter().take_while(|frame| match frame {
        Frame::Report(report) => seen.insert(report.status.me),
        Frame::Run(_) | Frame::Note(_) => true,
    });
    first.filter_map(time_of).fold(0.0, f64::max)
}

impl Feed {
    pub(crate) fn new(source: Source, recorder: Option<Recorder>) -> Self {
        Self { source, recorder, model: Model::default(), advanced: Instant::now(), frames_played: 0 }
    }

    /// The initial playback position, if the source is a recording.
    pub(crate) fn playback(&self) -> Option<Playback> {
        let Source::Recording(frames) = &self.source else { return None };
        let length = frames.iter().filter_map(time_of).fold(0.0, f64::max);
        let start = start_of(frames);
        Some(Playback { start, position: start, length, speed: 1.0, playing: true })
    }

    /// Brings the model up to date: takes all frames that have come, or advances the playback.
    ///
    /// Waits for the first frame of a live source for at most `wait`.
    ///
    /// # Errors
    /// When the recording cannot be written.
    pub(crate) fn update(&mut self, app: &mut App, wait: Duration) -> io::Result<()> {
        match &self.source {
            Source::Live(_) => self.receive(app, wait),
            Source::Recording(_) => {
                self.play(app);
                Ok(())
            }
        }
    }

    fn receive(&mut self, app: &mut App, mut wait: Duration) -> io::Result<()> {
        let Source::Live(updates) = &self.source else { return Ok(()) };
        loop {
            match updates.recv_timeout(wait) {
                Ok(Update::Frame(frame)) => {
                    app.disconnected = None;
                    if let Some(recorder) = &mut self.recorder {
                        recorder.write(&frame)?;
                    }
                    self.model.take(*frame);
                }
                Ok(Update::Disconnected(reason)) => app.disconnected = Some(reason),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
            wait = Duration::ZERO;
        }
        // A recording is complete up to the last update, however the program ends.
        self.recorder.as_mut().map_or(Ok(()), |recorder| recorder.file.flush())
    }

    fn play(&mut self, app: &mut App) {
        let (Source::Recording(frames), Some(playback)) = (&self.source, &mut app.playback) else { return };
        let elapsed = self.advanced.elapsed().as_secs_f64();
        self.advanced = Instant::now();
        if playback.playing {
            let position = playback.position + elapsed * playback.speed;
            playback.position = position.min(playback.length);
        }
        let position = playback.position;
        // A model cannot go back in time. After a seek backwards it is built again from the first frame.
        if self.frames_played > 0 && seconds(self.model.now) > position + 1e-9 {
            (self.model, self.frames_played) = (Model::default(), 0);
        }
        let is_due = |frame: &&Frame| time_of(frame).is_none_or(|at| at <= position);
        while let Some(frame) = frames.get(self.frames_played).filter(is_due) {
            self.model.take(frame.clone());
            self.frames_played += 1;
        }
    }
}
