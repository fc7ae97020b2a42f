//! [`KeyMap`]: keys and their commands. The table [`BINDINGS`] is the single source for the keys, the help and the names
//! in the configuration file.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::app::Pane;

/// An action of the user. Each has one meaning in all panes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Show(Pane),
    NextPane,
    PreviousPane,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Left,
    Right,
    Open,
    Back,
    Filter,
    State,
    Sort,
    Reverse,
    Pause,
    Expand,
    Unit,
    Earlier,
    Later,
    Faster,
    Slower,
    Runs,
    NextRun,
    Help,
    Suspend,
    Quit,
}

/// A command with its name in the configuration file, its default keys and its help.
pub(crate) struct Binding {
    pub(crate) command: Command,
    pub(crate) name: &'static str,
    keys: &'static [&'static str],
    pub(crate) help: &'static str,
}

const fn binding(command: Command, name: &'static str, keys: &'static [&'static str], help: &'static str) -> Binding {
    Binding { command, name, keys, help }
}

/// The groups of the help, with their commands.
pub(crate) const BINDINGS: &[(&str, &[Binding])] = &[
    (
        "Move",
        &[
            binding(Command::Show(Pane::Overview), "overview", &["1"], "pane: overview"),
            binding(Command::Show(Pane::Nodes), "nodes", &["2"], "pane: nodes"),
            binding(Command::Show(Pane::Staleness), "staleness", &["3"], "pane: staleness"),
            binding(Command::Show(Pane::Compression), "compression", &["4"], "pane: compression"),
            binding(Command::Show(Pane::Links), "links", &["5"], "pane: links"),
            binding(Command::Show(Pane::Events), "events", &["6"], "pane: events"),
            binding(Command::NextPane, "next-pane", &["tab"], "next pane"),
            binding(Command::PreviousPane, "previous-pane", &["shift-tab"], "previous pane"),
            binding(Command::Up, "up", &["up", "k"], "select the line above; scroll the help"),
            binding(Command::Down, "down", &["down", "j"], "select the line below; scroll the help"),
            binding(Command::PageUp, "page-up", &["pgup", "ctrl-b"], "a page up"),
            binding(Command::PageDown, "page-down", &["pgdn", "ctrl-f"], "a page down"),
            binding(Command::First, "first", &["home", "g"], "the first line"),
            binding(Command::Last, "last", &["end", "G"], "the last line"),
            binding(
                Command::Left,
                "left",
                &["left", "h"],
                "scroll the columns to the left; timeline of a recording: earlier",
            ),
            binding(
                Command::Right,
                "right",
                &["right", "l"],
                "scroll the columns to the right; timeline of a recording: later",
            ),
            binding(Command::Open, "open", &["enter"], "details of the selected node, or of the node of an event"),
            binding(Command::Back, "back", &["esc", "backspace"], "back: close, or else clear the filters"),
        ],
    ),
    (
        "Choose",
        &[
            binding(
                Command::Filter,
                "filter",
                &["/"],
                "filter by rank, or a part of host, role, state or event; ! inverts",
            ),
            binding(Command::State, "state", &["f"], "only nodes in one state: silent, waiting, ok, left; then all"),
            binding(Command::Sort, "sort", &["s"], "sort by the next column, the worst first"),
            binding(Command::Reverse, "reverse", &["S"], "reverse the order"),
            binding(Command::Expand, "expand", &["e"], "charts take the whole pane"),
            binding(Command::Unit, "unit", &["u"], "links: rate, response time, or bytes in all"),
            binding(Command::Runs, "runs", &["r"], "list of runs"),
            binding(Command::NextRun, "next-run", &["n"], "next run"),
        ],
    ),
    (
        "Time",
        &[
            binding(Command::Pause, "pause", &["space", "p"], "pause, continue; a live run goes on behind the screen"),
            binding(Command::Earlier, "earlier", &["["], "recording: 5 s back"),
            binding(Command::Later, "later", &["]"], "recording: 5 s forward"),
            binding(Command::Faster, "faster", &["x", "+"], "recording: twice as fast"),
            binding(Command::Slower, "slower", &["X", "-"], "recording: half as fast"),
        ],
    ),
    (
        "Program",
        &[
            binding(Command::Help, "help", &["?", "f1"], "this help"),
            binding(Command::Suspend, "suspend", &["ctrl-z"], "stop the program; the shell's fg continues it"),
            binding(Command::Quit, "quit", &["q", "ctrl-c"], "quit, with exit code 0"),
        ],
    ),
];

/// A key with the modifiers that matter: control and alt. Shift is part of the character.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    code: KeyCode,
    modifiers: KeyModifiers,
}

/// Names of keys that are not characters.
const NAMES: [(&str, KeyCode); 18] = [
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("pgup", KeyCode::PageUp),
    ("pgdn", KeyCode::PageDown),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("shift-tab", KeyCode::BackTab),
    ("backspace", KeyCode::Backspace),
    ("delete", KeyCode::Delete),
    ("insert", KeyCode::Insert),
    ("space", KeyCode::Char(' ')),
    ("minus", KeyCode::Char('-')),
    ("plus", KeyCode::Char('+')),
];

impl Key {
    /// The key with this name: a character, a name such as `pgup`, `f1` to `f12`, with `ctrl-` or `alt-` in front.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (mut rest, mut modifiers) = (text, KeyModifiers::NONE);
        for (prefix, modifier) in [("ctrl-", KeyModifiers::CONTROL), ("alt-", KeyModifiers::ALT)] {
            if let Some(after) = rest.strip_prefix(prefix).filter(|after| !after.is_empty()) {
                (rest, modifiers) = (after, modifiers | modifier);
            }
        }
        let mut characters = rest.chars();
        let code = match (characters.next(), characters.next()) {
            (Some(c), None) if !c.is_control() => KeyCode::Char(c),
            _ => {
                let named = NAMES.iter().find(|(name, _)| rest.eq_ignore_ascii_case(name)).map(|(_, code)| *code);
                let number = rest.strip_prefix(['f', 'F']).and_then(|number| number.parse().ok());
                named.or_else(|| number.filter(|n| (1..=12).contains(n)).map(KeyCode::F))?
            }
        };
        Some(Self { code, modifiers })
    }

    fn of(event: KeyEvent) -> Self {
        Self { code: event.code, modifiers: event.modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT) }
    }

    /// The name, as [`parse`](Self::parse) reads it.
    fn name(self) -> String {
        let mut name = String::new();
        for (prefix, modifier) in [("ctrl-", KeyModifiers::CONTROL), ("alt-", KeyModifiers::ALT)] {
            if self.modifiers.contains(modifier) {
                name += prefix;
            }
        }
        let named = NAMES.iter().find(|(_, code)| *code == self.code && !matches!(code, KeyCode::Char('-' | '+')));
        match (named, self.code) {
            (Some((word, _)), _) => name + word,
            (None, KeyCode::F(n)) => format!("{name}f{n}"),
            (None, KeyCode::Char(c)) => format!("{name}{c}"),
            (None, code) => format!("{name}{code}"),
        }
    }
}

/// The keys of each command.
#[derive(Clone, Debug)]
pub(crate) struct KeyMap(Vec<(Key, Command)>);

impl Default for KeyMap {
    fn default() -> Self {
        let keys = all().flat_map(|binding| binding.keys.iter().map(|key| (Key::parse(key), binding.command)));
        Self(keys.filter_map(|(key, command)| Some((key?, command))).collect())
    }
}

/// All bindings, without their groups.
pub(crate) fn all() -> impl Iterator<Item = &'static Binding> {
    BINDINGS.iter().flat_map(|(_, bindings)| bindings.iter())
}

/// The command's name in the configuration file.
fn name_of(command: Command) -> &'static str {
    all().find(|binding| binding.command == command).map_or("", |binding| binding.name)
}

impl KeyMap {
    /// The command of a key.
    pub(crate) fn command(&self, event: KeyEvent) -> Option<Command> {
        let key = Key::of(event);
        self.0.iter().find(|(other, _)| *other == key).map(|(_, command)| *command)
    }

    /// The names of a command's keys, with a space between them. Empty if it has no key.
    pub(crate) fn names(&self, command: Command) -> String {
        let names: Vec<_> = self.0.iter().filter(|(_, other)| *other == command).map(|(key, _)| key.name()).collect();
        names.join(" ")
    }

    /// The first key of a command, for the footer.
    pub(crate) fn first(&self, command: Command) -> String {
        self.0.iter().find(|(_, other)| *other == command).map_or_else(String::new, |(key, _)| key.name())
    }

    /// Replaces the keys of a command. Call [`check`](Self::check) after the last one.
    pub(crate) fn bind(&mut self, command: Command, keys: &[Key]) {
        self.0.retain(|(_, other)| *other != command);
        self.0.extend(keys.iter().map(|key| (*key, command)));
    }

    /// The first key that has two commands: its name and the names of the commands.
    pub(crate) fn check(&self) -> Result<(), (String, [&'static str; 2])> {
        for (i, (key, command)) in self.0.iter().enumerate() {
            let twice = self.0[..i].iter().find(|(other, earlier)| other == key && earlier != command);
            if let Some((_, earlier)) = twice {
                return Err((key.name(), [name_of(*earlier), name_of(*command)]));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_name_and_one_command() {
        let map = KeyMap::default();
        assert_eq!(map.check(), Ok(()));
        for (key, command) in &map.0 {
            assert_eq!(Key::parse(&key.name()), Some(*key), "{}", key.name());
            let event = KeyEvent::new(key.code, key.modifiers | KeyModifiers::SHIFT);
            assert_eq!(map.command(event), Some(*command), "{}", key.name());
        }
        let keys: usize = all().map(|binding| binding.keys.len()).sum();
        assert_eq!(map.0.len(), keys, "a default key has no valid name");
        let mut names: Vec<_> = all().map(|binding| binding.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn names_of_keys_are_parsed() {
        for (name, code, modifiers) in [
            ("q", KeyCode::Char('q'), KeyModifiers::NONE),
            ("ctrl-c", KeyCode::Char('c'), KeyModifiers::CONTROL),
            ("ctrl-alt-x", KeyCode::Char('x'), KeyModifiers::CONTROL | KeyModifiers::ALT),
            ("F12", KeyCode::F(12), KeyModifiers::NONE),
            ("PgUp", KeyCode::PageUp, KeyModifiers::NONE),
            ("space", KeyCode::Char(' '), KeyModifiers::NONE),
            ("-", KeyCode::Char('-'), KeyModifiers::NONE),
        ] {
            assert_eq!(Key::parse(name), Some(Key { code, modifiers }), "{name}");
        }
        for wrong in ["", "f13", "f0", "qq", "ctrl-", "meta-x", "\u{1b}"] {
            assert_eq!(Key::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_key_of_two_commands_is_found() {
        let mut map = KeyMap::default();
        map.bind(Command::Sort, &[Key::parse("f").unwrap()]);
        assert_eq!(map.check(), Err(("f".into(), ["state", "sort"])));
        map.bind(Command::State, &[]);
        assert_eq!((map.check(), map.names(Command::State).as_str()), (Ok(()), ""));
    }
}
