//! The cores of both ends, without sockets and files: a caller's broker, and a called session with
//! what its requests are passed to.

use lonnet::base::WireKind;
use lonnet::base::disk::FaultyDisk;
use lonnet::base::line::Outgoing;
use lonnet::config::{LocalRules, Peer, fixture};
use lonnet::lonc::broker::Broker;
use lonnet::lonc::link::Now;
use lonnet::lonc::session::ClientId;
use lonnet::lonc::settings::{LinkKeys, LinkSettings};
use lonnet::lond::classic::{self, Classic};
use lonnet::lond::handler::tag::Request;
use lonnet::lond::handler::{Reply, Talk, Ticket, socket, tagged};
use lonnet::lond::secure::{
    Opening, Recalled, Recorder, Secure, Settings, UNSYNCED_MOST, Unrecorded, Wanted,
};
use lonnet::lond::service::{Effect, Route, Service};
use lonnet::store::spool::Spool;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A record that takes everything.
#[derive(Debug, Default)]
struct Recorded;

impl Recorder for Recorded {
    fn open(&mut self, _: &str) -> Opening {
        Opening::Open(0)
    }
    fn is_open(&self) -> bool {
        true
    }
    fn recall(&mut self, _: &Wanted<'_>) -> Recalled {
        Recalled::New
    }
    fn write(&mut self, _: &[&Unrecorded]) -> Result<(), String> {
        Ok(())
    }
    fn sync(&mut self) -> Result<(), String> {
        Ok(())
    }
    fn close(&mut self) {}
}

/// The called side's core.
enum Called {
    Secure(Box<Secure<Recorded>>),
    Classic(Box<Classic>),
}

/// What a request is passed to.
pub enum Handler {
    /// It gives the request back at once.
    Echo,
    /// The conversation with a program that does.
    Line(socket::Conversation),
    Tagged(tagged::Conversation),
}

/// A link between two cores, and one program.
pub struct Rig {
    pub broker: Broker<FaultyDisk>,
    called: Called,
    handler: Handler,
    program: ClientId,
    touched: Vec<ClientId>,
    pub now: Now,
    /// What a handler's program is asked and says.
    asked: Vec<u8>,
    said: Vec<u8>,
}

impl Rig {
    pub fn new(wire: WireKind, handler: fn(Instant) -> Handler) -> Rig {
        let now = Now { mono: Instant::now(), wall: jiff::Timestamp::UNIX_EPOCH };
        let mut broker = caller(wire, now);
        let program = broker.client_connected();
        let (called, handler) = (called(wire, now), handler(now.mono));
        let (touched, asked, said) = Default::default();
        let mut rig = Rig { broker, called, handler, program, touched, now, asked, said };
        rig.come_up();
        rig
    }

    pub fn come_up(&mut self) {
        self.broker.take_effects();
        self.broker.link_connected(self.now);
        self.carry();
        assert!(self.broker.link_is_up());
    }

    /// The link is lost, and the next one begins.
    pub fn lose_link(&mut self) {
        self.broker.link_lost("test".into(), self.now);
        self.called = called(self.broker_wire(), self.now);
        self.broker.turn(self.now);
    }

    fn broker_wire(&self) -> WireKind {
        match self.called {
            Called::Secure(_) => WireKind::Secure,
            Called::Classic(_) => WireKind::Classic,
        }
    }

    /// Carries bytes until nothing moves.
    fn carry(&mut self) {
        let now = self.now;
        loop {
            self.broker.turn(now);
            let mut moved = take(self.broker.link_out(), |bytes| self.called.push(bytes, now));
            if moved {
                self.broker.link_wrote();
            }
            while let Some(effect) = self.called.step(now) {
                match effect {
                    Effect::Ask { ticket, request, .. } => {
                        self.asks(ticket, &request);
                        self.called.take_room(request);
                    }
                    Effect::AskBack(ticket) => self.called.asked_back(ticket),
                    _ => {}
                }
            }
            self.handler_says();
            self.called.record(now);
            moved |= take(self.called.outgoing(), |bytes| self.broker.link_received(bytes, now));
            if !moved {
                return;
            }
        }
    }

    fn asks(&mut self, ticket: Ticket, request: &[u8]) {
        let now = self.now.mono;
        self.asked.clear();
        match &mut self.handler {
            Handler::Echo => self.called.answer(ticket, Reply::Answer(request)),
            Handler::Line(talk) => ask(talk, ticket, request, now),
            Handler::Tagged(talk) => {
                let request = Request { tag: ticket.0, from: b"caller", id: b"-", key: b"-", text: request };
                request.put(&mut self.asked);
                ask(talk, ticket, &self.asked, now);
            }
        }
    }

    /// The program behind the handler gives back all that it was asked.
    fn handler_says(&mut self) {
        let Rig { handler, called, said, now, .. } = self;
        said.clear();
        let mut answer = |ticket, reply: Reply<'_>| called.answer(ticket, reply);
        match handler {
            Handler::Echo => {}
            Handler::Line(talk) => {
                take(talk.outgoing(), |bytes| said.extend_from_slice(bytes));
                talk.received(said, now.mono, &mut answer).expect("answers");
            }
            Handler::Tagged(talk) => {
                take(talk.outgoing(), |bytes| {
                    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                        let mut words = line.splitn(5, |byte| *byte == b' ');
                        let (tag, text) = (words.next(), words.nth(3));
                        said.extend_from_slice(tag.expect("a tag"));
                        said.push(b' ');
                        said.extend_from_slice(text.expect("a request"));
                        said.push(b'\n');
                    }
                });
                talk.received(said, now.mono, &mut answer).expect("answers");
            }
        }
    }

    /// Sends these lines, and takes as many answers.
    pub fn ask(&mut self, lines: &str, count: usize) {
        self.broker.client_sent(self.program, lines.as_bytes());
        self.carry();
        let out = &mut self.broker.session(self.program).expect("it is connected").answers.out;
        let answers = out.bytes().iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(answers, count, "{}", String::from_utf8_lossy(out.bytes()));
        assert!(!out.bytes().starts_with(b"con_lost"), "the link is up");
        out.clear();
        self.broker.client_read(self.program);
        self.broker.take_touched(&mut self.touched);
        self.touched.clear();
        self.broker.take_effects();
    }
}

fn ask(talk: &mut impl Talk, ticket: Ticket, request: &[u8], now: Instant) {
    talk.ask(ticket, request, now);
    if talk.wants_dial(now) {
        talk.dialed(now);
    }
}

impl Called {
    fn push(&mut self, bytes: &[u8], now: Now) {
        match self {
            Called::Secure(session) => session.push(bytes, now.mono),
            Called::Classic(session) => session.push(bytes),
        }
    }

    fn step(&mut self, now: Now) -> Option<Effect> {
        match self {
            Called::Secure(session) => session.step(now.mono, true),
            Called::Classic(session) => session.step(now.mono),
        }
    }

    fn answer(&mut self, ticket: Ticket, reply: Reply<'_>) {
        match self {
            Called::Secure(session) => session.answer(ticket, reply),
            Called::Classic(session) => session.answer(ticket, &reply.text()),
        }
    }

    /// The request was passed on.
    fn take_room(&mut self, request: Vec<u8>) {
        if let Called::Secure(session) = self {
            session.take_room(request);
        }
    }

    /// The caller says who it is when it is asked.
    fn asked_back(&mut self, ticket: Ticket) {
        if let Called::Classic(session) = self {
            session.asked_back(ticket, Some(b"caller"));
        }
    }

    /// Records what is to be recorded, and fills what is to be written.
    fn record(&mut self, now: Now) {
        if let Called::Secure(session) = self {
            if session.has_unrecorded() {
                session.record(now.mono);
                session.sync(now.mono);
            }
            session.fill(now.mono);
        }
    }

    fn outgoing(&mut self) -> &mut Outgoing {
        match self {
            Called::Secure(session) => session.outgoing(),
            Called::Classic(session) => session.outgoing(),
        }
    }
}

fn caller(wire: WireKind, now: Now) -> Broker<FaultyDisk> {
    let peer = Peer { wire, ..fixture::peer("called") };
    let spool = Spool::open(FaultyDisk::new(&[Path::new("/")]), Path::new("/delayed/called"), peer.spool);
    let settings = LinkSettings {
        id: fixture::host("caller").id,
        peer,
        keys: LinkKeys::None,
        local: LocalRules::default(),
        user: 0,
        run_dir: PathBuf::new(),
        spool_dir: PathBuf::from("/delayed"),
        log_dir: PathBuf::new(),
        log_level: log::LevelFilter::Off,
        sandbox: config::Sandbox::Off,
    };
    let mut broker = Broker::new(settings, spool, 7, now);
    broker.turn(now);
    broker
}

fn called(wire: WireKind, now: Now) -> Called {
    let service = Service {
        id: fixture::host("called").id,
        caller: fixture::host("caller").id,
        routes: vec![Route::open("echo")],
        barred: Vec::new(),
    };
    let (max_line, drain_timeout) = (1 << 20, Duration::from_secs(5));
    let opening = now.mono + Duration::from_secs(10);
    match wire {
        WireKind::Secure => {
            let settings = Settings {
                service,
                max_line,
                window: 4 << 20,
                heartbeat: Duration::from_secs(15),
                heartbeat_missed: 3,
                unsynced: UNSYNCED_MOST,
                drain_timeout,
            };
            Called::Secure(Box::new(Secure::new(settings, Recorded, opening, now.mono)))
        }
        WireKind::Classic => {
            let settings = classic::Settings { service, max_line, drain_timeout };
            Called::Classic(Box::new(Classic::new(settings, fastrand::Rng::with_seed(1), opening)))
        }
    }
}

/// Gives what is to be written to `to`.
pub fn take(out: &mut Outgoing, to: impl FnOnce(&[u8])) -> bool {
    if out.is_empty() {
        return false;
    }
    to(out.bytes());
    out.clear();
    true
}
