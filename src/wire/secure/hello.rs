//! The opening frames: who speaks, which versions, and how much may be sent at first.
//!
//! The text is `lonnet\n` and then lines `name=value\n`. Names that are not known are ignored, so
//! that a later version may add some; a known one that is missing, doubled or wrong is an error,
//! and so is no version in common. The versions are looked at first: what a far later version
//! writes in the other lines is not ours to judge. The rest of the checks (is `id` the pin's, is
//! `to` this host) is for who knows both.

use super::MAX_BODY;
use super::frame::put_hello;
use base::HostId;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The version of the wire that this program speaks.
pub const VERSION: u32 = 1;

/// Longest HELLO that is read; a longer one is an error. Ours has some 300 bytes.
pub const MAX_HELLO: usize = 4096;

/// Longest value of a line that we keep, `program`.
const MAX_VALUE: usize = 128;

/// What a HELLO begins with.
const MAGIC: &str = "lonnet\n";

/// The epoch of a caller whose spool cannot be used just now: it sends no critical messages on this
/// link.
pub const NO_EPOCH: &str = "00000000000000000000000000000000";

/// Digits of a spool's epoch.
const EPOCH_DIGITS: usize = 32;

const _: () = assert!(MAX_HELLO <= MAX_BODY);

/// The least window of a side that takes lines of up to `max_line` bytes: one such line always
/// fits, beside others under way.
pub const fn least_window(max_line: usize) -> usize {
    2 * max_line + 65536
}

/// The versions that a side speaks, `1-1`: all from the lowest to the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The lowest that is spoken.
    pub lowest: u32,
    /// The highest that is spoken.
    pub highest: u32,
}

impl Versions {
    /// What this program speaks.
    pub const OURS: Versions = Versions { lowest: VERSION, highest: VERSION };

    /// The highest that both speak.
    pub fn common(self, other: Versions) -> Option<u32> {
        let highest = self.highest.min(other.highest);
        (highest >= self.lowest.max(other.lowest)).then_some(highest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.lowest, self.highest)
    }
}

impl FromStr for Versions {
    type Err = ();

    fn from_str(text: &str) -> Result<Versions, ()> {
        let (lowest, highest) = text.split_once('-').ok_or(())?;
        let versions = Versions { lowest: number(lowest)?, highest: number(highest)? };
        if versions.lowest <= versions.highest { Ok(versions) } else { Err(()) }
    }
}

/// What both ends say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The versions spoken.
    pub versions: Versions,
    /// The speaker's id.
    pub id: HostId,
    /// Bytes that may be sent to the speaker before its first WINDOW; at least [`least_window`] of
    /// its `max_line`.
    pub window: u32,
    /// Longest line that the speaker takes.
    pub max_line: u32,
    /// What the speaker runs, `lonc/0.1.0`; for the log.
    pub program: String,
}

/// The caller's HELLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerHello {
    /// What both ends say.
    pub hello: Hello,
    /// Whom it means to have called.
    pub to: HostId,
    /// Its spool's epoch: 32 hex digits; [`NO_EPOCH`] if that is not known.
    pub epoch: String,
}

/// The called side's HELLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalledHello {
    /// What both ends say.
    pub hello: Hello,
    /// Every sequence of this caller and epoch up to this one is settled, as its record says; 0:
    /// none is known to be. A caller needs it for nothing: its own spool says what is settled, and
    /// a repeat of what is gets an answer that says so.
    pub mark: u64,
}

/// Why a HELLO cannot lead to a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// More than a HELLO may be.
    #[error("read HELLO: {0} bytes are more than {MAX_HELLO}")]
    TooLong(usize),
    /// Not the text that it must be.
    #[error("read HELLO: not \"lonnet\" and lines name=value")]
    NotHello,
    /// A line that must be there.
    #[error("read HELLO: {0} is missing")]
    Missing(&'static str),
    /// A known line that stands there twice.
    #[error("read HELLO: {0} is there twice")]
    Twice(&'static str),
    /// A line that makes no sense; the value is not shown, since it may be anything.
    #[error("read HELLO: {0} cannot have that value")]
    Value(&'static str),
    /// A window in which the speaker's longest line would never fit.
    #[error("read HELLO: window {window} is less than 2 x max_line {max_line} + 65536")]
    SmallWindow {
        /// The window.
        window: u32,
        /// The longest line.
        max_line: u32,
    },
    /// Both speak, but not the same.
    #[error("agree on a version: the other side speaks {theirs}, this one {}", Versions::OURS)]
    NoCommonVersion {
        /// What the other side speaks.
        theirs: Versions,
    },
}

impl CallerHello {
    /// Reads the body of a caller's HELLO.
    ///
    /// # Errors
    /// No link can come of it.
    pub fn parse(body: &[u8]) -> Result<CallerHello, HelloError> {
        let lines = Lines::read(body)?;
        Ok(CallerHello {
            hello: lines.hello()?,
            to: lines.host_id("to")?,
            epoch: lines.parse("epoch", |text| {
                let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
                if digits && text.len() == EPOCH_DIGITS { Ok(text.to_owned()) } else { Err(()) }
            })?,
        })
    }

    /// Appends it as a frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_hello(out, &format!("{}to={}\nepoch={}\n", self.hello.text(), self.to, self.epoch));
    }
}

impl CalledHello {
    /// Reads the body of the called side's HELLO.
    ///
    /// # Errors
    /// No link can come of it.
    pub fn parse(body: &[u8]) -> Result<CalledHello, HelloError> {
        let lines = Lines::read(body)?;
        Ok(CalledHello { hello: lines.hello()?, mark: lines.parse("mark", number)? })
    }

    /// Appends it as a frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_hello(out, &format!("{}mark={}\n", self.hello.text(), self.mark));
    }
}

impl Hello {
    fn text(&self) -> String {
        let Hello { versions, id, window, max_line, program } = self;
        format!(
            "{MAGIC}versions={versions}\nid={id}\nwindow={window}\nmax_line={max_line}\nprogram={program}\n"
        )
    }
}

/// The names that this version knows.
const NAMES: [&str; 8] = ["versions", "id", "window", "max_line", "program", "to", "epoch", "mark"];

/// The known lines of a HELLO with which there is a version in common.
struct Lines<'a>(BTreeMap<&'static str, &'a str>);

impl<'a> Lines<'a> {
    fn read(body: &'a [u8]) -> Result<Lines<'a>, HelloError> {
        if body.len() > MAX_HELLO {
            return Err(HelloError::TooLong(body.len()));
        }
        let text = str::from_utf8(body).map_err(|_| HelloError::NotHello)?;
        let text = text.strip_prefix(MAGIC).ok_or(HelloError::NotHello)?;
        let mut lines = Lines(BTreeMap::new());
        let mut twice = None;
        for line in text.split_inclusive('\n') {
            let line = line.strip_suffix('\n').ok_or(HelloError::NotHello)?;
            let (name, value) = line.split_once('=').ok_or(HelloError::NotHello)?;
            if let Some(known) = NAMES.into_iter().find(|known| *known == name)
                && lines.0.insert(known, value).is_some()
            {
                twice = twice.or(Some(known));
            }
        }
        let theirs = lines.parse("versions", str::parse)?;
        if Versions::OURS.common(theirs).is_none() {
            return Err(HelloError::NoCommonVersion { theirs });
        }
        match twice {
            Some(name) => Err(HelloError::Twice(name)),
            None => Ok(lines),
        }
    }

    fn hello(&self) -> Result<Hello, HelloError> {
        let hello = Hello {
            versions: self.parse("versions", str::parse)?,
            id: self.host_id("id")?,
            window: self.parse("window", number)?,
            max_line: self.parse("max_line", number)?,
            program: self.parse("program", |text| {
                let shown = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
                if shown && text.len() <= MAX_VALUE { Ok(text.to_owned()) } else { Err(()) }
            })?,
        };
        // In u64, since a max_line from outside may be anything.
        let Hello { window, max_line, .. } = hello;
        if u64::from(window) < 2 * u64::from(max_line) + 65536 {
            return Err(HelloError::SmallWindow { window, max_line });
        }
        Ok(hello)
    }

    fn host_id(&self, name: &'static str) -> Result<HostId, HelloError> {
        self.parse(name, |text| HostId::new(text).map_err(drop))
    }

    fn parse<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, ()>,
    ) -> Result<T, HelloError> {
        let value = self.0.get(name).ok_or(HelloError::Missing(name))?;
        parse(value).map_err(|()| HelloError::Value(name))
    }
}

/// A number of plain digits: no sign, no spaces.
fn number<T: FromStr>(text: &str) -> Result<T, ()> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().map_err(drop) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secure::{Frame, FrameReader};

    fn id(text: &str) -> HostId {
        HostId::new(text).unwrap()
    }

    fn hello(program: &str) -> Hello {
        Hello {
            versions: Versions::OURS,
            id: id("msua1"),
            window: 4 << 20,
            max_line: 1 << 20,
            program: program.to_owned(),
        }
    }

    const CALLER: &str = "lonnet\nversions=1-1\nid=msua1\nwindow=4194304\nmax_line=1048576\nprogram=lonc/0.1.0\n\
                          to=msul1\nepoch=000102030405060708090a0b0c0d0e0f\n";

    #[test]
    fn both_forms_come_back_as_they_were_put() {
        let caller = CallerHello {
            hello: hello("lonc/0.1.0"),
            to: id("msul1"),
            epoch: "000102030405060708090a0b0c0d0e0f".into(),
        };
        let called = CalledHello { hello: hello("lond/0.1.0"), mark: u64::MAX };
        let mut bytes = Vec::new();
        caller.put(&mut bytes);
        called.put(&mut bytes);
        let mut reader = FrameReader::new();
        reader.push(&bytes);
        let Some(Ok(Frame::Hello(body))) = reader.next_frame() else { panic!("no HELLO") };
        assert_eq!(str::from_utf8(body), Ok(CALLER));
        assert_eq!(CallerHello::parse(body), Ok(caller));
        assert_eq!(CalledHello::parse(body), Err(HelloError::Missing("mark")));
        let Some(Ok(Frame::Hello(body))) = reader.next_frame() else { panic!("no HELLO") };
        assert_eq!(CalledHello::parse(body), Ok(called));
        assert_eq!(CallerHello::parse(body), Err(HelloError::Missing("to")));
    }

    #[test]
    fn unknown_lines_are_ignored_and_the_order_does_not_matter() {
        let mut lines: Vec<&str> = CALLER.split_inclusive('\n').skip(1).collect();
        lines.reverse();
        lines.insert(3, "colour=any = thing\n");
        lines.push("colour=twice\n");
        let text = format!("lonnet\n{}", lines.concat());
        assert_eq!(CallerHello::parse(text.as_bytes()), CallerHello::parse(CALLER.as_bytes()));
        assert!(CallerHello::parse(text.as_bytes()).is_ok());
    }

    #[test]
    fn each_mistake_is_an_error_of_its_own() {
        let cases: &[(&str, &str, HelloError)] = &[
            ("lonnet\n", "lonnut\n", HelloError::NotHello),
            ("to=msul1\n", "to\n", HelloError::NotHello),
            ("to=msul1\n", "\n", HelloError::NotHello),
            ("0e0f\n", "0e0f", HelloError::NotHello),
            ("versions=1-1\n", "", HelloError::Missing("versions")),
            ("id=msua1\n", "", HelloError::Missing("id")),
            ("window=4194304\n", "", HelloError::Missing("window")),
            ("program=lonc/0.1.0\n", "", HelloError::Missing("program")),
            ("id=msua1\n", "id=msua1\nid=msua1\n", HelloError::Twice("id")),
            ("id=msua1", "id=../x", HelloError::Value("id")),
            ("to=msul1", "to=", HelloError::Value("to")),
            ("0e0f\n", "0e0g\n", HelloError::Value("epoch")),
            ("0e0f\n", "0e\n", HelloError::Value("epoch")),
            ("4194304", "+4194304", HelloError::Value("window")),
            ("4194304", "99999999999", HelloError::Value("window")),
            ("1048576", "", HelloError::Value("max_line")),
            ("lonc/0.1.0", "lonc\u{1b}[31m", HelloError::Value("program")),
            ("=1-1", "=1", HelloError::Value("versions")),
            ("=1-1", "=2-1", HelloError::Value("versions")),
            ("4194304", "2162687", HelloError::SmallWindow { window: 2_162_687, max_line: 1 << 20 }),
            ("1048576", "4294967295", HelloError::SmallWindow { window: 4 << 20, max_line: u32::MAX }),
        ];
        for (from, to, error) in cases {
            let text = CALLER.replace(from, to);
            assert_ne!(text, CALLER, "{from:?}");
            assert_eq!(CallerHello::parse(text.as_bytes()).as_ref(), Err(error), "{from:?} -> {to:?}");
        }
        let least = CALLER.replace("4194304", "2162688");
        assert_eq!(CallerHello::parse(least.as_bytes()).unwrap().hello.window, 2_162_688);
        let longest = format!("{CALLER}x={}\n", "x".repeat(MAX_HELLO - CALLER.len() - 3));
        assert!(longest.len() == MAX_HELLO && CallerHello::parse(longest.as_bytes()).is_ok());
        let long = format!("{longest}\n");
        assert_eq!(CallerHello::parse(long.as_bytes()), Err(HelloError::TooLong(long.len())));
        assert_eq!(CallerHello::parse(b"lonnet\nversions=\xff\n"), Err(HelloError::NotHello));
    }

    #[test]
    fn the_highest_version_that_both_speak_is_used_and_a_later_one_alone_is_refused_whatever_it_says() {
        let versions = |lowest, highest| Versions { lowest, highest };
        assert_eq!(versions(1, 1).common(versions(1, 2)), Some(1));
        assert_eq!(versions(1, 3).common(versions(2, 9)), Some(3));
        assert_eq!(versions(1, 1).common(versions(2, 2)), None);
        let both = CALLER.replace("1-1", "1-2");
        assert_eq!(CallerHello::parse(both.as_bytes()).unwrap().hello.versions, versions(1, 2));
        let later = "lonnet\nid=?\nid=?\nversions=2-3\n";
        assert_eq!(
            CallerHello::parse(later.as_bytes()),
            Err(HelloError::NoCommonVersion { theirs: versions(2, 3) })
        );
        assert_eq!(
            HelloError::NoCommonVersion { theirs: versions(2, 3) }.to_string(),
            "agree on a version: the other side speaks 2-3, this one 1-1"
        );
    }

    #[test]
    fn no_cut_and_no_flipped_bit_makes_it_panic() {
        for cut in 0..CALLER.len() {
            assert!(CallerHello::parse(&CALLER.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        let mut right = 0;
        for at in 0..CALLER.len() {
            for bit in 0..8 {
                let mut bytes = CALLER.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                right += usize::from(CallerHello::parse(&bytes).is_ok());
                let _ = CalledHello::parse(&bytes);
            }
        }
        assert!(right > 0, "another host id is still a HELLO");
    }
}
