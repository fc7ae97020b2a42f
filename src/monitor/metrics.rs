//! The contents of a board as OpenMetrics text, for Prometheus and compatible monitoring systems.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;

use gradwire_core::telemetry::Report;

use super::board::Board;
use super::network::{PATIENCE, listen};

/// Bytes of the longest HTTP request that is read.
const REQUEST_MAX: usize = 8192;

/// A metric of a node.
struct Metric {
    /// The name, after `gradwire_`.
    name: &'static str,
    /// Empty for a plain number.
    unit: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&Report) -> f64,
}

/// A counter only rises; a gauge can fall.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

const fn counter(name: &'static str, help: &'static str, value: fn(&Report) -> f64) -> Metric {
    Metric { name, unit: "", kind: Kind::Counter, help, value }
}

/// A counter whose unit ends its name, as OpenMetrics demands.
const fn measured(name: &'static str, unit: &'static str, help: &'static str, value: fn(&Report) -> f64) -> Metric {
    Metric { name, unit, kind: Kind::Counter, help, value }
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Report) -> f64) -> Metric {
    Metric { name, unit: "", kind: Kind::Gauge, help, value }
}

const METRICS: &[Metric] = &[
    counter("steps", "Steps of the application.", |r| r.times.steps as f64),
    counter("examples", "Examples contributed.", |r| r.progress.examples as f64),
    measured("sent_bytes", "bytes", "Bytes sent to all peers.", |r| r.status.bytes_out() as f64),
    measured("received_bytes", "bytes", "Bytes received from all peers.", |r| r.status.bytes_in() as f64),
    measured("dense_bytes", "bytes", "Bytes that the messages sent would take with their vectors as floats.", |r| {
        r.status.counters.dense_bytes as f64
    }),
    measured("compute_seconds", "seconds", "Time of the application between steps.", |r| r.times.compute as f64 / 1e9),
    measured("wait_seconds", "seconds", "Time of the application within steps.", |r| r.times.wait as f64 / 1e9),
    counter("staleness", "Sum of the staleness of the updates applied.", |r| r.status.staleness.sum() as f64),
    counter("stale_updates", "Updates applied that have a staleness.", |r| r.status.staleness.count() as f64),
    counter("refused_contributions", "Contributions refused because of their contents.", |r| {
        r.status.counters.rejected as f64
    }),
    counter("reconnects", "Peers that came back after a broken connection.", |r| r.status.counters.reconnects as f64),
    gauge("clock", "Synchronisations done.", |r| r.status.clock.0 as f64),
    gauge("density", "Share of the elements in the last encoded update.", |r| r.status.density),
    gauge("threshold", "Threshold of the last encoded update.", |r| r.status.tau),
    gauge("residual_norm", "Norm of the residual, which has not been sent.", |r| r.status.residual_norm),
    gauge("residual_updates", "Norm of the residual, as a multiple of the norm of an update.", |r| {
        r.status.residual_updates
    }),
    gauge("loss", "Training loss, as reported by the application.", |r| f64::from(r.progress.loss)),
    gauge("accuracy", "Accuracy, as reported by the application.", |r| f64::from(r.progress.accuracy)),
    gauge("view", "Number of the membership view.", |r| r.status.view as f64),
    gauge("waiting", "1 while the node waits for a peer.", |r| f64::from(u8::from(r.status.waiting.is_some()))),
];

impl Board {
    /// The last report of each node as OpenMetrics text. Values that are not finite are left out.
    pub fn metrics(&self) -> String {
        let reports = self.reports();
        let now = self.now();
        let mut text = String::new();
        for Metric { name, unit, kind, help, value } in METRICS {
            let (kind, suffix) = match kind {
                Kind::Counter => ("counter", "_total"),
                Kind::Gauge => ("gauge", ""),
            };
            let _ = writeln!(text, "# TYPE gradwire_{name} {kind}");
            if !unit.is_empty() {
                let _ = writeln!(text, "# UNIT gradwire_{name} {unit}");
            }
            let _ = writeln!(text, "# HELP gradwire_{name} {help}");
            for report in &reports {
                let (rank, value) = (report.status.me, value(report));
                if value.is_finite() {
                    let _ = writeln!(text, "gradwire_{name}{suffix}{{rank=\"{rank}\"}} {value}");
                }
            }
        }
        let _ = writeln!(text, "# TYPE gradwire_seen_seconds gauge\n# UNIT gradwire_seen_seconds seconds");
        let _ = writeln!(text, "# HELP gradwire_seen_seconds Time since the node's last report.");
        for report in &reports {
            let ago = now.since(report.at).as_secs_f64();
            let _ = writeln!(text, "gradwire_seen_seconds{{rank=\"{}\"}} {ago}", report.status.me);
        }
        text + "# EOF\n"
    }

    /// Answers HTTP GET requests at `address` with [`metrics`](Self::metrics), one at a time, on a thread of its own,
    /// until the process ends. Returns the address, with the port that the system chose if `address` has port 0. HTTP
    /// has no key here, so an address beyond loopback needs `open`.
    ///
    /// # Errors
    /// If the board cannot listen at the address or start a thread, and for an address beyond loopback without `open`.
    pub fn serve_metrics(&self, address: impl ToSocketAddrs, open: bool) -> io::Result<SocketAddr> {
        let (listener, at) = listen(address, open)?;
        let board = self.clone();
        thread::Builder::new().name("metrics".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that fails asks again at its next interval.
                let _ = board.answer(stream);
            }
        })?;
        Ok(at)
    }

    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        // One thread serves all clients, so a slow one must not hold it for long.
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut request = Vec::new();
        let mut more = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") && request.len() < REQUEST_MAX {
            match stream.read(&mut more)? {
                0 => return Ok(()),
                read => request.extend(&more[..read]),
            }
        }
        if !request.starts_with(b"GET ") {
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
