//! The log files: one line an event, each with its time, program, process and host.
//!
//! ```text
//! 2026-11-20T09:12:14.123+01:00 lonc[123] msul1 WARN link lost: reset by peer
//! ```
//!
//! simplelog makes a record of a level and a message; [`lines`] makes a line of it and writes it,
//! with one `write` to a file opened for appending, so that the lines of a supervisor and of its
//! children stay whole without a lock between them. The process id is asked for with each record:
//! it is right after a `fork`. Whatever could end a line or move a terminal's cursor is escaped, so
//! that what a peer sent cannot forge a line. A panic is logged at error level, with its place,
//! before it goes on.
//!
//! No line is waited for, on whatever it is written to: one that cannot be written at once is left
//! out, and the next one tells how many were and why, whichever process writes it. The file is
//! opened again when the supervisor wants it ([`open_anew`]), by each process before its next line.
//! [`init`] fails if the file cannot be opened.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `lines` | what a line looks like |
//! | `zone` | where on earth their times are read |
//! | `place` | one `write` a line, and the count of those that were left out |
//! | `file`, `console` | the two places |
//! | `common` | what the processes of a program share |
//! | `escape` | which characters steer |

mod common;
pub mod console;
mod escape;
pub mod file;
mod lines;
mod place;
mod zone;

pub use escape::{escaped, steers};
pub use zone::keep as keep_zone;

use common::Common;
use lines::Lines;
use log::{LevelFilter, Log, Metadata, Record};
use simplelog::{ConfigBuilder, WriteLogger};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of its last line that a process keeps for its status; a longer one is cut.
pub const LAST_LINE: usize = 300;

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

/// The level from before this process was silenced; 0: it was not.
static SILENCED: AtomicUsize = AtomicUsize::new(0);

static VOICE: Mutex<Voice> = Mutex::new(Voice { host: String::new(), last: String::new() });

/// Begins to log records up to `level` to `file`, and to standard error too if told so; panics are
/// logged as well.
///
/// # Errors
/// When `file` cannot be opened, or when this process logs already.
pub fn init(
    program: &'static str,
    file: &Path,
    level: LevelFilter,
    also_stderr: bool,
) -> Result<(), LogError> {
    let lines = Lines::open(program, file, also_stderr);
    let lines = lines.map_err(|cause| LogError::Open { path: file.to_owned(), cause })?;
    let descriptor = lines.file().descriptor();
    // Which levels are logged is log's to know, since a reload may change it; the time is ours:
    // simplelog has but one offset for it, which it cannot ask for in a process with threads.
    let off = LevelFilter::Off;
    let mut format = ConfigBuilder::new();
    format.set_time_level(off).set_thread_level(off).set_target_level(off).set_location_level(off);
    let records = Records(WriteLogger::new(LevelFilter::Trace, format.build(), lines));
    log::set_boxed_logger(Box::new(records)).map_err(|_| LogError::Twice)?;
    DESCRIPTOR.store(descriptor, Ordering::Relaxed);
    log::set_max_level(level);
    log_panics(also_stderr);
    Ok(())
}

/// Has the file opened again, here at once and by every child before its next line.
pub fn open_anew() {
    Common::get().open_anew();
    follow();
}

/// Opens the file again if that is wanted and was not done in this process: so that one with
/// nothing to say lets go of a file that was renamed.
pub fn follow() {
    log::logger().flush();
}

/// Opens the file again in this process alone. One that has given up rights over files has no more
/// than is left over one that it opens then; what it was born with it could still cut off.
pub fn open_own() {
    file::open_here();
    follow();
}

/// Logs a line whatever the level is: for what was asked to be logged, not for what happened.
///
/// # Errors
/// It is not in the file; why, in words. It is counted there as any line that was left out.
pub fn always(message: std::fmt::Arguments<'_>) -> Result<(), String> {
    // Of a line before this one nobody has asked.
    let _ = lines::outcome();
    write_down(log::Level::Info, message);
    lines::outcome().map_err(place::words)
}

/// From here on this process logs nothing but panics and what is said [`always`].
pub fn be_silent() {
    let level = log::max_level();
    if level != LevelFilter::Off {
        SILENCED.store(level as usize, Ordering::Relaxed);
        log::set_max_level(LevelFilter::Off);
    }
}

/// Takes [`be_silent`] back, if it was said.
pub fn speak_again() {
    let level = SILENCED.swap(0, Ordering::Relaxed);
    if let Some(level) = LevelFilter::iter().find(|known| level > 0 && *known as usize == level) {
        log::set_max_level(level);
    }
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

/// Has each panic logged. The default report of it, which goes to standard error and waits for it,
/// is left to programs that write nothing else there.
fn log_panics(also_stderr: bool) {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let backtrace = Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => write_down(log::Level::Error, format_args!("{panic}\n{backtrace}")),
            _ => write_down(log::Level::Error, format_args!("{panic}")),
        }
        if !also_stderr {
            default(panic);
        }
    }));
}

/// What stands before simplelog.
struct Records(Box<WriteLogger<Lines>>);

impl Log for Records {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata) && metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // Here, not with simplelog's lock held: an argument whose `Display` panics has its panic
        // logged.
        let message = escaped(record.args());
        let metadata = record.metadata().clone();
        self.0.log(&Record::builder().metadata(metadata).args(format_args!("{message}")).build());
    }

    fn flush(&self) {
        self.0.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let lines_of = |file: &Path, text: &str| {
            let all = std::fs::read_to_string(file).unwrap();
            all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect::<Vec<_>>()
        };
        let ours = |text: &str| lines_of(&file, text);
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
        always(format_args!("asked for of logging's test")).unwrap();
        log::set_max_level(LevelFilter::Info);
        assert_eq!(ours("too quiet of logging's test").len(), 0);
        assert!(ours("asked for of logging's test").remove(0).contains(" INFO "));

        let long = format!("{}{}", "é".repeat(LAST_LINE), "of logging's test");
        voice(|voice| voice.last.clear());
        log::info!("{long}");
        let last = last_line();
        assert!(last.len() <= LAST_LINE);

        // The file is renamed; where it cannot be opened again, the old one goes on and says so.
        let renamed = folder.path().join("lonc.log.1");
        std::fs::rename(&file, &renamed).unwrap();
        std::fs::create_dir(&file).unwrap();
        let number = descriptor();
        open_anew();
        log::warn!("late of logging's test");
        assert_eq!(lines_of(&renamed, "lonc.log anew: Is a directory").len(), 1);
        assert_eq!(lines_of(&renamed, "late of logging's test").len(), 1);
        std::fs::remove_dir(&file).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !file.exists() {
            assert!(std::time::Instant::now() < deadline, "it is tried again");
            follow();
        }
        log::warn!("after all of logging's test");
        assert_eq!(ours("after all of logging's test").len(), 1);
        assert_eq!(lines_of(&renamed, "after all of logging's test").len(), 0);
        assert_eq!(descriptor(), number);
    }
}
