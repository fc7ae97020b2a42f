//! Fuzz targets: properties that must hold for any bytes from a network, a file or shared memory.
//!
//! - A decoder returns an error, or its input is canonical: encoding the decoded value gives the same bytes.
//! - No input causes a panic.
//! - A body that is refused has not changed any buffer.
//!
//! Each target is a plain function over bytes. This file has the decoders of core; `raw.rs` headers with arbitrary
//! fields, `net.rs` transports, checkpoints and telemetry, `monitor.rs` clients of a board, and `peer.rs` whole machines. `cargo test` runs all targets
//! over the seeds in `corpus/` and mutations of them. `cargo fuzz` runs one target without a time limit:
//!
//! ```text
//! cargo +nightly fuzz run quanta --features libfuzzer -- -runs=10000000
//! ```

#![allow(clippy::unwrap_used, reason = "a finding is a panic")]

mod monitor;
mod net;
mod peer;
mod raw;

use gradwire_core::codec::columns::Piece;
use gradwire_core::codec::threshold::{self, Aim, MergeError, Section};
use gradwire_core::codec::topk::Pick;
use gradwire_core::codec::{BodyError, Dense, Form, bf16, columns, entries, f16, float32, int8, sign, topk};
use gradwire_core::kernel::ledger::{self, Ledger};
use gradwire_core::kernel::threshold::Entry;
use gradwire_core::kernel::tier::Tier;
use gradwire_core::kernel::{self, Coding, Kernel, KernelResult};
use gradwire_core::recipe::{Threshold, Values};
use gradwire_core::wire::{HEADER_LEN, Header};
use gradwire_core::{BufferId, Pool, Recipe, Segment};

/// A target: its name, its function, and the inputs that fuzzing begins with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// The targets of all files of this crate.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    TARGETS.iter().chain(net::TARGETS).chain(monitor::TARGETS).chain(peer::TARGETS)
}

/// Targets for the decoders of core.
const TARGETS: &[Target] = &[
    ("header", header, header_seeds),
    ("message", raw::message, raw::message_seeds),
    ("entries", list, list_seeds),
    ("quanta", quanta, quanta_seeds),
    ("topk", largest, largest_seeds),
    ("float32", |data| dense(data, float32_words, float32_encode, |_, b, i| float32::expand(b, i)), dense_seeds),
    ("bf16", |data| dense(data, bf16::words, bf16::encode, bf16::expand), dense_seeds),
    ("f16", |data| dense(data, f16::words, f16::encode, f16::expand), dense_seeds),
    ("int8", |data| dense(data, int8::words, int8::encode, int8::expand), int8_seeds),
    ("sign", |data| dense(data, sign::words, sign::encode, sign::expand), sign_seeds),
    ("columns", |data| dense(data, columns_words, columns_encode, columns_expand), columns_seeds),
    ("recipe", recipe, recipe_seeds),
];

/// Runs the target of this name on one input.
///
/// # Panics
/// If there is no such target, or a property does not hold.
pub fn run(name: &str, data: &[u8]) {
    let (_, target, _) = targets().find(|(target, ..)| *target == name).expect("a target of this name");
    target(data);
}

/// The input as little-endian words; the last 1 to 3 bytes are dropped if they do not fill a word.
fn words(data: &[u8]) -> Vec<u32> {
    data.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

// Headers

/// Parses the input as a header, once as it is and once with its checksum corrected: random bytes rarely have the right
/// checksum.
fn header(data: &[u8]) {
    let mut raw = [0; HEADER_LEN];
    let len = data.len().min(HEADER_LEN - 4);
    raw[..len].copy_from_slice(&data[..len]);
    let sum = crc32(&raw[..HEADER_LEN - 4]);
    raw[HEADER_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
    if let Ok(header) = Header::parse(&raw) {
        assert_eq!(header.emit(), raw);
    }
    if let Some(raw) = data.first_chunk::<HEADER_LEN>()
        && let Ok(header) = Header::parse(raw)
    {
        assert_eq!(header.emit(), *raw);
    }
}

/// A bitwise CRC-32, independent of the crate that the library uses.
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn header_seeds() -> Vec<Vec<u8>> {
    (1..=15u8).map(|kind| bytes(&[b"GRWR", &[1, kind, 0, 0], &[7; 48], &[0; 4]])).collect()
}

// Lists of entries

/// Input: a byte for the form, two for the length, two for the count, then the words of the list.
fn list(data: &[u8]) {
    let [form, high, low, nnz_high, nnz_low, rest @ ..] = data else { return };
    let len = usize::from(u16::from_be_bytes([*high, *low])) % 2000 + 1;
    let nnz = u32::from(u16::from_be_bytes([*nnz_high, *nnz_low]));
    let form = [Form::Rice, Form::Raw, Form::Dense2, Form::Dense16][*form as usize % 4];
    let body = words(rest);
    let read = || entries::Reader::new(form, nnz, len, &body)?.entries().collect::<Result<Vec<Entry>, BodyError>>();
    let Ok(list) = read() else { return };
    assert!(list.iter().all(|entry| (entry.index as usize) < len && entry.count != 0));
    let mut scratch = vec![0; 2 * list.len()];
    let used = list.iter().fold(0, |at, entry| at + entry.write(&mut scratch[at..]));
    let mut again = vec![0; entries::words_max(len)];
    let (again_form, used) = entries::write(&scratch[..used], nnz, len, &mut again);
    assert_eq!((again_form, &again[..used]), (form, &body[..]));
}

fn list_seeds() -> Vec<Vec<u8>> {
    let write = |len: u16, list: &[Entry]| {
        let mut scratch = vec![0; 2 * list.len()];
        let used = list.iter().fold(0, |at, entry| at + entry.write(&mut scratch[at..]));
        let mut body = vec![0; entries::words_max(usize::from(len) + 1)];
        let (form, used) = entries::write(&scratch[..used], list.len() as u32, usize::from(len) + 1, &mut body);
        bytes(&[
            &[form as u8],
            &len.to_be_bytes(),
            &(list.len() as u16).to_be_bytes(),
            bytemuck::cast_slice(&body[..used]),
        ])
    };
    let every = |step: usize, count: fn(u32) -> i32| -> Vec<Entry> {
        (0..300).step_by(step).map(|index| Entry { index, count: count(index) }).collect()
    };
    vec![
        write(299, &every(7, |i| if i % 2 == 0 { 1 } else { -1 })),
        write(299, &every(1, |_| 1)),
        write(299, &every(3, |i| (i as i32 - 150) | 1)),
        write(1999, &[Entry { index: 1999, count: -1 }]),
        write(299, &every(1, |_| -32_767)),
        vec![1, 0, 9, 0, 2, 1, 0, 0, 0, 3, 0, 0, 128],
    ]
}

// Threshold bodies

const THRESHOLD: Threshold = Threshold::fixed(1.0 / 64.0);

/// The sections of a vector: one, or two of different lengths.
fn sections(len: u32, split: bool) -> Vec<Section> {
    let section = |first, len| Section { first, len, threshold: THRESHOLD.tau, bits: 0.0 };
    if split && len > 1 {
        vec![section(0, len / 3 + 1), section(len / 3 + 1, len - len / 3 - 1)]
    } else {
        vec![section(0, len)]
    }
}

/// Input: a byte for the length, a byte for the number of sections, then the body. If the body is accepted, adding it,
/// merging it with itself and encoding it again must agree.
fn quanta(data: &[u8]) {
    let [len, split, rest @ ..] = data else { return };
    let len = u32::from(*len) * 4 + 1;
    let (parts, body, unit) = (sections(len, split & 1 == 1), words(rest), THRESHOLD.unit());
    let mut ledger: Vec<i32> = (0..len as i32).map(|i| i.wrapping_mul(0x3fff_ffff)).collect();
    ledger.resize(ledger::words(len as usize), 0);
    let before = ledger.clone();
    let mut floats = vec![f32::NAN; len as usize];
    let expanded = threshold::expand(&body, &parts, unit, &mut floats);
    if let Err(error) = threshold::add(&body, &parts, unit, &mut Ledger::of(&mut ledger, &mut [0; 4])) {
        assert_eq!(ledger, before, "{error}");
        assert!(expanded.is_err() || matches!(error, BodyError::Ledger { .. }));
        return;
    }
    assert_eq!(expanded, Ok(()));
    // Merging a body with itself gives twice its values.
    let (mut scratch, mut twice) =
        (vec![0; 2 * len as usize], vec![0; threshold::words_max(parts.iter().map(|p| p.len as usize))]);
    match threshold::merge((&body, &body), &parts, unit, &mut scratch, &mut twice) {
        Ok(used) => {
            let mut doubled = vec![0.0; len as usize];
            threshold::expand(&twice[..used], &parts, unit, &mut doubled).unwrap();
            assert!(doubled.iter().zip(&floats).all(|(two, one)| *two == 2.0 * one));
        }
        Err(error) => assert_eq!(error, MergeError::TooMany),
    }
    // Canonical: encoding the values again, with the thresholds in the body, gives the same body.
    let (mut at, mut again) = (0, Vec::new());
    for part in &parts {
        let (tau, used) = (f32::from_bits(body[at + 1]), body[at + 3] as usize);
        let floats = &floats[part.first as usize..(part.first + part.len) as usize];
        let mut one = [Section { first: 0, ..*part }];
        let (mut residual, mut out) = (vec![0.0; floats.len()], vec![0; threshold::words_max([floats.len()])]);
        let aim = Aim { tau, ..Aim::of(&THRESHOLD, 1.0) };
        let encoded =
            threshold::encode(Tier::best(), aim, Some(floats), &mut residual, &mut one, &mut scratch, &mut out);
        again.extend_from_slice(&out[..encoded.bytes as usize / 4]);
        at += threshold::HEADER_WORDS + used;
    }
    assert_eq!(again, body);
}

fn quanta_seeds() -> Vec<Vec<u8>> {
    let write = |len: u8, split: u8, of: fn(usize) -> f32| {
        let count = usize::from(len) * 4 + 1;
        let update: Vec<f32> = (0..count).map(of).collect();
        let mut parts = sections(count as u32, split == 1);
        let (mut residual, mut scratch) = (vec![0.0; count], vec![0; 2 * count]);
        let mut body = vec![0; threshold::words_max(parts.iter().map(|part| part.len as usize))];
        let aim = Aim::of(&THRESHOLD, 1.0);
        let encoded =
            threshold::encode(Tier::best(), aim, Some(&update), &mut residual, &mut parts, &mut scratch, &mut body);
        bytes(&[&[len, split], bytemuck::cast_slice(&body[..encoded.bytes as usize / 4])])
    };
    vec![
        write(50, 0, |i| if i % 9 == 0 { 0.02 } else { 0.0 }),
        write(50, 1, |i| if i % 30 == 0 { -0.5 } else { 0.001 }),
        write(10, 1, |_| 0.016),
        write(10, 0, |i| i as f32 - 20.0),
        write(3, 0, |_| 0.0),
    ]
}

// Top-k bodies

/// Lengths of chunks: one element, several blocks of a list, and more than the vector has.
const CHUNKS: [usize; 4] = [1, 64, 300, 4096];

/// Input: a byte for the length, a byte for the length of chunks, then the body.
fn largest(data: &[u8]) {
    let [len, chunk, rest @ ..] = data else { return };
    let len = usize::from(*len) * 4 + 1;
    let chunk = CHUNKS[*chunk as usize % CHUNKS.len()].min(len);
    let body = words(rest);
    let mut values = vec![0.0; len];
    let expanded = topk::expand(&body, chunk, &mut values);
    assert_eq!(scattered(&body, len, chunk), expanded.map(|()| values.clone()).ok());
    if expanded.is_err() {
        return;
    }
    assert!(values.iter().all(|x| x.is_finite()));
    // All that there is: no chunk of the decoded vector has more elements than it had.
    assert_eq!(picked(kind_of(body[1] >> 8), len, chunk, chunk, &values), body);
}

fn kind_of(number: u32) -> Values {
    [Values::F32, Values::Int8, Values::TwoMeans, Values::F16][number as usize]
}

/// The body of a message that carries `count` elements of each chunk.
fn picked(values: Values, len: usize, chunk: usize, count: usize, update: &[f32]) -> Vec<u32> {
    let pick = Pick { count: count as u32, chunk: chunk as u32, values };
    let (mut residual, mut scratch) = (vec![0.0; len], vec![0; 2 * len]);
    let mut body = vec![u32::MAX; topk::words_max(len, pick)];
    let encoded = topk::encode(pick, Some(update), &mut residual, &mut scratch, &mut body);
    body.truncate(encoded.bytes as usize / 4);
    body
}

/// A body that is added to zeros by the kernel, all of it or nothing; `None`: it is refused.
fn scattered(body: &[u32], len: usize, chunk: usize) -> Option<Vec<f32>> {
    let mut pool = Pool::new([4 * body.len(), 0, 4 * len]);
    let whole = |id: u32, words: usize| Segment::floats(BufferId(id), 0, words);
    pool.bytes_mut(whole(0, body.len())).copy_from_slice(bytemuck::cast_slice(body));
    let pick = Pick { count: 1, chunk: chunk as u32, values: Values::F32 };
    let (coding, into) = (Coding::TopK(pick), whole(2, len));
    let kernel = Kernel::Scatter { coding, body: whole(0, body.len()), sections: whole(1, 0), scale: 1.0, into };
    let result = kernel::run(&kernel, &mut pool);
    let sum = pool.floats(into).to_vec();
    match result {
        KernelResult::Malformed(_) => {
            assert!(sum.iter().all(|x| *x == 0.0), "a refused body has changed the sum");
            None
        }
        _ => Some(sum),
    }
}

fn largest_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (len, count) in [(60u8, 5), (60, 100), (1, 1), (5, 21)] {
        for (kind, chunk) in (0..4).flat_map(|kind| [(kind, 1u8), (kind, 3)]) {
            let update: Vec<f32> = (0..usize::from(len) * 4 + 1).map(|i| (i as f32 * 0.7).sin()).collect();
            let elements = CHUNKS[usize::from(chunk)].min(update.len());
            let body = picked(kind_of(kind), update.len(), elements, count.min(elements), &update);
            seeds.push(bytes(&[&[len, chunk], bytemuck::cast_slice(&body)]));
        }
    }
    seeds
}

// Dense bodies

type Expand = fn(Tier, &[u32], &mut [f32]) -> Result<(), BodyError>;
type Encode = fn(Tier, Option<&[f32]>, &mut [f32], &mut [u32]) -> Dense;

/// Input: two bytes for the length of the vector, then the body. A body of another length must be refused; it is then
/// brought to the right length, so that its contents are tested too.
fn dense(data: &[u8], count: fn(usize) -> usize, encode: Encode, expand: Expand) {
    let [len, high, rest @ ..] = data else { return };
    let len = usize::from(*len) + 256 * usize::from(high % 8);
    let mut body = words(rest);
    let mut values = vec![0.0; len];
    assert!(body.len() == count(len) || expand(Tier::best(), &body, &mut values).is_err());
    body.resize(count(len), 0);
    if expand(Tier::best(), &body, &mut values).is_err() {
        return;
    }
    assert!(values.iter().all(|x| x.is_finite()));
    let (mut residual, mut again) = (vec![0.0; len], vec![u32::MAX; body.len()]);
    encode(Tier::best(), Some(&values), &mut residual, &mut again);
    // Encoding adds the residual first, which turns -0.0 into 0.0.
    assert!(again == body || values.iter().any(|x| x.to_bits() == 1 << 31));
    assert!(residual.iter().all(|rest| *rest == 0.0));
}

/// The length of a float32 body: the codec has no function for it.
const fn float32_words(len: usize) -> usize {
    len
}

fn float32_encode(_: Tier, update: Option<&[f32]>, residual: &mut [f32], body: &mut [u32]) -> Dense {
    float32::encode(update, residual, body)
}

fn dense_seeds() -> Vec<Vec<u8>> {
    let floats: Vec<f32> = (0..70).map(|i| (i as f32 * 0.3).cos() * 100.0).collect();
    vec![bytes(&[&[70, 0], bytemuck::cast_slice(&floats)]), bytes(&[&[33, 0], &[0x3c; 68]]), vec![5, 0]]
}

fn int8_seeds() -> Vec<Vec<u8>> {
    vec![
        bytes(&[&[70, 0], &[120, 121, 0, 0], &[64; 70], &[0; 2]]),
        bytes(&[&[3, 0], &[130, 0, 0, 0], &[127, 129, 0, 0]]),
    ]
}

fn sign_seeds() -> Vec<Vec<u8>> {
    let one = 1f32.to_le_bytes();
    vec![bytes(&[&[40, 0], &one, &[0xa5; 5], &[0; 3]]), bytes(&[&[0, 4], &one, &[0x5a; 128]])]
}

/// A vector of two tensors: one with 5 columns, of which it begins with the third, and one of one column.
fn pieces(len: usize) -> Vec<Section> {
    let piece =
        |first: usize, len: usize, columns, phase| Piece { first: first as u32, len: len as u32, columns, phase };
    let pieces = [piece(0, len / 2, 5, 2), piece(len / 2, len - len / 2, 1, 0)];
    pieces.into_iter().filter(|piece| piece.len > 0).map(Piece::section).collect()
}

fn columns_words(len: usize) -> usize {
    let means = if len > 1 { 12 } else { 2 * len };
    columns::words(len, means)
}

fn columns_encode(tier: Tier, update: Option<&[f32]>, residual: &mut [f32], body: &mut [u32]) -> Dense {
    columns::encode(tier, update, residual, &pieces(residual.len()), body)
}

fn columns_expand(tier: Tier, body: &[u32], into: &mut [f32]) -> Result<(), BodyError> {
    columns::expand(tier, body, &pieces(into.len()), into)
}

fn columns_seeds() -> Vec<Vec<u8>> {
    [40u8, 70]
        .map(|len| {
            let update: Vec<f32> = (0..len).map(|i| (f32::from(i) * 0.7).sin()).collect();
            let (mut residual, mut body) = (vec![0.0; update.len()], vec![0; columns_words(update.len())]);
            columns_encode(Tier::best(), Some(&update), &mut residual, &mut body);
            bytes(&[&[len, 0], bytemuck::cast_slice(&body)])
        })
        .to_vec()
}

// Recipes

/// The text form of a recipe that was parsed gives the same recipe again.
fn recipe(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(recipe) = text.parse::<Recipe>() {
        let _ = recipe.check(4);
        let again = recipe.to_string().parse::<Recipe>().unwrap();
        assert!(again == recipe || recipe.to_string().contains("NaN"), "{recipe}");
    }
}

fn recipe_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "mesh density=0.01 warmup=5",
        "ssp bound=3 shards=2",
        "async codec=topk density=0.1 pull=threshold pull_budget=500",
        "averaging period=1,10@500 optimizer=average",
        "pull=threshold pull_budget=00 warmup=3",
        "averaging period=1,2.5s@500",
        "sync period=4096ex",
        "hardsync period=20 adapt=speed",
        "sparse scope=chunk values=two-means decay=0.95",
        "adacomm period=8 most=9",
        "sync period=20s normalize=steps",
        "hardsync period=4096ex weigh=batch",
        "async-diloco pushes=7 shards=2",
        "sparse values=f16 merge=mean-of-senders",
        "b-fasgd push_cost=0.5 fetch_cost=1e-9",
        "sign-vote length=0.01",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[cfg(test)]
mod tests;
