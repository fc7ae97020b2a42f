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
    /// The sixteen colours of the terminal.
    Sixteen,
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
    fn colour(self, full: (u8, u8, u8), light: (u8, u8, u8), sixteen: Color) -> Style {
        match self.palette {
            Palette::Light => Style::new().fg(Color::Rgb(light.0, light.1, light.2)),
            Palette::Full => Style::new().fg(Color::Rgb(full.0, full.1, full.2)),
            Palette::Sixteen => Style::new().fg(sixteen),
            Palette::None => Style::new(),
        }
    }

    /// For states that are good.
    pub(crate) fn good(self) -> Style {
        self.colour((0, 158, 115), (0, 110, 80), Color::Green)
    }

    /// For states that need attention.
    pub(crate) fn warn(self) -> Style {
        self.colour((230, 159, 0), (140, 85, 0), Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// For failures that stop the run.
    pub(crate) fn bad(self) -> Style {
        self.colour((213, 94, 0), (170, 60, 0), Color::Red).add_modifier(Modifier::BOLD | Modifier::REVERSED)
    }

    /// For highlights, and the first curve of a chart.
    pub(crate) fn accent(self) -> Style {
        self.colour((86, 180, 233), (0, 90, 160), Color::Cyan)
    }

    /// For the second curve of a chart.
    pub(crate) fn second(self) -> Style {
        self.colour((204, 121, 167), (150, 50, 110), Color::Magenta)
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
