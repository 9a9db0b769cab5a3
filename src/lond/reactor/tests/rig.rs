//! A link child in a thread, and all that it is connected to.

use super::super::*;
use config::{Access, Config, fixture};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use supervise::control;
use supervise::signals::ToldToEnd;
use tempfile::TempDir;

/// No wait of a test is longer; only a failing one comes near.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A link child in a thread, and what it is connected to.
pub(crate) struct Rig {
    pub dir: TempDir,
    pub config: Config,
}

pub(crate) struct Running {
    pub caller: TcpStream,
    pub answers: BufReader<TcpStream>,
    pub supervisor: Channel<ToServe, FromServe>,
    pub child: JoinHandle<Reason>,
}

pub(crate) fn id(text: &str) -> HostId {
    HostId::new(text).unwrap()
}

pub(crate) use config::fixture::host;

impl Rig {
    pub(crate) fn new() -> Rig {
        let dir = TempDir::new().unwrap();
        let echo = config::Handler {
            name: "echo".to_owned(),
            socket: dir.path().join("echo.sock"),
            program: None,
            form: config::Form::Line,
            window: 1,
            access: Access::everyone(),
            timeout: PATIENCE,
        };
        let run_dir = dir.path().to_owned();
        let config = Config { run_dir, handlers: vec![echo], ..fixture::config(dir.path(), "msul1") };
        Rig { dir, config }
    }

    pub(crate) fn handler_timeout(mut self, timeout: Duration) -> Rig {
        self.config.handlers[0].timeout = timeout;
        self
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("echo.sock")
    }

    /// A link on which nothing was said yet.
    pub(crate) fn start(&self) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        caller.set_read_timeout(Some(PATIENCE)).unwrap();
        caller.set_nodelay(true).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let (ours, theirs) = control::pair().unwrap();
        let (config, opening_deadline) =
            (self.config.clone(), Instant::now() + self.config.lond.opening_timeout);
        let child = std::thread::spawn(move || {
            let told = ToldToEnd::new().unwrap();
            Reactor::new(
                ServeSettings::of(&config).into(),
                Accepted::Classic(&host("msua1")),
                Given {
                    stream,
                    control: theirs,
                    told,
                    ledger: Ledger::new().unwrap(),
                    confined: Confined::nothing(),
                },
                opening_deadline,
            )
            .unwrap()
            .run()
        });
        let answers = BufReader::new(caller.try_clone().unwrap());
        Running { caller, answers, supervisor: Channel::from_fd(ours).unwrap(), child }
    }

    /// A link whose opening dialogue is done.
    pub(crate) fn open(&self) -> Running {
        let mut running = self.start();
        running.send(b"init\n");
        let challenge = running.answer();
        running.send(format!("{challenge}\n").as_bytes());
        assert_eq!(running.answer(), "ok");
        running
    }
}

impl Running {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.caller.write_all(bytes).unwrap();
    }

    pub(crate) fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.strip_suffix('\n').unwrap_or_else(|| panic!("cut off after {line:?}")).to_owned()
    }

    pub(crate) fn ask(&mut self, request: &str) -> String {
        self.send(format!("{request}\n").as_bytes());
        self.answer()
    }

    /// All that still comes, up to the end.
    pub(crate) fn rest(&mut self) -> String {
        let mut text = String::new();
        self.answers.read_to_string(&mut text).unwrap();
        text
    }

    /// What the child told its supervisor; waits for it.
    pub(crate) fn told(&mut self) -> Vec<FromServe> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let received = self.supervisor.receive(&mut [0; 1024]).unwrap();
            if !received.messages.is_empty() {
                return received.messages;
            }
            assert!(!received.closed && Instant::now() < deadline, "nothing was told");
            std::thread::yield_now();
        }
    }

    /// Closes the link and returns why the child thinks it ended.
    pub(crate) fn end(self) -> Reason {
        drop((self.caller, self.answers));
        self.child.join().unwrap()
    }
}

/// What a local program does with a request.
pub(crate) enum Act {
    Say(String),
    /// Waits for the test.
    Wait(String),
    Close,
}

/// A local program that serves one connection after another until the test ends it.
pub(crate) struct LocalProgram {
    pub requests: mpsc::Receiver<String>,
    pub gate: mpsc::Sender<()>,
    /// `None` once the program is to end.
    pub connections: Arc<Mutex<Option<Vec<UnixStream>>>>,
    pub thread: Option<JoinHandle<()>>,
    pub path: PathBuf,
}

impl LocalProgram {
    pub(crate) fn start(path: PathBuf, act: impl Fn(&str) -> Act + Send + 'static) -> LocalProgram {
        let listener = UnixListener::bind(&path).unwrap();
        let (seen, requests) = mpsc::channel();
        let (gate, opened) = mpsc::channel();
        let connections = Arc::new(Mutex::new(Some(Vec::new())));
        let ours = Arc::clone(&connections);
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                let connection = connection.unwrap();
                match ours.lock().unwrap().as_mut() {
                    Some(connections) => connections.push(connection.try_clone().unwrap()),
                    None => return,
                }
                serve_connection(connection, &act, &seen, &opened);
            }
        });
        LocalProgram { requests, gate, connections, thread: Some(thread), path }
    }

    pub(crate) fn echo(path: PathBuf) -> LocalProgram {
        LocalProgram::start(path, |request| Act::Say(request.strip_prefix("echo:").unwrap_or("?").to_owned()))
    }

    /// Waits until the program was asked `request`.
    pub(crate) fn saw(&self, request: &str) {
        while self.requests.recv_timeout(PATIENCE).expect("the request comes") != request {}
    }

    pub(crate) fn release(&self) {
        self.gate.send(()).unwrap();
    }
}

/// One connection to its end; the program does nothing else meanwhile.
pub(crate) fn serve_connection(
    connection: UnixStream,
    act: &impl Fn(&str) -> Act,
    seen: &mpsc::Sender<String>,
    opened: &mpsc::Receiver<()>,
) {
    let mut writer = std::io::BufWriter::new(connection.try_clone().unwrap());
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
        let request = line.trim_end_matches('\n');
        let _ = seen.send(request.to_owned());
        let answer = match act(request) {
            Act::Say(answer) => answer,
            Act::Wait(answer) => {
                writer.flush().unwrap();
                // Ends with the test, at the latest.
                let _ = opened.recv();
                answer
            }
            Act::Close => {
                let _ = writer.flush().and_then(|()| writer.get_ref().shutdown(Shutdown::Both));
                return;
            }
        };
        // Writes together what was asked together.
        let told = writeln!(writer, "{answer}")
            .and_then(|()| if reader.buffer().is_empty() { writer.flush() } else { Ok(()) });
        if told.is_err() {
            return;
        }
        line.clear();
    }
}

impl Drop for LocalProgram {
    fn drop(&mut self) {
        for connection in self.connections.lock().unwrap().take().into_iter().flatten() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        // Lets a waiting request go, and the program look up from `accept`.
        self.gate = mpsc::channel().0;
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn slow_or_echo(request: &str) -> Act {
    match request.strip_prefix("echo:").unwrap_or("?") {
        "slow" => Act::Wait("slow".to_owned()),
        "die" => Act::Close,
        text => Act::Say(text.to_owned()),
    }
}
