//! Times of kernels and codecs, as ratios to an axpy in place.
//!
//! Each round measures the axpy and all kernels once over the same buffers, and a row is a median over rounds of the
//! ratio within a round. So a change of the memory's speed during the run affects both sides of a ratio.

use gradwire::pages;
use gradwire_core::Storage;
use gradwire_core::codec::threshold::{self, Aim, Section};
use gradwire_core::codec::topk::Pick;
use gradwire_core::codec::{Form, bf16, entries, f16, int8, sign, topk};
use gradwire_core::kernel::ledger::{self, Ledger};
use gradwire_core::kernel::round::{self, Formula};
use gradwire_core::kernel::threshold::{Quantum, take};
use gradwire_core::kernel::tier::Tier;
use gradwire_core::kernel::{apply, mean, momentum, senders};
use gradwire_core::recipe::{Control, Threshold, Values};

use crate::CACHED;
use crate::measure::{Limit, Random, Report, floats, median, seconds};
use crate::steps;

/// The threshold of all messages.
const TAU: f32 = 1.0 / 64.0;

/// A residual within 0.4 tau, and an update that is 1.4 tau at random positions and at most 0.05 tau elsewhere. So
/// exactly these positions emit a quantum, and density is the share of emitted elements.
fn data(len: usize, density: f64) -> (Storage, Storage) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let tau = f64::from(TAU);
    let residual = floats(len, || (random.unit() - 0.5) * 0.8 * tau);
    let update = floats(len, || match random.unit() < density {
        true if random.unit() < 0.5 => 1.4 * tau,
        true => -1.4 * tau,
        false => (random.unit() - 0.5) * 0.1 * tau,
    });
    (residual, update)
}

/// The length as the rows show it.
fn size(len: usize) -> String {
    if len == CACHED { "64 Ki".into() } else { format!("{:.1} M", len as f64 / 1e6) }
}

/// Measures the threshold codec at one density: the encoder of each tier, the index coder, and the decoder.
pub(crate) fn sparse(report: &mut Report, len: usize, density: f64, rounds: usize) {
    let (residual, update) = data(len, density);
    let (start, update) = (residual.floats(), update.floats());
    let mut work = residual.clone();
    let mut scratch = pages::zeroed(len * 8);
    let mut body = pages::zeroed(threshold::words_max([len]) * 4);
    let mut ledger = pages::zeroed(ledger::words(len) * 4);
    let mut touched = Storage::zeroed(ledger::map_words(len) * 4);
    let mut parts = [Section { first: 0, len: len as u32, threshold: TAU, bits: 0.0 }];
    let recipe = Threshold::fixed(TAU);
    let aim = Aim::of(&recipe, 1.0);
    let quantile = Aim::of(&Threshold { control: Control::Density { density: density as f32 }, ..recipe }, 1.0);
    let tiers: Vec<Tier> = Tier::all().collect();
    // 0: axpy, 1: writing indices, 2: reading them, 3: encoding, 4: decoding, 5: encoding with a sampled quantile, and
    // from 6 on: the first pass of the encoder in each tier.
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); 6 + tiers.len()];
    let mut taken = Default::default();
    for _ in 0..rounds {
        // Kernels change the residual, so each starts from a copy.
        let mut fresh = |what: usize, run: &mut dyn FnMut(&mut [f32])| {
            work.floats_mut().copy_from_slice(start);
            let time = seconds(|| run(work.floats_mut()));
            times[what].push(time);
        };
        fresh(0, &mut |r| apply::in_place(Tier::Portable, r, update, 0.5));
        for (i, tier) in tiers.iter().enumerate() {
            fresh(6 + i, &mut |r| taken = take(*tier, Some(update), r, Quantum::of(TAU), scratch.words_mut()));
        }
        let mut written = (Form::Rice, 0);
        fresh(1, &mut |_| {
            let list = &scratch.words()[..taken.words];
            written = entries::write(list, taken.entries, len, body.words_mut());
        });
        fresh(2, &mut |_| {
            let list = &body.words()[..written.1];
            let mut reader = entries::Reader::new(written.0, taken.entries, len, list).unwrap();
            Tier::best().run(|| {
                while let Some(block) = reader.next_block().unwrap() {
                    std::hint::black_box(block);
                }
            });
        });
        let mut bytes = 0;
        fresh(3, &mut |r| {
            let (scratch, body) = (scratch.words_mut(), body.words_mut());
            bytes = threshold::encode(Tier::best(), aim, Some(update), r, &mut parts, scratch, body).bytes;
        });
        fresh(4, &mut |_| {
            let mut ledger = Ledger::of(bytemuck::cast_slice_mut(ledger.words_mut()), touched.words_mut());
            threshold::add(&body.words()[..bytes as usize / 4], &parts, recipe.unit(), &mut ledger).unwrap();
        });
        fresh(5, &mut |r| {
            let (scratch, body) = (scratch.words_mut(), body.words_mut());
            threshold::encode(Tier::best(), quantile, Some(update), r, &mut parts, scratch, body);
        });
    }
    sparse_rows(report, len, density, &tiers, &times, taken.entries);
}

/// The median in milliseconds.
fn ms(times: &[f64]) -> f64 {
    median(times.iter().copied()) * 1e3
}

/// The median of the ratios within a round.
fn over(a: &[f64], b: &[f64]) -> f64 {
    median(a.iter().zip(b).map(|(a, b)| a / b))
}

/// Prints the rows of [`sparse`]. `entries`: the number of emitted elements.
fn sparse_rows(report: &mut Report, len: usize, density: f64, tiers: &[Tier], times: &[Vec<f64>], entries: u32) {
    let large = len != CACHED;
    let size = size(len);
    let bandwidth = len as f64 * 12.0 / ms(&times[0]) / 1e6;
    report.row(&format!("axpy in place, {size}"), density, bandwidth, "GB/s", 1.0, Limit::None);
    for (i, tier) in tiers.iter().enumerate() {
        let limit = match tier.name() {
            "avx512" if large => Limit::AtLeast(0.95),
            "avx2" if large && density <= 3.6e-3 => Limit::AtLeast(0.95),
            "portable" if large && density <= 3.6e-3 => Limit::AtLeast(0.65),
            _ => Limit::None,
        };
        let name = format!("encode, {}, {size}, to axpy", tier.name());
        report.row(&name, density, ms(&times[6 + i]), "ms", over(&times[0], &times[6 + i]), limit);
    }
    let low = large && density <= 3.6e-3;
    let limit = if low { Limit::AtMost(1.06) } else { Limit::None };
    let name = format!("gradient to bytes, {size}, to encode");
    report.row(&name, density, ms(&times[3]), "ms", over(&times[3], &times[6]), limit);
    let name = format!("the same with a sampled quantile, {size}");
    report.row(&name, density, ms(&times[5]), "ms", over(&times[5], &times[6]), Limit::None);
    let limit = if large && density == 3.6e-3 { Limit::AtMost(0.15) } else { Limit::None };
    let name = format!("decode and apply, {size}, to axpy");
    report.row(&name, density, ms(&times[4]), "ms", over(&times[4], &times[0]), limit);
    // In short messages, cold caches and the last block dominate.
    let enough = entries > 1000;
    for (what, name, most) in [(1, "index coder, writing", 3.0), (2, "index coder, reading", 2.5)] {
        let ns = ms(&times[what]) * 1e6 / f64::from(entries.max(1));
        let limit = if large && enough { Limit::AtMost(most) } else { Limit::None };
        report.row(&format!("{name}, {size}"), density, ns, "ns/entry", ns, limit);
    }
}

/// Measures an axpy and the encoder on one thread and on two, each with a half of the vector.
pub(crate) fn threads(report: &mut Report, len: usize, rounds: usize) {
    let density = 3.6e-3;
    let (residual, update) = data(len, density);
    let (start, update) = (residual.floats(), update.floats());
    let (mut work, mut scratch) = (residual.clone(), pages::zeroed(len * 8));
    // 0 and 1: axpy on one thread and on two; 2 and 3: the encoder.
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..rounds.min(41) {
        for (what, times) in times.iter_mut().enumerate() {
            let (threads, axpy) = (1 + what % 2, what < 2);
            let part = len.div_ceil(threads);
            work.floats_mut().copy_from_slice(start);
            let parts = work
                .floats_mut()
                .chunks_mut(part)
                .zip(update.chunks(part))
                .zip(scratch.words_mut().chunks_mut(2 * part));
            let parts: Vec<_> = parts.collect();
            let barrier = std::sync::Barrier::new(threads);
            let time = std::thread::scope(|scope| {
                let spawned: Vec<_> = parts
                    .into_iter()
                    .map(|((r, u), s)| {
                        let barrier = &barrier;
                        scope.spawn(move || {
                            barrier.wait();
                            seconds(|| match axpy {
                                true => apply::in_place(Tier::Portable, r, u, 0.5),
                                false => drop(take(Tier::best(), Some(u), r, Quantum::of(TAU), s)),
                            })
                        })
                    })
                    .collect();
                spawned.into_iter().map(|thread| thread.join().unwrap()).fold(0.0, f64::max)
            });
            times.push(time);
        }
    }
    let size = size(len);
    let mut row = |name: &str, what: usize, ratio| {
        report.row(&format!("{name}, {size}"), density, ms(&times[what]), "ms", ratio, Limit::None)
    };
    row("axpy, 2 threads to 1", 1, over(&times[0], &times[1]));
    row("encode, 2 threads to 1", 3, over(&times[2], &times[3]));
    row("encode to axpy, 2 threads", 3, over(&times[1], &times[3]));
}

/// A kernel of [`dense`]: its name, the bytes that it moves per element, its limit, and the kernel, which gets the
/// vector to work on, a body and scratch space.
pub(crate) type Case<'a> = (&'static str, f64, Limit, Box<dyn FnMut(&mut [f32], &mut [u32], &mut [u32]) + 'a>);

/// Measures means, and codecs that write every element. Ratios are per byte of memory traffic: an axpy moves 12 bytes
/// per element.
pub(crate) fn dense(report: &mut Report, len: usize, rounds: usize) {
    let mut random = Random(7);
    let inputs: Vec<Storage> = (0..9).map(|_| floats(len, || random.unit() - 0.5)).collect();
    let mut work = inputs[0].clone();
    let mut body = pages::zeroed(len * 8 + 64);
    let mut scratch = pages::zeroed(len * 8);
    let mut cases = dense_cases(&inputs, len);
    cases.extend(rounds_of_8(&inputs));
    cases.extend(steps::outer(&inputs, len));
    cases.extend(steps::compensate(&inputs, len));
    cases.extend(steps::sums(&inputs));
    cases.extend(steps::columns(&inputs, len));
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); cases.len() + 1];
    // The same axpy in pages of 4 KiB, for comparison with buffers of earlier versions.
    let small = [0, 1].map(|i: usize| {
        let mut storage = Storage::zeroed(len * 4);
        storage.floats_mut().copy_from_slice(inputs[i].floats());
        storage
    });
    let [mut in_small, from_small] = small;
    let mut small_times = Vec::new();
    for _ in 0..rounds.min(101) {
        small_times.push(seconds(|| {
            apply::in_place(Tier::Portable, in_small.floats_mut(), from_small.floats(), 1e-3);
        }));
        times[0].push(seconds(|| apply::in_place(Tier::Portable, work.floats_mut(), inputs[1].floats(), 1e-3)));
        for (case, times) in cases.iter_mut().zip(&mut times[1..]) {
            work.floats_mut().copy_from_slice(inputs[0].floats());
            times.push(seconds(|| case.3(work.floats_mut(), body.words_mut(), scratch.words_mut())));
        }
    }
    let name = format!("axpy in pages of 4 KiB, {}, to axpy", size(len));
    report.row(&name, 0.0, ms(&small_times), "ms", over(&times[0], &small_times), Limit::None);
    for (case, time) in cases.iter().zip(&times[1..]) {
        let ratio = median(times[0].iter().zip(time).map(|(axpy, time)| axpy / time * case.1 / 12.0));
        let name = format!("{}, {}, to axpy per byte", case.0, size(len));
        report.row(&name, 0.0, median(time.iter().copied()) * 1e3, "ms", ratio, case.2);
    }
}

/// Merges of 8 contributions at the end of a round. Each reads all of them at least once, and writes one vector.
fn rounds_of_8(inputs: &[Storage]) -> impl Iterator<Item = Case<'_>> {
    let formulas = [
        ("trimmed mean of 8", Formula::Trimmed { trim: 2 }),
        ("median of 8", Formula::Trimmed { trim: u32::MAX }),
        ("mean of 8, clipped to the median norm", Formula::NormClip),
        ("centred clipping of 8", Formula::CentredClip { radius: 1.0, iterations: 1 }),
        ("krum of 8", Formula::Krum { faulty: 2, best: 1 }),
        ("adasum of 8", Formula::Adasum),
        ("vote of 8", Formula::Vote { length: 0.001 }),
    ];
    let node = move |into: &mut [f32], _: &mut [u32], _: &mut [u32]| {
        round::adasum::in_turn(into, &[0, 1, 2].map(|row: usize| inputs[row].floats()));
    };
    let node: Case<'_> = ("adasum of 3, at a node of a tree", 16.0, Limit::None, Box::new(node));
    let rounds = formulas.into_iter().map(move |(name, formula)| -> Case<'_> {
        let merge = move |into: &mut [f32], _: &mut [u32], work: &mut [u32]| {
            (0..8).for_each(|row| round::hold(work, row, 3));
            round::run(formula, |row| inputs[row].floats(), 8, work, into);
        };
        (name, 36.0, Limit::None, Box::new(merge))
    });
    rounds.chain([node])
}

/// Elements that a loop over several vectors handles at once.
const LANES: usize = 32;

/// The vectors of a mean without its arithmetic: what the number of streams costs.
fn sum<const N: usize>(into: &mut [f32], others: [&[f32]; N]) {
    let others = others.map(|x| x.as_chunks::<LANES>().0);
    Tier::best().run(|| {
        for (i, into) in into.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut sum = *into;
            for x in &others {
                sum.iter_mut().zip(&x[i]).for_each(|(sum, x)| *sum += x);
            }
            *into = sum;
        }
    });
}

/// The table of kernels.
fn dense_cases(inputs: &[Storage], len: usize) -> Vec<Case<'_>> {
    let x = move |i: usize| (inputs[i].floats(), 3);
    let tier = Tier::best();
    let update = Some(inputs[1].floats());
    let pick = Pick::whole(len, topk::count(len, 1e-3));
    let chunks = move |values| Pick { count: 64, chunk: topk::CHUNK as u32, values };
    let large = len != CACHED;
    let least = |least| if large { Limit::AtLeast(least) } else { Limit::None };
    vec![
        ("mean of 2 in place", 12.0, least(1.0), Box::new(move |r, _, _| mean::in_place(tier, r, 2, [x(1)]))),
        (
            "mean of 4 in place",
            20.0,
            least(0.9),
            Box::new(move |r, _, _| mean::in_place(tier, r, 2, [x(1), x(2), x(3)])),
        ),
        (
            "mean of 8 in place",
            36.0,
            least(0.75),
            Box::new(move |r, _, _| mean::in_place(tier, r, 2, [x(1), x(2), x(3), x(4), x(5), x(6), x(7)])),
        ),
        ("sum of 4 in f32, in place", 20.0, Limit::None, Box::new(move |r, _, _| sum(r, [x(1).0, x(2).0, x(3).0]))),
        (
            "sum of 8 in f32, in place",
            36.0,
            Limit::None,
            Box::new(move |r, _, _| sum(r, [x(1).0, x(2).0, x(3).0, x(4).0, x(5).0, x(6).0, x(7).0])),
        ),
        (
            "apply, scaled, to another place",
            12.0,
            Limit::None,
            Box::new(move |r, _, _| apply::apply(r, x(1).0, x(2).0, 0.25)),
        ),
        (
            "bf16, encode",
            14.0,
            Limit::None,
            Box::new(move |r, b, _| {
                _ = bf16::encode(tier, update, r, b);
            }),
        ),
        (
            "bf16, decode",
            6.0,
            Limit::None,
            Box::new(move |r, b, _| bf16::expand(tier, &b[..bf16::words(len)], r).unwrap()),
        ),
        (
            "f16, encode",
            14.0,
            Limit::None,
            Box::new(move |r, b, _| {
                _ = f16::encode(tier, update, r, b);
            }),
        ),
        (
            "f16, decode",
            6.0,
            Limit::None,
            Box::new(move |r, b, _| f16::expand(tier, &b[..f16::words(len)], r).unwrap()),
        ),
        (
            "int8, encode",
            13.0,
            Limit::None,
            Box::new(move |r, b, _| {
                _ = int8::encode(tier, update, r, b);
            }),
        ),
        (
            "int8, decode",
            5.0,
            Limit::None,
            Box::new(move |r, b, _| int8::expand(tier, &b[..int8::words(len)], r).unwrap()),
        ),
        (
            "sign, encode",
            12.0,
            Limit::None,
            Box::new(move |r, b, _| {
                _ = sign::encode(tier, update, r, b);
            }),
        ),
        (
            "sign, decode",
            4.0,
            Limit::None,
            Box::new(move |r, b, _| sign::expand(tier, &b[..sign::words(len)], r).unwrap()),
        ),
        (
            "mean of senders, blend",
            20.0,
            Limit::None,
            Box::new(move |r, _, s| senders::blend(tier, r, bytemuck::cast_slice_mut(&mut s[..len]), x(1).0, 3, false)),
        ),
        (
            "top-k of 0.1 %, encode",
            12.0,
            Limit::None,
            Box::new(move |r, b, s| {
                _ = topk::encode(pick, update, r, s, b);
            }),
        ),
        (
            "top-k, 64 of each 4,096 as floats, encode",
            12.0,
            Limit::None,
            Box::new(move |r, b, s| {
                _ = topk::encode(chunks(Values::F32), update, r, s, b);
            }),
        ),
        (
            "top-k, 64 of each 4,096 in half precision, encode",
            12.0,
            Limit::None,
            Box::new(move |r, b, s| {
                _ = topk::encode(chunks(Values::F16), update, r, s, b);
            }),
        ),
        (
            "top-k, 64 of each 4,096 in 8 bits, encode",
            12.0,
            Limit::None,
            Box::new(move |r, b, s| {
                _ = topk::encode(chunks(Values::Int8), update, r, s, b);
            }),
        ),
        (
            "top-k, 64 of each 4,096 as two means, encode",
            12.0,
            Limit::None,
            Box::new(move |r, b, s| {
                _ = topk::encode(chunks(Values::TwoMeans), update, r, s, b);
            }),
        ),
        (
            "decay of a residual",
            8.0,
            Limit::None,
            Box::new(move |r, _, _| {
                _ = momentum::decay(r, 0.95);
            }),
        ),
    ]
}
