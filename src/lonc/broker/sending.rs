//! The broker's steps on the way of a request to the link and of an answer to its program.

use super::away::Away;
use crate::link::{Link, Now};
use crate::pending::{Entry, Owner, Pending, Purpose};
use crate::protocol::{Message, Once};
use base::Sequence;
use base::command;
use base::request::{self, Forward};
use store::spool::{Disk, Spool};

/// What became of a request that a program wants forwarded.
pub(super) enum Kept {
    Sent,
    Lost,
    Refused(String),
    ToStore,
    /// Its handler is away, or the spool is another process's: waiting would not make that better.
    ToStoreAtOnce,
}

/// What a request passes on its way to the peer.
pub(super) struct Sender<'a, D: Disk> {
    pub link: &'a mut Link,
    pub pending: &'a mut Pending,
    pub spool: &'a mut Spool<D>,
    pub away: &'a Away,
}

impl<D: Disk> Sender<'_, D> {
    /// Sends a request if it may be sent; says otherwise what is to become of it. `stores_empty`:
    /// none is about to be stored.
    pub(super) fn forward(
        &mut self,
        forward: Forward<'_>,
        owner: Owner,
        stores_empty: bool,
        now: Now,
    ) -> Kept {
        let Sender { link, pending, spool, away } = self;
        if !link.is_up() {
            return if forward.critical { Kept::ToStore } else { Kept::Lost };
        }
        let size = request::payload(forward.text).bytes.len();
        if let Err(why) = link.takes(size) {
            return Kept::Refused(why);
        }
        if !forward.critical {
            let number = pending.next_number();
            link.send(Message { number, text: forward.text, once: None });
            pending.push(Entry { owner: Some(owner), purpose: Purpose::Plain, size }, now.mono);
            return Kept::Sent;
        }
        let handler_is_away = away.blocks(command(request::payload(forward.text).bytes));
        if handler_is_away || spool.is_anothers() {
            return Kept::ToStoreAtOnce;
        }
        if !stores_empty || spool.has_backlog() {
            return Kept::ToStore;
        }
        let mut sequence = None;
        if link.knows_repeats() {
            match spool.allocate() {
                // A new epoch: the peer knows this conversation's sequences under the old one.
                Ok(_) if spool.epoch() != link.epoch() => return Kept::ToStore,
                Ok(given) => sequence = Some(given),
                // Sent without a sequence it might run twice; so let it be stored, or be told that
                // it cannot.
                Err(_) => return Kept::ToStore,
            }
        }
        self.critical(Some(owner), forward.text.into(), sequence, false, now);
        Kept::Sent
    }

    /// Puts a critical request on a link that is up; it is a `stored` one, or a program's.
    pub(super) fn critical(
        &mut self,
        owner: Option<Owner>,
        request: Box<[u8]>,
        sequence: Option<Sequence>,
        stored: bool,
        now: Now,
    ) {
        let Sender { link, pending, spool, away } = self;
        let text = request::payload(&request).bytes;
        let size = text.len();
        let number = pending.next_number();
        let once = sequence.map(|sequence| {
            let held = away.held().clone();
            let command = command(text);
            // Below the least that waits or is in flight all is settled, but for what is held; and
            // of what is held, below the first of it.
            let of_the_spool =
                if held.contains(command) { spool.settled_below_of(command) } else { spool.settled_below() };
            let waiting = [Some(of_the_spool), pending.least_unstored(), Some(sequence)];
            let settled = waiting.into_iter().flatten().min().unwrap_or(sequence);
            Once { sequence, settled, held }
        });
        link.send(Message { number, text: &request, once });
        let purpose = Purpose::Critical { request, sequence, stored, passed: false };
        pending.push(Entry { owner, purpose, size }, now.mono);
    }
}
