//! The codec of a tree or ring: an encoder with a residual at every hop.
//!
//! A node encodes the mean of its subtree on the way up; the root encodes the result. Each adds its residual first, and
//! keeps the error as its next residual. So for every chunk and round, over all nodes:
//!
//! ```text
//! decoded result + residuals after, each by its node's share = mean of the contributions + residuals before
//! ```
//! With a decay, the residuals before are multiplied by it, in nodes that encode something in this round.
//! A residual belongs to a node. It is added to the node's next mean as it is, also where the members or the weights
//! have changed since.
//!
//! A round that is broken off must leave no trace, because its contributions are given again. So the residual has two
//! places, like the parameters: one before the round, and one after it. They are exchanged when the round is done.

use alloc::vec::Vec;

use super::chunks::Chunks;
use crate::buffer::{BufferId, Segment};
use crate::codec::Encoded;
use crate::kernel::norm::square_root;
use crate::kernel::{Coding, EncodeTarget, Kernel, KernelResult, MEAN_MAX};
use crate::machine::encoding::{is_measured, smooth};
use crate::recipe::{Codec, Recipe};
use crate::status::{Counters, Rest, Status};
use crate::vectors::{Keep, Vectors};

/// The encoder of a node, and the buffers of encoded chunks.
#[derive(Debug)]
pub(super) struct Hops {
    coding: Coding,
    /// Factor on the residual of a node that encodes.
    decay: f32,
    /// The residual before and after the round, in changing order.
    residual: [BufferId; 2],
    /// Which of them is the one before the round.
    current: usize,
    /// Empty: dense codecs have no sections and need no scratch memory.
    sections: BufferId,
    scratch: BufferId,
    chunks: Vec<Encoding>,
    /// Chunks of this round whose residual is in the place for after the round.
    made: usize,
    /// L1 norm that decay has removed in this round, and in all rounds that count.
    forgetting: f64,
    forgotten: f64,
    /// Contributions so far.
    contributions: u64,
    /// Norm of contributions, smoothed over the measured ones.
    measured: f64,
}

/// The state of one chunk.
#[derive(Debug)]
struct Encoding {
    /// For the message of this node, and then for the encoded result.
    body: Segment,
    /// For the bodies of the children.
    inboxes: [BufferId; MEAN_MAX - 1],
    /// The chunk's last encoding.
    last: Encoded,
}

impl Hops {
    /// The codec of a recipe for messages in chunks. `None`: they are plain floats, and no buffers are declared.
    pub(super) fn new(recipe: &Recipe, chunks: &Chunks, children: usize, vectors: &mut Vectors) -> Option<Self> {
        let coding = match recipe.codec {
            Codec::Bf16 => Coding::Bf16,
            Codec::F16 => Coding::F16,
            Codec::Int8 => Coding::Int8,
            Codec::Sign => Coding::Sign,
            // Trees and rings take no sparse codecs, and no codecs per column.
            Codec::F32 | Codec::SignColumns | Codec::Threshold(_) | Codec::TopK(_) => return None,
        };
        let len = chunks.len();
        let mut encoding = |chunk| {
            let bytes = coding.len_max(chunks.bytes(chunk) as usize / 4, 0);
            let buffer = vectors.bytes("a chunk's body", bytes, Keep::No);
            let mut inboxes = [BufferId(u32::MAX); MEAN_MAX - 1];
            for inbox in &mut inboxes[..children] {
                *inbox = vectors.bytes("a child's body of a chunk", bytes, Keep::No);
            }
            Encoding { body: Segment { buffer, start: 0, len: bytes as u32 }, inboxes, last: Encoded::default() }
        };
        let all = (0..chunks.count()).map(&mut encoding).collect();
        let residual = ["residual", "residual after the round"].map(|name| vectors.floats(name, len, Keep::No));
        let [sections, scratch] = ["sections", "scratch"].map(|name| vectors.bytes(name, 0, Keep::No));
        Some(Self {
            coding,
            decay: recipe.decay(),
            residual,
            current: 0,
            sections,
            scratch,
            chunks: all,
            made: 0,
            forgetting: 0.0,
            forgotten: 0.0,
            contributions: 0,
            measured: 0.0,
        })
    }

    // Places

    /// The body of this node's message about a chunk, and then of the chunk's result.
    pub(super) fn body(&self, chunk: usize) -> Segment {
        self.chunks[chunk].body
    }

    /// The body of a child's message about a chunk.
    pub(super) fn inbox(&self, chunk: usize, child: usize) -> Segment {
        Segment { buffer: self.chunks[chunk].inboxes[child], ..self.chunks[chunk].body }
    }

    /// The residual before the round: the one that outlives a suspension.
    pub(super) fn residual(&self) -> BufferId {
        self.residual[self.current]
    }

    // Rounds

    /// The round begins, perhaps again. `contributes`: with a contribution of this node. Returns whether the
    /// contribution is to be measured, as it is now and then.
    pub(super) fn begin(&mut self, contributes: bool) -> bool {
        (self.made, self.forgetting) = (0, 0.0);
        self.contributions += u64::from(contributes);
        contributes && is_measured(self.contributions)
    }

    /// The kernels that encode `mean` as this node's message about a chunk, or the root's result. The second finds
    /// [`KernelResult::Encoded`].
    pub(super) fn encode(&mut self, chunk: usize, mean: Segment, place: Segment) -> [Kernel; 2] {
        let copy = self.skip(place);
        let residual = Segment { buffer: self.residual[1 - self.current], ..place };
        let target = EncodeTarget { sections: self.no_sections(), scratch: self.scratch, body: self.body(chunk) };
        [copy, Kernel::Encode { coding: self.coding, decay: self.decay, update: Some(mean), residual, place: target }]
    }

    /// The kernel for a chunk to which nothing was contributed below this node. `place`: the chunk in a whole vector.
    pub(super) fn skip(&mut self, place: Segment) -> Kernel {
        self.made += 1;
        let [from, into] = [self.current, 1 - self.current].map(|i| Segment { buffer: self.residual[i], ..place });
        Kernel::Copy { from, into }
    }

    /// The kernel that decodes a body to floats.
    pub(super) fn expand(&self, body: Segment, into: Segment) -> Kernel {
        Kernel::Expand { coding: self.coding, body, sections: self.no_sections(), into }
    }

    fn no_sections(&self) -> Segment {
        Segment { buffer: self.sections, start: 0, len: 0 }
    }

    pub(super) fn on_encoded(&mut self, chunk: usize, result: KernelResult, counters: &mut Counters) -> Option<u32> {
        let KernelResult::Encoded(encoded) = result else { return None };
        self.chunks[chunk].last = encoded;
        self.forgetting += encoded.forgotten;
        counters.entries += u64::from(encoded.entries);
        counters.non_finite += u64::from(encoded.non_finite);
        encoded.first_non_finite
    }

    pub(super) fn on_measured(&mut self, result: KernelResult) {
        if let KernelResult::Norm { squares } = result {
            self.measured = smooth(self.measured, square_root(squares));
        }
    }

    /// The round counts: the residual after it is the one before the next. Does nothing unless all chunks are encoded.
    pub(super) fn complete(&mut self) {
        if core::mem::take(&mut self.made) == self.chunks.len() {
            self.current = 1 - self.current;
            self.forgotten += core::mem::take(&mut self.forgetting);
        }
    }

    // Reports

    fn norm(&self) -> f64 {
        square_root(self.chunks.iter().map(|chunk| chunk.last.squares).sum())
    }

    fn updates(&self) -> f64 {
        if self.measured > 0.0 { self.norm() / self.measured } else { 0.0 }
    }

    pub(super) fn report(&self, status: Status) -> Status {
        let density = if self.contributions > 0 { 1.0 } else { 0.0 };
        let (residual_norm, residual_updates, forgotten) = (self.norm(), self.updates(), self.forgotten);
        Status { residual_norm, residual_updates, density, forgotten, ..status }
    }

    /// The residual, if this node has encoded anything.
    pub(super) fn rest(&self) -> Option<Rest> {
        let (norm, updates) = (self.norm(), self.updates());
        let rest = Rest { norm, updates, messages: 0, kept: norm };
        self.chunks.iter().any(|chunk| chunk.last.bytes > 0).then_some(rest)
    }
}
