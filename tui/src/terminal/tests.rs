//! A panic in a terminal, and the bytes that a terminal gets.

use std::io::Write;
use std::sync::atomic::AtomicUsize;

use gradwire_core::status::{LinkStatus, Role};
use gradwire_core::telemetry::{Frame, Run};
use gradwire_core::{Instant, PeerId};
use ratatui::layout::Rect;
use ratatui::{TerminalOptions, Viewport};

use super::*;
use crate::app::{App, Pane};
use crate::model::Model;
use crate::theme::{Palette, Theme};

/// Not a test by itself: `tests/terminal.rs` runs it in a terminal, and looks at the terminal after it.
#[test]
#[ignore = "a panic, for tests/terminal.rs"]
fn a_panic_in_a_terminal() {
    let _screen = Screen::enter(true).unwrap();
    let _ = std::thread::spawn(|| panic!("a panic for a test")).join();
    unreachable!("the hook ends the process");
}

/// Counts the bytes that are written.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicUsize>);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Screens per second, and bytes per second that a slow line carries.
const RATE: u32 = 5;
const LINE: usize = 20_000;

/// A busy run of 16 workers, in which every figure changes with each report, over a slow line.
#[test]
fn a_busy_run_takes_less_than_a_slow_line_carries() {
    let seconds = 10;
    for pane in Pane::ALL {
        let counter = Counter::default();
        let viewport = Viewport::Fixed(Rect::new(0, 0, 80, 24));
        let backend = CrosstermBackend::new(counter.clone());
        let mut terminal = Terminal::with_options(backend, TerminalOptions { viewport }).unwrap();
        let mut app = App::new(Theme { palette: Palette::Full, ascii: false });
        app.pane = pane;
        let mut model = Model::default();
        let run = Run { recipe: "mesh".into(), workers: 16, servers: 0, parameters: 50_826, name: None };
        model.take(Frame::Run(run));
        let mut first = 0;
        for tick in 0..10 * seconds {
            busy_reports(&mut model, tick);
            if tick % (10 / RATE) == 0 {
                terminal.draw(|frame| crate::view::draw(frame, &app, &model)).unwrap();
                if tick == 0 {
                    // The first screen is a whole one.
                    first = counter.0.load(Ordering::Relaxed);
                }
            }
        }
        let each = (counter.0.load(Ordering::Relaxed) - first) / seconds as usize;
        let _ = writeln!(io::stderr(), "{}: {first} bytes for the first screen, then {each} bytes/s", pane.name());
        assert!(each < LINE && first < LINE, "{}: {first} bytes, then {each} bytes/s", pane.name());
    }
}

/// The reports of all nodes in a tenth of a second.
fn busy_reports(model: &mut Model, tick: u32) {
    let at = f64::from(tick) / 10.0;
    for rank in 0..16 {
        // Speeds that differ, and change from second to second.
        let steps = u64::from(tick) * (9 + u64::from(rank % 5)) + u64::from(tick * tick % (7 + rank));
        let mut report = crate::model::tests::report(rank, at, steps);
        let link = |peer: u32| LinkStatus {
            peer: PeerId(peer),
            bytes_out: steps * (1000 + u64::from(peer * 37)),
            bytes_in: steps * (900 + u64::from(peer * 41)),
            last_heard: Some(Instant::from_nanos((at * 1e9) as u64)),
            ..report.status.links[0]
        };
        let links = (0..16).filter(|peer| *peer != rank).map(link).collect();
        report.status.links = links;
        report.status.role = Role::Mesh;
        report.progress.loss = 1.0 / (1.0 + at as f32) + 0.01 * (steps % 7) as f32;
        model.take(Frame::Report(report));
    }
}
