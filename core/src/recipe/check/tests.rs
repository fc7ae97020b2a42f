//! Limits that every part of a recipe has: both codecs, the end, the corrections, and the lengths that depend on them.

use super::*;

const CLUSTER: Cluster = Cluster { workers: 2, servers: 1 };

fn threshold(change: impl Fn(Threshold) -> Threshold) -> Codec {
    Codec::Threshold(change(Threshold::fixed(0.5)))
}

fn topk(density: f32) -> Codec {
    Codec::TopK(TopK::all(density))
}

/// The field that is out of range.
fn field(recipe: &Recipe) -> Option<&'static str> {
    match recipe.check(2) {
        Ok(()) => None,
        Err(ConfigError::OutOfRange { field, .. }) => Some(field),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn both_codecs_are_checked() {
    let base = Recipe::asynchronous();
    for (codec, expected) in [
        (threshold(|it| it), None),
        (threshold(|it| Threshold { tau: 0.0, ..it }), Some("tau")),
        (threshold(|it| Threshold { tau: f32::NAN, ..it }), Some("tau")),
        (threshold(|it| Threshold { clip: -1.0, ..it }), Some("clip")),
        (threshold(|it| Threshold { clip: f32::INFINITY, ..it }), Some("clip")),
        (threshold(|it| Threshold { clip: f32::NAN, ..it }), Some("clip")),
        (threshold(|it| Threshold { control: Control::Budget { bytes: 63 }, ..it }), Some("budget")),
        (threshold(|it| Threshold { control: Control::Density { density: 1.5 }, ..it }), Some("density")),
        (topk(1.0), None),
        (topk(0.0), Some("density")),
        (topk(f32::NAN), Some("density")),
    ] {
        assert_eq!(field(&base.with_codec(codec)), expected, "{codec:?}");
        assert_eq!(field(&base.with_pull(codec)), expected, "{codec:?}");
    }
}

#[test]
fn the_end_and_the_corrections_are_checked() {
    let base = Recipe::asynchronous().with_codec(topk(0.1));
    assert_eq!(field(&base.with_end(End::Spread { messages: 0 })), Some("messages"));
    assert_eq!(field(&base.with_end(End::Spread { messages: 1 })), None);
    let corrected = |change: fn(&mut Correction)| {
        let mut correction = Correction::none();
        change(&mut correction);
        field(&base.with_correction(correction))
    };
    assert_eq!(corrected(|it| it.clip_norm = 1.0), None);
    assert_eq!(corrected(|it| it.clip_norm = -1.0), Some("clip_norm"));
    assert_eq!(corrected(|it| it.clip_norm = f32::INFINITY), Some("clip_norm"));
    assert_eq!(corrected(|it| it.clip_norm = f32::NAN), Some("clip_norm"));
    assert_eq!(corrected(|it| it.momentum = 1.0), Some("momentum"));
    assert_eq!(corrected(|it| it.momentum = -0.5), Some("momentum"));
}

/// A budget has room for every tensor, in both directions.
#[test]
fn the_budgets_of_both_codecs_have_room_for_all_tensors() {
    let codec = threshold(|it| Threshold { control: Control::Budget { bytes: 200 }, per_tensor: true, ..it });
    for recipe in [Recipe::asynchronous().with_codec(codec), Recipe::asynchronous().with_pull(codec)] {
        assert!(recipe.check_budget(3).is_ok() && recipe.check_budget(4).is_err());
    }
}

/// A top-k body can be longer than the vector, if it carries most of the elements at the start or at the end.
#[test]
fn long_vectors_are_refused_where_a_body_would_be_too_long() {
    let too_long = |recipe: Recipe, len: usize| match recipe.check_cluster(CLUSTER, len) {
        Ok(()) => false,
        Err(ConfigError::TooLong { .. }) => true,
        Err(error) => panic!("{error}"),
    };
    let base = Recipe::asynchronous().with_topology(Topology::Servers { shards: 1 });
    for (recipe, limit) in [
        (base, LEN_MAX),
        (base.with_codec(topk(0.5)), TOP_K_LEN_MAX),
        (base.with_pull(topk(0.5)), TOP_K_LEN_MAX),
        (base.with_codec(topk(0.1)), LEN_MAX),
        (base.with_codec(topk(0.1)).with_end(End::Send), TOP_K_LEN_MAX),
    ] {
        assert!(!too_long(recipe, limit) && too_long(recipe, limit + 1), "{recipe}");
    }
    let mesh = |len| Recipe::mesh(0.5).check_cluster(Cluster { servers: 0, ..CLUSTER }, len);
    let limit = ledger::LEN_MAX;
    assert_eq!(mesh(limit), Ok(()));
    assert_eq!(mesh(limit + 1), Err(ConfigError::TooLong { what: "the vector", len: limit + 1, limit }));
}

#[test]
fn all_faults_are_listed_the_most_basic_first() {
    let cluster = Cluster { workers: 4, servers: 0 };
    let faults = |text: &str| -> Vec<alloc::string::String> {
        text.parse::<Recipe>().unwrap().faults(cluster, 1000).iter().map(alloc::string::ToString::to_string).collect()
    };
    assert_eq!(faults("sync"), Vec::<alloc::string::String>::new());
    let both = faults("ssp lambda=0 optimizer=reset");
    assert_eq!(both.len(), 3, "{both:?}");
    assert!(both[0].starts_with("lambda: ") && both[1].starts_with("optimizer=reset or average requires "));
    assert!(both[2].starts_with("servers: expected at least 1 server node, got 0 (servers are nodes of their own"));
    assert_eq!(faults("hardsync shards=0").len(), 2);
}
