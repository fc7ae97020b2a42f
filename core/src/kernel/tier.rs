//! What the processor can do, found out once, and code built for it.
//!
//! A tier changes how fast a kernel runs, never what it computes: all tiers agree with the naive version bit for
//! bit. Most kernels are plain loops that the compiler builds once per tier ([`Tier::run`]); where that is not
//! good enough ([`threshold`](super::threshold)), a tier has a file of its own with explicit vector operations.
//! Without the `std` feature, only what the whole build may assume is used.

use pulp::NullaryFnOnce;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

/// A level of vector instructions that this processor has.
#[derive(Copy, Clone, Debug)]
pub enum Tier {
    /// What every processor of the target has.
    Portable,
    /// AVX2, FMA, BMI2 (x86-64-v3).
    #[cfg(target_arch = "x86_64")]
    Avx2(V3),
    /// AVX-512 F, BW, CD, DQ, VL (x86-64-v4).
    #[cfg(target_arch = "x86_64")]
    Avx512(V4),
}

impl Tier {
    /// The best that this processor has.
    #[cfg(target_arch = "x86_64")]
    pub fn best() -> Self {
        let avx2 = || V3::try_new().map_or(Self::Portable, Self::Avx2);
        V4::try_new().map_or_else(avx2, Self::Avx512)
    }

    /// The best that this processor has.
    #[cfg(not(target_arch = "x86_64"))]
    pub const fn best() -> Self {
        Self::Portable
    }

    /// All that this processor has, the best first.
    pub fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let mut tiers = [V4::try_new().map(Self::Avx512), V3::try_new().map(Self::Avx2), Some(Self::Portable)];
        #[cfg(not(target_arch = "x86_64"))]
        let mut tiers = [Some(Self::Portable)];
        tiers.sort_by_key(Option::is_none);
        tiers.into_iter().flatten()
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }

    /// Runs a loop that has been built for this tier: a closure, if it is short enough for the compiler to build it
    /// in all places that it is called from; else something whose `call` is marked to be.
    #[inline(always)]
    pub fn run<W: NullaryFnOnce>(self, work: W) -> W::Output {
        match self {
            Self::Portable => work.call(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(work),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.vectorize(work),
        }
    }
}
