//! The speed of codecs and of the memory.

use gradwire_core::recipe::Codec;

/// Nanoseconds of arithmetic on one thread. [`typical`](Self::typical) is a guess for a machine with 10 GB/s of memory
/// bandwidth per process; measured numbers are better.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Costs {
    /// Per element, `y -= a x` over vectors that do not fit the cache.
    pub axpy: f64,
    /// The passes over the vector of a synchronisation, each as long as an axpy, apart from codecs: the contribution is
    /// gathered, the result applied and handed over.
    pub passes: f64,
    /// bf16.
    pub bf16: Coder,
    /// f16.
    pub f16: Coder,
    /// int8.
    pub int8: Coder,
    /// sign, also per column.
    pub sign: Coder,
    /// threshold.
    pub threshold: Coder,
    /// topk.
    pub topk: Coder,
}

/// The times of a codec in nanoseconds.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Coder {
    /// To encode, per element of the vector.
    pub encode: f64,
    /// To decode, per entry: per element of a dense codec, and per element that a sparse message carries.
    pub decode: f64,
}

impl Coder {
    pub(super) fn times(self) -> [f64; 2] {
        [self.encode, self.decode]
    }
}

impl Costs {
    /// Everything takes no time.
    pub const fn none() -> Self {
        Self::by_axpy(0.0)
    }

    /// The costs of a machine with an axpy of 1.2 ns per element. Codecs are as much slower or faster than an axpy as
    /// in BENCHMARKS.md ("Compression against its limits").
    pub const fn typical() -> Self {
        Self::by_axpy(1.2)
    }

    /// The costs of a machine with this time of an axpy per element, in nanoseconds.
    pub const fn by_axpy(axpy: f64) -> Self {
        const fn coder(axpy: f64, encode: f64, decode: f64) -> Coder {
            Coder { encode: axpy * encode, decode: axpy * decode }
        }
        Self {
            axpy,
            passes: 4.0,
            bf16: coder(axpy, 1.9, 1.3),
            f16: coder(axpy, 2.1, 1.3),
            int8: coder(axpy, 5.2, 0.9),
            sign: coder(axpy, 2.2, 0.7),
            // Decoding takes 2.3 ns per entry, and as long again to wait for memory.
            threshold: coder(axpy, 1.1, 4.0),
            topk: coder(axpy, 7.7, 4.0),
        }
    }

    /// The times of a codec. Plain floats take none.
    pub fn of(&self, codec: &Codec) -> Coder {
        match codec {
            Codec::F32 => Coder { encode: 0.0, decode: 0.0 },
            Codec::Bf16 => self.bf16,
            Codec::F16 => self.f16,
            Codec::Int8 => self.int8,
            Codec::Sign | Codec::SignColumns => self.sign,
            Codec::Threshold(_) => self.threshold,
            Codec::TopK(_) => self.topk,
        }
    }

    /// The codecs by their names in recipes.
    pub fn coders(&self) -> [(&'static str, Coder); 6] {
        [
            ("bf16", self.bf16),
            ("f16", self.f16),
            ("int8", self.int8),
            ("sign", self.sign),
            ("threshold", self.threshold),
            ("topk", self.topk),
        ]
    }

    /// The codec of this name, to be changed.
    pub fn coder_mut(&mut self, name: &str) -> Option<&mut Coder> {
        Some(match name {
            "bf16" => &mut self.bf16,
            "f16" => &mut self.f16,
            "int8" => &mut self.int8,
            "sign" => &mut self.sign,
            "threshold" => &mut self.threshold,
            "topk" => &mut self.topk,
            _ => return None,
        })
    }
}
