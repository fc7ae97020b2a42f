//! One connection, from its first byte to its last.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Instant as Clock;

use gradwire_core::{OpId, Pool, Segment};

use crate::carrier::Stream;
use crate::preamble::{PREAMBLE_LEN, Preamble};
use crate::reader::{Reader, Step};
use crate::writer::Writer;

#[derive(Debug)]
pub(crate) struct Link<S> {
    pub(crate) stream: S,
    pub(crate) state: State,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    /// The rank that was dialled; none for one that came in.
    pub(crate) dialled: Option<u32>,
    pub(crate) began: Clock,
    /// Last read of anything, or last end of a pause in reading.
    pub(crate) heard: Clock,
    /// Last time that something was queued.
    pub(crate) said: Clock,
    /// Bytes may be there, or room.
    pub(crate) runnable: bool,
}

#[derive(Debug)]
pub(crate) enum State {
    /// The carrier is not there yet.
    Establishing,
    /// Their preamble is on its way: what of it has come.
    Greeting {
        coming: Vec<u8>,
    },
    Open {
        peer: usize,
    },
}

impl<S: Stream> Link<S> {
    pub(crate) fn new(stream: S, dialled: Option<u32>, now: Clock) -> Self {
        let checked = !stream.protects();
        Self {
            stream,
            state: State::Establishing,
            reader: Reader::new(checked),
            writer: Writer::new(checked),
            dialled,
            began: now,
            heard: now,
            said: now,
            runnable: true,
        }
    }

    /// Carries the connection on until it can be greeted over; true when it can.
    pub(crate) fn establish(&mut self) -> io::Result<bool> {
        let done = self.stream.establish()?;
        if done {
            self.state = State::Greeting { coming: Vec::new() };
        }
        Ok(done)
    }

    /// Says who we are. A connection that has no room for that is none.
    pub(crate) fn greet(&mut self, preamble: &Preamble) -> io::Result<()> {
        let bytes = preamble.emit();
        if self.stream.write(&[IoSlice::new(&bytes)])? < bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.stream.flush()?;
        Ok(())
    }

    /// Who they are, once they have said so.
    pub(crate) fn greeting(&mut self) -> io::Result<Option<Preamble>> {
        let State::Greeting { coming } = &mut self.state else { return Ok(None) };
        let mut bytes = [0; PREAMBLE_LEN];
        while coming.len() < PREAMBLE_LEN {
            match self.stream.read(&mut bytes[..PREAMBLE_LEN - coming.len()]) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended before it said who it is")),
                Ok(n) => coming.extend(&bytes[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        bytes.copy_from_slice(coming);
        let preamble = Preamble::parse(&bytes).map_err(|text| io::Error::new(io::ErrorKind::InvalidData, text))?;
        Ok(Some(preamble))
    }

    /// Says where the body of the last header goes.
    pub(crate) fn receive(&mut self, op: OpId, into: Option<Segment>) -> bool {
        self.heard = Clock::now();
        self.reader.receive(op, into)
    }

    /// Is there a use for bytes that come, and for room?
    pub(crate) fn wants(&self) -> (bool, bool) {
        (!self.reader.is_held(), !self.writer.is_empty())
    }

    /// Writes frames; true when nothing is left to write.
    pub(crate) fn write(&mut self, ended: &mut VecDeque<OpId>) -> io::Result<bool> {
        let stream = &mut self.stream;
        let all = self.writer.write(&mut |slices| stream.write(slices), ended)?;
        Ok(self.stream.flush()? && all)
    }

    /// Reads frames.
    pub(crate) fn step(&mut self, pool: &mut Pool, now: Clock) -> io::Result<Step> {
        let before = self.reader.total;
        let stream = &mut self.stream;
        let step = self.reader.step(&mut |into| stream.read(into), pool);
        if self.reader.total != before {
            self.heard = now;
        }
        step
    }
}
