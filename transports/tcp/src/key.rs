//! The key that the nodes of a cluster share: 32 random bytes, as 64 hexadecimal digits in a file of its own.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest file that is read.
const FILE_MAX: u64 = 4096;

/// A cluster's key. Whoever has it can take part; it is shown by nothing, and wiped when dropped.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; 32]>);

/// Why there is no key. None of these shows what was read.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum KeyError {
    /// The file cannot be read or written.
    File { path: PathBuf, error: io::Error },
    /// Others on this host can read the file.
    Readable { path: PathBuf, mode: u32 },
    /// Not 64 hexadecimal digits.
    Format { length: usize },
    /// The system gives no random bytes.
    Random,
}

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        let mut source = File::open("/dev/urandom").map_err(|_| KeyError::Random)?;
        source.read_exact(&mut *bytes).map_err(|_| KeyError::Random)?;
        Ok(Self(bytes))
    }

    /// Reads 64 hexadecimal digits, with white space around them.
    ///
    /// # Errors
    /// When they are none.
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

    /// Reads it from a file that only its owner can read.
    ///
    /// # Errors
    /// When there is none, others can read it, or it holds something else.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let failed = |error| KeyError::File { path: path.to_path_buf(), error };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Readable { path: path.to_path_buf(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_MAX).read_to_string(&mut text).map_err(failed)?;
        Self::parse(&text)
    }

    /// Its bytes, for who proves to have it in a way of their own.
    pub fn to_bytes(&self) -> [u8; 32] {
        *self.0
    }

    /// Writes it to a new file that only its owner can read.
    ///
    /// # Errors
    /// When the file is there already, or cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        let failed = |error| KeyError::File { path: path.to_path_buf(), error };
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
                "key {}: expected a file that only its owner can read (mode 0600), got mode {mode:04o}",
                path.display()
            ),
            Self::Format { length } => write!(f, "key: expected 64 hexadecimal digits, got {length} other characters"),
            Self::Random => write!(f, "key: the system gives no random bytes"),
        }
    }
}

impl std::error::Error for KeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::File { error, .. } = self { Some(error) } else { None }
    }
}
