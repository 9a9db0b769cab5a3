//! The writer behind simplelog: gathers what that writes of a record, in several pieces, and writes
//! it as one line.
//!
//! simplelog ends a record with a newline, and that is the only one in it: the message was escaped
//! before it got there (see [`super::Records`]). It puts the level in brackets; the log has it
//! without.

use super::common::Common;
use super::console::Console;
use super::file::LogFile;
use super::place::Place;
use super::{LAST_LINE, voice, zone};
use jiff::Zoned;
use std::cell::Cell;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

/// What a gathering keeps of its buffer between two records.
const KEPT: usize = 16 * 1024;

thread_local! {
    /// What became of the line that this thread wrote last, in the file: simplelog has no way to
    /// tell.
    static OUTCOME: Cell<Result<(), i32>> = const { Cell::new(Ok(())) };
}

/// What became in the file of the line that this thread wrote last; see [`Place::put`]. Asked for
/// once.
pub(super) fn outcome() -> Result<(), i32> {
    OUTCOME.replace(Ok(()))
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lines {
    program: &'static str,
    file: Place<LogFile>,
    console: Option<Place<Console>>,
    /// Of a record that is not whole yet.
    gathered: String,
}

impl Lines {
    /// Lines of `program` that go to `file`, and to standard error too if told so.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(super) fn open(program: &'static str, file: &Path, also_stderr: bool) -> io::Result<Lines> {
        let common = Common::get();
        let console = also_stderr.then(|| Place::new(Console::stderr(), &common.console));
        let file = Place::new(LogFile::open(file)?, &common.file);
        Ok(Lines { program, file, console, gathered: String::new() })
    }

    /// The file as it is now.
    pub(super) fn file(&self) -> &LogFile {
        &self.file.out
    }

    /// Opens the file again if that is wanted.
    fn follow(&mut self) {
        if let Some(problem) = self.file.out.follow(Instant::now()) {
            self.put(&format!("ERROR {problem}"));
        }
    }

    /// Writes what has come about: a level, a message.
    fn put(&mut self, event: &str) {
        let line = voice(|voice| {
            voice.last.clear();
            voice.last.push_str(event.split_at(event.floor_char_boundary(LAST_LINE)).0);
            line(&zone::now(), self.program, std::process::id(), &voice.host, event)
        });
        OUTCOME.set(self.file.put(&line));
        if let Some(console) = &mut self.console {
            // It is a copy, and counted.
            let _ = console.put(&line);
        }
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.gathered.push_str(&String::from_utf8_lossy(piece));
            if self.gathered.ends_with('\n') {
                let record = std::mem::take(&mut self.gathered);
                self.follow();
                self.put(&without_brackets(record.trim_end_matches('\n')));
                self.gathered = record;
                self.gathered.clear();
                self.gathered.shrink_to(KEPT);
            }
        }
        Ok(bytes.len())
    }

    /// Nothing waits to be written; the file is opened again if that is wanted.
    fn flush(&mut self) -> io::Result<()> {
        self.follow();
        Ok(())
    }
}

/// `[WARN] link lost` as `WARN link lost`.
fn without_brackets(record: &str) -> String {
    match record.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((level, message)) => [level, " ", message].concat(),
        None => record.to_owned(),
    }
}

fn line(now: &Zoned, program: &str, pid: u32, host: &str, event: &str) -> String {
    let space = if host.is_empty() { "" } else { " " };
    format!("{} {program}[{pid}] {host}{space}{event}", now.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::{Timestamp, tz};

    #[test]
    fn a_line_has_time_program_process_host_level_and_message() {
        let time: Timestamp = "2026-11-20T08:12:14.123456Z".parse().unwrap();
        let time = time.to_zoned(tz::TimeZone::fixed(tz::offset(1)));
        assert_eq!(
            line(&time, "lonc", 123, "msul1", &without_brackets("[WARN] link lost")),
            "2026-11-20T09:12:14.123+01:00 lonc[123] msul1 WARN link lost"
        );
        assert_eq!(
            line(&time, "lonc", 123, "", &without_brackets("[INFO] ready [1] now")),
            "2026-11-20T09:12:14.123+01:00 lonc[123] INFO ready [1] now"
        );
    }
}
