//! A place that lines are written to: each is one `write`, and none is waited for.
//!
//! A line that cannot be written at once is left out, and counted; the next one that can be tells
//! how many there were and why. One that was written in part (the disk was full, the file as large
//! as it may be) counts as left out, and the next one begins on a line of its own.

use super::common::LeftOut;
use std::io;

/// What takes bytes, as far as it does so at once.
pub(super) trait Out {
    /// Longest line that it takes as one piece, with its end.
    const LONGEST: usize;

    /// Writes as much as there is room for, with one call.
    ///
    /// # Errors
    /// What the system said; `WouldBlock` where one would have to wait.
    fn write_once(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

/// The end of a line that was cut.
const CUT: &str = " [...]";

/// See the module.
#[derive(Debug)]
pub(super) struct Place<O> {
    /// Where it goes.
    pub out: O,
    left_out: &'static LeftOut,
    /// What was written last is not a whole line.
    torn: bool,
}

impl<O: Out> Place<O> {
    /// Nothing was written yet.
    pub(super) fn new(out: O, left_out: &'static LeftOut) -> Place<O> {
        Place { out, left_out, torn: false }
    }

    /// Writes `line`, which has no end yet, or counts it.
    ///
    /// # Errors
    /// It was left out; the cause as the system numbers it, 0 if a part was written.
    pub(super) fn put(&mut self, line: &str) -> Result<(), i32> {
        let (missing, cause) = self.left_out.take();
        let text = whole(line, self.torn, missing, cause, O::LONGEST);
        let written = self.out.write_once(text.as_bytes());
        let cause = match written {
            Ok(count) if count == text.len() => {
                self.torn = false;
                return Ok(());
            }
            Ok(count) => {
                self.torn = count > usize::from(self.torn) || (self.torn && count == 0);
                0
            }
            Err(error) => error.raw_os_error().unwrap_or(0),
        };
        self.left_out.add(missing + 1, cause);
        Err(cause)
    }
}

/// Why a line was left out.
pub(super) fn words(cause: i32) -> String {
    match cause {
        0 => "only a part could be written".to_owned(),
        code => io::Error::from_raw_os_error(code).to_string(),
    }
}

/// The text of a line as it is written.
fn whole(line: &str, torn: bool, missing: u64, cause: i32, longest: usize) -> String {
    let mut end = String::new();
    if missing > 0 {
        let lines = if missing == 1 { "1 line" } else { &format!("{missing} lines") };
        end = format!(" ({lines} before this left out: {})", words(cause));
    }
    end.push('\n');
    let begin = if torn { "\n" } else { "" };
    let room = longest.saturating_sub(begin.len() + end.len());
    if line.len() <= room {
        return [begin, line, &end].concat();
    }
    let kept = line.floor_char_boundary(room.saturating_sub(CUT.len()));
    [begin, line.split_at(kept).0, CUT, &end].concat()
}

#[cfg(test)]
mod tests {
    use super::super::common::Common;
    use super::*;

    /// Takes so many bytes a call; `None`: refuses with "no space left".
    struct Fake {
        takes: Option<usize>,
        text: Vec<u8>,
    }

    impl Out for Fake {
        const LONGEST: usize = 100;

        fn write_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let Some(room) = self.takes else { return Err(io::Error::from_raw_os_error(libc::ENOSPC)) };
            let taken = &bytes[..bytes.len().min(room)];
            self.text.extend_from_slice(taken);
            Ok(taken.len())
        }
    }

    fn place() -> Place<Fake> {
        let common: &Common = crate::shared::zeroed().unwrap();
        Place::new(Fake { takes: Some(usize::MAX), text: Vec::new() }, &common.file)
    }

    fn text(place: &Place<Fake>) -> String {
        String::from_utf8(place.out.text.clone()).unwrap()
    }

    #[test]
    fn what_could_not_be_written_is_counted_in_the_next_line_with_its_cause() {
        let mut place = place();
        assert_eq!(place.put("one"), Ok(()));
        place.out.takes = None;
        ["two", "three"].iter().for_each(|line| assert_eq!(place.put(line), Err(libc::ENOSPC)));
        place.out.takes = Some(usize::MAX);
        ["four", "five"].iter().for_each(|line| assert_eq!(place.put(line), Ok(())));
        let cause = io::Error::from_raw_os_error(libc::ENOSPC);
        assert_eq!(text(&place), format!("one\nfour (2 lines before this left out: {cause})\nfive\n"));
    }

    #[test]
    fn a_line_after_one_that_was_torn_begins_anew() {
        let mut place = place();
        place.out.takes = Some(3);
        assert_eq!(place.put("torn"), Err(0));
        place.out.takes = Some(0);
        assert_eq!(place.put("nothing of it"), Err(0));
        place.out.takes = Some(1);
        assert_eq!(place.put("its end alone"), Err(0));
        place.out.takes = Some(usize::MAX);
        assert_eq!(place.put("whole"), Ok(()));
        assert_eq!(text(&place), "tor\nwhole (3 lines before this left out: only a part could be written)\n");
    }

    #[test]
    fn a_line_that_is_too_long_for_one_piece_is_cut_and_says_so() {
        let mut place = place();
        assert_eq!(place.put(&"é".repeat(60)), Ok(()));
        assert_eq!(place.put(&"x".repeat(99)), Ok(()));
        let text = text(&place);
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        assert!(lines[0].len() <= 100 && lines[0].ends_with("é [...]\n"), "{text}");
        assert_eq!(lines[1], format!("{}\n", "x".repeat(99)));
    }
}
