//! A multi-layer perceptron on one flat parameter vector: ReLU, softmax, cross-entropy.

use gradwire::Layout;

use super::data::{Data, next};

/// The shape of the model, and buffers for one batch. The parameters are not part of it.
pub struct Model {
    /// Sizes of the layers, from the input to the 10 classes.
    sizes: Vec<usize>,
    /// Examples for which the buffers have room.
    batch: usize,
    /// Activations of each layer, beginning with the input: `batch` rows each.
    activations: Vec<Vec<f32>>,
    /// Gradients of the loss by the activations of the current layer, and by the activations of the layer below.
    delta: [Vec<f32>; 2],
}

impl Model {
    pub fn new(pixels: usize, hidden: &[usize], batch: usize) -> Self {
        let sizes: Vec<usize> = [pixels].iter().chain(hidden).copied().chain([10]).collect();
        let widest = sizes.iter().copied().max().unwrap_or(0);
        Self {
            activations: sizes.iter().map(|size| vec![0.0; size * batch]).collect(),
            delta: [vec![0.0; widest * batch], vec![0.0; widest * batch]],
            sizes,
            batch,
        }
    }

    /// The tensors in the parameter vector: for each layer its weights, one row per input, then its biases.
    pub fn layout(&self) -> Layout {
        self.sizes.windows(2).enumerate().fold(Layout::new(), |layout, (i, pair)| {
            layout.tensor(&format!("dense{i}.weight"), pair).tensor(&format!("dense{i}.bias"), &pair[1..])
        })
    }

    /// Random initial parameters, by He et al. 2015.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut params = Vec::new();
        for pair in self.sizes.windows(2) {
            let spread = (2.0 / pair[0] as f32).sqrt();
            // The sum of twelve uniform numbers, minus 6, is approximately standard normal.
            let mut normal =
                || (0..12).map(|_| (next(&mut state) >> 24) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0;
            params.extend((0..pair[0] * pair[1]).map(|_| normal() * spread));
            params.extend((0..pair[1]).map(|_| 0.0));
        }
        params
    }

    /// Writes the gradient of the mean loss over the images of `indices`, and returns that loss.
    pub fn gradient(&mut self, params: &[f32], data: &Data, indices: &[usize], gradient: &mut [f32]) -> f32 {
        let rows = self.forward(params, data, indices);
        let loss = self.softmax(data, indices);
        gradient.fill(0.0);
        let mut end = params.len();
        for layer in (0..self.sizes.len() - 1).rev() {
            let (inputs, outputs) = (self.sizes[layer], self.sizes[layer + 1]);
            let start = end - (inputs + 1) * outputs;
            let weights = &params[start..start + inputs * outputs];
            let (weight_gradient, bias_gradient) = gradient[start..end].split_at_mut(inputs * outputs);
            let [delta, below] = &mut self.delta;
            for row in 0..rows {
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

    /// The share of images that the model classifies correctly, and the mean loss.
    pub fn evaluate(&mut self, params: &[f32], data: &Data) -> (f64, f64) {
        let (mut right, mut loss) = (0, 0.0);
        let all: Vec<usize> = (0..data.len()).collect();
        for indices in all.chunks(self.batch) {
            self.forward(params, data, indices);
            let outputs = &self.activations[self.sizes.len() - 1];
            for (row, index) in indices.iter().enumerate() {
                let scores = &outputs[row * 10..][..10];
                let best = (0..10).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
                right += usize::from(best == Some(usize::from(data.labels[*index])));
            }
            loss += f64::from(self.softmax(data, indices)) * indices.len() as f64;
        }
        (right as f64 / data.len() as f64, loss / data.len() as f64)
    }

    /// Computes the activations for the images of `indices`. Returns their number.
    fn forward(&mut self, params: &[f32], data: &Data, indices: &[usize]) -> usize {
        assert!(indices.len() <= self.batch);
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
        indices.len()
    }

    /// Computes the mean cross-entropy of the last layer, and leaves its gradient by the scores in `delta`.
    fn softmax(&mut self, data: &Data, indices: &[usize]) -> f32 {
        let scores = &self.activations[self.sizes.len() - 1];
        let (mut loss, share) = (0.0, 1.0 / indices.len() as f32);
        for (row, index) in indices.iter().enumerate() {
            let (scores, delta) = (&scores[row * 10..][..10], &mut self.delta[0][row * 10..][..10]);
            let largest = scores.iter().copied().fold(f32::MIN, f32::max);
            let total: f32 = scores.iter().map(|score| (score - largest).exp()).sum();
            let label = usize::from(data.labels[*index]);
            loss += total.ln() + largest - scores[label];
            for (class, (delta, score)) in delta.iter_mut().zip(scores).enumerate() {
                *delta = share * ((score - largest).exp() / total - f32::from(u8::from(class == label)));
            }
        }
        loss * share
    }
}

/// `into += scale * x`.
fn add_scaled(into: &mut [f32], x: &[f32], scale: f32) {
    into.iter_mut().zip(x).for_each(|(into, x)| *into += scale * x);
}

/// The dot product. Eight partial sums let the compiler use vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}
