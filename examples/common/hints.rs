//! Hints of a run: each kind is reported once per process.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// The hints so far. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Hints(Arc<Mutex<Vec<String>>>);

impl Hints {
    /// Adds a hint, unless one of its kind is known. Nodes give a hint with numbers of their own, so the text before the
    /// first number tells kinds apart. Returns true if the hint is new.
    pub fn add(&self, text: &str) -> bool {
        let kind = |text: &str| text.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default().to_string();
        let mut hints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = hints.iter().all(|known| kind(known) != kind(text));
        if new {
            hints.push(text.to_string());
        }
        new
    }

    /// Adds a hint, and prints it if it is new and not `quiet`.
    pub fn report(&self, text: &str, quiet: bool) {
        if self.add(text) && !quiet {
            let _ = writeln!(std::io::stderr(), "hint: {text}");
        }
    }

    pub fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A JSON array. The texts of hints have no quotes and no backslashes.
    pub fn json(&self) -> String {
        let quoted: Vec<String> = self.texts().iter().map(|text| format!("\"{text}\"")).collect();
        format!("[{}]", quoted.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradwire::recipe::Hint;

    #[test]
    fn each_kind_is_reported_once() {
        let hints = Hints::default();
        let nothing = |messages| Hint::NothingSent { messages, tau: 0.5 }.to_string();
        let late = Hint::LateElements { density: 0.01, messages: 30 }.to_string();
        assert!(hints.add(&nothing(20)) && hints.add(&late) && hints.add(&Hint::DensePull.to_string()));
        assert!(hints.add(&Hint::ResidualGrows { updates: 30.0 }.to_string()));
        assert!(!hints.add(&nothing(21)) && !hints.add(&late));
        assert_eq!(hints.clone().texts().len(), 4);
        assert!(hints.json().starts_with("[\"the last 20 messages") && hints.json().ends_with("\"]"));
    }
}
