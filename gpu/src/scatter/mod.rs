//! Sparse bodies into device vectors: the kernels `Decode`, `Expand` and `Scatter` of the codecs threshold and top-k.
//!
//! The host parses a body and checks all of it before the device is touched, so a malformed body changes nothing. Its
//! entries then go to the device as pairs of an index and a word, and a shader scatters them.

use gradwire_core::codec::{BodyError, threshold, topk};
use gradwire_core::kernel::{Coding, Kernel, KernelResult, ledger};
use gradwire_core::{Pool, Segment};

use crate::commands::Part;
use crate::error::GpuError;
use crate::memory::CHUNK;
use crate::program::{Params, Program};
use crate::recorder::Recorder;
use crate::wgpu;
use crate::window::Window;

const SOURCE: &str = include_str!("scatter.wgsl");

pub(crate) static ADD: Program = Program { name: "add", source: SOURCE, buffers: 2, invocations: 256 };
pub(crate) static ADD_FLOATS: Program = Program { name: "add_floats", source: SOURCE, buffers: 2, invocations: 256 };
pub(crate) static PUT: Program = Program { name: "put", source: SOURCE, buffers: 2, invocations: 256 };

/// Buffers that are reused from one body to the next, and a bound on the ledger's counts.
#[derive(Debug, Default)]
pub(crate) struct Scatter {
    /// Entries of a threshold body: index and units.
    entries: Vec<(u32, i32)>,
    /// Entries in the shader's form: index and word, ascending by index.
    pairs: Vec<[u32; 2]>,
    /// The pairs on the device.
    buffer: Option<wgpu::Buffer>,
    /// The ledger, and an upper bound of the magnitudes in it. `None`: not known, because the host has written it. A
    /// machine has one ledger at most.
    ledger: Option<(Segment, u64)>,
}

/// The outcome of [`Scatter::record`].
pub(crate) enum Outcome {
    /// The kernel is recorded, or the body is malformed.
    Done(KernelResult),
    /// Nothing is recorded: the host has to run the kernel.
    Unsupported,
}

impl Scatter {
    /// Records a `Decode`, `Expand` or `Scatter`.
    pub(crate) fn record(&mut self, kernel: &Kernel, recorder: &mut Recorder<'_>) -> Result<Outcome, GpuError> {
        self.pairs.clear();
        let pool = recorder.pool;
        match *kernel {
            Kernel::Decode { body, sections, unit, ledger, .. } => {
                self.entries.clear();
                let (words, parts) = (pool.words(body), pool.sections(sections));
                if let Err(error) = threshold::list(words, parts, unit, &mut self.entries) {
                    return Ok(Outcome::Done(KernelResult::Malformed(error)));
                }
                // The shader adds to the low words of the counts, without carries. The sum of the largest counts of all
                // bodies bounds every count of the ledger. When the bound exceeds 32 bits or is not known, the host
                // runs the kernel and measures the bound again.
                let largest = self.entries.iter().map(|(_, units)| units.unsigned_abs()).max().unwrap_or(0);
                if !self.raise_bound(ledger, u64::from(largest)) {
                    return Ok(Outcome::Unsupported);
                }
                self.pairs.extend(self.entries.iter().map(|(at, units)| [*at, *units as u32]));
                let len = ledger::len(ledger.len as usize / 4);
                self.scatter(&ADD, ledger.first(4 * len as u32), recorder)?;
            }
            Kernel::Expand { coding: coding @ (Coding::Threshold(_) | Coding::TopK(_)), body, sections, into } => {
                if let Err(error) = self.read(coding, body, sections, into, 1.0, pool) {
                    return Ok(Outcome::Done(KernelResult::Malformed(error)));
                }
                self.expand(into, recorder)?;
            }
            Kernel::Scatter { coding, body, sections, scale, into } => {
                if let Err(error) = self.read(coding, body, sections, into, scale, pool) {
                    return Ok(Outcome::Done(KernelResult::Malformed(error)));
                }
                self.scatter(&ADD_FLOATS, into, recorder)?;
            }
            // The bodies of other codecs have a word for every element: there is no less to upload than their floats.
            _ => return Ok(Outcome::Unsupported),
        }
        Ok(Outcome::Done(KernelResult::Nothing))
    }

    /// Reads the entries of a body for the elements of `into`, times `scale`, which is 1 or rounds once.
    fn read(
        &mut self,
        coding: Coding,
        body: Segment,
        sections: Segment,
        into: Segment,
        scale: f32,
        pool: &Pool,
    ) -> Result<(), BodyError> {
        let pairs = &mut self.pairs;
        let mut add = |at: usize, value: f32| pairs.push([at as u32, (scale * value).to_bits()]);
        match coding {
            Coding::Threshold(aim) => threshold::read(pool.words(body), pool.sections(sections), aim.unit, &mut add),
            Coding::TopK(pick) => topk::read(pool.words(body), into.len as usize / 4, pick.chunk as usize, add),
            _ => unreachable!("a sparse codec"),
        }
    }

    /// Adds to the bound of the ledger. Returns false, and forgets the bound, if counts may exceed 32 bits then.
    fn raise_bound(&mut self, ledger: Segment, by: u64) -> bool {
        let bound = self.ledger.filter(|(known, _)| *known == ledger).map(|(_, bound)| bound.saturating_add(by));
        self.ledger = bound.filter(|bound| *bound <= i32::MAX as u64).map(|bound| (ledger, bound));
        self.ledger.is_some()
    }

    /// Are all counts of the ledger known to fit into 32 bits?
    pub(crate) fn is_small(&self, ledger: Segment) -> bool {
        self.ledger.is_some_and(|(known, _)| known == ledger)
    }

    /// Measures the bound of a ledger that is up to date and complete on the host.
    pub(crate) fn measure_ledger(&mut self, ledger: Segment, words: &[i32]) {
        let bound = ledger::largest(words);
        self.ledger = (bound <= i32::MAX as u64).then_some((ledger, bound));
    }

    /// The host has written `segment`.
    pub(crate) fn written(&mut self, segment: Segment) {
        self.ledger = self.ledger.filter(|(ledger, _)| ledger.buffer != segment.buffer);
    }

    /// Zeroes `into` and puts the pairs there.
    fn expand(&mut self, into: Segment, recorder: &mut Recorder<'_>) -> Result<(), GpuError> {
        // Before `scatter` reads the segment: all of it is overwritten, so the host's bytes need no upload.
        let target = recorder.write(into)?;
        if into.len > 0 {
            recorder.commands.encoder().clear_buffer(&target, into.start, Some(u64::from(into.len)));
        }
        self.scatter(&PUT, into, recorder)
    }

    /// Uploads the pairs and runs `program` on them.
    fn scatter(
        &mut self,
        program: &'static Program,
        into: Segment,
        recorder: &mut Recorder<'_>,
    ) -> Result<(), GpuError> {
        if self.pairs.is_empty() {
            return Ok(());
        }
        let size = (8 * self.pairs.len()) as u64;
        if self.buffer.as_ref().is_none_or(|buffer| buffer.size() < size) {
            recorder.commands.created += 1;
            self.buffer = Some(recorder.commands.context.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("entries"),
                size: size.next_power_of_two().max(4096),
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }));
        }
        let Some(buffer) = &self.buffer else { return Ok(()) };
        // The shader changes some words of the segment and keeps the rest: read, then write.
        recorder.read(into)?;
        let target = recorder.write(into)?;
        recorder.commands.upload(buffer, 0, bytemuck::cast_slice(&self.pairs));
        let len = into.len as usize / 4;
        // A binding of the target covers a chunk of it, and the pairs are sorted: each chunk has a range of them.
        for first in (0..len).step_by(CHUNK) {
            let count = CHUNK.min(len - first);
            let mut from = self.pairs.partition_point(|pair| (pair[0] as usize) < first);
            let end = self.pairs.partition_point(|pair| (pair[0] as usize) < first + count);
            while from < end {
                let entries = (end - from).min(CHUNK);
                // Bind the whole buffer if a binding can be that long. The bind group is then the same for every
                // message and comes from the cache.
                let source = Segment { buffer: into.buffer, start: 8 * from as u64, len: 8 * entries as u32 };
                let pairs = match buffer.size() <= 8 * CHUNK as u64 {
                    true => Window { part: Part::whole(buffer), at: 2 * from as u32 },
                    false => Window::new(buffer, source, 0, 2 * entries),
                };
                let to = Window::new(&target, into, first, count);
                let mut params = Params { len: entries as u32, ..Params::default() };
                params.groups = recorder.commands.workgroups(program, params.len);
                // `pairs.at` counts words, the shader counts pairs.
                (params.at[0], params.at[1]) = (pairs.at / 2, to.at);
                (params.n[0], params.n[1]) = (first as u32, count as u32);
                recorder.commands.run(program, &[pairs.part, to.part], params);
                from += entries;
            }
        }
        Ok(())
    }
}
