//! How rates and latencies go with ever more of something: `scripts/bench curves`.
//!
//! Four families: clients of one peer, peers, messages that wait, bytes of a request. Each point is
//! measured in turn, round by round, and said as the median of the rounds and half of what lies
//! between the least and the most. A family is a table, and drawings with logarithmic axes, on
//! which a cost that is proportional to something is a straight line and a cliff is a bend.

mod chart;
mod stored;

use crate::asking::{Asked, Work, press};
use crate::report::{machine_line, put_into, spread};
use crate::rig::{NEAR, Program, Result, Rig};
use crate::speech::Speech;
use crate::stream::{Address, serve};
use crate::usage::machine;
use crate::{median, raise_descriptors};
use chart::{Chart, Curve, Point};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Clients of one peer, and peers.
const COUNTS: [usize; 7] = [1, 3, 10, 30, 100, 300, 1_000];
/// Peers that are there unless more are asked for: each is two processes, and two more call it.
const PEERS: usize = 100;
/// Bytes of a request.
const BODIES: [usize; 11] =
    [1, 4, 16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, (1 << 20) - BEFORE];
/// Requests on their way, where the bytes of one are what changes.
const AHEAD: usize = 16;
/// Bytes of the longest line that are not the body's: the handler's name.
const BEFORE: usize = "tagged:".len();
/// The handlers, and what stands before their requests.
const HANDLERS: [(&str, &str, bool); 2] = [("line", "line:", false), ("tagged", "tagged:", true)];

/// How much is measured.
pub struct Length {
    rounds: usize,
    warm: Duration,
    time: Duration,
    /// Most peers, and most messages that wait.
    peers: usize,
    stored: u64,
}

/// What goes with something: a number a round for each of its values.
pub struct Series {
    /// Its head in the table; behind a comma what it is a part of.
    name: String,
    rows: Vec<(f64, Vec<f64>)>,
}

/// A drawing: the name of its file, what goes up, and which series.
type Drawing = (&'static str, &'static str, fn(&str) -> bool);

/// One family of curves.
struct Family {
    name: &'static str,
    title: &'static str,
    /// What goes across.
    across: &'static str,
    /// What was done.
    what: &'static str,
    measure: fn(&Path, &Length) -> Result<Vec<Series>>,
    drawings: &'static [Drawing],
}

const RATE: &str = "requests a second";
const LATENCY: &str = "microseconds";

const FAMILIES: [Family; 4] = [
    Family {
        name: "clients",
        title: "Clients of one peer",
        across: "clients",
        what: "Each client has one request of 64 bytes unanswered.",
        measure: clients,
        drawings: &[
            ("clients-rate", RATE, |name| name.ends_with("a second")),
            ("clients-latency", LATENCY, |name| name.ends_with("us")),
        ],
    },
    Family {
        name: "peers",
        title: "Peers, one client each",
        across: "peers that are asked",
        what: "All peers have their link, and so many are asked, by a client each with one request of 64 bytes \
               unanswered. All hosts are on this machine: a peer is a process of `lonc` and two of `lond`.",
        measure: peers,
        drawings: &[
            ("peers-rate", RATE, |name| name.ends_with("a second")),
            ("peers-latency", LATENCY, |name| name.ends_with("us")),
        ],
    },
    Family {
        name: "stored",
        title: "Messages that wait",
        across: "messages that wait",
        what: "For a peer that is away: from the start of `lonc` to the first message that is stored, and then \
               messages of 200 bytes stored a second. The spool is in memory, so that it is the program that is \
               measured and not the disk.",
        measure: stored::measure,
        drawings: &[
            ("stored-start", "seconds", |name| name.ends_with("seconds")),
            ("stored-rate", "messages stored a second", |name| name.ends_with("in flight")),
        ],
    },
    Family {
        name: "bodies",
        title: "Bytes of a request",
        across: "bytes of a request and of its answer",
        what: "One client with 16 requests unanswered.",
        measure: bodies,
        drawings: &[
            ("bodies-rate", RATE, |name| name.ends_with("a second")),
            ("bodies-bytes", "megabytes of requests a second", |name| name.ends_with("MB/s")),
            ("bodies-latency", LATENCY, |name| name.ends_with("us")),
        ],
    },
];

/// Measures the programs in a folder: all families, or those that are named.
pub fn run(bin: &str, arguments: &[&str]) -> Result<()> {
    let (mut quick, mut into, mut most, mut named) = (false, None, None, Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match *word {
            "--quick" => quick = true,
            "--into" => into = Some(PathBuf::from(words.next().ok_or("--into wants a folder")?)),
            "--peers" => most = Some(words.next().ok_or("--peers wants a number")?.parse()?),
            name if FAMILIES.iter().any(|family| family.name == name) => named.push(name),
            other => return Err(format!("curves: {other}: no such curve").into()),
        }
    }
    let ms = Duration::from_millis;
    let mut length = match quick {
        true => Length { rounds: 1, warm: ms(100), time: ms(300), peers: 30, stored: 100_000 },
        false => Length { rounds: 5, warm: ms(300), time: ms(1_000), peers: PEERS, stored: 10_000_000 },
    };
    length.peers = most.unwrap_or(length.peers);
    raise_descriptors()?;
    for family in FAMILIES.iter().filter(|family| named.is_empty() || named.contains(&family.name)) {
        let (begun, worked) = (Instant::now(), machine());
        let series = (family.measure)(Path::new(bin), &length)?;
        let busy = (machine() - worked) / 1e6 / begun.elapsed().as_secs_f64();
        let text = family.report(&series, busy)?;
        print!("{text}");
        if let Some(folder) = &into {
            family.draw(folder, &series)?;
            put_into(&folder.join("performance.md"), &format!("curves {}", family.name), &text)?;
        }
    }
    Ok(())
}

impl Family {
    /// The table, and where the drawings are.
    fn report(&self, series: &[Series], busy: f64) -> Result<String> {
        let mut text = format!("{} {}\n\n", self.what, machine_line(busy)?);
        let rounds = series.first().and_then(|one| one.rows.first()).map_or(0, |(_, numbers)| numbers.len());
        writeln!(
            text,
            "Medians of {rounds} rounds, and half of what lies between the least and the most:\n"
        )?;
        let names: Vec<&str> = series.iter().map(|one| one.name.as_str()).collect();
        writeln!(
            text,
            "| {} | {} |\n| ---: |{}",
            self.across,
            names.join(" | "),
            " ---: |".repeat(names.len())
        )?;
        let places = series.first().map_or(&[][..], |first| &first.rows);
        for (place, (at, _)) in places.iter().enumerate() {
            let cells: Vec<String> =
                series.iter().map(|one| spread(one.rows[place].1.iter().copied())).collect();
            writeln!(text, "| {} | {} |", grouped(*at as u64), cells.join(" | "))?;
        }
        writeln!(text)?;
        for (file, up, _) in self.drawings {
            writeln!(text, "![{}: {up}](curves/{file}.svg)", self.title)?;
        }
        Ok(text + "\n")
    }

    fn draw(&self, folder: &Path, series: &[Series]) -> Result<()> {
        let folder = folder.join("curves");
        fs::create_dir_all(&folder)?;
        for (file, up, is_of) in self.drawings {
            let curves = series.iter().filter(|one| is_of(&one.name)).map(Series::curve).collect();
            let chart = Chart { title: self.title, across: self.across, up, curves };
            fs::write(folder.join(file).with_extension("svg"), chart.svg())?;
        }
        Ok(())
    }
}

impl Series {
    fn new(name: impl Into<String>) -> Series {
        Series { name: name.into(), rows: Vec::new() }
    }

    /// One more round of this value.
    fn add(&mut self, at: f64, number: f64) {
        match self.rows.iter_mut().find(|(known, _)| *known == at) {
            Some((_, numbers)) => numbers.push(number),
            None => self.rows.push((at, vec![number])),
        }
    }

    fn curve(&self) -> Curve<'_> {
        let point = |(at, numbers): &(f64, Vec<f64>)| Point {
            at: *at,
            middle: median(numbers.iter().copied()),
            least: numbers.iter().copied().fold(f64::INFINITY, f64::min),
            most: numbers.iter().copied().fold(0.0, f64::max),
        };
        Curve { name: &self.name, points: self.rows.iter().map(point).collect() }
    }
}

/// With a comma behind each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, rest) = digits.split_at(first);
    let groups = rest.as_bytes().chunks(3).map(String::from_utf8_lossy);
    let head = (!head.is_empty()).then(|| head.into());
    head.into_iter().chain(groups).collect::<Vec<_>>().join(",")
}

/// Rate, p50 and p99 of both handlers.
fn series_of_handlers() -> Vec<Series> {
    let names = ["a second", "p50 us", "p99 us"];
    let of = |what: &'static str| HANDLERS.map(|(handler, ..)| Series::new(format!("{handler}, {what}")));
    names.into_iter().flat_map(of).collect()
}

/// The hosts, all with their links, and handlers that give lines back.
fn start(bin: &Path, peers: &[&str]) -> Result<(Rig, Vec<Program>)> {
    let rig = Rig::new(bin, peers)?;
    for (handler, _, tagged) in HANDLERS {
        serve(&rig.handler_socket(handler), tagged)?;
    }
    let mut programs = peers.iter().map(|peer| rig.start("lond", peer)).collect::<Result<Vec<_>>>()?;
    programs.push(rig.start("lonc", NEAR)?);
    peers.iter().try_for_each(|peer| rig.wait_up(peer))?;
    Ok((rig, programs))
}

/// One point of both handlers in one round.
fn point(sockets: &[PathBuf], work: &Work, at: usize, length: &Length, series: &mut [Series]) -> Result<()> {
    for (number, (handler, prefix, _)) in HANDLERS.into_iter().enumerate() {
        let addresses = sockets.iter().cloned().map(Address::Unix).collect();
        let asked = Asked { addresses, speech: Speech::Line, prefix };
        let work = Work { bytes: work.bytes + prefix.len(), ..*work };
        let came = press(&asked, &work, length.warm, length.time)
            .map_err(|error| format!("ask {handler}, {} of {}: {error}", at, work.name))?;
        let rate = came.answers as f64 / came.seconds;
        let time = |part| came.times.value_at_quantile(part) as f64 / 1e3;
        for (what, figure) in [rate, time(0.5), time(0.99)].into_iter().enumerate() {
            series[HANDLERS.len() * what + number].add(at as f64, figure);
        }
    }
    Ok(())
}

fn clients(bin: &Path, length: &Length) -> Result<Vec<Series>> {
    let (rig, _programs) = start(bin, &["far"])?;
    let (sockets, mut series) = ([rig.socket("far")], series_of_handlers());
    for _ in 0..length.rounds {
        for connections in COUNTS {
            let work = Work { name: "clients", churn: false, connections, ahead: 1, bytes: 64 };
            point(&sockets, &work, connections, length, &mut series)?;
        }
    }
    Ok(series)
}

fn peers(bin: &Path, length: &Length) -> Result<Vec<Series>> {
    let names: Vec<String> = (0..length.peers).map(|number| format!("far{number}")).collect();
    let (rig, _programs) = start(bin, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut series = series_of_handlers();
    for _ in 0..length.rounds {
        for count in COUNTS.into_iter().filter(|count| *count <= length.peers) {
            let sockets: Vec<PathBuf> = names[..count].iter().map(|name| rig.socket(name)).collect();
            let work = Work { name: "peers", churn: false, connections: count, ahead: 1, bytes: 64 };
            point(&sockets, &work, count, length, &mut series)?;
        }
    }
    Ok(series)
}

fn bodies(bin: &Path, length: &Length) -> Result<Vec<Series>> {
    let (rig, _programs) = start(bin, &["far"])?;
    let (sockets, mut series) = ([rig.socket("far")], series_of_handlers());
    for _ in 0..length.rounds {
        for bytes in BODIES {
            let work = Work { name: "bodies", churn: false, connections: 1, ahead: AHEAD, bytes };
            point(&sockets, &work, bytes, length, &mut series)?;
        }
    }
    let of_bytes = |(handler, ..): (&str, &str, bool), rate: &Series| {
        let megabytes = |(at, rates): &(f64, Vec<f64>)| (*at, rates.iter().map(|it| it * at / 1e6).collect());
        Series { name: format!("{handler}, MB/s"), rows: rate.rows.iter().map(megabytes).collect() }
    };
    let more: Vec<Series> =
        HANDLERS.into_iter().zip(&series).map(|(handler, rate)| of_bytes(handler, rate)).collect();
    series.splice(HANDLERS.len()..HANDLERS.len(), more);
    Ok(series)
}
