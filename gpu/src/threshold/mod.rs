//! Threshold encoding (Strom 2015): the kernel `Encode` of the codec threshold.
//!
//! The device takes quanta out of `residual + update` and makes the list of entries (see threshold.wgsl). The host
//! reads the list and a few counters, and writes the body. Update and residual stay on the device. The body is written
//! on the host because its code is a serial chain of bits and its list is short: about 2 ns per entry.
//!
//! A message goes through two steps:
//!
//! 1. [`Encoder::begin`] records the passes over all sections and reads counters and lists back. The length of a list
//!    is not known at that time, so a guess from earlier messages limits the words to read.
//! 2. [`Encoder::poll`] writes the sections of the body in order. A list that is longer than the guess is read back
//!    again. A section that exceeds a byte budget is put back into the residual and taken with a higher threshold.
//!
//! The module `section` has the device buffers of a section and records its passes.

mod section;

use std::ops::Range;

use gradwire_core::codec::Encoded;
use gradwire_core::codec::threshold::{Aim, Choice, Section, choose, quantum, write};
use gradwire_core::kernel::threshold::{PassResult, Quantum, read};
use gradwire_core::kernel::{EncodeTarget, KernelResult};
use gradwire_core::{Pool, Segment};

use crate::commands::{Commands, Part};
use crate::error::GpuError;
use crate::memory::{CHUNK, Memory, Staging};
use crate::program::{Params, Program};
use crate::recorder::Recorder;
use crate::window::Window;
use section::{Counters, SectionBuffers, Vectors, Workspace};

pub(crate) static TAKE: Program =
    Program { name: "take", source: include_str!("threshold.wgsl"), buffers: 6, invocations: 64 };
pub(crate) static COUNT: Program =
    Program { name: "count", source: include_str!("threshold.wgsl"), buffers: 6, invocations: 256 };
pub(crate) static GATHER: Program =
    Program { name: "gather", source: include_str!("gather.wgsl"), buffers: 5, invocations: 64 };
pub(crate) static TALLY: Program =
    Program { name: "tally", source: include_str!("choose.wgsl"), buffers: 4, invocations: 256 };
pub(crate) static PICK: Program =
    Program { name: "pick", source: include_str!("choose.wgsl"), buffers: 4, invocations: 256 };
pub(crate) static PUT_BACK: Program =
    Program { name: "put_back", source: include_str!("put_back.wgsl"), buffers: 2, invocations: 256 };

/// The encoder of one vector.
#[derive(Debug)]
pub(crate) struct Encoder {
    sections: Vec<SectionBuffers>,
    workspace: Workspace,
    staging: Option<Staging>,
    message: Option<Message>,
    /// The words read back from the device.
    words: Vec<u32>,
    /// The list of the section that is being written.
    list: Vec<u32>,
}

/// A message under way.
#[derive(Debug)]
struct Message {
    aim: Aim,
    residual: Segment,
    target: EncodeTarget,
    /// The result for the sections written so far.
    encoded: Encoded,
    /// Sections of the body written so far.
    sections_written: usize,
    /// Words of the body written so far.
    words_written: usize,
    /// While a section is taken again: the number of non_finite elements and the index of the first, from the first
    /// attempt. Later attempts have no update to refuse.
    non_finite: Option<(u32, Option<u32>)>,
    /// The sections in the staging buffer, each with the word at which it begins.
    offsets: Vec<(usize, usize)>,
    /// Bytes in the staging buffer.
    read_bytes: u64,
}

impl Encoder {
    /// An encoder for sections of up to `longest` elements.
    pub(crate) fn new(commands: &mut Commands, longest: usize) -> Self {
        Self {
            sections: Vec::new(),
            workspace: Workspace::new(commands, longest),
            staging: None,
            message: None,
            words: Vec::new(),
            list: Vec::new(),
        }
    }

    /// The longest section that fits, in elements.
    pub(crate) fn capacity(&self) -> usize {
        self.workspace.capacity()
    }

    /// Submits the passes over all sections of a message. [`poll`](Self::poll) has the result.
    pub(crate) fn begin(
        &mut self,
        aim: Aim,
        update: Option<Segment>,
        residual: Segment,
        target: EncodeTarget,
        recorder: &mut Recorder<'_>,
    ) -> Result<(), GpuError> {
        self.message = Some(Message {
            aim,
            residual,
            target,
            encoded: Encoded::default(),
            sections_written: 0,
            words_written: 0,
            non_finite: None,
            offsets: Vec::new(),
            read_bytes: 0,
        });
        let count = recorder.pool.sections(target.sections).len();
        for index in 0..count {
            self.take(index, update, None, recorder)?;
        }
        self.read_back(0..count, recorder.commands);
        Ok(())
    }

    /// Records the passes over one section. `retry` is the quantum of another attempt, which has no update: the first
    /// attempt has added it to the residual.
    fn take(
        &mut self,
        index: usize,
        update: Option<Segment>,
        retry: Option<Quantum>,
        recorder: &mut Recorder<'_>,
    ) -> Result<(), GpuError> {
        let Some(Message { aim, residual, target, .. }) = self.message.as_ref() else { return Ok(()) };
        let (aim, residual) = (*aim, *residual);
        let section = recorder.pool.sections(target.sections)[index];
        let vectors = Vectors::new(update, residual, &section, recorder)?;
        let commands = &mut *recorder.commands;
        self.prepare(index, &section, commands);
        let buffers = &self.sections[index];
        let total = residual.len as usize / 4;
        let choice = retry.map_or_else(|| choose(&aim, &section, total), Choice::Known);
        match choice {
            Choice::Known(quantum) => buffers.reset(quantum, commands),
            Choice::Sampled(sample) => {
                // A placeholder. The shader replaces it with the quantile of the sample before the pass reads it.
                buffers.reset(quantum(&aim, section.threshold), commands);
                let limits = [section.threshold, aim.unit, quantum(&aim, f32::MAX).tau];
                buffers.record_choice(sample, limits, &vectors, &self.workspace, commands);
            }
        }
        buffers.record_passes(&vectors, &self.workspace, commands);
        Ok(())
    }

    /// Creates the buffers of a section, unless the last message had a section of the same range at this index.
    fn prepare(&mut self, index: usize, section: &Section, commands: &mut Commands) {
        if self.sections.get(index).is_some_and(|buffers| buffers.is_for(section)) {
            return;
        }
        // Sections are taken in order, so `index` is at most the number of sections here. After a different cut of
        // the vector the later sections are of no use either.
        self.sections.truncate(index);
        self.sections.push(SectionBuffers::new(commands, section));
    }

    /// Submits a copy of the counters and lists of these sections to the staging buffer.
    fn read_back(&mut self, sections: Range<usize>, commands: &mut Commands) {
        let Some(message) = self.message.as_mut() else { return };
        message.offsets.clear();
        let mut len = 0;
        for index in sections.clone() {
            message.offsets.push((index, len));
            len += self.sections[index].words();
        }
        message.read_bytes = 4 * len as u64;
        let staging = match self.staging.take().filter(|staging| staging.buffer.size() >= message.read_bytes) {
            Some(staging) => staging,
            None => Staging::new(commands, message.read_bytes),
        };
        let mut at = 0;
        for buffers in &self.sections[sections] {
            at += buffers.record_copy(&staging.buffer, at, commands);
        }
        commands.submit();
        staging.map(message.read_bytes);
        self.staging = Some(staging);
    }

    /// The result of the message, or `None` while the device works.
    pub(crate) fn poll(
        &mut self,
        commands: &mut Commands,
        memory: &mut Memory,
        pool: &mut Pool,
    ) -> Result<Option<KernelResult>, GpuError> {
        let (Some(staging), Some(message)) = (&self.staging, &self.message) else { return Ok(None) };
        if !staging.is_ready(commands)? {
            return Ok(None);
        }
        self.words.resize(message.read_bytes as usize / 4, 0);
        let words = &mut self.words;
        staging.take(message.read_bytes, |bytes| bytemuck::cast_slice_mut(words).copy_from_slice(bytes))?;
        let count = pool.sections(message.target.sections).len();
        while self.message.as_ref().is_some_and(|message| message.sections_written < count) {
            if !self.write_section(commands, memory, pool)? {
                return Ok(None);
            }
        }
        let Some(message) = self.message.take() else { return Ok(None) };
        // The host has written both; mark them, in case the device has older copies.
        memory.written(message.target.body);
        memory.written(message.target.sections);
        let bytes = 4 * message.words_written as u32;
        Ok(Some(KernelResult::Encoded(Encoded { bytes, ..message.encoded })))
    }

    /// Writes the next section of the body from the words read back. Returns false if the device has to be read again
    /// first.
    fn write_section(
        &mut self,
        commands: &mut Commands,
        memory: &mut Memory,
        pool: &mut Pool,
    ) -> Result<bool, GpuError> {
        let Some(message) = self.message.as_mut() else { return Ok(true) };
        let (aim, target, index) = (message.aim, message.target, message.sections_written);
        let offset = message.offsets.iter().find(|(section, _)| *section == index).map_or(0, |(_, offset)| *offset);
        let buffers = &mut self.sections[index];
        let words = &self.words[offset..offset + buffers.words()];
        let rest = index..pool.sections(target.sections).len();
        let Some(counters) = buffers.unpack(words, &mut self.list) else {
            self.read_back(rest, commands);
            return Ok(false);
        };
        let Counters { quantum, entries, squares, .. } = counters;
        let (non_finite, first_non_finite) =
            message.non_finite.take().unwrap_or((counters.non_finite, counters.first_non_finite));
        let taken = PassResult { words: self.list.len(), entries, squares, non_finite, first_non_finite };
        let mut section = pool.sections(target.sections)[index];
        let written = 4 * message.words_written as u32;
        let start = target.body.start + u64::from(written);
        let body = Segment { start, len: target.body.len - written, ..target.body };
        let body = bytemuck::cast_slice_mut(pool.bytes_mut(body));
        let total = message.residual.len as usize / 4;
        let outcome = write(&aim, &mut section, total, quantum, &self.list, entries, body);
        // Also after a failed attempt: the next one starts from the controller's new state.
        pool.sections_mut(target.sections)[index] = section;
        match outcome {
            Ok(words) => {
                message.words_written += words;
                message.sections_written += 1;
                message.encoded.add(&section, quantum, &taken);
                Ok(true)
            }
            Err(higher) => {
                message.non_finite = Some((non_finite, first_non_finite));
                let mut recorder = Recorder { commands, memory, pool };
                // In this order on the queue: the next attempt must see the residual with its quanta.
                self.put_back(index, quantum.tau, &mut recorder)?;
                self.take(index, None, Some(higher), &mut recorder)?;
                self.read_back(rest, commands);
                Ok(false)
            }
        }
    }

    /// Adds the quanta of `self.list` to the residual of a section, from which they were taken. Exact: see
    /// `kernel::threshold` in core.
    fn put_back(&mut self, index: usize, tau: f32, recorder: &mut Recorder<'_>) -> Result<(), GpuError> {
        let Some(message) = self.message.as_ref() else { return Ok(()) };
        let section = recorder.pool.sections(message.target.sections)[index];
        let residual = section::part(message.residual, &section);
        // No read: `take` has just written these bytes on the device.
        let residual_buffer = recorder.write(residual)?;
        let pairs: Vec<[u32; 2]> =
            read(&self.list).map(|entry| [entry.index, (entry.count as f32 * tau).to_bits()]).collect();
        if pairs.is_empty() {
            return Ok(());
        }
        let commands = &mut *recorder.commands;
        // A buffer for this one use: messages that exceed their budget are rare.
        let entries = section::buffer(commands, "entries put back", 2 * pairs.len());
        commands.upload(&entries, 0, bytemuck::cast_slice(&pairs));
        for first in (0..section.len as usize).step_by(CHUNK) {
            let count = CHUNK.min(section.len as usize - first);
            let to = Window::new(&residual_buffer, residual, first, count);
            let mut params = Params { len: pairs.len() as u32, ..Params::default() };
            params.groups = commands.workgroups(&PUT_BACK, params.len);
            (params.at[1], params.n[0], params.n[1]) = (to.at, first as u32, count as u32);
            commands.run(&PUT_BACK, &[Part::whole(&entries), to.part], params);
        }
        Ok(())
    }
}
