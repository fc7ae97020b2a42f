//! Steps with vectors of state, and the codec of columns, for the table of [`dense`](crate::kernels::dense).

use gradwire_core::Storage;
use gradwire_core::codec::columns::{self, Piece};
use gradwire_core::kernel::compensate::{self, Formula};
use gradwire_core::kernel::norm;
use gradwire_core::kernel::outer::{self, Step};
use gradwire_core::kernel::tier::Tier;

use crate::kernels::Case;
use crate::measure::Limit;

/// Columns of the tensor that `sign scope=column` encodes.
const COLUMNS: u32 = 512;

/// Steps of outer optimizers. Each reads the update, and reads and writes the parameters and each vector of state.
pub(crate) fn outer(inputs: &[Storage], len: usize) -> impl Iterator<Item = Case<'_>> {
    let steps = [
        ("outer momentum", Step::Momentum { mu: 0.9, rate: 0.7, look: false }),
        ("outer momentum, looking ahead", Step::Momentum { mu: 0.9, rate: 0.7, look: true }),
        ("outer momentum, per rate", Step::Rated { mu: 0.9, rate: 0.7, look: false, inner: 0.5 }),
        ("outer delayed-nesterov", Step::Delayed { mu: 0.9, rate: 0.7, milestone: false }),
        ("outer delayed-nesterov, at a milestone", Step::Delayed { mu: 0.9, rate: 0.7, milestone: true }),
        ("outer adagrad", Step::Adagrad { rate: 0.1, floor: 1e-6 }),
        ("outer adam", Step::Adam { mu: 0.9, beta: 0.99, rate: 0.01, floor: 1e-3 }),
    ];
    steps.into_iter().map(move |(name, step)| -> Case<'_> {
        let mut state = vec![vec![0.0; len]; step.vectors()];
        let bytes = 12.0 + 8.0 * step.vectors() as f64;
        let run = move |params: &mut [f32], _: &mut [u32], _: &mut [u32]| {
            let mut vectors = state.iter_mut().map(|vector| (&mut vector[..], None));
            outer::run(step, 1.0, params, None, inputs[1].floats(), [vectors.next(), vectors.next()]);
        };
        (name, bytes, Limit::None, Box::new(run))
    })
}

/// Corrections of late updates. Each reads and writes the update and its vector of state, and reads two parameter vectors,
/// where it has them.
pub(crate) fn compensate(inputs: &[Storage], len: usize) -> impl Iterator<Item = Case<'_>> {
    let adaptive = Formula::DelayAdaptive { strength: 2.0, worker_rate: 0.1, keep: 0.95, least: 1e-7, bounded: false };
    let formulas = [
        ("compensate=magnitude", Formula::Magnitude { keep: 0.9, length: 0.01, least: 1e-3 }),
        ("compensate=delay", Formula::Delay { factor: 4.0, bounded: false }),
        ("compensate=delay-adaptive", adaptive),
    ];
    formulas.into_iter().map(move |(name, formula)| -> Case<'_> {
        let mut state = vec![0.0; if formula.has_state() { len } else { 0 }];
        let (stateful, read) = (f64::from(u8::from(formula.has_state())), formula.reads_parameters());
        let bytes = 8.0 + 8.0 * stateful + if read { 8.0 } else { 0.0 };
        let run = move |update: &mut [f32], _: &mut [u32], _: &mut [u32]| {
            let params = [1, 2].map(|i| if read { inputs[i].floats() } else { &[] });
            compensate::run(formula, update, &mut state, params);
        };
        (name, bytes, Limit::None, Box::new(run))
    })
}

/// Passes that only read: the sum that `b-fasgd` decides by, which a server computes before each answer, and the norm of
/// an update that is clipped.
pub(crate) fn sums(inputs: &[Storage]) -> [Case<'_>; 2] {
    let case = |name, sum: fn(&[f32]) -> f64| -> Case<'_> {
        let run = move |_: &mut [f32], _: &mut [u32], _: &mut [u32]| {
            std::hint::black_box(sum(std::hint::black_box(inputs[1].floats())));
        };
        (name, 4.0, Limit::None, Box::new(run))
    };
    [case("sum of magnitudes", norm::total), case("sum of squares", norm::squares)]
}

/// Signs with two means per column.
pub(crate) fn columns(inputs: &[Storage], len: usize) -> [Case<'_>; 2] {
    let (tier, update) = (Tier::best(), Some(inputs[1].floats()));
    let piece = Piece { first: 0, len: len as u32, columns: COLUMNS, phase: 0 };
    let (sections, words) = ([piece.section()], columns::words(len, columns::means([piece])));
    let encode = move |residual: &mut [f32], body: &mut [u32], _: &mut [u32]| {
        _ = columns::encode(tier, update, residual, &sections, body);
    };
    let decode = move |into: &mut [f32], body: &mut [u32], _: &mut [u32]| {
        columns::expand(tier, &body[..words], &sections, into).unwrap();
    };
    [
        ("sign of columns, encode", 12.0, Limit::None, Box::new(encode)),
        ("sign of columns, decode", 4.0, Limit::None, Box::new(decode)),
    ]
}
