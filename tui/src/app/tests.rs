//! Keys, mouse, sorting and filters, without a terminal.

use gradwire_core::telemetry::{Frame, NoteKind};
use gradwire_core::{Instant, PeerId};

use super::*;
use crate::theme::Palette;

/// Five nodes with reports over 5 seconds. Lower ranks are faster.
fn model() -> Model {
    let mut model = Model::default();
    for at in 0..20 {
        for rank in 0..5u32 {
            let steps = (20 - u64::from(rank)) * at;
            model.take(Frame::Report(crate::model::tests::report(rank, at as f64 / 4.0, steps)));
        }
    }
    model
}

fn app() -> App {
    App::new(Theme { palette: Palette::None, ascii: true })
}

/// Presses the keys of a text: newline is Enter, ESC is Esc, tab is Tab.
fn press(app: &mut App, model: &Model, keys: &str) {
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            c => KeyCode::Char(c),
        };
        app.on_key(KeyEvent::new(code, KeyModifiers::NONE), model);
    }
}

#[test]
fn keys_move_between_panes_and_lines() {
    let (mut app, model) = (app(), model());
    press(&mut app, &model, "2jj\n");
    assert_eq!((app.pane, app.node), (Pane::Nodes, Some(2)));
    press(&mut app, &model, "\u{1b}\t");
    assert_eq!((app.pane, app.node, app.line), (Pane::Staleness, None, 0));
    press(&mut app, &model, "hhhhh");
    assert_eq!(app.pane, Pane::Compression);
    press(&mut app, &model, "?q");
    assert!(!app.quit && !app.help, "a key closes the help and does nothing else");
    press(&mut app, &model, "q");
    assert!(app.quit);
}

#[test]
fn nodes_are_sorted_and_filtered() {
    let (mut app, model) = (app(), model());
    assert_eq!(app.listed(&model), [0, 1, 2, 3, 4]);
    press(&mut app, &model, "sS");
    assert_eq!((app.sort, app.listed(&model)), (Column::Clock, vec![0, 1, 2, 3, 4]));
    press(&mut app, &model, "S");
    assert_eq!(app.listed(&model), [4, 3, 2, 1, 0]);
    press(&mut app, &model, "/!3\n");
    assert_eq!(app.listed(&model), [4, 2, 1, 0]);
    press(&mut app, &model, "/\u{1b}");
    assert_eq!(app.listed(&model).len(), 5);
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
    app.playback = Some(Playback { position: 9.0, length: 10.0, speed: 1, playing: true });
    press(&mut app, &model, "\n");
    assert_eq!((app.pane, app.node), (Pane::Nodes, Some(3)));
    assert_eq!(app.playback, Some(Playback { position: 2.0, length: 10.0, speed: 1, playing: false }));
}

#[test]
fn the_mouse_selects_tabs_and_lines() {
    let (mut app, model) = (app(), model());
    let mut mouse = |kind, column, row| {
        app.on_mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }, &model, (1, 80));
        (app.pane, app.line)
    };
    let click = MouseEventKind::Down(MouseButton::Left);
    assert_eq!(mouse(click, 14, 1), (Pane::Nodes, 0));
    assert_eq!(mouse(click, 5, 6), (Pane::Nodes, 2));
    assert_eq!(mouse(MouseEventKind::ScrollDown, 5, 6), (Pane::Nodes, 4));
    assert_eq!(mouse(MouseEventKind::ScrollUp, 5, 6), (Pane::Nodes, 1));
    assert_eq!(mouse(click, 79, 1), (Pane::Nodes, 1));
}

#[test]
fn a_frozen_screen_keeps_its_model() {
    let (mut app, mut model) = (app(), model());
    press(&mut app, &model, "f");
    let frozen = app.frozen.as_ref().unwrap().now;
    model.take(Frame::Report(crate::model::tests::report(0, 99.0, 5000)));
    assert!(app.frozen.as_ref().unwrap().now == frozen && model.now > frozen);
    press(&mut app, &model, "f");
    assert!(app.frozen.is_none());
}

#[test]
fn a_playback_is_paused_and_moved_within_its_length() {
    let (mut app, model) = (app(), model());
    app.playback = Some(Playback { position: 7.0, length: 10.0, speed: 1, playing: true });
    press(&mut app, &model, " ]xx");
    assert_eq!(app.playback, Some(Playback { position: 10.0, length: 10.0, speed: 20, playing: false }));
    press(&mut app, &model, "[[[x");
    assert_eq!(app.playback, Some(Playback { position: 0.0, length: 10.0, speed: 1, playing: false }));
}
