//! The log files: one line an event, each with its time, program, process and host.
//!
//! ```text
//! 2026-11-20T09:12:14.123+01:00 lonc[123] msul1 WARN link lost: reset by peer
//! ```
//!
//! Each record is one `write` to a file opened for appending, so the lines of a supervisor and of its children
//! stay whole without a lock between them. The process id is asked for with each record: it is right after a
//! `fork`. Whatever could end a line or move a terminal's cursor is escaped, so that what a peer sent cannot forge
//! a line. A panic is logged at error level, with its place, before it goes on.
//! A record that cannot be written is lost: there is no one to tell. [`init`] fails if the file cannot be opened.

// A supervisor runs this: nothing here may panic, whatever comes from outside.
#![deny(clippy::indexing_slicing, clippy::string_slice)]

pub mod repeats;

use jiff::Zoned;
use log::{LevelFilter, Log, Metadata, Record};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of its last line that a process keeps for its status; a longer one is cut.
pub const LAST_LINE: usize = 300;

/// Permission bits of a log file that is made anew.
const MODE: u32 = 0o640;

/// Why the log could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened for appending.
    #[error("open {}: {cause}", path.display())]
    Open {
        /// The log file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// [`init`] was called twice in a process.
    #[error("begin log: it was begun already")]
    Twice,
}

/// What of the log differs between a supervisor and its children.
struct Voice {
    host: String,
    last: String,
}

/// The log file's; -1 before there is one.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);

static VOICE: Mutex<Voice> = Mutex::new(Voice { host: String::new(), last: String::new() });

/// Begins to log records up to `level` to `file`, and to standard error too if told so; panics are logged as well.
///
/// # Errors
/// When `file` cannot be opened, or when this process logs already.
pub fn init(
    program: &'static str,
    file: &Path,
    level: LevelFilter,
    also_stderr: bool,
) -> Result<(), LogError> {
    let opened = OpenOptions::new().append(true).create(true).mode(MODE).open(file);
    let opened = opened.map_err(|cause| LogError::Open { path: file.to_owned(), cause })?;
    let logger = FileLogger { program, file: opened, also_stderr };
    let descriptor = logger.file.as_raw_fd();
    log::set_boxed_logger(Box::new(logger)).map_err(|_| LogError::Twice)?;
    DESCRIPTOR.store(descriptor, Ordering::Relaxed);
    log::set_max_level(level);
    log_panics();
    Ok(())
}

/// Logs a line whatever the level is: for what was asked to be logged, not for what happened.
pub fn always(message: std::fmt::Arguments<'_>) {
    write_down(log::Level::Info, message);
}

/// From here on this process logs nothing but panics and what is said [`always`].
pub fn be_silent() {
    log::set_max_level(LevelFilter::Off);
}

fn write_down(level: log::Level, message: std::fmt::Arguments<'_>) {
    log::logger().log(&Record::builder().level(level).args(message).build());
}

/// Names the host that this process is busy with, in each of its lines from here on.
pub fn set_host(host: &str) {
    voice(|voice| host.clone_into(&mut voice.host));
}

/// The last line that this process logged: level and message, cut to [`LAST_LINE`] bytes.
pub fn last_line() -> String {
    voice(|voice| voice.last.clone())
}

/// Forgets the last line, for a child that begins with a copy of its parent's.
pub fn forget_last_line() {
    voice(|voice| voice.last.clear());
}

/// The log file's descriptor, which a child keeps when it closes what it has no use for.
pub fn descriptor() -> Option<RawFd> {
    Some(DESCRIPTOR.load(Ordering::Relaxed)).filter(|fd| *fd >= 0)
}

fn voice<T>(use_it: impl FnOnce(&mut Voice) -> T) -> T {
    // A panic while the lock was held leaves two strings, whole in any case.
    use_it(&mut VOICE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Has each panic logged before the default report of it, which goes to standard error.
fn log_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let backtrace = Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => write_down(log::Level::Error, format_args!("{panic}\n{backtrace}")),
            _ => write_down(log::Level::Error, format_args!("{panic}")),
        }
        default(panic);
    }));
}

struct FileLogger {
    program: &'static str,
    file: File,
    also_stderr: bool,
}

impl Log for FileLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let mut event = format!("{} ", record.level());
        // Writing to a string fails only if an argument's own `Display` does; what it wrote until then is kept.
        let _ = write!(Escaping(&mut event), "{}", record.args());
        let line = voice(|voice| {
            voice.last.clear();
            voice.last.push_str(event.split_at(event.floor_char_boundary(LAST_LINE)).0);
            line(&Zoned::now(), self.program, std::process::id(), &voice.host, &event)
        });
        let _ = (&self.file).write_all(line.as_bytes());
        if self.also_stderr {
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn line(now: &Zoned, program: &str, pid: u32, host: &str, event: &str) -> String {
    let space = if host.is_empty() { "" } else { " " };
    format!("{} {program}[{pid}] {host}{space}{event}\n", now.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z"))
}

/// Whether a character can end a line, move a terminal's cursor, or turn the direction of the text, which could make a
/// line read as another one.
pub fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Passes text on with the characters escaped that steer (`\n` as `\` and `n`).
struct Escaping<'a>(&'a mut String);

impl std::fmt::Write for Escaping<'_> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::{Timestamp, tz};

    #[test]
    fn a_line_has_time_program_process_host_level_and_message() {
        let time: Timestamp = "2026-11-20T08:12:14.123456Z".parse().unwrap();
        let time = time.to_zoned(tz::TimeZone::fixed(tz::offset(1)));
        assert_eq!(
            line(&time, "lonc", 123, "msul1", "WARN link lost"),
            "2026-11-20T09:12:14.123+01:00 lonc[123] msul1 WARN link lost\n"
        );
        assert_eq!(
            line(&time, "lonc", 123, "", "INFO ready"),
            "2026-11-20T09:12:14.123+01:00 lonc[123] INFO ready\n"
        );
    }

    #[test]
    fn what_a_peer_sent_cannot_forge_a_line() {
        let mut text = String::new();
        let sent = "a\nb\r\tc\0\x1b[2J\u{85}\u{202e}é\"\\";
        write!(Escaping(&mut text), "{sent}").unwrap();
        assert_eq!(text, "a\\nb\\r\\tc\\u{0}\\u{1b}[2J\\u{85}\\u{202e}é\"\\");
    }

    /// One test of what is global in the process: the logger, its host, the panic hook.
    #[test]
    fn each_record_and_each_panic_is_one_line_of_the_file_and_the_last_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lonc.log");
        std::fs::write(&file, "before\n").unwrap();
        init("lonc", &file, LevelFilter::Info, false).unwrap();
        assert!(matches!(init("lonc", &file, LevelFilter::Info, false), Err(LogError::Twice)));
        let missing = folder.path().join("missing/lonc.log");
        let error = init("lonc", &missing, LevelFilter::Info, false).unwrap_err().to_string();
        assert!(error.starts_with("open ") && error.contains("missing/lonc.log: No such file"), "{error}");

        // Other tests of this program log too: only lines of our own are looked at.
        let ours = |text: &str| {
            let all = std::fs::read_to_string(&file).unwrap();
            all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect::<Vec<_>>()
        };
        log::warn!("first of logging's test\nsecond");
        log::debug!("quiet of logging's test");
        assert_eq!(ours("of logging's test").len(), 1);
        let pid = std::process::id();
        let line = ours("first of logging's test").remove(0);
        assert!(line.ends_with("WARN first of logging's test\\nsecond"), "{line}");
        assert!(line.contains(&format!(" lonc[{pid}] ")), "{line}");

        std::panic::catch_unwind(|| panic!("on purpose, in logging's test")).unwrap_err();
        let line = ours("on purpose, in logging's test").remove(0);
        assert!(line.contains(" ERROR ") && line.contains("logging.rs:"), "{line}");
        assert!(std::fs::read_to_string(&file).unwrap().starts_with("before\n"));

        log::set_max_level(LevelFilter::Warn);
        log::info!("too quiet of logging's test");
        always(format_args!("asked for of logging's test"));
        log::set_max_level(LevelFilter::Info);
        assert_eq!(ours("too quiet of logging's test").len(), 0);
        assert!(ours("asked for of logging's test").remove(0).contains(" INFO "));

        let long = format!("{}{}", "é".repeat(LAST_LINE), "of logging's test");
        voice(|voice| voice.last.clear());
        log::info!("{long}");
        let last = last_line();
        assert!(last.len() <= LAST_LINE);
    }
}
