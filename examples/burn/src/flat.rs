//! A module's parameters and gradients as one vector, in the order in which burn visits them, and where a tensor lies.

use burn::backend::Wgpu;
use burn::cubecl::wgpu::{AutoCompiler, WgpuResource, WgpuServer};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Int, Tensor};
use gradwire_gpu::wgpu;

use crate::{Failure, Net, loss};

/// Visits parameters, or their gradients.
struct Gather<'a> {
    gradients: Option<&'a Gradients>,
    parts: Vec<Tensor<1>>,
}

impl ModuleVisitor for Gather<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let part = match self.gradients {
            Some(gradients) => value.grad(gradients).expect("every parameter takes part in the loss"),
            None => value.inner(),
        };
        let len = part.shape().num_elements();
        self.parts.push(part.reshape([len]));
    }
}

/// All parameters.
pub(crate) fn params(net: &Net) -> Tensor<1> {
    let mut gather = Gather { gradients: None, parts: Vec::new() };
    net.visit(&mut gather);
    Tensor::cat(gather.parts, 0)
}

/// The gradient of a batch's loss.
pub(crate) fn gradient(net: &Net, images: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let gradients = loss(net, images, labels).backward();
    let mut gather = Gather { gradients: Some(&gradients), parts: Vec::new() };
    net.visit(&mut gather);
    Tensor::cat(gather.parts, 0)
}

struct Scatter {
    flat: Tensor<1>,
    at: usize,
}

impl ModuleMapper for Scatter {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, value, mapper) = param.consume();
        let (shape, len) = (value.shape(), value.shape().num_elements());
        let part = self.flat.clone().slice([self.at..self.at + len]).reshape(shape);
        self.at += len;
        Param::from_mapped_value(id, part.autodiff().require_grad(), mapper)
    }
}

/// The module with these parameters.
pub(crate) fn with_params(net: Net, flat: Tensor<1>) -> Net {
    net.map(&mut Scatter { flat, at: 0 })
}

/// Where a tensor lies on burn's device. Holds on to it.
pub(crate) struct LaunchEnv {
    resource: WgpuResource,
    _held: Box<dyn Send>,
}

impl LaunchEnv {
    pub(crate) fn buffer(&self) -> wgpu::Buffer {
        self.resource.buffer.clone()
    }

    /// Tensors are parts of larger buffers.
    pub(crate) fn start(&self) -> u64 {
        self.resource.offset
    }
}

/// Finds a tensor, which must be in one piece.
pub(crate) fn place(tensor: Tensor<1>) -> Result<LaunchEnv, Failure> {
    let primitive = tensor.try_into_primitive::<Wgpu>().map_err(|error| format!("{error:?}"))?;
    let held = primitive.client.get_resource::<WgpuServer<AutoCompiler>>(primitive.handle);
    let held = held.map_err(|error| format!("{error:?}"))?;
    Ok(LaunchEnv { resource: held.resource().clone(), _held: Box::new(held) })
}
