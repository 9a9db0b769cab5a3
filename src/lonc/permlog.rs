//! `lonnet.perm.log`: a line for each stored message that was delivered, as the original writes it.
//!
//! `<epoch seconds>:S:<host id>:<request>:<local time>`. It holds the requests themselves and is
//! made for the administrator who must prove what was sent; no other log has them, and no byte of
//! them is changed here (a request has no newline), but for an automatic key that is left out. The
//! lines of one turn are one `write` to a file opened for appending, so that the children's lines
//! never mix. The file is opened for each: it may be moved away at any time. If a line cannot be
//! written, or only in part, the log says so; the message was delivered all the same, and the next
//! begins on a line of its own.

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
/// Lines of one write, of three parts each: the kernel takes 1,024 parts.
const AT_ONCE: usize = 256;

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

    /// Notes that these stored messages were delivered: their requests, in the order of the
    /// answers.
    pub fn delivered(&mut self, peer: &HostId, requests: &[Vec<u8>], now: Now) {
        let local = now.wall.to_zoned(self.zone.clone()).strftime("%a %b %e %H:%M:%S %Y").to_string();
        let (head, end) = (format!("{}:S:{peer}:", now.wall.as_second()), format!(":{local}\n"));
        for requests in requests.chunks(AT_ONCE) {
            let lines: Vec<[&[u8]; 3]> =
                requests.iter().map(|request| [head.as_bytes(), shown(request), end.as_bytes()]).collect();
            let Err((noted, error)) = self.append(&lines) else { continue };
            let what = match lines.len() - noted {
                1 => "a message".to_owned(),
                count => format!("{count} messages"),
            };
            let text = format!(
                "append to {}: {error}; the delivery of {what} to {peer} is not noted",
                self.path.display()
            );
            if let Some(line) = self.repeats.line(&text, now.mono) {
                log::error!("{line}");
            }
        }
    }

    /// Writes these lines at one stroke.
    ///
    /// # Errors
    /// Not all of them are there; how many are whole, and why no more.
    fn append(&mut self, lines: &[[&[u8]; 3]]) -> Result<(), (usize, io::Error)> {
        let begin: &[u8] = if self.torn { b"\n" } else { b"" };
        // Nothing of a request is copied for it.
        let parts = std::iter::once(begin).chain(lines.iter().flatten().copied());
        let parts: Vec<_> = parts.map(IoSlice::new).collect();
        let written = file::open(&self.path, MODE)
            .and_then(|file| file::write_parts_once(&file.into(), &parts))
            .map_err(|error| (0, error))?;
        let mut left = written.saturating_sub(begin.len());
        let length = |line: &[&[u8]; 3]| line.iter().map(|part| part.len()).sum::<usize>();
        let whole = lines.iter().take_while(|line| {
            let fits = left.checked_sub(length(line));
            left = fits.unwrap_or(left);
            fits.is_some()
        });
        let whole = whole.count();
        // Of the next line something is there, or of the end of the one before.
        self.torn = left > 0 || (whole == 0 && self.torn && written == 0);
        if whole == lines.len() {
            Ok(())
        } else {
            Err((whole, io::Error::other("only a part could be written")))
        }
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
        permlog.delivered(&peer, &[b"log:a:b \xff".to_vec()], at(1_000_000_000));
        let automatic = base::Key::automatic().unwrap();
        let keyed = format!("critical;key={automatic}:encrypt:x").into_bytes();
        permlog.delivered(&peer, &[keyed], at(1_000_000_001));
        let text = std::fs::read(dir.path().join("lonnet.perm.log")).unwrap();
        let expected = b"1000000000:S:msul1:log:a:b \xff:Sun Sep  9 01:46:40 2001\n\
            1000000001:S:msul1:encrypt:x:Sun Sep  9 01:46:41 2001\n";
        assert_eq!(text.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
    #[test]
    fn the_lines_of_a_turn_are_all_there_and_in_order_however_many() {
        let dir = tempfile::tempdir().unwrap();
        let mut permlog = PermLog::new(dir.path());
        let requests: Vec<Vec<u8>> =
            (0..3 * AT_ONCE + 1).map(|number| format!("do:{number}").into_bytes()).collect();
        let peer = HostId::new("msul1").unwrap();
        permlog.delivered(&peer, &requests, Now { mono: Instant::now(), wall: Timestamp::UNIX_EPOCH });
        let text = std::fs::read_to_string(dir.path().join("lonnet.perm.log")).unwrap();
        let told: Vec<&str> = text.lines().map(|line| line.splitn(5, ':').nth(4).unwrap()).collect();
        for (number, told) in told.iter().enumerate() {
            assert!(told.starts_with(&format!("{number}:")), "line {number}: {told}");
        }
        assert_eq!(told.len(), requests.len());
    }

    #[test]
    fn of_lines_that_are_written_in_part_it_is_known_which_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut permlog = PermLog::new(dir.path());
        // A pipe takes a page and no more.
        let path = dir.path().join("lonnet.perm.log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let flags = nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NONBLOCK;
        let reader: std::fs::File =
            nix::fcntl::open(&path, flags, nix::sys::stat::Mode::empty()).unwrap().into();
        let size = nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap() as usize;
        let line = vec![b'x'; size / 4];
        let lines: Vec<[&[u8]; 3]> = (0..5).map(|_| [&b"a:"[..], &line, &b"\n"[..]]).collect();
        let (whole, _) = permlog.append(&lines).unwrap_err();
        assert_eq!((whole, permlog.torn), (3, true));
        // Nothing fits: it is torn as before.
        assert_eq!(permlog.append(&lines).unwrap_err().0, 0);
        assert!(permlog.torn);
        let mut read = vec![0; 2 * size];
        assert_eq!(nix::unistd::read(&reader, &mut read).unwrap(), size);
        permlog.append(&lines[..1]).unwrap();
        let count = nix::unistd::read(&reader, &mut read).unwrap();
        assert!(read.starts_with(b"\na:x") && read[..count].ends_with(b"x\n") && !permlog.torn);
    }
}
