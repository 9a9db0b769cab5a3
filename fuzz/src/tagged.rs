//! What a handler says that answers in any order, and the lines of that form.

use super::pieces;
use lonnet::base::line::READ_SIZE;
use lonnet::lond::handler::tag::{Answer, Request, Said, Speaker};
use lonnet::lond::handler::tagged::Conversation;
use lonnet::lond::handler::{Fault, Reply, Talk, Ticket};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest answer of a program.
const MAX_LINE: usize = 60;
/// Requests that a program has.
const ASKED: u64 = 20;

/// A program's bytes: whatever they are, each request is told of once, what is told is the same in
/// pieces as in one, no more than a line and a piece is held, and a line means what it is written
/// as.
pub fn tagged(bytes: &[u8]) {
    for speaker in [Speaker::Program, Speaker::Pool] {
        let (whole, in_pieces) = pieces(bytes);
        assert_eq!(told(in_pieces, speaker), told(whole, speaker));
        for line in bytes.split(|byte| *byte == b'\n') {
            if let Ok(answer) = Answer::parse(line, speaker) {
                let mut again = Vec::new();
                answer.put(&mut again);
                assert_eq!(Answer::parse(&again, speaker), Ok(answer));
                assert!(speaker == Speaker::Pool || matches!(answer.said, Said::Answer(_) | Said::Later));
            }
        }
    }
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(request) = Request::parse(line) {
            let mut again = Vec::new();
            request.put(&mut again);
            assert_eq!(Request::parse(&again), Ok(request));
        }
    }
}

/// What each request comes to when a program says this and closes its connection.
fn told<'a>(pieces: impl Iterator<Item = &'a [u8]>, speaker: Speaker) -> BTreeMap<u64, String> {
    let now = Instant::now();
    let mut told = BTreeMap::new();
    let mut tell = |ticket: Ticket, reply: Reply<'_>| {
        let before = told.insert(ticket.0, format!("{reply:?}"));
        assert_eq!(before, None, "{ticket:?} is told of twice");
    };
    let mut conversation = Conversation::new("echo", speaker, Duration::from_secs(60), MAX_LINE);
    for tag in 0..ASKED {
        conversation.ask(Ticket(tag), format!("{tag} a - - echo").as_bytes(), now);
        if tag == 0 {
            conversation.dialed(now);
        }
    }
    conversation.outgoing().clear();
    let mut fault = Fault::Closed;
    for piece in pieces {
        if let Err(found) = conversation.received(piece, now, &mut tell) {
            fault = found;
            break;
        }
        let most = MAX_LINE + READ_SIZE + piece.len();
        assert!(conversation.begun() <= most, "{} bytes held", conversation.begun());
    }
    conversation.failed(&fault, now, &mut tell);
    assert!(conversation.is_free());
    assert_eq!(told.len() as u64, ASKED, "some are not told of");
    told
}
