//! A recording as one HTML page: no script, no further file, for light and dark screens.

use std::fmt::Write as _;

use super::svg::{Curve, plot};
use crate::health::Health;
use crate::model::{Model, Sample, seconds};
use crate::theme::{bytes, count};

/// The colours of Okabe and Ito (2008), which are distinct with any kind of colour blindness.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c1c1c;--paper:#fff;--grid:#d8d8d8}\n\
@media(prefers-color-scheme:dark){:root{--ink:#e4e4e4;--paper:#161616;--grid:#3a3a3a}}\n\
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1180px;margin:2em auto;padding:0 1em}\n\
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}\n\
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:1em}\n\
svg{width:100%;height:auto}svg text{font-size:12px;fill:var(--ink)}svg .title{font-size:14px;font-weight:600}\n\
.y,.unit{text-anchor:end}.x{text-anchor:middle}.grid{stroke:var(--grid)}polyline{fill:none;stroke-width:1.6}\n\
.c0{stroke:#0072b2}.c1{stroke:#d55e00}svg .k0{fill:#0072b2}svg .k1{fill:#d55e00}\n\
.wide{overflow-x:auto}table{border-collapse:collapse}td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid var(--grid)}\n\
td.t,th.t{text-align:left}\n";

/// Text with the signs of HTML escaped.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page of a run at its last report. `name`: of the recording.
pub(super) fn page(model: &Model, name: &str) -> String {
    let health = Health::of(model);
    let (name, word, reason) = (escaped(name), escaped(health.word()), escaped(health.reason()));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>{name}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n"
    );
    let _ = writeln!(
        page,
        "<p>{} workers, {} servers, {} parameters, {:.1} s. At the end: {word}{}{reason}.</p>\n<p><code>{}</code></p>",
        model.run.workers,
        model.run.servers,
        count(model.run.parameters as f64),
        seconds(model.now),
        if reason.is_empty() { "" } else { ": " },
        escaped(&model.run.recipe)
    );
    page.push_str("<div class=\"plots\">\n");
    plots(model).iter().for_each(|plot| page.push_str(plot));
    page.push_str("</div>\n");
    nodes(model, &mut page);
    events(model, &mut page);
    page + "</body>\n</html>\n"
}

fn plots(model: &Model) -> [String; 7] {
    let curve = |name: &'static str, value: fn(&Sample) -> f64| Curve {
        name,
        points: model.history.iter().map(|sample| (sample.at, value(sample))).collect(),
    };
    // A sample of 0 from before the first loss is not a loss.
    let reported = |mut curve: Curve| {
        curve.points.retain(|(_, y)| *y > 0.0);
        curve
    };
    [
        plot("Loss", "mean of the workers", &[reported(curve("loss", |s| s.loss))], true),
        plot("Accuracy", "share", &[reported(curve("accuracy", |s| s.accuracy))], false),
        plot("Speed", "examples per second", &[curve("examples/s", |s| s.examples)], false),
        plot(
            "Traffic",
            "bytes per second",
            &[curve("sent", |s| s.bytes_out), curve("received", |s| s.bytes_in)],
            false,
        ),
        plot("Step", "ms", &[curve("step", |s| s.step), curve("of it waiting", |s| s.step * s.wait)], false),
        plot("Density of updates", "share of the elements", &[reported(curve("density", |s| s.density))], true),
        plot("Residual", "norm", &[reported(curve("residual", |s| s.residual))], true),
    ]
}

fn nodes(model: &Model, page: &mut String) {
    page.push_str(
        "<h2>Nodes</h2>\n<div class=\"wide\"><table>\n<tr><th>rank</th><th class=\"t\">host</th><th class=\"t\">role</th>\
         <th>clock</th><th>steps</th><th>examples</th><th>sent</th><th>received</th><th>staleness</th></tr>\n",
    );
    for (rank, node) in &model.nodes {
        let status = &node.report.status;
        let _ = writeln!(
            page,
            "<tr><td>{rank}</td><td class=\"t\">{}</td><td class=\"t\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{:.2}</td></tr>",
            escaped(&node.host),
            format!("{:?}", status.role).to_lowercase(),
            status.clock.0,
            node.report.times.steps,
            node.report.progress.examples,
            bytes(status.bytes_out() as f64),
            bytes(status.bytes_in() as f64),
            status.staleness.mean()
        );
    }
    page.push_str("</table></div>\n");
}

fn events(model: &Model, page: &mut String) {
    page.push_str(
        "<h2>Events</h2>\n<div class=\"wide\"><table>\n<tr><th>s</th><th>rank</th><th class=\"t\">event</th></tr>\n",
    );
    for note in &model.notes {
        let (at, rank, text) = (seconds(note.at), note.rank, escaped(&note.to_string()));
        let _ = writeln!(page, "<tr><td>{at:.1}</td><td>{rank}</td><td class=\"t\">{text}</td></tr>");
    }
    page.push_str("</table></div>\n");
}
