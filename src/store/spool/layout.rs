//! The names in a spool's folder: `docs/spool.md` has a picture of it.
//!
//! Pure. Names of any other form are not the spool's.

use base::Sequence;

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
    fn only_twenty_digits_name_a_segment() {
        assert_eq!(parse_segment_name(&segment_name(Sequence(17))), Some(Sequence(17)));
        for name in ["17.seg", "00000000000000000017", "0000000000000000001x.seg", "99999999999999999999.seg"]
        {
            assert_eq!(parse_segment_name(name), None);
        }
    }
}
