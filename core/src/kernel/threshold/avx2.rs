//! The AVX2 loop: two vectors of eight elements per iteration. If no element emits, which is the usual case, both
//! vectors are stored; otherwise a bit mask selects the elements for the scalar code.

use core::arch::x86_64::{__m256, __m256i};

use bytemuck::cast;
use pulp::NullaryFnOnce;
use pulp::x86::V3;

use super::{LANES, Pass};

struct Block<'a, 'b> {
    simd: V3,
    pass: &'a mut Pass<'b>,
    update: &'a [f32],
    residual: &'a mut [f32],
}

impl Pass<'_> {
    pub(super) fn avx2(&mut self, simd: V3, update: &[f32], residual: &mut [f32]) {
        simd.vectorize(Block { simd, pass: self, update, residual });
    }
}

impl NullaryFnOnce for Block<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, pass, update, residual } = self;
        let (avx, avx2) = (simd.avx, simd.avx2);
        // Without their sign, floats compare as integers. NaN and infinities lie above every threshold.
        // AVX2 has only "greater than" for integers, so compare with the threshold minus one.
        let below = avx._mm256_set1_epi32(pass.quantum.threshold.to_bits() as i32 - 1);
        let magnitude = avx._mm256_set1_epi32(i32::MAX);
        let [mut low_sum, mut high_sum]: [__m256; 2] = cast(pass.lanes);

        let (chunks, rest) = residual.as_chunks_mut::<LANES>();
        let (updates, rest_update) = update.as_chunks::<LANES>();
        for (at, (chunk, update)) in chunks.iter_mut().zip(updates).enumerate() {
            let (old, new): ([__m256; 2], [__m256; 2]) = (cast(*chunk), cast(*update));
            let [mut low, mut high] = [avx._mm256_add_ps(old[0], new[0]), avx._mm256_add_ps(old[1], new[1])];
            let reached = |acc: __m256| -> __m256i {
                avx2._mm256_cmpgt_epi32(avx2._mm256_and_si256(cast(acc), magnitude), below)
            };
            let reached = [reached(low), reached(high)];
            let any = avx2._mm256_or_si256(reached[0], reached[1]);
            if avx._mm256_testz_si256(any, any) == 0 {
                let mask = |half: __m256i| avx._mm256_movemask_ps(cast(half)) as u32;
                let mut mask = mask(reached[0]) | mask(reached[1]) << (LANES / 2);
                let mut acc: [f32; LANES] = cast([low, high]);
                // One iteration per set bit, from the lowest: entries must have rising indices.
                while mask != 0 {
                    let lane = mask.trailing_zeros() as usize;
                    acc[lane] = pass.emit(pass.first + (at * LANES + lane) as u32, acc[lane], chunk[lane]);
                    mask &= mask - 1;
                }
                [low, high] = cast(acc);
            }
            *chunk = cast([low, high]);
            low_sum = avx._mm256_add_ps(low_sum, avx._mm256_mul_ps(low, low));
            high_sum = avx._mm256_add_ps(high_sum, avx._mm256_mul_ps(high, high));
        }
        pass.lanes = cast([low_sum, high_sum]);
        pass.one_by_one(chunks.len() * LANES, rest_update, rest);
    }
}
