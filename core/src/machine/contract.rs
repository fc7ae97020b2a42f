//! The contract of a run: protocol version, cluster, recipe and layout, on which all nodes must agree.
//!
//! Nodes compare digests when they say hello. Where the digests differ, the texts are compared, and the first line that
//! differs is reported with both values.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt::Write;

use crate::id::Cluster;
use crate::layout::Layout;
use crate::recipe::Recipe;
use crate::wire::{CONTRACT_LEN_MAX, VERSION};

/// The facts that all nodes of a run must agree on, as a text of one fact per line, and the text's digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    text: Arc<str>,
    digest: u64,
}

impl Contract {
    /// The contract of a run. `extras` is the number of optimizer vectors that are averaged with the parameters.
    pub fn new(layout: &Layout, recipe: &Recipe, cluster: Cluster, extras: u32) -> Self {
        let mut text = String::new();
        let _ = writeln!(text, "protocol = {VERSION}");
        let _ = writeln!(text, "workers = {}", cluster.workers);
        let _ = writeln!(text, "servers = {}", cluster.servers);
        for word in recipe.to_string().split(' ') {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let _ = writeln!(text, "{key} = {value}");
        }
        let _ = writeln!(text, "optimizer vectors = {extras}");
        let _ = writeln!(text, "parameters = {}", layout.len());
        layout.describe(&mut text);
        let digest = fnv1a(text.as_bytes());
        // The text travels in a hello, whose length is bounded. Of a layout with thousands of tensors, the end is
        // compared by digest only.
        if text.len() > CONTRACT_LEN_MAX as usize {
            let mut end = CONTRACT_LEN_MAX as usize - 40;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            let _ = write!(text, "\nall of it = {digest:016x}");
        }
        Self { text: text.into(), digest }
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
}

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
    fn a_layout_of_thousands_of_tensors_still_fits() {
        let layout = (0..5000).fold(Layout::new(), |layout, i| layout.tensor(&format!("block.{i}.wéight"), &[3]));
        let contract = Contract::new(&layout, &Recipe::sync(), CLUSTER, 0);
        assert!(contract.len() <= CONTRACT_LEN_MAX);
        let other = Contract::new(&layout.tensor("one more", &[1]), &Recipe::sync(), CLUSTER, 0);
        assert_ne!(contract.digest(), other.digest());
    }
}
