//! Colours, signs and number formats.
//!
//! A colour never carries a meaning alone: each state has a word or a sign as well.

use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;

/// The set of colours.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Palette {
    /// The colours of Okabe and Ito (2008), which are distinct with any kind of colour blindness.
    Full,
    /// Darker colours, for a light background.
    Light,
    /// The sixteen colours of the terminal, on a dark background.
    Sixteen,
    /// The sixteen colours of the terminal that can be read on a light background: no green, yellow or cyan.
    SixteenLight,
    /// No colours, only bold and reversed text.
    None,
}

/// Colours and character set of the screen.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Theme {
    pub(crate) palette: Palette,
    /// Use ASCII characters only.
    pub(crate) ascii: bool,
}

impl Theme {
    /// The foreground colour of the palette: as 24 bits for a dark or a light background, or one of the terminal's sixteen.
    fn colour(self, full: (u8, u8, u8), light: (u8, u8, u8), sixteen: [Color; 2]) -> Style {
        match self.palette {
            Palette::Light => Style::new().fg(Color::Rgb(light.0, light.1, light.2)),
            Palette::Full => Style::new().fg(Color::Rgb(full.0, full.1, full.2)),
            Palette::Sixteen => Style::new().fg(sixteen[0]),
            Palette::SixteenLight => Style::new().fg(sixteen[1]),
            Palette::None => Style::new(),
        }
    }

    /// For states that are good.
    pub(crate) fn good(self) -> Style {
        self.colour((0, 158, 115), (0, 110, 80), [Color::Green, Color::Blue])
    }

    /// For states that need attention.
    pub(crate) fn warn(self) -> Style {
        self.colour((230, 159, 0), (140, 85, 0), [Color::Yellow, Color::Red]).add_modifier(Modifier::BOLD)
    }

    /// For failures that stop the run.
    pub(crate) fn bad(self) -> Style {
        let style = self.colour((213, 94, 0), (170, 60, 0), [Color::Red; 2]);
        style.add_modifier(Modifier::BOLD | Modifier::REVERSED)
    }

    /// For highlights, and the first curve of a chart.
    pub(crate) fn accent(self) -> Style {
        self.colour((86, 180, 233), (0, 90, 160), [Color::Cyan, Color::Blue])
    }

    /// For the second curve of a chart.
    pub(crate) fn second(self) -> Style {
        self.colour((204, 121, 167), (150, 50, 110), [Color::Magenta; 2])
    }

    /// For secondary text.
    pub(crate) fn dim(self) -> Style {
        match self.palette {
            // Some terminals draw dim text in a grey that cannot be read on every background.
            Palette::None => Style::new(),
            _ => Style::new().add_modifier(Modifier::DIM),
        }
    }

    /// For titles of panes and columns.
    pub(crate) fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// For the selected line or tab.
    pub(crate) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The symbol of which curves consist.
    pub(crate) fn marker(self) -> Marker {
        if self.ascii { Marker::Dot } else { Marker::Braille }
    }

    /// A bar of `width` characters, filled by `share`, which is clamped to 0 to 1.
    pub(crate) fn bar(self, share: f64, width: usize) -> String {
        let full = if share.is_finite() { (share.clamp(0.0, 1.0) * width as f64).round() as usize } else { 0 };
        let (on, off) = if self.ascii { ("#", ".") } else { ("█", "░") };
        on.repeat(full) + &off.repeat(width - full)
    }
}

/// The palette for a terminal, from the environment variables that describe it.
///
/// `COLORTERM` tells 24 bits, and `COLORFGBG` the background as the last of its numbers: 7, or 9 and more, is light.
pub(crate) fn palette_of(colorterm: Option<&str>, term: Option<&str>, colorfgbg: Option<&str>) -> Palette {
    let all = colorterm.is_some_and(|value| matches!(value, "truecolor" | "24bit"))
        || term.is_some_and(|value| value.ends_with("-direct"));
    let background = colorfgbg.and_then(|value| value.rsplit(';').next()?.parse::<u8>().ok());
    match (all, background.is_some_and(|colour| colour == 7 || colour >= 9)) {
        (true, false) => Palette::Full,
        (true, true) => Palette::Light,
        (false, false) => Palette::Sixteen,
        (false, true) => Palette::SixteenLight,
    }
}

/// A number of bytes with a decimal unit, for example "80.0 kB".
pub(crate) fn bytes(n: f64) -> String {
    scaled(n, &["B", "kB", "MB", "GB", "TB", "PB"], 1000.0)
}

/// A count with a decimal suffix, for example "50.8k".
pub(crate) fn count(n: f64) -> String {
    scaled(n, &["", "k", "M", "G", "T", "P"], 1000.0)
}

/// A number with the first unit in which it is below `step`.
fn scaled(mut n: f64, units: &[&str], step: f64) -> String {
    let mut unit = 0;
    while n.abs() >= step && unit + 1 < units.len() {
        n /= step;
        unit += 1;
    }
    let digits = if unit == 0 || n.abs() >= 100.0 { 0 } else { 1 };
    let text = format!("{n:.digits$}");
    match units[unit] {
        "" => text,
        unit if unit.len() == 1 && units[0].is_empty() => text + unit,
        unit => format!("{text} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_palette_is_one_that_the_terminal_shows() {
        for (colorterm, term, colorfgbg, palette) in [
            (Some("truecolor"), Some("xterm-256color"), None, Palette::Full),
            (Some("24bit"), None, Some("0;15"), Palette::Light),
            (None, Some("xterm-direct"), Some("15;0"), Palette::Full),
            (None, Some("xterm"), None, Palette::Sixteen),
            (None, Some("xterm"), Some("0;default;15"), Palette::SixteenLight),
            (Some(""), None, Some("15;8"), Palette::Sixteen),
        ] {
            assert_eq!(palette_of(colorterm, term, colorfgbg), palette, "{colorterm:?} {term:?} {colorfgbg:?}");
        }
    }
}
