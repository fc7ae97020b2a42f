//! Named tensors over one flat vector.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::Range;

/// The tensors of a model in the order in which they lie in the flat vector. Every node of a run must have the
/// same layout; joining compares it.
///
/// ```
/// use gradwire_core::Layout;
/// let layout = Layout::new().tensor("dense.weight", &[64, 10]).tensor("dense.bias", &[10]);
/// assert_eq!(layout.len(), 650);
/// assert_eq!(layout.range("dense.bias"), Some(640..650));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    tensors: Vec<Tensor>,
    len: usize,
}

/// One tensor of a [`Layout`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    name: String,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl Layout {
    /// A layout without tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// A layout of one unnamed vector of `len` floats.
    pub fn flat(len: usize) -> Self {
        Self::new().tensor("vector", &[len])
    }

    /// The layout with one more tensor at its end.
    #[must_use]
    pub fn tensor(mut self, name: &str, shape: &[usize]) -> Self {
        let end = self.len + shape.iter().product::<usize>();
        self.tensors.push(Tensor { name: name.to_string(), shape: shape.to_vec(), range: self.len..end });
        self.len = end;
        self
    }

    /// How many floats the flat vector has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Has the layout no floats at all?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// How many floats each tensor has, in order.
    pub fn lens(&self) -> Arc<[usize]> {
        self.tensors.iter().map(|tensor| tensor.range.len()).collect()
    }

    /// Where a tensor lies in the flat vector.
    pub fn range(&self, name: &str) -> Option<Range<usize>> {
        self.tensors.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.range.clone())
    }

    /// The name of the tensor that an index of the flat vector falls into, and the index within it.
    pub fn locate(&self, index: usize) -> Option<(&str, usize)> {
        let tensor = self.tensors.iter().find(|tensor| tensor.range.contains(&index))?;
        Some((&tensor.name, index - tensor.range.start))
    }

    /// One line per tensor, as joining compares them.
    pub(crate) fn describe(&self, text: &mut String) {
        for tensor in &self.tensors {
            let _ = writeln!(text, "tensor {} = {:?}", tensor.name, tensor.shape);
        }
    }
}

impl Tensor {
    /// The name given to it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Where it lies in the flat vector.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

/// The range of shard `index` of `shards` over a vector of `len` floats: contiguous, in order, and of lengths
/// that differ by at most one.
pub fn shard_range(len: usize, shards: u32, index: u32) -> Range<usize> {
    let (shards, index) = (shards as usize, index as usize);
    let (each, longer) = (len / shards, len % shards);
    let start = index * each + index.min(longer);
    start..start + each + usize::from(index < longer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shards_cover_the_vector_in_order_and_are_near_equal(len in 0usize..10_000, shards in 1u32..70) {
            let ranges: Vec<_> = (0..shards).map(|k| shard_range(len, shards, k)).collect();
            prop_assert_eq!(ranges[0].start, 0);
            prop_assert_eq!(ranges[ranges.len() - 1].end, len);
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].end, pair[1].start);
                prop_assert!(pair[0].len() - pair[1].len() <= 1);
            }
        }
    }

    #[test]
    fn an_index_is_named_by_its_tensor() {
        let layout = Layout::new().tensor("a", &[2, 3]).tensor("b", &[4]);
        assert_eq!(layout.locate(5), Some(("a", 5)));
        assert_eq!(layout.locate(6), Some(("b", 0)));
        assert_eq!(layout.locate(10), None);
    }
}
