//! `[handler.<name>]`: what `lond` passes requests to, in `lonnet.toml` and in the files of
//! `handlers.d` (`package`).

use super::access::Access;
use super::place;
use super::section::{Report, Section};
use super::value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where in `run_dir` the sockets of handlers are whose programs `lond` itself runs.
pub(super) const SOCKETS: &str = "handler";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_RUNNING: usize = 16;
const DEFAULT_WAITING: usize = 1024;
/// Most critical messages of one host that a handler may have at once: all of them are read again
/// when it breaks.
const MAX_WINDOW: usize = 4096;
/// Most processes that one handler may have.
const MAX_PROCESSES: usize = 1024;
/// Most requests that may wait for one handler.
const MAX_WAITING: usize = 1_000_000;

const BAD_NAME: &str =
    "a handler whose program lond runs has a socket of its name: want a-z A-Z 0-9 . _ - in it";

/// One `[handler.<name>]` table: serves the requests `<name>` and `<name>:...`.
#[derive(Debug, Clone, PartialEq)]
pub struct Handler {
    /// Request name.
    pub name: String,
    /// Unix socket that requests are passed to: the program's own, or, where `lond` runs the
    /// program, that of the process which does so.
    pub socket: PathBuf,
    /// What `lond` runs; `None`: the program is there by itself.
    pub program: Option<Program>,
    /// What the program is told and says.
    pub form: Form,
    /// Critical messages of one host that it may have at once (default 1).
    pub window: usize,
    /// Who may ask it (default: nobody).
    pub access: Access,
    /// How long the program may take over one request (default 60 s).
    pub timeout: Duration,
}

/// What a program is told and says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A line each way, answers in the order of the requests.
    Line,
    /// Each line begins with a tag, requests with who asks as well; answers in any order.
    Tagged,
}

/// A program that `lond` runs for a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its file.
    pub file: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// How it is run.
    pub run: Run,
    /// Requests that may wait until it can take them (default 1024).
    pub waiting: usize,
}

/// How a program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// A process a request; at most this many at once (default 16).
    Each(usize),
    /// This many processes are kept running (default 1).
    Kept(usize),
}

impl Run {
    /// The key that says so.
    pub fn key(self) -> &'static str {
        match self {
            Run::Each(_) => "exec",
            Run::Kept(_) => "worker",
        }
    }
}

impl Handler {
    /// What goes over its socket: a process of `lond`'s own is told who asks, whatever its program
    /// is told.
    pub fn socket_form(&self) -> Form {
        match self.program {
            Some(_) => Form::Tagged,
            None => self.form,
        }
    }
}

/// A handler, and where that may have to be named.
#[derive(Debug)]
pub(super) struct HandlerSettings {
    pub handler: Handler,
    /// The file that it stands in.
    pub file: PathBuf,
    /// Line of its socket, or of its program.
    pub socket_line: usize,
}

impl HandlerSettings {
    /// The handler with its paths made absolute.
    pub(super) fn settled(self, base: &Path, run_dir: &Path) -> Handler {
        let socket = self.socket(base, run_dir);
        let program = self
            .handler
            .program
            .map(|program| Program { file: place::within(base, &program.file), ..program });
        Handler { socket, program, ..self.handler }
    }

    /// Where its socket is.
    pub(super) fn socket(&self, base: &Path, run_dir: &Path) -> PathBuf {
        match self.handler.program {
            Some(_) => run_dir.join(SOCKETS).join(&self.handler.name),
            None => place::within(base, &self.handler.socket),
        }
    }
}

/// The handlers of one file; the folder of the file is where their relative paths begin, as seen
/// from the folder of `lonnet.toml`: `below`.
pub(super) fn read_handlers(
    tables: Section<'_>,
    file: &Path,
    below: &Path,
    report: &mut Report,
) -> Vec<HandlerSettings> {
    let tables = tables.tables(report).into_iter();
    tables.filter_map(|(name, section)| read_handler(name, section, file, below, report)).collect()
}

fn read_handler(
    name: &str,
    mut section: Section<'_>,
    file: &Path,
    below: &Path,
    report: &mut Report,
) -> Option<HandlerSettings> {
    if let Err(what) = value::handler_name(name) {
        report.problem(section.line, section.about_all(&what));
    }
    let ways: Vec<&str> = ["socket", "exec", "worker"].into_iter().filter(|way| section.has(way)).collect();
    match ways.as_slice() {
        [] => report.problem(section.line, section.about_all("none of socket, exec, worker is there")),
        [_] => {}
        several => {
            let what = format!("{} are there: want one of them", several.join(" and "));
            report.problem(section.line, section.about_all(&what));
        }
    }
    let socket = section.take_placed(report, "socket", value::path);
    let exec = section.take_placed(report, "exec", value::command);
    let worker = section.take_placed(report, "worker", value::command);
    let form = form(&mut section, exec.is_some(), report);
    let window = window(&mut section, exec.is_none() && form == Form::Line, report);
    let bounds = Bounds::take(&mut section, exec.is_some(), worker.is_some(), report);
    let access = Access::of_handler(&mut section, report);
    let timeout = section.take(report, "timeout", value::duration).unwrap_or(DEFAULT_TIMEOUT);
    let line = section.line;
    let name_problem = section.about_all(BAD_NAME);
    section.finish(report);
    let command = |command: (PathBuf, Vec<String>), run| {
        let (file, arguments) = command;
        Program { file: below.join(file), arguments, run, waiting: bounds.waiting }
    };
    let (socket_line, socket, program) = match (socket, exec, worker) {
        (Some(socket), _, _) => (socket.line, below.join(socket.value), None),
        (None, Some(exec), _) => {
            (exec.line, PathBuf::new(), Some(command(exec.value, Run::Each(bounds.running))))
        }
        (None, None, Some(worker)) => {
            (worker.line, PathBuf::new(), Some(command(worker.value, Run::Kept(bounds.workers))))
        }
        (None, None, None) => return None,
    };
    if program.is_some() && !value::is_file_name(name) {
        report.problem(line, name_problem);
    }
    let handler = Handler { name: name.to_owned(), socket, program, form, window, access, timeout };
    Some(HandlerSettings { handler, file: file.to_owned(), socket_line })
}

fn form(section: &mut Section<'_>, exec: bool, report: &mut Report) -> Form {
    let form = section.take_placed(report, "format", value::form);
    if let Some(form) = &form
        && exec
    {
        let what = section.about("format", "a process a request (exec) gets the request alone");
        report.problem(Some(form.line), what);
    }
    form.map_or(Form::Line, |form| form.value)
}

fn window(section: &mut Section<'_>, in_order: bool, report: &mut Report) -> usize {
    let window = section.take_placed(report, "window", |value| value::from_one_to(value, MAX_WINDOW));
    if let Some(window) = &window
        && window.value > 1
        && in_order
    {
        let what = "only a handler with format = \"tagged\", or exec, can have several at once";
        report.problem(Some(window.line), section.about("window", what));
    }
    window.map_or(1, |window| window.value)
}

/// How many processes and requests there may be.
struct Bounds {
    running: usize,
    workers: usize,
    waiting: usize,
}

impl Bounds {
    fn take(section: &mut Section<'_>, exec: bool, worker: bool, report: &mut Report) -> Bounds {
        let mut take = |key: &str, fits: bool, whose: &str, most: usize, default: usize| {
            let taken = section.take_placed(report, key, |value| value::from_one_to(value, most));
            if let Some(taken) = &taken
                && !fits
            {
                report.problem(Some(taken.line), section.about(key, &format!("is for {whose} alone")));
            }
            taken.map_or(default, |taken| taken.value)
        };
        Bounds {
            running: take("running", exec, "exec", MAX_PROCESSES, DEFAULT_RUNNING),
            workers: take("workers", worker, "worker", MAX_PROCESSES, 1),
            waiting: take("waiting", exec || worker, "exec and worker", MAX_WAITING, DEFAULT_WAITING),
        }
    }
}
