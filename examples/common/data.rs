//! Training data: labelled images, from the digits in the program or from IDX files (the format of MNIST).

use std::fmt;
use std::path::{Path, PathBuf};

static IMAGES: &[u8] = include_bytes!("../data/digits-images-idx3-ubyte");
static LABELS: &[u8] = include_bytes!("../data/digits-labels-idx1-ubyte");

/// Images of digits with their labels.
#[derive(Clone)]
pub struct Data {
    /// Pixels of an image.
    pub pixels: usize,
    /// The pixels of all images in 0..=1, image after image.
    pub images: Vec<f32>,
    /// The class of each image, 0 to 9.
    pub labels: Vec<u8>,
}

/// Why files are no training data.
#[derive(Debug)]
pub enum DataError {
    Missing { path: PathBuf, error: std::io::Error },
    Truncated { path: PathBuf, expected: usize, got: usize },
    Magic { path: PathBuf, expected: u32, got: u32 },
    Counts { images: usize, labels: usize },
    Label { index: usize, got: u8 },
    Empty { path: PathBuf },
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Truncated { path, expected, got } => {
                write!(f, "{}: expected {expected} bytes, got {got}", path.display())
            }
            Self::Magic { path, expected, got } => {
                write!(f, "{}: expected an IDX file with magic {expected:#010x}, got {got:#010x}", path.display())
            }
            Self::Counts { images, labels } => write!(f, "expected as many labels as images ({images}), got {labels}"),
            Self::Label { index, got } => write!(f, "expected labels 0 to 9, got {got} at index {index}"),
            Self::Empty { path } => write!(f, "{}: expected at least 50 images of at least 1 pixel", path.display()),
        }
    }
}

impl Data {
    /// The digits in the program: 1,797 images of 8×8 pixels.
    pub fn digits() -> Result<Self, DataError> {
        Self::parse(Path::new("digits-images"), IMAGES, Path::new("digits-labels"), LABELS)
    }

    /// Loads a pair of IDX files from a directory: `*images-idx3-ubyte` and `*labels-idx1-ubyte`. A pair with `train`
    /// in its name takes precedence.
    pub fn load(dir: &Path) -> Result<Self, DataError> {
        let missing = |path: &Path, error| DataError::Missing { path: path.to_path_buf(), error };
        let entries = std::fs::read_dir(dir).map_err(|error| missing(dir, error))?;
        let mut names: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        names.sort_by_key(|path| (!path.to_string_lossy().contains("train"), path.clone()));
        let find = |suffix: &str| {
            let found = names.iter().find(|path| path.to_string_lossy().ends_with(suffix)).cloned();
            found.unwrap_or_else(|| dir.join(format!("train-{suffix}")))
        };
        let (images, labels) = (find("images-idx3-ubyte"), find("labels-idx1-ubyte"));
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| missing(path, error));
        Self::parse(&images, &read(&images)?, &labels, &read(&labels)?)
    }

    fn parse(images_path: &Path, images: &[u8], labels_path: &Path, labels: &[u8]) -> Result<Self, DataError> {
        let ([count, rows, columns], pixels) = idx(images_path, images, 0x0803)?;
        let ([label_count], labels) = idx(labels_path, labels, 0x0801)?;
        if count != label_count {
            return Err(DataError::Counts { images: count, labels: label_count });
        }
        if count < 50 || rows * columns == 0 {
            return Err(DataError::Empty { path: images_path.to_path_buf() });
        }
        if let Some(index) = labels.iter().position(|label| *label > 9) {
            return Err(DataError::Label { index, got: labels[index] });
        }
        let brightest = f32::from(pixels.iter().copied().max().unwrap_or(0).max(1));
        let images = pixels.iter().map(|pixel| f32::from(*pixel) / brightest).collect();
        Ok(Self { pixels: rows * columns, images, labels: labels.to_vec() })
    }

    #[allow(clippy::len_without_is_empty, reason = "data that can be loaded are never empty")]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn image(&self, index: usize) -> &[f32] {
        &self.images[index * self.pixels..][..self.pixels]
    }

    /// Splits into training and test data. The test data are a fifth of each class, chosen at random by the seed.
    pub fn split(&self, seed: u64) -> (Self, Self) {
        let mut parts = [
            Self { images: Vec::new(), labels: Vec::new(), ..*self },
            Self { images: Vec::new(), labels: Vec::new(), ..*self },
        ];
        for class in 0..10 {
            let mut members: Vec<usize> = (0..self.len()).filter(|index| self.labels[*index] == class).collect();
            shuffle(&mut members, seed ^ u64::from(class));
            for (position, index) in members.iter().enumerate() {
                let part = &mut parts[usize::from(position * 5 < members.len())];
                part.images.extend_from_slice(self.image(*index));
                part.labels.push(class);
            }
        }
        let [train, test] = parts;
        (train, test)
    }
}

/// The dimensions and the contents of an IDX file of unsigned bytes. `expected`: its magic number.
fn idx<'a, const N: usize>(path: &Path, bytes: &'a [u8], expected: u32) -> Result<([usize; N], &'a [u8]), DataError> {
    let truncated = |expected| DataError::Truncated { path: path.to_path_buf(), expected, got: bytes.len() };
    let head = 4 + 4 * N;
    if bytes.len() < head {
        return Err(truncated(head));
    }
    let word = |i: usize| u32::from_be_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    if word(0) != expected {
        return Err(DataError::Magic { path: path.to_path_buf(), expected, got: word(0) });
    }
    let dims: [usize; N] = std::array::from_fn(|i| word(4 + 4 * i) as usize);
    let len = dims.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim));
    let end = len.and_then(|len| len.checked_add(head)).unwrap_or(usize::MAX);
    if bytes.len() < end {
        return Err(truncated(end));
    }
    Ok((dims, &bytes[head..end]))
}

/// Shuffles in place (Fisher and Yates). A seed gives the same order on every machine.
pub fn shuffle(items: &mut [usize], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for i in (1..items.len()).rev() {
        items.swap(i, (next(&mut state) % (i as u64 + 1)) as usize);
    }
}

/// The next random number (xorshift64*). `state` must not be 0.
pub fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
}
