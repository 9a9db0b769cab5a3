//! `lonnet.perm.log`: a line for each stored message that was delivered, as the original writes it.
//!
//! `<epoch seconds>:S:<host id>:<request>:<local time>`. It holds the requests themselves and is
//! made for the administrator who must prove what was sent; no other log has them, and no byte of
//! them is changed here (a request has no newline), but for an automatic key that is left out. Each
//! line is one `write` to a file opened for appending, so that the children's lines never mix. The
//! file is opened for each line: it may be moved away at any time. If a line cannot be written, or
//! only in part, the log says so; the message was delivered all the same, and the next begins on a
//! line of its own.

use super::link::Now;
use base::HostId;
use base::log_quota::Repeats;
use base::logging::file;
use base::request::shown;
use jiff::tz::TimeZone;
use std::io::{self, IoSlice};
use std::path::PathBuf;

/// Permission bits of the file: it holds requests.
const MODE: u32 = 0o600;

/// See the module.
#[derive(Debug)]
pub struct PermLog {
    path: PathBuf,
    zone: TimeZone,
    repeats: Repeats,
    /// A line of this process was written in part.
    torn: bool,
}

impl PermLog {
    /// The permanent log in `log_dir`.
    pub fn new(log_dir: &std::path::Path) -> PermLog {
        PermLog {
            path: log_dir.join("lonnet.perm.log"),
            zone: TimeZone::system(),
            repeats: Repeats::default(),
            torn: false,
        }
    }

    /// Notes that a stored message was delivered.
    pub fn delivered(&mut self, peer: &HostId, request: &[u8], now: Now) {
        let local = now.wall.to_zoned(self.zone.clone()).strftime("%a %b %e %H:%M:%S %Y").to_string();
        let begin = if self.torn { "\n" } else { "" };
        let (head, end) = (format!("{begin}{}:S:{peer}:", now.wall.as_second()), format!(":{local}\n"));
        // A long request is not copied for it.
        if let Err(error) = self.append(&[head.as_bytes(), shown(request), end.as_bytes()]) {
            let text = format!(
                "append to {}: {error}; the delivery of a message to {peer} is not noted",
                self.path.display()
            );
            if let Some(line) = self.repeats.line(&text, now.mono) {
                log::error!("{line}");
            }
        }
    }
}

impl PermLog {
    /// Writes all of it at one stroke, or fails.
    fn append(&mut self, line: &[&[u8]]) -> io::Result<()> {
        let file = file::open(&self.path, MODE)?.into();
        let parts: Vec<_> = line.iter().map(|part| IoSlice::new(part)).collect();
        let written = file::write_parts_once(&file, &parts)?;
        self.torn = written < line.iter().map(|part| part.len()).sum();
        if self.torn { Err(io::Error::other("only a part could be written")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use std::time::Instant;

    #[test]
    fn a_line_has_the_original_s_form() {
        let dir = tempfile::tempdir().unwrap();
        let mut permlog = PermLog::new(dir.path());
        permlog.zone = TimeZone::UTC;
        let peer = HostId::new("msul1").unwrap();
        let at = |second| Now { mono: Instant::now(), wall: Timestamp::from_second(second).unwrap() };
        permlog.delivered(&peer, b"log:a:b \xff", at(1_000_000_000));
        let automatic = base::Key::automatic().unwrap();
        permlog.delivered(&peer, format!("critical;key={automatic}:encrypt:x").as_bytes(), at(1_000_000_001));
        let text = std::fs::read(dir.path().join("lonnet.perm.log")).unwrap();
        let expected = b"1000000000:S:msul1:log:a:b \xff:Sun Sep  9 01:46:40 2001\n\
            1000000001:S:msul1:encrypt:x:Sun Sep  9 01:46:41 2001\n";
        assert_eq!(text.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
}
