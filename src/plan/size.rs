//! The bytes of messages, as the codecs write them.

use gradwire_core::codec::{bf16, columns, f16, int8, sign, topk};
use gradwire_core::recipe::{Codec, Control, Threshold, TopK, Values};

/// Bytes of a header on the wire.
pub(super) const HEADER: f64 = gradwire_core::wire::HEADER_LEN as f64;

/// Elements per column that a codec with a scale per column is assumed to have.
const COLUMN: usize = 512;

/// An encoded vector.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct Body {
    /// Its bytes, without the header of the message.
    pub(super) bytes: f64,
    /// Entries to be decoded: of a sparse message the elements that it carries, else all elements.
    pub(super) entries: f64,
}

/// The body of `len` elements. `density`: the share of elements that a threshold sends, where the recipe does not say it.
pub(super) fn body(codec: &Codec, len: f64, density: f64) -> Body {
    let whole = len.ceil().max(1.0) as usize;
    let dense = |words: usize| Body { bytes: 4.0 * words as f64, entries: len };
    match codec {
        Codec::F32 => dense(whole),
        Codec::Bf16 => dense(bf16::words(whole)),
        Codec::F16 => dense(f16::words(whole)),
        Codec::Int8 => dense(int8::words(whole)),
        Codec::Sign => dense(sign::words(whole)),
        Codec::SignColumns => dense(columns::words(whole, 2 * whole.div_ceil(COLUMN))),
        Codec::TopK(top) => top_k(top, whole),
        Codec::Threshold(threshold) => of_threshold(threshold, len, density),
    }
}

fn top_k(top: &TopK, len: usize) -> Body {
    let chunk = if top.per_chunk { topk::CHUNK } else { len };
    let chunks = len.div_ceil(chunk);
    let entries = (topk::count(chunk.min(len), top.density) * chunks).min(len);
    let values = match top.values {
        Values::F32 => 4.0 * entries as f64,
        Values::F16 => 2.0 * entries as f64,
        // A scale in a byte per chunk.
        Values::Int8 => (entries + chunks) as f64,
        Values::TwoMeans => 8.0 * chunks as f64,
    };
    let bytes = 4.0 * topk::HEADER_WORDS as f64 + list(entries as f64, len as f64) + values;
    Body { bytes, entries: entries as f64 }
}

fn of_threshold(threshold: &Threshold, len: f64, density: f64) -> Body {
    let header = 4.0 * gradwire_core::codec::threshold::HEADER_WORDS as f64;
    let share = match threshold.control {
        Control::Density { density } => f64::from(density),
        // The upper end of the band, which is where the controller of a run that begins stays for long.
        Control::Band => 1e-2,
        Control::Fixed => density,
        Control::Budget { bytes } => {
            let bytes = f64::from(bytes).min(header + list(len, len));
            return Body { bytes, entries: entries_in(bytes - header, len) };
        }
    };
    let entries = (share * len).max(1.0).min(len);
    Body { bytes: header + list(entries, len), entries }
}

/// Bytes of a list of `entries` of `len` elements at random positions: the smallest of the forms of
/// [`gradwire_core::codec::entries`].
fn list(entries: f64, len: f64) -> f64 {
    let rice = (0..26).map(|k| rice_bits(entries / len, k)).fold(f64::INFINITY, f64::min) * entries / 8.0;
    rice.min(4.0 * entries).min(len / 4.0)
}

/// Bits per entry of Golomb-Rice codes with `k` low bits, for a density: sign, low bits, and a unary quotient.
fn rice_bits(density: f64, k: i32) -> f64 {
    let block = 2f64.powi(k);
    // The mean quotient of a geometric gap, plus the bit that ends it.
    let quotient = 1.0 / -(block * (-density).ln_1p()).exp_m1();
    1.0 + f64::from(k) + quotient
}

/// The inverse of [`list`].
fn entries_in(bytes: f64, len: f64) -> f64 {
    let (mut low, mut high) = (1.0, len);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if list(middle, len) > bytes { high = middle } else { low = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use gradwire_core::codec::entries;

    use super::*;

    /// The bytes of the encoder for random positions.
    fn encoded(nnz: usize, len: usize) -> f64 {
        let mut state = 7u64;
        let mut at: Vec<u32> = Vec::new();
        // One position in each of as many equal strides would be too regular: take distinct random ones.
        let mut taken = vec![false; len];
        while at.len() < nnz {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let index = ((state >> 33) as usize) % len;
            if !std::mem::replace(&mut taken[index], true) {
                at.push(index as u32 | (state as u32 & 0x8000_0000));
            }
        }
        at.sort_unstable_by_key(|entry| entry & 0x7fff_ffff);
        let mut body = vec![0; entries::words_max(len)];
        4.0 * entries::write(&at, nnz as u32, len, &mut body).1 as f64
    }

    #[test]
    fn lists_have_the_size_that_the_encoder_writes() {
        let len = 1_000_000;
        for density in [0.3, 0.1, 1e-2, 3.6e-3, 1e-3, 1e-4] {
            let nnz = (density * len as f64) as usize;
            let (expected, got) = (encoded(nnz, len), list(nnz as f64, len as f64));
            assert!((got / expected - 1.0).abs() < 0.02, "{density}: {got}, encoder {expected}");
        }
    }

    #[test]
    fn dense_codecs_have_their_documented_bits() {
        for (codec, bits) in
            [(Codec::F32, 32.0), (Codec::Bf16, 16.0), (Codec::F16, 16.0), (Codec::Int8, 8.125), (Codec::Sign, 1.03)]
        {
            let got = body(&codec, 1e6, 0.01).bytes * 8.0 / 1e6;
            assert!((got / bits - 1.0).abs() < 0.005, "{codec:?}: {got}");
        }
    }

    #[test]
    fn sparse_messages_are_as_large_as_documented() {
        // Strom 2015: 52,500 of 14.6 million take 70 kB.
        let threshold = Threshold { control: Control::Density { density: 52_500.0 / 14.6e6 }, ..Threshold::fixed(0.5) };
        let strom = body(&Codec::Threshold(threshold), 14.6e6, 0.01).bytes;
        assert!((strom / 70_200.0 - 1.0).abs() < 0.01, "{strom}");
        // SparseLoCo's 64 of 4,096: 8.0 bits per index and sign, and two means per chunk.
        let top = TopK { density: 1.0 / 64.0, per_chunk: true, values: Values::TwoMeans };
        let sparse = body(&Codec::TopK(top), 4096e3, 0.01);
        assert_eq!(sparse.entries, 64_000.0);
        assert!((sparse.bytes / (64_000.0 + 8_000.0) - 1.0).abs() < 0.06, "{}", sparse.bytes);
        // A budget is met, and its entries fill it.
        let budget = Threshold { control: Control::Budget { bytes: 65_536 }, ..Threshold::fixed(0.5) };
        let limited = body(&Codec::Threshold(budget), 1e7, 0.01);
        assert_eq!(limited.bytes, 65_536.0);
        assert!((list(limited.entries, 1e7) / 65_520.0 - 1.0).abs() < 1e-3);
    }
}
