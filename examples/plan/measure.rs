//! `--measure`: the speed of codecs and of the memory on this machine, for vectors of the model's length; and the file
//! that `--measured` reads: a JSON object of numbers, as `--measure` prints it, with the link if it was measured.

use std::time::{Duration, Instant};

use gradwire::plan::Costs;
use gradwire::recipe::{Control, Threshold};
use gradwire_core::codec::threshold::{self, Aim, Section};
use gradwire_core::codec::topk::{self, Pick};
use gradwire_core::codec::{bf16, f16, int8, sign};
use gradwire_core::kernel::apply;
use gradwire_core::kernel::tier::Tier;

use super::links::Measured;

/// Longest vector: the cost of an element of a longer one is the same, and memory is not.
const LEN_MAX: usize = 1 << 24;
/// The share of the elements that sparse messages carry.
const DENSITY: f32 = 0.01;
/// Time of a measurement, and its fewest repetitions.
const TIME: Duration = Duration::from_millis(300);
const REPEATS: u32 = 3;

/// Measures each codec for about a third of a second each way.
pub(crate) fn costs(params: usize) -> Costs {
    let len = params.clamp(1024, LEN_MAX);
    let tier = Tier::best();
    let update = updates(len);
    let (mut residual, mut into) = (vec![0.0f32; len], vec![0.0f32; len]);
    let mut body = vec![0u32; topk::words_max(len, Pick::whole(len, len)) + threshold::HEADER_WORDS];
    let mut scratch = vec![0u32; 2 * len];
    let mut costs = Costs { axpy: per(len, || apply::in_place(tier, &mut into, &update, 0.5)), ..Costs::typical() };
    macro_rules! dense {
        ($codec:ident) => {{
            let words = $codec::words(len);
            let encode = per(len, || _ = $codec::encode(tier, Some(&update), &mut residual, &mut body[..words]));
            costs.$codec.encode = encode;
            costs.$codec.decode = per(len, || _ = $codec::expand(tier, &body[..words], &mut into));
        }};
    }
    dense!(bf16);
    dense!(f16);
    dense!(int8);
    dense!(sign);

    let pick = Pick::whole(len, topk::count(len, DENSITY));
    let mut sent = Default::default();
    residual.fill(0.0);
    costs.topk.encode = per(len, || sent = topk::encode(pick, Some(&update), &mut residual, &mut scratch, &mut body));
    let gradwire_core::codec::Encoded { bytes, entries, .. } = sent;
    let message = &body[..bytes as usize / 4];
    costs.topk.decode = per(entries as usize, || _ = topk::read(message, len, len, |index, x| into[index] += x));

    let recipe = Threshold { control: Control::Density { density: DENSITY }, ..Threshold::fixed(1.0 / 512.0) };
    let mut parts = [Section { first: 0, len: len as u32, threshold: recipe.tau, bits: 0.0 }];
    let aim = Aim::of(&recipe, 1.0);
    residual.fill(0.0);
    costs.threshold.encode = per(len, || {
        sent = threshold::encode(tier, aim, Some(&update), &mut residual, &mut parts, &mut scratch, &mut body);
    });
    let message = &body[..sent.bytes as usize / 4];
    costs.threshold.decode = per(sent.entries as usize, || {
        _ = threshold::read(message, &parts, recipe.unit(), &mut |index, x| into[index] += x);
    });
    costs
}

/// The median time in nanoseconds of a call, over `count`.
fn per(count: usize, mut call: impl FnMut()) -> f64 {
    // The first call brings pages and caches to where they will be.
    call();
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.len() < REPEATS as usize || begun.elapsed() < TIME {
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_unstable_by(f64::total_cmp);
    1e9 * times[times.len() / 2] / count.max(1) as f64
}

/// Values of both signs, of which a few are much larger than the rest, as those of gradients are.
fn updates(len: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    (0..len).map(|_| (next() - 0.5) * 0.01 * next().powi(8)).collect()
}

/// The names of the numbers in a file, in nanoseconds (passes: a number).
fn names(costs: &Costs) -> Vec<(String, f64)> {
    let mut names = vec![("axpy".to_string(), costs.axpy), ("passes".to_string(), costs.passes)];
    for (name, coder) in costs.coders() {
        names.push((format!("{name}_encode"), coder.encode));
        names.push((format!("{name}_decode"), coder.decode));
    }
    names
}

/// The file, with a line per number. Times are in nanoseconds, bandwidths in bytes per second.
pub(crate) fn write(costs: &Costs, link: Option<Measured>) -> String {
    let link = link.map(|link| [("latency", 1e9 * link.latency), ("up", link.up), ("down", link.down)]);
    let link = link.into_iter().flatten().map(|(name, value)| (name.to_string(), value));
    let rows = names(costs).into_iter().chain(link).map(|(name, value)| format!("  \"{name}\": {value:.4}"));
    format!("{{\n{}\n}}\n", rows.collect::<Vec<_>>().join(",\n"))
}

/// Reads a file. Costs that it does not have stay as they are typical. The link is there if all of it is.
///
/// # Errors
/// The first thing that is wrong with it.
pub(crate) fn read(text: &str) -> Result<(Costs, Option<Measured>), String> {
    let inner = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let inner = inner.ok_or("expected a JSON object, as plan --measure prints it")?;
    let mut costs = Costs::typical();
    let (mut latency, mut up, mut down) = (None, None, None);
    for row in inner.split(',').map(str::trim).filter(|row| !row.is_empty()) {
        let (name, value) = row.split_once(':').ok_or_else(|| format!("expected \"name\": number, got {row:?}"))?;
        let name = name.trim().trim_matches('"');
        let number = value.trim().parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0);
        let number = number.ok_or_else(|| format!("{name}: expected a number of 0 or more, got {}", value.trim()))?;
        let coder = name.rsplit_once('_').and_then(|(codec, way)| Some((costs.coder_mut(codec)?, way)));
        match (name, coder) {
            ("axpy", _) => costs.axpy = number,
            ("passes", _) => costs.passes = number,
            ("latency", _) => latency = Some(number / 1e9),
            ("up", _) => up = Some(number).filter(|rate| *rate > 0.0),
            ("down", _) => down = Some(number).filter(|rate| *rate > 0.0),
            (_, Some((coder, "encode"))) => coder.encode = number,
            (_, Some((coder, "decode"))) => coder.decode = number,
            _ => {
                let known: Vec<String> = names(&Costs::typical()).into_iter().map(|(name, _)| name).collect();
                return Err(format!("{name}: expected one of {}, latency, up, down", known.join(", ")));
            }
        }
    }
    let link = latency.zip(up.zip(down)).map(|(latency, (up, down))| Measured { latency, up, down });
    Ok((costs, link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let costs = Costs::by_axpy(0.25);
        assert_eq!(read(&write(&costs, None)), Ok((costs, None)));
        let link = Measured { latency: 0.000_12, up: 5e6, down: 2e7 };
        assert_eq!(read(&write(&costs, Some(link))), Ok((costs, Some(link))));
        for (text, words) in [
            ("", "expected a JSON object"),
            ("{\"axpy\": -1}", "axpy: expected a number of 0 or more, got -1"),
            ("{\"axpy\": NaN}", "got NaN"),
            ("{\"bf17_encode\": 1}", "bf17_encode: expected one of axpy"),
            ("{\"bf16_code\": 1}", "bf16_code: expected one of axpy"),
            ("{axpy}", "expected \"name\": number"),
        ] {
            assert!(read(text).unwrap_err().contains(words), "{text}");
        }
    }

    #[test]
    fn every_cost_is_measured() {
        let costs = costs(2000);
        assert!(names(&costs).iter().all(|(_, value)| value.is_finite() && *value > 0.0), "{costs:?}");
        let typical = Costs::typical();
        for ((name, measured), (_, guessed)) in costs.coders().iter().zip(typical.coders()) {
            assert!(measured.encode != guessed.encode && measured.decode != guessed.decode, "{name}");
        }
    }
}
