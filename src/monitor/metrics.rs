//! The contents of a board as OpenMetrics text, for Prometheus and compatible monitoring systems.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use gradwire_core::telemetry::Report;

use super::board::Board;
use super::network::MonitorKey;
use super::serving::{self, Service, Standing, listen};

/// Bytes of the longest HTTP request that is read.
const REQUEST_MAX: usize = 8192;
/// Clients that are answered at a time.
const CLIENTS_MAX: usize = 8;
/// How long a client may take to read its answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// For how long an answer is given again. Nodes report ten times a second.
const FRESH: Duration = Duration::from_millis(50);

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

/// A counter with its unit at the end of its name, as OpenMetrics demands.
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
    counter("late_contributions", "Contributions dropped because their round was over.", |r| {
        r.status.counters.late as f64
    }),
    counter("deferred_contributions", "Contributions that joined a later round, since theirs was over.", |r| {
        r.status.counters.deferred as f64
    }),
    counter("repeated_contributions", "Contributions that servers have applied in place of ones not sent.", |r| {
        r.status.counters.repeated as f64
    }),
    counter("skipped_pushes", "Updates that were not sent.", |r| r.status.counters.skipped_pushes as f64),
    counter("skipped_fetches", "Updates after which no parameters were taken.", |r| {
        r.status.counters.skipped_fetches as f64
    }),
    counter("reconnects", "Peers that came back after a broken connection.", |r| r.status.counters.reconnects as f64),
    gauge("clock", "Synchronisations done.", |r| r.status.clock.0 as f64),
    gauge("density", "Share of the elements in the last encoded update.", |r| r.status.density),
    gauge("threshold", "Threshold of the last encoded update.", |r| r.status.tau),
    gauge("residual_norm", "Norm of the residual, which has not been sent.", |r| r.status.residual_norm),
    gauge("residual_updates", "Norm of the residual, as a multiple of the norm of an update.", |r| {
        r.status.residual_updates
    }),
    counter("forgotten", "Sum of the magnitudes that decay has removed from the residual.", |r| r.status.forgotten),
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

    /// Answers HTTP GET requests at `address` with [`metrics`](Self::metrics), on a thread of its own, until the
    /// process ends. Returns the address, with the port that the system chose if `address` has port 0.
    ///
    /// With a key, a request must have the header `Authorization: Bearer DIGITS`: the key as 64 hexadecimal digits, in
    /// lower case. That is the content of a key file, so Prometheus can read it by `credentials_file`. HTTP does not
    /// encrypt: whoever reads the traffic has the key, so it must not be the key of the cluster. An address beyond
    /// loopback needs a key, unless `open` is true: then every host that reaches the address can scrape.
    ///
    /// A request must be complete within 2 s, and the answer must be read within 10 s. At most eight clients are
    /// answered at a time.
    ///
    /// # Errors
    /// If the board cannot listen at the address or start a thread, and for an address beyond loopback without a key.
    pub fn serve_metrics(
        &self,
        address: impl ToSocketAddrs,
        key: Option<MonitorKey>,
        open: bool,
    ) -> io::Result<SocketAddr> {
        let (listener, at) = listen(address, key.is_some() || open)?;
        serving::serve(listener, "metrics", Scraped::new(self, key))?;
        Ok(at)
    }
}

/// A client of [`Board::serve_metrics`], see [`Feed`](serving::Feed).
pub fn scrapers(board: &Board) -> serving::Feed {
    serving::feed(Scraped::new(board, None))
}

/// The service that answers HTTP requests with the metrics of a board.
struct Scraped {
    board: Board,
    /// The last answer, and when it was made. Many requests must not cost as many descriptions of all nodes.
    text: String,
    made_at: Option<Instant>,
    /// The number of the board's last report in that answer.
    number: u64,
    /// The value of the header `Authorization` that a request needs; `None`: none.
    authorization: Option<String>,
}

impl Scraped {
    fn new(board: &Board, key: Option<MonitorKey>) -> Self {
        let digits = |key: MonitorKey| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let authorization = key.map(|key| format!("Bearer {}", digits(key)));
        Self { board: board.clone(), text: String::new(), made_at: None, number: 0, authorization }
    }

    /// Whether a request has the key. Compares in constant time.
    fn is_authorized(&self, request: &[u8]) -> bool {
        let Some(expected) = &self.authorization else { return true };
        let head = String::from_utf8_lossy(request);
        let got = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("authorization").then(|| value.trim())
        });
        got.is_some_and(|got| blake3::hash(got.as_bytes()) == blake3::hash(expected.as_bytes()))
    }
}

/// The progress of one client's request.
#[derive(Default)]
struct Client {
    /// Bytes of its request in which the end has been looked for. Each is looked at once, however they are cut.
    seen: usize,
    /// Until when the answer must have been read, once there is one.
    until: Option<Instant>,
}

impl Service for Scraped {
    type Client = Client;

    fn limits(&self) -> (usize, u64) {
        (CLIENTS_MAX, self.board.nodes() as u64)
    }

    fn open(&mut self, _: &mut Vec<u8>) -> Client {
        Client::default()
    }

    fn receive(&mut self, client: &mut Client, input: &mut Vec<u8>, output: &mut Vec<u8>) -> io::Result<Standing> {
        if client.until.is_some() {
            // It gets one answer, and the connection is closed after that.
            input.clear();
            return Ok(Standing::Proven);
        }
        // Further bytes may have come in the same piece.
        let head = &input[..input.len().min(REQUEST_MAX)];
        // The end may have begun in the last three bytes that were seen.
        let news = &head[client.seen.saturating_sub(3)..];
        client.seen = head.len();
        if !news.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            let too_long = input.len() >= REQUEST_MAX;
            return if too_long { Err(io::ErrorKind::InvalidData.into()) } else { Ok(Standing::Unproven) };
        }
        let now = Instant::now();
        client.until = Some(now + ANSWER_MAX);
        if !input.starts_with(b"GET ") {
            output.extend(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return Ok(Standing::Proven);
        }
        if !self.is_authorized(head) {
            let refusal =
                "gradwire: expected the header \"Authorization: Bearer DIGITS\" with the monitor key of this run\n";
            let head = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Type: text/plain";
            output.extend(
                format!("{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{refusal}", refusal.len()).as_bytes(),
            );
            return Ok(Standing::Proven);
        }
        if self.made_at.is_none_or(|made_at| now >= made_at + FRESH) {
            // The number first: a report that comes in between is not taken for one that was scraped.
            self.number = self.board.number();
            (self.text, self.made_at) = (self.board.metrics(), Some(now));
        }
        self.board.ending().scraped(self.number, now);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        output.extend(format!("{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", self.text.len()).as_bytes());
        output.extend(self.text.as_bytes());
        Ok(Standing::Proven)
    }

    /// The answer has been sent.
    fn send(&mut self, _: &mut Client, _: Instant, _: &mut Vec<u8>) -> io::Result<Option<Instant>> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn ends_at(&self, client: &Client) -> Option<Instant> {
        client.until
    }
}
