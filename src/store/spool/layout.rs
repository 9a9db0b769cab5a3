//! The names in a spool's folder: `docs/spool.md` has a picture of it.
//!
//! Pure. Names of any other form are not the spool's.

use base::Sequence;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// File with the spool's epoch and reservation.
pub(super) const EPOCH: &str = "epoch";
/// File of zeros that becomes the next segment.
pub(super) const SPARE: &str = "spare";
/// Folder of refused messages.
pub(super) const FAILED: &str = "failed";
/// Folder of what could not be read.
pub(super) const CORRUPT: &str = "corrupt";

/// Folder of files that were dropped in and are to be taken in.
pub(super) const DROPPED: &str = "dropped";

/// Digits of a file's number in [`DROPPED`], and of its user's.
const NUMBER_DIGITS: usize = 20;
const USER_DIGITS: usize = 10;
/// Bytes that most file systems have for a name.
pub(super) const NAME_MOST: usize = 255;

/// What the name of a file in [`DROPPED`] says: `<20 digits>.<10 digits>.<name>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrived<'a> {
    /// It came behind all that have a lower one.
    pub number: u64,
    /// Whose it was when it was moved.
    pub user: u32,
    /// The name that its maker gave it, or the beginning of that.
    pub name: &'a OsStr,
}

impl<'a> Arrived<'a> {
    /// `None`: a version before this moved the file, under the name that it had.
    pub(super) fn parse(name: &'a OsStr) -> Option<Arrived<'a>> {
        let (number, rest) = digits(name.as_bytes(), NUMBER_DIGITS)?;
        let (user, name) = digits(rest, USER_DIGITS)?;
        Some(Arrived { number, user: user.try_into().ok()?, name: OsStr::from_bytes(name) })
    }

    /// The name of a file that says this. One that is too long for that is cut at its end.
    pub(super) fn file_name(&self) -> OsString {
        let Arrived { number, user, name } = self;
        let mut bytes = format!("{number:0NUMBER_DIGITS$}.{user:0USER_DIGITS$}.").into_bytes();
        bytes.extend(name.as_bytes().iter().take(NAME_MOST - bytes.len()));
        OsString::from_vec(bytes)
    }
}

/// So many digits and a dot, and what is behind them.
fn digits(bytes: &[u8], count: usize) -> Option<(u64, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(count)?;
    let number =
        digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).ok()?.parse().ok());
    Some((number.flatten()?, rest.strip_prefix(b".")?))
}

/// Name of the segment whose first message may have this sequence: `<20 digits>.seg`.
pub(super) fn segment_name(name: Sequence) -> String {
    format!("{name}.seg")
}

/// The sequence in a segment's file name; `None` if it is not one.
pub(super) fn parse_segment_name(text: &str) -> Option<Sequence> {
    Sequence::from_digits(text.strip_suffix(".seg")?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_that_came_says_when_and_whose_and_is_no_longer_than_a_name_may_be() {
        let odd = OsStr::from_bytes(b"\xff 1.msul1");
        let arrived = Arrived { number: 17, user: 1000, name: odd };
        let name = arrived.file_name();
        assert_eq!(name.as_bytes(), b"00000000000000000017.0000001000.\xff 1.msul1");
        assert_eq!(Arrived::parse(&name), Some(arrived));
        let long = OsString::from("x".repeat(NAME_MOST));
        let most = Arrived { number: u64::MAX, user: u32::MAX, name: &long };
        let name = most.file_name();
        assert_eq!(name.len(), NAME_MOST);
        let parsed = Arrived::parse(&name).unwrap();
        assert_eq!((parsed.number, parsed.user, parsed.name.len()), (u64::MAX, u32::MAX, 223));
        for name in [
            "1.msul1",
            "00000000000000000017.0000001000",
            "00000000000000000017.1000.x",
            "99999999999999999999.0000001000.x",
            "00000000000000000017.9999999999.x",
            "+0000000000000000017.0000001000.x",
        ] {
            assert_eq!(Arrived::parse(OsStr::new(name)), None, "{name}");
        }
    }

    #[test]
    fn only_twenty_digits_name_a_segment() {
        assert_eq!(parse_segment_name(&segment_name(Sequence(17))), Some(Sequence(17)));
        for name in ["17.seg", "00000000000000000017", "0000000000000000001x.seg", "99999999999999999999.seg"]
        {
            assert_eq!(parse_segment_name(name), None);
        }
    }
}
