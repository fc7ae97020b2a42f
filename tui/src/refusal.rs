//! Why a monitor has no connection, and the remedy, in words.

use std::io::{Error, ErrorKind};

/// How far a connection came before it failed.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No greeting of a board has come.
    Greeting,
    /// The subscription was sent, and no frame has come.
    Subscribed,
    /// Frames have come.
    Following,
}

/// The reason for a failure. `has_key`: dtop was given a key.
pub(crate) fn words(stage: Stage, error: &Error, has_key: bool) -> String {
    let closed = matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
    );
    match (stage, error.kind()) {
        (Stage::Greeting, ErrorKind::ConnectionRefused) => {
            "nothing listens there; has the run ended, or another port? (its option --monitor)".into()
        }
        (Stage::Greeting, ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            "no greeting of a monitor within 2 s; expected the address of --monitor, not of another service".into()
        }
        (Stage::Greeting, _) if closed => {
            "closed before a greeting; expected the address of --monitor, not the next port".into()
        }
        (Stage::Subscribed, _) if closed && has_key => {
            "turned away: the key is not that of this run; expected the file of its --monitor-key-file".into()
        }
        (Stage::Subscribed, _) if closed => {
            "turned away: this run needs a key; expected --key-file with the file of its --monitor-key-file".into()
        }
        (Stage::Following, _) if closed => {
            "closed by the run: its process has ended, or more than 8 monitors watch".into()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        for (stage, kind, has_key, word) in [
            (Stage::Greeting, ErrorKind::ConnectionRefused, false, "nothing listens"),
            (Stage::Greeting, ErrorKind::WouldBlock, false, "no greeting"),
            (Stage::Greeting, ErrorKind::UnexpectedEof, true, "not the next port"),
            (Stage::Subscribed, ErrorKind::UnexpectedEof, false, "needs a key"),
            (Stage::Subscribed, ErrorKind::ConnectionReset, true, "not that of this run"),
            (Stage::Following, ErrorKind::UnexpectedEof, true, "more than 8 monitors"),
        ] {
            let text = words(stage, &kind.into(), has_key);
            assert!(text.contains(word), "{text}");
        }
        let other = Error::new(ErrorKind::InvalidData, "another reason");
        assert_eq!(words(Stage::Greeting, &other, false), "another reason");
    }
}
