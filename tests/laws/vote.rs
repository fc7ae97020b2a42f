//! Majority votes: the length of their messages, and that signs without error feedback do not converge where signs with it
//! do.

use gradwire::{Cluster, Layout, PeerId, Recipe};
use gradwire_core::codec::sign;
use gradwire_core::wire::Kind;
use gradwire_sim::{App, Deed, Network, Plan, World};

use crate::{bits, plan, simulate};

/// Both ways, a message takes one bit per element, and a scale per 1,024 elements. Only the first answer, which a worker
/// gets before it holds anything, has floats, and the last, so that all workers end with the same parameters.
#[test]
fn votes_and_answers_take_a_bit_per_element() {
    const LEN: usize = 5000;
    let (workers, steps) = (3, 8);
    let recipe: Recipe = "sign-vote".parse().unwrap();
    let cluster = Cluster { workers, servers: 1 };
    let plan = Plan { network: Network::calm(), steps, ..Plan::new(1, Layout::flat(LEN), recipe, cluster) };
    let app = |me: PeerId| -> Box<dyn App> { Box::new(Slopes { me }) };
    let mut world = World::new(plan, app).unwrap();
    let mut sent = Vec::new();
    world
        .run(1_000_000, |world, _| {
            sent.extend(world.deeds().iter().filter_map(|(_, deed)| match deed {
                Deed::Sent { header, .. } => Some((header.message().kind(), header.length())),
                _ => None,
            }));
            Ok::<(), gradwire_sim::Halt>(())
        })
        .unwrap();
    let lengths = |kind: Kind| -> Vec<u32> {
        sent.iter().filter(|(of, length)| *of == kind && *length > 0).map(|(_, length)| *length).collect()
    };
    // 5,000 bits in words, and 5 scales.
    let expected = 4 * (5000u32.div_ceil(32) + 5);
    assert_eq!((expected, 4 * sign::words(LEN) as u32), (648, 648));
    let (pushes, answers) = (lengths(Kind::Push), lengths(Kind::Delta));
    assert_eq!(pushes, vec![expected; (u64::from(workers) * steps) as usize]);
    assert!(answers.len() >= (u64::from(workers) * (steps - 1)) as usize, "{} answers", answers.len());
    assert!(answers.iter().all(|length| *length == expected), "{answers:?}");
    assert!(lengths(Kind::Params).len() <= 2 * workers as usize);
    assert_eq!(bits(world.params(PeerId(0))), bits(world.params(PeerId(workers))));
}

/// The size of an element's gradients: they differ, so that signs with a common scale lose something.
fn size(element: usize) -> f32 {
    (1 + element % 3) as f32 / 64.0
}

/// The gradients of the counter-example of Karimireddy et al. 2019 (section 3, counterexample 1): f(w) = w / 4, from
/// examples of slope 4 and -1. Three of four have -1.
struct Slopes {
    me: PeerId,
}

impl App for Slopes {
    fn duration(&mut self, _step: u64) -> std::time::Duration {
        std::time::Duration::from_micros(10 + u64::from(self.me.0))
    }

    fn update(&mut self, step: u64, _params: &[f32], update: &mut [f32]) -> u32 {
        let slope = if (step + u64::from(self.me.0)).is_multiple_of(4) { 4.0 } else { -1.0 };
        update.iter_mut().enumerate().for_each(|(i, x)| *x = slope * size(i));
        1
    }
}

/// The mean gradient is positive, so the parameters should fall. Signs alone raise them, by their majority; with error
/// feedback, the signs fall as the mean does.
#[test]
fn signs_need_error_feedback_to_converge() {
    let (steps, workers) = (2000, 4);
    let end = |recipe: &str| {
        let app = |me: PeerId| -> Box<dyn App> { Box::new(Slopes { me }) };
        let mut world = World::new(plan(recipe.parse().unwrap(), workers, steps), app).unwrap();
        world.run(1_000_000, |_, _| Ok::<(), gradwire_sim::Halt>(())).unwrap();
        world.params(PeerId(0)).to_vec()
    };
    let mean = end("hardsync");
    for (i, (mean, fed)) in mean.iter().zip(end("hardsync codec=sign")).enumerate() {
        assert_eq!(*mean, -(steps as f32) / 4.0 * size(i), "element {i}");
        assert!((fed - mean).abs() < 0.1 * mean.abs(), "element {i}: with error feedback {fed}, the mean {mean}");
    }
    // At each step, one of the four workers has the slope 4.
    let rises = vec![steps as f32 / 64.0; crate::LEN];
    assert_eq!(end("hardsync merge=vote length=0.015625"), rises);
    assert_eq!(end("hardsync merge=vote length=0.015625 codec=sign decay=0"), rises);
}

/// Signs on the wire are the signs of floats, whatever the shards.
#[test]
fn votes_as_bits_are_votes_as_floats() {
    let run = |words: &str| {
        let recipe: Recipe = format!("hardsync merge=vote length=0.0625 {words}").parse().unwrap();
        bits(simulate(plan(recipe, 4, 12), crate::Steps::Jittered, None).0.params(PeerId(0)))
    };
    let floats = run("");
    assert!(floats.iter().any(|x| f32::from_bits(*x) != 0.0));
    for words in ["codec=sign decay=0", "codec=sign scope=column decay=0", "codec=bf16 decay=0", "shards=3"] {
        assert_eq!(run(words), floats, "{words}");
    }
    assert_eq!(run("outer=momentum mu=0"), floats);
    assert_ne!(run("outer=momentum mu=0.5"), floats);
}
