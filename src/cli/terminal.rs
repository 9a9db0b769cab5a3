//! What a terminal can show. A table that goes elsewhere, into a pipe or a file, is never cut.

use std::io::{self, IsTerminal};
use std::os::fd::AsRawFd;

/// Characters of a line where nothing says how wide the terminal is.
const WIDTH: usize = 80;

/// The shell's word for the width of the terminal.
const WIDTH_VARIABLE: &str = "COLUMNS";

/// Clears a terminal and puts the cursor to its beginning.
pub(super) const CLEAR: &str = "\x1b[H\x1b[2J";

/// Whether standard output is a terminal.
pub(super) fn is_one() -> bool {
    io::stdout().is_terminal()
}

/// Characters of a line of the terminal that standard output is; `None` where it is none.
pub(super) fn width() -> Option<usize> {
    let output = io::stdout();
    if !output.is_terminal() {
        return None;
    }
    // SAFETY: `winsize` is a struct of integers, for which zero is a value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the kernel writes nothing but a `winsize` to where one
    // is.
    let told = unsafe { libc::ioctl(output.as_raw_fd(), libc::TIOCGWINSZ, &mut size) } == 0;
    let said = || std::env::var(WIDTH_VARIABLE).ok().and_then(|width| width.parse().ok());
    Some(match usize::from(size.ws_col) {
        columns if told && columns > 0 => columns,
        _ => said().unwrap_or(WIDTH),
    })
}
