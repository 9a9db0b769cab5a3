//! An independent `lonc` of the secure wire: calls a `lond`, says HELLO, asks.

use super::frames::{self, Frame, Head, Hello};
use super::keys::Key;
use super::secure_link::{self, Reader, Writer};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};

/// Bytes of answers that a lond may send ahead.
pub const WINDOW: u64 = 4 << 20;

/// One link to a `lond`.
pub struct SecureCaller {
    pub reader: Reader,
    pub writer: Writer,
    /// What lond said of itself.
    pub hello: Hello,
    last: u64,
    unfinished: HashMap<u64, Vec<u8>>,
    finished: HashMap<u64, Vec<u8>>,
    /// Whether bytes of answers are given back.
    pub gives_back: bool,
}

/// What a caller says of itself.
pub fn hello(caller: &str, called: &str) -> Hello {
    Hello::from(
        [
            ("versions", "1-1"),
            ("id", caller),
            ("to", called),
            ("epoch", "0123456789abcdef0123456789abcdef"),
            ("window", &WINDOW.to_string()),
            ("max_line", "1048576"),
            ("program", "test/1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    )
}

/// Connects with a key; the handshake is done as far as a caller can know.
pub fn connect(key: &Key, to: SocketAddr) -> io::Result<(Reader, Writer)> {
    secure_link::call(TcpStream::connect(to)?, key.caller())
}

impl SecureCaller {
    /// Connects and says HELLO as one should.
    pub fn open(key: &Key, to: SocketAddr, caller: &str, called: &str) -> SecureCaller {
        SecureCaller::open_with(key, to, &hello(caller, called)).expect("open a link")
    }

    /// As [`SecureCaller::open`], from an address of this machine.
    pub fn open_from(key: &Key, from: IpAddr, to: SocketAddr, caller: &str, called: &str) -> SecureCaller {
        let bound = || -> io::Result<TcpStream> {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            socket.connect(&to.into())?;
            Ok(socket.into())
        };
        let link = bound().and_then(|tcp| secure_link::call(tcp, key.caller())).expect("connect");
        SecureCaller::open_over(link, &hello(caller, called)).expect("open a link")
    }

    /// Connects and says this; what lond says instead of HELLO is the error.
    pub fn open_with(key: &Key, to: SocketAddr, ours: &Hello) -> io::Result<SecureCaller> {
        SecureCaller::open_over(connect(key, to)?, ours)
    }

    fn open_over((mut reader, writer): (Reader, Writer), ours: &Hello) -> io::Result<SecureCaller> {
        writer.frame(&frames::hello(ours))?;
        let first = reader.frame()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if first.kind == frames::ERROR {
            return Err(io::Error::other(first.text()));
        }
        let hello = frames::read_hello(&first);
        writer.allow(hello["window"].parse().expect("a window"))?;
        Ok(SecureCaller {
            reader,
            writer,
            hello,
            last: 0,
            unfinished: HashMap::new(),
            finished: HashMap::new(),
            gives_back: true,
        })
    }

    /// Sends a request as the window allows; gives its number.
    pub fn request(&mut self, text: &[u8]) -> u64 {
        self.send(frames::REQUEST, text)
    }

    /// Sends a critical request.
    pub fn critical(&mut self, head: &Head, text: &[u8]) -> u64 {
        self.send(frames::CRITICAL, &head.before(text))
    }

    fn send(&mut self, kind: u8, text: &[u8]) -> u64 {
        self.last += 1;
        self.writer.queue(Frame::message(kind, self.last, text)).expect("send to lond");
        self.last
    }

    /// The next frame that is not a matter of the link itself; `None`: lond has closed.
    pub fn frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let Some(frame) = self.reader.frame()? else { return Ok(None) };
            match frame.kind {
                frames::PING => self.writer.frame(&Frame::new(frames::PONG, 0, frame.body))?,
                frames::WINDOW => {
                    let bytes = u32::from_be_bytes(frame.body[..].try_into().expect("four bytes"));
                    self.writer.allow(bytes.into())?;
                }
                _ => return Ok(Some(frame)),
            }
        }
    }

    /// The next answer that is whole, and whose it is.
    pub fn next_answer(&mut self) -> io::Result<(u64, Vec<u8>)> {
        loop {
            let frame = self.frame()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if frame.kind != frames::ANSWER {
                return Err(io::Error::other(format!("{:#x}: {}", frame.kind, frame.text())));
            }
            if self.gives_back {
                self.writer.give_back(frame.cost())?;
            }
            assert!((1..=self.last).contains(&frame.id), "an answer to {}, which was not asked", frame.id);
            let text = self.unfinished.entry(frame.id).or_default();
            text.extend(&frame.body);
            if frame.flags & frames::MORE == 0 {
                let text = self.unfinished.remove(&frame.id).expect("just put there");
                return Ok((frame.id, text));
            }
        }
    }

    /// The answer to a request; others that come before it are kept.
    pub fn try_answer(&mut self, id: u64) -> io::Result<String> {
        loop {
            if let Some(text) = self.finished.remove(&id) {
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            let (whose, text) = self.next_answer()?;
            assert!(self.finished.insert(whose, text).is_none(), "two answers to {whose}");
        }
    }

    /// The answer to a request.
    pub fn answer(&mut self, id: u64) -> String {
        self.try_answer(id).unwrap_or_else(|error| panic!("the answer to {id}: {error}"))
    }

    /// Asks and waits.
    pub fn ask(&mut self, request: &str) -> String {
        let id = self.request(request.as_bytes());
        self.answer(id)
    }

    /// Asks and waits, critically.
    pub fn ask_critical(&mut self, sequence: u64, settled: u64, key: &str, request: &str) -> String {
        let id = self.critical(&Head { sequence, settled, key: key.to_owned() }, request.as_bytes());
        self.answer(id)
    }

    /// What lond says before it closes: the text of its ERROR, or nothing.
    pub fn last_words(&mut self) -> String {
        loop {
            match self.frame() {
                Ok(Some(frame)) if frame.kind == frames::ERROR => return frame.text(),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return String::new(),
            }
        }
    }
}

#[test]
fn the_tests_own_secure_caller_and_the_tests_own_secure_lond_understand_each_other() {
    let network = super::network::Network::secure(&["msua1", "msul1"]);
    let to = network.address("msul1");
    let mut fake = super::secure_lond::SecureLond::away("msul1", network.key("msul1"), to);
    fake.listen();
    let mut caller = SecureCaller::open(&network.key("msua1"), to, "msua1", "msul1");
    assert_eq!(caller.reader.peer_pin(), network.key("msul1").pin());
    assert_eq!(fake.pins(), [network.key("msua1").pin()]);
    assert_eq!(caller.ask("ping"), "msul1");
    let long = format!("echo:{}", "x".repeat(100_000));
    assert_eq!(caller.ask(&long), long);
    for _ in 0..3 {
        assert_eq!(caller.ask_critical(7, 7, "", "log:once"), "ok");
        assert_eq!(caller.ask_critical(8, 7, "key", "log:by key"), "ok");
    }
    assert_eq!(caller.ask_critical(9, 7, "key", "log:by key"), "ok");
    assert_eq!((fake.received("log:").len(), fake.repeats()), (2, 5));
    fake.forget();
    assert_eq!(caller.ask_critical(9, 7, "key", "log:by key"), "ok");
    assert_eq!(fake.received("log:").len(), 3);
    fake.stop();
    assert!(caller.frame().expect("read").is_none());
}
