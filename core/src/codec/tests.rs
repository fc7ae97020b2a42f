use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::kernel::tier::Tier;

type Encode = fn(Tier, Option<&[f32]>, &mut [f32], &mut [u32]) -> Dense;
type Expand = fn(Tier, &[u32], &mut [f32]) -> Result<(), BodyError>;

/// A codec by its functions.
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
    /// I-51: what is sent plus what is kept is what came in (to one rounding where a scale is coarser than the
    /// element); every tier does the same; what a decoder accepts is what an encoder writes for it.
    #[test]
    fn dense_codecs_lose_nothing(update in floats()) {
        for case in &CASES {
            let mut first: Option<(Vec<u32>, Vec<u32>)> = None;
            for tier in Tier::all() {
                let (mut residual, mut body) = (vec![0.0; update.len()], vec![u32::MAX; (case.words)(update.len())]);
                let dense = (case.encode)(tier, Some(&update), &mut residual, &mut body);
                prop_assert_eq!(dense.non_finite, 0);
                let mut said = vec![f32::NAN; update.len()];
                prop_assert_eq!((case.expand)(tier, &body, &mut said), Ok(()), "{}", case.name);
                for i in 0..update.len() {
                    let (sum, x) = (f64::from(said[i]) + f64::from(residual[i]), f64::from(update[i]));
                    prop_assert!((sum - x).abs() <= f64::from(said[i]).abs().max(x.abs()) * 6e-8, "{}: {sum} {x}", case.name);
                }
                let (mut rest, mut again) = (vec![0.0; update.len()], vec![0; body.len()]);
                (case.encode)(tier, Some(&said), &mut rest, &mut again);
                prop_assert_eq!(&again, &body, "{} is not canonical", case.name);
                let result = (bits(&residual), body);
                prop_assert_eq!(first.get_or_insert_with(|| result.clone()), &result, "{}", case.name);
            }
        }
    }

    /// Words of any kind are refused or canonical.
    #[test]
    fn damaged_bodies_are_refused_or_canonical(update in floats(), at in any::<prop::sample::Index>(), word in any::<u32>(), bit in 0u32..32) {
        prop_assume!(!update.is_empty());
        for case in &CASES {
            let (mut residual, mut body) = (vec![0.0; update.len()], vec![0; (case.words)(update.len())]);
            (case.encode)(Tier::best(), Some(&update), &mut residual, &mut body);
            let at = at.index(body.len());
            body[at] = if word & 1 == 0 { word } else { body[at] ^ 1 << bit };
            let mut said = vec![0.0; update.len()];
            if (case.expand)(Tier::best(), &body, &mut said).is_ok() {
                let mut again = vec![0; body.len()];
                residual.fill(0.0);
                (case.encode)(Tier::best(), Some(&said), &mut residual, &mut again);
                // The one thing that a sum cannot keep is the sign of a zero.
                let zero = said.iter().any(|x| x.to_bits() == 1 << 31);
                prop_assert!(again == body || zero, "{}", case.name);
            }
        }
    }

    /// bf16 and f16 are the nearest.
    #[test]
    fn halves_are_the_nearest(x in any::<f32>()) {
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

    /// The k largest, the first of equals; I-54: with k = n, nothing is kept.
    #[test]
    fn topk_takes_the_largest(update in floats(), share in 0.0f32..1.0) {
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
        let mut said = vec![f32::NAN; update.len()];
        topk::expand(&body, &mut said).unwrap();
        prop_assert_eq!(&said, &expected);
        for i in 0..update.len() {
            prop_assert_eq!(residual[i], if said[i] == 0.0 { update[i] } else { 0.0 });
        }
        prop_assert!(count < update.len() || residual.iter().all(|r| *r == 0.0));
    }

    #[test]
    fn damaged_topk_is_refused(update in floats(), at in any::<prop::sample::Index>(), bit in 0u32..32, cut in any::<bool>()) {
        prop_assume!(!update.is_empty());
        let count = topk::count(update.len(), 0.1);
        let (mut residual, mut scratch) = (vec![0.0; update.len()], vec![0; update.len()]);
        let mut body = vec![0; topk::words_max(update.len(), update.len())];
        let encoded = topk::encode(count, Some(&update), &mut residual, &mut scratch, &mut body);
        body.truncate(encoded.bytes as usize / 4);
        let at = at.index(body.len());
        if cut { body.truncate(at) } else { body[at] ^= 1 << bit }
        let mut said = vec![0.0; update.len()];
        if topk::expand(&body, &mut said).is_ok() {
            let (mut rest, mut again) = (vec![0.0; update.len()], vec![0; topk::words_max(update.len(), update.len())]);
            let entries = said.iter().filter(|x| **x != 0.0).count().max(1);
            let encoded = topk::encode(entries, Some(&said), &mut rest, &mut scratch, &mut again);
            prop_assert_eq!(&again[..encoded.bytes as usize / 4], &body[..]);
        }
    }
}

/// What is not finite is left out, named, and touches nothing.
#[test]
fn what_is_not_finite_is_left_out() {
    for case in &CASES {
        let (mut residual, mut body) = (vec![0.0; 200], vec![0; (case.words)(200)]);
        let mut update = vec![1.0; 200];
        (update[70], update[199]) = (f32::NAN, f32::NEG_INFINITY);
        let dense = (case.encode)(Tier::best(), Some(&update), &mut residual, &mut body);
        assert_eq!((dense.non_finite, dense.first_non_finite), (2, Some(70)), "{}", case.name);
        assert!(residual.iter().all(|r| r.is_finite()) && dense.squares.is_finite());
    }
}

#[test]
fn dense_errors_say_expected_and_got() {
    let error = |result: Result<(), BodyError>| result.unwrap_err().to_string();
    let tier = Tier::best();
    assert_eq!(error(bf16::expand(tier, &[0; 3], &mut [0.0; 3])), "body: expected 8 bytes, got 12");
    assert_eq!(
        error(bf16::expand(tier, &[0, 1 << 16], &mut [0.0; 3])),
        "body: expected zeros after the last entry, got 0x1"
    );
    assert_eq!(error(f16::expand(tier, &[0x7c00], &mut [0.0; 1])), "body: expected a finite value at index 0, got inf");
    assert_eq!(
        error(bf16::expand(tier, &[0x7fc0], &mut [0.0; 1])),
        "body: expected a finite value at index 0, got NaN"
    );
    assert_eq!(
        error(int8::expand(tier, &[127, 1], &mut [0.0; 1])),
        "body: expected the scale that fits block 0, got 1e0"
    );
    assert_eq!(
        error(int8::expand(tier, &[127, 0x80], &mut [0.0; 1])),
        "body: expected the scale that fits block 0, got 1e0"
    );
    assert_eq!(
        error(sign::expand(tier, &[0.3f32.to_bits(), 0], &mut [0.0; 1])),
        "body: expected the scale that fits block 0, got 3e-1"
    );
    assert_eq!(
        error(sign::expand(tier, &[1f32.to_bits(), 2], &mut [0.0; 1])),
        "body: expected zeros after the last entry, got 0x1"
    );
    assert_eq!(
        error(topk::expand(&[1, 0, 1, 1 << 7, 0], &mut [0.0; 1])),
        "body: expected a finite value at index 0, got 0"
    );
}
