//! [`Key`], the pre-shared key of a cluster: 32 random bytes, stored as 64 hexadecimal digits in a file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Most bytes that are read of a key file, so that a wrong path (a large file, a device) does no harm.
const FILE_MAX: u64 = 4096;

/// The key of a cluster. Every program that has it can join. `Debug` does not print it, and its memory is wiped when it
/// is dropped.
///
/// ```
/// use gradwire_tcp::Key;
///
/// # let path = std::env::temp_dir().join(format!("gradwire-doc-key-{}", std::process::id()));
/// Key::generate()?.write(&path)?; // once; then copy the file to every machine
/// let key = Key::from_file(&path)?; // for `Builder::key`
/// # assert_eq!(key.to_bytes(), Key::from_file(&path)?.to_bytes());
/// # std::fs::remove_file(path).ok();
/// # Ok::<(), gradwire_tcp::KeyError>(())
/// ```
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; 32]>);

/// Why a key could not be made, read or written. No variant contains bytes of the key or of the file.
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the file, and the value that came or the cause")]
pub enum KeyError {
    /// The file cannot be read or written.
    File { path: PathBuf, error: io::Error },
    /// The permissions of the file (`mode`) let other users read it.
    Readable { path: PathBuf, mode: u32 },
    /// The text is not 64 hexadecimal digits. `length` is its length in bytes.
    Format { length: usize },
    /// `/dev/urandom` cannot be read.
    Random,
}

impl Key {
    /// A new random key.
    ///
    /// # Errors
    /// When `/dev/urandom` cannot be read.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        let mut source = File::open("/dev/urandom").map_err(|_| KeyError::Random)?;
        source.read_exact(&mut *bytes).map_err(|_| KeyError::Random)?;
        Ok(Self(bytes))
    }

    /// Reads a key from 64 hexadecimal digits. White space around them is ignored.
    ///
    /// # Errors
    /// When the text is not 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let digits = text.trim().as_bytes();
        let format = KeyError::Format { length: digits.len() };
        let mut bytes = Zeroizing::new([0; 32]);
        if digits.len() != 64 {
            return Err(format);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |c: u8| (c as char).to_digit(16);
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return Err(format) };
            *byte = (high << 4 | low) as u8;
        }
        Ok(Self(bytes))
    }

    /// Reads a key from a file, in the format of [`parse`](Self::parse).
    ///
    /// # Errors
    /// When the file cannot be read, other users can read it, or its content is not a key.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let failed = |error| KeyError::File { path: path.to_path_buf(), error };
        let file = File::open(path).map_err(failed)?;
        // Of the open file, not of the path: the path could be replaced between the check and the read.
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Readable { path: path.to_path_buf(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_MAX).read_to_string(&mut text).map_err(failed)?;
        Self::parse(&text)
    }

    /// The bytes of the key, for protocols other than this transport's. The copy is not wiped.
    pub fn to_bytes(&self) -> [u8; 32] {
        *self.0
    }

    /// Writes the key to a new file with mode 0600.
    ///
    /// # Errors
    /// When the file exists already, or cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        let failed = |error| KeyError::File { path: path.to_path_buf(), error };
        // The mode is set at creation: a later change would leave a moment in which other users can open the file.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let mut text = Zeroizing::new(String::with_capacity(65));
        for byte in self.0.iter() {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
            }
        }
        text.push('\n');
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "key {}: {error}", path.display()),
            Self::Readable { path, mode } => write!(
                f,
                "key {}: expected a file that only its owner can read (mode 0600), got mode {mode:04o}; run chmod 600, or \
                 give the key in the variable GRADWIRE_KEY, for instance from a Secret of Kubernetes",
                path.display()
            ),
            Self::Format { length: 64 } => {
                write!(f, "key: expected 64 hexadecimal digits, got 64 bytes of which some are not digits")
            }
            Self::Format { length } => write!(f, "key: expected 64 hexadecimal digits, got {length} bytes of text"),
            Self::Random => write!(f, "key: cannot read random bytes from /dev/urandom"),
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for KeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::File { error, .. } = self { Some(error) } else { None }
    }
}
