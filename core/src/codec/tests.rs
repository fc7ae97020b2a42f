//! Properties of the dense codecs and of top-k: lossless with their residual, canonical, equal in all tiers.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::kernel::tier::Tier;

type Encode = fn(Tier, Option<&[f32]>, &mut [f32], &mut [u32]) -> Dense;
type Expand = fn(Tier, &[u32], &mut [f32]) -> Result<(), BodyError>;

/// The functions of a dense codec.
struct Case {
    name: &'static str,
    words: fn(usize) -> usize,
    encode: Encode,
    expand: Expand,
}

const CASES: [Case; 5] = [
    Case {
        name: "f32",
        words: |len| len,
        encode: |_, u, r, b| float32::encode(u, r, b),
        expand: |_, b, i| float32::expand(b, i),
    },
    Case { name: "bf16", words: bf16::words, encode: bf16::encode, expand: bf16::expand },
    Case { name: "f16", words: f16::words, encode: f16::encode, expand: f16::expand },
    Case { name: "int8", words: int8::words, encode: int8::encode, expand: int8::expand },
    Case { name: "sign", words: sign::words, encode: sign::encode, expand: sign::expand },
];

fn floats() -> impl Strategy<Value = Vec<f32>> {
    let any_float =
        prop_oneof![20 => -1f32..1.0, 2 => -1e6f32..1e6, 1 => prop::sample::select(vec![0.0, -0.0, 1e-40, 7e4, 3e38])];
    (0usize..300).prop_flat_map(move |len| prop::collection::vec(any_float.clone(), len))
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    /// Decoded body plus residual equals the update, up to one rounding where the scale is coarser than the
    /// element. All tiers write the same bits, and encoding the decoded vector gives the same body.
    #[test]
    fn dense_codecs_are_lossless_with_their_residual_and_canonical(update in floats()) {
        for case in &CASES {
            let mut first: Option<(Vec<u32>, Vec<u32>)> = None;
            for tier in Tier::all() {
                let (mut residual, mut body) = (vec![0.0; update.len()], vec![u32::MAX; (case.words)(update.len())]);
                let dense = (case.encode)(tier, Some(&update), &mut residual, &mut body);
                prop_assert_eq!(dense.non_finite, 0);
                let mut decoded = vec![f32::NAN; update.len()];
                prop_assert_eq!((case.expand)(tier, &body, &mut decoded), Ok(()), "{}", case.name);
                for i in 0..update.len() {
                    let (sum, x) = (f64::from(decoded[i]) + f64::from(residual[i]), f64::from(update[i]));
                    let limit = f64::from(decoded[i]).abs().max(x.abs()) * 6e-8;
                    prop_assert!((sum - x).abs() <= limit, "{}: {sum} {x}", case.name);
                }
                // A tiny negative element is decoded as -0.0. A residual of 0.0 would lose the sign, and one of -0.0 does not.
                let (mut rest, mut reencoded) = (vec![-0.0; update.len()], vec![0; body.len()]);
                (case.encode)(tier, Some(&decoded), &mut rest, &mut reencoded);
                prop_assert_eq!(&reencoded, &body, "{} is not canonical", case.name);
                let result = (bits(&residual), body);
                prop_assert_eq!(first.get_or_insert_with(|| result.clone()), &result, "{}", case.name);
            }
        }
    }

    #[test]
    fn damaged_bodies_are_refused_or_canonical(
        update in floats(), at in any::<prop::sample::Index>(), word in any::<u32>(), bit in 0u32..32)
    {
        prop_assume!(!update.is_empty());
        for case in &CASES {
            let (mut residual, mut body) = (vec![0.0; update.len()], vec![0; (case.words)(update.len())]);
            (case.encode)(Tier::best(), Some(&update), &mut residual, &mut body);
            let at = at.index(body.len());
            body[at] = if word & 1 == 0 { word } else { body[at] ^ 1 << bit };
            let mut decoded = vec![0.0; update.len()];
            if (case.expand)(Tier::best(), &body, &mut decoded).is_ok() {
                let mut reencoded = vec![0; body.len()];
                residual.fill(0.0);
                (case.encode)(Tier::best(), Some(&decoded), &mut residual, &mut reencoded);
                // -0.0 is the exception: the encoder adds it to a residual of 0.0, which loses the sign.
                let zero = decoded.iter().any(|x| x.to_bits() == 1 << 31);
                prop_assert!(reencoded == body || zero, "{}", case.name);
            }
        }
    }

    #[test]
    fn bf16_and_f16_round_to_the_nearest(x in any::<f32>()) {
        prop_assume!(x.is_finite());
        for (narrow, widen, most) in [
            (bf16::narrow as fn(f32) -> u16, bf16::widen as fn(u16) -> f32, 0x7f7fu16),
            (f16::narrow, f16::widen, 0x7bff),
        ] {
            let near = narrow(x);
            let off = |half: u16| (f64::from(widen(half)) - f64::from(x)).abs();
            prop_assert!(near & 0x7fff <= most);
            prop_assert_eq!(near >> 15, (x.to_bits() >> 31) as u16);
            let magnitude = near & 0x7fff;
            let sign = near & 0x8000;
            if magnitude < most { prop_assert!(off(near) <= off(sign | (magnitude + 1))); }
            if magnitude > 0 { prop_assert!(off(near) <= off(sign | (magnitude - 1))); }
            prop_assert_eq!(narrow(widen(near)), near);
        }
    }

    /// Among equal magnitudes the lowest indices are sent. With k = n, the residual is 0.
    #[test]
    fn topk_sends_the_largest(update in floats(), share in 0.0f32..1.0) {
        prop_assume!(!update.is_empty());
        let count = topk::count(update.len(), share);
        let (mut residual, mut scratch) = (vec![0.0; update.len()], vec![0; update.len()]);
        let mut body = vec![0; topk::words_max(update.len(), count)];
        let encoded = topk::encode(count, Some(&update), &mut residual, &mut scratch, &mut body);
        body.truncate(encoded.bytes as usize / 4);
        let mut order: Vec<usize> = (0..update.len()).collect();
        order.sort_by_key(|i| (core::cmp::Reverse(update[*i].to_bits() & 0x7fff_ffff), *i));
        let mut expected = vec![0.0; update.len()];
        order[..count].iter().filter(|i| update[**i] != 0.0).for_each(|i| expected[*i] = update[*i]);
        let mut decoded = vec![f32::NAN; update.len()];
        topk::expand(&body, &mut decoded).unwrap();
        prop_assert_eq!(&decoded, &expected);
        for i in 0..update.len() {
            prop_assert_eq!(residual[i], if decoded[i] == 0.0 { update[i] } else { 0.0 });
        }
        prop_assert!(count < update.len() || residual.iter().all(|r| *r == 0.0));
    }

    #[test]
    fn damaged_topk_bodies_are_refused_or_canonical(
        update in floats(), at in any::<prop::sample::Index>(), bit in 0u32..32, cut in any::<bool>())
    {
        prop_assume!(!update.is_empty());
        let count = topk::count(update.len(), 0.1);
        let (mut residual, mut scratch) = (vec![0.0; update.len()], vec![0; update.len()]);
        let mut body = vec![0; topk::words_max(update.len(), update.len())];
        let encoded = topk::encode(count, Some(&update), &mut residual, &mut scratch, &mut body);
        body.truncate(encoded.bytes as usize / 4);
        let at = at.index(body.len());
        if cut { body.truncate(at) } else { body[at] ^= 1 << bit }
        let mut decoded = vec![0.0; update.len()];
        if topk::expand(&body, &mut decoded).is_ok() {
            let (mut rest, mut reencoded) = (vec![0.0; update.len()], vec![0; topk::words_max(update.len(), update.len())]);
            let entries = decoded.iter().filter(|x| **x != 0.0).count().max(1);
            let encoded = topk::encode(entries, Some(&decoded), &mut rest, &mut scratch, &mut reencoded);
            prop_assert_eq!(&reencoded[..encoded.bytes as usize / 4], &body[..]);
        }
    }
}

#[test]
fn elements_that_are_not_finite_are_left_out_and_counted() {
    for case in &CASES {
        let (mut residual, mut body) = (vec![0.0; 200], vec![0; (case.words)(200)]);
        let mut update = vec![1.0; 200];
        (update[70], update[199]) = (f32::NAN, f32::NEG_INFINITY);
        let dense = (case.encode)(Tier::best(), Some(&update), &mut residual, &mut body);
        assert_eq!((dense.non_finite, dense.first_non_finite), (2, Some(70)), "{}", case.name);
        assert!(residual.iter().all(|r| r.is_finite()) && dense.squares.is_finite());
    }
}

/// A vector of several blocks and passes with two elements that are not finite, behind the first pass.
fn long() -> Vec<f32> {
    let mut update: Vec<f32> = (0..10_000).map(|i| (i % 89) as f32 * 0.013 - 0.5).collect();
    (update[5000], update[9999]) = (f32::NAN, f32::INFINITY);
    update
}

/// The sum of squares of a residual, as an encoder reports it.
fn assert_squares(name: &str, got: f64, residual: &[f32]) {
    let expected: f64 = residual.iter().map(|r| f64::from(*r) * f64::from(*r)).sum();
    assert!((got - expected).abs() <= 1e-5 * expected, "{name}: {got}, expected {expected}");
}

/// Counts and sums are those of the whole vector, and indices count from its start.
#[test]
fn what_an_encoder_reports_is_of_the_whole_vector() {
    let update = long();
    for case in &CASES {
        let (mut residual, mut body) = (vec![0.0; update.len()], vec![0; (case.words)(update.len())]);
        let dense = (case.encode)(Tier::best(), Some(&update), &mut residual, &mut body);
        assert_eq!((dense.non_finite, dense.first_non_finite), (2, Some(5000)), "{}", case.name);
        assert_squares(case.name, dense.squares, &residual);
    }
    let (mut residual, mut scratch) = (vec![0.0; update.len()], vec![0; update.len()]);
    let mut body = vec![0; topk::words_max(update.len(), 500)];
    let encoded = topk::encode(500, Some(&update), &mut residual, &mut scratch, &mut body);
    assert_eq!((encoded.entries, encoded.non_finite, encoded.first_non_finite), (500, 2, Some(5000)));
    assert_squares("topk", encoded.squares, &residual);
    let mut least = f32::INFINITY;
    let body = &body[..encoded.bytes as usize / 4];
    topk::read(body, update.len(), |_, value| least = least.min(value.abs())).unwrap();
    assert_eq!(encoded.threshold, least);
}

#[test]
fn a_top_k_list_has_single_entries() {
    let (mut list, mut body) = ([0; 2], vec![0; topk::HEADER_WORDS + entries::words_max(40) + 1]);
    let used = crate::kernel::threshold::Entry { index: 7, count: 2 }.write(&mut list);
    let (form, words) = entries::write(&list[..used], 1, 40, &mut body[topk::HEADER_WORDS..]);
    body[..topk::HEADER_WORDS].copy_from_slice(&[1, form as u32, words as u32]);
    body[topk::HEADER_WORDS + words] = 1f32.to_bits();
    body.truncate(topk::HEADER_WORDS + words + 1);
    assert_eq!(topk::expand(&body, &mut [0.0; 40]), Err(BodyError::Count { limit: 1, index: 7 }));
}

#[test]
fn errors_name_the_expected_and_the_found_value() {
    let error = |result: Result<(), BodyError>| result.unwrap_err().to_string();
    let tier = Tier::best();
    assert_eq!(error(bf16::expand(tier, &[0; 3], &mut [0.0; 3])), "body: expected 8 bytes, got 12");
    assert_eq!(
        error(bf16::expand(tier, &[0, 1 << 16], &mut [0.0; 3])),
        "body: expected zeros after the last entry, got 0x1"
    );
    assert_eq!(
        error(f16::expand(tier, &[0x7c00], &mut [0.0; 1])),
        "body: expected a finite value (above 0 in top-k) at index 0, got inf"
    );
    assert_eq!(
        error(bf16::expand(tier, &[0x7fc0], &mut [0.0; 1])),
        "body: expected a finite value (above 0 in top-k) at index 0, got NaN"
    );
    assert_eq!(
        error(int8::expand(tier, &[127, 1], &mut [0.0; 1])),
        "body: expected a scale that fits the elements of block 0, got 1e0"
    );
    assert_eq!(
        error(int8::expand(tier, &[127, 0x80], &mut [0.0; 1])),
        "body: expected a scale that fits the elements of block 0, got 1e0"
    );
    assert_eq!(
        error(sign::expand(tier, &[0.3f32.to_bits(), 0], &mut [0.0; 1])),
        "body: expected a scale that fits the elements of block 0, got 3e-1"
    );
    assert_eq!(
        error(sign::expand(tier, &[0, 1], &mut [0.0; 1])),
        "body: expected a scale that fits the elements of block 0, got 0e0"
    );
    assert_eq!(
        error(sign::expand(tier, &[1f32.to_bits(), 2], &mut [0.0; 1])),
        "body: expected zeros after the last entry, got 0x1"
    );
    assert_eq!(
        error(topk::expand(&[1, 0, 1, 1 << 7, 0], &mut [0.0; 1])),
        "body: expected a finite value (above 0 in top-k) at index 0, got 0"
    );
}

/// Long vectors are selected from the candidates of a sample, also where the sample is not typical: the entries are the
/// first of the largest, as by sorting.
#[test]
fn topk_of_a_long_vector_is_exact() {
    let len = 70_000;
    let noise = |i: usize| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1u32 << 24) as f32 - 0.5;
    let stride = len / 4096;
    /// An element, of its index, the stride of the sample, and noise.
    type Element = fn(usize, usize, f32) -> f32;
    let vectors: [(&str, Element); 5] = [
        ("noise", |_, _, noise| noise),
        ("large where the sample looks", |i, stride, noise| if i % stride == 0 { 9.0 + noise } else { noise }),
        ("small where the sample looks", |i, stride, noise| if i % stride == 0 { 0.0 } else { noise }),
        ("equal", |i, _, noise| 0.25f32.copysign(noise + (i % 2) as f32 - 0.5)),
        ("mostly zeros", |i, _, noise| if i % 1000 == 7 { noise } else { 0.0 }),
    ];
    for (name, of) in vectors {
        let update: Vec<f32> = (0..len).map(|i| of(i, stride, noise(i))).collect();
        for count in [1, 7, 70, 700, 7_000, 60_000] {
            let (mut residual, mut scratch) = (vec![0.0; len], vec![0; len]);
            let mut body = vec![0; topk::words_max(len, count)];
            let encoded = topk::encode(count, Some(&update), &mut residual, &mut scratch, &mut body);
            let mut order: Vec<usize> = (0..len).filter(|i| update[*i] != 0.0).collect();
            order.sort_by(|a, b| update[*b].abs().total_cmp(&update[*a].abs()));
            let mut expected = vec![0.0; len];
            order.iter().take(count).for_each(|i| expected[*i] = update[*i]);
            let mut decoded = vec![f32::NAN; len];
            topk::expand(&body[..encoded.bytes as usize / 4], &mut decoded).unwrap();
            assert!(decoded == expected, "{name}, {count}");
        }
    }
}
