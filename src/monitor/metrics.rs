//! What a board has, as OpenMetrics text for Prometheus and its like.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;

use gradwire_core::telemetry::Report;

use super::{Board, PATIENCE, listen};

/// A metric: its name, its unit, whether it only rises, what it says, and how a report has it.
type Metric = (&'static str, &'static str, bool, &'static str, fn(&Report) -> f64);

const METRICS: &[Metric] = &[
    ("steps", "", true, "Steps of the application.", |r| r.times.steps as f64),
    ("examples", "", true, "Examples contributed.", |r| r.progress.examples as f64),
    ("sent_bytes", "bytes", true, "Bytes sent to all peers.", |r| r.status.bytes_out() as f64),
    ("received_bytes", "bytes", true, "Bytes received from all peers.", |r| r.status.bytes_in() as f64),
    ("dense_bytes", "bytes", true, "Bytes that the messages sent would take as plain floats.", |r| {
        r.status.counters.dense_bytes as f64
    }),
    ("compute_seconds", "seconds", true, "Time between steps.", |r| r.times.compute as f64 / 1e9),
    ("wait_seconds", "seconds", true, "Time within steps.", |r| r.times.wait as f64 / 1e9),
    ("staleness", "", true, "Sum of the staleness of updates applied.", |r| r.status.staleness.sum() as f64),
    ("stale_updates", "", true, "Updates applied that have a staleness.", |r| r.status.staleness.count() as f64),
    ("refused_contributions", "", true, "Contributions refused for what was in them.", |r| {
        r.status.counters.rejected as f64
    }),
    ("reconnects", "", true, "Peers that came back after a broken connection.", |r| {
        r.status.counters.reconnects as f64
    }),
    ("clock", "", false, "Synchronisations done.", |r| r.status.clock.0 as f64),
    ("density", "", false, "Share of parameters in the last encoded update.", |r| r.status.density),
    ("threshold", "", false, "Threshold of the last encoded update.", |r| r.status.tau),
    ("residual_norm", "", false, "Norm of what has not been sent.", |r| r.status.residual_norm),
    ("loss", "", false, "Loss of training, as the application says.", |r| f64::from(r.progress.loss)),
    ("accuracy", "", false, "Accuracy, as the application says.", |r| f64::from(r.progress.accuracy)),
    ("view", "", false, "Number of the view.", |r| r.status.view as f64),
    ("waiting", "", false, "1 while the node waits for a peer.", |r| f64::from(u8::from(r.status.waiting.is_some()))),
];

impl Board {
    /// All nodes as OpenMetrics text.
    pub fn metrics(&self) -> String {
        let reports: Vec<Report> = self.lock().reports.values().map(|(_, report)| report.clone()).collect();
        let now = self.now();
        let mut text = String::new();
        for (name, unit, rises, help, of) in METRICS {
            let kind = if *rises { "counter" } else { "gauge" };
            let _ = writeln!(text, "# TYPE gradwire_{name} {kind}");
            if !unit.is_empty() {
                let _ = writeln!(text, "# UNIT gradwire_{name} {unit}");
            }
            let _ = writeln!(text, "# HELP gradwire_{name} {help}");
            let total = if *rises { "_total" } else { "" };
            for report in &reports {
                let (rank, value) = (report.status.me, of(report));
                if value.is_finite() {
                    let _ = writeln!(text, "gradwire_{name}{total}{{rank=\"{rank}\"}} {value}");
                }
            }
        }
        let _ = writeln!(text, "# TYPE gradwire_seen_seconds gauge\n# UNIT gradwire_seen_seconds seconds");
        let _ = writeln!(text, "# HELP gradwire_seen_seconds Time since the node was last heard of.");
        for report in &reports {
            let ago = now.since(report.at).as_secs_f64();
            let _ = writeln!(text, "gradwire_seen_seconds{{rank=\"{}\"}} {ago}", report.status.me);
        }
        text + "# EOF\n"
    }

    /// Answers whoever asks by HTTP at `address` with [`metrics`](Self::metrics), one after the other, on a thread of its own.
    /// Loopback only, unless `open` says that anyone may ask.
    ///
    /// # Errors
    /// When the address cannot be listened at, or anyone could ask.
    pub fn serve_metrics(&self, address: impl ToSocketAddrs, open: bool) -> io::Result<SocketAddr> {
        let (listener, at) = listen(address, open)?;
        let board = self.clone();
        thread::Builder::new().name("metrics".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who asks badly gets nothing.
                let _ = board.answer(stream);
            }
        })?;
        Ok(at)
    }

    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut asked = Vec::new();
        let mut more = [0; 1024];
        while !asked.ends_with(b"\r\n\r\n") && asked.len() < 8192 {
            match stream.read(&mut more)? {
                0 => return Ok(()),
                read => asked.extend(&more[..read]),
            }
        }
        if !asked.starts_with(b"GET ") {
            return stream
                .write_all(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        let text = self.metrics();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        stream.write_all(
            format!("{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len()).as_bytes(),
        )
    }
}
