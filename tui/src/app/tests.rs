//! Keys, mouse, sorting and filters, without a terminal.

use std::time::Duration;

use gradwire_core::telemetry::{Frame, NoteKind, Report, Run, Stage};
use gradwire_core::{Instant, PeerId};
use ratatui::backend::TestBackend;

use super::*;
use crate::feed::{Feed, Source};
use crate::keys;
use crate::model::tests::report;
use crate::theme::Palette;

/// Five nodes with reports over 5 seconds. Lower ranks are faster.
fn model_of(nodes: u32) -> Model {
    let mut model = Model::default();
    for at in 0..20 {
        for rank in 0..nodes {
            let steps = (200 - u64::from(rank)) * at;
            model.take(Frame::Report(crate::model::tests::report(rank, at as f64 / 4.0, steps)));
        }
    }
    model.run.workers = nodes;
    model
}

fn model() -> Model {
    model_of(5)
}

fn app() -> App {
    App::new(Theme { palette: Palette::None, ascii: true })
}

fn key(code: KeyCode) -> KeyEvent {
    KeyEvent::new(code, KeyModifiers::NONE)
}

/// Presses the keys of a text: newline is Enter, ESC is Esc, tab is Tab.
fn press(app: &mut App, model: &Model, keys: &str) {
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            '<' => KeyCode::Left,
            '>' => KeyCode::Right,
            c => KeyCode::Char(c),
        };
        app.on_key(key(code), model);
    }
}

/// Draws the screen, and returns its lines.
fn drawn(app: &App, model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = ratatui::Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| crate::view::draw(frame, app, model)).unwrap();
    let buffer = terminal.backend().buffer();
    (0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect()).collect()
}

/// Clicks on the first place of the drawn screen that has this text.
fn click(app: &mut App, model: &Model, lines: &[String], text: &str) {
    let row = lines.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text} in {lines:#?}"));
    let column = lines[row].find(text).unwrap();
    mouse(app, model, MouseEventKind::Down(MouseButton::Left), column as u16, row as u16);
}

fn mouse(app: &mut App, model: &Model, kind: MouseEventKind, column: u16, row: u16) {
    app.on_mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }, model);
}

#[test]
fn keys_move_between_panes_and_lines() {
    let (mut app, model) = (app(), model());
    press(&mut app, &model, "2jj\n");
    assert_eq!((app.pane, app.node), (Pane::Nodes, Some(2)));
    // The details follow the selection.
    press(&mut app, &model, "j");
    assert_eq!(app.node, Some(3));
    press(&mut app, &model, "\u{1b}\t");
    assert_eq!((app.pane, app.node, app.selected(&model)), (Pane::Staleness, None, Some(3)));
    press(&mut app, &model, "G");
    assert_eq!(app.selected(&model), Some(4));
    press(&mut app, &model, "g");
    assert_eq!(app.selected(&model), Some(0));
    press(&mut app, &model, "q");
    assert!(app.quit);
}

/// The meaning of each default key: the table says which state a key changes, and the help says the same in words.
#[test]
fn each_key_does_what_the_help_says() {
    let model = model();
    type Holds = fn(&App, &Model) -> bool;
    // Keys before, the keys that are tried, the condition after each of them, and a word of the help.
    let table: &[(&str, &[KeyCode], Holds, Command)] = &[
        ("2", &[KeyCode::Char('1')], |app, _| app.pane == Pane::Overview, Command::Show(Pane::Overview)),
        ("", &[KeyCode::Char('2')], |app, _| app.pane == Pane::Nodes, Command::Show(Pane::Nodes)),
        ("", &[KeyCode::Char('3')], |app, _| app.pane == Pane::Staleness, Command::Show(Pane::Staleness)),
        ("", &[KeyCode::Char('4')], |app, _| app.pane == Pane::Compression, Command::Show(Pane::Compression)),
        ("", &[KeyCode::Char('5')], |app, _| app.pane == Pane::Links, Command::Show(Pane::Links)),
        ("", &[KeyCode::Char('6')], |app, _| app.pane == Pane::Events, Command::Show(Pane::Events)),
        ("2", &[KeyCode::Tab], |app, _| app.pane == Pane::Staleness, Command::NextPane),
        ("2", &[KeyCode::BackTab], |app, _| app.pane == Pane::Overview, Command::PreviousPane),
        ("2jj", &[KeyCode::Up, KeyCode::Char('k')], |app, model| app.line(model) == 1, Command::Up),
        ("2jj", &[KeyCode::Down, KeyCode::Char('j')], |app, model| app.line(model) == 3, Command::Down),
        ("2G", &[KeyCode::PageUp], |app, model| app.line(model) < 4, Command::PageUp),
        ("2", &[KeyCode::PageDown], |app, model| app.line(model) > 0, Command::PageDown),
        ("2jj", &[KeyCode::Home, KeyCode::Char('g')], |app, model| app.line(model) == 0, Command::First),
        ("2jj", &[KeyCode::End, KeyCode::Char('G')], |app, model| app.line(model) == 4, Command::Last),
        ("5>>", &[KeyCode::Left, KeyCode::Char('h')], |app, _| app.column == 1, Command::Left),
        ("5>>", &[KeyCode::Right, KeyCode::Char('l')], |app, _| app.column == 3, Command::Right),
        ("3j", &[KeyCode::Enter], |app, _| (app.pane, app.node) == (Pane::Nodes, Some(1)), Command::Open),
        (
            "3j\n",
            &[KeyCode::Esc, KeyCode::Backspace],
            |app, _| (app.pane, app.node) == (Pane::Staleness, None),
            Command::Back,
        ),
        ("", &[KeyCode::Char('/')], |app, _| app.editing_filter, Command::Filter),
        ("f", &[KeyCode::Char('f')], |app, _| app.state == Some(State::Waiting), Command::State),
        ("", &[KeyCode::Char('s')], |app, _| app.sort == Column::State, Command::Sort),
        ("", &[KeyCode::Char('S')], |app, _| app.reverse, Command::Reverse),
        ("", &[KeyCode::Char('e')], |app, _| app.expanded, Command::Expand),
        ("5", &[KeyCode::Char('u')], |app, _| app.unit == LinkUnit::Response, Command::Unit),
        ("", &[KeyCode::Char('r')], |app, _| app.choosing == Some(0), Command::Runs),
        ("", &[KeyCode::Char('n')], |app, _| app.run == 1, Command::NextRun),
        ("", &[KeyCode::Char(' '), KeyCode::Char('p')], |app, _| app.frozen.is_some(), Command::Pause),
        ("", &[KeyCode::Char('?'), KeyCode::F(1)], |app, _| app.help, Command::Help),
        ("", &[KeyCode::Char('q')], |app, _| app.quit, Command::Quit),
    ];
    let run = RunLine { label: "a".into(), health: Health::Ok, connected: true, nodes: (1, 1), recipe: String::new() };
    for (before, codes, holds, command) in table {
        for code in *codes {
            let mut app = app();
            app.runs = vec![run.clone(), run.clone()];
            press(&mut app, &model, before);
            assert!(!holds(&app, &model), "{command:?} holds before {code:?}");
            app.on_key(key(*code), &model);
            assert!(holds(&app, &model), "{command:?} after {code:?}");
            assert_eq!(app.keys.command(key(*code)), Some(*command));
        }
    }
    let playing = Playback { start: 0.0, position: 7.0, length: 20.0, speed: 1.0, playing: true };
    let recordings: [(&[char], Playback, Command); 5] = [
        (&[' ', 'p'], Playback { playing: false, ..playing }, Command::Pause),
        (&['['], Playback { position: 2.0, ..playing }, Command::Earlier),
        (&[']'], Playback { position: 12.0, ..playing }, Command::Later),
        (&['x', '+'], Playback { speed: 2.0, ..playing }, Command::Faster),
        (&['X', '-'], Playback { speed: 0.5, ..playing }, Command::Slower),
    ];
    for (characters, after, command) in recordings {
        for c in characters {
            let mut app = app();
            app.playback = Some(playing);
            press(&mut app, &model, &c.to_string());
            assert_eq!((app.playback, app.keys.command(key(KeyCode::Char(*c)))), (Some(after), Some(command)), "{c}");
        }
    }
    // Each command is tried but Ctrl-Z, which a terminal is needed for, and each has its line in the help.
    let tried = table.iter().map(|row| row.3).chain(recordings.iter().map(|row| row.2)).collect::<Vec<_>>();
    let mut app = app();
    app.help = true;
    let help = drawn(&app, &model, 200, 80).concat();
    for binding in keys::all() {
        assert!(tried.contains(&binding.command) || binding.command == Command::Suspend, "{}", binding.name);
        assert!(help.contains(binding.help), "{}", binding.help);
        assert!(help.contains(&format!(" {} ", app.keys.names(binding.command))), "{}", binding.name);
    }
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    app.on_key(control('z'), &model);
    assert!(app.suspend && !app.quit);
    app.on_key(control('c'), &model);
    assert!(app.quit);
}

/// A key has the same meaning while the help is open, except for the scrolling of the help.
#[test]
fn the_help_is_reachable_on_a_small_screen() {
    let (mut app, model) = (app(), model());
    press(&mut app, &model, "?");
    let mut seen = String::new();
    for _ in 0..100 {
        seen += &drawn(&app, &model, 40, 12).concat();
        press(&mut app, &model, "j");
    }
    for text in ["ctrl-c", "ctrl-z", "slowest links", "next run"] {
        assert!(seen.contains(text), "{text}");
    }
    press(&mut app, &model, "g\u{1b}");
    assert!(!app.help);
    press(&mut app, &model, "?3");
    assert_eq!((app.help, app.pane), (false, Pane::Staleness));
    press(&mut app, &model, "?q");
    assert!(app.quit);
}

#[test]
fn nodes_are_sorted_with_the_worst_first_and_filtered() {
    let (mut app, mut model) = (app(), model());
    // Rank 2 goes on by itself: other nodes are silent. Rank 4 has left.
    for at in 5..9 {
        model.take(Frame::Report(crate::model::tests::report(2, f64::from(at), 99_999)));
    }
    let last = Report { at: model.now, stage: Stage::Left, ..model.nodes[&4].report.clone() };
    model.take(Frame::Report(last));
    assert_eq!(app.listed(&model), [0, 1, 2, 3, 4]);
    press(&mut app, &model, "s");
    assert_eq!((app.sort, app.listed(&model)), (Column::State, vec![0, 1, 3, 2, 4]));
    press(&mut app, &model, "s");
    assert_eq!((app.sort, app.listed(&model)), (Column::Clock, vec![4, 3, 1, 0, 2]), "the slowest first");
    press(&mut app, &model, "S");
    assert_eq!(app.listed(&model), [2, 0, 1, 3, 4]);
    press(&mut app, &model, "/!3\n");
    assert_eq!(app.listed(&model), [2, 0, 1, 4]);
    press(&mut app, &model, "/\u{1b}");
    assert_eq!(app.listed(&model).len(), 5);
    press(&mut app, &model, "f");
    assert_eq!((app.state, app.listed(&model)), (Some(State::Silent), vec![0, 1, 3]));
    press(&mut app, &model, "fff");
    assert_eq!((app.state, app.listed(&model)), (Some(State::Left), vec![4]));
    press(&mut app, &model, "f");
    assert_eq!(app.state, None);
    press(&mut app, &model, "/silent\n");
    assert_eq!(app.listed(&model), [0, 1, 3]);
    press(&mut app, &model, "\u{1b}");
    assert_eq!(app.listed(&model).len(), 5);
}

/// The cursor is at a node, not at a line.
#[test]
fn the_cursor_stays_at_its_node() {
    let (mut app, mut model) = (app(), model());
    press(&mut app, &model, "2jjj");
    assert_eq!(app.selected(&model), Some(3));
    press(&mut app, &model, "S");
    assert_eq!((app.selected(&model), app.line(&model)), (Some(3), 1));
    // Events come in above the selected one.
    let note = |at: u64| Note {
        at: Instant::from_nanos(at * 1_000_000_000),
        rank: PeerId(0),
        kind: NoteKind::Joined,
        peer: PeerId(0),
        number: at,
    };
    (1..4).for_each(|at| model.take(Frame::Note(note(at))));
    press(&mut app, &model, "6j");
    assert_eq!((app.line(&model), app.events(&model)[1].number), (1, 2));
    model.take(Frame::Note(note(9)));
    assert_eq!((app.line(&model), app.events(&model)[2].number), (2, 2));
}

#[test]
fn events_are_filtered_and_enter_opens_their_node() {
    let (mut app, mut model) = (app(), model());
    for (second, rank, kind) in [(1, 0, NoteKind::Joined), (2, 3, NoteKind::PeerLost), (3, 4, NoteKind::Joined)] {
        let (at, peer) = (Instant::from_nanos(second * 1_000_000_000), PeerId(2));
        model.take(Frame::Note(Note { at, rank: PeerId(rank), kind, peer, number: 0 }));
    }
    let lost = model.notes[1].to_string();
    press(&mut app, &model, &format!("6/{lost}\n"));
    assert_eq!(app.events(&model).len(), 1);
    app.playback = Some(Playback { start: 0.0, position: 9.0, length: 10.0, speed: 1.0, playing: true });
    press(&mut app, &model, "\n");
    assert_eq!((app.pane, app.node), (Pane::Nodes, Some(3)));
    assert_eq!(app.playback, Some(Playback { start: 0.0, position: 2.0, length: 10.0, speed: 1.0, playing: false }));
    press(&mut app, &model, "\u{1b}");
    assert_eq!((app.pane, app.node), (Pane::Events, None), "back to where it was opened");
}

#[test]
fn a_click_selects_what_is_drawn_there() {
    let (mut app, model) = (app(), model_of(60));
    let lines = drawn(&app, &model, 80, 24);
    click(&mut app, &model, &lines, "Nodes");
    assert_eq!(app.pane, Pane::Nodes);
    // Scrolled to the end, in each list: the line that is clicked is the one that is selected, and nothing moves.
    for pane in [Pane::Nodes, Pane::Staleness, Pane::Links] {
        app.show(pane);
        press(&mut app, &model, "G");
        let lines = drawn(&app, &model, 80, 24);
        let row = lines.iter().position(|line| line.split(['|', ' ', '│']).any(|word| word == "50")).unwrap();
        mouse(&mut app, &model, MouseEventKind::Down(MouseButton::Left), 5, row as u16);
        assert_eq!(app.selected(&model), Some(50), "{pane:?}: {lines:#?}");
        assert!(drawn(&app, &model, 80, 24)[row].contains("50"), "{pane:?}");
    }
    // A second click opens.
    app.show(Pane::Nodes);
    let lines = drawn(&app, &model, 80, 24);
    click(&mut app, &model, &lines, "50   ");
    assert_eq!(app.node, Some(50));
    press(&mut app, &model, "\u{1b}");
    // Titles sort.
    let lines = drawn(&app, &model, 80, 24);
    click(&mut app, &model, &lines, "ex/s");
    assert_eq!((app.sort, app.reverse, app.listed(&model)[0]), (Column::Examples, false, 59));
    click(&mut app, &model, &lines, "ex/s");
    assert_eq!((app.reverse, app.listed(&model)[0]), (true, 0));
    // Also the titles of a table that is scrolled to the right.
    press(&mut app, &model, ">>>");
    let lines = drawn(&app, &model, 80, 24);
    assert!(!lines[2].contains("clock"), "{lines:#?}");
    click(&mut app, &model, &lines, "seen");
    assert_eq!(app.sort, Column::Seen);
    // The wheel.
    app.show(Pane::Nodes);
    press(&mut app, &model, "g");
    mouse(&mut app, &model, MouseEventKind::ScrollDown, 5, 6);
    assert_eq!(app.line(&model), 3);
    mouse(&mut app, &model, MouseEventKind::ScrollUp, 5, 6);
    assert_eq!(app.line(&model), 0);
}

/// A click on the bar of a playback seeks, at its ends exactly. It can be dragged.
#[test]
fn the_bar_of_a_playback_seeks() {
    let (mut app, model) = (app(), model());
    app.playback = Some(Playback { start: 0.0, position: 5.0, length: 10.0, speed: 1.0, playing: false });
    for width in [80, 200] {
        let lines = drawn(&app, &model, width, 24);
        let first = lines[0].find("x ").unwrap() as u16 + 2;
        let last =
            lines[0].rfind(['#', '.']).map(|_| lines[0][..lines[0].rfind(" s").unwrap()].rfind(' ').unwrap()).unwrap()
                as u16
                - 1;
        assert!(
            lines[0].is_char_boundary(last.into())
                && lines[0][usize::from(first)..=usize::from(last)].trim_matches(['#', '.']).is_empty(),
            "{}",
            lines[0]
        );
        let position = |app: &App| app.playback.unwrap().position;
        mouse(&mut app, &model, MouseEventKind::Down(MouseButton::Left), last, 0);
        assert_eq!(position(&app), 10.0);
        mouse(&mut app, &model, MouseEventKind::Down(MouseButton::Left), first, 0);
        assert_eq!(position(&app), 0.0);
        mouse(&mut app, &model, MouseEventKind::Drag(MouseButton::Left), width - 1, 0);
        assert_eq!(position(&app), 10.0);
        app.seek(-5.0);
    }
}

/// The timeline of a recording moves the time: by clicks, by dragging beyond its end, and by the keys for left and right.
/// It shows the position.
#[test]
fn the_timeline_of_a_recording_moves_the_time() {
    let mut frames = vec![Frame::Run(Run { recipe: "sync".into(), workers: 2, servers: 0, parameters: 9, name: None })];
    for tenth in 0..=400u32 {
        for rank in 0..2 {
            frames.push(Frame::Report(report(rank, f64::from(tenth) / 10.0, u64::from(tenth))));
        }
    }
    let (mut app, mut feed) = (app(), Feed::new(Source::Recording(frames), None));
    app.playback = feed.playback().map(|playback| Playback { playing: false, ..playback });
    for (width, height) in [(80, 24), (200, 50), (40, 24)] {
        app.seek(10.0);
        feed.update(&mut app, Duration::ZERO).unwrap();
        let lines = drawn(&app, &feed.model, width, height);
        let position = |app: &App| app.playback.unwrap().position;
        let area = app.targets.area(Target::Timeline).unwrap();
        let row = usize::from(area.y) + 1;
        assert!(lines[row].trim_start_matches(['|', ' ']).starts_with("1 "), "{area:?} {lines:#?}");
        let mark = |lines: &[String]| lines[row][usize::from(area.x)..usize::from(area.right())].find('|').unwrap();
        let marked = |app: &App| app.timeline.as_ref().unwrap().cell(position(app), usize::from(area.width));
        assert_eq!(mark(&lines), marked(&app), "{lines:#?}");
        assert!(lines.join("").contains(&format!("{:.1} s of 0 to 40 s", position(&app))), "{lines:#?}");
        // The middle, and both ends exactly.
        let down = MouseEventKind::Down(MouseButton::Left);
        mouse(&mut app, &feed.model, down, area.x + area.width / 2, row as u16);
        assert!((position(&app) - 20.0).abs() < 40.0 / f64::from(area.width), "{}", position(&app));
        mouse(&mut app, &feed.model, MouseEventKind::Drag(MouseButton::Left), area.right() + 5, row as u16);
        assert_eq!(position(&app), 40.0);
        mouse(&mut app, &feed.model, down, area.x, row as u16);
        assert_eq!(position(&app), 0.0);
        // A cell for each press of a key.
        press(&mut app, &feed.model, ">>>");
        assert!((position(&app) - 120.0 / f64::from(area.width)).abs() < 1e-9, "{}", position(&app));
        feed.update(&mut app, Duration::ZERO).unwrap();
        assert_eq!(mark(&drawn(&app, &feed.model, width, height)), marked(&app));
        press(&mut app, &feed.model, "<<<");
        assert!(position(&app).abs() < 1e-9);
    }
    // Beyond the overview, the keys scroll.
    let before = app.playback;
    press(&mut app, &feed.model, "2>");
    assert_eq!((app.playback, app.column), (before, 1));
}

/// The matrix of links scrolls both ways, each by its own keys.
#[test]
fn links_scroll_both_ways() {
    let (mut app, model) = (app(), model_of(60));
    press(&mut app, &model, "5");
    let lines = drawn(&app, &model, 80, 24);
    assert!(lines[4].contains("to 0") && lines[3].contains("more >"), "{lines:#?}");
    press(&mut app, &model, ">>>");
    let lines = drawn(&app, &model, 80, 24);
    assert!(lines[4].contains("to 3 ") && !lines[4].contains("to 2 ") && lines[5].contains("   0 "), "{lines:#?}");
    press(&mut app, &model, "G");
    let lines = drawn(&app, &model, 80, 24);
    assert!(lines[4].contains("to 3 ") && lines.iter().any(|line| line.contains("   59 ")), "{lines:#?}");
    // A step sends 1,000 bytes; rank 59 takes 141 in a quarter of a second.
    press(&mut app, &model, &">".repeat(60));
    press(&mut app, &model, "g");
    press(&mut app, &model, &"<".repeat(99));
    assert_eq!(app.column, 0);
    let lines = drawn(&app, &model, 80, 24);
    assert!(lines[5].contains("800 kB") && lines[3].contains("bytes/s"), "{lines:#?}");
}

#[test]
fn a_run_is_chosen_from_the_list() {
    let (mut app, model) = (app(), model());
    let run = |label: &str| RunLine {
        label: label.into(),
        health: Health::Ok,
        connected: true,
        nodes: (5, 5),
        recipe: "sync".into(),
    };
    app.runs = vec![run("one:1"), run("two:2"), run("three:3")];
    press(&mut app, &model, "rj");
    let lines = drawn(&app, &model, 80, 24);
    assert_eq!((app.run, app.choosing), (0, Some(1)));
    press(&mut app, &model, "\n");
    assert_eq!((app.run, app.choosing), (1, None));
    press(&mut app, &model, "r");
    click(&mut app, &model, &lines, "three:3");
    assert_eq!((app.run, app.choosing), (2, None));
    assert!(drawn(&app, &model, 80, 24)[0].contains("run 3 of 3: three:3"));
    press(&mut app, &model, "r\u{1b}n");
    assert_eq!((app.run, app.choosing), (0, None));
}

#[test]
fn a_frozen_screen_keeps_its_model() {
    let (mut app, mut model) = (app(), model());
    press(&mut app, &model, " ");
    let frozen = app.frozen.as_ref().unwrap().now;
    model.take(Frame::Report(crate::model::tests::report(0, 99.0, 5000)));
    assert!(app.frozen.as_ref().unwrap().now == frozen && model.now > frozen);
    press(&mut app, &model, " ");
    assert!(app.frozen.is_none());
}

#[test]
fn a_playback_stays_within_its_length() {
    let (mut app, model) = (app(), model());
    app.playback = Some(Playback { start: 0.0, position: 7.0, length: 10.0, speed: 1.0, playing: true });
    press(&mut app, &model, " ]xx");
    assert_eq!(app.playback, Some(Playback { start: 0.0, position: 10.0, length: 10.0, speed: 4.0, playing: false }));
    press(&mut app, &model, "[[[XXXXXXX");
    assert_eq!(app.playback, Some(Playback { start: 0.0, position: 0.0, length: 10.0, speed: 0.125, playing: false }));
}

/// A recording that was begun late begins with its own first second, also for the bar.
#[test]
fn a_late_recording_begins_at_its_start() {
    let old = Note { at: Instant::from_nanos(5), rank: PeerId(0), kind: NoteKind::Joined, peer: PeerId(0), number: 0 };
    let report = |rank, at: f64| Frame::Report(crate::model::tests::report(rank, at, 9));
    let frames = vec![report(0, 90.0), report(1, 89.9), Frame::Note(old), report(0, 90.5), report(1, 100.0)];
    let playback = Feed::new(Source::Recording(frames), None).playback().unwrap();
    assert_eq!((playback.start, playback.position, playback.length), (90.0, 90.0, 100.0));
    let mut app = app();
    app.playback = Some(playback);
    app.seek(-5.0);
    assert_eq!(app.playback.unwrap().share(), 0.0);
    app.seek(5.0);
    assert_eq!(app.playback.unwrap().share(), 0.5);
}
