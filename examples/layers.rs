//! A backward pass whose gradients travel layer by layer: the last layer's gradient is added up by all workers while
//! the layers before it are computed.
//!
//! [`Session::begin_mean`] takes the gradient range by range. The mean is that of [`Session::mean`], which takes all of
//! it at once: this program trains both ways, and ends with the same bits.

use std::ops::Range;

use gradwire::{Cluster, Error, Layout, Mean, Mem, Recipe, Session, Transport};

/// Inputs, units of the hidden layers, outputs.
const SIZES: [usize; 4] = [4, 24, 24, 1];
const LAYERS: usize = SIZES.len() - 1;
/// Examples of the whole data.
const EXAMPLES: usize = 60;
const RATE: f32 = 0.1;

#[allow(dead_code, reason = "the tests use the functions alone")]
fn main() -> Result<(), Error> {
    // In chunks of 64 floats, because the model is small: a chunk travels when all of it has been given.
    let recipe: Recipe = "gradients chunk=64".parse().expect("a recipe");
    let whole = run(Mem::cluster(3), recipe, 300, false)?;
    let by_layer = run(Mem::cluster(3), recipe, 300, true)?;
    assert_eq!(by_layer, whole, "the same bits");
    println!("mean squared error: {:.4} at first, {:.4} after training", loss(&initial()), loss(&by_layer[0]));
    Ok(())
}

/// Trains with a worker per transport. Returns the parameters of each.
pub(crate) fn run<T: Transport + 'static>(
    transports: Vec<T>,
    recipe: Recipe,
    rounds: u64,
    by_layer: bool,
) -> Result<Vec<Vec<f32>>, Error> {
    let workers = transports.len();
    let cluster = Cluster { workers: workers as u32, servers: 0 };
    let train = move |(rank, transport)| {
        let share = rank * EXAMPLES / workers..(rank + 1) * EXAMPLES / workers;
        std::thread::spawn(move || train(transport, recipe, cluster, share, rounds, by_layer))
    };
    let threads: Vec<_> = transports.into_iter().enumerate().map(train).collect();
    threads.into_iter().map(|thread| thread.join().expect("the worker thread does not panic")).collect()
}

fn train<T: Transport + 'static>(
    transport: T,
    recipe: Recipe,
    cluster: Cluster,
    share: Range<usize>,
    rounds: u64,
    by_layer: bool,
) -> Result<Vec<f32>, Error> {
    let layout = layout();
    let (mut params, mut gradient) = (initial(), vec![0.0; layout.len()]);
    let mut session = Session::builder(layout.clone(), recipe, cluster).join(transport, &mut params)?;
    while session.rounds() < rounds {
        let examples = share.len() as u32;
        let given = if by_layer {
            let mut parts = session.begin_mean(examples, &params, &[])?;
            // Each call gives a tensor, and comes back at once.
            backward(&params, share.clone(), |tensor, values| parts.give(tensor, values))?;
            parts.finish(&mut gradient, &mut params, &mut [])?
        } else {
            backward(&params, share.clone(), |tensor, values| {
                let range = layout.range(tensor).expect("a tensor of the layout");
                gradient[range].copy_from_slice(values);
                Ok(())
            })?;
            session.mean(&mut gradient, examples, &mut params, &mut [])?
        };
        if given == Mean::Given {
            params.iter_mut().zip(&gradient).for_each(|(p, g)| *p -= RATE * g);
        }
    }
    session.finish(&mut params)?;
    Ok(params)
}

fn weight(layer: usize) -> String {
    format!("layer{layer}.weight")
}

fn bias(layer: usize) -> String {
    format!("layer{layer}.bias")
}

fn layout() -> Layout {
    (0..LAYERS).fold(Layout::new(), |layout, layer| {
        let (inputs, outputs) = (SIZES[layer], SIZES[layer + 1]);
        layout.tensor(&weight(layer), &[outputs, inputs]).tensor(&bias(layer), &[outputs])
    })
}

fn initial() -> Vec<f32> {
    (0..layout().len()).map(|i| ((i * 37 + 11) % 101) as f32 / 202.0 - 0.25).collect()
}

/// The inputs and outputs of these examples.
fn data(share: Range<usize>) -> (Vec<f32>, Vec<f32>) {
    let x = |index: usize, i: usize| ((index * (3 * i + 5) + i) % 19) as f32 / 9.0 - 1.0;
    let inputs = share.clone().flat_map(|index| (0..SIZES[0]).map(move |i| x(index, i))).collect();
    let outputs = share.map(|index| x(index, 0) * x(index, 1) - 0.5 * x(index, 2)).collect();
    (inputs, outputs)
}

/// The inputs of each layer, example by example, and the outputs of the last one.
fn forward(params: &[f32], inputs: Vec<f32>) -> Vec<Vec<f32>> {
    let layout = layout();
    let tensor = |name: &str| &params[layout.range(name).expect("a tensor of the layout")];
    let mut layers = vec![inputs];
    for layer in 0..LAYERS {
        let (weight, bias) = (tensor(&weight(layer)), tensor(&bias(layer)));
        let mut outputs = Vec::new();
        for x in layers[layer].chunks(SIZES[layer]) {
            for (row, bias) in weight.chunks(SIZES[layer]).zip(bias) {
                let sum = row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + bias;
                outputs.push(if layer + 1 == LAYERS { sum } else { sum.tanh() });
            }
        }
        layers.push(outputs);
    }
    layers
}

/// The mean squared error over all examples.
pub(crate) fn loss(params: &[f32]) -> f32 {
    let (inputs, outputs) = data(0..EXAMPLES);
    let got = forward(params, inputs).pop().unwrap_or_default();
    got.iter().zip(&outputs).map(|(x, y)| (x - y).powi(2)).sum::<f32>() / EXAMPLES as f32
}

/// Computes the mean gradient of half the squared error over these examples, and gives it tensor by tensor: last layer
/// first, as the chain rule has them.
fn backward(
    params: &[f32],
    share: Range<usize>,
    mut give: impl FnMut(&str, &[f32]) -> Result<(), Error>,
) -> Result<(), Error> {
    let (count, layout) = (share.len() as f32, layout());
    let (inputs, outputs) = data(share);
    let layers = forward(params, inputs);
    // The derivative by the sums of the layer, example by example.
    let mut error: Vec<f32> = layers[LAYERS].iter().zip(outputs).map(|(x, y)| (x - y) / count).collect();
    for layer in (0..LAYERS).rev() {
        let (ins, outs) = (SIZES[layer], SIZES[layer + 1]);
        let (mut of_weight, mut of_bias) = (vec![0.0; ins * outs], vec![0.0; outs]);
        for (x, error) in layers[layer].chunks(ins).zip(error.chunks(outs)) {
            for ((row, bias), error) in of_weight.chunks_mut(ins).zip(&mut of_bias).zip(error) {
                *bias += error;
                row.iter_mut().zip(x).for_each(|(w, x)| *w += error * x);
            }
        }
        give(&bias(layer), &of_bias)?;
        give(&weight(layer), &of_weight)?;
        // While these travel, the layer before.
        if layer > 0 {
            let weight = &params[layout.range(&weight(layer)).expect("a tensor of the layout")];
            let mut before = vec![0.0; layers[layer].len()];
            for ((into, x), error) in before.chunks_mut(ins).zip(layers[layer].chunks(ins)).zip(error.chunks(outs)) {
                for (row, error) in weight.chunks(ins).zip(error) {
                    into.iter_mut().zip(row).for_each(|(into, w)| *into += error * w);
                }
                // The derivative of tanh.
                into.iter_mut().zip(x).for_each(|(into, x)| *into *= 1.0 - x * x);
            }
            error = before;
        }
    }
    Ok(())
}
