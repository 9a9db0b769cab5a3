//! What may stand in a line of the log, or on a terminal.

use std::fmt::Write;

/// Whether a character can end a line, move a terminal's cursor, or turn the direction of the text,
/// which could make a line read as another one.
pub fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Passes text on with the characters escaped that steer (`\n` as `\` and `n`).
pub(super) struct Escaping<'a>(pub &'a mut String);

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            if steers(c) {
                self.0.extend(c.escape_default());
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

/// `text` with the characters escaped that steer.
pub fn escaped(text: impl std::fmt::Display) -> String {
    let mut shown = String::new();
    // Writing to a string fails only if the text's own `Display` does; what it wrote until then is
    // kept.
    let _ = write!(Escaping(&mut shown), "{text}");
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_sent_cannot_forge_a_line() {
        let sent = "a\nb\r\tc\0\x1b[2J\u{85}\u{202e}é\"\\";
        assert_eq!(escaped(sent), "a\\nb\\r\\tc\\u{0}\\u{1b}[2J\\u{85}\\u{202e}é\"\\");
    }
}
