//! [`Watch`]: the program `dtop`, which prints an object ten times a second.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::json::Json;

/// The limit of waits for something that is to happen at some time.
pub(crate) const LONG: Duration = Duration::from_secs(40);
/// The limit of waits for a loss, and for the first true picture after a restart.
pub(crate) const SOON: Duration = Duration::from_secs(2);

pub(crate) struct Watch {
    address: String,
    child: Child,
    last: Arc<Mutex<Option<String>>>,
}

impl Watch {
    pub(crate) fn new(address: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dtop"))
            .args([address, "--json", "--interval", "0.1"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, last) = (BufReader::new(child.stdout.take().unwrap()).lines(), Arc::new(Mutex::new(None)));
        let latest = Arc::clone(&last);
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| *latest.lock().unwrap() = Some(line)));
        Self { address: address.to_string(), child, last }
    }

    /// The next object, which dtop prints after this call.
    #[track_caller]
    pub(crate) fn next(&self) -> Json {
        self.last.lock().unwrap().take();
        let begun = Instant::now();
        loop {
            if let Some(line) = self.last.lock().unwrap().take() {
                return Json::parse(&line);
            }
            assert!(begun.elapsed() < LONG, "dtop prints nothing");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until an object satisfies a condition, and returns it.
    #[track_caller]
    pub(crate) fn wait(&self, within: Duration, what: &str, holds: impl Fn(&Json) -> bool) -> Json {
        let begun = Instant::now();
        loop {
            let object = self.next();
            if holds(&object) {
                return object;
            }
            assert!(begun.elapsed() < within, "{what}: not within {within:?}, but {object:?}");
        }
    }

    /// Checks that all objects of a span satisfy a condition.
    #[track_caller]
    pub(crate) fn keeps(&self, span: Duration, what: &str, holds: impl Fn(&Json) -> bool) {
        let begun = Instant::now();
        while begun.elapsed() < span {
            let object = self.next();
            assert!(holds(&object), "{what}, {:?} later: {object:?}", begun.elapsed());
        }
    }

    /// The median of a number in the objects of a span.
    pub(crate) fn median(&self, span: Duration, of: impl Fn(&Json) -> f64) -> f64 {
        let (begun, mut all) = (Instant::now(), Vec::new());
        while begun.elapsed() < span {
            all.push(of(&self.next()));
        }
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    }

    /// The screen that another dtop prints after so many seconds, in lines that are joined: words that wrap are together.
    pub(crate) fn screen(address: &str, (width, height): (u16, u16), wait: f64) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_dtop"))
            .args([address, "--once", "--ascii", "--wait", &wait.to_string()])
            .envs([("COLUMNS", width.to_string()), ("LINES", height.to_string())])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let fits = |line: &str| line.chars().count() <= usize::from(width);
        assert!(text.lines().count() <= usize::from(height) && text.lines().all(fits), "{text}");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The exit code and the object of another dtop, which prints once.
    pub(crate) fn once(&self, wait: f64) -> (i32, Json) {
        let wait = wait.to_string();
        let args = [&self.address, "--once", "--json", "--wait", &wait];
        let output = Command::new(env!("CARGO_BIN_EXE_dtop")).args(args).output().unwrap();
        (output.status.code().unwrap(), Json::parse(&String::from_utf8(output.stdout).unwrap()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Checks a measurement of dtop against what the run itself says.
#[track_caller]
pub(crate) fn close(what: &str, shown: f64, said: f64, share: f64) {
    assert!((shown - said).abs() <= share * said, "{what}: dtop shows {shown}, the run says {said}");
}
