//! Plots of curves over time, as SVG for a page. Colours are classes of the page's style.

use std::fmt::Write as _;

use crate::theme::count;

/// A curve with its name.
pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 260.0;
/// Margins for the labels: left, right, top, bottom.
const MARGINS: (f64, f64, f64, f64) = (70.0, 12.0, 28.0, 34.0);

/// A plot; empty if no curve has a value above 0, since that stands for "not reported". The axis is logarithmic if all
/// values are above 0 and `logarithmic` is set.
pub(super) fn plot(title: &str, unit: &str, curves: &[Curve], logarithmic: bool) -> String {
    let all = || curves.iter().flat_map(|curve| &curve.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    if !all().any(|(_, y)| *y > 0.0) {
        return String::new();
    }
    let bounds = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    };
    let (first, last) = bounds(&mut all().map(|(x, _)| *x));
    let last = if last > first { last } else { first + 1.0 };
    let positive = || all().map(|(_, y)| *y).filter(|y| *y > 0.0);
    let (least, most) = bounds(&mut positive());
    let logarithmic = logarithmic && most > 4.0 * least;
    let (low, high) = if logarithmic {
        (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0))
    } else {
        (0.0, most * 1.05)
    };
    let (left, right, top, bottom) = MARGINS;
    let x = |at: f64| left + (at - first) / (last - first) * (WIDTH - left - right);
    let y = |value: f64| {
        let value = if logarithmic { value.max(f64::MIN_POSITIVE).log10() } else { value };
        HEIGHT - bottom - ((value - low) / (high - low)).clamp(0.0, 1.0) * (HEIGHT - top - bottom)
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n<text class=\"title\" x=\"{left}\" \
         y=\"16\">{title}</text>\n"
    );
    let ticks: Vec<f64> = if logarithmic {
        // At most six lines.
        let step = ((high - low) / 6.0).ceil().max(1.0);
        (0..)
            .map(|k| low + f64::from(k) * step)
            .take_while(|power| *power <= high)
            .map(|power| 10f64.powf(power))
            .collect()
    } else {
        steps(low, high)
    };
    for tick in ticks {
        let (at, end) = (y(tick), WIDTH - right);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{left} {at:.1}H{end}\"/>");
        let _ = writeln!(svg, "<text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>", left - 6.0, at + 4.0, label(tick));
    }
    for tick in steps(first, last) {
        let at = x(tick);
        let _ = writeln!(svg, "<text class=\"x\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>", HEIGHT - 12.0, label(tick));
    }
    let _ = writeln!(svg, "<text class=\"unit\" x=\"{:.1}\" y=\"16\">{unit}, over seconds</text>", WIDTH - right);
    for (i, curve) in curves.iter().enumerate() {
        let points = curve.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite() && (!logarithmic || *y > 0.0));
        let points: Vec<String> = points.map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = writeln!(svg, "<polyline class=\"c{i}\" points=\"{}\"/>", points.join(" "));
        if curves.len() > 1 {
            // Beside the title, where no curve is.
            let (at, name) = (left + 70.0 * (i + 1) as f64, curve.name);
            let _ = writeln!(svg, "<text class=\"k{i}\" x=\"{at:.1}\" y=\"16\">{name}</text>");
        }
    }
    svg + "</svg>\n"
}

/// Round numbers from `low` to `high`, about five.
fn steps(low: f64, high: f64) -> Vec<f64> {
    let raw = (high - low) / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= raw).unwrap_or(raw);
    let begin = (low / step).ceil();
    (0..12).map(|k| (begin + f64::from(k)) * step).take_while(|tick| *tick <= high).collect()
}

fn label(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        size if size < 1e-3 => format!("{x:.0e}"),
        size if size >= 1e4 => count(x),
        // Six significant digits hide the rounding of multiples.
        _ => format!("{}", (x * 1e6).round() / 1e6),
    }
}
