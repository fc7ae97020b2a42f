//! Tiers: the levels of vector instructions for which kernels are built, and the choice of one at run time.
//!
//! A tier changes the speed of a kernel and never its result: all tiers agree with the naive version bit for bit. Most
//! kernels are plain loops that the compiler builds once per tier ([`Tier::run`]). Where the compiler does not
//! vectorise well ([`threshold`](super::threshold)), each tier has a file with explicit vector operations.
//!
//! Without the feature `std`, a tier is used only if the whole build targets it.

use pulp::NullaryFnOnce;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

/// A level of vector instructions. A value other than [`Portable`](Self::Portable) proves that this processor has them.
#[derive(Copy, Clone, Debug)]
pub enum Tier {
    /// The instructions that every processor of the target has.
    Portable,
    /// AVX2, FMA, BMI2 (x86-64-v3).
    #[cfg(target_arch = "x86_64")]
    Avx2(V3),
    /// AVX-512 F, BW, CD, DQ, VL (x86-64-v4).
    #[cfg(target_arch = "x86_64")]
    Avx512(V4),
}

impl Tier {
    /// The best tier of this processor. The detection is cached by `pulp`.
    #[cfg(target_arch = "x86_64")]
    pub fn best() -> Self {
        let avx2 = || V3::try_new().map_or(Self::Portable, Self::Avx2);
        V4::try_new().map_or_else(avx2, Self::Avx512)
    }

    /// The best tier of this processor.
    #[cfg(not(target_arch = "x86_64"))]
    pub const fn best() -> Self {
        Self::Portable
    }

    /// All tiers of this processor, the best one first.
    pub fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let mut tiers = [V4::try_new().map(Self::Avx512), V3::try_new().map(Self::Avx2), Some(Self::Portable)];
        #[cfg(not(target_arch = "x86_64"))]
        let mut tiers = [Some(Self::Portable)];
        // Missing tiers go to the end; the sort is stable, so the present ones stay in order.
        tiers.sort_by_key(Option::is_none);
        tiers.into_iter().flatten()
    }

    /// The name of the tier, for benches and test messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }

    /// Runs `work` with the instructions of this tier. The compiler builds `work` once per tier, if it inlines it here:
    /// a short closure, or a type whose `call` has `#[inline(always)]`.
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
