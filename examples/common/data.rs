//! Training data: labelled images, from the digits in the program or from IDX files (the format of MNIST).

mod files;

use std::fmt;
use std::path::{Path, PathBuf};

pub use files::FindError;

static IMAGES: &[u8] = include_bytes!("../data/digits-images-idx3-ubyte");
static LABELS: &[u8] = include_bytes!("../data/digits-labels-idx1-ubyte");

/// Images with their labels.
#[derive(Clone)]
pub struct Data {
    /// Pixels of an image.
    pub pixels: usize,
    /// The pixels of all images, image after image: in 0..=1, unless the data are generated.
    pub images: Vec<f32>,
    /// The class of each image: the position of its label in `classes`.
    pub labels: Vec<u8>,
    /// The labels that occur, in ascending order.
    pub classes: Vec<u8>,
    /// The file with the images; `None`: the digits in the program.
    pub source: Option<PathBuf>,
}

/// Why files are no training data.
#[derive(Debug)]
pub enum DataError {
    Find(FindError),
    Missing {
        path: PathBuf,
        error: std::io::Error,
    },
    Truncated {
        path: PathBuf,
        expected: usize,
        got: usize,
    },
    Magic {
        path: PathBuf,
        expected: u32,
        got: u32,
    },
    Counts {
        path: PathBuf,
        images: usize,
        labels: usize,
    },
    /// All images have the same label.
    Class {
        path: PathBuf,
        label: u8,
    },
    Empty {
        path: PathBuf,
    },
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Find(error) => error.fmt(f),
            Self::Missing { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Truncated { path, expected, got } => {
                write!(f, "{}: expected {expected} bytes, got {got}", path.display())
            }
            Self::Magic { path, expected, got } => {
                write!(f, "{}: expected an IDX file with magic {expected:#010x}, got {got:#010x}", path.display())
            }
            Self::Counts { path, images, labels } => {
                write!(f, "{}: expected as many labels as images ({images}), got {labels}", path.display())
            }
            Self::Class { path, label } => {
                write!(f, "{}: expected at least 2 different labels, got only {label}", path.display())
            }
            Self::Empty { path } => write!(f, "{}: expected at least 50 images of at least 1 pixel", path.display()),
        }
    }
}

impl Data {
    /// The digits in the program: 1,797 images of 8×8 pixels.
    pub fn digits() -> Result<Self, DataError> {
        Self::parse(Path::new("digits-images"), IMAGES, Path::new("digits-labels"), LABELS)
    }

    /// Loads a pair of IDX files from a directory, which is chosen by the names of the files: the pair with `train` in
    /// its name, or the only one.
    pub fn load(directory: &Path) -> Result<Self, DataError> {
        let (images, labels) = files::find(directory).map_err(DataError::Find)?;
        let read = |path: &PathBuf| {
            let bytes = std::fs::read(path).map_err(|error| DataError::Missing { path: path.clone(), error })?;
            // Gzip, under the name of its contents.
            match bytes.starts_with(&[0x1f, 0x8b]) {
                true => Err(DataError::Find(FindError::Compressed { path: path.clone() })),
                false => Ok(bytes),
            }
        };
        let data = Self::parse(&images, &read(&images)?, &labels, &read(&labels)?)?;
        Ok(Self { source: Some(images), ..data })
    }

    fn parse(images_path: &Path, images: &[u8], labels_path: &Path, labels: &[u8]) -> Result<Self, DataError> {
        let ([count, rows, columns], pixels) = idx(images_path, images, 0x0803)?;
        let ([label_count], labels) = idx(labels_path, labels, 0x0801)?;
        if count != label_count {
            return Err(DataError::Counts { path: labels_path.to_path_buf(), images: count, labels: label_count });
        }
        if count < 50 || rows * columns == 0 {
            return Err(DataError::Empty { path: images_path.to_path_buf() });
        }
        // Digits have the labels 0 to 9, letters 1 to 26 or their codes.
        let classes: Vec<u8> = (0..=u8::MAX).filter(|label| labels.contains(label)).collect();
        if let [label] = classes[..] {
            return Err(DataError::Class { path: labels_path.to_path_buf(), label });
        }
        let class = |label: &u8| classes.partition_point(|class| class < label) as u8;
        let labels = labels.iter().map(class).collect();
        let brightest = f32::from(pixels.iter().copied().max().unwrap_or(0).max(1));
        let images = pixels.iter().map(|pixel| f32::from(*pixel) / brightest).collect();
        Ok(Self { pixels: rows * columns, images, labels, classes, source: None })
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
        let empty = || {
            let (classes, source) = (self.classes.clone(), self.source.clone());
            Self { pixels: self.pixels, images: Vec::new(), labels: Vec::new(), classes, source }
        };
        let mut parts = [empty(), empty()];
        for (class, _) in (0..=u8::MAX).zip(&self.classes) {
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
