//! Parameters as safetensors, for everyone who reads that: PyTorch, burn, candle.

use std::path::Path;

use gradwire::Layout;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// Writes parameters to a file, a tensor each.
pub fn export(layout: &Layout, params: &[f32], path: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes: Vec<u8> = params.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut views = Vec::new();
    for tensor in layout.tensors() {
        let range = tensor.range();
        let view = TensorView::new(Dtype::F32, tensor.shape().to_vec(), &bytes[range.start * 4..range.end * 4]);
        views.push((tensor.name().to_string(), view.map_err(|error| failed(&error))?));
    }
    let file = safetensors::serialize(views, None).map_err(|error| failed(&error))?;
    std::fs::write(path, file).map_err(|error| failed(&error))
}

/// Reads parameters from a file: every tensor of the layout, by name.
pub fn import(layout: &Layout, path: &Path, params: &mut [f32]) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::read(path).map_err(|error| failed(&error))?;
    let tensors = SafeTensors::deserialize(&file).map_err(|error| failed(&error))?;
    for tensor in layout.tensors() {
        let view = tensors.tensor(tensor.name()).map_err(|error| failed(&error))?;
        if view.dtype() != Dtype::F32 || view.shape() != tensor.shape() {
            let (name, expected) = (tensor.name(), tensor.shape());
            let what = format!("{name}: expected F32 of {expected:?}, got {:?} of {:?}", view.dtype(), view.shape());
            return Err(failed(&what));
        }
        for (into, bytes) in params[tensor.range()].iter_mut().zip(view.data().as_chunks::<4>().0) {
            *into = f32::from_le_bytes(*bytes);
        }
    }
    Ok(())
}
