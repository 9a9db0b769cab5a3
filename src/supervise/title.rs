//! What `ps` shows of a process: `lonc: msul1 up`.
//!
//! Linux shows the memory that the program's arguments were put into when it started. [`init`]
//! finds that area, and the environment behind it, moves the environment elsewhere, and [`set`]
//! writes over both. A title longer than the room is cut. Nothing here fails: where the area cannot
//! be found, the title stays what it is. After a `fork` the child has an area of its own; after an
//! `exec` the new program calls [`init`] again.

use std::ffi::{CString, OsString, c_char};
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, PoisonError};

/// Where the title goes.
struct Area {
    program: &'static str,
    /// First byte of the arguments.
    start: *mut u8,
    /// Bytes up to the end of the environment.
    room: usize,
}

// SAFETY: the area belongs to the process for all its life; `AREA`'s lock lets one thread write at
// a time.
unsafe impl Send for Area {}

static AREA: Mutex<Option<Area>> = Mutex::new(None);

/// Finds the room for titles that begin with `program`. To be called first in `main`, before there
/// are threads, since it moves the environment. The program's arguments must have been read when
/// the first title is [`set`].
pub fn init(program: &'static str) {
    let Some((start, end)) = area_of(&std::fs::read_to_string("/proc/self/stat").unwrap_or_default()) else {
        return;
    };
    move_environment();
    let area = Area { program, start: std::ptr::with_exposed_provenance_mut(start), room: end - start };
    *AREA.lock().unwrap_or_else(PoisonError::into_inner) = Some(area);
}

/// Shows `<program>: <what>`.
pub fn set(what: &str) {
    let area = AREA.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(area) = area.as_ref() else { return };
    let title = filling(area.room, format!("{}: {what}", area.program));
    // SAFETY: `start..start + room` is what the kernel made for the arguments and the environment
    // of this process, writable and mapped for its whole life; since `move_environment` nothing
    // points into it but `argv`, and who reads that as C strings finds an end within the area,
    // since its last byte is always zero.
    unsafe { std::ptr::copy_nonoverlapping(title.as_ptr(), area.start, area.room) };
}

/// `title`, cut or filled up to be as large as the room for it. The kernel shows the whole area
/// while its last byte is zero, and text beyond it while it is not.
fn filling(room: usize, title: String) -> Vec<u8> {
    let mut title = title.into_bytes();
    title.truncate(room - 1);
    title.resize(room, 0);
    title
}

/// Reads where the arguments start and the environment ends in a line of `/proc/<pid>/stat`; `None`
/// unless there is room and the environment follows the arguments at once.
fn area_of(stat: &str) -> Option<(usize, usize)> {
    // The second field is the program's name in parentheses and may hold anything; the third
    // follows the last `)`.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace().skip(48 - 3).map(|field| field.parse::<usize>().ok());
    let (arg_start, arg_end, env_start, env_end) =
        (fields.next()??, fields.next()??, fields.next()??, fields.next()??);
    let end = if env_start == arg_end { env_end.max(arg_end) } else { arg_end };
    (arg_start != 0 && end > arg_start + 1).then_some((arg_start, end))
}

/// Gives `environ` strings of its own, so that the old ones can be written over.
fn move_environment() {
    let strings: Vec<*mut c_char> = std::env::vars_os()
        .filter_map(|(name, value)| {
            let mut both = name.into_vec();
            both.push(b'=');
            both.extend(OsString::into_vec(value));
            CString::new(both).ok().map(CString::into_raw)
        })
        .chain([std::ptr::null_mut()])
        .collect();
    // Never freed: the environment lives as long as the process.
    let environment: &'static mut [*mut c_char] = Vec::leak(strings);
    // SAFETY: there is one thread (see `init`), so no one reads `environ` meanwhile; the new array
    // ends with a null pointer, and it and its strings are never freed.
    unsafe { environ = environment.as_mut_ptr() };
}

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_found_behind_any_program_name() {
        let numbers = |last: &str| {
            let middle: Vec<String> = (4..48).map(|n| n.to_string()).collect();
            format!("7 (a) b (c) S {} {last}\n", middle.join(" "))
        };
        assert_eq!(area_of(&numbers("1000 1010 1010 1500 0")), Some((1000, 1500)));
        assert_eq!(area_of(&numbers("1000 1010 2000 2500 0")), Some((1000, 1010)), "not one area");
        assert_eq!(area_of(&numbers("1000 1010 1010 0 0")), Some((1000, 1010)), "no environment");
        assert_eq!(area_of(&numbers("0 0 0 0 0")), None, "not ours to see");
        assert_eq!(area_of(&numbers("0 5 5 9 0")), None, "not ours to see either");
        assert_eq!(area_of(&numbers("1000 1001 2000 2500 0")), None, "room for the zero at the end alone");
        assert_eq!(area_of(&numbers("1000 1002 2000 2500 0")), Some((1000, 1002)));
        assert_eq!(area_of(""), None);
        assert_eq!(area_of("7 (x"), None);
    }

    #[test]
    fn a_title_fills_the_room_and_ends_with_a_zero_however_long_it_is() {
        assert_eq!(filling(8, "lonc: x".into()), b"lonc: x\0");
        assert_eq!(filling(8, "lonc: xy".into()), b"lonc: x\0");
        assert_eq!(filling(8, "lonc".into()), b"lonc\0\0\0\0");
        assert_eq!(filling(2, "lonc".into()), b"l\0");
    }
}
