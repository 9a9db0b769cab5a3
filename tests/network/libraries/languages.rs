//! The languages that there is a library for, and small programs in each: one that asks, one that
//! serves.

use crate::common::skipped;
use crate::common::wait;
use lonnet::client::{Client, ClientError, Key, Outcome};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Rust,
    Python,
    Perl,
}

impl Language {
    /// Those that programs ask in.
    pub fn asking() -> Vec<Language> {
        [vec![Language::Rust], Language::serving()].concat()
    }

    /// Those that handlers are written in, as far as this machine has them.
    pub fn serving() -> Vec<Language> {
        let there = |language: &Language| {
            let has = language.runs();
            if !has {
                skipped(&format!("{language:?}: {} is not there", language.interpreter()));
            }
            has
        };
        [Language::Python, Language::Perl].into_iter().filter(there).collect()
    }

    fn runs(self) -> bool {
        let mut command = Command::new(self.interpreter());
        command.arg(if self == Language::Perl { "-v" } else { "-V" });
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// The program that runs programs of this language.
    pub fn interpreter(self) -> &'static str {
        match self {
            Language::Rust => env!("CARGO_BIN_EXE_lon"),
            Language::Python => "python3",
            Language::Perl => "perl",
        }
    }

    /// The name of its handlers.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// The path of a program of `tests/network/libraries` in this language.
    fn path(self, stem: &str) -> PathBuf {
        let suffix = if self == Language::Perl { "pl" } else { "py" };
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/network/libraries/{stem}.{suffix}"))
    }

    /// Such a program, with the library where it is in this repository.
    fn program(self, stem: &str) -> Command {
        let mut command = Command::new(self.interpreter());
        command.envs(surroundings()).arg(self.path(stem));
        command
    }

    /// The command of a worker, for a process that has nothing in its environment.
    pub fn worker(self) -> Vec<String> {
        let says = if self == Language::Perl { "print $^X" } else { "import sys; print(sys.executable)" };
        let option = if self == Language::Perl { "-e" } else { "-c" };
        let asked =
            Command::new(self.interpreter()).args([option, says]).output().expect("ask for the interpreter");
        let interpreter = String::from_utf8(asked.stdout).expect("a path").trim().to_owned();
        let mut command = vec!["/usr/bin/env".to_owned()];
        command.extend(surroundings().map(|(name, value)| format!("{name}={value}")));
        command.extend([interpreter, self.path("serve").display().to_string(), "worker".to_owned()]);
        command
    }

    /// A program that serves this form, at the path if it is one with a socket.
    pub fn serve(self, form: &str, path: Option<&Path>) -> Running {
        let mut command = self.program("serve");
        command.arg(form).args(path);
        let running = Running::start(&mut command);
        if let Some(path) = path {
            wait::until_true(&format!("{}", path.display()), || path.exists());
        }
        running
    }
}

/// What programs find the libraries by.
fn surroundings() -> [(&'static str, String); 4] {
    let below = |folder| clients().join(folder).display().to_string();
    [
        ("PYTHONPATH", below("python")),
        ("PERL5LIB", below("perl/lib")),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("PYTHONUTF8", "1".to_owned()),
    ]
}

/// The folder of the libraries.
pub fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// A program in the foreground that is spoken to by lines; told to end when it is dropped.
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Running {
        let errors = Stdio::null();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("start a program");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (found, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| found.send(line))
        });
        Running { input: child.stdin.take(), child, lines }
    }

    /// Sends text to its standard input.
    pub fn send(&mut self, text: &str) {
        let input = self.input.as_mut().expect("its input is open");
        input.write_all(text.as_bytes()).expect("tell the program");
    }

    /// The next line of its standard output.
    pub fn line(&mut self) -> String {
        self.lines.recv_timeout(wait::PATIENCE).expect("a line of the program")
    }

    /// Ends its input, and waits for its own end, which must be in order.
    pub fn finish(mut self) {
        self.input = None;
        self.ends();
    }

    /// Tells it to end by TERM; it must do so in order.
    pub fn terminate(mut self) {
        crate::common::process::signal(self.child.id(), nix::sys::signal::Signal::SIGTERM);
        self.ends();
    }

    fn ends(&mut self) {
        let status =
            wait::until("the program to end", || self.child.try_wait().expect("look at the program"));
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that asks one peer, in one of the languages.
pub enum Asker {
    Rust { socket: PathBuf, client: Option<Client> },
    Program(Running),
}

/// How long a request may take where a test is not about that.
pub const LONG: f32 = 50.0;

impl Asker {
    /// One that asks at `<run_dir>/<peer>`.
    pub fn start(language: Language, run_dir: &Path, peer: &str) -> Asker {
        match language {
            Language::Rust => Asker::Rust { socket: run_dir.join(peer), client: None },
            Language::Python | Language::Perl => {
                Asker::Program(Running::start(language.program("ask").arg(run_dir).arg(peer)))
            }
        }
    }

    /// A plain request: the outcome's name and text, or the error's name.
    pub fn reply(&mut self, request: &str) -> String {
        self.say(LONG, "plain", &[request]).remove(0)
    }

    /// A plain request that may take so many seconds.
    pub fn reply_within(&mut self, seconds: f32, request: &str) -> String {
        self.say(seconds, "plain", &[request]).remove(0)
    }

    /// A critical request; the key "" is none.
    pub fn critical(&mut self, key: &str, request: &str) -> String {
        self.say(LONG, key, &[request]).remove(0)
    }

    /// Many plain requests ahead of their answers.
    pub fn many(&mut self, requests: &[String]) -> Vec<String> {
        self.say(LONG, "many", &requests.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn say(&mut self, seconds: f32, key: &str, requests: &[&str]) -> Vec<String> {
        match self {
            Asker::Program(program) => {
                program.send(&format!("{seconds}\t{key}\t{}\n", requests.join("\t")));
                program.line().split('\t').map(str::to_owned).collect()
            }
            Asker::Rust { socket, client } => {
                let deadline = Instant::now() + Duration::from_secs_f32(seconds);
                match rust(socket, client, deadline, key, requests) {
                    Ok(outcomes) => outcomes.into_iter().map(shown).collect(),
                    Err(error) => vec![named(&error)],
                }
            }
        }
    }
}

fn rust(
    socket: &Path,
    client: &mut Option<Client>,
    deadline: Instant,
    key: &str,
    requests: &[&str],
) -> Result<Vec<Outcome>, ClientError> {
    let client = match client {
        Some(client) => client,
        None => client.insert(Client::connect_to(socket, deadline)?),
    };
    match key {
        "plain" => Ok(vec![client.reply(requests[0], deadline)?]),
        "many" => {
            let mut outcomes = Vec::new();
            client.reply_all(requests, deadline, |outcome| outcomes.push(outcome))?;
            Ok(outcomes)
        }
        _ => Ok(vec![client.critical(requests[0], Key::new(key.as_bytes()).as_ref(), deadline)?]),
    }
}

/// As the programs in other languages say it.
fn shown(outcome: Outcome) -> String {
    match outcome {
        Outcome::Answer(bytes) => format!("Answer {}", String::from_utf8_lossy(&bytes)),
        Outcome::Lost => "Lost con_lost".to_owned(),
        Outcome::Delayed => "Delayed con_delayed".to_owned(),
        Outcome::Failed => "Failed con_failed".to_owned(),
        // It does not say which of the two.
        Outcome::Refused => "Refused".to_owned(),
        Outcome::Error(what) => format!("Error {what}"),
    }
}

fn named(error: &ClientError) -> String {
    match error {
        ClientError::Request(_) => "BadRequest",
        ClientError::Away { .. } => "Away",
        ClientError::Broken { .. } => "Broken",
        ClientError::Deadline { .. } => "Timeout",
        ClientError::Store(_) => "Store",
    }
    .to_owned()
}
