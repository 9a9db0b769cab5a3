//! One host with a thousand links, and a table of five thousand of which most are away:
//! `scripts/bench scale`.
//!
//! A star: a host in the middle, and others with keys, addresses and programs of their own, all on
//! this machine. First the one in the middle has a `lonc`, which calls the `lond` of each of the
//! others; then a `lond`, which the `lonc` of each of the others calls. Both once with a table of
//! those hosts alone, and once with one of many more, who are away: nobody listens at their
//! addresses. What is measured is the host in the middle; the others are on the same processors.

mod seen;
mod star;

use crate::report::{machine_line, put_into, short};
use crate::rig::{Program, Result, memory, wait_looking};
use crate::usage::machine;
use nix::sys::signal::Signal;
use seen::{Connections, Looks, middle_pss, up, used};
use star::{Spokes, Star, tell, wait_gone};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Links, and lines of the table, unless it is said otherwise.
const LINKS: usize = 1_000;
const LINES: usize = 5_000;
/// How long it is looked at what an idle host uses: that is the measurement, and nothing ends it
/// sooner.
const IDLE: Duration = Duration::from_secs(20);
/// By then what comes behind a start is over: status files are written at most so much later. No
/// word tells of that, since what is waited for is that nothing more is done.
const SETTLE: Duration = Duration::from_secs(6);
/// Pause between looks at whether all links are up.
const LOOK: Duration = Duration::from_millis(50);

/// What one program with one table came to; what does not apply is NaN.
struct Column {
    head: String,
    /// Seconds.
    start: f64,
    again: f64,
    hup: f64,
    reload: f64,
    status: f64,
    back: f64,
    /// Connections of a second: that were tried, that were taken.
    most: [f64; 2],
    /// KiB.
    child: f64,
    supervisor: f64,
    /// Hundredths of a processor: of the supervisor, of its children.
    idle: [f64; 2],
}

/// What is said of a column, and what is wanted of it.
type Row = (&'static str, fn(&Column) -> String, &'static str);

const ROWS: [Row; 11] = [
    ("first start until all are up", |it| seconds(it.start), "5 s"),
    ("stopped and started again: from the start until all are up", |it| seconds(it.again), "5 s"),
    ("HUP until all are up with the new program, 1 s of it the trial", |it| seconds(it.hup), "15 s"),
    ("`lon reload`, nothing changed", |it| seconds(it.reload), ""),
    ("its status is asked for", |it| seconds(it.status), ""),
    ("killed and started again: until all are back", |it| seconds(it.back), "30 s"),
    ("meanwhile connections in one second, most that were tried", |it| count(it.most[0]), ""),
    ("meanwhile connections in one second, most that were taken", |it| count(it.most[1]), ""),
    ("memory of a link child (PSS, median)", |it| kib(it.child), "200 KiB"),
    ("memory of the supervisor (PSS)", |it| kib(it.supervisor), ""),
    (
        "processor while all are idle, supervisor + all children",
        |it| format!("{:.2} + {:.2} %", it.idle[0], it.idle[1]),
        "0.0 %",
    ),
];

/// Measures the programs in a folder.
pub fn run(arguments: &[&str]) -> Result<()> {
    let (mut links, mut lines, mut into, mut bin) = (LINKS, LINES, None, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        match *word {
            "--links" => links = value()?.parse()?,
            "--lines" => lines = value()?.parse()?,
            "--into" => into = Some(PathBuf::from(value()?)),
            folder => bin = Some(PathBuf::from(folder)),
        }
    }
    let bin = bin.ok_or("want a folder of programs")?;
    let lines = lines.max(links + 1);
    let (begun, worked) = (Instant::now(), machine());
    let star = Star::new(&bin, links)?;
    let mut columns = Vec::new();
    for (program, others) in [("lonc", "lond"), ("lond", "lonc")] {
        let tables = if lines > links + 1 { vec![links + 1, lines] } else { vec![lines] };
        for lines in tables {
            columns.push(Measured { star: &star, program, links, lines }.column(others)?);
        }
    }
    let busy = (machine() - worked) / 1e6 / begun.elapsed().as_secs_f64();
    let said = report(links, &columns, busy)?;
    print!("{said}");
    into.map_or(Ok(()), |file| put_into(&file, "scale", &said))
}

/// What one column is of.
struct Measured<'a> {
    star: &'a Star,
    /// Of the host in the middle.
    program: &'static str,
    links: usize,
    lines: usize,
}

impl Measured<'_> {
    fn column(&self, others: &str) -> Result<Column> {
        let Measured { star, program, links, lines } = *self;
        star.know(lines)?;
        star.forget()?;
        // Who calls must not be met by nobody: then it pauses before the next call.
        let (hub, spokes, start) = if program == "lonc" {
            let spokes = star.start_spokes(others)?;
            let begun = Instant::now();
            let hub = star.begin_hub(program)?;
            self.wait_all(&hub, &BTreeSet::new())?;
            (hub, spokes, begun.elapsed().as_secs_f64())
        } else {
            let hub = star.begin_hub(program)?;
            wait_looking(LOOK, "the status socket", || star.ask_status(program).is_ok())?;
            let spokes = star.start_spokes(others)?;
            self.wait_all(&hub, &BTreeSet::new())?;
            (hub, spokes, f64::NAN)
        };
        std::thread::sleep(SETTLE);
        let all = up(&hub);
        let mut column = Column {
            head: format!("`{program}`, {links} of {} hosts", lines - 1),
            start,
            child: middle_pss(&all),
            supervisor: memory(hub.pid(), "Pss") as f64,
            idle: idle(&hub),
            status: timed(|| star.ask_status(program))?,
            reload: timed(|| star.lon(&["reload"]))?,
            hup: timed(|| {
                tell([hub.pid()].into_iter(), Signal::SIGHUP);
                self.wait_all(&hub, &all)
            })?,
            again: f64::NAN,
            back: f64::NAN,
            most: [f64::NAN; 2],
        };
        let hub = match program {
            "lond" => self.restart(hub, &mut column)?,
            _ => self.start_again(hub, &mut column)?,
        };
        end(hub, spokes)?;
        Ok(column)
    }

    /// Waits until all links are up, by other children than these.
    fn wait_all(&self, hub: &Program, but: &BTreeSet<u32>) -> Result<()> {
        let mut looks = Looks::but(but.clone());
        wait_looking(LOOK, &format!("{} links to be up", self.links), || looks.up(hub) == self.links)
    }

    /// The whole program is stopped in order, and started again.
    fn start_again(&self, hub: Program, column: &mut Column) -> Result<Program> {
        let pids = hub.all();
        drop(hub);
        wait_gone(&pids)?;
        let begun = Instant::now();
        let hub = self.star.begin_hub(self.program)?;
        self.wait_all(&hub, &BTreeSet::new())?;
        column.again = begun.elapsed().as_secs_f64();
        Ok(hub)
    }

    /// The whole program is killed, and started again.
    fn restart(&self, hub: Program, column: &mut Column) -> Result<Program> {
        let pids = hub.all();
        let connections = Connections::count();
        let begun = Instant::now();
        tell(pids.iter().copied(), Signal::SIGKILL);
        drop(hub);
        wait_gone(&pids)?;
        let hub = self.star.begin_hub(self.program)?;
        self.wait_all(&hub, &BTreeSet::new())?;
        column.back = begun.elapsed().as_secs_f64();
        column.most = connections.most().map(|most| most as f64);
        Ok(hub)
    }
}

/// Hundredths of a processor that a supervisor and its children use.
fn idle(hub: &Program) -> [f64; 2] {
    let all = hub.all();
    let (supervisor, children) = all.split_at(1);
    let now = || [used(supervisor), used(children)];
    let (before, begun) = (now(), Instant::now());
    std::thread::sleep(IDLE);
    let (after, time) = (now(), begun.elapsed().as_nanos() as f64);
    [0, 1].map(|at| (after[at] - before[at]) as f64 / time * 100.0)
}

fn timed<T>(step: impl FnOnce() -> Result<T>) -> Result<f64> {
    let begun = Instant::now();
    step()?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Ends all of them; the next that is measured has the machine for itself.
fn end(hub: Program, spokes: Spokes) -> Result<()> {
    let pids = hub.all();
    drop(spokes);
    drop(hub);
    wait_gone(&pids)
}

fn report(links: usize, columns: &[Column], busy: f64) -> Result<String> {
    let mut text = format!("{}\n\n", machine_line(busy)?);
    let heads: Vec<&str> = columns.iter().map(|column| &*column.head).collect();
    writeln!(text, "| {links} links that are up | {} | goal |", heads.join(" | "))?;
    writeln!(text, "| --- |{} ---: |", " ---: |".repeat(columns.len()))?;
    for (what, cell, goal) in ROWS {
        let cells: Vec<String> = columns.iter().map(cell).collect();
        writeln!(text, "| {what} | {} | {goal} |", cells.join(" | "))?;
    }
    writeln!(text)?;
    Ok(text)
}

fn seconds(number: f64) -> String {
    applies(number, |number| format!("{number:.2} s"))
}

fn count(number: f64) -> String {
    applies(number, short)
}

fn kib(number: f64) -> String {
    applies(number, |number| format!("{number:.0} KiB"))
}

fn applies(number: f64, say: impl FnOnce(f64) -> String) -> String {
    if number.is_nan() { String::new() } else { say(number) }
}
