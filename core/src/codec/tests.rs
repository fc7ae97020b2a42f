//! Properties of the dense codecs and of top-k: lossless with their residual, canonical, equal in all tiers.

use alloc::string::ToString;
use alloc::vec::Vec;
use alloc::{format, vec};

use proptest::prelude::*;

use super::columns::Piece;
use super::threshold::Section;
use super::topk::Pick;
use super::*;
use crate::kernel::tier::Tier;
use crate::recipe::Values;

type Encode = fn(Tier, Option<&[f32]>, &mut [f32], &mut [u32]) -> Dense;
type Expand = fn(Tier, &[u32], &mut [f32]) -> Result<(), BodyError>;

/// The functions of a dense codec.
struct Case {
    name: &'static str,
    words: fn(usize) -> usize,
    encode: Encode,
    expand: Expand,
}

const CASES: [Case; 6] = [
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
    Case {
        name: "sign per column",
        words: |len| columns::words(len, columns::means(pieces(len))),
        encode: |tier, update, residual, body| {
            let sections: Vec<Section> = pieces(residual.len()).into_iter().map(Piece::section).collect();
            columns::encode(tier, update, residual, &sections, body)
        },
        expand: |tier, body, into| {
            let sections: Vec<Section> = pieces(into.len()).into_iter().map(Piece::section).collect();
            columns::expand(tier, body, &sections, into)
        },
    },
];

/// A vector of up to three tensors: a piece of one with 5 columns, one with more columns than a block, and one column.
fn pieces(len: usize) -> Vec<Piece> {
    let third = len / 3;
    let piece =
        |first: usize, len: usize, columns, phase| Piece { first: first as u32, len: len as u32, columns, phase };
    let all = [piece(0, third, 5, 2), piece(third, third, 200, 0), piece(2 * third, len - 2 * third, 1, 0)];
    all.into_iter().filter(|piece| piece.len > 0).collect()
}

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

    /// Of each chunk exactly the share of the largest, and among equal magnitudes the lowest indices. With k = n, the
    /// residual is 0.
    #[test]
    fn topk_sends_the_largest_of_each_chunk(update in floats(), share in 0.0f32..1.0, chunk in chunks()) {
        prop_assume!(!update.is_empty());
        let chunk = chunk.min(update.len());
        let count = topk::count(chunk, share);
        let pick = Pick { count: count as u32, chunk: chunk as u32, values: Values::F32 };
        let mut expected = vec![0.0; update.len()];
        for (first, x) in update.chunks(chunk).enumerate().map(|(i, x)| (i * chunk, x)) {
            let mut order: Vec<usize> = (0..x.len()).collect();
            order.sort_by_key(|i| (core::cmp::Reverse(x[*i].to_bits() & 0x7fff_ffff), *i));
            let most = (count * x.len() / chunk).max(1);
            order[..most].iter().filter(|i| x[**i] != 0.0).for_each(|i| expected[first + i] = x[*i]);
        }
        let (residual, body) = encoded(pick, &update);
        let mut decoded = vec![f32::NAN; update.len()];
        topk::expand(&body, chunk, &mut decoded).unwrap();
        prop_assert_eq!(&decoded, &expected);
        for i in 0..update.len() {
            prop_assert_eq!(residual[i], if decoded[i] == 0.0 { update[i] } else { 0.0 });
        }
        prop_assert!(count < chunk || residual.iter().all(|r| *r == 0.0));
    }

    /// Values of few bits: the same elements are sent, except the ones that round to 0. The residual keeps the rest, up
    /// to one rounding, and the decoded vector has the same body.
    #[test]
    fn values_of_few_bits_leave_the_rest_in_the_residual(
        update in floats(), share in 0.0f32..1.0, chunk in chunks(), kind in 1usize..4)
    {
        prop_assume!(!update.is_empty());
        let (chunk, values, means) = (chunk.min(update.len()), VALUES[kind], VALUES[kind] == Values::TwoMeans);
        let pick = Pick { count: topk::count(chunk, share) as u32, chunk: chunk as u32, values };
        let decode = |body: &[u32]| {
            let mut decoded = vec![f32::NAN; update.len()];
            topk::expand(body, chunk, &mut decoded).map(|()| decoded)
        };
        let exact = decode(&encoded(Pick { values: Values::F32, ..pick }, &update).1).unwrap();
        let (residual, body) = encoded(pick, &update);
        let decoded = decode(&body).unwrap();
        for (i, x) in update.iter().enumerate() {
            let (sum, x) = (f64::from(decoded[i]) + f64::from(residual[i]), f64::from(*x));
            let limit = f64::from(decoded[i]).abs().max(x.abs()) * 6e-8;
            prop_assert!((sum - x).abs() <= limit, "{} at {i}: {sum} {x}", pick.count);
            let sent = (exact[i] != 0.0, decoded[i] != 0.0);
            prop_assert!(sent.0 == sent.1 || (!means && sent.0), "{i}: {sent:?}");
            prop_assert!(decoded[i] == 0.0 || (decoded[i] > 0.0) == (update[i] > 0.0));
        }
        prop_assert_eq!(encoded(pick, &decoded).1, body);
    }

    #[test]
    fn damaged_topk_bodies_are_refused_or_canonical(
        update in floats(), at in any::<prop::sample::Index>(), bit in 0u32..32, cut in any::<bool>(),
        kind in 0usize..4, chunk in chunks())
    {
        prop_assume!(!update.is_empty());
        let (chunk, values) = (chunk.min(update.len()), VALUES[kind]);
        let pick = Pick { count: topk::count(chunk, 0.1) as u32, chunk: chunk as u32, values };
        let (_, mut body) = encoded(pick, &update);
        let at = at.index(body.len());
        if cut { body.truncate(at) } else { body[at] ^= 1 << bit }
        let mut decoded = vec![0.0; update.len()];
        if topk::expand(&body, chunk, &mut decoded).is_ok() {
            // The damage may have made it a body of another kind.
            let values = VALUES[(body[1] >> 8) as usize];
            prop_assert_eq!(encoded(Pick { count: chunk as u32, values, ..pick }, &decoded).1, body);
        }
    }
}

/// By their number in a body.
const VALUES: [Values; 4] = [Values::F32, Values::Int8, Values::TwoMeans, Values::F16];

/// Lengths of chunks: a few elements, several blocks of a list, and more than the vector has.
fn chunks() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1, 7, 64, 130, 4096])
}

/// The residual and the body of a message over this vector alone.
fn encoded(pick: Pick, update: &[f32]) -> (Vec<f32>, Vec<u32>) {
    let (mut residual, mut scratch) = (vec![0.0; update.len()], vec![0; 2 * update.len()]);
    let mut body = vec![u32::MAX; topk::words_max(update.len(), pick)];
    let encoded = topk::encode(pick, Some(update), &mut residual, &mut scratch, &mut body);
    body.truncate(encoded.bytes as usize / 4);
    (residual, body)
}

/// The two means of a column equal the means of a naive loop, and the residual sums to 0 for each column and sign.
#[test]
fn a_column_is_decoded_as_the_means_of_its_signs() {
    // A piece that begins within a row of 300 columns, and a tensor of one dimension.
    let pieces = [
        Piece { first: 0, len: 12_345, columns: 300, phase: 70 },
        Piece { first: 12_345, len: 1000, columns: 1, phase: 0 },
    ];
    let sections = pieces.map(Piece::section);
    let update: Vec<f32> = (0..13_345).map(|i| ((i * 37 % 101) as f32 - 30.0) / 16.0).collect();
    let (mut residual, means) = (vec![0.0; update.len()], columns::means(pieces));
    let mut body = vec![u32::MAX; columns::words(update.len(), means)];
    columns::encode(Tier::best(), Some(&update), &mut residual, &sections, &mut body);
    let mut decoded = vec![f32::NAN; update.len()];
    columns::expand(Tier::best(), &body, &sections, &mut decoded).unwrap();
    for (piece, column) in pieces.iter().flat_map(|piece| (0..piece.columns).map(move |column| (piece, column))) {
        for negative in [false, true] {
            let of = (0..piece.len).filter(|i| (piece.phase + i) % piece.columns == column);
            let of: Vec<usize> =
                of.map(|i| (piece.first + i) as usize).filter(|i| (update[*i] < 0.0) == negative).collect();
            assert!(of.len() > 3, "column {column}");
            let mean = of.iter().map(|i| f64::from(update[*i])).sum::<f64>() / of.len() as f64;
            assert!(of.iter().all(|i| (f64::from(decoded[*i]) - mean).abs() < 1e-6), "column {column}");
            let rest: f64 = of.iter().map(|i| f64::from(residual[*i])).sum();
            assert!(rest.abs() < 1e-5 * of.len() as f64, "column {column}: the residual sums to {rest}");
        }
    }
}

/// Two means are the best two values for given signs, and leave a residual that sums to 0 for each chunk and sign.
#[test]
fn two_means_are_the_best_values_for_given_signs() {
    let update: Vec<f32> = (0..1000).map(|i| ((i * 37 % 101) as f32 - 48.0) / 16.0).collect();
    let pick = Pick { count: 60, chunk: 300, values: Values::TwoMeans };
    let (residual, body) = encoded(pick, &update);
    let mut decoded = vec![0.0; update.len()];
    topk::expand(&body, 300, &mut decoded).unwrap();
    for chunk in 0..4 {
        for sign in [1.0, -1.0] {
            let range = chunk * 300..(chunk * 300 + 300).min(1000);
            let sent: Vec<usize> = range.filter(|i| decoded[*i] * sign > 0.0).collect();
            assert!(sent.len() > 3, "{chunk}, {sign}: {} elements", sent.len());
            let sum: f64 = sent.iter().map(|i| f64::from(residual[*i])).sum();
            assert!(sum.abs() < 1e-5 * sent.len() as f64, "{chunk}, {sign}: the residuals sum to {sum}");
            let error =
                |off: f32| -> f64 { sent.iter().map(|i| f64::from(update[*i] - decoded[*i] - off).powi(2)).sum() };
            assert!(error(0.0) < error(1e-3) && error(0.0) < error(-1e-3), "{chunk}, {sign}");
        }
    }
}

/// Half precision: magnitudes that it cannot express stay in the residual, whether too large, too small or in between.
#[test]
fn half_precision_saturates_and_leaves_the_rest() {
    let update = [1.0, -65504.0, 65505.0, -1e30, f32::MAX, 2049.0, -6e-8, 2.9e-8, 1e-30, 0.0];
    let sent = [1.0, -65504.0, 65504.0, -65504.0, 65504.0, 2048.0, -5.960_464_5e-8, 0.0, 0.0, 0.0];
    let pick = Pick { values: Values::F16, ..Pick::whole(10, 10) };
    let (residual, body) = encoded(pick, &update);
    let mut decoded = [f32::NAN; 10];
    topk::expand(&body, 10, &mut decoded).unwrap();
    assert_eq!(decoded, sent);
    for i in 0..10 {
        assert_eq!(residual[i], update[i] - sent[i], "{i}");
    }
    // An odd number of entries fills its last word with zeros; an infinity, a sign and 0 are refused.
    let [.., last] = body[..] else { unreachable!() };
    assert_eq!((body[0], last >> 16), (7, 0));
    for wrong in [last | 1 << 16, last & !0xffff, last | 0x8000, 0x7c00] {
        let mut body = body.clone();
        *body.last_mut().unwrap() = wrong;
        assert!(topk::expand(&body, 10, &mut decoded).is_err(), "{wrong:#x}");
    }
}

/// A message with two means takes at most 14 bits per element and two floats per chunk, and so does its list alone where
/// positions are as unlike random ones as can be.
#[test]
fn a_message_of_chunks_is_shorter_than_with_indices_of_fixed_width() {
    let (chunks, k) = (24, 64);
    let noise = |i: usize| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1u32 << 24) as f32 - 0.5;
    type Element = fn(usize, f32) -> f32;
    let vectors: [(&str, Element); 4] = [
        ("noise", |_, noise| noise),
        ("the first of each chunk", |i, noise| if i % 4096 < 64 { 2.0 + noise } else { noise }),
        ("first and last in turn", |i, noise| if (i / 4096 + i % 4096 / 2048) % 2 == 0 { noise } else { 0.5 * noise }),
        ("in two places", |i, noise| if i % 2048 < 32 { 2.0 + noise } else { noise }),
    ];
    for (name, of) in vectors {
        let update: Vec<f32> = (0..chunks * 4096).map(|i| of(i, noise(i))).collect();
        let pick = Pick { count: k as u32, chunk: 4096, values: Values::TwoMeans };
        let (_, body) = encoded(pick, &update);
        let (bytes, codebook) = (4 * body.len(), 8 * chunks);
        assert_eq!(body[0] as usize, chunks * k, "{name}");
        assert!(bytes <= chunks * k * 14 / 8 + codebook, "{name}: {bytes} bytes");
        // The same positions as floats, and 8 bits: each message is as long as its parts.
        let others =
            [(Values::F32, 4 * chunks * k), (Values::F16, 2 * chunks * k), (Values::Int8, chunks * k + chunks)];
        for (values, extra) in others {
            let (_, other) = encoded(Pick { values, ..pick }, &update);
            assert_eq!(4 * other.len() - extra, bytes - codebook, "{name}, {values:?}");
        }
        if name == "noise" {
            let bits = 32.0 * f64::from(body[2]) / (chunks * k) as f64;
            assert!((8.0..8.7).contains(&bits), "{bits} bits for an index and a sign");
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

/// Counts and sums are over the whole vector, and indices count from its start.
#[test]
fn what_an_encoder_reports_is_of_the_whole_vector() {
    let update = long();
    for case in &CASES {
        let (mut residual, mut body) = (vec![0.0; update.len()], vec![0; (case.words)(update.len())]);
        let dense = (case.encode)(Tier::best(), Some(&update), &mut residual, &mut body);
        assert_eq!((dense.non_finite, dense.first_non_finite), (2, Some(5000)), "{}", case.name);
        assert_squares(case.name, dense.squares, &residual);
    }
    let pick = Pick::whole(update.len(), 500);
    let (mut residual, mut scratch) = (vec![0.0; update.len()], vec![0; 2 * update.len()]);
    let mut body = vec![0; topk::words_max(update.len(), pick)];
    let encoded = topk::encode(pick, Some(&update), &mut residual, &mut scratch, &mut body);
    assert_eq!((encoded.entries, encoded.non_finite, encoded.first_non_finite), (500, 2, Some(5000)));
    assert_squares("topk", encoded.squares, &residual);
    let mut least = f32::INFINITY;
    let body = &body[..encoded.bytes as usize / 4];
    topk::read(body, update.len(), update.len(), |_, value| least = least.min(value.abs())).unwrap();
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
    assert_eq!(topk::expand(&body, 40, &mut [0.0; 40]), Err(BodyError::Count { limit: 1, index: 7 }));
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
        error(topk::expand(&[1, 0, 1, 1 << 7, 0], 1, &mut [0.0; 1])),
        "body: expected a finite value (above 0 in top-k) at index 0, got 0"
    );
    let one_column = [Piece { first: 0, len: 2, columns: 1, phase: 0 }.section()];
    let columns = |body: &[u32]| error(columns::expand(tier, body, &one_column, &mut [0.0; 2]));
    let (one, scale) = (1f32.to_bits(), "body: expected a scale that fits the elements of block 0, got");
    assert_eq!(columns::expand(tier, &[one, one, 0b10], &one_column, &mut [0.0; 2]), Ok(()));
    assert_eq!(columns(&[one, one]), "body: expected 12 bytes, got 8");
    assert_eq!(columns(&[one, one, 0b110]), "body: expected zeros after the last entry, got 0x1");
    assert_eq!(columns(&[one, one, 0]), format!("{scale} 1e0"));
    assert_eq!(columns(&[one, 0, 0b10]), format!("{scale} 0e0"));
    assert_eq!(columns(&[one, one, 0b11]), format!("{scale} 1e0"));
    assert_eq!(columns(&[f32::NAN.to_bits(), one, 0b10]), format!("{scale} NaN"));
    // Of one element in a chunk of one: 8 bits, then two means.
    let [int8, means] = [1, 2].map(|values| values << 8);
    let sent = |kind: u32, values: &[u32]| {
        let body: Vec<u32> = [&[1, kind, 1, 1 << 7], values].concat();
        topk::expand(&body, 1, &mut [0.0; 1])
    };
    let one = 1f32.to_bits();
    assert_eq!(sent(int8, &[120 | 200 << 8]), Ok(()));
    assert_eq!(sent(means, &[one, 0]), Ok(()));
    let scale = "body: expected a scale that fits the elements of block 0, got";
    for (body, expected) in [
        (sent(4 << 8, &[0]), "body: expected a kind of values from 0 to 3, got 4"),
        (sent(3 << 8, &[0x7c00]), "body: expected a finite value (above 0 in top-k) at index 0, got inf"),
        (sent(3 << 8, &[1 << 24 | 0x3c00]), "body: expected zeros after the last entry, got 0x1"),
        (sent(int8, &[120 | 127 << 8]), &format!("{scale} 7.8125e-3")),
        (sent(int8, &[248 | 200 << 8]), &format!("{scale} 2.658456e36")),
        (sent(int8, &[200 << 8]), "body: expected a finite value (above 0 in top-k) at index 0, got 0"),
        (sent(int8, &[120]), "body: expected a finite value (above 0 in top-k) at index 0, got 0"),
        (sent(int8, &[120 | 200 << 8 | 1 << 16]), "body: expected zeros after the last entry, got 0x1"),
        (sent(int8, &[120, 200]), "body: expected 8 bytes of entries, got 12"),
        (sent(means, &[one]), "body: expected 12 bytes of entries, got 8"),
        (sent(means, &[one, one]), &format!("{scale} 1e0")),
        (sent(means, &[0, 0]), "body: expected a finite value (above 0 in top-k) at index 0, got 0"),
        (sent(means, &[f32::NAN.to_bits(), 0]), "body: expected a finite value (above 0 in top-k) at index 0, got NaN"),
    ] {
        assert_eq!(error(body), expected);
    }
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
            let (_, body) = encoded(Pick::whole(len, count), &update);
            let mut order: Vec<usize> = (0..len).filter(|i| update[*i] != 0.0).collect();
            order.sort_by(|a, b| update[*b].abs().total_cmp(&update[*a].abs()));
            let mut expected = vec![0.0; len];
            order.iter().take(count).for_each(|i| expected[*i] = update[*i]);
            let mut decoded = vec![f32::NAN; len];
            topk::expand(&body, len, &mut decoded).unwrap();
            assert!(decoded == expected, "{name}, {count}");
        }
    }
}
