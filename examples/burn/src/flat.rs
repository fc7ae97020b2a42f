//! The parameters and gradients of a burn module as one flat vector, and the buffer of a tensor on the device.
//!
//! The order of the vector is the order in which burn visits the parameters of a module.

use burn::backend::Wgpu;
use burn::cubecl::wgpu::{AutoCompiler, WgpuResource, WgpuServer};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Int, Tensor};
use gradwire_gpu::wgpu;

use crate::{Failure, Net, loss};

/// Collects the parameters, or their gradients, as flat tensors.
struct Gather<'a> {
    gradients: Option<&'a Gradients>,
    parts: Vec<Tensor<1>>,
}

impl ModuleVisitor for Gather<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let part = match self.gradients {
            Some(gradients) => value.grad(gradients).expect("the loss depends on every parameter"),
            None => value.inner(),
        };
        let len = part.shape().num_elements();
        self.parts.push(part.reshape([len]));
    }
}

/// All parameters as one tensor.
pub(crate) fn params(net: &Net) -> Tensor<1> {
    let mut gather = Gather { gradients: None, parts: Vec::new() };
    net.visit(&mut gather);
    Tensor::cat(gather.parts, 0)
}

/// The gradient of the loss of a batch, as one tensor.
pub(crate) fn gradient(net: &Net, images: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let gradients = loss(net, images, labels).backward();
    let mut gather = Gather { gradients: Some(&gradients), parts: Vec::new() };
    net.visit(&mut gather);
    Tensor::cat(gather.parts, 0)
}

/// Replaces the parameters of a module by parts of a flat tensor.
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

/// The module with the parameters of a flat tensor.
pub(crate) fn with_params(net: Net, flat: Tensor<1>) -> Net {
    net.map(&mut Scatter { flat, at: 0 })
}

/// The memory of a tensor on burn's device. The memory is not reused while this value exists.
pub(crate) struct DeviceTensor {
    resource: WgpuResource,
    _held: Box<dyn Send>,
}

impl DeviceTensor {
    /// The buffer that contains the tensor.
    pub(crate) fn buffer(&self) -> wgpu::Buffer {
        self.resource.buffer.clone()
    }

    /// The first byte of the tensor in the buffer. burn's allocator puts several tensors into one buffer.
    pub(crate) fn start(&self) -> u64 {
        self.resource.offset
    }
}

/// The memory of a contiguous tensor.
///
/// # Errors
/// If the tensor is not on a wgpu device, or its memory cannot be had.
pub(crate) fn memory(tensor: Tensor<1>) -> Result<DeviceTensor, Failure> {
    let primitive = tensor.try_into_primitive::<Wgpu>().map_err(|error| format!("{error:?}"))?;
    let held = primitive.client.get_resource::<WgpuServer<AutoCompiler>>(primitive.handle);
    let held = held.map_err(|error| format!("{error:?}"))?;
    Ok(DeviceTensor { resource: held.resource().clone(), _held: Box::new(held) })
}
