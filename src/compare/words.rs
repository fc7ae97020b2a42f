//! Numbers and faults in words, for verdicts.

use gradwire_core::Duration;
use gradwire_sim::simulation::Fault;

/// Three digits, and all digits before the point.
pub(super) fn three(x: f64) -> String {
    match x.abs() {
        x if !x.is_finite() => "never".into(),
        size if size >= 99.95 => thousands(x.round() as i64),
        size if size >= 9.995 => format!("{x:.1}"),
        size if size >= 0.0995 => format!("{x:.2}"),
        size if size >= 0.00095 => format!("{x:.4}"),
        0.0 => "0".into(),
        _ => format!("{x:.1e}"),
    }
}

/// A whole number, with commas.
pub(super) fn thousands(x: i64) -> String {
    let (sign, digits) = (if x < 0 { "-" } else { "" }, x.unsigned_abs().to_string());
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap_or("")).collect();
    format!("{sign}{}", groups.join(","))
}

/// Seconds, with a unit.
pub(super) fn seconds(x: f64) -> String {
    match x {
        x if !x.is_finite() => "never".into(),
        x if x < 1.0 => format!("{} ms", three(1e3 * x)),
        x if x < 600.0 => format!("{} s", three(x)),
        x if x < 36_000.0 => format!("{} min", three(x / 60.0)),
        x => format!("{} h", three(x / 3600.0)),
    }
}

/// Bytes, with a unit.
pub(super) fn bytes(x: f64) -> String {
    match x {
        x if !x.is_finite() => "never".into(),
        x if x < 1e3 => format!("{x:.0} B"),
        x if x < 1e6 => format!("{} kB", three(x / 1e3)),
        x if x < 1e9 => format!("{} MB", three(x / 1e6)),
        x => format!("{} GB", three(x / 1e9)),
    }
}

/// Names, with commas and "and".
pub(super) fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// A fault, and its time.
pub(super) fn fault(at: Duration, fault: Fault) -> String {
    let what = match fault {
        Fault::Cut { a, b } => format!("the connection of nodes {a} and {b} breaks"),
        Fault::Partition { a, b, lasts } => format!("no packet between nodes {a} and {b} for {lasts:?}"),
        Fault::Silence { from, to, lasts } => format!("no packet from node {from} to node {to} for {lasts:?}"),
        Fault::Pause { node, lasts } => format!("node {node} pauses for {lasts:?}"),
        Fault::Crash { node, restart: None } => format!("node {node} is killed"),
        Fault::Crash { node, restart: Some(after) } => {
            format!("node {node} is killed, and starts again after {after:?}")
        }
    };
    format!("at {at:?}, {what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradwire_core::PeerId;

    #[test]
    fn numbers_have_three_digits() {
        let cases =
            [(0.0, "0"), (0.0123, "0.0123"), (0.25, "0.25"), (12.34, "12.3"), (12_345.6, "12,346"), (1e-5, "1.0e-5")];
        for (x, expected) in cases {
            assert_eq!(three(x), expected);
        }
        assert_eq!([0.0123, 1.5, 900.0, f64::INFINITY].map(seconds), ["12.3 ms", "1.50 s", "15.0 min", "never"]);
        assert_eq!([12.0, 3.4e6, 2.5e9].map(bytes), ["12 B", "3.40 MB", "2.50 GB"]);
        assert_eq!([0, 999, 1000, -1_234_567].map(thousands), ["0", "999", "1,000", "-1,234,567"]);
    }

    #[test]
    fn faults_and_lists_have_words() {
        let at = Duration::from_secs(2);
        let crash = Fault::Crash { node: PeerId(3), restart: Some(Duration::from_millis(500)) };
        assert_eq!(fault(at, crash), "at 2s, node 3 is killed, and starts again after 500ms");
        let names = ["a", "b", "c"].map(String::from);
        assert_eq!([list(&[]), list(&names[..1]), list(&names[..2]), list(&names)], ["", "a", "a and b", "a, b and c"]);
    }
}
