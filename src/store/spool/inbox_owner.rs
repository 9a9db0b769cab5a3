//! Whose a file in the delayed directory is: `<anything>.<peer id>`, as the original's programs
//! name them. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The peer that the file `file_name` is for: the longest end of the name behind a dot that is a
/// peer's id, since ids may hold dots. `None` for a name that begins with a dot (a file still being
/// written) or that no peer's id ends.
pub fn inbox_owner(file_name: &OsStr, is_peer: impl Fn(&str) -> bool) -> Option<&str> {
    let bytes = file_name.as_bytes();
    if bytes.starts_with(b".") {
        return None;
    }
    // From the longest to the shortest. What stands before an id need not be text.
    let ends = memchr::memchr_iter(b'.', bytes).filter_map(|dot| bytes.get(dot + 1..));
    ends.filter_map(|end| std::str::from_utf8(end).ok()).find(|end| is_peer(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_known_id_that_ends_the_name_owns_the_file() {
        let is_peer = |id: &str| ["msul1", "a.msul1", "b"].contains(&id);
        for (name, owner) in [
            ("1234_5.msul1", Some("msul1")),
            ("x.a.msul1", Some("a.msul1")),
            ("a.msul1", Some("msul1")),
            ("x..msul1", Some("msul1")),
            ("x.msul1.b", Some("b")),
            ("msul1", None),
            (".x.msul1", None),
            (".msul1", None),
            ("x.msul1.tmp", None),
            ("x.msul1.", None),
            ("x.msul12", None),
            ("", None),
            ("é.msul1", Some("msul1")),
        ] {
            assert_eq!(inbox_owner(OsStr::new(name), is_peer), owner, "{name:?}");
        }
        let latin = OsStr::from_bytes(b"\xe9.a.msul1");
        assert_eq!(inbox_owner(latin, is_peer), Some("a.msul1"), "what its maker calls it is its own affair");
        assert_eq!(inbox_owner(OsStr::from_bytes(b"1.msul1\xff"), is_peer), None);
    }
}
