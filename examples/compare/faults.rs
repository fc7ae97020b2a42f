//! `--fault`: what fails, and when, as in `crash:3@2s` or `pause:0@5s+1s`.

use std::time::Duration;

use gradwire::PeerId;
use gradwire::sim::Fault;
use gradwire_examples::units;

/// A fault and its time.
///
/// # Errors
/// What was expected.
pub(crate) fn parse(text: &str) -> Result<(Duration, Fault), String> {
    let expected = "expected crash:RANK@TIME, crash:RANK@TIME+RESTART, pause:RANK@TIME+LENGTH, cut:RANK-RANK@TIME or \
                    split:RANK-RANK@TIME+LENGTH, as in crash:3@2s+500ms";
    read(text).ok_or_else(|| format!("{expected}, got {text:?}"))
}

fn read(text: &str) -> Option<(Duration, Fault)> {
    let (kind, rest) = text.split_once(':')?;
    let (nodes, times) = rest.split_once('@')?;
    let (at, lasts) = match times.split_once('+') {
        Some((at, lasts)) => (time(at)?, Some(time(lasts)?)),
        None => (time(times)?, None),
    };
    let rank = |text: &str| text.parse().ok().map(PeerId);
    let pair = || nodes.split_once('-').and_then(|(a, b)| Some((rank(a)?, rank(b)?)));
    let fault = match (kind, lasts) {
        ("crash", restart) => Fault::Crash { node: rank(nodes)?, restart },
        ("pause", Some(lasts)) => Fault::Pause { node: rank(nodes)?, lasts },
        ("cut", None) => pair().map(|(a, b)| Fault::Cut { a, b })?,
        ("split", Some(lasts)) => pair().map(|(a, b)| Fault::Partition { a, b, lasts })?,
        _ => return None,
    };
    Some((at, fault))
}

fn time(text: &str) -> Option<Duration> {
    units::seconds(text).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read() {
        let (second, half) = (Duration::from_secs(1), Duration::from_millis(500));
        let (a, b) = (PeerId(3), PeerId(0));
        let cases = [
            ("crash:3@1s", Fault::Crash { node: a, restart: None }),
            ("crash:3@1s+500ms", Fault::Crash { node: a, restart: Some(half) }),
            ("pause:3@1s+500ms", Fault::Pause { node: a, lasts: half }),
            ("cut:3-0@1s", Fault::Cut { a, b }),
            ("split:3-0@1s+0.5s", Fault::Partition { a, b, lasts: half }),
        ];
        for (text, fault) in cases {
            assert_eq!(parse(text), Ok((second, fault)), "{text}");
        }
        for text in [
            "",
            "crash",
            "crash:3",
            "crash:x@1s",
            "crash:3@1",
            "pause:3@1s",
            "cut:3@1s",
            "cut:3-0@1s+1s",
            "crash:3@-1s",
        ] {
            assert!(parse(text).unwrap_err().ends_with(&format!("got {text:?}")), "{text}");
        }
    }
}
