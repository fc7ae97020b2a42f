//! [`Feed`]: frames from a source into the model. It plays recordings back and writes `--record` files.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use gradwire_core::telemetry::{Frame, MAGIC};

use crate::app::{App, Playback};
use crate::model::{Model, seconds};
use crate::source::Update;
use crate::timeline::Timeline;

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
    /// When the last frame of a live source came.
    heard: Instant,
    /// The time of each frame of a recording, in seconds since its start.
    times: Vec<f64>,
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
        Frame::Present(present) => Some(seconds(present.at)),
    }
}

/// The time of each frame of a recording, in seconds. They do not fall: where another board begins, its time goes on
/// from that of the former one.
fn times_of(frames: &[Frame]) -> Vec<f64> {
    let (mut start, mut before, mut last) = (None, 0.0, 0.0);
    let mut time = |frame: &Frame| {
        if let Frame::Present(present) = frame
            && start.replace(present.start).is_some_and(|former| former != present.start)
        {
            before = last - seconds(present.at);
        }
        last = time_of(frame).map_or(last, |at| last.max(before + at));
        last
    };
    frames.iter().map(&mut time).collect()
}

impl Feed {
    pub(crate) fn new(source: Source, recorder: Option<Recorder>) -> Self {
        let times = match &source {
            Source::Recording(frames) => times_of(frames),
            Source::Live(_) => Vec::new(),
        };
        let (advanced, heard) = (Instant::now(), Instant::now());
        Self { source, recorder, model: Model::default(), advanced, heard, times, frames_played: 0 }
    }

    /// The initial playback position, if the source is a recording.
    pub(crate) fn playback(&self) -> Option<Playback> {
        let Source::Recording(_) = &self.source else { return None };
        let (start, length) = (self.times.first().copied(), self.times.last().copied());
        let (start, length) = (start.unwrap_or(0.0), length.unwrap_or(0.0));
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
                    self.heard = Instant::now();
                    if let Some(recorder) = &mut self.recorder {
                        recorder.write(&frame)?;
                    }
                    self.model.take(*frame);
                }
                Ok(Update::Disconnected(reason)) => {
                    self.model.disconnected = Some(reason.clone());
                    app.disconnected = Some(reason);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
            wait = Duration::ZERO;
        }
        // By the clock of this program: a source that is stopped tells no time.
        self.model.pass(self.heard.elapsed().as_secs_f64());
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
        if app.timeline.as_ref().is_none_or(|page| !page.contains(position)) {
            app.timeline = Some(Rc::new(Timeline::at(position, frames, &self.times)));
        }
        // A model cannot go back in time. After a seek backwards it is built again from the first frame.
        if self.frames_played > 0 && self.times[self.frames_played - 1] > position + 1e-9 {
            (self.model, self.frames_played) = (Model::default(), 0);
        }
        while let Some(frame) = frames.get(self.frames_played).filter(|_| self.times[self.frames_played] <= position) {
            self.model.take(frame.clone());
            self.frames_played += 1;
        }
        if self.frames_played > 0 {
            self.model.pass(position - self.times[self.frames_played - 1]);
        }
    }
}
