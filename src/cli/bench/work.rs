//! What a benchmark asks.

use crate::Failure;
use client::{MAX_AHEAD, MAX_AHEAD_BYTES};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// What is asked where nothing else is said. `lond` answers it itself: it costs no handler.
const SHORT: &[u8] = b"ping";
/// The same with a length: `lond` answers `version` whatever stands behind it.
const LONG: &[u8] = b"version:%";

/// Stands for a number of its own in each request, and for what makes it as long as it is to be.
const NUMBER: u8 = b'%';
/// Digits of that number.
const DIGITS: usize = 12;
const FILL: u8 = b'x';

/// Of the work with many requests in flight.
const MANY: (usize, usize) = (4, 64);
/// Of the work with long ones.
const LONG_AHEAD: usize = 16;
const LONG_SIZE: usize = 16 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Id of a host of hosts.tab.
    pub(super) peer: String,
    /// What to ask; each `%` becomes a number that counts on, and filler up to --size. Default:
    /// what the other host answers by itself, `ping` and `version:%`.
    request: Option<OsString>,
    /// Programs that ask at the same time; a thread and a connection each.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    programs: Option<u16>,
    /// Requests of each program that are on their way at the same time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_AHEAD as i64))]
    ahead: Option<u16>,
    /// Length of a request in bytes; REQUEST has a `%` in it then.
    #[arg(long, value_name = "BYTES")]
    size: Option<usize>,
    /// How long each work takes: 3s, 1m.
    #[arg(long = "for", value_name = "T", default_value = "3s", value_parser = crate::duration)]
    time: Duration,
    /// As one line of JSON, times in microseconds.
    #[arg(long)]
    pub(super) json: bool,
}

/// One work: what is asked, how, and how long.
#[derive(Debug, Clone)]
pub(super) struct Work {
    /// For people.
    pub(super) name: &'static str,
    pub(super) request: Template,
    /// Connections.
    pub(super) programs: usize,
    /// Requests on their way on each.
    pub(super) ahead: usize,
    pub(super) time: Duration,
}

/// A request with a place for a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    /// What stands between the places of the number.
    parts: Vec<Vec<u8>>,
    /// Bytes behind the first number.
    fill: usize,
}

impl Arguments {
    /// The works that these arguments mean. `longest`: bytes that a request to this host may have.
    ///
    /// # Errors
    /// They contradict each other, or make no request.
    pub(super) fn works(&self, longest: usize) -> Result<Vec<Work>, Failure> {
        let request = self.request.as_ref().map(|request| request.as_bytes());
        let work =
            |name, request, (programs, ahead)| Work { name, request, programs, ahead, time: self.time };
        let one = self.programs.is_some() || self.ahead.is_some() || self.size.is_some();
        if one {
            let default = if self.size.is_some() { LONG } else { SHORT };
            let template = Template::new(request.unwrap_or(default), self.size, longest)?;
            let many: (usize, usize) = (self.programs.unwrap_or(1).into(), self.ahead.unwrap_or(1).into());
            if many.1 > 1 && many.1 * template.len() > MAX_AHEAD_BYTES {
                let what =
                    "so many requests of this length are more than a connection takes ahead of their answers";
                return Err(Failure::Usage(format!("{what} ({MAX_AHEAD_BYTES} bytes)")));
            }
            return Ok(vec![work("work", template, many)]);
        }
        let short = Template::new(request.unwrap_or(SHORT), None, longest)?;
        let mut works = vec![work("round trip", short.clone(), (1, 1)), work("rate", short, MANY)];
        let long = request.unwrap_or(LONG);
        // A request that has no place for more bytes is as long as it is.
        if long.contains(&NUMBER) {
            let long = Template::new(long, Some(LONG_SIZE.min(longest)), longest)?;
            works.push(work("throughput", long, (1, LONG_AHEAD)));
        }
        Ok(works)
    }
}

impl Template {
    fn new(request: &[u8], size: Option<usize>, longest: usize) -> Result<Template, Failure> {
        let parts: Vec<Vec<u8>> = request.split(|&byte| byte == NUMBER).map(<[u8]>::to_owned).collect();
        let mut template = Template { parts, fill: 0 };
        if request.is_empty() || request.contains(&b'\n') {
            return Err(Failure::Usage("the request is empty, or has a newline in it".into()));
        }
        let bare = template.numbered(0).len();
        if let Some(size) = size {
            if template.parts.len() == 1 {
                return Err(Failure::Usage(
                    "--size needs a request with a % in it, to be filled there".into(),
                ));
            }
            template.fill = size.checked_sub(bare).ok_or_else(|| {
                Failure::Usage(format!("--size {size}: this request has {bare} bytes without filler"))
            })?;
        }
        let whole = bare + template.fill;
        if whole > longest {
            let what = format!("a request of {whole} bytes is longer than this host may be sent ({longest})");
            return Err(Failure::Usage(what));
        }
        Ok(template)
    }

    /// The request with this number.
    pub(super) fn numbered(&self, number: u64) -> Vec<u8> {
        let mut request = Vec::with_capacity(self.fill + 64);
        for (at, part) in self.parts.iter().enumerate() {
            if at > 0 {
                request.extend_from_slice(format!("{number:0DIGITS$}").as_bytes());
            }
            if at == 1 {
                request.resize(request.len() + self.fill, FILL);
            }
            request.extend_from_slice(part);
        }
        request
    }

    /// As the user wrote it.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.parts.join(&NUMBER)).into_owned()
    }

    /// Bytes of a request, without its newline.
    pub(super) fn len(&self) -> usize {
        self.numbered(0).len()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Lon {
        #[command(flatten)]
        bench: Arguments,
    }

    pub(in super::super) fn works(arguments: &[&str], longest: usize) -> Result<Vec<Work>, String> {
        let lon = Lon::parse_from([&["lon", "there"], arguments].concat());
        lon.bench.works(longest).map_err(|failure| failure.to_string())
    }

    fn said(works: &[Work]) -> Vec<(&str, String, usize, usize, usize)> {
        let said =
            |work: &Work| (work.name, work.request.shown(), work.request.len(), work.programs, work.ahead);
        works.iter().map(said).collect()
    }

    #[test]
    fn each_request_has_its_number_and_its_length() {
        let template = Template::new(b"a:%:b:%", Some(40), 100).unwrap();
        let request = String::from_utf8(template.numbered(17)).unwrap();
        assert_eq!(request, "a:000000000017xxxxxxxxxxx:b:000000000017");
        assert_eq!((request.len(), template.len(), template.shown().as_str()), (40, 40, "a:%:b:%"));
        let plain = Template::new(b"ping", None, 4).unwrap();
        assert_eq!(plain.numbered(1), plain.numbered(2));
    }

    #[test]
    fn without_options_three_works_are_done_and_with_one_of_them_one() {
        let three = works(&[], 1_000_000).unwrap();
        assert_eq!(
            said(&three),
            [
                ("round trip", "ping".to_owned(), 4, 1, 1),
                ("rate", "ping".to_owned(), 4, 4, 64),
                ("throughput", "version:%".to_owned(), 16_384, 1, 16)
            ]
        );
        let short = works(&[], 4_096).unwrap();
        assert_eq!(short[2].request.len(), 4_096, "as long as it may be");
        let given = works(&["echo:now"], 4_096).unwrap();
        assert_eq!(given.len(), 2, "a request without a place for filler has its own length");
        let one = works(&["--ahead", "7"], 4_096).unwrap();
        assert_eq!(said(&one), [("work", "ping".to_owned(), 4, 1, 7)]);
        let one = works(&["--size", "100", "--programs", "3"], 4_096).unwrap();
        assert_eq!(said(&one), [("work", "version:%".to_owned(), 100, 3, 1)]);
    }

    #[test]
    fn what_makes_no_request_is_said() {
        for (arguments, what) in [
            (&["ping", "--size", "10"] as &[&str], "--size needs a request with a % in it"),
            (&["a:%", "--size", "10"], "--size 10: this request has 14 bytes without filler"),
            (
                &["a:%", "--size", "5000"],
                "a request of 5000 bytes is longer than this host may be sent (4096)",
            ),
            (&["a:%", "--size", "4096", "--ahead", "1025"], "more than a connection takes ahead"),
            (&[""], "the request is empty"),
            (&["a\nb"], "or has a newline in it"),
        ] {
            let error = works(arguments, 4_096).unwrap_err();
            assert!(error.contains(what), "{arguments:?}: {error}");
        }
    }
}
