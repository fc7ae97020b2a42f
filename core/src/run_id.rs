//! [`RunId`]: the name of a run.

use core::fmt;
use core::str::FromStr;

/// The name of a run: 1 to 64 letters, digits, dots, underscores and hyphens.
///
/// Nodes of different runs refuse each other, and the checkpoints of a run have a directory of their own. A name must
/// not begin with a dot, so that it can be the name of a directory.
///
/// ```
/// use gradwire_core::RunId;
///
/// let run: RunId = "slurm-4711.0".parse()?;
/// assert_eq!(run.as_str(), "slurm-4711.0");
/// assert_eq!("a b".parse::<RunId>().unwrap_err().to_string(), "run name: expected letters, digits, '.', '_' or '-', got ' '");
/// // Names of launchers may have other characters.
/// assert_eq!(RunId::from_text("prte@host:1"), Some("prte_host_1".parse()?));
/// # Ok::<(), gradwire_core::RunIdError>(())
/// ```
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId {
    /// The text, padded with zeros.
    bytes: [u8; LEN_MAX],
}

/// Why a text is not the name of a run.
#[derive(Copy, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the value that came")]
pub enum RunIdError {
    /// The text is empty, or longer than [`RunId::LEN_MAX`] bytes.
    Length { got: usize },
    /// A character that a name cannot have.
    Character { got: char },
    /// The first character is a dot.
    Dot,
}

impl RunId {
    /// The greatest length in bytes.
    pub const LEN_MAX: usize = LEN_MAX;

    /// A name made of a random number: 16 hexadecimal digits.
    pub fn drawn(random: u64) -> Self {
        let mut bytes = [0; Self::LEN_MAX];
        for (i, byte) in bytes[..16].iter_mut().enumerate() {
            *byte = b"0123456789abcdef"[(random >> (60 - 4 * i)) as usize & 15];
        }
        Self { bytes }
    }

    /// A name made of a text from elsewhere, such as a launcher's name of a job. Characters that a name cannot have
    /// become underscores; the end of a long text is replaced by a digest of the whole. `None`: the text is empty.
    pub fn from_text(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let mut bytes = [0; Self::LEN_MAX];
        for (to, c) in bytes.iter_mut().zip(text.chars()) {
            *to = if is_allowed(c) { c as u8 } else { b'_' };
        }
        if bytes[0] == b'.' {
            bytes[0] = b'_';
        }
        if text.chars().count() > Self::LEN_MAX {
            let digest = Self::drawn(fnv1a(text.as_bytes()));
            bytes[Self::LEN_MAX - 16..].copy_from_slice(&digest.bytes[..16]);
        }
        Some(Self { bytes })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let len = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(Self::LEN_MAX);
        // All bytes are ASCII.
        core::str::from_utf8(&self.bytes[..len]).unwrap_or_default()
    }

    /// The name as bytes, padded with zeros.
    pub fn to_bytes(&self) -> [u8; Self::LEN_MAX] {
        self.bytes
    }

    /// The name in bytes that [`to_bytes`](Self::to_bytes) has returned. `None`: they are no name.
    pub fn from_bytes(bytes: &[u8; Self::LEN_MAX]) -> Option<Self> {
        let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(Self::LEN_MAX);
        let run = core::str::from_utf8(&bytes[..len]).ok()?.parse().ok()?;
        bytes[len..].iter().all(|byte| *byte == 0).then_some(run)
    }

    /// A digest of the name for hellos, never 0.
    pub fn tag(&self) -> u64 {
        fnv1a(self.as_str().as_bytes()).max(1)
    }
}

/// The most bytes of a name, exported as [`RunId::LEN_MAX`].
const LEN_MAX: usize = 64;

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// FNV-1a: protects against mistakes, not against attacks.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl FromStr for RunId {
    type Err = RunIdError;

    fn from_str(text: &str) -> Result<Self, RunIdError> {
        let got = text.len();
        if let Some(got) = text.chars().find(|c| !is_allowed(*c)) {
            return Err(RunIdError::Character { got });
        }
        if got == 0 || got > Self::LEN_MAX {
            return Err(RunIdError::Length { got });
        }
        if text.starts_with('.') {
            return Err(RunIdError::Dot);
        }
        let mut bytes = [0; Self::LEN_MAX];
        bytes[..got].copy_from_slice(text.as_bytes());
        Ok(Self { bytes })
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunId({})", self.as_str())
    }
}

impl fmt::Display for RunIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { got } => write!(f, "run name: expected 1 to {} characters, got {got}", RunId::LEN_MAX),
            Self::Character { got } => {
                write!(f, "run name: expected letters, digits, '.', '_' or '-', got {got:?}")
            }
            Self::Dot => write!(f, "run name: expected a first character that is no dot, got '.'"),
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for RunIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for RunIdError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_are_parsed_and_printed() {
        for text in ["a", "slurm-12.0", "A_b-9.z", &"x".repeat(64)] {
            let run: RunId = text.parse().unwrap();
            assert_eq!(run.to_string(), text);
            assert_eq!(RunId::from_bytes(&run.to_bytes()), Some(run));
        }
        for (text, error) in [
            ("", RunIdError::Length { got: 0 }),
            (&"x".repeat(65), RunIdError::Length { got: 65 }),
            ("a/b", RunIdError::Character { got: '/' }),
            ("a\0", RunIdError::Character { got: '\0' }),
            ("käse", RunIdError::Character { got: 'ä' }),
            ("..", RunIdError::Dot),
        ] {
            assert_eq!(text.parse::<RunId>(), Err(error));
        }
    }

    #[test]
    fn bytes_that_are_no_name_are_refused() {
        let mut bytes = "run".parse::<RunId>().unwrap().to_bytes();
        bytes[9] = b'x';
        assert_eq!(RunId::from_bytes(&bytes), None);
        assert_eq!(RunId::from_bytes(&[0; 64]), None);
    }

    #[test]
    fn texts_from_elsewhere_become_names() {
        let name = |text: &str| RunId::from_text(text).map(|run| run.to_string());
        assert_eq!(name("prterun-h-1@1"), Some("prterun-h-1_1".to_string()));
        assert_eq!(name(" .hidden"), Some("_hidden".to_string()));
        assert_eq!(name(""), None);
        // Long texts that differ only at the end stay different.
        let (a, b) = ("x".repeat(70), "x".repeat(69) + "y");
        assert_ne!(name(&a), name(&b));
        assert_eq!(name(&a).map(|name| name.len()), Some(64));
        assert_eq!(RunId::drawn(0x0123_4567_89ab_cdef).as_str(), "0123456789abcdef");
    }
}
