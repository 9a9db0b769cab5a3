//! The same requests through `lonnet`, through the floor of its architecture, and through programs
//! that do a part of the same, in turn, in one run: `scripts/bench peers`.
//!
//! For each work and round every peer is pressed for as long, the first one of each round another.
//! Every answer is compared with its request. What is said are medians of the rounds, half of what
//! lies between the least and the most, and ratios of the same round. Compare within one run.

pub mod floor;
mod others;

use crate::asking::{Asked, Came, Work, press};
use crate::critical;
use crate::median;
use crate::report::{machine_line, put_into, short, spread};
use crate::rig::{NEAR, Program, Result, Rig, own_address, wait};
use crate::speech::Speech;
use crate::stream::{Address, serve};
use crate::usage::{machine, times};
use others::{OTHERS, Place, is_installed};
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The host that is called.
const FAR: &str = "far";
/// The first port of the other peers, of which each has three.
const PORT: u16 = 25_700;

const WORKS: [Work; 7] = [
    Work { name: "churn-1", churn: true, connections: 1, ahead: 1, bytes: 64 },
    Work { name: "churn-16", churn: true, connections: 16, ahead: 1, bytes: 64 },
    Work { name: "lock-1", churn: false, connections: 1, ahead: 1, bytes: 64 },
    Work { name: "lock-16", churn: false, connections: 16, ahead: 1, bytes: 64 },
    Work { name: "lock-64", churn: false, connections: 64, ahead: 1, bytes: 64 },
    Work { name: "pipe-4x64", churn: false, connections: 4, ahead: 64, bytes: 64 },
    Work { name: "pipe-16K", churn: false, connections: 1, ahead: 64, bytes: 16 << 10 },
];

/// Somebody who is asked.
pub struct Peer {
    name: String,
    asked: Asked,
    /// Its processes.
    pids: Vec<u32>,
}

/// What runs for it; it ends with this.
#[derive(Default)]
pub struct Running {
    programs: Vec<Program>,
    rigs: Vec<Rig>,
}

/// What one peer came to in one work and round.
struct Round {
    rate: f64,
    p50: f64,
    p99: f64,
    /// Of the peer's processes, microseconds of a processor a request.
    cpu: f64,
}

/// How long, how often.
struct Length {
    rounds: usize,
    warm: Duration,
    time: Duration,
}

/// How long both ends look again before they sleep, where they do.
const BUSY_POLL: &str = "100us";

/// What was measured: by work, by peer, by round.
type Rounds = Vec<Vec<Vec<Round>>>;

/// Measures the programs in each of the folders among `arguments`.
pub fn run(arguments: &[&str]) -> Result<()> {
    let (mut quick, mut into, mut bins, mut disk) = (false, None, Vec::new(), std::env::temp_dir());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match *word {
            "--quick" => quick = true,
            "--into" => into = Some(words.next().ok_or("--into wants a file")?),
            "--disk" => disk = PathBuf::from(words.next().ok_or("--disk wants a folder")?),
            bin => bins.push(PathBuf::from(bin)),
        }
    }
    let ms = Duration::from_millis;
    let (length, of_critical) = match quick {
        true => (
            Length { rounds: 2, warm: ms(100), time: ms(300) },
            critical::Length { rounds: 2, time: ms(300), replayed: 20_000, live: false },
        ),
        false => (
            Length { rounds: 5, warm: ms(300), time: ms(1_500) },
            critical::Length { rounds: 5, time: ms(1_000), replayed: 100_000, live: false },
        ),
    };
    let dir = tempfile::tempdir()?;
    let (mut running, mut peers) = (Running::default(), Vec::new());
    start_ours(&bins, &mut running, &mut peers)?;
    let handler = dir.path().join("handler");
    serve(&handler, false)?;
    let asked = Asked { addresses: vec![Address::Unix(handler.clone())], speech: Speech::Line, prefix: "" };
    peers.push(Peer { name: "the handler alone".to_owned(), asked, pids: Vec::new() });
    start_others(dir.path(), &handler, &mut running, &mut peers)?;
    let (begun, worked) = (Instant::now(), machine());
    let measured = measure(&length, &peers);
    let busy = (machine() - worked) / 1e6 / begun.elapsed().as_secs_f64();
    let mut said = report(&length, &peers, &measured, busy)?;
    // What ran for the others is not in the way.
    drop(running);
    let names: Vec<String> = bins.iter().map(|bin| name_of(bin, bins.len())).collect();
    said += &critical::table(&critical::measure(&bins, &of_critical, &disk)?, &names);
    print!("{said}");
    into.map_or(Ok(()), |file| put_into(Path::new(file), "peers", &said))
}

/// `lond` and `lonc` of each build, and two peers of each pair: a handler with a line each way, and
/// a tagged one. And the second once more where both look again before they sleep.
fn start_ours(bins: &[PathBuf], running: &mut Running, peers: &mut Vec<Peer>) -> Result<()> {
    for (bin, busy) in bins.iter().flat_map(|bin| [(bin, false), (bin, true)]) {
        let rig = Rig::new(bin, &[FAR])?;
        let build = name_of(bin, bins.len());
        if busy && !rig.busy_poll(BUSY_POLL)? {
            eprintln!("bench: {build} is not measured with busy polling: it has none");
            continue;
        }
        let programs = [rig.start("lond", FAR)?, rig.start("lonc", NEAR)?];
        rig.wait_up(FAR)?;
        let pids: Vec<u32> = programs.iter().flat_map(Program::all).collect();
        let forms: &[_] = match busy {
            false => &[("line:", false, ""), ("tagged:", true, ", tagged")],
            true => &[("tagged:", true, ", tagged, busy polling")],
        };
        for &(prefix, tagged, form) in forms {
            serve(&rig.handler_socket(prefix.trim_end_matches(':')), tagged)?;
            let asked =
                Asked { addresses: vec![Address::Unix(rig.socket(FAR))], speech: Speech::Line, prefix };
            let peer = Peer { name: format!("{build}{form}"), asked, pids: pids.clone() };
            wait_answered(&peer)?;
            peers.push(peer);
        }
        running.programs.extend(programs);
        running.rigs.push(rig);
    }
    Ok(())
}

/// What a build is called, one of so many.
fn name_of(bin: &Path, count: usize) -> String {
    if count > 1 { format!("lonnet of {}", bin.display()) } else { "lonnet".to_owned() }
}

fn start_others(dir: &Path, handler: &Path, running: &mut Running, peers: &mut Vec<Peer>) -> Result<()> {
    for (number, (name, program, start)) in (0_u16..).zip(OTHERS) {
        if !is_installed(program) {
            eprintln!("bench: {name} is left out: {program} is not installed");
            continue;
        }
        let dir = dir.join(name);
        fs::create_dir(&dir)?;
        let port = |more| SocketAddr::from((own_address(200), PORT + 3 * number + more));
        let place = Place { dir, handler, addresses: [port(0), port(1), port(2)] };
        let (asked, programs) = start(&place).map_err(|error| format!("start {name}: {error}"))?;
        let pids = programs.iter().flat_map(Program::all).collect();
        let peer = Peer { name: name.to_owned(), asked, pids };
        wait_answered(&peer)?;
        running.programs.extend(programs);
        peers.push(peer);
    }
    Ok(())
}

/// Waits for a first answer: who listens need not have a link yet.
fn wait_answered(peer: &Peer) -> Result<()> {
    let one = Work { name: "", churn: false, connections: 1, ahead: 1, bytes: 64 };
    let mut why = "there is no answer".to_owned();
    let answered = wait("a first answer", || {
        match press(&peer.asked, &one, Duration::ZERO, Duration::from_millis(200)) {
            Ok(came) => came.all > 0,
            Err(error) => {
                why = error.to_string();
                false
            }
        }
    });
    answered.map_err(|error| format!("ask {}: {error}: {why}", peer.name).into())
}

fn measure(length: &Length, peers: &[Peer]) -> Rounds {
    let mut rounds: Rounds = WORKS.iter().map(|_| peers.iter().map(|_| Vec::new()).collect()).collect();
    for round in 0..length.rounds {
        for (work, of_work) in WORKS.iter().zip(&mut rounds) {
            for turn in 0..peers.len() {
                let at = (turn + round) % peers.len();
                // The others are measured all the same.
                let one = one(&peers[at], work, length).inspect_err(|error| eprintln!("bench: {error}"));
                of_work[at].push(one.unwrap_or(Round {
                    rate: f64::NAN,
                    p50: f64::NAN,
                    p99: f64::NAN,
                    cpu: f64::NAN,
                }));
            }
        }
    }
    rounds
}

fn one(peer: &Peer, work: &Work, length: &Length) -> Result<Round> {
    let used = || peer.pids.iter().map(|&pid| times(pid).iter().sum::<f64>()).sum::<f64>();
    let before = used();
    let came = press(&peer.asked, work, length.warm, length.time)
        .map_err(|error| format!("{} of {}: {error}", work.name, peer.name))?;
    let Came { answers, all, seconds, times } = came;
    if answers == 0 {
        return Err(format!("{} of {}: nothing was answered", work.name, peer.name).into());
    }
    let at = |part| times.value_at_quantile(part) as f64 / 1e3;
    Ok(Round {
        rate: answers as f64 / seconds,
        p50: at(0.5),
        p99: at(0.99),
        cpu: (used() - before) / all as f64,
    })
}

fn report(length: &Length, peers: &[Peer], measured: &Rounds, busy: f64) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "{}\n", machine_line(busy)?)?;
    let versions: Vec<String> = peers.iter().filter_map(|peer| version(&peer.name)).collect();
    if !versions.is_empty() {
        writeln!(text, "{}.\n", versions.join("; "))?;
    }
    let Length { rounds, time, .. } = length;
    let mut table = |what: String, cell: &dyn Fn(usize, usize) -> String| -> Result<()> {
        let names = WORKS.map(|work| work.name).join(" | ");
        writeln!(text, "{what}:\n\n| | {names} |\n| --- |{}", " ---: |".repeat(WORKS.len()))?;
        for (at, peer) in peers.iter().enumerate() {
            let cells: Vec<String> = (0..WORKS.len()).map(|work| cell(work, at)).collect();
            writeln!(text, "| {} | {} |", peer.name, cells.join(" | "))?;
        }
        Ok(writeln!(text)?)
    };
    let what = format!(
        "Requests a second (`pipe-16K`: megabytes of requests), medians of {rounds} rounds of {time:?}, and half of \
         what lies between the least and the most"
    );
    table(what, &|work, peer| {
        let scale = if WORKS[work].bytes > 1_000 { WORKS[work].bytes as f64 / 1e6 } else { 1.0 };
        spread(measured[work][peer].iter().map(|round| round.rate * scale))
    })?;
    if let Some(floor) = peers.iter().position(|peer| peer.name == OTHERS[0].0) {
        table("Of the floor's rate in the same round".to_owned(), &|work, peer| {
            let pairs = measured[work][peer].iter().zip(&measured[work][floor]);
            spread(pairs.map(|(one, floor)| one.rate / floor.rate))
        })?;
    }
    type Part = fn(&Round) -> f64;
    let parts: [(&str, Part); 3] = [
        ("Half of the requests took up to, in microseconds", |round| round.p50),
        ("99 of 100 requests took up to, in microseconds", |round| round.p99),
        ("Of a processor, of the peer's processes, microseconds a request", |round| round.cpu),
    ];
    for (what, part) in parts {
        table(what.to_owned(), &|work, peer| short(median(measured[work][peer].iter().map(part))))?;
    }
    Ok(text)
}

/// What a program says of its version, by its peer's name.
fn version(name: &str) -> Option<String> {
    let (_, program, _) =
        OTHERS.into_iter().find(|(known, program, _)| *known == name && !program.is_empty())?;
    let flag = if program == "stunnel" { "-version" } else { "-v" };
    let said = Command::new(program).arg(flag).output().ok()?;
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().find(|line| line.contains(|letter: char| letter.is_ascii_digit())).map(str::to_owned)
}
