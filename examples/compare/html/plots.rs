//! The plots of a report, as SVG.

use std::ops::Range;

use gradwire::compare::{Report, Row, Run, Sample};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

/// Text and axes have this colour in plotters, and that of the page's text in the file.
const INK: RGBColor = RGBColor(1, 1, 1);
const INK_TEXT: &str = "#010101";
/// Waiting: the class `wait` of the page's style in the file.
const WAIT: RGBColor = RGBColor(2, 2, 2);
const WAIT_TEXT: &str = "fill=\"#020202\"";
/// From the palette of Okabe and Ito 2008, which colour-blind people can tell apart: those that dark and light pages show.
/// The blue is lighter for the same reason.
const COLOURS: [u32; 5] = [0x2f_8f_d0, 0xe6_9f_00, 0x00_9e_73, 0xd5_5e_00, 0xcc_79_a7];
/// Dashes and gaps of the lines, in pixels, when colours begin again.
const DASHES: [Option<(u32, u32)>; 3] = [None, Some((6, 4)), Some((2, 3))];
const SIZE: (u32, u32) = (560, 380);
/// Points of a line. More would not be visible.
const POINTS: usize = 120;

/// The colour of a row, and the dashes of its line.
pub(super) fn colour(row: usize) -> (u32, Option<(u32, u32)>) {
    (COLOURS[row % COLOURS.len()], DASHES[row / COLOURS.len() % DASHES.len()])
}

fn rgb(colour: u32) -> RGBColor {
    RGBColor((colour >> 16) as u8, (colour >> 8) as u8, colour as u8)
}

/// The losses over examples, seconds and bytes.
pub(super) fn losses(report: &Report) -> [String; 3] {
    [
        losses_over(report, "examples of all workers", |sample| sample.examples as f64),
        losses_over(report, "virtual seconds", |sample| sample.seconds),
        losses_over(report, "MB of all messages", |sample| sample.bytes as f64 / 1e6),
    ]
}

/// A plot of the losses. Its axes are logarithmic if the losses, or the ends of the runs, are far from each other.
fn losses_over(report: &Report, unit: &str, of: impl Fn(&Sample) -> f64) -> String {
    let lines: Vec<Vec<Line>> = report.rows.iter().map(|row| lines(row, &of)).collect();
    let points = || lines.iter().flatten().flat_map(|line| &line.points).copied();
    let ends = || lines.iter().flatten().filter_map(|line| line.points.last()).map(|(x, _)| *x).filter(|x| *x > 0.0);
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, 0.0f64), |(least, most), x| (least.min(x), most.max(x)))
    };
    let (nearest, most) = range(&mut ends());
    let (low, high) = range(&mut points().map(|(_, loss)| loss));
    if !(low > 0.0 && high.is_finite() && most > 0.0) {
        return format!("<p>No loss over {unit}: all runs have failed.</p>\n");
    }
    // Few powers lie between losses that are close.
    if high < 8.0 * low {
        over(&lines, unit, most > 8.0 * nearest, most, 0.0..high * 1.05, "validation loss")
    } else {
        // Within two decades, each power of two has a label.
        let base = if high < 100.0 * low { 2.0 } else { 10.0 };
        let loss = (low / 1.1..high * 1.1).log_scale().base(base);
        over(&lines, unit, most > 8.0 * nearest, most, loss, "validation loss (logarithmic)")
    }
}

/// The plot with this axis of losses, and an axis up to `most` that is logarithmic or not.
fn over<Y>(lines: &[Vec<Line>], unit: &str, is_logarithmic: bool, most: f64, loss: Y, name: &str) -> String
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    draw(SIZE, |area| {
        if is_logarithmic {
            let positive = lines.iter().flatten().flat_map(|line| &line.points).map(|(x, _)| *x).filter(|x| *x > 0.0);
            let first = positive.fold(most, f64::min).max(most / 1e4);
            let x = (first..most * 1.05).log_scale();
            chart(&area, x, loss, &format!("{unit} (logarithmic)"), name, first, lines)
        } else {
            chart(&area, 0.0..most * 1.02, loss, unit, name, 0.0, lines)
        }
    })
}

struct Line {
    points: Vec<(f64, f64)>,
    /// The seed with the median loss at the end.
    is_median: bool,
}

fn lines(row: &Row, of: &impl Fn(&Sample) -> f64) -> Vec<Line> {
    let end = |run: &Run| run.curve.last().map_or(f64::INFINITY, |sample| sample.loss);
    let mut order: Vec<usize> = (0..row.runs.len()).collect();
    order.sort_by(|a, b| end(&row.runs[*a]).total_cmp(&end(&row.runs[*b])));
    let median = order.get(order.len().saturating_sub(1) / 2);
    let line = |(at, run): (usize, &Run)| {
        let every = run.curve.len().div_ceil(POINTS).max(1);
        let last = run.curve.len().saturating_sub(1);
        let chosen =
            run.curve.iter().enumerate().filter(|(i, _)| i % every == 0 || *i == last).map(|(_, sample)| sample);
        let points = chosen.filter(|sample| sample.loss.is_finite() && sample.loss > 0.0);
        Line { points: points.map(|sample| (of(sample), sample.loss)).collect(), is_median: median == Some(&at) }
    };
    // One worker sends nothing, and has no line over bytes.
    let moves = |line: &Line| line.points.last().is_some_and(|(x, _)| *x > 0.0);
    row.runs.iter().enumerate().map(line).filter(moves).collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws the lines from `first` on, the other seeds below those of the median.
fn chart<X, Y>(area: &Area<'_>, x: X, y: Y, x_name: &str, y_name: &str, first: f64, rows: &[Vec<Line>]) -> Drawn
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut chart =
        ChartBuilder::on(area).margin(10).x_label_area_size(42).y_label_area_size(58).build_cartesian_2d(x, y)?;
    let text = |size: u32| ("sans-serif", size).into_font().color(&INK);
    chart
        .configure_mesh()
        .bold_line_style(INK.mix(0.15))
        .light_line_style(INK.mix(0.0))
        .axis_style(INK.mix(0.6))
        .label_style(text(12))
        .axis_desc_style(text(14))
        .x_labels(6)
        .x_label_formatter(&|x| axis(*x))
        .y_label_formatter(&|y| axis(*y))
        .x_desc(x_name)
        .y_desc(y_name)
        .draw()?;
    for is_median in [false, true] {
        for (at, lines) in rows.iter().enumerate() {
            let (colour, dash) = colour(at);
            let style = if is_median { rgb(colour).stroke_width(2) } else { rgb(colour).mix(0.35).stroke_width(1) };
            for line in lines.iter().filter(|line| line.is_median == is_median) {
                let points = line.points.iter().copied().filter(|(x, _)| *x >= first);
                if let Some((dash, gap)) = dash.filter(|_| is_median) {
                    chart.draw_series(DashedLineSeries::new(points, dash, gap, style))?;
                } else {
                    chart.draw_series(LineSeries::new(points, style))?;
                }
            }
        }
    }
    Ok(())
}

/// The label of a number at an axis.
fn axis(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        size if size >= 1e6 => format!("{} M", round(x / 1e6)),
        size if size >= 1e4 => format!("{} k", round(x / 1e3)),
        _ => round(x),
    }
}

/// At most three digits that count, without zeros at the end.
fn round(x: f64) -> String {
    let digits = (2.0 - x.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    let text = format!("{x:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

/// A bar per row: the shares of the time in which workers compute and wait.
pub(super) fn shares(report: &Report) -> String {
    const HEIGHT: u32 = 24;
    let rows = &report.rows;
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0) as u32;
    let names = (8 * longest).clamp(80, 400);
    draw((760, HEIGHT * rows.len() as u32 + 60), |area| {
        let mut chart = ChartBuilder::on(&area)
            .margin(6)
            .margin_right(24)
            .x_label_area_size(42)
            .y_label_area_size(names)
            .build_cartesian_2d(0.0..100.0f64, rows.len() as f64..0.0)?;
        let text = |size: u32| ("sans-serif", size).into_font().color(&INK);
        chart
            .configure_mesh()
            .disable_mesh()
            .axis_style(INK.mix(0.6))
            .y_labels(0)
            .label_style(text(12))
            .axis_desc_style(text(14))
            .x_desc("share of the virtual time (%)")
            .x_label_formatter(&|x| axis(*x))
            .draw()?;
        for (at, row) in rows.iter().enumerate() {
            let top = at as f64;
            let name = text(13).pos(plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Right,
                plotters::style::text_anchor::VPos::Center,
            ));
            let (x, y) = chart.backend_coord(&(0.0, top + 0.5));
            area.draw(&Text::new(row.name.clone(), (x - 8, y), name))?;
            let Some(compute) = compute(row) else { continue };
            let bar =
                |x: Range<f64>, style: ShapeStyle| Rectangle::new([(x.start, top + 0.12), (x.end, top + 0.88)], style);
            chart.draw_series([
                bar(0.0..100.0 * compute, rgb(colour(at).0).filled()),
                bar(100.0 * compute..100.0, WAIT.filled()),
            ])?;
        }
        Ok(())
    })
}

/// The share of the time in which workers compute: the median over seeds.
fn compute(row: &Row) -> Option<f64> {
    let mut shares: Vec<f64> = row.runs.iter().filter_map(|run| run.figures.compute).collect();
    shares.sort_by(f64::total_cmp);
    shares.get(shares.len().saturating_sub(1) / 2).copied()
}

/// An SVG element. Plotters knows no colours of a page, so they are put in afterwards.
fn draw(size: (u32, u32), plot: impl FnOnce(Area<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    let drawn = plot(SVGBackend::with_string(&mut svg, size).into_drawing_area());
    if let Err(error) = drawn {
        return format!("<p>No plot: {error}</p>\n");
    }
    svg.replace(INK_TEXT, "currentColor").replace(WAIT_TEXT, "class=\"wait\"")
}
