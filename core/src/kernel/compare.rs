//! Comparison of two contracts: nodes report the first line in which their texts differ.

/// The number of the first line that differs, from 0, or `None` if the texts are equal.
pub fn first_different_line(ours: &[u8], theirs: &[u8]) -> Option<usize> {
    let (mut a, mut b) = (ours.split(|b| *b == b'\n'), theirs.split(|b| *b == b'\n'));
    let mut line = 0;
    loop {
        match (a.next(), b.next()) {
            (None, None) => return None,
            (one, other) if one == other => line += 1,
            // The lines differ, or one text is longer.
            _ => return Some(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_differing_line_is_found() {
        assert_eq!(first_different_line(b"a\nb\n", b"a\nb\n"), None);
        assert_eq!(first_different_line(b"a\nb\nc", b"a\nx\ny"), Some(1));
        assert_eq!(first_different_line(b"a\nb", b"a"), Some(1));
        assert_eq!(first_different_line(b"", b"a"), Some(0));
    }
}
