//! The AVX-512 loop: sixteen elements per iteration, without a branch on their values. Elements that emit are
//! compressed to the front of a register. All sixteen lanes of it are stored, and the next iteration overwrites the
//! unused ones.
//!
//! Two alternatives are slower: a branch that skips vectors without entries, because it is unpredictable at the usual
//! densities, and compressing stores to memory. The branch pays below one entry in 200 elements (`SKIP`).

use core::arch::x86_64::{__m512, __m512i};

use bytemuck::cast;
use pulp::NullaryFnOnce;
use pulp::x86::V4;

use super::{BLOCK, LANES, Pass};

struct Block<'a, 'b, const SKIP: bool> {
    simd: V4,
    pass: &'a mut Pass<'b>,
    update: &'a [f32],
    residual: &'a mut [f32],
}

impl Pass<'_> {
    pub(super) fn avx512(&mut self, simd: V4, update: &[f32], residual: &mut [f32]) {
        // The density of a block is close to that of the previous one.
        let words = self.taken.words;
        if self.block_words * 200 < BLOCK {
            simd.vectorize(Block::<true> { simd, pass: self, update, residual });
        } else {
            simd.vectorize(Block::<false> { simd, pass: self, update, residual });
        }
        self.block_words = self.taken.words - words;
    }

    /// Calls [`emit`](Self::emit) for the elements of a vector whose bits are set in `mask`. Not inlined: it would take
    /// registers from the vector loop.
    #[inline(never)]
    fn emit_all(&mut self, at: usize, mut acc: [f32; LANES], old: &[f32; LANES], mut mask: u16) -> [f32; LANES] {
        while mask != 0 {
            let lane = mask.trailing_zeros() as usize;
            acc[lane] = self.emit(self.first + (at + lane) as u32, acc[lane], old[lane]);
            mask &= mask - 1;
        }
        acc
    }
}

impl<const SKIP: bool> NullaryFnOnce for Block<'_, '_, SKIP> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, pass, update, residual } = self;
        let avx = simd.avx512f;
        // Without their sign, floats compare as integers. NaN and infinities lie above every threshold.
        let threshold = avx._mm512_set1_epi32(pass.quantum.threshold.to_bits() as i32);
        let tau = avx._mm512_set1_epi32(pass.quantum.tau.to_bits() as i32);
        let magnitude = avx._mm512_set1_epi32(i32::MAX);
        let sign = avx._mm512_set1_epi32(i32::MIN);
        let step = avx._mm512_set1_epi32(LANES as i32);
        let mut index: __m512i = cast(core::array::from_fn::<u32, LANES, _>(|lane| pass.first + lane as u32));
        let mut sum: __m512 = cast(pass.lanes);

        // Local copies of position and count: through `pass` they would be stored in every iteration.
        let mut entries = &mut pass.entries[pass.taken.words..];
        let mut words = 0;
        let (chunks, rest) = residual.as_chunks_mut::<LANES>();
        let (updates, rest_update) = update.as_chunks::<LANES>();
        for (at, (chunk, update)) in chunks.iter_mut().zip(updates).enumerate() {
            let acc: __m512i = cast(avx._mm512_add_ps(cast(*chunk), cast(*update)));
            let hit = avx._mm512_cmpge_epi32_mask(avx._mm512_and_si512(acc, magnitude), threshold);
            let mut left: __m512 = cast(acc);
            if !SKIP || hit != 0 {
                let signs = avx._mm512_and_si512(acc, sign);
                let quantum = avx._mm512_or_si512(tau, signs);
                left = avx._mm512_mask_sub_ps(left, hit, left, cast(quantum));
                // Elements that need the scalar code: more than one quantum, or not finite.
                let more = avx._mm512_mask_cmpge_epi32_mask(hit, avx._mm512_and_si512(cast(left), magnitude), tau);
                // `None` near the end of the list, where a full vector does not fit.
                match entries.get_mut(words..words + LANES) {
                    Some(room) if more == 0 => {
                        let packed = avx._mm512_maskz_compress_epi32(hit, avx._mm512_or_si512(signs, index));
                        room.copy_from_slice(&cast::<__m512i, [u32; LANES]>(packed));
                        words += hit.count_ones() as usize;
                    }
                    _ => {
                        pass.taken.words += words;
                        pass.taken.entries += words as u32;
                        left = cast(pass.emit_all(at * LANES, cast(acc), chunk, hit));
                        (entries, words) = (&mut pass.entries[pass.taken.words..], 0);
                    }
                }
            }
            *chunk = cast(left);
            sum = avx._mm512_add_ps(sum, avx._mm512_mul_ps(left, left));
            index = avx._mm512_add_epi32(index, step);
        }
        pass.lanes = cast(sum);
        pass.taken.words += words;
        pass.taken.entries += words as u32;
        pass.one_by_one(chunks.len() * LANES, rest_update, rest);
    }
}
