//! The contract of a run: protocol version, cluster, recipe and layout, and notes of the application, on which all
//! nodes must agree.
//!
//! Nodes compare digests when they say hello. Where the digests differ, the texts are compared, and the first line that
//! differs is reported with both values.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;

use crate::id::Cluster;
use crate::layout::Layout;
use crate::recipe::{Recipe, Topology};
use crate::wire::{CONTRACT_LEN_MAX, VERSION};

/// The facts that all nodes of a run must agree on, as a text of one fact per line, and the text's digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    text: Arc<str>,
    digest: u64,
    lasting_digest: u64,
}

/// A fact of the application on which all nodes must agree, such as the seed or the batch size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractNote {
    /// The name of the fact.
    pub key: String,
    /// Its value, as text.
    pub value: String,
}

impl Contract {
    /// The contract of a run. `extras` is the number of optimizer vectors that are averaged with the parameters.
    pub fn new(layout: &Layout, recipe: &Recipe, cluster: Cluster, extras: u32) -> Self {
        Self::with_notes(layout, recipe, cluster, extras, &[])
    }

    /// The contract of a run with `notes` of its application. Control characters in notes become spaces, and a note is
    /// cut after 200 characters, but its whole value enters the digest.
    pub fn with_notes(layout: &Layout, recipe: &Recipe, cluster: Cluster, extras: u32, notes: &[ContractNote]) -> Self {
        let lasting = Self::write(layout, recipe, cluster, extras, "");
        // Before the layout, because the end of the text may be cut.
        let mut lines = String::new();
        for ContractNote { key, value } in notes {
            let plain = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<Vec<char>>();
            let line = [&plain(key)[..], &[' ', '=', ' '], &plain(value)].concat();
            lines.extend(line.iter().take(NOTE_MAX));
            // The rest is compared by its digest.
            if line.len() > NOTE_MAX {
                let _ = write!(lines, "… ({:016x})", fnv1a(value.as_bytes()));
            }
            lines.push('\n');
        }
        let text = Self::write(layout, recipe, cluster, extras, &lines);
        let (digest, lasting_digest) = (fnv1a(text.as_bytes()), fnv1a(lasting.as_bytes()));
        Self { text: cut(text, digest).into(), digest, lasting_digest }
    }

    /// The whole text. `notes`: the lines of the application.
    fn write(layout: &Layout, recipe: &Recipe, cluster: Cluster, extras: u32, notes: &str) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "protocol = {VERSION}");
        let _ = writeln!(text, "workers = {}", cluster.workers);
        let _ = writeln!(text, "servers = {}", cluster.servers);
        for word in recipe.to_string().split(' ') {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let _ = writeln!(text, "{key} = {value}");
        }
        let _ = writeln!(text, "optimizer vectors = {extras}");
        text.push_str(notes);
        let _ = writeln!(text, "parameters = {}", layout.len());
        if recipe.topology == Topology::Auto {
            // Behind what it follows from, so that a difference there is named first.
            let _ = writeln!(text, "topology chosen = {}", recipe.fitted(cluster, layout.len()).topology.name());
        }
        layout.describe(&mut text);
        text
    }

    /// The text, at most [`CONTRACT_LEN_MAX`] bytes.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes of the text.
    pub(crate) fn len(&self) -> u32 {
        self.text.len() as u32
    }

    /// The digest of the whole contract, also of the part that did not fit into the text.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The digest of the contract without its notes, for checkpoints: a run may go on with another learning rate, or
    /// for more epochs.
    pub fn lasting_digest(&self) -> u64 {
        self.lasting_digest
    }
}

/// The text travels in a hello of bounded length. Of a layout with thousands of tensors, the end is compared by digest
/// only.
fn cut(mut text: String, digest: u64) -> String {
    if text.len() > CONTRACT_LEN_MAX as usize {
        let mut end = CONTRACT_LEN_MAX as usize - 40;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        let _ = write!(text, "\nall of it = {digest:016x}");
    }
    text
}

/// Characters of a note in the text.
const NOTE_MAX: usize = 200;

/// FNV-1a: protects against mistakes, not against attacks.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    const CLUSTER: Cluster = Cluster { workers: 4, servers: 1 };

    #[test]
    fn everything_that_matters_changes_the_digest() {
        let layout = Layout::new().tensor("a", &[2, 3]).tensor("b", &[4]);
        let digest =
            |layout: &Layout, recipe: Recipe, cluster, extras| Contract::new(layout, &recipe, cluster, extras).digest();
        let ours = digest(&layout, Recipe::ssp(3), CLUSTER, 0);
        assert_eq!(ours, digest(&layout.clone(), Recipe::ssp(3), CLUSTER, 0));
        let renamed = Layout::new().tensor("a", &[2, 3]).tensor("c", &[4]);
        let reshaped = Layout::new().tensor("a", &[3, 2]).tensor("b", &[4]);
        for other in [
            digest(&renamed, Recipe::ssp(3), CLUSTER, 0),
            digest(&reshaped, Recipe::ssp(3), CLUSTER, 0),
            digest(&layout, Recipe::ssp(4), CLUSTER, 0),
            digest(&layout, Recipe::ssp(3), Cluster { workers: 5, servers: 1 }, 0),
            digest(&layout, Recipe::ssp(3), CLUSTER, 1),
        ] {
            assert_ne!(ours, other);
        }
    }

    #[test]
    fn a_topology_that_is_chosen_stands_behind_its_reasons() {
        let text = |len| Contract::new(&Layout::flat(len), &Recipe::sync(), CLUSTER, 0).text().to_string();
        let (short, long) = (text(1000), text(100_000));
        assert!(short.contains("topology = auto\n") && short.contains("topology chosen = tree\n"), "{short}");
        let first = short.lines().zip(long.lines()).find(|(ours, theirs)| ours != theirs);
        assert_eq!(first, Some(("parameters = 1000", "parameters = 100000")));
        assert!(long.contains("topology chosen = ring\n"));
    }

    #[test]
    fn a_layout_of_thousands_of_tensors_still_fits() {
        let layout = (0..5000).fold(Layout::new(), |layout, i| layout.tensor(&format!("block.{i}.wéight"), &[3]));
        let contract = Contract::new(&layout, &Recipe::sync(), CLUSTER, 0);
        assert!(contract.len() <= CONTRACT_LEN_MAX);
        let other = Contract::new(&layout.tensor("one more", &[1]), &Recipe::sync(), CLUSTER, 0);
        assert_ne!(contract.digest(), other.digest());
    }

    /// A note is a line of the text, in front of the layout. It changes the digest, and not that of checkpoints.
    #[test]
    fn notes_are_lines_of_the_contract() {
        let layout = Layout::new().tensor("a", &[2, 3]);
        let with = |key: &str, value: &str| {
            let note = ContractNote { key: key.to_string(), value: value.to_string() };
            Contract::with_notes(&layout, &Recipe::sync(), CLUSTER, 0, &[note])
        };
        let (none, one) = (Contract::new(&layout, &Recipe::sync(), CLUSTER, 0), with("seed", "1"));
        assert!(one.text().contains("\nseed = 1\nparameters = 6\n"), "{}", one.text());
        assert_ne!(one.digest(), none.digest());
        assert_ne!(one.digest(), with("seed", "2").digest());
        assert_eq!(one.lasting_digest(), none.lasting_digest());
        assert_eq!(none.lasting_digest(), none.digest());
        // A note cannot pass for another line, and long values differ by their ends.
        assert!(!with("seed", "1\nparameters = 7").text().contains("\nparameters = 7"));
        let long = |end: &str| with("data", &("x".repeat(5000) + end));
        assert_ne!(long("a").digest(), long("b").digest());
        assert_ne!(long("a").text(), long("b").text());
        assert!(long("a").text().len() < 2000);
    }
}
