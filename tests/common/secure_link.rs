//! One link of the secure wire, either end: TLS over a socket, one thread that reads, any number
//! that write.

use super::frames::{Frame, WINDOW};
use super::keys;
use super::wait::PATIENCE;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

struct Shared {
    tls: Mutex<Connection>,
    tcp: TcpStream,
    out: Mutex<Out>,
}

#[derive(Default)]
struct Out {
    /// What the other side's window still takes.
    credit: u64,
    waiting: VecDeque<Frame>,
}

/// The end that reads.
pub struct Reader {
    shared: Arc<Shared>,
    plain: Vec<u8>,
    ended: bool,
}

/// The end that writes.
#[derive(Clone)]
pub struct Writer(Arc<Shared>);

/// Calls over a connected socket; the handshake is done when this returns, as far as a caller can
/// know.
pub fn call(tcp: TcpStream, config: ClientConfig) -> io::Result<(Reader, Writer)> {
    let name = ServerName::try_from("any").expect("a name");
    let tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    begin(tcp, tls.into())
}

/// Is called over an accepted socket.
pub fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<(Reader, Writer)> {
    let tls = ServerConnection::new(config).map_err(io::Error::other)?;
    begin(tcp, tls.into())
}

fn begin(tcp: TcpStream, tls: Connection) -> io::Result<(Reader, Writer)> {
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    let shared = Arc::new(Shared { tls: Mutex::new(tls), tcp, out: Mutex::default() });
    let mut reader = Reader { shared: shared.clone(), plain: Vec::new(), ended: false };
    shared.flush(&mut shared.tls.lock().expect("tls"))?;
    while shared.tls.lock().expect("tls").is_handshaking() {
        if !reader.fill()? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((reader, Writer(shared)))
}

impl Shared {
    /// Under the lock, so that what several threads write stays in order.
    fn flush(&self, tls: &mut Connection) -> io::Result<()> {
        while tls.wants_write() {
            tls.write_tls(&mut &self.tcp)?;
        }
        Ok(())
    }
}

impl Reader {
    /// Reads once; `false`: the other side has closed.
    fn fill(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 32 * 1024];
        let count = match (&self.shared.tcp).read(&mut bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error),
        };
        let mut tls = self.shared.tls.lock().expect("tls");
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
            let processed = tls.process_new_packets();
            // An alert is told, whatever the other side makes of it.
            let flushed = self.shared.flush(&mut tls);
            let held = processed.map_err(io::Error::other)?.plaintext_bytes_to_read();
            flushed?;
            let at = self.plain.len();
            self.plain.resize(at + held, 0);
            tls.reader().read_exact(&mut self.plain[at..])?;
        }
        Ok(count > 0)
    }

    /// The next frame; `None`: the other side has closed, or was reset.
    pub fn frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = Frame::take(&mut self.plain) {
                return Ok(Some(frame));
            }
            self.ended = self.ended || !self.fill()?;
            if self.ended {
                return Ok(None);
            }
        }
    }

    /// The pin of the other side's key.
    pub fn peer_pin(&self) -> String {
        let tls = self.shared.tls.lock().expect("tls");
        keys::pin_in(&tls.peer_certificates().expect("certificates")[0])
    }
}

impl Writer {
    /// Sends bytes as they are.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut tls = self.0.tls.lock().expect("tls");
        tls.set_buffer_limit(None);
        tls.writer().write_all(bytes)?;
        self.0.flush(&mut tls)
    }

    /// Sends a frame, whatever the window says.
    pub fn frame(&self, frame: &Frame) -> io::Result<()> {
        self.send(&frame.bytes())
    }

    /// Sends frames as the window allows, in their order.
    pub fn queue(&self, frames: impl IntoIterator<Item = Frame>) -> io::Result<()> {
        let mut out = self.0.out.lock().expect("out");
        out.waiting.extend(frames);
        self.go_on(&mut out)
    }

    /// The other side takes that much more.
    pub fn allow(&self, bytes: u64) -> io::Result<()> {
        let mut out = self.0.out.lock().expect("out");
        out.credit += bytes;
        self.go_on(&mut out)
    }

    fn go_on(&self, out: &mut Out) -> io::Result<()> {
        let mut bytes = Vec::new();
        while let Some(frame) = out.waiting.front()
            && frame.cost() <= out.credit
        {
            out.credit -= frame.cost();
            bytes.extend(frame.bytes());
            out.waiting.pop_front();
        }
        if bytes.is_empty() { Ok(()) } else { self.send(&bytes) }
    }

    /// Gives bytes of our window back.
    pub fn give_back(&self, bytes: u64) -> io::Result<()> {
        let bytes = u32::try_from(bytes).expect("a window");
        self.frame(&Frame::new(WINDOW, 0, bytes.to_be_bytes()))
    }
}
