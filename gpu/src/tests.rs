//! Every kernel on the device, compared with the same kernel on the host.
//!
//! A comparison runs a kernel on two pools with the same contents and compares all buffers bit for bit. Outputs hold
//! poison before, so a word that a shader leaves out is a difference. Without an adapter each test says on stderr that
//! it is skipped; with `GRADWIRE_REQUIRE_GPU` set it fails.

use std::sync::OnceLock;

use gradwire_core::codec::threshold::{Aim, Section};
use gradwire_core::codec::topk::Pick;
use gradwire_core::kernel::executor::Executor;
use gradwire_core::kernel::outer::Step;
use gradwire_core::kernel::{self, Coding, EncodeTarget, Kernel, KernelResult, MEAN_MAX, ledger};
use gradwire_core::recipe::{Control, Values};
use gradwire_core::{BufferId, Pool, Segment};

use crate::program::Program;
use crate::{Context, Gpu};

/// Every program of this crate.
const PROGRAMS: [&Program; 31] = [
    &crate::probe::PROBE,
    &crate::scan::SCAN,
    &crate::elementwise::APPLY,
    &crate::elementwise::APPLY_IN_PLACE,
    &crate::elementwise::SCALE,
    &crate::elementwise::SCALE_IN_PLACE,
    &crate::elementwise::ACCELERATE,
    &crate::elementwise::MATERIALISE,
    &crate::outer::MOMENTUM_IN_PLACE,
    &crate::outer::MOMENTUM_TO,
    &crate::outer::MOMENTUM_FROM_TO,
    &crate::outer::ADAGRAD_IN_PLACE,
    &crate::outer::ADAGRAD_TO,
    &crate::outer::ADAGRAD_FROM_TO,
    &crate::outer::PAIR_IN_PLACE,
    &crate::outer::PAIR_TO,
    &crate::outer::PAIR_FROM_TO,
    &crate::outer::tests::EXACT,
    &crate::threshold::TAKE,
    &crate::threshold::COUNT,
    &crate::threshold::GATHER,
    &crate::threshold::TALLY,
    &crate::threshold::PICK,
    &crate::threshold::PUT_BACK,
    &crate::scatter::ADD,
    &crate::scatter::ADD_FLOATS,
    &crate::scatter::PUT,
    &crate::mean::MEAN,
    &crate::dense::HALF,
    &crate::dense::INT8,
    &crate::dense::SIGN,
];

/// The device that all tests share. `None` if there is no adapter and `GRADWIRE_REQUIRE_GPU` is not set.
pub(crate) fn context() -> Option<Context> {
    static CONTEXT: OnceLock<Result<Context, String>> = OnceLock::new();
    match CONTEXT.get_or_init(|| Context::open().map_err(|error| error.to_string())) {
        Ok(context) => Some(context.clone()),
        Err(error) => {
            assert!(std::env::var_os("GRADWIRE_REQUIRE_GPU").is_none(), "GRADWIRE_REQUIRE_GPU is set, but {error}");
            // Directly to stderr: the test harness captures `eprintln!` and hides it if the test passes.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("skipped: {error}\n").as_bytes());
            None
        }
    }
}

/// The context as it is, and with the shaders for an adapter that flushes denormals, whose results are equal on each.
fn both_contexts() -> Vec<Context> {
    let Some(context) = context() else { return Vec::new() };
    let mut flushing = context.clone();
    flushing.set_flushes(true);
    vec![context, flushing]
}

/// The two sides of a comparison: a `Gpu` with its pool, and the pool on which the host runs the same kernels.
struct Comparison {
    gpu: Gpu,
    host: Pool,
    device: Pool,
    count: usize,
}

impl Comparison {
    fn new(context: Context, buffers: &[Vec<u32>]) -> Self {
        let pool = || {
            let mut pool = Pool::new(buffers.iter().map(|words| words.len() * 4));
            for (id, words) in (0..).map(BufferId).zip(buffers) {
                let whole = Segment::floats(id, 0, words.len());
                pool.bytes_mut(whole).copy_from_slice(bytemuck::cast_slice(words));
            }
            pool
        };
        Self { gpu: Gpu::new(context), host: pool(), device: pool(), count: buffers.len() }
    }

    /// Runs a kernel on both sides and compares the results. Sums of squares may differ by 1e-4: they are added up in
    /// another order.
    #[track_caller]
    fn run(&mut self, kernel: Kernel) -> KernelResult {
        let expected = kernel::run(&kernel, &mut self.host);
        let mut result = self.gpu.begin(&kernel, &mut self.device).unwrap();
        while result.is_none() {
            self.gpu.context().wait().unwrap();
            result = self.gpu.poll(&mut self.device).unwrap();
        }
        let got = result.unwrap();
        match (expected, got) {
            (KernelResult::Encoded(mut expected), KernelResult::Encoded(got)) => {
                let (a, b) = (expected.squares, got.squares);
                assert!((a - b).abs() <= 1e-4 * a.abs() || a.is_nan() || a.is_infinite(), "squares: {a}, got {b}");
                expected.squares = b;
                assert!(expected == got || b.is_nan(), "{expected:?}, got {got:?}");
            }
            _ => assert_eq!(expected, got, "{kernel:?}"),
        }
        got
    }

    /// Compares all buffers but `skip`, bit for bit. A NaN equals any NaN.
    #[track_caller]
    fn check(&mut self, context: &str, skip: &[u32]) {
        for id in (0..self.count as u32).filter(|id| !skip.contains(id)) {
            let whole = Segment::floats(BufferId(id), 0, self.device.len(BufferId(id)) / 4);
            while !self.gpu.fetch(whole, &mut self.device).unwrap() {
                self.gpu.context().wait().unwrap();
            }
            let (expected, got) = (self.host.words(whole), self.device.words(whole));
            let same = |(a, b): (&u32, &u32)| a == b || (f32::from_bits(*a).is_nan() && f32::from_bits(*b).is_nan());
            if let Some(i) = expected.iter().zip(got).position(|pair| !same(pair)) {
                panic!("{context}: buffer {id}, word {i}: expected {:#010x}, got {:#010x}", expected[i], got[i]);
            }
        }
    }
}

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Between -1 and 1, most of them near 0.
    fn float(&mut self) -> f32 {
        let bits = self.next();
        let x = ((bits >> 40) as f32 / (1u64 << 24) as f32) * 2.0 - 1.0;
        x * x * x
    }
}

/// Distributions of the words of a vector.
const KINDS: [&str; 8] = ["even", "wide", "denormal", "any bits", "zeros", "equal", "large", "tiny"];

fn vector(kind: &str, len: usize, random: &mut Random) -> Vec<u32> {
    let word = |random: &mut Random| match kind {
        "even" => random.float().to_bits(),
        "wide" => (random.float() * 2f32.powi((random.next() % 120) as i32 - 60)).to_bits(),
        "denormal" => (random.next() as u32) & 0x80ff_ffff,
        "any bits" => random.next() as u32,
        "zeros" => (random.next() as u32) & 0x8000_0000,
        "equal" => 0.25f32.to_bits(),
        "large" => (random.float().signum() * 1e30).to_bits(),
        _ => (random.float() * 1e-37).to_bits(),
    };
    (0..len).map(|_| word(random)).collect()
}

/// 0, 1, and lengths next to the sizes of a workgroup (64, 256) and of a tile (1,024); and more than one of them.
const LENS: [usize; 11] = [0, 1, 2, 63, 64, 255, 257, 1023, 1025, 20_000, 70_001];
/// The contents of outputs before a kernel.
const POISON: u32 = 0xdead_beef;

fn whole(id: u32, len: usize) -> Segment {
    Segment::floats(BufferId(id), 0, len)
}

#[test]
fn every_program_is_valid() {
    // Needs no driver: the front end of wgpu parses and validates each source.
    for program in PROGRAMS {
        let source = format!("{}\n{}", crate::program::COMMON, program.source);
        let module = wgpu::naga::front::wgsl::parse_str(&source);
        let module = module.unwrap_or_else(|error| panic!("{}: {}", program.name, error.emit_to_string(&source)));
        let flags = wgpu::naga::valid::ValidationFlags::all();
        let mut validator = wgpu::naga::valid::Validator::new(flags, wgpu::naga::valid::Capabilities::empty());
        validator.validate(&module).unwrap_or_else(|error| panic!("{}: {error:?}", program.name));
        let entry = module.entry_points.iter().find(|entry| entry.name == program.name).unwrap();
        assert_eq!(entry.workgroup_size, [program.invocations, 1, 1], "{}", program.name);
    }
}

#[test]
fn elementwise_kernels_equal_the_host() {
    let random = &mut Random(5);
    for (context, kind) in both_contexts().iter().flat_map(|context| KINDS.map(|kind| (context, kind))) {
        for len in LENS {
            let poisoned = vec![POISON; len];
            let mut ledger: Vec<u32> = (0..len).map(|_| (random.next() as u32) >> (random.next() % 20)).collect();
            ledger.resize(ledger::words(len), 0);
            let vectors: Vec<_> = (0..3).map(|_| vector(kind, len, random)).collect();
            let buffers =
                [vectors[0].clone(), vectors[1].clone(), poisoned.clone(), poisoned, vectors[2].clone(), ledger];
            let mut comparison = Comparison::new(context.clone(), &buffers);
            let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(|id| whole(id, len));
            let ledger = whole(5, ledger::words(len));
            for scale in [1.0, 0.1, -0.75, 3.0e-5] {
                comparison.run(Kernel::Apply { from: a, update: b, scale, into: c });
                comparison.run(Kernel::Apply { from: e, update: a, scale, into: e });
                comparison.run(Kernel::Accumulate { update: b, scale, first: true, into: d });
                comparison.run(Kernel::Accumulate { update: c, scale, first: false, into: d });
                comparison.run(Kernel::Accelerate { update: b, velocity: e, momentum: scale });
                comparison.run(Kernel::Scale { x: e, factor: scale });
                comparison.check(&format!("{kind}, {len}, {scale}"), &[]);
            }
            comparison.run(Kernel::Copy { from: d, into: a });
            // The host runs the first one, and finds that the counts fit into 32 bits.
            for into in [c, d] {
                comparison.run(Kernel::Materialise { base: e, ledger, unit: 1.0 / 1024.0, into });
                comparison.check(&format!("{kind}, {len}: copy, materialise"), &[]);
            }
            assert_eq!(comparison.gpu.on_host(), 1);
        }
    }
}

/// Steps of all outer optimizers, with numbers for which a factor is 1, and others.
const STEPS: [Step; 10] = [
    Step::Rated { mu: 0.9, rate: 0.7, look: true, inner: 0.3 },
    Step::Rated { mu: 0.9, rate: 0.7, look: false, inner: 2.5 },
    Step::Momentum { mu: 0.9, rate: 0.7, look: true },
    Step::Momentum { mu: 0.75, rate: 1.0, look: false },
    Step::Momentum { mu: 0.0, rate: 1.0, look: true },
    Step::Delayed { mu: 0.9, rate: 0.7, milestone: false },
    Step::Delayed { mu: 0.9, rate: 0.7, milestone: true },
    Step::Adagrad { rate: 0.3, floor: 1e-8 },
    Step::Adam { mu: 0.9, beta: 0.99, rate: 0.1, floor: 1e-3 },
    Step::Adam { mu: 0.0, beta: 0.0, rate: 1.0, floor: 1e-30 },
];

#[test]
fn steps_of_outer_optimizers_equal_the_host() {
    let random = &mut Random(23);
    for (context, kind) in both_contexts().iter().flat_map(|context| KINDS.map(|kind| (context, kind))) {
        for len in LENS {
            let mut buffers: Vec<_> = (0..4).map(|_| vector(kind, len, random)).collect();
            buffers.extend([POISON; 3].map(|poison| vec![poison; len]));
            let ids = [0, 1, 2, 3, 4, 5, 6].map(|id| whole(id, len));
            let [params, update, first, second, other_params, other_first, other_second] = ids;
            for step in STEPS {
                let mut comparison = Comparison::new(context.clone(), &buffers);
                for scale in [1.0, 0.1] {
                    let mut run = |from, old: [Segment; 2], new: [Segment; 2], into| {
                        let both = step.vectors() > 1;
                        let state = [Some((old[0], new[0])), both.then_some((old[1], new[1]))];
                        comparison.run(Kernel::Outer { step, from, update, scale, state, into });
                    };
                    let (here, there) = ([first, second], [other_first, other_second]);
                    run(params, here, here, params);
                    run(params, here, there, other_params);
                    run(other_params, there, there, params);
                    run(params, there, here, other_params);
                }
                comparison.check(&format!("{kind}, {len}, {step:?}"), &[]);
                assert_eq!(comparison.gpu.on_host(), 0);
            }
        }
    }
}

/// A segment may begin at any word, although bindings are aligned. Words beside the segment keep their values.
#[test]
fn segments_may_begin_at_any_word() {
    let Some(context) = context() else { return };
    let random = &mut Random(11);
    let buffers: Vec<_> = (0..3).map(|_| vector("even", 5000, random)).collect();
    let mut comparison = Comparison::new(context, &buffers);
    for (from, update, into, len) in [(0, 1, 2, 3000), (65, 64, 63, 100), (4999, 0, 1, 1), (777, 1234, 99, 2048)] {
        let part = |id: u32, first: usize| Segment::floats(BufferId(id), first, len);
        comparison.run(Kernel::Apply { from: part(0, from), update: part(1, update), scale: 0.3, into: part(2, into) });
        comparison.run(Kernel::Blend { x: part(0, into), weight: 3, held: 5, into: part(2, from) });
        comparison.check(&format!("{len} from {from}, {update} and {into}"), &[]);
    }
}

#[test]
fn a_scan_finds_the_first_float_that_is_not_finite() {
    let Some(context) = context() else { return };
    let random = &mut Random(3);
    for len in LENS {
        let mut words = vector("wide", len, random);
        assert_eq!(
            Comparison::new(context.clone(), &[words.clone()]).run(Kernel::Scan { x: whole(0, len) }),
            KernelResult::Finite
        );
        for at in [0, len / 3, len.saturating_sub(1)].into_iter().filter(|at| *at < len).rev() {
            words[at] = f32::NAN.to_bits();
            let found = Comparison::new(context.clone(), &[words.clone()]).run(Kernel::Scan { x: whole(0, len) });
            assert_eq!(found, KernelResult::NonFinite { index: at as u32 });
        }
    }
}

#[test]
fn means_equal_the_host() {
    let Some(context) = context() else { return };
    let random = &mut Random(17);
    // The host makes means with weights of 2^29 and more.
    let weights = [1, 32, 7, (1 << 29) - 1, 1, 32, 1 << 29, u64::from(u32::MAX)];
    for kind in KINDS {
        for len in [0, 1, 255, 3000] {
            for count in 1..=MEAN_MAX {
                let mut buffers: Vec<_> = (0..count).map(|_| vector(kind, len, random)).collect();
                // Inputs that cancel, exactly or up to the last bit.
                for i in (0..len.min(100)).filter(|_| count > 1) {
                    buffers[1][i] = buffers[0][i] ^ 0x8000_0000 ^ (i as u32 & 1);
                }
                buffers.push(vec![POISON; len]);
                let mut comparison = Comparison::new(context.clone(), &buffers);
                let mut inputs = [None; MEAN_MAX];
                for (id, input) in inputs.iter_mut().enumerate().take(count) {
                    let weight = weights[(random.next() % 8) as usize];
                    *input = Some((whole(id as u32, len), weight));
                }
                let into = whole(count as u32, len);
                comparison.run(Kernel::Mean { inputs, into });
                comparison.check(&format!("{kind}, {len}: mean of {count}"), &[]);
                let weight = 1 + random.next() % 1000;
                comparison.run(Kernel::Blend { x: whole(0, len), weight, held: (count as u64 - 1) * 13, into });
                comparison.check(&format!("{kind}, {len}: blend"), &[]);
            }
        }
    }
}

fn sections(lens: &[u32], threshold: f32) -> Vec<u32> {
    let mut first = 0;
    let mut words = Vec::new();
    for len in lens {
        let Section { first: at, len, threshold, bits } = Section { first, len: *len, threshold, bits: 0.0 };
        words.extend([at, len, threshold.to_bits(), bits.to_bits()]);
        first += len;
    }
    words
}

#[test]
fn threshold_bodies_and_residuals_equal_the_host() {
    let Some(context) = context() else { return };
    let random = &mut Random(23);
    let (tau, unit) = (1.0 / 64.0, 1.0 / 16384.0);
    let controls = [
        Control::Fixed,
        Control::Band,
        Control::Density { density: 0.01 },
        Control::Density { density: 1.0 },
        Control::Budget { bytes: 400 },
    ];
    for kind in KINDS {
        for len in [1, 2, 64, 1025, 20_000] {
            let cuts: [&[u32]; 3] =
                [&[len as u32], &[1, len as u32 - 1], &[len as u32 / 2, len as u32 - len as u32 / 2]];
            let cuts = cuts.into_iter().filter(|cut| cut.iter().all(|len| *len > 0));
            for (lens, control) in cuts.flat_map(|cut| controls.map(|control| (cut, control))) {
                let coding = |dense| Coding::Threshold(Aim { unit, control, tau, dense });
                let body = coding(true).len_max(len, lens.len()) / 4;
                let (kept, scratch) = (vector("even", len, random), vec![POISON; 2 * len]);
                let buffers = [
                    vector(kind, len, random),
                    kept.iter().map(|bits| (f32::from_bits(*bits) / 16.0).to_bits()).collect(),
                    sections(lens, tau),
                    scratch,
                    vec![POISON; body],
                    vec![0; ledger::words(len)],
                    vector(kind, len, random),
                    vec![0; ledger::map_words(len)],
                ];
                let mut comparison = Comparison::new(context.clone(), &buffers);
                let [update, residual, sections] = [whole(0, len), whole(1, len), whole(2, 4 * lens.len())];
                let place = EncodeTarget { sections, scratch: BufferId(3), body: whole(4, body) };
                let what = format!("{kind}, {len}, {lens:?}, {control:?}");
                for (update, dense) in [(Some(update), false), (Some(update), true), (None, false), (None, true)] {
                    let result =
                        comparison.run(Kernel::Encode { coding: coding(dense), decay: 1.0, update, residual, place });
                    let KernelResult::Encoded(encoded) = result else { panic!("{result:?}") };
                    // Words after the body are unspecified.
                    let written = whole(4, body).first(encoded.bytes);
                    assert_eq!(comparison.host.words(written), comparison.device.words(written), "{what}: the body");
                    comparison.check(&what, &[3, 4, 7]);
                    let ledger = whole(5, ledger::words(len));
                    comparison.run(Kernel::Decode {
                        body: written,
                        sections,
                        unit,
                        ledger,
                        touched: whole(7, ledger::map_words(len)),
                    });
                    // Shaders keep no map of touched lines.
                    comparison.check(&format!("{what}: the ledger"), &[3, 4, 7]);
                    let coding = coding(dense);
                    comparison.run(Kernel::Scatter {
                        coding,
                        body: written,
                        sections,
                        scale: 0.3,
                        into: whole(6, len),
                    });
                    comparison.check(&format!("{what}: the sum"), &[3, 4, 7]);
                }
                // The host decodes the first body, and bodies of large values, since their counts could exceed 32 bits.
                let small = ["even", "denormal", "zeros", "equal", "tiny"].contains(&kind);
                assert!(comparison.gpu.on_host() == 1 || !small, "{what}");
            }
        }
    }
}

const VALUES: [Values; 4] = [Values::F32, Values::F16, Values::Int8, Values::TwoMeans];

#[test]
fn top_k_bodies_are_expanded_and_added_as_on_the_host() {
    let Some(context) = context() else { return };
    let random = &mut Random(29);
    for kind in KINDS {
        for (len, values) in [1usize, 64, 1025, 20_000].into_iter().flat_map(|len| VALUES.map(|values| (len, values))) {
            let chunk = if values == Values::F32 { len } else { len.min(4096) };
            let pick = Pick { count: chunk.div_ceil(3) as u32, chunk: chunk as u32, values };
            let coding = Coding::TopK(pick);
            let body = coding.len_max(len, 0) / 4;
            let buffers = [
                vector(kind, len, random),
                vec![0; len],
                Vec::new(),
                vec![POISON; 2 * len],
                vec![POISON; body],
                vec![POISON; len],
                vector(kind, len, random),
            ];
            let mut comparison = Comparison::new(context.clone(), &buffers);
            let sections = whole(2, 0);
            let place = EncodeTarget { sections, scratch: BufferId(3), body: whole(4, body) };
            let encode =
                Kernel::Encode { coding, decay: 1.0, update: Some(whole(0, len)), residual: whole(1, len), place };
            let KernelResult::Encoded(encoded) = comparison.run(encode) else { panic!("{kind}, {len}") };
            let body = whole(4, body).first(encoded.bytes);
            comparison.run(Kernel::Expand { coding, body, sections, into: whole(5, len) });
            comparison.run(Kernel::Scatter { coding, body, sections, scale: -1.7, into: whole(6, len) });
            comparison.check(&format!("{kind}, {len}"), &[3, 4]);
        }
    }
}

#[test]
fn dense_bodies_and_residuals_equal_the_host() {
    let Some(context) = context() else { return };
    let random = &mut Random(41);
    for coding in [Coding::Bf16, Coding::F16, Coding::Int8, Coding::Sign] {
        for kind in KINDS {
            for len in LENS.into_iter().filter(|len| *len > 0) {
                let body = coding.len_max(len, 1) / 4;
                let kept = vector(if len % 2 == 0 { "even" } else { kind }, len, random);
                // Residuals are finite: encoders refuse other sums.
                let kept = kept.into_iter().map(|bits| if f32::from_bits(bits).is_finite() { bits } else { 0 });
                let buffers = [vector(kind, len, random), kept.collect(), vec![], vec![], vec![POISON; body + 3]];
                let mut comparison = Comparison::new(context.clone(), &buffers);
                let (update, residual) = (whole(0, len), whole(1, len));
                let body = Segment::floats(BufferId(4), 2, body);
                let place = EncodeTarget { sections: whole(2, 0), scratch: BufferId(3), body };
                for update in [Some(update), None, Some(update)] {
                    comparison.run(Kernel::Encode { coding, decay: 1.0, update, residual, place });
                    comparison.check(&format!("{coding:?}, {kind}, {len}"), &[2, 3]);
                }
                assert_eq!(comparison.gpu.on_host(), 0);
            }
        }
    }
}

/// A vector longer than a chunk takes several dispatches, and several lists of a threshold message.
#[test]
fn long_vectors_are_taken_in_chunks() {
    let Some(context) = context() else { return };
    let random = &mut Random(31);
    let len = 2 * crate::memory::CHUNK + 77;
    let (tau, unit) = (1.0 / 2.0, 1.0 / 512.0);
    let sparse = |random: &mut Random| {
        let mut words = vec![0u32; len];
        (0..50_000).for_each(|_| words[random.next() as usize % len] = random.float().to_bits());
        words
    };
    let coding = Coding::Threshold(Aim { unit, control: Control::Density { density: 1e-3 }, tau, dense: false });
    let body = coding.len_max(len, 1) / 4;
    let buffers = [
        sparse(random),
        sparse(random),
        sections(&[len as u32], tau),
        vec![0; 2 * len],
        vec![0; body],
        vec![0; ledger::words(len)],
        vec![0; ledger::map_words(len)],
    ];
    let mut comparison = Comparison::new(context, &buffers);
    let touched = whole(6, ledger::map_words(len));
    let place = EncodeTarget { sections: whole(2, 4), scratch: BufferId(3), body: whole(4, body) };
    let (update, residual, ledger) = (Some(whole(0, len)), whole(1, len), whole(5, ledger::words(len)));
    let result = comparison.run(Kernel::Encode { coding, decay: 1.0, update, residual, place });
    let KernelResult::Encoded(encoded) = result else { panic!("{result:?}") };
    comparison.run(Kernel::Decode {
        body: whole(4, body).first(encoded.bytes),
        sections: whole(2, 4),
        unit,
        ledger,
        touched,
    });
    comparison.run(Kernel::Apply { from: whole(0, len), update: residual, scale: 0.3, into: whole(0, len) });
    comparison.check("long", &[3, 6]);
    assert_eq!(comparison.run(Kernel::Scan { x: whole(0, len) }), KernelResult::Finite);
}

/// After the first few messages, which settle the read lengths, no message creates a buffer or a bind group.
#[test]
fn the_steady_state_creates_no_resources() {
    let Some(context) = context() else { return };
    let random = &mut Random(37);
    let (len, unit) = (30_000, 1.0 / 16384.0);
    let coding = Coding::Threshold(Aim { unit, control: Control::Fixed, tau: 1.0 / 64.0, dense: false });
    let body = coding.len_max(len, 1) / 4;
    let buffers = [
        vector("even", len, random),
        vec![0; len],
        sections(&[len as u32], 0.5),
        vec![0; 2 * len],
        vec![0; body],
        vec![0; ledger::words(len)],
        vec![0; len],
        vec![0; ledger::map_words(len)],
    ];
    let mut comparison = Comparison::new(context, &buffers);
    let touched = whole(7, ledger::map_words(len));
    let place = EncodeTarget { sections: whole(2, 4), scratch: BufferId(3), body: whole(4, body) };
    let (update, residual, ledger) = (Some(whole(0, len)), whole(1, len), whole(5, ledger::words(len)));
    let mut created = 0;
    for step in 0..8 {
        let result = comparison.run(Kernel::Encode { coding, decay: 1.0, update, residual, place });
        let KernelResult::Encoded(encoded) = result else { panic!("{result:?}") };
        comparison.run(Kernel::Decode {
            body: whole(4, body).first(encoded.bytes),
            sections: whole(2, 4),
            unit,
            ledger,
            touched,
        });
        // The device makes the whole replica, also where the host makes the touched lines. There, the rest is the base.
        let (base, into) = (whole(0, len), whole(6, len));
        comparison.run(match step {
            0 => Kernel::Materialise { base, ledger, unit, into },
            _ => Kernel::Refresh { base, ledger, unit, touched, into },
        });
        comparison.check("steady", &[3, 4, 7]);
        assert!(step < 4 || comparison.gpu.resources_made() == created, "step {step}");
        created = comparison.gpu.resources_made();
    }
}
