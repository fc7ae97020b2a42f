//! Threshold encoding: quanta are taken on the device, residual and update stay there, and what comes to the host is the
//! list of entries and a few counters, in one reading. The list is written as a body on the host: it is short, and its code is
//! a chain of bits.

use gradwire_core::codec::threshold::{Aim, Choice, RUN, Sample, choose, quantum, write};
use gradwire_core::codec::{Encoded, threshold::Section};
use gradwire_core::kernel::threshold::{PassResult, Quantum, read};
use gradwire_core::kernel::{EncodeTarget, KernelResult};
use gradwire_core::{Pool, Segment};

use crate::commands::{Commands, Part};
use crate::error::GpuError;
use crate::memory::{CHUNK, Memory, Staging};
use crate::program::{Params, Program};
use crate::wgpu;
use crate::window::Window;

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

/// Elements of a tile, as in WGSL.
const TILE: usize = 1024;
/// Counters before those of chunks and workgroups.
const HEAD: usize = 8;
/// Words read of a chunk's list before anything is known of it.
const FIRST_GUESS: usize = 1024;

/// What one section needs on the device. Made for the first message, kept for all that follow.
#[derive(Debug)]
struct Pass {
    counters: wgpu::Buffer,
    /// One list per chunk, as long as it can get.
    lists: Vec<wgpu::Buffer>,
    /// Words of each that are read.
    wanted: Vec<usize>,
    /// Workgroups of each chunk, each of which leaves a sum.
    groups: u32,
}

/// One vector's encoder.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// By first element and length, as sections are cut.
    passes: Vec<((u32, u32), Pass)>,
    scratch: wgpu::Buffer,
    tiles: wgpu::Buffer,
    masks: wgpu::Buffer,
    /// Counts of a sample; zeros between messages.
    bins: wgpu::Buffer,
    staging: Option<Staging>,
    /// The body so far.
    message: Option<Message>,
    words: Vec<u32>,
    list: Vec<u32>,
}

/// A message under way.
#[derive(Debug)]
struct Message {
    aim: Aim,
    residual: Segment,
    place: EncodeTarget,
    encoded: Encoded,
    /// Sections written, and the words that they took.
    done: usize,
    at: usize,
    /// What refused elements the section that is tried again has had.
    refused: Option<(u32, Option<u32>)>,
    /// Which sections are in the staging buffer, from which word on.
    read: Vec<(usize, usize)>,
    len: u64,
}

fn buffer(commands: &mut Commands, label: &'static str, words: usize) -> wgpu::Buffer {
    commands.created += 1;
    commands.context.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: (4 * words as u64).next_multiple_of(256).max(256),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

impl Encoder {
    pub(crate) fn new(commands: &mut Commands, longest: usize) -> Self {
        let longest = longest.min(CHUNK);
        Self {
            passes: Vec::new(),
            scratch: buffer(commands, "entries by tile", 2 * longest.next_multiple_of(TILE)),
            tiles: buffer(commands, "tiles", longest.div_ceil(TILE)),
            masks: buffer(commands, "bits of elements with entries", longest.div_ceil(TILE) * 64),
            bins: buffer(commands, "counts of a sample", 2048),
            staging: None,
            message: None,
            words: Vec::new(),
            list: Vec::new(),
        }
    }

    /// Longest section that it has room for.
    pub(crate) fn room(&self) -> usize {
        if self.scratch.size() >= 8 * CHUNK as u64 { usize::MAX } else { self.scratch.size() as usize / 8 }
    }

    pub(crate) fn begin(
        &mut self,
        (aim, update, residual, place): (Aim, Option<Segment>, Segment, EncodeTarget),
        commands: &mut Commands,
        memory: &mut Memory,
        pool: &Pool,
    ) -> Result<(), GpuError> {
        let (encoded, read) = (Encoded::default(), Vec::new());
        let message = Message { aim, residual, place, encoded, done: 0, at: 0, refused: None, read, len: 0 };
        self.message = Some(message);
        let count = pool.sections(place.sections).len();
        for section in 0..count {
            self.take(section, update, None, commands, memory, pool)?;
        }
        self.fetch(0..count, commands);
        Ok(())
    }

    /// Gives the commands for one section. `quantum`: which it is, where it has been tried before.
    fn take(
        &mut self,
        index: usize,
        update: Option<Segment>,
        again: Option<Quantum>,
        commands: &mut Commands,
        memory: &mut Memory,
        pool: &Pool,
    ) -> Result<(), GpuError> {
        let Some(Message { aim, residual, place, .. }) = self.message.as_ref() else { return Ok(()) };
        let (aim, residual) = (*aim, *residual);
        let sections = pool.sections(place.sections);
        let section = sections[index];
        let total = residual.len as usize / 4;
        let part = |segment: Segment| Segment {
            start: segment.start + 4 * u64::from(section.first),
            len: 4 * section.len,
            ..segment
        };
        let (residual, update) = (part(residual), update.map(part));
        memory.read(commands, residual, pool)?;
        let came = update.map(|update| memory.read(commands, update, pool)).transpose()?;
        let kept = memory.write(commands, residual, pool)?;
        // Without an update the binding is not read.
        let came = (came.unwrap_or_else(|| kept.clone()), update.unwrap_or(residual));
        let chunks = (section.len as usize).div_ceil(CHUNK).max(1);
        let pass = self.pass(index, &section, chunks, commands);
        let mut head = [0u32; HEAD];
        head[4] = u32::MAX;
        let choice = again.map_or_else(|| choose(&aim, &section, total), Choice::Known);
        let known = match choice {
            Choice::Known(quantum) => quantum,
            // Until the device has chosen.
            Choice::Sampled(_) => quantum(&aim, section.threshold),
        };
        (head[0], head[1]) = (known.threshold.to_bits(), known.tau.to_bits());
        let pass = &self.passes[pass].1;
        commands.upload(&pass.counters, 0, bytemuck::cast_slice(&head));
        if let Choice::Sampled(sample) = choice {
            sampled(
                &aim,
                &section,
                sample,
                update.is_some(),
                &came,
                (&kept, residual),
                (&pass.counters, &self.bins),
                commands,
            );
        }
        for chunk in 0..chunks {
            let first = chunk * CHUNK;
            let count = CHUNK.min(section.len as usize - first);
            let (from, to) = (Window::new(&came.0, came.1, first, count), Window::new(&kept, residual, first, count));
            let mut params = Params { len: count as u32, groups: pass.groups, ..Params::default() };
            (params.at[0], params.at[1]) = (from.at, to.at);
            let sums = (HEAD + chunks) as u32 + chunk as u32 * pass.groups;
            params.n = [first as u32, u32::from(update.is_some()), sums, (HEAD + chunk) as u32];
            let [scratch, tiles, masks] = [&self.scratch, &self.tiles, &self.masks].map(Part::whole);
            let counters = Part::whole(&pass.counters);
            commands.run(&TAKE, &[from.part, to.part, scratch, tiles, counters, masks], params);
            commands.run(
                &COUNT,
                &[from.part, to.part, scratch, tiles, counters, masks],
                Params { groups: 1, ..params },
            );
            let list = Part::whole(&pass.lists[chunk]);
            commands.run(&GATHER, &[scratch, tiles, counters, list, masks], params);
        }
        Ok(())
    }

    /// What a section has on the device.
    fn pass(&mut self, index: usize, section: &Section, chunks: usize, commands: &mut Commands) -> usize {
        let key = (section.first, section.len);
        let known = self.passes.get(index).is_some_and(|(known, _)| *known == key);
        if !known {
            let groups = commands.workgroups(&TAKE, (section.len.min(CHUNK as u32)).div_ceil(16));
            let lists = (0..chunks).map(|chunk| CHUNK.min(section.len as usize - chunk * CHUNK));
            let lists: Vec<_> = lists.map(|len| buffer(commands, "entries in order", 2 * len.max(1))).collect();
            let guess = |list: &wgpu::Buffer| FIRST_GUESS.min(list.size() as usize / 4);
            let pass = Pass {
                counters: buffer(commands, "counters", HEAD + chunks * (1 + groups as usize)),
                wanted: lists.iter().map(guess).collect(),
                lists,
                groups,
            };
            self.passes.truncate(index);
            self.passes.push((key, pass));
        }
        index
    }

    /// Asks for the counters and lists of these sections.
    fn fetch(&mut self, sections: std::ops::Range<usize>, commands: &mut Commands) {
        let Some(message) = self.message.as_mut() else { return };
        message.read.clear();
        let mut len = 0;
        for index in sections.clone() {
            message.read.push((index, len));
            let pass = &self.passes[index].1;
            len += HEAD + pass.lists.len() * (1 + pass.groups as usize) + pass.wanted.iter().sum::<usize>();
        }
        message.len = 4 * len as u64;
        let staging = match self.staging.take().filter(|staging| staging.buffer.size() >= message.len) {
            Some(staging) => staging,
            None => Staging::new(commands, message.len),
        };
        let mut at = 0;
        for index in sections {
            let pass = &self.passes[index].1;
            let counters = 4 * (HEAD + pass.lists.len() * (1 + pass.groups as usize)) as u64;
            commands.copy(Part { buffer: &pass.counters, start: 0, len: counters }, &staging.buffer, at);
            at += counters;
            for (list, wanted) in pass.lists.iter().zip(&pass.wanted) {
                let len = 4 * *wanted as u64;
                commands.copy(Part { buffer: list, start: 0, len }, &staging.buffer, at);
                at += len;
            }
        }
        commands.submit();
        staging.map(message.len);
        self.staging = Some(staging);
    }

    /// What the message is, once it is here.
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
        self.words.resize(message.len as usize / 4, 0);
        let words = &mut self.words;
        staging.take(message.len, |bytes| bytemuck::cast_slice_mut(words).copy_from_slice(bytes))?;
        let count = pool.sections(message.place.sections).len();
        while self.message.as_ref().is_some_and(|message| message.done < count) {
            if !self.settle(commands, memory, pool)? {
                return Ok(None);
            }
        }
        let Some(message) = self.message.take() else { return Ok(None) };
        memory.written(message.place.body);
        memory.written(message.place.sections);
        Ok(Some(KernelResult::Encoded(Encoded { bytes: 4 * message.at as u32, ..message.encoded })))
    }

    /// Writes the next section of the body, from what has been read; `false` if more has to be read first.
    fn settle(&mut self, commands: &mut Commands, memory: &mut Memory, pool: &mut Pool) -> Result<bool, GpuError> {
        let Some(message) = self.message.as_mut() else { return Ok(true) };
        let index = message.done;
        let pass = &mut self.passes[index].1;
        let at = message.read.iter().find(|(read, _)| *read == index).map_or(0, |(_, at)| *at);
        let chunks = pass.lists.len();
        let (counters, lists) = self.words[at..].split_at(HEAD + chunks * (1 + pass.groups as usize));
        let came = &counters[HEAD..HEAD + chunks];
        // What is longer than was read is read again, and next time at once.
        let short = came.iter().zip(&pass.wanted).any(|(came, wanted)| *came as usize > *wanted);
        self.list.clear();
        let mut from = 0;
        for (came, wanted) in came.iter().zip(&mut pass.wanted) {
            if !short {
                self.list.extend(&lists[from..from + *came as usize]);
            }
            from += *wanted;
        }
        for ((came, wanted), list) in came.iter().zip(&mut pass.wanted).zip(&pass.lists) {
            let enough = (*came as usize + *came as usize / 4 + FIRST_GUESS).min(list.size() as usize / 4);
            // Shorter, too, if much less comes.
            if *came as usize > *wanted || enough < *wanted / 4 {
                *wanted = enough;
            }
        }
        if short {
            let count = pool.sections(message.place.sections).len();
            self.fetch(index..count, commands);
            return Ok(false);
        }
        let sums = &counters[HEAD + chunks..];
        let squares = sums.iter().map(|bits| f64::from(f32::from_bits(*bits))).sum();
        let (non_finite, first_non_finite) =
            message.refused.take().unwrap_or_else(|| (counters[3], Some(counters[4]).filter(|at| *at != u32::MAX)));
        let taken = PassResult { words: self.list.len(), entries: counters[2], squares, non_finite, first_non_finite };
        let quantum = Quantum::with_threshold(f32::from_bits(counters[0]), f32::from_bits(counters[1]));
        let (total, aim, place) = (message.residual.len as usize / 4, message.aim, message.place);
        let mut section = pool.sections(place.sections)[index];
        let at = place.body.start + 4 * message.at as u64;
        let rest = Segment { start: at, len: place.body.len - 4 * message.at as u32, ..place.body };
        let body = bytemuck::cast_slice_mut(pool.bytes_mut(rest));
        let written = write(&aim, &mut section, total, quantum, &self.list, taken.entries, body);
        pool.sections_mut(place.sections)[index] = section;
        match written {
            Ok(words) => {
                message.at += words;
                message.done += 1;
                message.encoded.add(&section, quantum, &taken);
                Ok(true)
            }
            Err(higher) => {
                message.refused = Some((taken.non_finite, taken.first_non_finite));
                self.put_back(index, quantum.tau, commands, memory, pool)?;
                self.take(index, None, Some(higher), commands, memory, pool)?;
                let count = pool.sections(place.sections).len();
                self.fetch(index..count, commands);
                Ok(false)
            }
        }
    }

    /// Adds to the residual what was taken of a section.
    fn put_back(
        &mut self,
        index: usize,
        tau: f32,
        commands: &mut Commands,
        memory: &mut Memory,
        pool: &Pool,
    ) -> Result<(), GpuError> {
        let Some(message) = self.message.as_ref() else { return Ok(()) };
        let section = pool.sections(message.place.sections)[index];
        let residual = Segment {
            start: message.residual.start + 4 * u64::from(section.first),
            len: 4 * section.len,
            ..message.residual
        };
        let kept = memory.write(commands, residual, pool)?;
        let pairs: Vec<[u32; 2]> =
            read(&self.list).map(|entry| [entry.index, (entry.count as f32 * tau).to_bits()]).collect();
        if pairs.is_empty() {
            return Ok(());
        }
        let entries = buffer(commands, "entries put back", 2 * pairs.len());
        commands.upload(&entries, 0, bytemuck::cast_slice(&pairs));
        for first in (0..section.len as usize).step_by(CHUNK) {
            let count = CHUNK.min(section.len as usize - first);
            let to = Window::new(&kept, residual, first, count);
            let mut params = Params { len: pairs.len() as u32, ..Params::default() };
            params.groups = commands.workgroups(&PUT_BACK, params.len);
            (params.at[1], params.n[0], params.n[1]) = (to.at, first as u32, count as u32);
            commands.run(&PUT_BACK, &[Part::whole(&entries), to.part], params);
        }
        Ok(())
    }
}

/// The device chooses the threshold: a quantile of a sample of what it has.
#[allow(clippy::too_many_arguments, reason = "they are what one kernel is told")]
fn sampled(
    aim: &Aim,
    section: &Section,
    sample: Sample,
    with_update: bool,
    came: &(wgpu::Buffer, Segment),
    kept: (&wgpu::Buffer, Segment),
    (counters, bins): (&wgpu::Buffer, &wgpu::Buffer),
    commands: &mut Commands,
) {
    // One binding each: runs are bound as far as bindings reach, which is 33 million elements.
    let count = (section.len as usize).min(4 * CHUNK - TILE);
    let (from, to) = (Window::new(&came.0, came.1, 0, count), Window::new(kept.0, kept.1, 0, count));
    let mut params = Params { len: sample.elements as u32, groups: 1, ..Params::default() };
    (params.at[0], params.at[1]) = (from.at, to.at);
    let every = if sample.every == 1 { 0 } else { (sample.every * RUN) as u32 };
    params.n = [every, u32::from(with_update), sample.rank as u32, RUN as u32];
    params.f = [section.threshold, aim.unit, quantum(aim, f32::MAX).tau, 0.0];
    let parts = [from.part, to.part, Part::whole(counters), Part::whole(bins)];
    // Sixteen elements each, at least: the counting has to be worth a workgroup's own bins.
    let groups = commands.workgroups(&TALLY, params.len.div_ceil(16));
    for (round, (lowest, bits)) in [(20, 11), (9, 11), (0, 9)].into_iter().enumerate() {
        params.more_n = [lowest, bits, u32::from(round == 0), 0];
        commands.run(&TALLY, &parts, Params { groups, ..params });
        commands.run(&PICK, &parts, params);
    }
}
