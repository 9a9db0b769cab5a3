//! Transcripts of links on a virtual clock, with a caller that keeps count of every window.

mod critical;
mod ending;
mod opening;
mod random;
mod requests;
mod syncing;
mod untaken;

use super::*;
use crate::access::Right;
use crate::service::Route;
use base::HostId;
use base::Key;
use std::collections::{BTreeMap, BTreeSet};
use wire::secure::{
    CallerHello, CriticalHead, FRAME_COST, Frame, FrameReader, MAX_BODY, least_window, put_cancel,
    put_critical, put_request, put_window,
};

const OURS: &str = "msul1";
const CALLER: &str = "msua1";
const MAX_LINE: usize = 100_000;
const EPOCH: &str = "000102030405060708090a0b0c0d0e0f";
const HEARTBEAT: Duration = Duration::from_secs(15);
const DRAIN: Duration = Duration::from_secs(5);
const UNSYNCED: usize = 8;

fn id(text: &str) -> HostId {
    HostId::new(text).unwrap()
}

fn window() -> u32 {
    least_window(MAX_LINE) as u32
}

fn key(text: &str) -> Option<Key> {
    Some(Key::new(text.as_bytes()).unwrap())
}

/// The record, as far as the session can see it.
#[derive(Debug, Default)]
struct FakeRecord {
    open: bool,
    /// How often, and for which epoch, it was to be opened since that was looked at.
    opens: Vec<String>,
    answers: BTreeMap<u64, (Vec<u8>, bool)>,
    keys: BTreeMap<Key, (Vec<u8>, bool)>,
    floor: u64,
    /// Another process has it.
    busy: bool,
    /// It cannot be used, for this reason.
    broken: Option<&'static str>,
    /// There is no room for the answer to another message.
    full: Option<&'static str>,
    /// So many answers are kept while an earlier message is being run.
    most_behind: Option<usize>,
    /// What was said to be settled, by messages of which command, while which were held.
    told: Vec<(String, u64, String)>,
    /// How often answers were written.
    adds: usize,
    /// Those that are not synced, and how often they were.
    unsynced: BTreeSet<u64>,
    syncs: usize,
    /// Only that fails, for this reason.
    sync_fails: Option<&'static str>,
    /// It will never be had again.
    lost: bool,
    let_go: bool,
}

impl Recorder for FakeRecord {
    fn open(&mut self, epoch: &str) -> Opening {
        self.opens.push(format!("open record {epoch}"));
        let opening = match (self.busy, self.broken) {
            (true, _) => Opening::Busy,
            (_, Some(cause)) => Opening::Failed(cause.to_owned()),
            (false, None) => Opening::Open(self.floor),
        };
        self.open = matches!(opening, Opening::Open(_));
        opening
    }

    fn is_open(&self) -> bool {
        self.open
    }

    fn recall(&mut self, wanted: &Wanted<'_>) -> Recalled {
        let Wanted { sequence, command, settled, held, behind, key, .. } = *wanted;
        let held = held.iter().map(|name| &**name).collect::<Vec<_>>().join(",");
        self.told.push((command.to_owned(), settled, held));
        let recorded =
            |(text, broken): &(Vec<u8>, bool)| Recorded { text: text.as_slice().into(), broken: *broken };
        let by_key = key.and_then(|key| self.keys.get(key));
        match (self.broken, self.answers.get(&sequence), by_key) {
            (Some(cause), _, _) => Recalled::Failed(cause.to_owned()),
            _ if sequence < self.floor => Recalled::SettledBefore,
            (None, Some(answer), _) => Recalled::Answered(recorded(answer)),
            (None, None, Some(answer)) => Recalled::AnsweredByKey(recorded(answer)),
            _ if behind && self.most_behind.is_some_and(|most| self.answers.len() >= most) => {
                Recalled::HeldUp("so many were answered".to_owned())
            }
            (None, None, None) => self.full.map_or(Recalled::New, |cause| Recalled::NoRoom(cause.to_owned())),
        }
    }

    fn write(&mut self, answers: &[&Unrecorded]) -> Result<(), String> {
        if let Some(cause) = self.broken {
            return Err(cause.to_owned());
        }
        self.adds += 1;
        for answer in answers {
            let said = (answer.text.to_vec(), answer.broken);
            let before = self.answers.insert(answer.sequence, said.clone());
            assert!(before.is_none_or(|before| before == said), "{}", answer.sequence);
            self.keys.extend(answer.key.clone().map(|key| (key, said)));
        }
        self.unsynced.extend(answers.iter().map(|answer| answer.sequence));
        Ok(())
    }

    fn sync(&mut self) -> Result<(), String> {
        if let Some(cause) = self.broken.or(self.sync_fails) {
            return Err(cause.to_owned());
        }
        self.syncs += 1;
        self.unsynced.clear();
        Ok(())
    }

    fn is_lost(&self) -> bool {
        self.lost
    }

    fn close(&mut self) {
        (self.open, self.let_go) = (false, true);
    }
}

/// A link on a virtual clock, what the reactor was told to do, and what the caller saw.
struct Bench {
    session: Secure<FakeRecord>,
    now: Instant,
    effects: Vec<String>,
    asked: Vec<Ticket>,
    /// Handlers let a request be withdrawn.
    handlers_hold: bool,
    caller: Caller,
}

/// What came to the caller.
#[derive(Default)]
struct Caller {
    reader: FrameReader,
    /// In the order of the frames: `ANSWER 1 text`, `PONG`, ...
    saw: Vec<String>,
    answers: BTreeMap<u64, Vec<u8>>,
    /// Finished answers; a second one to the same id is a fault.
    done: BTreeMap<u64, Vec<u8>>,
    /// What we may still send it, and what it may still send us.
    window: u64,
    theirs: u64,
}

impl Bench {
    /// A link on which nothing was said yet.
    fn new() -> Bench {
        let now = Instant::now();
        let settings = Settings {
            service: Service {
                id: id(OURS),
                caller: id(CALLER),
                routes: vec![Route::open("echo"), Route::barred("secret"), Route::open("other")],
                barred: Vec::new(),
            },
            max_line: MAX_LINE,
            window: window(),
            heartbeat: HEARTBEAT,
            heartbeat_missed: 3,
            unsynced: UNSYNCED,
            drain_timeout: DRAIN,
        };
        Bench {
            session: Secure::new(settings, FakeRecord::default(), now + Duration::from_secs(10), now),
            now,
            effects: Vec::new(),
            asked: Vec::new(),
            handlers_hold: false,
            caller: Caller::default(),
        }
    }

    /// One whose opening is done.
    fn open() -> Bench {
        Bench::new().opened(window())
    }

    fn opened(mut self, caller_window: u32) -> Bench {
        self.caller.theirs = caller_window.into();
        self.send(&hello(caller_window));
        assert_eq!(self.effects(), ["opened", &format!("open record {EPOCH}")]);
        assert!(self.read().starts_with("HELLO"));
        self
    }

    fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        self.session.tick(self.now);
        self.session.beat(self.now);
        self.work();
    }

    /// Sends bytes, whatever the window says.
    fn send(&mut self, bytes: &[u8]) {
        self.session.heard(self.now);
        self.session.push(bytes, self.now);
        self.work();
    }

    /// Sends a request in as many chunks as it needs.
    fn request(&mut self, id: u64, text: &[u8]) {
        let mut bytes = Vec::new();
        put_message(&mut bytes, id, text);
        self.send(&bytes);
    }

    fn critical(&mut self, id: u64, sequence: u64, key: Option<Key>, text: &str) {
        let mut bytes = Vec::new();
        let head = CriticalHead { sequence, settled: 1, key };
        put_critical(&mut bytes, id, false, Some(&head), text.as_bytes());
        self.send(&bytes);
    }

    fn cancel(&mut self, id: u64) {
        let mut bytes = Vec::new();
        put_cancel(&mut bytes, id);
        self.send(&bytes);
    }

    /// What a turn of the reactor does.
    fn work(&mut self) {
        loop {
            loop {
                let effect = self.session.step(self.now, true);
                self.effects.append(&mut self.session.memory.recorder.opens);
                let Some(effect) = effect else { break };
                let said = match effect {
                    Effect::Opened => "opened".to_owned(),
                    Effect::Ask { handler, ticket, order, request, .. } => {
                        self.asked.push(ticket);
                        let way = if order == Order::Once { "ask in order" } else { "ask" };
                        format!(
                            "{way} {handler} {}",
                            String::from_utf8_lossy(&request[..request.len().min(20)])
                        )
                    }
                    Effect::Withdraw { ticket, .. } => {
                        if self.handlers_hold {
                            self.session.withdrawn(ticket);
                        }
                        format!("withdraw {}", ticket.0)
                    }
                    Effect::AskBack(ticket) => {
                        self.asked.push(ticket);
                        "ask back".to_owned()
                    }
                    Effect::Load(ticket) => {
                        self.asked.push(ticket);
                        "load".to_owned()
                    }
                    Effect::Log { ticket, text } => {
                        let said = format!("log {}", String::from_utf8_lossy(&text));
                        let over = text.starts_with(b"too much");
                        let reply =
                            if over { Reply::NotTaken("log: too much") } else { Reply::Answer(b"ok") };
                        self.session.answer(ticket, reply);
                        said
                    }
                    Effect::Refused(barred) => format!("refused {barred:?}"),
                    Effect::Shut => "shut".to_owned(),
                };
                self.effects.push(said);
            }
            self.session.record(self.now);
            self.session.sync(self.now);
            self.session.fill(self.now);
            if !self.session.has_work(self.session.output.is_empty()) {
                return;
            }
        }
    }

    /// What the caller reads a moment later, when what was written is synced; it gives nothing back
    /// by itself.
    fn read(&mut self) -> String {
        if let Some(at) = self.session.sync_deadline() {
            self.now = self.now.max(at);
            self.work();
        }
        self.read_now()
    }

    /// What it reads at once.
    fn read_now(&mut self) -> String {
        loop {
            let bytes = self.session.outgoing().bytes().to_vec();
            self.session.outgoing().clear();
            self.work();
            if bytes.is_empty() {
                break;
            }
            self.caller.take(&bytes);
        }
        std::mem::take(&mut self.caller.saw).join(", ")
    }

    fn exchange(&mut self, bytes: &[u8]) -> String {
        self.send(bytes);
        self.read()
    }

    fn effects(&mut self) -> Vec<String> {
        std::mem::take(&mut self.effects)
    }

    fn answer(&mut self, number: usize, answer: &[u8]) {
        self.reply(number, Reply::Answer(answer));
    }

    fn reply(&mut self, number: usize, reply: Reply<'_>) {
        self.session.answer(self.asked[number], reply);
        self.work();
    }

    fn finish(&mut self, reason: Reason) {
        self.session.finish(reason, self.now);
        self.work();
    }

    fn widen(&mut self, bytes: u32) {
        self.caller.theirs += u64::from(bytes);
        let mut frame = Vec::new();
        put_window(&mut frame, bytes);
        self.send(&frame);
    }

    fn ended(&self) -> Option<String> {
        self.session.ended().map(Reason::to_string)
    }

    fn end_of_input(&mut self) {
        self.session.end_of_input();
        self.work();
    }
}

impl Caller {
    fn take(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
        while let Some(frame) = self.reader.next_frame() {
            let frame = frame.unwrap();
            let said = match frame {
                Frame::Hello(body) => {
                    let hello = CalledHello::parse(body).unwrap();
                    assert_eq!(hello.hello.id, id(OURS));
                    self.window = hello.hello.window.into();
                    format!("HELLO mark {}", hello.mark)
                }
                Frame::NotTaken { id, why } => format!("NOT_TAKEN {id} {}", String::from_utf8_lossy(why)),
                Frame::Ready(name) => format!("READY {}", String::from_utf8_lossy(name)),
                Frame::Answer { id, more, broken, body } => {
                    let cost = frame.cost() as u64;
                    self.theirs = self.theirs.checked_sub(cost).expect("the caller's window is kept");
                    assert!(!more || body.len() == MAX_BODY, "chunks are as long as they can be");
                    let text = self.answers.entry(id).or_default();
                    text.extend_from_slice(body);
                    if more {
                        format!("CHUNK {id}")
                    } else {
                        let text = self.answers.remove(&id).unwrap();
                        let shown = String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned();
                        assert!(self.done.insert(id, text).is_none(), "{id} was answered twice");
                        format!("{} {id} {shown}", if broken { "BROKEN" } else { "ANSWER" })
                    }
                }
                Frame::Ping(_) => "PING".to_owned(),
                Frame::Pong(token) => format!("PONG {}", String::from_utf8_lossy(token)),
                Frame::Window(bytes) => {
                    self.window += u64::from(bytes);
                    format!("WINDOW {bytes}")
                }
                Frame::GoAway { last } => format!("GOAWAY {last}"),
                Frame::Error(text) => format!("ERROR {}", String::from_utf8_lossy(text)),
                Frame::Request { .. } | Frame::Critical { .. } | Frame::Cancel { .. } | Frame::Held(_) => {
                    panic!("not for the called side: {frame:?}")
                }
            };
            self.saw.push(said);
        }
    }
}

fn caller_hello(window: u32) -> CallerHello {
    CallerHello {
        hello: Hello {
            versions: Versions::OURS,
            id: id(CALLER),
            window,
            max_line: MAX_LINE as u32,
            program: "lonc/0.1.0".to_owned(),
        },
        to: id(OURS),
        epoch: EPOCH.to_owned(),
    }
}

fn hello(window: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    caller_hello(window).put(&mut bytes);
    bytes
}

fn put_message(bytes: &mut Vec<u8>, id: u64, text: &[u8]) {
    let mut chunks = text.chunks(MAX_BODY).peekable();
    if text.is_empty() {
        put_request(bytes, id, false, b"");
    }
    while let Some(chunk) = chunks.next() {
        put_request(bytes, id, chunks.peek().is_some(), chunk);
    }
}

/// A frame as bytes, whatever is in it.
fn raw(kind: u8, id: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0];
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(body);
    bytes
}
