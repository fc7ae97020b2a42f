//! Numbers with units: as they are read from the command line, and as they are printed.

/// Seconds of a text such as `120ms`, `1.5s`, `80us` or `2min`.
pub fn seconds(text: &str) -> Option<f64> {
    scaled(text, &[("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("min", 60.0), ("h", 3600.0), ("s", 1.0)])
}

/// A rate of bits on the wire, or of bytes that an application sees.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Rate {
    /// Bits per second, headers of packets included.
    Line(f64),
    /// Bytes per second.
    Payload(f64),
}

/// A rate such as `1gbit`, `100Mbit/s`, `125MB/s` or `10GB/s`.
pub fn rate(text: &str) -> Option<Rate> {
    // The two last letters tell bytes from bits, so the case of B counts.
    let lower = text.to_ascii_lowercase();
    let bits = [("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9), ("tbit", 1e12), ("bit", 1.0)];
    let per_second = lower.strip_suffix("/s").unwrap_or(&lower);
    if let Some(bits) = scaled(per_second, &bits) {
        return Some(Rate::Line(bits));
    }
    let plain = text.strip_suffix("/s")?;
    scaled(plain, &[("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("B", 1.0)]).map(Rate::Payload)
}

/// A number such as `14600000`, `14.6M`, `50k` or `7B`.
pub fn count(text: &str) -> Option<f64> {
    let text = text.replace('_', "");
    scaled(&text, &[("k", 1e3), ("M", 1e6), ("B", 1e9), ("", 1.0)])
}

/// A number before one of these units, times its value. The first unit that fits counts.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, scale) =
        units.iter().find_map(|(unit, scale)| Some((text.trim().strip_suffix(unit)?.trim_end(), scale)))?;
    let finite = |number: f64| number.is_finite().then_some(number * scale);
    // The parser of the standard library takes "inf" and "nan".
    let numeric = number.bytes().all(|byte| byte.is_ascii_digit() || b".-+eE".contains(&byte));
    numeric.then(|| number.parse().ok()).flatten().and_then(finite)
}

/// Seconds in at most 7 characters.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{} us", three(s * 1e6)),
        s if s < 1.0 => format!("{} ms", three(s * 1e3)),
        s if s < 600.0 => format!("{} s", three(s)),
        s if s < 6e4 => format!("{} min", three(s / 60.0)),
        s if s < 3.6e6 => format!("{} h", three(s / 3600.0)),
        s => format!("{:.2e} h", s / 3600.0),
    }
}

/// Bytes in at most 8 characters.
pub fn bytes(count: f64) -> String {
    match count {
        b if b < 1e3 => format!("{b:.0} B"),
        b if b < 1e6 => format!("{} kB", three(b / 1e3)),
        b if b < 1e9 => format!("{} MB", three(b / 1e6)),
        b => format!("{} GB", three(b / 1e9)),
    }
}

/// Bits per second on the wire.
pub fn bits(rate: f64) -> String {
    match rate {
        b if b < 1e3 => format!("{} bit/s", three(b)),
        b if b < 1e6 => format!("{} kbit/s", three(b / 1e3)),
        b if b < 1e9 => format!("{} Mbit/s", three(b / 1e6)),
        b if b < 1e13 => format!("{} Gbit/s", three(b / 1e9)),
        b => format!("{:.1e} bit/s", b),
    }
}

/// A number of parameters.
pub fn many(count: f64) -> String {
    match count {
        c if c < 1e4 => format!("{c:.0}"),
        c if c < 1e6 => format!("{} k", three(c / 1e3)),
        c if c < 1e9 => format!("{} M", three(c / 1e6)),
        c => format!("{} B", three(c / 1e9)),
    }
}

/// A factor, as in 1.53x.
pub fn factor(x: f64) -> String {
    if x >= 1e4 { format!("{x:.0e}x") } else { format!("{}x", three(x)) }
}

/// Three digits, and all digits before the point.
pub fn three(x: f64) -> String {
    match x {
        x if x >= 99.95 => format!("{x:.0}"),
        x if x >= 9.995 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        assert_eq!(seconds("120ms"), Some(0.12));
        assert_eq!(
            ["1.5s", "2min", "1h", "80us"].map(seconds),
            [Some(1.5), Some(120.0), Some(3600.0), Some(80.0 * 1e-6)]
        );
        assert_eq!([rate("1gbit"), rate("100Mbit/s"), rate("1Gbit/s")].map(Option::unwrap).len(), 3);
        assert_eq!(rate("1gbit"), Some(Rate::Line(1e9)));
        assert_eq!(rate("125MB/s"), Some(Rate::Payload(125e6)));
        assert_eq!(["14.6M", "50k", "7B", "1_000"].map(count), [Some(14.6 * 1e6), Some(5e4), Some(7e9), Some(1e3)]);
        for text in ["", "ms", "120", "x", "nans", "infs", "1e999s", "12 0ms"] {
            assert_eq!(seconds(text), None, "{text}");
        }
        for text in ["", "1", "gbit", "1g", "125MB", "nan gbit", "1Mb/s"] {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn printed_numbers_have_three_digits() {
        assert_eq!([0.12, 0.9996, 83.2, 700.0, 4e4].map(time), ["120 ms", "1000 ms", "83.2 s", "11.7 min", "667 min"]);
        assert_eq!([64.0, 58.4e6, 1.234e9].map(bytes), ["64 B", "58.4 MB", "1.23 GB"]);
        assert_eq!([1.3e9, 94e6].map(bits), ["1.30 Gbit/s", "94.0 Mbit/s"]);
        assert_eq!([1.531, 15.26, 153.2].map(factor), ["1.53x", "15.3x", "153x"]);
    }
}
