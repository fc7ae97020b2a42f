//! A multi-layer perceptron that classifies vectors: ReLU, softmax, cross-entropy.

use std::sync::Arc;

use gradwire::Layout;

use super::math::{add_scaled, best, cross_entropy, dot, fingerprint, normal, seeded};
use super::{Part, Task};
use crate::data::Data;

/// Examples for which the activations of one evaluation are computed at once.
const EVALUATED: usize = 256;

/// The shape of the model, its data, and buffers for one batch. The parameters are not part of it.
#[derive(Clone)]
pub struct Perceptron {
    about: String,
    train: Arc<Data>,
    test: Arc<Data>,
    /// Sizes of the layers, from the input to the classes.
    sizes: Vec<usize>,
    /// Activations of each layer, beginning with the input: a row per example.
    activations: Vec<Vec<f32>>,
    /// Gradients of the loss by the activations of the current layer, and by the activations of the layer below.
    delta: [Vec<f32>; 2],
}

impl Perceptron {
    /// `about`: the data in words. The hidden layers have these sizes.
    pub fn new(about: String, train: Data, test: Data, hidden: &[usize]) -> Self {
        let sizes: Vec<usize> = [train.pixels].iter().chain(hidden).copied().chain([train.classes.len()]).collect();
        let mut perceptron = Self {
            about,
            train: Arc::new(train),
            test: Arc::new(test),
            activations: vec![Vec::new(); sizes.len()],
            delta: [Vec::new(), Vec::new()],
            sizes,
        };
        perceptron.make_room(EVALUATED);
        perceptron
    }

    /// Makes the buffers long enough for a batch.
    fn make_room(&mut self, rows: usize) {
        for (activations, size) in self.activations.iter_mut().zip(&self.sizes) {
            activations.resize(activations.len().max(size * rows), 0.0);
        }
        let widest = self.sizes.iter().copied().max().unwrap_or(0);
        self.delta.iter_mut().for_each(|delta| delta.resize(delta.len().max(widest * rows), 0.0));
    }

    /// Computes the activations for examples.
    fn forward(&mut self, params: &[f32], data: &Data, indices: &[usize]) {
        self.make_room(indices.len());
        for (row, index) in indices.iter().enumerate() {
            self.activations[0][row * data.pixels..][..data.pixels].copy_from_slice(data.image(*index));
        }
        let mut start = 0;
        for layer in 0..self.sizes.len() - 1 {
            let (inputs, outputs) = (self.sizes[layer], self.sizes[layer + 1]);
            let (weights, bias) = params[start..start + (inputs + 1) * outputs].split_at(inputs * outputs);
            let (below, above) = self.activations.split_at_mut(layer + 1);
            for row in 0..indices.len() {
                let output = &mut above[0][row * outputs..][..outputs];
                output.copy_from_slice(bias);
                for (i, x) in below[layer][row * inputs..][..inputs].iter().enumerate().filter(|(_, x)| **x != 0.0) {
                    add_scaled(output, &weights[i * outputs..][..outputs], *x);
                }
                if layer + 2 < self.sizes.len() {
                    output.iter_mut().for_each(|x| *x = x.max(0.0));
                }
            }
            start += (inputs + 1) * outputs;
        }
    }

    /// Computes the mean cross-entropy of the last layer, and leaves its gradient by the scores in `delta`.
    fn softmax(&mut self, data: &Data, indices: &[usize]) -> f32 {
        let (scores, classes) = (&self.activations[self.sizes.len() - 1], data.classes.len());
        let (mut loss, share) = (0.0, 1.0 / indices.len() as f32);
        for (row, index) in indices.iter().enumerate() {
            let (scores, delta) = (&scores[row * classes..][..classes], &mut self.delta[0][row * classes..][..classes]);
            loss += cross_entropy(scores, usize::from(data.labels[*index]), share, delta);
        }
        loss * share
    }
}

impl Task for Perceptron {
    fn copy(&self) -> Box<dyn Task> {
        Box::new(self.clone())
    }

    fn about(&self) -> String {
        self.about.clone()
    }

    /// For each layer its weights, one row per input, then its biases.
    fn layout(&self) -> Layout {
        self.sizes.windows(2).enumerate().fold(Layout::new(), |layout, (i, pair)| {
            layout.tensor(&format!("dense{i}.weight"), pair).tensor(&format!("dense{i}.bias"), &pair[1..])
        })
    }

    /// By He et al. 2015.
    fn initial(&self, seed: u64) -> Vec<f32> {
        let mut state = seeded(seed);
        let mut params = Vec::new();
        for pair in self.sizes.windows(2) {
            let spread = (2.0 / pair[0] as f32).sqrt();
            params.extend((0..pair[0] * pair[1]).map(|_| normal(&mut state) * spread));
            params.extend((0..pair[1]).map(|_| 0.0));
        }
        params
    }

    fn digest(&self) -> u64 {
        let pixels = self.train.images.iter().map(|pixel| u64::from(pixel.to_bits()));
        fingerprint(pixels.chain(self.train.labels.iter().map(|label| u64::from(*label))))
    }

    fn examples(&self) -> usize {
        self.train.len()
    }

    fn gradient(&mut self, params: &[f32], indices: &[usize], gradient: &mut [f32]) -> f32 {
        let train = Arc::clone(&self.train);
        self.forward(params, &train, indices);
        let loss = self.softmax(&train, indices);
        gradient.fill(0.0);
        let mut end = params.len();
        for layer in (0..self.sizes.len() - 1).rev() {
            let (inputs, outputs) = (self.sizes[layer], self.sizes[layer + 1]);
            let start = end - (inputs + 1) * outputs;
            let weights = &params[start..start + inputs * outputs];
            let (weight_gradient, bias_gradient) = gradient[start..end].split_at_mut(inputs * outputs);
            let [delta, below] = &mut self.delta;
            for row in 0..indices.len() {
                let delta = &delta[row * outputs..][..outputs];
                add_scaled(bias_gradient, delta, 1.0);
                let input = &self.activations[layer][row * inputs..][..inputs];
                for (i, x) in input.iter().enumerate().filter(|(_, x)| **x != 0.0) {
                    add_scaled(&mut weight_gradient[i * outputs..][..outputs], delta, *x);
                }
                if layer > 0 {
                    for (i, below) in below[row * inputs..][..inputs].iter_mut().enumerate() {
                        // The derivative of ReLU is 0 where its output is 0.
                        *below = if input[i] > 0.0 { dot(&weights[i * outputs..][..outputs], delta) } else { 0.0 };
                    }
                }
            }
            self.delta.swap(0, 1);
            end = start;
        }
        loss
    }

    fn evaluate_on(&mut self, params: &[f32], part: Part) -> (f64, f64) {
        let test = Arc::clone(&self.test);
        let (mut right, mut loss) = (0, 0.0);
        let all: Vec<usize> = part.positions(test.len()).collect();
        for indices in all.chunks(EVALUATED) {
            self.forward(params, &test, indices);
            let (outputs, classes) = (&self.activations[self.sizes.len() - 1], test.classes.len());
            for (row, index) in indices.iter().enumerate() {
                let class = best(&outputs[row * classes..][..classes]);
                right += usize::from(class == Some(usize::from(test.labels[*index])));
            }
            loss += f64::from(self.softmax(&test, indices)) * indices.len() as f64;
        }
        (right as f64 / all.len() as f64, loss / all.len() as f64)
    }
}
