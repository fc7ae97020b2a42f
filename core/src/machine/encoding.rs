//! One direction of a node's compression: the codec, its buffers, and the settings that change from message to message.
//!
//! For each contribution: the kernels of [`Encoding::prepare`] over the whole of it, the kernels of
//! [`Encoding::encode`] for each part, [`Encoding::on_encoded`] and [`Encoding::after`] when a part is written, and
//! [`Encoding::watch`] when all parts are. `ending.rs` has the end of the stream, `watch.rs` the observations of an
//! encoder.

mod ending;
mod watch;

use alloc::vec::Vec;
use core::ops::Range;

use ending::Ending;
use watch::Watch;
pub(super) use watch::{is_measured, smooth};

use super::Setup;
use crate::buffer::{BufferId, Segment};
use crate::codec::Encoded;
use crate::codec::columns::{self, Piece};
use crate::codec::threshold::{Aim, Section};
use crate::codec::topk::{self, Pick};
use crate::kernel::norm::square_root;
use crate::kernel::{Coding, EncodeTarget, Kernel, KernelResult};
use crate::layout::cut;
use crate::recipe::{Codec, Control, Correction, End, Merge, Topology};
use crate::status::{Counters, Status};
use crate::vectors::{Keep, Vectors};

/// The buffers of an [`Encoding`]. A decoder has sections only: its other buffers are empty.
#[derive(Copy, Clone, Debug)]
struct Buffers {
    /// The part of the contributions that the messages so far did not carry; as long as the vector.
    residual: BufferId,
    /// A [`Section`] for each range with a threshold of its own.
    sections: BufferId,
    /// Two words per element of the longest section. An encoder of few entries touches little of it.
    scratch: BufferId,
    /// The momentum before the codec; as long as the vector, if there is momentum.
    velocity: BufferId,
}

/// How vectors of a node are encoded, or vectors of a peer decoded.
#[derive(Clone, Debug)]
pub(super) struct Encoding {
    codec: Codec,
    correction: Correction,
    buffers: Buffers,
    /// Ranges of the vector that are encoded apart: its shards.
    parts: Vec<Part>,
    /// Factor on a fixed threshold, which follows the learning rate.
    rate: f32,
    /// Messages made before the run was suspended, and since.
    made: u64,
    messages: u64,
    /// The residual may come from a checkpoint.
    resumed: bool,
    /// Largest norm of a contribution; 0: no limit.
    clip_norm: f32,
    /// Factor on contributions.
    lambda: f32,
    /// Factor on the residual before a contribution is added.
    decay: f32,
    /// Norm of contributions as they are encoded, smoothed over the measured ones.
    measured: f64,
    watch: Watch,
    end: End,
    ending: Ending,
    /// L1 norm of everything that clipping has removed from the residual.
    clipped: f64,
    /// L1 norm of everything that decay has removed from the residual.
    forgotten: f64,
    /// Elements that messages before the end have carried, and elements of the vectors that they stand for.
    carried: (u64, u64),
    /// Kernels under way that clip.
    clipping: u32,
    /// Most entries of a message since the scratch memory was given back.
    crowded: u32,
    /// Bytes up to which scratch memory stays.
    keep_below: u32,
    len: usize,
}

#[derive(Clone, Debug)]
struct Part {
    range: Range<usize>,
    /// Its sections among all.
    sections: Range<usize>,
    /// Elements of each.
    lens: Vec<u32>,
    /// The piece of each section, for a codec per column; empty for other codecs.
    pieces: Vec<Piece>,
    /// Its last message.
    last: Encoded,
}

impl Encoding {
    /// An encoder, which declares all its buffers. `parts` are ranges of the vector, in order.
    pub(super) fn encoder(
        setup: &Setup,
        codec: Codec,
        correction: Correction,
        parts: impl IntoIterator<Item = Range<usize>>,
        vectors: &mut Vectors,
    ) -> Self {
        let mut encoding = Self::new(setup, codec, correction, parts);
        encoding.declare(vectors, true, Keep::Floats);
        encoding
    }

    /// A decoder of the peers' vectors, which they encode with these corrections.
    pub(super) fn decoder(
        setup: &Setup,
        codec: Codec,
        correction: Correction,
        parts: impl IntoIterator<Item = Range<usize>>,
        vectors: &mut Vectors,
    ) -> Self {
        // The corrections tell how long messages are. Vectors before the codec are the encoder's only.
        let mut encoding = Self::new(setup, codec, Correction { momentum: 0.0, ..correction }, parts);
        encoding.declare(vectors, false, Keep::No);
        encoding
    }

    /// Encoders of the same vector for `count` receivers. They use the same residual and scratch in turn: the caller
    /// writes the residual anew for each message. Each has sections of its own.
    pub(super) fn encoders(
        count: u32,
        setup: &Setup,
        codec: Codec,
        parts: impl IntoIterator<Item = Range<usize>>,
        vectors: &mut Vectors,
    ) -> Vec<Self> {
        let mut first = Self::new(setup, codec, Correction::none(), parts);
        if first.is_plain() {
            return Vec::new();
        }
        first.declare(vectors, true, Keep::No);
        let mut encodings = Vec::with_capacity(count as usize);
        for _ in 1..count {
            let sections = first.declare_sections(vectors, Keep::Sections);
            encodings.push(Self { buffers: Buffers { sections, ..first.buffers }, ..first.clone() });
        }
        encodings.insert(0, first);
        encodings
    }

    fn new(setup: &Setup, codec: Codec, correction: Correction, parts: impl IntoIterator<Item = Range<usize>>) -> Self {
        let per_tensor = match codec {
            Codec::Threshold(threshold) => threshold.per_tensor,
            codec => codec == Codec::SignColumns,
        };
        let mut sections = 0;
        let parts = parts.into_iter().map(|range| {
            let lens = if per_tensor { cut(&setup.tensors, &range) } else { alloc::vec![range.len() as u32] };
            let before = sections;
            sections += lens.len();
            let pieces = if codec == Codec::SignColumns { pieces(setup, &range, &lens) } else { Vec::new() };
            Part { range, sections: before..sections, lens, pieces, last: Encoded::default() }
        });
        let made = setup.resumed.map_or(0, |resumed| resumed.made);
        let none = BufferId(u32::MAX);
        let buffers = Buffers { residual: none, sections: none, scratch: none, velocity: none };
        let recipe = &setup.recipe;
        let lambda = match recipe.merge {
            // Servers apply the factor when they merge, and a mesh must apply it before replicas count quanta.
            Merge::Sum { lambda } if matches!(recipe.topology, Topology::Mesh { .. }) => {
                lambda.of(setup.cluster.workers)
            }
            _ => 1.0,
        };
        let root = square_root(f64::from(setup.cluster.workers));
        Self {
            codec,
            correction,
            buffers,
            parts: parts.collect(),
            rate: 1.0,
            made,
            messages: 0,
            resumed: setup.resumed.is_some(),
            clip_norm: (f64::from(correction.clip_norm) / root) as f32,
            lambda,
            decay: recipe.decay,
            measured: 0.0,
            watch: Watch::default(),
            end: recipe.end,
            ending: Ending::default(),
            clipped: 0.0,
            forgotten: 0.0,
            carried: (0, 0),
            clipping: 0,
            crowded: 0,
            keep_below: setup.keep_below,
            len: setup.len,
        }
    }

    /// Declares the buffers. All are empty in a plain encoding, and all but the sections in a decoder.
    fn declare(&mut self, vectors: &mut Vectors, encodes: bool, residual: Keep) {
        let encodes = encodes && !self.is_plain();
        let whole = if encodes { self.len } else { 0 };
        let velocity = if self.correction.momentum > 0.0 { whole } else { 0 };
        self.buffers = Buffers {
            residual: vectors.floats("residual", whole, residual),
            sections: self.declare_sections(vectors, if encodes { Keep::Sections } else { Keep::No }),
            scratch: vectors.brief("scratch of the encoder"),
            velocity: vectors.floats("velocity", velocity, Keep::Floats),
        };
    }

    fn declare_sections(&self, vectors: &mut Vectors, keep: Keep) -> BufferId {
        let count = self.parts.last().map_or(0, |part| part.sections.end);
        let bytes = if self.is_plain() { 0 } else { SECTION as usize * count };
        vectors.bytes("sections", bytes, keep)
    }

    /// Kernels to run before all other kernels.
    pub(super) fn kernels(&self) -> impl Iterator<Item = Kernel> + '_ {
        self.parts.iter().flat_map(move |part| {
            let mut first = 0;
            part.lens.iter().zip(part.sections.clone()).map(move |(len, index)| {
                let at =
                    Segment { buffer: self.buffers.sections, start: index as u64 * u64::from(SECTION), len: SECTION };
                let threshold = if let Codec::Threshold(threshold) = self.codec { threshold.tau } else { 0.0 };
                let section = match part.pieces.get(index - part.sections.start) {
                    Some(piece) => piece.section(),
                    None => Section { first, len: *len, threshold, bits: 0.0 },
                };
                first += len;
                Kernel::Section { at, section }
            })
        })
    }

    /// Kernels that drop the residual, and count it as clipped: one for each part.
    pub(super) fn forget(&mut self) -> impl Iterator<Item = Kernel> + '_ {
        let parts = if self.is_plain() { 0 } else { self.parts.len() };
        self.clipping += parts as u32;
        (0..parts).map(|part| Kernel::Clip { residual: self.residual(part), limit: 0.0 })
    }

    /// Nothing is encoded: vectors travel as they are.
    pub(super) fn is_plain(&self) -> bool {
        self.codec == Codec::F32
    }

    pub(super) fn set_rate(&mut self, rate: f32) {
        self.rate = rate;
    }

    // Kernels to run

    /// How the `message`-th message of a part is written, counted from 1.
    pub(super) fn coding(&self, part: usize, message: u64) -> Coding {
        self.coding_of(part, message.saturating_add(self.made))
    }

    /// The same for the `message`-th message of a run, over all suspensions.
    fn coding_of(&self, part: usize, message: u64) -> Coding {
        let density = |density| self.correction.density(message, density);
        let dense = message <= u64::from(self.correction.warmup);
        match self.codec {
            Codec::F32 => Coding::F32,
            Codec::Bf16 => Coding::Bf16,
            Codec::F16 => Coding::F16,
            Codec::Int8 => Coding::Int8,
            Codec::Sign => Coding::Sign,
            Codec::SignColumns => {
                let means = columns::means(self.parts[part].pieces.iter().copied());
                Coding::SignColumns { means: means as u32 }
            }
            Codec::TopK(top) => {
                let len = self.parts[part].range.len();
                let chunk = if top.per_chunk { len.min(topk::CHUNK) } else { len };
                let count = topk::count(chunk, density(top.density)) as u32;
                let pick = Pick { count, chunk: chunk as u32, values: top.values };
                Coding::TopK(if dense { pick.dense() } else { pick })
            }
            Codec::Threshold(threshold) => {
                let mut aim = Aim { dense, ..Aim::of(&threshold, self.rate) };
                if let Control::Density { density: target } = &mut aim.control {
                    *target = density(*target);
                }
                Coding::Threshold(aim)
            }
        }
    }

    /// How a message is written that carries everything that can be.
    fn last_coding(&self, part: usize) -> Coding {
        match self.coding(part, u64::MAX) {
            Coding::Threshold(aim) => Coding::Threshold(Aim { dense: true, ..aim }),
            Coding::TopK(pick) => Coding::TopK(pick.dense()),
            coding => coding,
        }
    }

    /// Kernels that write a part of `update` as its `message`-th message to `body`: perhaps one that goes before,
    /// and the one that finds [`KernelResult::Encoded`].
    pub(super) fn encode(&self, part: usize, message: u64, update: Segment, body: Segment) -> (Option<Kernel>, Kernel) {
        let (momentum, velocity) = (self.correction.momentum, self.velocity(part));
        let before = (momentum > 0.0).then_some(Kernel::Accelerate { update, velocity, momentum });
        let update = Some(if before.is_some() { velocity } else { update });
        let (coding, residual, place) = (self.coding(part, message), self.residual(part), self.place(part, body));
        (before, Kernel::Encode { coding, decay: self.decay, update, residual, place })
    }

    /// The kernel that writes the residual of a part.
    pub(super) fn write(&self, part: usize, body: Segment) -> Kernel {
        let (coding, residual, place) = (self.coding(part, u64::MAX), self.residual(part), self.place(part, body));
        // Only contributions make a residual older.
        Kernel::Encode { coding, decay: 1.0, update: None, residual, place }
    }

    /// The same, with everything that can be written.
    fn flush(&self, part: usize, body: Segment) -> Kernel {
        let (coding, residual, place) = (self.last_coding(part), self.residual(part), self.place(part, body));
        Kernel::Encode { coding, decay: 1.0, update: None, residual, place }
    }

    /// The kernel that gives scratch memory back, if a message with few entries has come after one with many. After
    /// [`on_encoded`](Self::on_encoded).
    pub(super) fn give_back(&mut self, encoded: &Encoded) -> Option<Kernel> {
        const FEWER: u32 = 8;
        // An entry has up to two words.
        let is_long = u64::from(self.crowded) * 8 > u64::from(self.keep_below);
        let due = self.codec.is_sparse() && is_long && encoded.entries < self.crowded / FEWER;
        self.crowded = if due { 0 } else { self.crowded.max(encoded.entries) };
        due.then_some(Kernel::Release { buffer: self.buffers.scratch })
    }

    /// Kernels to run after a part has been written, unless it was the last message. The second finds
    /// [`KernelResult::Clipped`].
    pub(super) fn after(&mut self, part: usize, message: u64, body: Segment) -> (Option<Kernel>, Option<Kernel>) {
        let (coding, sections, velocity) = (self.coding(part, message), self.sections(part), self.velocity(part));
        let mask = Kernel::Mask { coding, body, sections, velocity };
        let clip = if let Codec::Threshold(threshold) = self.codec { threshold.clip } else { 0.0 };
        let limit = clip * self.parts[part].last.threshold;
        let clipped = Kernel::Clip { residual: self.residual(part), limit };
        self.clipping += u32::from(clip > 0.0);
        ((self.correction.momentum > 0.0).then_some(mask), (clip > 0.0).then_some(clipped))
    }

    // Results of kernels

    /// A part has been written.
    pub(super) fn on_encoded(&mut self, part: usize, encoded: Encoded, counters: &mut Counters) {
        self.parts[part].last = encoded;
        self.forgotten += encoded.forgotten;
        if !self.ending.has_begun() {
            self.carried.0 += u64::from(encoded.entries);
            self.carried.1 += self.parts[part].range.len() as u64;
        }
        counters.entries += u64::from(encoded.entries);
        counters.non_finite += u64::from(encoded.non_finite);
    }

    /// The residual of a part has been clipped.
    pub(super) fn on_clipped(&mut self, part: usize, result: KernelResult) {
        self.clipping -= 1;
        if let KernelResult::Clipped { lost, squares, .. } = result {
            self.clipped += lost;
            self.parts[part].last.squares = squares;
        }
    }

    /// Is a residual being clipped? Its norm is not known then.
    pub(super) fn is_clipping(&self) -> bool {
        self.clipping > 0
    }

    /// Sum of squares of the residual.
    fn squares(&self) -> f64 {
        self.parts.iter().map(|part| part.last.squares).sum()
    }

    /// Has a message been written?
    fn has_encoded(&self) -> bool {
        self.parts.iter().any(|part| part.last.bytes > 0)
    }

    /// The largest threshold of the last message.
    fn tau(&self) -> f64 {
        f64::from(self.parts.iter().map(|part| part.last.threshold).fold(0.0, f32::max))
    }

    /// Share of the elements that the last message has carried. After the end, that of all messages before it: the last
    /// ones carry what was left, which says nothing about the run.
    fn density(&self) -> f64 {
        let (entries, elements) = self.carried;
        if self.ending.has_begun() && elements > 0 {
            return entries as f64 / elements as f64;
        }
        let entries: f64 = self.parts.iter().map(|part| f64::from(part.last.entries)).sum();
        entries / self.len as f64
    }

    /// Into a status: the residual, and the last message of all parts.
    pub(super) fn report(&self, status: Status) -> Status {
        if self.is_plain() {
            return status;
        }
        Status {
            residual_norm: square_root(self.squares()),
            residual_updates: self.residual_updates(),
            rest: self.rest(),
            density: self.density(),
            tau: self.ending.tau().unwrap_or_else(|| self.tau()),
            clipped: self.clipped,
            forgotten: self.forgotten,
            ..status
        }
    }

    // Places

    /// The most bytes that a body of a part can take, in any message.
    pub(super) fn len_max(&self, part: usize) -> usize {
        let (range, sections) = (&self.parts[part].range, self.parts[part].lens.len());
        // Ramps only make messages shorter. The first message may be dense, as floats; of very few elements, means take more.
        let ordinary = [self.coding_of(part, 1), self.coding_of(part, u64::MAX)].into_iter();
        // A last message with all of a residual is made with `end=send` only. Other codecs have one length, or need the room.
        let is_sent = self.end == End::Send || !matches!(self.codec, Codec::TopK(_));
        let codings = ordinary.chain(is_sent.then(|| self.last_coding(part)));
        codings.map(|coding| coding.len_max(range.len(), sections)).max().unwrap_or(0)
    }

    pub(super) fn sections(&self, part: usize) -> Segment {
        let sections = &self.parts[part].sections;
        let start = sections.start as u64 * u64::from(SECTION);
        Segment { buffer: self.buffers.sections, start, len: sections.len() as u32 * SECTION }
    }

    pub(super) fn residual(&self, part: usize) -> Segment {
        Segment::floats(self.buffers.residual, self.parts[part].range.start, self.parts[part].range.len())
    }

    fn velocity(&self, part: usize) -> Segment {
        Segment { buffer: self.buffers.velocity, ..self.residual(part) }
    }

    /// Where a part is written to a body.
    pub(super) fn place(&self, part: usize, body: Segment) -> EncodeTarget {
        EncodeTarget { sections: self.sections(part), scratch: self.buffers.scratch, body }
    }
}

const SECTION: u32 = size_of::<Section>() as u32;

/// The pieces of tensors in a range, with these lengths.
fn pieces(setup: &Setup, range: &Range<usize>, lens: &[u32]) -> Vec<Piece> {
    let (mut first, mut pieces) = (0, Vec::with_capacity(lens.len()));
    for len in lens {
        let at = range.start + first as usize;
        let mut start = 0;
        // The tensor in which the piece begins; behind the last one there is only one column.
        let tensor = setup.tensors.iter().zip(setup.columns.iter()).find_map(|(len, last)| {
            let own = start..start + len;
            start = own.end;
            own.contains(&at).then_some((own, *last))
        });
        let (columns, phase) = tensor.map_or((1, 0), |(own, last)| {
            let columns = columns::columns(own.len(), last);
            (columns, (at - own.start) % columns)
        });
        pieces.push(Piece { first, len: *len, columns: columns as u32, phase: phase as u32 });
        first += len;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Warm-up, ramp and learning rate, message by message.
    #[test]
    fn codings_follow_the_start_and_the_learning_rate() {
        let recipe: crate::recipe::Recipe = "mesh tau=0.25 density=0.001 warmup=2 ramp=10".parse().unwrap();
        let (layout, cluster) = (crate::Layout::flat(1000), crate::Cluster { workers: 2, servers: 0 });
        let setup = Setup::new(crate::PeerId(0), cluster, recipe, &layout, 0);
        let mut vectors = Vectors::default();
        let whole = core::iter::once(0..1000);
        let mut encoding = Encoding::encoder(&setup, recipe.codec, recipe.correction, whole, &mut vectors);
        let aim = |encoding: &Encoding, message| match encoding.coding(0, message) {
            Coding::Threshold(aim) => aim,
            coding => panic!("{coding:?}"),
        };
        let density = |message| match aim(&encoding, message) {
            Aim { control: Control::Density { density }, dense, .. } => (dense, density),
            aim => panic!("{aim:?}"),
        };
        assert!(density(1).0 && density(2).0 && !density(3).0);
        let ramp = [3, 5, 7, 9, 11, 13, 1000].map(|message| density(message).1);
        assert_eq!(ramp, [0.25, 0.0625, 0.015_625, 0.003_906_25, 0.001, 0.001, 0.001]);
        assert_eq!(aim(&encoding, 99).tau, 0.25);
        encoding.set_rate(0.5);
        assert_eq!(aim(&encoding, 99).tau, 0.125);
        encoding.set_rate(1e-9);
        assert_eq!(aim(&encoding, 99).tau, aim(&encoding, 99).unit);
    }

    /// Warm-up and ramp do not begin anew, and the residual of the checkpoint is not forgotten at the end.
    #[test]
    fn a_resumed_encoder_goes_on_with_the_schedule() {
        let recipe: crate::recipe::Recipe = "mesh tau=0.25 density=0.001 warmup=2 ramp=10 end=send".parse().unwrap();
        let (layout, cluster) = (crate::Layout::flat(1000), crate::Cluster { workers: 2, servers: 0 });
        let encoder = |made: Option<u64>| {
            let resumed = made.map(|made| crate::machine::Resumed { at: crate::Clock(1), made });
            let setup = Setup { resumed, ..Setup::new(crate::PeerId(0), cluster, recipe, &layout, 0) };
            let whole = core::iter::once(0..1000);
            Encoding::encoder(&setup, recipe.codec, recipe.correction, whole, &mut Vectors::default())
        };
        let (new, resumed) = (encoder(None), encoder(Some(6)));
        assert_ne!(new.coding(0, 1), new.coding(0, 7));
        (1..20).for_each(|message| assert_eq!(resumed.coding(0, message), new.coding(0, 6 + message)));
        assert!(resumed.wants_last() && !new.wants_last());
    }

    /// A message of `entries` elements that leaves a residual of this norm.
    fn encoded(entries: u32, norm: f64) -> Encoded {
        Encoded { bytes: 4, entries, squares: norm * norm, ..Encoded::default() }
    }

    /// An encoder that goes on behind `made` messages of a suspended run.
    fn encoder(recipe: &str, made: Option<u64>) -> Encoding {
        let recipe: crate::recipe::Recipe = recipe.parse().unwrap();
        let (layout, cluster) = (crate::Layout::flat(1000), crate::Cluster { workers: 2, servers: 1 });
        let resumed = made.map(|made| crate::machine::Resumed { at: crate::Clock(1), made });
        let setup = Setup { resumed, ..Setup::new(crate::PeerId(0), cluster, recipe, &layout, 0) };
        let halves = [0..500, 500..1000];
        Encoding::encoder(&setup, recipe.codec, recipe.correction, halves, &mut Vectors::default())
    }

    /// Also where a shard is so short that two means take more than its floats.
    #[test]
    fn the_longest_message_has_room() {
        for start in ["", "warmup=1", "ramp=3", "end=send", "warmup=2 ramp=2 end=send"] {
            for values in ["f32", "f16", "int8", "two-means"] {
                let recipe: crate::recipe::Recipe =
                    alloc::format!("async codec=topk density=0.3 values={values} {start}").parse().unwrap();
                let (layout, cluster) = (crate::Layout::flat(1000), crate::Cluster { workers: 2, servers: 1 });
                let setup = Setup::new(crate::PeerId(0), cluster, recipe, &layout, 0);
                let parts = [0..1, 1..3, 3..10, 10..1000];
                let encoding =
                    Encoding::encoder(&setup, recipe.codec, recipe.correction, parts, &mut Vectors::default());
                for part in 0..4 {
                    let last = (recipe.end == End::Send).then(|| encoding.last_coding(part));
                    for coding in (1..20).map(|message| encoding.coding(part, message)).chain(last) {
                        let (room, needed) =
                            (encoding.len_max(part), coding.len_max(encoding.parts[part].range.len(), 1));
                        assert!(room >= needed, "{recipe}, part {part}: {room} bytes, {coding:?} takes {needed}");
                    }
                }
            }
        }
    }

    /// All that was clipped in the run, and the last message of all parts.
    #[test]
    fn a_status_sums_over_messages_and_parts() {
        let mut encoding = encoder("async codec=topk density=0.01", None);
        let mut counters = Counters::default();
        for (part, message) in [(0, encoded(7, 9.0)), (0, encoded(2, 3.0)), (1, encoded(3, 6.0))] {
            encoding.on_encoded(part, Encoded { non_finite: 1, ..message }, &mut counters);
        }
        assert_eq!(encoding.forget().count(), 2);
        encoding.on_clipped(0, KernelResult::Clipped { elements: 0, lost: 0.25, squares: 9.0 });
        assert!(encoding.is_clipping());
        encoding.on_clipped(1, KernelResult::Clipped { elements: 1, lost: 1.5, squares: 16.0 });
        assert!(!encoding.is_clipping());
        let cluster = crate::Cluster { workers: 1, servers: 1 };
        let setup = Setup::new(crate::PeerId(0), cluster, crate::Recipe::asynchronous(), &crate::Layout::flat(1000), 0);
        let status = encoding.report(crate::machine::Machine::status(&crate::machine::Node::new(setup).unwrap()));
        assert_eq!((status.clipped, status.residual_norm, status.density), (1.75, 5.0, 0.005));
        assert_eq!((counters.entries, counters.non_finite), (12, 3));
    }

    /// The messages at the end carry what was left: the density of a run that has ended is that of the messages before.
    #[test]
    fn the_figures_of_the_end_are_those_of_the_run() {
        let mut encoding = encoder("async codec=threshold tau=0.25 end=send", None);
        for entries in [1, 2, 3] {
            let written = Encoded { threshold: 0.25, ..encoded(entries, 4.0) };
            (0..2).for_each(|part| encoding.on_encoded(part, written, &mut Counters::default()));
        }
        assert_eq!((encoding.density(), encoding.tau()), (0.006, 0.25));
        encoding.begin_end();
        encoding.begin_last();
        let written = Encoded { threshold: 32.0, ..encoded(400, 0.0) };
        (0..2).for_each(|part| encoding.on_encoded(part, written, &mut Counters::default()));
        assert_eq!((encoding.density(), encoding.ending.tau()), (0.004, Some(0.25)));
    }

    /// With a density of 0.01, an element is carried after 100 messages, also if the run was suspended in between.
    #[test]
    fn a_late_hint_counts_the_messages_before_a_suspension() {
        let hint = |made, messages| {
            let mut encoding = encoder("async codec=topk density=0.01", made);
            encoding.on_encoded(0, encoded(1, 1.0), &mut Counters::default());
            (0..messages).for_each(|_| assert_eq!(encoding.watch(), None));
            encoding.late_hint().is_some()
        };
        assert!(hint(None, 2) && hint(Some(60), 2));
        assert!(!hint(Some(99), 2) && !hint(Some(60), 50));
    }

    /// A resumed worker does not know its residual before its first message, so that message does not tell whether the
    /// residual still falls.
    #[test]
    fn a_resumed_worker_sends_its_residual_as_long_as_it_falls() {
        let mut encoding = encoder("async codec=sign end=send", Some(6));
        encoding.begin_end();
        let mut messages = 0;
        for norm in [16.0, 9.0, 4.0, 4.0, 4.0] {
            if !encoding.wants_last() {
                break;
            }
            encoding.begin_last();
            (0..2).for_each(|part| encoding.on_encoded(part, encoded(500, norm), &mut Counters::default()));
            messages += 1;
        }
        assert_eq!(messages, 4);
    }

    /// Columns go on where a range cuts a tensor. Tensors of one dimension, and tensors with short columns, are one
    /// column.
    #[test]
    fn a_piece_of_a_tensor_knows_its_columns() {
        let layout = crate::Layout::new().tensor("w", &[40, 10]).tensor("b", &[10]).tensor("wide", &[2, 30]);
        let (recipe, cluster) = (crate::Recipe::asynchronous(), crate::Cluster { workers: 2, servers: 1 });
        let setup = Setup::new(crate::PeerId(0), cluster, recipe, &layout, 0);
        let of = |range: Range<usize>| -> Vec<[u32; 4]> {
            let pieces = pieces(&setup, &range, &cut(&setup.tensors, &range));
            pieces.iter().map(|piece| [piece.first, piece.len, piece.columns, piece.phase]).collect()
        };
        assert_eq!(of(0..470), [[0, 400, 10, 0], [400, 10, 1, 0], [410, 60, 1, 0]]);
        assert_eq!(of(123..405), [[0, 277, 10, 3], [277, 5, 1, 0]]);
        assert_eq!(of(405..470), [[0, 5, 1, 0], [5, 60, 1, 0]]);
    }
}
