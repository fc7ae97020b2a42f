//! What all nodes of a run must agree on: protocol, cluster, recipe and layout, as a text of one fact per line.
//! A digest is compared first; where it differs, the texts are, and the first differing line is named.

use alloc::string::{String, ToString};
use core::fmt::Write;

use crate::id::Cluster;
use crate::layout::Layout;
use crate::recipe::Recipe;
use crate::wire::{CONTRACT_LEN_MAX, VERSION};

/// Length and digest of a contract's text.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    pub(crate) length: u32,
    pub(crate) digest: u64,
}

impl Contract {
    /// The contract of a run, and its text. `extras` counts the optimizer vectors that travel along.
    pub fn new(layout: &Layout, recipe: &Recipe, cluster: Cluster, extras: u32) -> (Self, String) {
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
        // A layout of thousands of tensors: its head is compared by line, the whole of it by digest.
        if text.len() > CONTRACT_LEN_MAX as usize {
            let mut end = CONTRACT_LEN_MAX as usize - 40;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            let _ = write!(text, "\nall of it = {digest:016x}");
        }
        (Self { length: text.len() as u32, digest }, text)
    }

    /// The digest.
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

/// FNV-1a: guards against mistakes, not against people.
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
        let digest = |layout: &Layout, recipe: Recipe, cluster, extras| {
            Contract::new(layout, &recipe, cluster, extras).0.digest()
        };
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
        let (contract, text) = Contract::new(&layout, &Recipe::sync(), CLUSTER, 0);
        assert!(contract.length <= CONTRACT_LEN_MAX && contract.length as usize == text.len());
        let (other, _) = Contract::new(&layout.tensor("one more", &[1]), &Recipe::sync(), CLUSTER, 0);
        assert_ne!(contract.digest(), other.digest());
    }
}
