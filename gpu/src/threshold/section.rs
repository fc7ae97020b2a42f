//! The device side of one section: its buffers, and the passes that are recorded for a message.
//!
//! A *section* is a part of the vector with a threshold of its own. A section that is longer than a binding is taken in
//! *chunks* of [`CHUNK`] elements, each with a list of its own. A shader goes over a chunk in *tiles* of [`TILE`]
//! elements.

use gradwire_core::Segment;
use gradwire_core::codec::threshold::{RUN, Sample, Section};
use gradwire_core::kernel::threshold::Quantum;

use super::{COUNT, GATHER, PICK, TAKE, TALLY};
use crate::commands::{Commands, Part};
use crate::error::GpuError;
use crate::memory::CHUNK;
use crate::program::Params;
use crate::recorder::Recorder;
use crate::wgpu;
use crate::window::Window;

/// Elements of a tile, as in threshold.wgsl.
const TILE: usize = 1024;
/// Bins of the histogram, as in choose.wgsl: 11 bits.
const BINS: usize = 2048;
/// Words to read back of each list: for the first message, and beyond the expected length for later ones.
const READ_MARGIN: usize = 1024;

/// Words of the counters before the ones of chunks and workgroups. The shaders have the same indices.
const HEADER_WORDS: usize = 8;
const THRESHOLD: usize = 0;
const TAU: usize = 1;
const ENTRIES: usize = 2;
const REFUSED: usize = 3;
const FIRST_REFUSED: usize = 4;

pub(super) fn buffer(commands: &mut Commands, label: &'static str, words: usize) -> wgpu::Buffer {
    commands.created += 1;
    commands.context.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: (4 * words as u64).next_multiple_of(256).max(256),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

/// The section's part of a vector.
pub(super) fn part(vector: Segment, section: &Section) -> Segment {
    Segment { start: vector.start + 4 * u64::from(section.first), len: 4 * section.len, ..vector }
}

/// Buffers for intermediate values, used by all sections and chunks in turn.
#[derive(Debug)]
pub(super) struct Workspace {
    /// Two words for each element of a chunk: its entry, if it has one.
    scratch: wgpu::Buffer,
    /// A word per tile: the length of its entries, later their place in the list.
    tiles: wgpu::Buffer,
    /// 64 words per tile: bits of the elements that have an entry, then bits of the entries that have a second word.
    masks: wgpu::Buffer,
    /// The histogram of a sample. All zeros between two uses.
    bins: wgpu::Buffer,
}

impl Workspace {
    /// A workspace for sections of up to `longest` elements.
    pub(super) fn new(commands: &mut Commands, longest: usize) -> Self {
        let longest = longest.min(CHUNK);
        Self {
            scratch: buffer(commands, "entries by tile", 2 * longest.next_multiple_of(TILE)),
            tiles: buffer(commands, "tiles", longest.div_ceil(TILE)),
            masks: buffer(commands, "bits of elements with entries", longest.div_ceil(TILE) * 64),
            bins: buffer(commands, "histogram of a sample", BINS),
        }
    }

    /// The longest section that fits, in elements. A workspace for a full chunk fits all sections.
    pub(super) fn capacity(&self) -> usize {
        if self.scratch.size() >= 8 * CHUNK as u64 { usize::MAX } else { self.scratch.size() as usize / 8 }
    }
}

/// Update and residual of one section on the device.
pub(super) struct Vectors {
    /// Without an update, the residual: the binding needs a buffer, and the shader does not read it.
    update: (wgpu::Buffer, Segment),
    residual: (wgpu::Buffer, Segment),
    has_update: bool,
}

impl Vectors {
    /// Uploads the vectors' newer bytes, and marks the residual as written by the device.
    pub(super) fn new(
        update: Option<Segment>,
        residual: Segment,
        section: &Section,
        recorder: &mut Recorder<'_>,
    ) -> Result<Self, GpuError> {
        let (residual, update) = (part(residual, section), update.map(|update| part(update, section)));
        // All reads come before the write: `take` reads and writes the residual.
        recorder.read(residual)?;
        let update_buffer = update.map(|update| recorder.read(update)).transpose()?;
        let buffer = recorder.write(residual)?;
        Ok(Self {
            update: (update_buffer.unwrap_or_else(|| buffer.clone()), update.unwrap_or(residual)),
            residual: (buffer, residual),
            has_update: update.is_some(),
        })
    }

    /// The windows on `count` elements of update and residual from `first` on.
    fn windows(&self, first: usize, count: usize) -> (Window<'_>, Window<'_>) {
        let (update, residual) = (&self.update, &self.residual);
        (Window::new(&update.0, update.1, first, count), Window::new(&residual.0, residual.1, first, count))
    }
}

/// The counters of a section after its passes.
pub(super) struct Counters {
    /// The quantum that was used, which the device may have chosen.
    pub(super) quantum: Quantum,
    /// Number of entries in all lists.
    pub(super) entries: u32,
    /// Sum of squares of the residual.
    pub(super) squares: f64,
    /// Number of elements left out because their sum was not finite.
    pub(super) non_finite: u32,
    /// Index of the first of these within the section.
    pub(super) first_non_finite: Option<u32>,
}

/// The device buffers of one section, kept from one message to the next.
#[derive(Debug)]
pub(super) struct SectionBuffers {
    /// First element and length of the section.
    range: (u32, u32),
    /// `HEADER_WORDS`, then the length of each chunk's list, then a sum of squares for each workgroup of each chunk.
    counters: wgpu::Buffer,
    /// The entries of each chunk in order. Room for two words per element, the most that can occur.
    lists: Vec<wgpu::Buffer>,
    /// Words to read back of each list.
    read_words: Vec<usize>,
    /// Workgroups of each chunk.
    groups: u32,
}

impl SectionBuffers {
    pub(super) fn new(commands: &mut Commands, section: &Section) -> Self {
        let len = section.len as usize;
        let chunks = len.div_ceil(CHUNK).max(1);
        // An invocation takes 16 elements of a tile.
        let groups = commands.workgroups(&TAKE, (section.len.min(CHUNK as u32)).div_ceil(16));
        let lists = (0..chunks).map(|chunk| CHUNK.min(len - chunk * CHUNK));
        let lists: Vec<_> = lists.map(|len| buffer(commands, "entries in order", 2 * len.max(1))).collect();
        Self {
            range: (section.first, section.len),
            counters: buffer(commands, "counters", HEADER_WORDS + chunks * (1 + groups as usize)),
            read_words: lists.iter().map(|list| READ_MARGIN.min(list.size() as usize / 4)).collect(),
            lists,
            groups,
        }
    }

    /// True if the buffers were made for a section of this range.
    pub(super) fn is_for(&self, section: &Section) -> bool {
        self.range == (section.first, section.len)
    }

    fn counter_words(&self) -> usize {
        HEADER_WORDS + self.lists.len() * (1 + self.groups as usize)
    }

    /// Words to read back: all counters, and a part of each list.
    pub(super) fn words(&self) -> usize {
        self.counter_words() + self.read_words.iter().sum::<usize>()
    }

    /// Sets the counters to their initial values. With a sampled threshold, `quantum` is a placeholder.
    pub(super) fn reset(&self, quantum: Quantum, commands: &mut Commands) {
        // The lengths of lists and the sums of squares need no reset: each is stored by one invocation, not added to.
        let mut header = [0u32; HEADER_WORDS];
        header[THRESHOLD] = quantum.threshold.to_bits();
        header[TAU] = quantum.tau.to_bits();
        header[FIRST_REFUSED] = u32::MAX;
        commands.upload(&self.counters, 0, bytemuck::cast_slice(&header));
    }

    /// Records the choice of the threshold: a quantile of a sample of `|residual + update|`. See choose.wgsl.
    ///
    /// `limits`: the threshold if the sample has too few finite elements, the least threshold, the largest quantum.
    pub(super) fn record_choice(
        &self,
        sample: Sample,
        limits: [f32; 3],
        vectors: &Vectors,
        workspace: &Workspace,
        commands: &mut Commands,
    ) {
        // The sample is taken through one binding of each vector, which reaches 33 million elements.
        let count = (self.range.1 as usize).min(4 * CHUNK - TILE);
        let (from, to) = vectors.windows(0, count);
        let mut params = Params { len: sample.elements as u32, groups: 1, ..Params::default() };
        (params.at[0], params.at[1]) = (from.at, to.at);
        let stride = if sample.every == 1 { 0 } else { (sample.every * RUN) as u32 };
        params.n = [stride, u32::from(vectors.has_update), sample.rank as u32, RUN as u32];
        params.f = [limits[0], limits[1], limits[2], 0.0];
        let parts = [from.part, to.part, Part::whole(&self.counters), Part::whole(&workspace.bins)];
        // At least 16 elements per invocation: each workgroup has a histogram of its own to clear and to add up.
        let groups = commands.workgroups(&TALLY, params.len.div_ceil(16));
        // A magnitude has 31 bits. Each round fixes some of them, from the highest down.
        for (round, (lowest, bits)) in [(20, 11), (9, 11), (0, 9)].into_iter().enumerate() {
            params.more_n = [lowest, bits, u32::from(round == 0), 0];
            commands.run(&TALLY, &parts, Params { groups, ..params });
            commands.run(&PICK, &parts, params);
        }
    }

    /// Records the passes over all chunks. See threshold.wgsl and gather.wgsl.
    pub(super) fn record_passes(&self, vectors: &Vectors, workspace: &Workspace, commands: &mut Commands) {
        let (len, chunks) = (self.range.1 as usize, self.lists.len());
        let [scratch, tiles, masks] = [&workspace.scratch, &workspace.tiles, &workspace.masks].map(Part::whole);
        let counters = Part::whole(&self.counters);
        for (chunk, list) in self.lists.iter().enumerate() {
            let first = chunk * CHUNK;
            let (from, to) = vectors.windows(first, CHUNK.min(len - first));
            let mut params = Params { len: CHUNK.min(len - first) as u32, groups: self.groups, ..Params::default() };
            (params.at[0], params.at[1]) = (from.at, to.at);
            let list_len = HEADER_WORDS + chunk;
            let squares = HEADER_WORDS + chunks + chunk * self.groups as usize;
            params.n = [first as u32, u32::from(vectors.has_update), squares as u32, list_len as u32];
            // Three dispatches, because a workgroup cannot wait for another one within a dispatch: the place of a
            // tile's entries depends on the number of entries in all tiles before it.
            let parts = [from.part, to.part, scratch, tiles, counters, masks];
            commands.run(&TAKE, &parts, params);
            commands.run(&COUNT, &parts, Params { groups: 1, ..params });
            commands.run(&GATHER, &[scratch, tiles, counters, Part::whole(list), masks], params);
        }
    }

    /// Records copies of the words to read back to byte `start` of a buffer. Returns the bytes.
    pub(super) fn record_copy(&self, to: &wgpu::Buffer, start: u64, commands: &mut Commands) -> u64 {
        let mut at = start;
        let mut copy = |buffer, words: usize| {
            let len = 4 * words as u64;
            commands.copy(Part { buffer, start: 0, len }, to, at);
            at += len;
        };
        copy(&self.counters, self.counter_words());
        self.lists.iter().zip(&self.read_words).for_each(|(list, words)| copy(list, *words));
        at - start
    }

    /// Parses the words that were read back: the entries go to `list`. Returns `None` if a list is longer than the part
    /// that was read back. Adapts the words to read next time to the lengths of the lists.
    pub(super) fn unpack(&mut self, words: &[u32], list: &mut Vec<u32>) -> Option<Counters> {
        let (counters, lists) = words.split_at(self.counter_words());
        let lens = &counters[HEADER_WORDS..HEADER_WORDS + self.lists.len()];
        let complete = lens.iter().zip(&self.read_words).all(|(len, read)| *len as usize <= *read);
        list.clear();
        if complete {
            let mut from = 0;
            for (len, read) in lens.iter().zip(&self.read_words) {
                list.extend(&lists[from..from + *len as usize]);
                from += *read;
            }
        }
        for ((len, read), buffer) in lens.iter().zip(&mut self.read_words).zip(&self.lists) {
            let len = *len as usize;
            let enough = (len + len / 4 + READ_MARGIN).min(buffer.size() as usize / 4);
            // Hysteresis: a longer read needs a new staging buffer, and a shorter one only pays if it is much shorter.
            if len > *read || enough < *read / 4 {
                *read = enough;
            }
        }
        complete.then(|| {
            let squares = &counters[HEADER_WORDS + self.lists.len()..];
            let (threshold, tau) = (f32::from_bits(counters[THRESHOLD]), f32::from_bits(counters[TAU]));
            Counters {
                quantum: Quantum::with_threshold(threshold, tau),
                entries: counters[ENTRIES],
                squares: squares.iter().map(|bits| f64::from(f32::from_bits(*bits))).sum(),
                non_finite: counters[REFUSED],
                first_non_finite: Some(counters[FIRST_REFUSED]).filter(|at| *at != u32::MAX),
            }
        })
    }
}
