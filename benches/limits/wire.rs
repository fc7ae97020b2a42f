//! The size of encoded index lists, against the entropy of the positions and signs.

use gradwire_core::codec::entries;
use gradwire_core::kernel::threshold::Entry;

use crate::measure::{Limit, Random, Report};

/// The entropy bound in bits per entry, for independent positions of density p and fair signs: H(p)/p + 1.
fn bound(p: f64) -> f64 {
    -(p * p.log2() + (1.0 - p) * (1.0 - p).log2()) / p + 1.0
}

/// A random list of entries at independent positions, and their number. `density` gives the density of each segment of
/// 64 Ki elements.
fn list(len: usize, mut density: impl FnMut(usize) -> f64) -> (Vec<u32>, u32) {
    let mut random = Random(11);
    let (mut words, mut nnz, mut p) = (Vec::new(), 0, 0.0);
    let mut word = [0; 2];
    for index in 0..len {
        if index % 65_536 == 0 {
            p = density(index / 65_536);
        }
        if random.unit() < p {
            let count = if random.unit() < 0.5 { 1 } else { -1 };
            let used = Entry { index: index as u32, count }.write(&mut word);
            words.extend(&word[..used]);
            nnz += 1;
        }
    }
    (words, nnz)
}

/// The length of the encoded list in bits.
fn bits(list: &[u32], nnz: u32, len: usize) -> f64 {
    let mut body = vec![0; entries::words_max(len)];
    let (_, words) = entries::write(list, nnz, len, &mut body);
    words as f64 * 32.0
}

/// Lists of even density. The first row compares with the entropy bound, the second with the expected length of
/// Golomb-Rice coding with one parameter k for the whole message.
pub(crate) fn even(report: &mut Report, len: usize) {
    let theory =
        [(1e-1, 5.76), (1e-2, 9.11), (3.6e-3, 10.66), (1e-3, 12.50), (1e-4, 15.79), (7.7e-5, 16.14), (1e-5, 19.08)];
    for (density, expected) in theory {
        let (words, nnz) = list(len, |_| density);
        if nnz < 100 {
            continue;
        }
        let per_entry = bits(&words, nnz, len) / f64::from(nnz);
        let full = len >= 10_000_000;
        let limit = if full && density >= 1e-4 { Limit::AtMost(1.02) } else { Limit::None };
        let actual = f64::from(nnz) / len as f64;
        report.row("wire, even, to the entropy bound", density, per_entry, "bits", per_entry / bound(actual), limit);
        let off = per_entry / (expected + bound(actual) - bound(density));
        // With fewer than a thousand entries, chance and the unused bits of the last word exceed 1 %.
        let limit = if full && nnz >= 1000 { Limit::AtMost(1.01) } else { Limit::None };
        report.row("wire, even, to the table of Golomb-Rice", density, per_entry, "bits", off, limit);
    }
}

/// A list of uneven density: that of each segment of 64 Ki elements is log-normal around 3.6e-3 with sigma 1.5. The
/// bound is the sum of the segments' entropies.
pub(crate) fn uneven(report: &mut Report, len: usize) {
    let mut random = Random(13);
    let densities: Vec<f64> =
        (0..len.div_ceil(65_536)).map(|_| (3.6e-3 * (1.5 * random.normal()).exp()).min(0.5)).collect();
    let (words, nnz) = list(len, |segment| densities[segment]);
    let mut each = vec![0.0f64; densities.len()];
    words.iter().for_each(|word| each[(word & 0x3fff_ffff) as usize / 65_536] += 1.0);
    let ideal = each.iter().enumerate().filter(|(_, nnz)| **nnz > 0.0).map(|(segment, nnz)| {
        let len = (len - segment * 65_536).min(65_536) as f64;
        if *nnz < len { nnz * bound(nnz / len) } else { len }
    });
    let (ideal, coded) = (ideal.sum::<f64>(), bits(&words, nnz, len));
    let limit = if len >= 10_000_000 { Limit::AtMost(1.04) } else { Limit::None };
    let density = f64::from(nnz) / len as f64;
    report.row("wire, uneven, to the segments' entropy", density, coded / f64::from(nnz), "bits", coded / ideal, limit);
}

/// The update of Strom 2015: 52,500 entries of 14.6 million parameters, which are 58.4 MB as floats and 0.21 MB as
/// words.
pub(crate) fn strom(report: &mut Report, len: usize) {
    let target = (52_500.0 * len as f64 / 14_600_000.0) as u32;
    let mut random = Random(17);
    let mut indices: Vec<u32> = Vec::new();
    while indices.len() < target as usize {
        indices.extend((indices.len()..target as usize).map(|_| (random.unit() * len as f64) as u32));
        indices.sort_unstable();
        indices.dedup();
    }
    let density = f64::from(target) / len as f64;
    let dense = len as f64 * 4.0;
    let raw = f64::from(target) * 4.0;
    let coded = bits(&indices, target, len) / 8.0 + 16.0;
    report.row("Strom 2015, update as dense f32", 1.0, dense / 1e6, "MB", 1.0, Limit::None);
    report.row("Strom 2015, update as raw words, dense to it", density, raw / 1e6, "MB", dense / raw, Limit::None);
    let limit = if len == 14_600_000 { Limit::AtMost(0.0705) } else { Limit::None };
    report.row("Strom 2015, update encoded, in MB", density, coded / 1e6, "MB", coded / 1e6, limit);
    report.row("Strom 2015, update encoded, dense to it", density, coded / 1e6, "MB", dense / coded, Limit::None);
}
