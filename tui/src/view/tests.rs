//! Screens as text: every pane at several sizes, in colours and in ASCII, and with hostile reports.

use gradwire_core::status::Waiting;
use gradwire_core::telemetry::{Frame as Telemetry, Note, NoteKind, Run};
use gradwire_core::{Clock, Instant, PeerId};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::app::Column;
use crate::theme::{Palette, Theme};

fn at(seconds: f64) -> Instant {
    Instant::from_nanos((seconds * 1e9) as u64)
}

/// Five workers over 20 s. Rank 3 is silent from 15 s on, and rank 1 waits for it from 16 s on.
fn model() -> Model {
    let mut model = Model::default();
    let recipe = "payload=updates pace=stale bound=3 codec=threshold".to_string();
    model.take(Telemetry::Run(Run { recipe, workers: 5, servers: 0, parameters: 50_826, name: None }));
    for tick in 0..80 {
        for rank in 0..5u32 {
            let now = f64::from(tick) / 4.0;
            if rank == 3 && now > 15.0 {
                continue;
            }
            let mut report = crate::model::tests::report(rank, now, (20 - u64::from(rank)) * u64::from(tick as u32));
            report.host = format!("host-{}", rank / 2);
            for age in 0..rank {
                report.status.staleness.record(u64::from(age));
            }
            if rank == 1 && now > 16.0 {
                let (on, reported_by) = (PeerId(3), PeerId(1));
                report.status.waiting =
                    Some(Waiting { on, at: Clock(60), clock: Clock(64), since: at(16.0), reported_by });
            }
            model.take(Telemetry::Report(report));
        }
    }
    let note = |kind, seconds, rank: u32, peer: u32| Note {
        at: at(seconds),
        rank: PeerId(rank),
        kind,
        peer: PeerId(peer),
        number: 7,
    };
    model.take(Telemetry::Note(note(NoteKind::Joined, 0.1, 0, 0)));
    model.take(Telemetry::Note(note(NoteKind::PeerLost, 18.0, 2, 3)));
    model
}

/// The screen as lines of text.
fn shown(app: &App, model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app, model)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_string() + "\n").collect()
}

fn app(pane: Pane, palette: Palette, ascii: bool) -> App {
    let mut app = App::new(Theme { palette, ascii });
    app.pane = pane;
    app
}

/// At every size each pane shows its main text, and the alarm names the silent node. ASCII screens are ASCII.
#[test]
fn every_pane_shows_its_main_text_and_the_alarm() {
    let model = model();
    // The beginning of the last note: narrow screens cut the rest.
    let event: String = model.notes[1].to_string().chars().take(12).collect();
    let expected = [
        (Pane::Overview, "recipe"),
        (Pane::Nodes, "GIVEN UP"),
        (Pane::Staleness, "clocks from"),
        (Pane::Compression, "density"),
        (Pane::Links, "from"),
        (Pane::Events, &event),
    ];
    for (pane, word) in expected {
        for (width, height) in [(80, 24), (200, 50), (40, 12)] {
            for (palette, ascii) in [(Palette::Full, false), (Palette::Sixteen, false), (Palette::None, true)] {
                let mut app = app(pane, palette, ascii);
                // A low screen has three lines of the table: the worst nodes.
                app.sort = if height < 16 { Column::State } else { app.sort };
                let text = shown(&app, &model, width, height);
                assert!(text.contains(word), "{pane:?} at {width} x {height}:\n{text}");
                assert!(text.contains("STALLED") && text.contains("for peer 3"), "{pane:?} at {width}:\n{text}");
                assert!(!ascii || text.is_ascii(), "{pane:?} at {width} x {height}:\n{text}");
            }
        }
    }
}

#[test]
fn the_details_of_a_node_show_its_wait_and_its_step() {
    let mut app = app(Pane::Nodes, Palette::None, true);
    app.node = Some(1);
    let text = shown(&app, &model(), 80, 24);
    for word in
        ["peer 1, worker at host-0", "for peer 3 (at clock 60)", "compute", "6.000 ms", "time per step: 10.000 ms"]
    {
        assert!(text.contains(word), "{word}:\n{text}");
    }
    app.node = Some(77);
    assert!(shown(&app, &model(), 80, 24).contains("no report from peer 77"));
}

/// The screen, with a hash of its styles in a last line.
fn snapshot(app: &App, model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app, model)).unwrap();
    let styles = terminal.backend().buffer().content.iter().map(|cell| format!("{:?}", cell.style()));
    let hash = styles.fold(0xcbf2_9ce4_8422_2325u64, |hash, style| {
        style.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    });
    format!("{}styles {hash:016x}\n", shown(app, model, width, height))
}

/// Compares screens with the files of these names. `GRADWIRE_WRITE_SNAPSHOTS=1` writes the files, to be reviewed.
fn equal_their_files(screens: impl IntoIterator<Item = (String, String)>) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots");
    let write = std::env::var_os("GRADWIRE_WRITE_SNAPSHOTS").is_some();
    let mut different = Vec::new();
    for (name, text) in screens {
        let path = root.join(format!("{name}.txt"));
        if write {
            std::fs::create_dir_all(&root).unwrap();
            std::fs::write(&path, text).unwrap();
        } else if std::fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            different.push(format!("{}:\n{text}", path.display()));
        }
    }
    assert!(different.is_empty(), "{} differ, the first of them {}", different.len(), different[0]);
}

/// Every pane at every size, in colours and in ASCII, equals its snapshot.
#[test]
fn panes_equal_their_snapshots() {
    let model = model();
    let mut screens = Vec::new();
    for pane in Pane::ALL.into_iter().map(Some).chain([None]) {
        for (width, height) in [(80, 24), (200, 50), (40, 12)] {
            for (variant, palette, ascii) in [("colour", Palette::Full, false), ("ascii", Palette::None, true)] {
                let mut app = app(pane.unwrap_or(Pane::Nodes), palette, ascii);
                app.node = pane.is_none().then_some(1);
                let name = pane.map_or_else(|| "Node".to_string(), |pane| pane.name().to_string());
                let name = format!("{name}-{width}x{height}-{variant}");
                screens.push((name, snapshot(&app, &model, width, height)));
            }
        }
    }
    equal_their_files(screens);
}

/// A slow rank, a thin network, a killed server and a divergence: the overview names the cause and the remedy.
#[test]
fn staged_situations_equal_their_snapshots() {
    let mut screens = Vec::new();
    for (name, model) in crate::diagnosis::tests::staged() {
        for (width, height) in [(80, 24), (200, 50), (40, 12)] {
            let app = app(Pane::Overview, Palette::Full, false);
            screens.push((format!("staged-{name}-{width}x{height}"), snapshot(&app, &model, width, height)));
        }
    }
    equal_their_files(screens);
}

/// The chain of waits is drawn from its cause on, and a circle is drawn once. The topology is that of the recipe.
#[test]
fn the_overview_shows_the_topology_and_who_waits_for_whom() {
    use crate::diagnosis::tests::{EQUAL, run, waits};
    let drawn = |recipe: &str, servers: u32, on: &dyn Fn(u32) -> Option<u32>| {
        let model = run(&[EQUAL; 5], servers, recipe, |rank, _, report| {
            if let Some(on) = on(rank) {
                waits(report, on, 19.0);
            }
            true
        });
        shown(&app(Pane::Overview, Palette::None, true), &model, 200, 50)
    };
    // 0 and 2 wait for the server, which waits for 1.
    let text = drawn("ssp", 1, &|rank| [Some(5), None, Some(5), None, None, Some(1)][rank as usize]);
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}:\n{text}"));
    assert!(place("|1 computes") < place("|`-5 waits 0.8 s") && place("|`-5 waits") < place("|  `-0, 2 wait, at"));
    place("waits     0, 2 wait for 5; 5 waits for 1");
    place("topology  workers 0 to 4 <-> servers 5, 1 shard");
    let text = drawn("mesh", 0, &|rank| [Some(1), Some(2), Some(0), None, None].get(rank as usize).copied()?);
    assert_eq!(text.matches("waits 0.8 s").count(), 2, "{text}");
    assert!(text.contains("mesh of 0 to 4, each sends to all others"), "{text}");
    assert!(drawn("ring-bf16", 0, &|_| None).contains("ring 0 > 1 > 2 > 3 > 4 > 0"));
    assert!(drawn("sync topology=tree", 0, &|_| None).contains("tree 0(1 2) 1(3 4)"));
}

/// The parts of a step are stacked by their shares. A loss that falls to 0 has a linear axis.
#[test]
fn bars_have_the_shares_and_the_axis_fits_the_loss() {
    let text = |loss: f32| {
        let model = crate::diagnosis::tests::run(&[(50, 10, 20, 20, 10.0); 2], 0, "sync", |_, _, report| {
            report.progress.loss = loss;
            report.progress.accuracy = f32::NAN;
            true
        });
        shown(&app(Pane::Overview, Palette::None, true), &model, 80, 24)
    };
    let shown = text(0.5);
    let bar = shown.lines().find(|line| line.starts_with("   1 ")).unwrap();
    let cells = |sign: char| bar.chars().take(46).filter(|c| *c == sign).count();
    assert_eq!((cells('#'), cells('c'), cells('s')), (16, 3, 6), "{shown}");
    assert!(shown.contains("loss 0.5000, logarithmic") && !shown.contains("accuracy"), "{shown}");
    assert!(!text(0.0).contains("logarithmic"));
}

/// 80x24 has every fact, the bars and the charts, in all situations; nothing is cut but a long recipe.
#[test]
fn a_screen_of_80x24_shows_every_fact() {
    let mut situations: Vec<_> = crate::diagnosis::tests::staged().into_iter().collect();
    situations.push(("mixed", model()));
    for (name, model) in situations {
        let text = shown(&app(Pane::Overview, Palette::Full, false), &model, 80, 24);
        for part in [
            "cluster: ",
            "recipe ",
            "speed ",
            "waits ",
            "slowest ",
            "network ",
            "topology ",
            "staleness ",
            "computing",
            "loss ",
            "examples/s ",
        ] {
            assert!(text.contains(part), "{name}: {part}\n{text}");
        }
        assert!(!text.contains("no data"), "{name}:\n{text}");
        let cut = text.lines().filter(|line| line.ends_with('…') && !line.starts_with("recipe"));
        assert_eq!(cut.count(), 0, "{name}:\n{text}");
    }
}

/// A large screen has more to show than a list of few nodes, on each pane with a list.
#[test]
fn a_large_screen_is_used() {
    for (pane, parts) in [
        (Pane::Overview, &["who waits for whom", "ms per step 1", "bytes/s ", "last events"][..]),
        (Pane::Nodes, &["peer 0, worker at host-0", "time per step"]),
        (Pane::Staleness, &["workers wait", "staleness of updates"]),
        (Pane::Links, &["bytes/s of all nodes"]),
        (Pane::Compression, &["density", "residual norm"]),
    ] {
        let text = shown(&app(pane, Palette::Full, false), &model(), 200, 50);
        parts.iter().for_each(|part| assert!(text.contains(part), "{pane:?} {part}:\n{text}"));
        // A line of a chart has its axis.
        let is_blank = |line: &&str| line.chars().all(|c| c == ' ' || c == '│') && line.matches('│').count() < 3;
        let blank = text.lines().filter(is_blank).count();
        assert!(blank < 10, "{pane:?} has {blank} empty lines:\n{text}");
    }
}

/// A small screen has whole words: lines that are too long end after a word, with dots.
#[test]
fn a_screen_of_40x12_has_whole_words() {
    let model = model();
    for pane in Pane::ALL {
        let text = shown(&app(pane, Palette::Full, false), &model, 40, 12);
        assert!(
            text.contains(&format!(
                "{} {}",
                1 + Pane::ALL.iter().position(|other| *other == pane).unwrap(),
                pane.name()
            )),
            "{text}"
        );
        let wide = shown(&app(pane, Palette::Full, false), &model, 400, 12);
        let words: std::collections::HashSet<&str> = wide.split_whitespace().collect();
        let last = text
            .lines()
            .skip(4)
            .filter(|line| line.chars().count() == 40 && !line.ends_with(['…', '─', '│', '┐', '┘', '━']));
        for line in last {
            let word = line.split_whitespace().last().unwrap();
            assert!(
                words.iter().any(|other| *other == word || other.trim_end_matches([',', ';']) == word),
                "{pane:?} {word}:\n{text}"
            );
        }
    }
}

/// A small screen of a recording has the position, the bar and the speed.
#[test]
fn a_small_screen_of_a_recording_has_its_position() {
    let mut app = app(Pane::Overview, Palette::None, true);
    let playback = crate::app::Playback { start: 0.0, position: 12.0, length: 40.0, speed: 16.0, playing: false };
    app.playback = Some(playback);
    let text = shown(&app, &model(), 40, 12);
    let first = text.lines().next().unwrap();
    assert!(first.starts_with(" STALLED  4/5  paused 16x #") && first.ends_with(". 12/40 s"), "{text}");
}

/// An axis fits the accuracy, as it does the loss: it does not begin at 0. An accuracy that is not told has no chart.
#[test]
fn the_axis_of_the_accuracy_fits_it() {
    let text = |accuracy: fn(f64) -> f32| {
        let model = crate::diagnosis::tests::run(&[crate::diagnosis::tests::EQUAL; 2], 0, "sync", |_, at, report| {
            report.progress.accuracy = accuracy(at);
            true
        });
        shown(&app(Pane::Overview, Palette::None, true), &model, 80, 40)
    };
    let rising = text(|at| 0.91 + 0.003 * at as f32);
    let labels: Vec<&str> = rising.lines().skip_while(|line| !line.contains(" accuracy ")).collect();
    let has = |label: &str| labels.iter().any(|line| line.contains(&format!("{label}|")));
    assert!(has("0.90") && has("0.98") && !labels.join("").contains("|0.00"), "{rising}");
    let untold = text(|_| f32::NAN);
    assert!(!untold.contains("accuracy"), "{untold}");
}

/// Sums over no nodes are 0, not -0.
#[test]
fn an_empty_model_has_no_negative_zeros() {
    for pane in Pane::ALL {
        let text = shown(&app(pane, Palette::Full, false), &Model::default(), 80, 24);
        assert!(!text.contains("-0"), "{pane:?}:\n{text}");
    }
}

/// Drawing does not panic for any values in reports, any order of times, or any size of the screen.
#[test]
fn hostile_reports_are_drawn() {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 20
    };
    for round in 0..60 {
        let mut model = Model::default();
        let recipe = format!("bound={} updates={}\u{1b}[2J", next(), next() % 3);
        model.take(Telemetry::Run(Run {
            recipe,
            workers: next() as u32,
            servers: 3,
            parameters: u64::MAX,
            name: None,
        }));
        for _ in 0..200 {
            let rank = (next() % 9) as u32;
            let mut report = crate::model::tests::report(rank, 0.0, next() % 1000);
            report.at = Instant::from_nanos(next() << (next() % 20));
            report.status.clock = Clock(if next().is_multiple_of(5) { u64::MAX } else { next() });
            report.status.density = [f64::NAN, f64::INFINITY, -1.0, 0.5, 1e300][(next() % 5) as usize];
            report.status.tau = [f64::NAN, f64::NEG_INFINITY, 0.0][(next() % 3) as usize];
            report.progress.loss = f32::from_bits(next() as u32);
            report.times.wait = next() << 8;
            report.times.compute = u64::MAX;
            let (on, reported_by) = (PeerId(next() as u32), PeerId(0));
            let (clock, since) = (Clock(next()), Instant::from_nanos(next()));
            report.status.waiting = Some(Waiting { on, at: clock, clock, since, reported_by });
            model.take(Telemetry::Report(report));
        }
        for pane in Pane::ALL {
            let mut app = app(pane, Palette::Full, round % 2 == 0);
            app.column = next() as usize % 500;
            app.help_line = next() as usize % 500;
            app.select_rank(next() as u32 % 9);
            app.node = (round % 3 == 0).then_some(1);
            for (width, height) in [(80, 24), (1, 1), (7, 3), (40, 12), (300, 4)] {
                let text = shown(&app, &model, width, height);
                assert!(!text.contains('\u{1b}'));
            }
        }
        assert!(crate::json::object(&model).starts_with("{\"version\":1,"));
    }
}
