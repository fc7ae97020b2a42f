//! Properties of threshold bodies and controllers: exactness, order, budgets, damage, densities.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::decode::sections;
use super::*;

/// Words of a map of touched lines: enough for the ledgers of all tests.
const MAP: usize = 64;
use crate::codec::Encoded;
use crate::kernel::ledger::{Ledger, words};
use crate::kernel::threshold::QUANTA_MAX;
use crate::kernel::tier::Tier;

const UNIT: f32 = 1.0 / 16384.0;
const TAU: f32 = 1.0 / 64.0;

fn parts(lens: &[usize]) -> Vec<Section> {
    let mut first = 0;
    let section = |len: &usize| {
        let section = Section { first, len: *len as u32, threshold: TAU, bits: 0.0 };
        first += section.len;
        section
    };
    lens.iter().map(section).collect()
}

/// An encoder with its buffers.
struct Sender {
    residual: Vec<f32>,
    parts: Vec<Section>,
    scratch: Vec<u32>,
    body: Vec<u32>,
}

impl Sender {
    fn new(lens: &[usize]) -> Self {
        let len = lens.iter().sum();
        let body = vec![0xabad_cafe; words_max(lens.iter().copied())];
        Self { residual: vec![0.0; len], parts: parts(lens), scratch: vec![0; 2 * len], body }
    }

    fn send(&mut self, aim: Aim, update: Option<&[f32]>) -> (Encoded, Vec<u32>) {
        let Self { residual, parts, scratch, body } = self;
        let encoded = encode(Tier::best(), aim, update, residual, parts, scratch, body);
        (encoded, body[..encoded.bytes as usize / 4].to_vec())
    }
}

fn aim(control: Control) -> Aim {
    Aim::of(&Threshold { control, ..Threshold::fixed(TAU) }, 1.0)
}

fn controls() -> impl Strategy<Value = Aim> {
    let bytes = (64u32..400).prop_map(|bytes| Control::Budget { bytes });
    let density = (0.001f32..1.0).prop_map(|density| Control::Density { density });
    (prop_oneof![Just(Control::Fixed), Just(Control::Band), bytes, density], any::<bool>())
        .prop_map(|(control, dense)| Aim { dense, ..aim(control) })
}

/// Contributions in multiples of 2^-10, so that sums are exact.
fn updates(len: usize) -> impl Strategy<Value = Vec<Vec<i32>>> {
    prop::collection::vec(prop::collection::vec(prop_oneof![9 => -12i32..12, 1 => -4000i32..4000], len), 1..12)
}

proptest! {
    /// With any controller and any sections, ledger plus residual equals the sum of the updates, exactly.
    /// Ledgers are equal for any order of messages. The last message of a leaver leaves less than a unit.
    #[test]
    fn ledger_plus_residual_is_the_sum_of_updates(updates in updates(90), aim in controls(), split in any::<bool>()) {
        let lens: &[usize] = if split { &[10, 1, 79] } else { &[90] };
        let mut sender = Sender::new(lens);
        let (mut ledger, mut total, mut bodies) = (vec![0i32; words(90)], vec![0i64; 90], Vec::new());
        for update in &updates {
            let floats: Vec<f32> = update.iter().map(|x| *x as f32 / 1024.0).collect();
            let (_, body) = sender.send(aim, Some(&floats));
            prop_assert_eq!(add(&body, &sender.parts, UNIT, &mut Ledger::of(&mut ledger, &mut [0; MAP])), Ok(()));
            bodies.push(body);
            for i in 0..90 {
                total[i] += i64::from(update[i]);
                let sent = f64::from(ledger[i]) * f64::from(UNIT);
                prop_assert_eq!(sent + f64::from(sender.residual[i]), total[i] as f64 / 1024.0);
            }
        }
        let held = sender.residual.iter().fold(0f32, |most, r| most.max(r.abs()));
        let (encoded, body) = sender.send(Aim { dense: true, ..aim }, None);
        add(&body, &sender.parts, UNIT, &mut Ledger::of(&mut ledger, &mut [0; MAP])).unwrap();
        bodies.push(body);
        prop_assert!(encoded.squares == 0.0 || held > QUANTA_MAX as f32 * UNIT);
        let mut backwards = vec![0i32; words(90)];
        bodies.iter().rev().for_each(|body| add(body, &sender.parts, UNIT, &mut Ledger::of(&mut backwards, &mut [0; MAP])).unwrap());
        prop_assert_eq!(&backwards, &ledger);
        // Merging messages in pairs does not change the sum.
        let mut merged = vec![0i32; words(90)];
        for pair in bodies.chunks(2) {
            let [one, other] = pair else { add(&pair[0], &sender.parts, UNIT, &mut Ledger::of(&mut merged, &mut [0; MAP])).unwrap(); continue };
            match merge((one, other), &sender.parts, UNIT, &mut sender.scratch, &mut sender.body) {
                Ok(words) => add(&sender.body[..words], &sender.parts, UNIT, &mut Ledger::of(&mut merged, &mut [0; MAP])).unwrap(),
                Err(error) => {
                    prop_assert_eq!(error, MergeError::TooMany);
                    pair.iter().for_each(|body| add(body, &sender.parts, UNIT, &mut Ledger::of(&mut merged, &mut [0; MAP])).unwrap());
                }
            }
        }
        prop_assert_eq!(&merged, &ledger);
    }

    /// Also not that of several tensors together.
    #[test]
    fn no_body_exceeds_its_budget(updates in updates(200), bytes in 64u32..300, split in any::<bool>()) {
        let lens: &[usize] = if split { &[90, 110] } else { &[200] };
        let mut sender = Sender::new(lens);
        for update in updates {
            let floats: Vec<f32> = update.iter().map(|x| *x as f32 / 1024.0).collect();
            let (encoded, _) = sender.send(aim(Control::Budget { bytes }), Some(&floats));
            prop_assert!(encoded.bytes <= bytes, "{} bytes, {bytes} allowed", encoded.bytes);
        }
    }

    /// A refused body leaves the ledger unchanged.
    #[test]
    fn damaged_bodies_are_refused_or_canonical(
        updates in updates(60), at in any::<prop::sample::Index>(), bit in 0u32..32, cut in any::<bool>())
    {
        let mut sender = Sender::new(&[40, 20]);
        for update in updates {
            let floats: Vec<f32> = update.iter().map(|x| *x as f32 / 1024.0).collect();
            let (_, mut body) = sender.send(aim(Control::Fixed), Some(&floats));
            let at = at.index(body.len());
            if cut { body.truncate(at) } else { body[at] ^= 1 << bit }
            let mut ledger: Vec<i32> = (0..60).map(|i| i * 7919).collect();
            ledger.resize(words(60), 0);
            let before = ledger.clone();
            if add(&body, &sender.parts, UNIT, &mut Ledger::of(&mut ledger, &mut [0; MAP])).is_err() {
                prop_assert_eq!(ledger, before);
            } else {
                // Encoding the decoded floats with the tau of each section gives the same words.
                let mut floats = vec![0.0; 60];
                expand(&body, &sender.parts, UNIT, &mut floats).unwrap();
                let reencoded: Vec<u32> = sections(&body, &sender.parts, UNIT)
                    .flat_map(|section| {
                        let (part, header, _) = section.unwrap();
                        let floats = &floats[part.first as usize..(part.first + part.len) as usize];
                        let mut one = Sender::new(&[part.len as usize]);
                        one.send(Aim { tau: header.tau, ..aim(Control::Fixed) }, Some(floats)).1
                    })
                    .collect();
                prop_assert_eq!(reencoded, body);
            }
        }
    }
}

#[test]
fn a_mask_zeroes_the_velocity_of_sent_elements_only() {
    let mut sender = Sender::new(&[5, 35]);
    let update: Vec<f32> = (0..40).map(|i| if i % 7 == 3 { -2.0 * TAU } else { TAU / 2.0 }).collect();
    let (_, body) = sender.send(aim(Control::Fixed), Some(&update));
    let mut velocity = update.clone();
    mask(&body, &sender.parts, UNIT, &mut velocity).unwrap();
    for (i, (velocity, update)) in velocity.iter().zip(&update).enumerate() {
        assert_eq!(*velocity, if i % 7 == 3 { 0.0 } else { *update }, "{i}");
    }
}

/// The largest floats, and sums that are not finite, neither panic nor loop.
#[test]
fn the_residual_stays_finite_for_any_values() {
    let controls = [Control::Fixed, Control::Band, Control::Density { density: 0.1 }, Control::Budget { bytes: 64 }];
    for control in controls {
        for update in [[3e38; 40], [f32::MAX; 40], [f32::NAN; 40]] {
            let mut sender = Sender::new(&[40]);
            for _ in 0..3 {
                let (_, body) = sender.send(aim(control), Some(&update));
                let mut floats = vec![0.0; 40];
                expand(&body, &sender.parts, UNIT, &mut floats).unwrap();
                assert!(sender.residual.iter().all(|r| r.is_finite()), "{control:?}");
            }
        }
    }
}

/// Sums, the first index and the largest threshold are over all sections.
#[test]
fn what_an_encoder_reports_is_of_all_sections() {
    let update = |bad: &[usize]| {
        let mut update: Vec<f32> = (0..160).map(|i| (i % 13) as f32 * if i < 100 { TAU } else { TAU / 4.0 }).collect();
        bad.iter().for_each(|i| update[*i] = f32::NAN);
        update
    };
    for (bad, first) in [(vec![20, 130, 140], 20), (vec![130, 140], 130)] {
        let mut sender = Sender::new(&[100, 60]);
        let (encoded, _) = sender.send(aim(Control::Density { density: 0.3 }), Some(&update(&bad)));
        assert_eq!((encoded.non_finite, encoded.first_non_finite), (bad.len() as u32, Some(first)));
        let squares: f64 = sender.residual.iter().map(|r| f64::from(*r) * f64::from(*r)).sum();
        assert!((encoded.squares - squares).abs() <= 1e-5 * squares, "{} {squares}", encoded.squares);
        let [one, other] = [0, 1].map(|part| sender.parts[part].threshold);
        assert!(one > other && encoded.threshold == one, "{one} {other}");
    }
}

/// A message that did not fit is encoded again from the residual, in which these elements are not.
#[test]
fn elements_that_are_not_finite_count_also_in_a_second_attempt() {
    let mut update = vec![TAU * 3.0; 400];
    update[7] = f32::INFINITY;
    let mut sender = Sender::new(&[400]);
    sender.parts[0].bits = 1e-3;
    let (encoded, _) = sender.send(aim(Control::Budget { bytes: 64 }), Some(&update));
    assert!(encoded.bytes <= 64 && encoded.threshold > 3.0 * TAU);
    assert_eq!((encoded.non_finite, encoded.first_non_finite), (1, Some(7)));
}

/// The threshold of a band stays between the smallest and the largest quantum.
#[test]
fn a_band_stays_within_the_quanta_of_the_run() {
    let mut sender = Sender::new(&[10]);
    (0..400).for_each(|_| drop(sender.send(aim(Control::Band), Some(&[0.0; 10]))));
    assert_eq!(sender.parts[0].threshold, UNIT);
    (0..800).for_each(|_| drop(sender.send(aim(Control::Band), Some(&[100.0; 10]))));
    assert_eq!(sender.parts[0].threshold, aim(Control::Band).tau_max());
}

/// The rank follows from the bits that an entry of the last message took. A message without entries tells nothing.
#[test]
fn a_budget_counts_the_bits_of_the_last_entries() {
    let rank = |bits| {
        let section = Section { first: 0, len: 10_000, threshold: TAU, bits };
        match control::choose(&aim(Control::Budget { bytes: 416 }), &section, 10_000) {
            control::Choice::Sampled(sample) => sample.rank,
            choice => panic!("{choice:?}"),
        }
    };
    // 400 bytes without the header, less 5 %.
    assert_eq!([0.0, 16.0, 8.0, 32.0].map(rank), [190, 190, 380, 95]);
    let mut sender = Sender::new(&[100]);
    sender.parts[0].bits = 9.0;
    sender.send(aim(Control::Budget { bytes: 64 }), Some(&[0.0; 100]));
    assert_eq!(sender.parts[0].bits, 9.0);
}

/// As many quanta as an entry can have are merged, and no more.
#[test]
fn merged_counts_reach_the_largest_count() {
    let body = |count: u32| Sender::new(&[4]).send(aim(Control::Fixed), Some(&[0.0, count as f32 * TAU, 0.0, 0.0])).1;
    let mut into = vec![0; words_max([4])];
    let mut merged = |one, other| merge((&body(one), &body(other)), &parts(&[4]), UNIT, &mut [0; 8], &mut into);
    assert!(merged(QUANTA_MAX - 2, 2).is_ok());
    assert_eq!(merged(QUANTA_MAX - 2, 3), Err(MergeError::TooMany));
}

/// A list is extended by all entries of a body or by none.
#[test]
fn a_malformed_body_adds_nothing_to_a_list() {
    let mut sender = Sender::new(&[300, 400]);
    let update: Vec<f32> = (0..700).map(|i| if i % 3 == 0 { TAU } else { 0.0 }).collect();
    let (_, good) = sender.send(aim(Control::Fixed), Some(&update));
    let mut refused = 0;
    for (word, bit) in (0..good.len()).flat_map(|word| (0..32).map(move |bit| (word, bit))) {
        let mut body = good.clone();
        body[word] ^= 1 << bit;
        let mut all = vec![(5, 6)];
        if list(&body, &sender.parts, UNIT, &mut all).is_err() {
            refused += 1;
            assert_eq!(all, [(5, 6)]);
        }
    }
    assert!(refused > 100, "{refused}");
}

/// On exponential data, one sample gives a density within 10 % of the target. A higher target density does
/// not raise the threshold.
#[test]
fn a_sampled_threshold_gives_the_target_density() {
    let len = 1 << 20;
    let mut state = 1u64;
    let update: Vec<f32> = (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let uniform = ((state >> 40) as f32 + 0.5) / (1u64 << 24) as f32;
            -uniform.ln() * 1e-3 * if state >> 39 & 1 == 0 { 1.0 } else { -1.0 }
        })
        .collect();
    let mut last = f32::INFINITY;
    for density in [1e-3, 3.6e-3, 1e-2, 1e-1] {
        let mut sender = Sender::new(&[len]);
        let (encoded, _) = sender.send(aim(Control::Density { density }), Some(&update));
        let got = encoded.entries as f32 / len as f32;
        assert!((got / density - 1.0).abs() < 0.1, "{got} for {density}");
        assert!(encoded.threshold <= last);
        last = encoded.threshold;
    }
}

/// DL4J's rule: twenty steps halve or double the threshold, and within the band it does not change.
#[test]
fn the_band_controller_follows_dl4j() {
    let mut sender = Sender::new(&[1000]);
    let quiet = vec![0.0; 1000];
    for step in 1..=20 {
        sender.send(aim(Control::Band), Some(&quiet));
        let expected = TAU * 0.5f32.powf(step as f32 / 20.0);
        assert!((sender.parts[0].threshold / expected - 1.0).abs() < 1e-5, "step {step}");
    }
    // A density of 1e-3 is within the band.
    let within: Vec<f32> = (0..1000).map(|i| if i == 3 { TAU } else { 0.0 }).collect();
    let before = sender.parts[0].threshold;
    sender.send(aim(Control::Band), Some(&within));
    assert_eq!(sender.parts[0].threshold, before);
    // A density of 2e-2 is above the band.
    let above: Vec<f32> = (0..1000).map(|i| if i < 20 { TAU } else { 0.0 }).collect();
    sender.send(aim(Control::Band), Some(&above));
    assert!((sender.parts[0].threshold / before - 2f32.powf(1.0 / 20.0)).abs() < 1e-5);
}

#[test]
fn a_tau_outside_of_the_run_is_refused() {
    use alloc::string::ToString;
    let mut sender = Sender::new(&[4]);
    let (_, good) = sender.send(aim(Control::Fixed), Some(&[TAU, 0.0, -TAU, 0.0]));
    for tau in [0.0, -TAU, f32::NAN, f32::INFINITY, 1e-40, 0.3, UNIT / 2.0, UNIT * 131_072.0] {
        let mut body = good.clone();
        body[1] = tau.to_bits();
        let error = add(&body, &sender.parts, UNIT, &mut Ledger::of(&mut [0; words(4)], &mut [0; MAP]))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("body: expected a tau that is a power of two from 6.1035156e-5 to 4e0, got "),
            "{error}"
        );
    }
    let error = |body: &[u32]| {
        add(body, &sender.parts, UNIT, &mut Ledger::of(&mut [0; words(4)], &mut [0; MAP])).unwrap_err().to_string()
    };
    assert_eq!(error(&[]), "body: expected at least 16 more bytes, got 0");
    assert_eq!(error(&good[..3]), "body: expected at least 16 more bytes, got 12");
    assert_eq!(error(&[good.clone(), vec![0]].concat()), "body: expected 20 bytes of entries, got 24");
    assert_eq!(error(&[good[0], good[1], 7, good[3], good[4]]), "body: expected a form from 0 to 3, got 7");
    assert_eq!(
        error(&[good[0], good[1], 0, u32::MAX, good[4]]),
        "body: expected at least 4294967295 more bytes, got 4"
    );
    // The last of two entries does not fit: the first one is taken back.
    let mut ledger = [-5, 0, i32::MIN, 0, 1, 0, 0, i32::MIN, 0];
    let before = ledger;
    let full = add(&good, &sender.parts, UNIT, &mut Ledger::of(&mut ledger, &mut [0; MAP])).unwrap_err().to_string();
    assert_eq!(ledger, before);
    assert_eq!(full, "body: expected a sum of quanta within 64 bits at index 2, got more");
}
