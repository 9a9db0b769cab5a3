//! The requests that `lond` answers by itself.
//!
//! Owns their names and the text of their answers. What an answer needs of the outside (the load
//! average, the other way round to the caller) is the reactor's to fetch. A handler of the
//! configuration with one of these names never gets a request that is built in. Nothing here fails:
//! what is no built-in request is `None`.

use base::line::without_return;
use std::fmt::Write;

/// What `version` and `version:<theirs>` are answered with.
pub const VERSION_ANSWER: &str = concat!("version:", env!("CARGO_PKG_VERSION"));

/// A request that needs no handler of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin<'a> {
    /// `sethost:<id>`: is this the host with that id?
    SetHost(&'a [u8]),
    /// `version`, `version:<theirs>`.
    Version,
    /// `pong`: our id, and what our own `lonc` gets when it pings the caller.
    Pong,
    /// `ekey`: agree on a new cipher.
    Ekey,
    /// `ping`: our id.
    Ping,
    /// `load`: load average as a percentage of the full load.
    Load,
    /// `log:<text>`: append the text to the log.
    Log(&'a [u8]),
    /// `exit`: `bye`, and the link closes.
    Exit,
}

impl<'a> Builtin<'a> {
    /// The built-in request that `line` is, if it is one. A carriage return at its end is no part
    /// of it: a program that ends its lines as the network's text protocols do means the same
    /// `ping`. What goes to a handler keeps it.
    pub fn parse(line: &'a [u8]) -> Option<Builtin<'a>> {
        let line = without_return(line);
        match line {
            b"ping" => Some(Builtin::Ping),
            b"pong" => Some(Builtin::Pong),
            b"ekey" => Some(Builtin::Ekey),
            b"load" => Some(Builtin::Load),
            b"exit" => Some(Builtin::Exit),
            b"version" => Some(Builtin::Version),
            _ => {
                if let Some(text) = line.strip_prefix(b"log:") {
                    Some(Builtin::Log(text))
                } else if let Some(id) = line.strip_prefix(b"sethost:") {
                    Some(Builtin::SetHost(id))
                } else {
                    line.starts_with(b"version:").then_some(Builtin::Version)
                }
            }
        }
    }
}

impl Builtin<'_> {
    /// The name under which the configuration has rules for it; `None`: a word of the wire's
    /// opening, which is for every caller.
    pub fn name(&self) -> Option<&'static str> {
        match self {
            Builtin::SetHost(_) | Builtin::Ekey => None,
            Builtin::Version => Some("version"),
            Builtin::Pong => Some("pong"),
            Builtin::Ping => Some("ping"),
            Builtin::Load => Some("load"),
            Builtin::Log(_) => Some("log"),
            Builtin::Exit => Some("exit"),
        }
    }
}

/// The answer to `load`: a whole number of percent. `average` is that of the last minute, if the
/// system tells.
pub fn load_answer(average: Option<f64>, full_load: f64) -> String {
    match average {
        Some(average) if average.is_finite() && full_load > 0.0 => {
            format!("{:.0}", 100.0 * average / full_load)
        }
        Some(_) | None => "error:load: the load average cannot be read".to_owned(),
    }
}

/// `text` as it may stand in a log line: control characters and bytes that are no UTF-8 as `\xNN`,
/// a backslash doubled, so that no sender can forge a line or hide what it sent.
pub fn printable(text: &[u8]) -> String {
    let mut shown = String::with_capacity(text.len());
    let hidden = |shown: &mut String, bytes: &[u8]| {
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    };
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => shown.push_str("\\\\"),
                _ if c.is_control() => hidden(&mut shown, c.encode_utf8(&mut [0; 4]).as_bytes()),
                _ => shown.push(c),
            }
        }
        hidden(&mut shown, chunk.invalid());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_names_are_built_in() {
        for (line, expected) in [
            (&b"ping"[..], Some(Builtin::Ping)),
            (b"pong", Some(Builtin::Pong)),
            (b"ekey", Some(Builtin::Ekey)),
            (b"load", Some(Builtin::Load)),
            (b"exit", Some(Builtin::Exit)),
            (b"version", Some(Builtin::Version)),
            (b"version:", Some(Builtin::Version)),
            (b"version:4.0-x", Some(Builtin::Version)),
            (b"log:", Some(Builtin::Log(b""))),
            (b"log:a:b\xff", Some(Builtin::Log(b"a:b\xff"))),
            (b"sethost:msul1", Some(Builtin::SetHost(b"msul1"))),
            (b"", None),
            (b"Ping", None),
            (b"ping ", None),
            (b"ping\r", Some(Builtin::Ping)),
            (b"pong\r", Some(Builtin::Pong)),
            (b"ekey\r", Some(Builtin::Ekey)),
            (b"load\r", Some(Builtin::Load)),
            (b"exit\r", Some(Builtin::Exit)),
            (b"version\r", Some(Builtin::Version)),
            (b"version:4.0\r", Some(Builtin::Version)),
            (b"log:a\rb\r", Some(Builtin::Log(b"a\rb"))),
            (b"sethost:msul1\r", Some(Builtin::SetHost(b"msul1"))),
            (b"ping\r\r", None),
            (b"\rping", None),
            (b"\r", None),
            (b"echo:ping\r", None),
            (b"ping:x", None),
            (b"log", None),
            (b"versions", None),
            (b"init", None),
            (b"echo:ping", None),
        ] {
            assert_eq!(Builtin::parse(line), expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn load_is_a_whole_percentage_of_the_full_load() {
        assert_eq!(load_answer(Some(0.0), 2.0), "0");
        assert_eq!(load_answer(Some(1.0), 2.0), "50");
        assert_eq!(load_answer(Some(7.505), 5.0), "150");
        for bad in [None, Some(f64::NAN)] {
            assert!(load_answer(bad, 2.0).starts_with("error:load: "), "{bad:?}");
        }
        assert!(load_answer(Some(1.0), 0.0).starts_with("error:"));
    }

    #[test]
    fn logged_text_cannot_forge_a_line() {
        assert_eq!(printable("it's \"caf\u{e9}\" 100%".as_bytes()), "it's \"caf\u{e9}\" 100%");
        assert_eq!(printable(b"a\rb\tc\x1b[2Jd\x00"), "a\\x0db\\x09c\\x1b[2Jd\\x00");
        assert_eq!(printable(b"back\\x0a\xff\xc3"), "back\\\\x0a\\xff\\xc3");
    }
}
