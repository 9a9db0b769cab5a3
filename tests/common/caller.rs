//! An independent `lonc`: calls a `lond`, does the opening dialogue, sends requests.

use super::cipher::Cipher;
use super::wait::PATIENCE;
use socket2::{Domain, Socket, Type};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};

/// One link to a `lond`.
pub struct Caller {
    reader: BufReader<TcpStream>,
}

/// What the opening dialogue brought.
pub struct Opening {
    pub challenge: String,
    pub version: String,
    pub pong: String,
    pub buildkey: String,
}

impl Caller {
    /// Connects from one address to another, and says nothing yet.
    pub fn connect(from: IpAddr, to: SocketAddr) -> io::Result<Caller> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect(&to.into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Caller { reader: BufReader::new(stream) })
    }

    /// Connects and goes through the whole opening dialogue.
    pub fn open(from: IpAddr, to: SocketAddr, called: &str) -> (Caller, Opening) {
        let mut link = Caller::connect(from, to).expect("connect to lond");
        let challenge = link.ask("init");
        assert_eq!(link.ask(&challenge), "ok");
        assert_eq!(link.ask(&format!("sethost:{called}")), "ok");
        let version = link.ask("version:1.0");
        let pong = link.ask("pong");
        let buildkey = link.ask("ekey");
        (link, Opening { challenge, version, pong, buildkey })
    }

    /// Connects, opens, and agrees on the cipher.
    pub fn open_with_cipher(from: IpAddr, to: SocketAddr, called: &str, caller: &str) -> (Caller, Cipher) {
        let (link, opening) = Caller::open(from, to, called);
        (link, Cipher::new(called, caller, &opening.buildkey))
    }

    /// A second handle for a thread that only writes.
    pub fn writer(&self) -> TcpStream {
        self.reader.get_ref().try_clone().expect("clone a socket")
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("send to lond");
    }

    /// Shuts the writing half.
    pub fn finish(&mut self) {
        self.reader.get_mut().shutdown(Shutdown::Write).expect("shut the writing half");
    }

    /// The next line, or `None` when lond has closed (a reset counts as closed).
    pub fn hear_bytes(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("read from lond: {error}"),
        }
        (line.pop() == Some(b'\n')).then_some(line)
    }

    /// The next line as text, or `None` when lond has closed.
    pub fn hear(&mut self) -> Option<String> {
        self.hear_bytes().map(|line| String::from_utf8_lossy(&line).into_owned())
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, request: &str) -> String {
        self.send(format!("{request}\n").as_bytes());
        self.hear().unwrap_or_else(|| panic!("lond closed instead of answering {request:?}"))
    }
}

#[test]
fn the_tests_own_caller_and_the_tests_own_lond_understand_each_other() {
    let network = super::network::Network::new(&["msua1", "msul1"]);
    let (from, to) = (network.address("msua1").ip(), network.address("msul1"));
    let fake = super::fake_lond::FakeLond::start("msul1", "msua1", to);
    let (mut caller, cipher) = Caller::open_with_cipher(from, to, "msul1", "msua1");
    assert_eq!(caller.ask("echo:hello"), "echo:hello");
    caller.send(&[cipher.seal(b"ping"), b"\n".to_vec()].concat());
    assert_eq!(cipher.open(&caller.hear_bytes().expect("an answer")), b"msul1");
    assert_eq!(fake.received(""), ["echo:hello", "ping"]);
    drop(fake);
    assert_eq!(caller.hear(), None);
    assert!(Caller::connect(from, to).is_err());
}
