//! Generated sequences, classified by a recurrent network with weights that are shared over time. A gradient is a sum
//! over the steps of a sequence.
//!
//! The network is a gated recurrent unit (Cho et al. 2014) without the reset gate. With the state h, the input x, and
//! the logistic function σ:
//!
//! ```text
//! z = σ(W_z x + U_z h + b_z)          how much of the state is replaced
//! c = tanh(W_c x + U_c h + b_c)       by this content
//! h ← (1 - z) h + z c
//! ```
//!
//! A sequence has [`STEPS`] inputs, each a noisy one-hot symbol and a mark. One of the first [`EARLY`] inputs is
//! marked, and its symbol is the class: the network keeps it while it reads the rest. The noise limits the accuracy
//! of any classifier to about 98 %.

use std::ops::Range;
use std::sync::Arc;

use gradwire::Layout;

use super::math::{add_scaled, best, cross_entropy, dot, fingerprint, normal, seeded};
use super::{Part, Task};
use crate::data::next;

const SYMBOLS: usize = 8;
/// Floats per input: the symbols, and the mark.
const INPUTS: usize = SYMBOLS + 1;
const STEPS: usize = 10;
const EARLY: u64 = 3;
/// Standard deviation of the noise on each float of a symbol.
const NOISE: f32 = 0.25;
/// Number of training and test sequences.
const TRAIN: usize = 4000;
const TEST: usize = 1000;
/// The initial bias of the gate: the state changes slowly at first, and gradients reach the first inputs.
const GATE_BIAS: f32 = -1.0;

/// A sequence and its class.
struct Sequence {
    inputs: [[f32; INPUTS]; STEPS],
    class: usize,
}

/// The shape of the network, its data, and buffers for one sequence.
#[derive(Clone)]
pub struct Sequences {
    /// The training sequences, then the test sequences.
    all: Arc<Vec<Sequence>>,
    /// Elements of the state.
    hidden: usize,
    /// The state h before the first step, and after each step.
    states: Vec<Vec<f32>>,
    /// The gate z and the candidate c of each step, one after the other.
    gates: Vec<Vec<f32>>,
    /// The gradient of the loss by the state.
    delta: Vec<f32>,
    /// The gradient by the weighted sums under z and c.
    inner: Vec<f32>,
}

impl Sequences {
    pub fn new(hidden: usize, seed: u64) -> Self {
        let mut state = seeded(seed ^ 0x5e90_0e5c);
        Self {
            all: Arc::new((0..TRAIN + TEST).map(|_| sequence(&mut state)).collect()),
            hidden,
            states: vec![vec![0.0; hidden]; STEPS + 1],
            gates: vec![vec![0.0; 2 * hidden]; STEPS],
            delta: vec![0.0; hidden],
            inner: vec![0.0; 2 * hidden],
        }
    }

    /// The parts of the parameter vector.
    fn parts(&self) -> Parts {
        let hidden = self.hidden;
        let lengths = [2 * INPUTS * hidden, 2 * hidden * hidden, 2 * hidden, hidden * SYMBOLS, SYMBOLS];
        let mut end = 0;
        let [input, memory, bias, output, output_bias] = lengths.map(|length| {
            end += length;
            end - length..end
        });
        Parts { input, memory, bias, output, output_bias }
    }

    /// Reads a sequence, and returns the scores of the classes.
    fn forward(&mut self, params: &[f32], sequence: &Sequence) -> [f32; SYMBOLS] {
        let (parts, hidden) = (self.parts(), self.hidden);
        for (step, input) in sequence.inputs.iter().enumerate() {
            let (before, after) = self.states.split_at_mut(step + 1);
            let (before, after, gates) = (&before[step], &mut after[0], &mut self.gates[step]);
            gates.copy_from_slice(&params[parts.bias.clone()]);
            for (x, weights) in input.iter().zip(params[parts.input.clone()].chunks(2 * hidden)) {
                add_scaled(gates, weights, *x);
            }
            for (x, weights) in before.iter().zip(params[parts.memory.clone()].chunks(2 * hidden)) {
                add_scaled(gates, weights, *x);
            }
            let (gate, candidate) = gates.split_at_mut(hidden);
            gate.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp()));
            candidate.iter_mut().for_each(|x| *x = x.tanh());
            for i in 0..hidden {
                after[i] = (1.0 - gate[i]) * before[i] + gate[i] * candidate[i];
            }
        }
        let mut scores = [0.0; SYMBOLS];
        scores.copy_from_slice(&params[parts.output_bias]);
        for (x, weights) in self.states[STEPS].iter().zip(params[parts.output].chunks(SYMBOLS)) {
            add_scaled(&mut scores, weights, *x);
        }
        scores
    }

    /// Adds the gradient of one sequence, given the gradient by its scores.
    fn backward(&mut self, params: &[f32], sequence: &Sequence, scores: &[f32], gradient: &mut [f32]) {
        let (parts, hidden) = (self.parts(), self.hidden);
        add_scaled(&mut gradient[parts.output_bias], scores, 1.0);
        for (i, x) in self.states[STEPS].iter().enumerate() {
            add_scaled(&mut gradient[parts.output.clone()][i * SYMBOLS..][..SYMBOLS], scores, *x);
            self.delta[i] = dot(&params[parts.output.clone()][i * SYMBOLS..][..SYMBOLS], scores);
        }
        for step in (0..STEPS).rev() {
            let (before, delta) = (&self.states[step], &mut self.delta);
            let (gate, candidate) = self.gates[step].split_at(hidden);
            for i in 0..hidden {
                let (z, c) = (gate[i], candidate[i]);
                // The derivatives of σ and tanh at their outputs y are y (1 - y) and 1 - y².
                self.inner[i] = delta[i] * (c - before[i]) * z * (1.0 - z);
                self.inner[hidden + i] = delta[i] * z * (1.0 - c * c);
            }
            add_scaled(&mut gradient[parts.bias.clone()], &self.inner, 1.0);
            for (x, weights) in sequence.inputs[step].iter().zip(gradient[parts.input.clone()].chunks_mut(2 * hidden)) {
                add_scaled(weights, &self.inner, *x);
            }
            let rows = gradient[parts.memory.clone()].chunks_mut(2 * hidden);
            for (i, (weights, row)) in params[parts.memory.clone()].chunks(2 * hidden).zip(rows).enumerate() {
                add_scaled(row, &self.inner, before[i]);
                delta[i] = delta[i] * (1.0 - gate[i]) + dot(weights, &self.inner);
            }
        }
    }
}

/// The ranges of the tensors in the parameter vector. Weights have one row per input.
struct Parts {
    input: Range<usize>,
    memory: Range<usize>,
    bias: Range<usize>,
    output: Range<usize>,
    output_bias: Range<usize>,
}

/// The next random sequence.
fn sequence(state: &mut u64) -> Sequence {
    let marked = (next(state) % EARLY) as usize;
    let mut class = 0;
    let inputs = std::array::from_fn(|step| {
        let symbol = (next(state) % SYMBOLS as u64) as usize;
        if step == marked {
            class = symbol;
        }
        std::array::from_fn(|i| match i {
            SYMBOLS => f32::from(u8::from(step == marked)),
            _ => f32::from(u8::from(i == symbol)) + NOISE * normal(state),
        })
    });
    Sequence { inputs, class }
}

impl Task for Sequences {
    fn copy(&self) -> Box<dyn Task> {
        Box::new(self.clone())
    }

    fn about(&self) -> String {
        format!("{TRAIN} sequences of {STEPS} symbols ({TEST} more to test)")
    }

    fn layout(&self) -> Layout {
        let hidden = self.hidden;
        Layout::new()
            .tensor("input.weight", &[INPUTS, 2 * hidden])
            .tensor("memory.weight", &[hidden, 2 * hidden])
            .tensor("memory.bias", &[2 * hidden])
            .tensor("output.weight", &[hidden, SYMBOLS])
            .tensor("output.bias", &[SYMBOLS])
    }

    fn initial(&self, seed: u64) -> Vec<f32> {
        let (parts, hidden, mut state) = (self.parts(), self.hidden, seeded(seed));
        let mut params = vec![0.0; parts.output_bias.end];
        let mut fill = |range: Range<usize>, spread: f32| {
            params[range].iter_mut().for_each(|x| *x = normal(&mut state) * spread);
        };
        let spread = (1.0 / hidden as f32).sqrt();
        fill(parts.input, (1.0 / INPUTS as f32).sqrt());
        fill(parts.memory, spread);
        fill(parts.output, spread);
        params[parts.bias][..hidden].fill(GATE_BIAS);
        params
    }

    fn digest(&self) -> u64 {
        let words = |sequence: &Sequence| {
            let inputs = sequence.inputs.into_iter().flatten().map(|x| u64::from(x.to_bits()));
            inputs.chain([sequence.class as u64]).collect::<Vec<_>>()
        };
        fingerprint(self.all[..TRAIN].iter().flat_map(words))
    }

    fn examples(&self) -> usize {
        TRAIN
    }

    fn gradient(&mut self, params: &[f32], indices: &[usize], gradient: &mut [f32]) -> f32 {
        let (all, share) = (Arc::clone(&self.all), 1.0 / indices.len() as f32);
        gradient.fill(0.0);
        let mut loss = 0.0;
        for sequence in indices.iter().map(|index| &all[..TRAIN][*index]) {
            let scores = self.forward(params, sequence);
            let mut delta = [0.0; SYMBOLS];
            loss += cross_entropy(&scores, sequence.class, share, &mut delta);
            self.backward(params, sequence, &delta, gradient);
        }
        loss * share
    }

    fn evaluate_on(&mut self, params: &[f32], part: Part) -> (f64, f64) {
        let all = Arc::clone(&self.all);
        let (mut right, mut loss, mut count) = (0, 0.0, 0);
        for at in part.positions(TEST) {
            let sequence = &all[TRAIN + at];
            count += 1;
            let scores = self.forward(params, sequence);
            loss += f64::from(cross_entropy(&scores, sequence.class, 1.0, &mut [0.0; SYMBOLS]));
            right += usize::from(best(&scores) == Some(sequence.class));
        }
        (right as f64 / f64::from(count), loss / f64::from(count))
    }
}
