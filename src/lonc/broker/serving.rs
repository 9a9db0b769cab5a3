//! The broker's part that takes the programs' lines: which program is served when, and what becomes
//! of each of its requests.

use super::held::Held;
use super::report::Report;
use super::rivals::Rivals;
use super::sending::{Kept, Sender};
use super::stores::Stores;
use super::{Broker, CON_LOST, MAX_TAKEN_BYTES};
use crate::link::{Event, Now};
use crate::pending::Owner;
use crate::session::ClientId;
use crate::settings::LinkSettings;
use base::Credentials;
use base::credentials;
use base::line::Line;
use base::request::{self, EXIT, Forward, Request, command_of};
use store::spool::Disk;

const REFUSED: &[u8] = b"refused";

/// Requests of one program that are taken before it is another's turn ...
pub(super) const QUANTUM: usize = 32;

/// ... and bytes of them, beyond which no further one is.
pub(super) const QUANTUM_BYTES: usize = 64 * 1024;

/// What becomes of a program's request right now.
enum Verdict {
    /// It is on its way; its slot is filled later.
    Wait,
    /// It is answered by us.
    Answer(Vec<u8>),
}

/// What a request is taken with.
struct Taking<'a, D: Disk> {
    sender: Sender<'a, D>,
    stores: &'a mut Stores,
    held: &'a mut Held,
    report: &'a mut Report,
    settings: &'a LinkSettings,
    rivals: &'a mut Rivals,
    /// What would have to wait may.
    may_hold: bool,
}

impl<D: Disk> Taking<'_, D> {
    /// Whether there is room for one more request of this user.
    fn has_room(&self, user: u32, now: Now) -> bool {
        let Sender { link, pending, .. } = &self.sender;
        let taken = pending.bytes() + self.stores.bytes() + self.held.bytes();
        let allowed = || self.rivals.allow(user, pending.of_user(credentials::known(user)), now.mono);
        taken < MAX_TAKEN_BYTES && !(link.is_up() && pending.full()) && allowed()
    }

    /// Sends a request on, or sees to it that it is kept. `holding` is set when it is held back.
    fn forward(&mut self, forward: Forward<'_>, owner: Owner, holding: &mut bool, now: Now) -> Verdict {
        let stores_empty = self.stores.is_empty();
        let kept = self.sender.forward(forward, owner, stores_empty, now);
        let is_up = self.sender.link.is_up();
        match kept {
            Kept::Sent => {
                if !forward.critical {
                    self.rivals.sent_plain(now.mono);
                }
                Verdict::Wait
            }
            Kept::Lost => {
                self.report.one_lost();
                Verdict::Answer(CON_LOST.to_vec())
            }
            Kept::Refused(why) => self.refuse(&why),
            Kept::ToStore if self.may_hold && is_up && self.held.must_wait() => {
                self.held.hold(owner, forward.text, now);
                *holding = true;
                Verdict::Wait
            }
            kept @ (Kept::ToStore | Kept::ToStoreAtOnce) => {
                if is_up && matches!(kept, Kept::ToStore) {
                    self.held.spend();
                }
                self.stores.push(owner, forward.text);
                Verdict::Wait
            }
        }
    }

    /// Whether the program may ask this, by `[[local]]`.
    fn allows(&self, who: &Credentials, command: &[u8], critical: bool) -> bool {
        let LinkSettings { peer, local, user, .. } = self.settings;
        local.judge(&peer.host.id, command, critical, who, *user).is_ok()
    }

    /// The program may not ask this: it is neither sent nor stored.
    fn bar(&mut self, who: &Credentials, command: &[u8], critical: bool, now: Now) -> Verdict {
        let kept = if critical { " as a critical message" } else { "" };
        let text = format!(
            "refused user {} the request {}{kept}: no [[local]] rule lets it ask",
            who.user,
            command.escape_ascii()
        );
        if let Some(line) = self.report.one_refused(who.user, command, &text, now) {
            log::warn!("{line}");
        }
        Verdict::Answer(REFUSED.to_vec())
    }

    fn refuse(&mut self, why: &str) -> Verdict {
        self.report.one_lost();
        Verdict::Answer(format!("error:{why}").into_bytes())
    }
}

impl<D: Disk> Broker<D> {
    /// Takes the programs' lines, some of each in turn. What is gathered for one sync has the bound
    /// of all that is taken, [`MAX_TAKEN_BYTES`].
    pub(super) fn serve(&mut self, now: Now) {
        while !self.blocked(now) {
            let Broker { programs, pending, rivals, .. } = self;
            let may = |user| rivals.allow(user, pending.of_user(credentials::known(user)), now.mono);
            let Some(id) = programs.next(may) else { return };
            if self.serve_some(id, now) {
                log::info!("close_connection_exit: ending");
                self.drain_by(now.mono);
                self.link_event(Event::Stop, now);
            }
        }
    }

    /// Takes some lines of one program; whether one of them asks this process to end.
    fn serve_some(&mut self, id: ClientId, now: Now) -> bool {
        let may_hold = !self.ending.has_begun();
        let Broker { programs, link, pending, spool, stores, report, held, away, settings, rivals, .. } =
            self;
        let Some(session) = programs.serve(id) else { return false };
        let sender = Sender { link, pending, spool, away };
        rivals.asks(session.user, now.mono);
        let mut taking = Taking { sender, stores, held, report, settings, rivals, may_hold };
        let (mut exit, mut bytes) = (false, 0);
        for _ in 0..QUANTUM {
            if !session.can_serve() || !taking.has_room(session.user, now) || bytes > QUANTUM_BYTES {
                break;
            }
            let request = match session.reader.next_line() {
                None => {
                    session.has_lines = false;
                    break;
                }
                Some(Line::TooLong) => Request::Bad("line too long"),
                Some(Line::Whole(line)) => {
                    bytes += line.len();
                    request::parse(line)
                }
            };
            if matches!(request, Request::Blank) {
                continue;
            }
            let slot = session.answers.owe(());
            let verdict = match request {
                Request::Forward(Forward { critical, text })
                    if !taking.allows(&session.who, command_of(text), critical) =>
                {
                    taking.bar(&session.who, command_of(text), critical, now)
                }
                Request::CloseConnectionExit if !taking.allows(&session.who, EXIT, false) => {
                    taking.bar(&session.who, EXIT, false, now)
                }
                Request::Forward(forward) => {
                    let owner = Owner { client: id, slot, user: credentials::known(session.user) };
                    taking.forward(forward, owner, &mut session.holding, now)
                }
                Request::CloseConnectionExit => {
                    exit = true;
                    Verdict::Answer(b"ok".to_vec())
                }
                Request::Bad(why) => taking.refuse(why),
                Request::Blank => Verdict::Wait,
            };
            if let Verdict::Answer(answer) = verdict {
                session.answer(slot, &answer);
            }
        }
        programs.served(id);
        exit
    }
}
