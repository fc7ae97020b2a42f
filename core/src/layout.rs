//! [`Layout`]: the named tensors of a model in one flat vector. And [`shard_range`], the split of that vector into
//! shards.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::ops::Range;

use crate::recipe::edit_distance;

/// The tensors of a model, in the order in which they lie in the flat vector.
///
/// All nodes of a run must have equal layouts; they compare names and shapes when they connect. Codecs with one
/// threshold per tensor use the ranges, and error messages use the names.
///
/// ```
/// use gradwire_core::Layout;
///
/// let layout = Layout::new().tensor("dense.weight", &[64, 10]).tensor("dense.bias", &[10]);
/// assert_eq!(layout.len(), 650);
/// assert_eq!(layout.range("dense.bias"), Some(640..650));
///
/// // Index 643 of the flat vector is element 3 of the bias.
/// assert_eq!(layout.locate(643), Some(("dense.bias", 3)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    tensors: Vec<Tensor>,
    len: usize,
    /// The first tensor that did not fit.
    error: Option<LayoutError>,
}

/// A tensor is too long for a vector in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct LayoutError {
    /// The tensor's name.
    pub tensor: String,
    /// The tensor's dimensions.
    pub shape: Vec<usize>,
    /// Floats in the tensors before it.
    pub before: usize,
    /// The most floats in all tensors together.
    pub limit: usize,
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

    /// A layout with a single tensor of `len` floats, named `vector`.
    pub fn flat(len: usize) -> Self {
        Self::new().tensor("vector", &[len])
    }

    /// The layout with one more tensor at the end. Names should be unique: [`range`](Self::range) finds the first
    /// tensor with a name.
    ///
    /// A tensor that does not fit into memory is left out, and so are all after it. [`check`](Self::check) then fails,
    /// and with it every attempt to enter a run with this layout.
    #[must_use]
    pub fn tensor(mut self, name: &str, shape: &[usize]) -> Self {
        if self.error.is_some() {
            return self;
        }
        match floats(shape).and_then(|len| len.checked_add(self.len)).filter(|end| *end <= LEN_MAX) {
            Some(end) => {
                self.tensors.push(Tensor { name: name.to_string(), shape: shape.to_vec(), range: self.len..end });
                self.len = end;
            }
            None => {
                let (tensor, shape) = (name.to_string(), shape.to_vec());
                self.error = Some(LayoutError { tensor, shape, before: self.len, limit: LEN_MAX });
            }
        }
        self
    }

    /// Checks that all tensors fit into one vector.
    ///
    /// # Errors
    /// The first tensor that does not.
    pub fn check(&self) -> Result<(), LayoutError> {
        self.error.clone().map_or(Ok(()), Err)
    }

    /// Length of the flat vector in floats.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if the flat vector has no floats.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The tensors in the order of the flat vector.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The length of each tensor in floats, in the order of the flat vector.
    pub fn lens(&self) -> Arc<[usize]> {
        self.tensors.iter().map(|tensor| tensor.range.len()).collect()
    }

    /// The last dimension of each tensor with several, and 1 for other tensors, in the order of the flat vector.
    pub fn columns(&self) -> Arc<[usize]> {
        let last = |tensor: &Tensor| if tensor.shape.len() > 1 { tensor.shape.last().copied() } else { None };
        self.tensors.iter().map(|tensor| last(tensor).unwrap_or(1)).collect()
    }

    /// The range of a tensor in the flat vector, or `None` if there is no tensor with this name.
    pub fn range(&self, name: &str) -> Option<Range<usize>> {
        self.tensors.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.range.clone())
    }

    /// The name of the tensor that is most similar to `name`, if one is similar enough for a suggestion.
    pub fn most_similar(&self, name: &str) -> Option<&str> {
        let distance = |tensor: &&Tensor| edit_distance(name.as_bytes(), tensor.name.as_bytes());
        let best = self.tensors.iter().min_by_key(distance)?;
        (distance(&best) * 2 < best.name.len()).then_some(&*best.name)
    }

    /// The name of the tensor at an index of the flat vector, and the index within that tensor. `None`: the index is
    /// out of range.
    pub fn locate(&self, index: usize) -> Option<(&str, usize)> {
        let tensor = self.tensors.iter().find(|tensor| tensor.range.contains(&index))?;
        Some((&tensor.name, index - tensor.range.start))
    }

    /// Appends one line per tensor: the text that nodes compare when they connect.
    pub(crate) fn describe(&self, text: &mut String) {
        for tensor in &self.tensors {
            // Writing to a string does not fail.
            let _ = writeln!(text, "tensor {} = {:?}", tensor.name, tensor.shape);
        }
    }
}

impl Tensor {
    /// The name, as given to [`Layout::tensor`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The range in the flat vector.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tensor, shape, before, limit } = self;
        write!(
            f,
            "tensor {tensor:?}: expected at most {limit} floats in all tensors together, got shape {shape:?} after \
             {before} floats"
        )
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for LayoutError {}

/// The most floats of a layout: the bytes of a vector are at most `isize::MAX`.
const LEN_MAX: usize = isize::MAX as usize / size_of::<f32>();

/// The number of floats of a tensor. `None`: it is too large for a `usize`.
fn floats(shape: &[usize]) -> Option<usize> {
    // Checked before the other dimensions: their product may be too large.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |product, dimension| product.checked_mul(*dimension))
}

/// The range of shard `index` of `shards` in a vector of `len` floats. Shards are contiguous and in order, and their
/// lengths differ by at most one.
pub fn shard_range(len: usize, shards: u32, index: u32) -> Range<usize> {
    let (shards, index) = (shards as usize, index as usize);
    // The first `longer` shards have one element more.
    let (each, longer) = (len / shards, len % shards);
    let start = index * each + index.min(longer);
    start..start + each + usize::from(index < longer)
}

/// Lengths of the tensors' pieces in a range; the elements after the last tensor are one more piece.
pub(crate) fn cut(tensors: &[usize], range: &Range<usize>) -> Vec<u32> {
    let mut ends: Vec<usize> = tensors
        .iter()
        .scan(0, |end, len| {
            *end += len;
            Some(*end)
        })
        .filter(|end| range.start < *end && *end < range.end)
        .collect();
    ends.push(range.end);
    ends.dedup();
    let mut start = range.start;
    ends.into_iter().map(|end| (end - core::mem::replace(&mut start, end)) as u32).collect()
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
    fn a_tensor_that_does_not_fit_is_named() {
        const HUGE: usize = 1 << 40;
        for shape in [&[HUGE, HUGE][..], &[usize::MAX, 2], &[LEN_MAX], &[usize::MAX]] {
            let layout = Layout::new().tensor("first", &[3]).tensor("huge", shape).tensor("last", &[HUGE, HUGE, HUGE]);
            let error = layout.check().unwrap_err();
            let expected = LayoutError { tensor: "huge".into(), shape: shape.to_vec(), before: 3, limit: LEN_MAX };
            assert_eq!((error, layout.len(), layout.tensors().len()), (expected, 3, 1), "{shape:?}");
        }
        let error = Layout::new().tensor("a", &[3]).tensor("w", &[HUGE, HUGE]).check().unwrap_err();
        let expected = "tensor \"w\": expected at most 2305843009213693951 floats in all tensors together, got shape \
                        [1099511627776, 1099511627776] after 3 floats";
        #[cfg(target_pointer_width = "64")]
        assert_eq!(alloc::format!("{error}"), expected);
        // A tensor without elements fits, with any other dimensions.
        let empty = Layout::new().tensor("empty", &[HUGE, HUGE, 0]).tensor("scalar", &[]);
        assert_eq!((empty.check(), empty.len()), (Ok(()), 1));
        assert_eq!(Layout::new().tensor("longest", &[LEN_MAX]).check(), Ok(()));
    }

    #[test]
    fn a_mistyped_name_has_a_suggestion() {
        let layout = Layout::new().tensor("dense.weight", &[2]).tensor("dense.bias", &[1]);
        assert_eq!(layout.most_similar("dense.wieght"), Some("dense.weight"));
        assert_eq!(layout.most_similar("bias"), None);
        assert_eq!(layout.most_similar("dense_bias"), Some("dense.bias"));
        assert_eq!(Layout::new().most_similar("a"), None);
    }

    #[test]
    fn an_index_is_located_in_its_tensor() {
        let layout = Layout::new().tensor("a", &[2, 3]).tensor("b", &[4]);
        assert_eq!(layout.locate(5), Some(("a", 5)));
        assert_eq!(layout.locate(6), Some(("b", 0)));
        assert_eq!(layout.locate(10), None);
    }

    #[test]
    fn tensors_are_cut_where_ranges_end() {
        assert_eq!(cut(&[3, 4, 5], &(0..12)), [3, 4, 5]);
        assert_eq!(cut(&[3, 4, 5], &(2..8)), [1, 4, 1]);
        assert_eq!(cut(&[3, 0, 5], &(0..20)), [3, 5, 12]);
        assert_eq!(cut(&[12], &(4..6)), [2]);
    }
}
