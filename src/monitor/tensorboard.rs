//! The contents of a board as an event file for TensorBoard: scalars per rank, once a second.
//!
//! The file is a sequence of records (TensorFlow's `TFRecord`). Each holds a protocol buffer `Event`, of which only a
//! few fields are needed, so they are encoded here by hand:
//!
//! ```text
//! Event   { 1: wall_time (double), 2: step (varint), 3: file_version (string) or 5: Summary }
//! Summary { 1: Value, repeated }      Value { 1: tag (string), 2: simple_value (float) }
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gradwire_core::telemetry::Report;

use super::board::Board;

/// A scalar of a node: its tag before `/rank N`, and its value in a report. TensorBoard shows the tags with an equal first
/// part in one group, so the ranks of a metric are side by side.
type Scalar = (&'static str, fn(&Report) -> f64);

const SCALARS: &[Scalar] = &[
    ("loss", |r| f64::from(r.progress.loss)),
    ("accuracy", |r| f64::from(r.progress.accuracy)),
    ("bytes_sent", |r| r.status.bytes_out() as f64),
    ("density", |r| r.status.density),
    ("staleness", |r| r.status.staleness.mean()),
    ("residual_norm", |r| r.status.residual_norm),
    ("residual_updates", |r| r.status.residual_updates),
];

impl Board {
    /// Writes an event file below `directory` once a second, on a thread of its own, until a write fails or
    /// [`flush`](Self::flush) has written the last values.
    ///
    /// # Errors
    /// If the file cannot be created, or no thread can be started.
    pub fn tensorboard(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // TensorBoard finds files by `tfevents` in their names. Time and process keep two runs apart.
        let name = format!("events.out.tfevents.{}.gradwire.{}", begun.as_secs(), std::process::id());
        let mut file = File::create(directory.join(name))?;
        file.write_all(&record(&event(begun.as_secs_f64(), 0, &bytes(3, b"brain.Event:2"))))?;
        let (board, output) = (self.clone(), self.output());
        thread::Builder::new().name("tensorboard".into()).spawn(move || {
            let _output = output;
            let mut ends = false;
            while !ends {
                ends = board.ending().wait(Duration::from_secs(1));
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                let records: Vec<u8> = board.reports().iter().flat_map(|report| scalars(now, report)).collect();
                // Training goes on with a full disk. Half a record would make the rest of the file unreadable.
                if file.write_all(&records).and_then(|()| file.flush()).is_err() {
                    return;
                }
            }
        })?;
        Ok(())
    }
}

/// A record with all scalars of a node. Values that are not finite are left out.
fn scalars(now: f64, report: &Report) -> Vec<u8> {
    let values: Vec<u8> = SCALARS
        .iter()
        .filter_map(|(tag, of)| {
            let (x, tag) = (of(report) as f32, format!("{tag}/rank {}", report.status.me));
            let value = [bytes(1, tag.as_bytes()), [vec![2 << 3 | 5], x.to_le_bytes().to_vec()].concat()].concat();
            x.is_finite().then(|| bytes(1, &value))
        })
        .flatten()
        .collect();
    record(&event(now, report.status.clock.0, &bytes(5, &values)))
}

/// An `Event` at `at` seconds since 1970, with one more encoded field in `rest`.
fn event(at: f64, step: u64, rest: &[u8]) -> Vec<u8> {
    [&[1 << 3 | 1][..], &at.to_le_bytes(), &[2 << 3], &varint(step), rest].concat()
}

/// A length-delimited field of a protocol buffer: wire type 2.
fn bytes(field: u8, of: &[u8]) -> Vec<u8> {
    [&[field << 3 | 2][..], &varint(of.len() as u64), of].concat()
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// A record: the length, its checksum, the data, their checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u64).to_le_bytes();
    [&len[..], &masked(&len).to_le_bytes(), data, &masked(data).to_le_bytes()].concat()
}

/// CRC-32C, rotated and shifted as the record format demands. Bit by bit: a second's records are a few kilobytes.
fn masked(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32C for "123456789" is e3069283, before it is masked.
    #[test]
    fn a_checksum_is_a_masked_crc32c() {
        assert_eq!(masked(b"123456789"), 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn a_record_is_framed_by_length_and_checksums() {
        let record = record(b"abc");
        assert_eq!(record.len(), 8 + 4 + 3 + 4);
        assert_eq!((&record[..8], &record[12..15]), (&[3, 0, 0, 0, 0, 0, 0, 0][..], &b"abc"[..]));
    }
}
