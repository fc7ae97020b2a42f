//! A burn model that learns handwritten digits on two workers, in two ways:
//!
//! - `cargo run --release -- host`: gradients and parameters are slices in host memory.
//! - `cargo run --release -- device`: gradwire uses burn's wgpu device, queue and buffers. Neither gradients nor
//!   parameters are copied to the host.

#[path = "../../common/data.rs"]
#[allow(dead_code, reason = "the other examples use more of it")]
mod data;
mod flat;

use std::time::{Duration, Instant};
use std::{env, thread};

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use gradwire::{Cluster, Layout, Mem, Recipe, Session};
use gradwire_gpu::{Context, Gpu, give, take};

use data::Data;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const WORKERS: u32 = 2;
const BATCH: usize = 32;
const EPOCHS: u32 = 20;
const RATE: f32 = 0.1;

/// A perceptron with one hidden layer.
#[derive(Module, Debug)]
struct Net {
    hidden: Linear,
    output: Linear,
}

impl Net {
    fn new(pixels: usize, device: &Device) -> Self {
        Self { hidden: LinearConfig::new(pixels, 64).init(device), output: LinearConfig::new(64, 10).init(device) }
    }

    fn forward(&self, images: Tensor<2>) -> Tensor<2> {
        self.output.forward(activation::relu(self.hidden.forward(images)))
    }
}

fn main() -> Result<(), Failure> {
    let mode = env::args().nth(1).unwrap_or_default();
    let begun = Instant::now();
    let accuracy = match mode.as_str() {
        "host" => on_host()?,
        "device" => on_device()?,
        _ => return Err("expected one argument: host or device, the memory that holds the vectors".into()),
    };
    println!("{mode}: {:.1} % of the test images after {:.1} s", accuracy * 100.0, begun.elapsed().as_secs_f64());
    Ok(())
}

/// Trains with slices: gradients are read from burn, and parameters written back. Works with any device of burn.
fn on_host() -> Result<f64, Failure> {
    let device = Device::flex();
    train(device, |net, session, images, labels| {
        let update = (flat::gradient(&net, images, labels) * RATE).into_data();
        let mut params = flat::params(&net).into_data().try_to_vec::<f32>()?;
        session.step(&mut params, update.as_slice::<f32>()?, BATCH as u32)?;
        let params = Tensor::<1>::from_data(TensorData::from(params.as_slice()), &net.hidden.weight.device().inner());
        Ok(flat::with_params(net, params))
    })
}

/// Trains with shared buffers: gradients go from burn's buffers to gradwire's on the device, and parameters back.
/// gradwire's kernels encode the updates, so that only encoded messages are copied to the host.
fn on_device() -> Result<f64, Failure> {
    let (device, setup) = Device::wgpu_options().init_with_setup()?;
    // With the same queue, the device does the work of both libraries in the order of submission.
    let context = Context::new(setup.device, setup.queue)?;
    println!("device: {}", context.name());
    train_on(device, Some(context), |net, session, images, labels| {
        let device = net.hidden.weight.device().inner();
        let update = flat::gradient(&net, images, labels) * RATE;
        let params = Tensor::<1>::zeros([update.shape().num_elements()], &device);
        // `flush` submits burn's queued work before gradwire's. Both tensors must exist until the step is done.
        device.flush()?;
        let (update, new_params) = (flat::memory(update)?, flat::memory(params.clone())?);
        session.step_through(
            BATCH as u32,
            give(update.buffer(), update.start()),
            take(new_params.buffer(), new_params.start()),
        )?;
        drop((update, new_params));
        Ok(flat::with_params(net, params))
    })
}

fn train(device: Device, step: impl Step) -> Result<f64, Failure> {
    train_on(device, None, step)
}

/// A step on one batch: returns the model with the new parameters.
trait Step: Fn(Net, &mut Session, Tensor<2>, Tensor<1, Int>) -> Result<Net, Failure> + Clone + Send + 'static {}

impl<F> Step for F where
    F: Fn(Net, &mut Session, Tensor<2>, Tensor<1, Int>) -> Result<Net, Failure> + Clone + Send + 'static
{
}

/// Trains one model on all workers. Returns its accuracy on the test images.
fn train_on(device: Device, context: Option<Context>, step: impl Step) -> Result<f64, Failure> {
    let (train, test) = Data::digits().map_err(|error| error.to_string())?.split(1);
    let recipe: Recipe = "mesh tau=0.001953125".parse()?;
    let cluster = Cluster { workers: WORKERS, servers: 0 };
    let workers = Mem::cluster(WORKERS).into_iter().enumerate().map(|(rank, transport)| {
        let (train, device, context, step) = (train.clone(), device.clone(), context.clone(), step.clone());
        thread::spawn(move || -> Result<Net, Failure> {
            let training = device.clone().autodiff();
            let mut net = Net::new(train.pixels, &training);
            let mut params = flat::params(&net).into_data().try_to_vec::<f32>()?;
            let mut builder =
                Session::builder(Layout::flat(params.len()), recipe, cluster).deadline(Duration::from_secs(60));
            if let Some(context) = context {
                builder = builder.executor(move || Box::new(Gpu::new(context.clone())));
            }
            // `join` fills `params` with the parameters of rank 0, so that all workers start from the same ones.
            let mut session = builder.join(transport, &mut params)?;
            let begin = Tensor::<1>::from_data(TensorData::from(params.as_slice()), &device);
            net = flat::with_params(net, begin);
            let share = train.labels.len() / WORKERS as usize;
            for epoch in 0..EPOCHS {
                let mut order: Vec<usize> = (0..train.labels.len()).collect();
                data::shuffle(&mut order, 1 ^ (u64::from(epoch) << 32));
                for batch in order[rank * share..][..share].chunks_exact(BATCH) {
                    let (images, labels) = tensors(&train, batch, &training);
                    net = step(net, &mut session, images, labels)?;
                }
            }
            session.finish(&mut params)?;
            let last = Tensor::<1>::from_data(TensorData::from(params.as_slice()), &device);
            Ok(flat::with_params(net, last))
        })
    });
    let threads: Vec<_> = workers.collect();
    let mut nets = Vec::new();
    for thread in threads {
        nets.push(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
    }
    let net = nets.remove(0);
    let all: Vec<usize> = (0..test.labels.len()).collect();
    let (images, labels) = tensors(&test, &all, &device.autodiff());
    let guesses = net.forward(images).argmax(1).reshape([-1]).into_data().iter::<i64>().collect::<Vec<_>>();
    let truth = labels.into_data().iter::<i64>().collect::<Vec<_>>();
    let right = guesses.iter().zip(&truth).filter(|(guess, truth)| guess == truth).count();
    Ok(right as f64 / truth.len() as f64)
}

/// A batch of images and labels as burn's tensors.
fn tensors(data: &Data, batch: &[usize], device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let image = |i: &usize| data.images[i * data.pixels..][..data.pixels].to_vec();
    let images: Vec<f32> = batch.iter().flat_map(image).collect();
    let labels: Vec<i32> = batch.iter().map(|i| i32::from(data.labels[*i])).collect();
    let images = Tensor::<2>::from_data(TensorData::new(images, [batch.len(), data.pixels]), device);
    (images, Tensor::<1, Int>::from_data(TensorData::from(labels.as_slice()), device))
}

/// The loss of a batch.
fn loss(net: &Net, images: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let device = images.device();
    CrossEntropyLossConfig::new().init(&device).forward(net.forward(images), labels)
}
