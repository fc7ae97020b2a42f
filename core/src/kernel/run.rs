//! [`run`]: the executor on the CPU.

use alloc::sync::Arc;

use zerocopy::{FromBytes, IntoBytes};

use super::tier::Tier;
use super::{
    Coding, EncodeTarget, Kernel, KernelResult, MEAN_MAX, apply, compare, compensate, ledger, mean, meter, momentum,
    norm, outer, round, scan, senders,
};
use crate::buffer::{Pool, Segment};
use crate::codec::threshold::Section;
use crate::codec::{self, BodyError, Encoded};

/// Executes a kernel on the CPU. Does not allocate, unless a destination is lent or brief: see [`Pool`].
///
/// # Panics
/// If segments lie outside of their buffers, or lengths do not fit together. Both are bugs of the machine.
pub fn run(kernel: &Kernel, pool: &mut Pool) -> KernelResult {
    kernel.make_room(pool);
    match *kernel {
        Kernel::Scan { x } => match scan::first_non_finite(pool.floats(x)) {
            None => return KernelResult::Finite,
            Some(index) => return KernelResult::NonFinite { index: index as u32 },
        },
        // In place needs a kernel of its own: `write` gives no read access to the buffer of `into`.
        Kernel::Apply { from, update, scale, into } if from == into => {
            write(pool, into, |pool, into| apply::in_place(Tier::best(), into, pool.floats(update), scale));
        }
        Kernel::Apply { from, update, scale, into } => {
            write(pool, into, |pool, into| apply::apply(into, pool.floats(from), pool.floats(update), scale));
        }
        Kernel::Accumulate { update, scale, first: true, into } => {
            write(pool, into, |pool, into| apply::scale(into, pool.floats(update), scale));
        }
        Kernel::Compensate { formula, update, state, params } => {
            // The state is taken out of the pool meanwhile, since two buffers are written at once.
            let mut storage = state.map(|state| pool.take(state.buffer));
            write(pool, update, |pool, update| {
                let words = state.zip(storage.as_mut());
                let words = words.map(|(state, storage)| &mut Arc::make_mut(storage).words_mut()[state.words()]);
                let params = params.map_or([&[][..]; 2], |params| params.map(|params| pool.floats(params)));
                compensate::run(formula, update, words.map_or(&mut [], bytemuck::cast_slice_mut), params);
            });
            if let (Some(state), Some(storage)) = (state, storage) {
                pool.replace(state.buffer, storage);
            }
        }
        Kernel::Outer { step, from, update, scale, state, into } => outer(pool, step, from, update, scale, state, into),
        // `a += s * u` as `a -= (-s) * u`: negation is exact, so both round in the same way.
        Kernel::Accumulate { update, scale, first: false, into } => {
            write(pool, into, |pool, into| apply::in_place(Tier::best(), into, pool.floats(update), -scale));
        }
        Kernel::Blend { x, weight, held, into } => {
            write(pool, into, |pool, into| mean::in_place(Tier::best(), into, held, [(pool.floats(x), weight)]));
        }
        Kernel::BlendSent { x, weight, first, counts, into } => {
            with_words(pool, counts, |pool, counts| {
                write(pool, into, |pool, into| {
                    senders::blend(Tier::best(), into, bytemuck::cast_slice_mut(counts), pool.floats(x), weight, first);
                });
            });
        }
        Kernel::ScatterSent { coding, body, sections, weight, unit, first, counts, into } => {
            let done = with_words(pool, counts, |pool, counts| {
                pool.write(into, |pool, into| {
                    let into: &mut [f32] = bytemuck::cast_slice_mut(into);
                    let (body, sections, len) = (pool.words(body), pool.sections(sections), into.len());
                    // Checked before anything is added.
                    codec::visit(coding, body, sections, len, &mut |_, _| {})?;
                    senders::scatter(into, bytemuck::cast_slice_mut(counts), [weight, unit], first, |add| {
                        codec::visit(coding, body, sections, len, add)
                    })
                })
            });
            return done.map_or_else(KernelResult::Malformed, |()| KernelResult::Nothing);
        }
        Kernel::MeanSent { counts, unit, x } => {
            write(pool, x, |pool, x| senders::share(Tier::best(), x, pool.floats(counts), unit));
        }
        Kernel::Mean { inputs, into } => write(pool, into, |pool, into| {
            // An array and a count instead of a vector: a kernel does not allocate.
            let mut slices = [(&[][..], 0); MEAN_MAX];
            let mut count = 0;
            for (segment, weight) in inputs.into_iter().flatten() {
                slices[count] = (pool.floats(segment), weight);
                count += 1;
            }
            mean::mean(into, &slices[..count]);
        }),
        Kernel::Adasum { inputs, into } => write(pool, into, |pool, into| {
            let mut rows = [&[][..]; MEAN_MAX];
            let mut count = 0;
            for segment in inputs.into_iter().flatten() {
                rows[count] = pool.floats(segment);
                count += 1;
            }
            round::adasum::in_turn(into, &rows[..count]);
        }),
        Kernel::Hold { x, weight, held, rows, row } => {
            let mut work = pool.take(rows.work);
            round::hold(Arc::make_mut(&mut work).words_mut(), row as usize, held + weight);
            pool.replace(rows.work, work);
            let blend = |pool: &Pool, into: &mut [f32]| {
                mean::in_place(Tier::best(), into, held, [(pool.floats(x), weight)]);
            };
            write(pool, rows.row(row), blend);
        }
        Kernel::Round { formula, rows, into } => {
            let mut work = pool.take(rows.work);
            let words = Arc::make_mut(&mut work).words_mut();
            write(pool, into, |pool, into| {
                round::run(formula, |row| pool.floats(rows.row(row as u32)), rows.count as usize, words, into);
            });
            pool.replace(rows.work, work);
        }
        Kernel::Copy { from, into } => pool.write(into, |pool, into| into.copy_from_slice(pool.bytes(from))),
        Kernel::CopyLedger { from, into } => {
            let copy = |pool: &Pool, into: &mut [u8]| ledger::copy(pool.integers(from), bytemuck::cast_slice_mut(into));
            return KernelResult::Copied { bytes: pool.write(into, copy) as u32 * 4 };
        }
        Kernel::Scale { x, factor } => norm::scale(pool.floats_mut(x), factor),
        Kernel::Norm { x, limit } => {
            let squares = norm::squares(pool.floats(x));
            if let Some(factor) = norm::factor(squares, limit) {
                norm::scale(pool.floats_mut(x), factor);
            }
            return KernelResult::Norm { squares };
        }
        Kernel::Total { x } => return KernelResult::Total { sum: norm::total(pool.floats(x)) },
        Kernel::Meter { sums, shares, phases } => {
            let sums = pool.floats_mut(sums);
            let due = [0, 1].map(|i| meter::turn(&mut sums[i], shares[i], phases[i]));
            return KernelResult::Due { due };
        }
        Kernel::Accelerate { update, velocity, momentum } => {
            write(pool, velocity, |pool, velocity| momentum::accelerate(velocity, pool.floats(update), momentum));
        }
        Kernel::Section { at, section } => pool.bytes_mut(at).copy_from_slice(section.as_bytes()),
        Kernel::Encode { coding, decay, update, residual, place } => {
            return encode(pool, coding, decay, update, residual, place);
        }
        Kernel::Decode { body, sections, unit, ledger, touched } => {
            let done = with_words(pool, touched, |pool, touched| {
                pool.write(ledger, |pool, ledger| {
                    let (body, sections) = (pool.words(body), pool.sections(sections));
                    let mut ledger = ledger::Ledger::of(bytemuck::cast_slice_mut(ledger), touched);
                    codec::threshold::add(body, sections, unit, &mut ledger)
                })
            });
            return done.map_or_else(KernelResult::Malformed, |()| KernelResult::Nothing);
        }
        Kernel::Expand { coding, body, sections, into } => {
            let done = pool.write(into, |pool, into| {
                expand(coding, pool.words(body), pool.sections(sections), bytemuck::cast_slice_mut(into))
            });
            return done.map_or_else(KernelResult::Malformed, |()| KernelResult::Nothing);
        }
        Kernel::Scatter { coding, body, sections, scale, into } => {
            let done = pool.write(into, |pool, into| {
                let into: &mut [f32] = bytemuck::cast_slice_mut(into);
                codec::scatter(coding, pool.words(body), pool.sections(sections), scale, into)
            });
            return done.map_or_else(KernelResult::Malformed, |()| KernelResult::Nothing);
        }
        Kernel::Mask { coding, body, sections, velocity } => {
            let done = pool.write(velocity, |pool, velocity| {
                let (body, sections) = (pool.words(body), pool.sections(sections));
                let velocity: &mut [f32] = bytemuck::cast_slice_mut(velocity);
                match coding {
                    Coding::Threshold(aim) => codec::threshold::mask(body, sections, aim.unit, velocity),
                    Coding::TopK(pick) => {
                        codec::topk::read(body, velocity.len(), pick.chunk as usize, |index, _| velocity[index] = 0.0)
                    }
                    _ => Ok(()),
                }
            });
            return done.map_or_else(KernelResult::Malformed, |()| KernelResult::Nothing);
        }
        Kernel::Clip { residual, limit } => {
            let (elements, lost, squares) = momentum::clip(pool.floats_mut(residual), limit);
            return KernelResult::Clipped { elements, lost, squares };
        }
        Kernel::Merge { one, other, unit, place } => {
            make_scratch(pool, place, longest(pool, place));
            let mut scratch = pool.take(place.scratch);
            let words = Arc::make_mut(&mut scratch).words_mut();
            let merged = pool.write(place.body, |pool, body| {
                let (bodies, sections) = ((pool.words(one), pool.words(other)), pool.sections(place.sections));
                codec::threshold::merge(bodies, sections, unit, words, bytemuck::cast_slice_mut(body))
            });
            pool.replace(place.scratch, scratch);
            return merged
                .map_or_else(KernelResult::Unmerged, |words| KernelResult::Merged { bytes: words as u32 * 4 });
        }
        Kernel::Materialise { base, ledger, unit, into } => {
            write(pool, into, |pool, into| ledger::materialise(into, pool.floats(base), pool.integers(ledger), unit));
        }
        Kernel::Refresh { base, ledger, unit, touched, into } => {
            with_words(pool, touched, |pool, touched| {
                write(pool, into, |pool, into| {
                    ledger::refresh(into, pool.floats(base), pool.integers(ledger), unit, touched);
                });
            });
        }
        Kernel::Release { buffer } => pool.release(buffer),
        Kernel::Compare { ours, theirs } => {
            let line = compare::first_different_line(pool.bytes(ours), pool.bytes(theirs));
            return line.map_or(KernelResult::Nothing, |line| KernelResult::Differs { line: line as u32 });
        }
    }
    KernelResult::Nothing
}

/// [`Pool::write`] on floats.
fn write(pool: &mut Pool, into: Segment, write: impl FnOnce(&Pool, &mut [f32])) {
    pool.write(into, |pool, into| write(pool, bytemuck::cast_slice_mut(into)));
}

/// Takes the words of a segment out of the pool while `run` writes another buffer.
fn with_words<R>(pool: &mut Pool, words: Segment, run: impl FnOnce(&mut Pool, &mut [u32]) -> R) -> R {
    let mut storage = pool.take(words.buffer);
    let result = run(pool, &mut Arc::make_mut(&mut storage).words_mut()[words.words()]);
    pool.replace(words.buffer, storage);
    result
}

/// Runs a step of an outer optimizer. It writes to up to three buffers at once, so the buffers of the state are taken
/// out of the pool meanwhile.
fn outer(
    pool: &mut Pool,
    step: outer::Step,
    from: Segment,
    update: Segment,
    scale: f32,
    state: [Option<(Segment, Segment)>; 2],
    into: Segment,
) {
    let mut storages = state.map(|state| state.map(|(_, new)| pool.take(new.buffer)));
    let in_place = from == into;
    write(pool, into, |pool, into| {
        let mut pairs = storages.iter_mut().zip(state).map(|(storage, state)| {
            let ((old, new), storage) = (state?, storage.as_mut()?);
            let words = &mut Arc::make_mut(storage).words_mut()[new.words()];
            Some((bytemuck::cast_slice_mut(words), (old != new).then(|| pool.floats(old))))
        });
        let state = core::array::from_fn(|_| pairs.next().flatten());
        let from = (!in_place).then(|| pool.floats(from));
        outer::run(step, scale, into, from, pool.floats(update), state);
    });
    for (storage, state) in storages.into_iter().zip(state) {
        if let (Some(storage), Some((_, new))) = (storage, state) {
            pool.replace(new.buffer, storage);
        }
    }
}

/// Runs the encoder of a codec. It writes to four buffers at once, so three of them are taken out of the pool
/// meanwhile.
fn encode(
    pool: &mut Pool,
    coding: Coding,
    decay: f32,
    update: Option<Segment>,
    residual: Segment,
    place: EncodeTarget,
) -> KernelResult {
    let elements = match coding {
        Coding::Threshold(_) => longest(pool, place),
        Coding::TopK(_) => residual.len as usize / 4,
        _ => 0,
    };
    make_scratch(pool, place, elements);
    let mut storages = [place.sections.buffer, place.scratch, place.body.buffer].map(|buffer| pool.take(buffer));
    let [sections, scratch, body] = storages.each_mut().map(|storage| Arc::make_mut(storage).words_mut());
    let sections = <[Section]>::mut_from_bytes(bytemuck::cast_slice_mut(&mut sections[place.sections.words()]))
        .expect("sections are whole");
    let body = &mut body[place.body.words()];
    let mut forgotten = 0.0;
    let encoded = pool.write(residual, |pool, residual| {
        let (update, residual) = (update.map(|update| pool.floats(update)), bytemuck::cast_slice_mut(residual));
        if decay != 1.0 {
            forgotten = momentum::decay(residual, decay);
        }
        let tier = Tier::best();
        let len = residual.len();
        let dense = match coding {
            Coding::Threshold(aim) => {
                return codec::threshold::encode(tier, aim, update, residual, sections, scratch, body);
            }
            Coding::TopK(pick) => return codec::topk::encode(pick, update, residual, scratch, body),
            Coding::F32 => codec::float32::encode(update, residual, body),
            Coding::Bf16 => codec::bf16::encode(tier, update, residual, body),
            Coding::F16 => codec::f16::encode(tier, update, residual, body),
            Coding::Int8 => codec::int8::encode(tier, update, residual, body),
            Coding::Sign => codec::sign::encode(tier, update, residual, body),
            Coding::SignColumns { .. } => codec::columns::encode(tier, update, residual, sections, body),
        };
        dense.encoded(coding.len_max(len, 0) / 4, len)
    });
    // All codecs come here, so a codec must not return from this function.
    for (buffer, storage) in [place.sections.buffer, place.scratch, place.body.buffer].into_iter().zip(storages) {
        pool.replace(buffer, storage);
    }
    KernelResult::Encoded(Encoded { forgotten, ..encoded })
}

/// Elements of the longest section.
fn longest(pool: &Pool, place: EncodeTarget) -> usize {
    pool.sections(place.sections).iter().map(|section| section.len as usize).max().unwrap_or(0)
}

/// Makes room for two words of scratch memory per element.
fn make_scratch(pool: &mut Pool, place: EncodeTarget, elements: usize) {
    pool.make_room(place.scratch, elements * 8);
}

/// Runs the decoder of a codec.
fn expand(coding: Coding, body: &[u32], sections: &[Section], into: &mut [f32]) -> Result<(), BodyError> {
    let tier = Tier::best();
    match coding {
        Coding::Threshold(aim) => codec::threshold::expand(body, sections, aim.unit, into),
        Coding::TopK(pick) => codec::topk::expand(body, pick.chunk as usize, into),
        Coding::F32 => codec::float32::expand(body, into),
        Coding::Bf16 => codec::bf16::expand(tier, body, into),
        Coding::F16 => codec::f16::expand(tier, body, into),
        Coding::Int8 => codec::int8::expand(tier, body, into),
        Coding::Sign => codec::sign::expand(tier, body, into),
        Coding::SignColumns { .. } => codec::columns::expand(tier, body, sections, into),
    }
}
