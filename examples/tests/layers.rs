//! The example `layers`: gradients that travel layer by layer train as whole gradients do, bit for bit.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../layers.rs"]
mod layers;

use gradwire::{Mem, Recipe};

#[test]
fn gradients_given_by_layer_train_as_whole_gradients() {
    for text in [
        "gradients",
        "gradients chunk=64",
        "gradients topology=ring chunk=50 codec=int8",
        "gradients topology=mesh codec=topk density=0.3",
    ] {
        let recipe: Recipe = text.parse().unwrap();
        let [whole, by_layer] =
            [false, true].map(|by_layer| layers::run(Mem::cluster(3), recipe, 100, by_layer).unwrap());
        assert_eq!(whole, by_layer, "{text}");
        assert!(whole.iter().all(|params| params == &whole[0]), "{text}: workers differ");
        let [before, after] = [0, 100].map(|rounds| {
            let params = layers::run(Mem::cluster(1), recipe, rounds, true).unwrap();
            layers::loss(&params[0])
        });
        assert!(after < before / 2.0, "{text}: {before} before and {after} after training");
    }
}
