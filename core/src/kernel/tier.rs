//! Tiers: the levels of vector instructions for which kernels are built, and the choice of one at run time.
//!
//! A tier changes the speed of a kernel and never its result: all tiers agree with the naive version bit for bit. Most
//! kernels are plain loops that the compiler builds once per tier ([`Tier::run`]). Where the compiler does not
//! vectorise well ([`threshold`](super::threshold)), each tier has a file with explicit vector operations.
//!
//! Without the feature `std`, a tier is used only if the whole build targets it. Kernels for x86-64 are built only where
//! the target has SSE2. For targets without it, such as `x86_64-unknown-none`, the compiler cannot generate code with
//! vectors.

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
use pulp::x86::{V3, V4};

/// Work that [`Tier::run`] runs with the instructions of a tier: a closure, or a type of its own.
pub trait Work {
    /// The result of [`call`](Self::call).
    type Output;

    /// Does the work.
    fn call(self) -> Self::Output;
}

impl<R, F: FnOnce() -> R> Work for F {
    type Output = R;

    #[inline(always)]
    fn call(self) -> R {
        self()
    }
}

/// A level of vector instructions. A value other than [`Portable`](Self::Portable) proves that this processor has them.
#[derive(Copy, Clone, Debug)]
pub enum Tier {
    /// The instructions that every processor of the target has.
    Portable,
    /// AVX2, FMA, BMI2 (x86-64-v3).
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
    Avx2(V3),
    /// AVX-512 F, BW, CD, DQ, VL (x86-64-v4).
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
    Avx512(V4),
}

impl Tier {
    /// The best tier of this processor. The detection is cached by `pulp`.
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
    pub fn best() -> Self {
        let avx2 = || V3::try_new().map_or(Self::Portable, Self::Avx2);
        V4::try_new().map_or_else(avx2, Self::Avx512)
    }

    /// The best tier of this processor.
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
    pub const fn best() -> Self {
        Self::Portable
    }

    /// All tiers of this processor, the best one first.
    pub fn all() -> impl Iterator<Item = Self> {
        #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
        let mut tiers = [V4::try_new().map(Self::Avx512), V3::try_new().map(Self::Avx2), Some(Self::Portable)];
        #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
        let mut tiers = [Some(Self::Portable)];
        // Missing tiers go to the end; the sort is stable, so the present ones stay in order.
        tiers.sort_by_key(Option::is_none);
        tiers.into_iter().flatten()
    }

    /// The name of the tier, for benches and test messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
            Self::Avx2(_) => "avx2",
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
            Self::Avx512(_) => "avx512",
        }
    }

    /// Runs `work` with the instructions of this tier. The compiler builds `work` once per tier, if it inlines it here:
    /// a short closure, or a type whose `call` has `#[inline(always)]`.
    #[inline(always)]
    pub fn run<W: Work>(self, work: W) -> W::Output {
        match self {
            Self::Portable => work.call(),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
            Self::Avx2(simd) => simd.vectorize(Vectorized(work)),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
            Self::Avx512(simd) => simd.vectorize(Vectorized(work)),
        }
    }
}

/// The work of a tier, as `pulp` takes it.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
struct Vectorized<W>(W);

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
impl<W: Work> pulp::NullaryFnOnce for Vectorized<W> {
    type Output = W::Output;

    #[inline(always)]
    fn call(self) -> W::Output {
        self.0.call()
    }
}

#[cfg(all(test, feature = "std", target_arch = "x86_64", target_feature = "sse2"))]
mod tests {
    use super::Tier;

    /// The conditions of compilation leave no tier out that this processor could use.
    #[test]
    fn the_best_tier_has_what_the_processor_has() {
        extern crate std;
        use std::is_x86_feature_detected as has;
        let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
        let expected = match has!("avx2") && has!("fma") && has!("bmi2") {
            true if avx512 => "avx512",
            true => "avx2",
            false => "portable",
        };
        assert_eq!(Tier::best().name(), expected);
        assert_eq!(Tier::all().last().map(Tier::name), Some("portable"));
    }
}
