//! Text for a number of columns: words are moved to the next line, with the indentation of a list of options.

use ratatui::text::Span;

/// The columns that a text takes in a terminal.
fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// The text in lines of at most `columns`. A longer word has a line of its own.
pub(crate) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { continue };
        if line.is_empty() {
            line.push_str(word);
        } else if width(line) + 1 + width(word) <= columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_string());
        }
    }
    lines
}

/// The help of a program with its lines wrapped. A line goes on below its own beginning; in a list of names and texts,
/// which have two spaces between them, below the text.
pub(crate) fn help(text: &str, columns: usize) -> String {
    let mut out = String::new();
    for line in text.lines() {
        if width(line) <= columns {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let rest = &line[indent..];
        // The first two spaces after the name.
        let name = rest.find("  ").map_or(0, |end| rest[end..].len() - rest[end..].trim_start().len() + end);
        // On a narrow screen, the text begins on a line of its own.
        let below = if indent + name > columns / 2 { (indent + 4).min(columns / 2) } else { indent + name };
        let mut front = line[..indent + name].to_string();
        if indent + name > columns / 2 {
            out.push_str(front.trim_end());
            out.push('\n');
            front = " ".repeat(below);
        }
        for row in wrapped(&rest[name..], columns.saturating_sub(below).max(10)) {
            out.push_str(&front);
            out.push_str(&row);
            out.push('\n');
            front = " ".repeat(below);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_on_below_their_text() {
        let text = "Usage: x\n\n  -a, --all <NAME>  one two three four five\n";
        assert_eq!(help(text, 80), text);
        let expected = "Usage: x\n\n  -a, --all <NAME>  one two three four\n                    five\n";
        assert_eq!(help(text, 40), expected);
        let narrow = help(text, 20);
        assert_eq!(narrow, "Usage: x\n\n  -a, --all <NAME>\n      one two three\n      four five\n");
    }
}
