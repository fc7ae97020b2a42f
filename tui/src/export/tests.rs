//! Exports of frames that are made up, as text.

use gradwire_core::telemetry::{Frame, Run};

use super::*;
use crate::model::tests::report;

fn frames() -> Vec<Frame> {
    let recipe = "mesh <&>".to_string();
    let run = Frame::Run(Run { recipe, workers: 2, servers: 0, parameters: 9, name: None });
    let reports = (0..40u64).flat_map(|k| (0..2).map(move |rank| (rank, k)));
    let reports = reports.map(|(rank, k)| {
        let mut report = report(rank, 0.25 * k as f64, 10 * k);
        report.host = "=a\"b,".into();
        report.progress.loss = 4.0 / (1 + k) as f32;
        if rank == 1 {
            report.progress.accuracy = f32::NAN;
        }
        Frame::Report(report)
    });
    std::iter::once(run).chain(reports).collect()
}

#[test]
fn a_csv_file_has_a_line_per_report_and_as_many_fields_as_titles() {
    let text = csv::text(&frames());
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!((lines.len(), lines[81]), (82, ""));
    let titles: Vec<&str> = lines[0].split(',').collect();
    // The host is the only field in quotes, and has a comma.
    let fields = |line: &str| line.replace("\"'=a\"\"b,\"", "host").split(',').map(String::from).collect::<Vec<_>>();
    for line in &lines[1..81] {
        assert_eq!(fields(line).len(), titles.len(), "{line}");
    }
    let at = |title: &str| titles.iter().position(|other| *other == title).unwrap();
    let last = fields(lines[80]);
    assert_eq!(
        (last[at("rank")].as_str(), last[at("steps")].as_str(), last[at("accuracy")].as_str()),
        ("1", "390", "")
    );
    let rate: f64 = last[at("examples_per_second")].parse().unwrap();
    assert!((rate - 640.0).abs() < 1.0, "{rate}");
}

#[test]
fn a_page_is_self_contained_and_escaped() {
    let page = html::page(&played(&frames()), "a<b>.log");
    assert!(page.contains("mesh &lt;&amp;&gt;") && page.contains("<h1>a&lt;b&gt;.log</h1>"), "{page}");
    for outside in ["<script", "http:", "https:", "src=", "url(", "NaN", "inf"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for tag in ["svg", "table", "div", "style", "body", "html"] {
        let (open, close) = (format!("<{tag}"), format!("</{tag}>"));
        assert_eq!(page.matches(&open).count(), page.matches(&close).count(), "{tag}");
    }
    assert!(page.contains(">Loss</text>") && page.contains(">Speed</text>"));
    // Nothing has a residual of 0 or a density that changes: each plot has its curve.
    assert_eq!(page.matches("<polyline").count(), 2 + page.matches("<svg").count());
}

#[test]
fn a_plot_without_values_is_left_out() {
    let curve = |y: f64| svg::Curve { name: "x", points: vec![(0.0, y), (1.0, y)] };
    assert_eq!(svg::plot("t", "u", &[curve(0.0)], true), "");
    assert_eq!(svg::plot("t", "u", &[curve(f64::NAN)], false), "");
    assert!(svg::plot("t", "u", &[curve(2.0)], true).contains("<polyline"));
}

/// All paths are checked before the first file is written; the error names the path and the reason.
#[test]
fn paths_are_checked_before_the_first_export() {
    let directory = std::env::temp_dir().join(format!("dtop-export-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = |name: &str| directory.join(name);
    std::fs::write(path("old.csv"), "old").unwrap();
    for (second, reason) in [("old.csv", "the file exists"), ("no/a.csv", "No such file"), ("a.txt", "expected a name")]
    {
        let error = write(&[path("new.csv"), path(second)], &frames(), "x", false).unwrap_err();
        let named = format!("--export {}: ", path(second).display());
        assert!(error.starts_with(&named) && error.contains(reason), "{error}");
        assert!(!path("new.csv").exists(), "{second}");
    }
    write(&[path("new.csv"), path("old.csv")], &frames(), "x", true).unwrap();
    assert!(path("new.csv").exists() && std::fs::read_to_string(path("old.csv")).unwrap() != "old");
    std::fs::remove_dir_all(directory).unwrap();
}
