//! The report as a page.

use std::path::Path;

use gradwire::compare::Report;

/// Writes a page that needs no other file.
pub(crate) fn write(path: &Path, report: &Report) -> std::io::Result<()> {
    let escaped = report.verdict.join("\n").replace('&', "&amp;").replace('<', "&lt;");
    let page = format!("<!doctype html>\n<meta charset=\"utf-8\">\n<title>compare</title>\n<pre>{escaped}</pre>\n");
    std::fs::write(path, page)
}
