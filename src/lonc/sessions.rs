//! All programs of a link: what they hold in memory together, and who is next when there is no
//! room.
//!
//! Each program's own bounds are in [`super::session`]; here are those on the sum, so that a link
//! child stays small whatever its programs do, and those on each user, so that one user's programs
//! leave room for another's.
//!
//! - *Connections*: [`MAX_CLIENTS`], [`MAX_OF_USER`] of one user. At a bound the newcomer is taken
//!   and the one that is owed nothing and was silent for longest is given up ([`Sessions::admit`]);
//!   where none is idle, the newcomer is turned away.
//! - *Lines that are not processed*: each program may have [`ALWAYS`]; more while all have less
//!   than [`READ_SUM`] and its user's less than [`READ_OF_USER`]. Then a long line waits in its
//!   program's socket for its turn: one program at a time may go on to the end of its line. So a
//!   line of `max_line` is always possible, and so is a short one. Who has a line that is whole, or
//!   too long, and only waits to be taken, is not read meanwhile, and no other program of its user
//!   has a turn until that line is taken. Who holds a beginning and
//!   sends nothing for [`SILENT`] (in its turn: [`SILENT_IN_TURN`]) while others wait is given up,
//!   and who has had the turn for [`TURN`].
//! - *Answers that are not read*: while all have [`unread_sum`] or more the peer is not heard; that
//!   costs the others' answers time, so after [`UNREAD_PATIENCE`] the program that has the most of
//!   them and takes none is given up, after [`UNREAD_MOST`] the one that has the most.
//!
//! Pure: the time is told once a turn, and what a program did since the last turn counts as done
//! then. Whoever changes a session has it weighed ([`Sessions::weigh`]) afterwards.

mod warm;

use super::session::{ALWAYS, ClientId, Hoarder, Rest, Session};
use base::line::KEPT_SPARINGLY;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
use warm::Warm;

/// Programs connected at once.
pub const MAX_CLIENTS: usize = 4096;
/// Of one user.
pub const MAX_OF_USER: usize = 3072;
/// Bytes of lines that are not processed, of all programs together; at this mark no more than
/// [`ALWAYS`] is read of each, but for the one whose turn it is.
pub const READ_SUM: usize = 8 << 20;
/// The same for one user.
const READ_OF_USER: usize = READ_SUM / 4 * 3;
/// Least part of [`READ_SUM`] that is worth a read.
const WORTH_A_READ: usize = ALWAYS;
/// Answers that are not read, of all programs together, at the least: see [`unread_sum`].
const UNREAD_SUM: usize = 12 << 20;
/// How long a program that has begun a line may be silent while others wait for room.
const SILENT: Duration = Duration::from_secs(5);
/// The same for the one whose turn it is.
const SILENT_IN_TURN: Duration = Duration::from_secs(1);
/// How long a program may take over a line while others wait for their turn.
const TURN: Duration = Duration::from_secs(30);
/// How long programs that take no answers may keep the peer from being heard.
const UNREAD_PATIENCE: Duration = Duration::from_secs(2);
/// How long those that take some may.
const UNREAD_MOST: Duration = Duration::from_secs(10);
/// Pause between two looks for programs to be given up, while others wait.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Bytes of answers that programs have not read; at this mark no more are taken from the peer. Two
/// of the longest lines count as little.
pub fn unread_sum(max_line: usize) -> usize {
    UNREAD_SUM.max(2 * max_line)
}

/// What is to be done with a program that connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is welcome.
    Welcome,
    /// It is, when this one was given up.
    InPlaceOf(ClientId),
    /// There are too many already, and none of them is idle.
    Full,
}

/// What one user's programs have.
#[derive(Debug, Default)]
struct User {
    clients: usize,
    read: usize,
    /// The program that had the turn last, as long as it holds what it read then.
    over: Option<ClientId>,
}

/// All programs of a link.
#[derive(Debug)]
pub struct Sessions {
    places: Vec<(u32, Option<Session>)>,
    free: Vec<u32>,
    count: usize,
    max_line: usize,
    users: HashMap<u32, User>,
    /// Bytes of lines that are not processed.
    read: usize,
    /// Bytes of answers that are not read.
    unread: usize,
    /// Programs that are not read for want of room, in the order in which they came to it.
    starved: VecDeque<ClientId>,
    /// There may be room for one of them.
    relieved: bool,
    /// The program that may go on to the end of its line, and since when.
    turn: Option<(ClientId, Instant)>,
    /// Whose turn it was last.
    last_turn: Option<u32>,
    /// Programs that did something since the last turn of the loop.
    active: Vec<ClientId>,
    warm: Warm,
    /// Since when the peer is not heard.
    full_since: Option<Instant>,
    /// When to look again for programs to be given up.
    look_at: Option<Instant>,
    now: Instant,
}

impl Sessions {
    /// None yet; lines of up to `max_line` bytes.
    pub fn new(max_line: usize, now: Instant) -> Sessions {
        Sessions {
            places: Vec::new(),
            free: Vec::new(),
            count: 0,
            max_line,
            users: HashMap::new(),
            read: 0,
            unread: 0,
            starved: VecDeque::new(),
            relieved: false,
            turn: None,
            last_turn: None,
            active: Vec::new(),
            warm: Warm::default(),
            full_since: None,
            look_at: None,
            now,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds one that has just connected.
    pub fn add(&mut self) -> ClientId {
        self.put(Session::new(self.max_line, self.now))
    }

    /// Adds one that a child before this one had.
    pub fn resume(&mut self, rest: Rest<'_>) -> ClientId {
        let id = self.put(Session::resume(rest, self.max_line, self.now));
        self.weigh(id);
        id
    }

    fn put(&mut self, session: Session) -> ClientId {
        self.count += 1;
        self.users.entry(session.user).or_default().clients += 1;
        match self.free.pop() {
            Some(index) => {
                let place = &mut self.places[index as usize];
                place.1 = Some(session);
                ClientId { index, generation: place.0 }
            }
            None => {
                let index = self.places.len() as u32;
                self.places.push((0, Some(session)));
                ClientId { index, generation: 0 }
            }
        }
    }

    /// Notes whose a program is.
    pub fn belongs(&mut self, id: ClientId, user: u32) {
        let Some(session) = self.get(id) else { return };
        let (before, read) = (std::mem::replace(&mut session.user, user), session.weighed.0);
        self.leave(id, before, read);
        let now = self.users.entry(user).or_default();
        now.clients += 1;
        now.read += read;
    }

    fn leave(&mut self, id: ClientId, user: u32, read: usize) {
        if let Some(had) = self.users.get_mut(&user) {
            had.clients -= 1;
            had.read -= read;
            had.over.take_if(|over| *over == id);
            if had.clients == 0 {
                self.users.remove(&user);
            }
        }
    }

    /// Forgets one; answers for it find nobody from now on.
    pub fn remove(&mut self, id: ClientId) {
        let Some(session) = self.get(id) else { return };
        let ((read, unread), user) = (session.weighed, session.user);
        self.read -= read;
        self.unread -= unread;
        self.leave(id, user, read);
        self.end_turn_of(id);
        self.relieved = true;
        let place = &mut self.places[id.index()];
        place.1 = None;
        place.0 = place.0.wrapping_add(1);
        self.free.push(id.index);
        self.count -= 1;
    }

    /// One, if it is still there. To be weighed when it was changed.
    pub fn get(&mut self, id: ClientId) -> Option<&mut Session> {
        match self.places.get_mut(id.index()) {
            Some((generation, session)) if *generation == id.generation => session.as_mut(),
            Some(_) | None => None,
        }
    }

    /// One, if it is still there, to be looked at.
    pub fn peek(&self, id: ClientId) -> Option<&Session> {
        match self.places.get(id.index()) {
            Some((generation, session)) if *generation == id.generation => session.as_ref(),
            Some(_) | None => None,
        }
    }

    /// All that are connected, by their places.
    pub fn ids(&self) -> Vec<ClientId> {
        self.each().map(|(id, _)| id).collect()
    }

    fn each(&self) -> impl Iterator<Item = (ClientId, &Session)> {
        self.places.iter().enumerate().filter_map(|(index, (generation, session))| {
            let id = ClientId { index: index as u32, generation: *generation };
            session.as_ref().map(|session| (id, session))
        })
    }

    // The sums.

    /// A session was changed: what it holds is counted again.
    pub fn weigh(&mut self, id: ClientId) {
        let Some(session) = self.get(id) else { return };
        session.reader.compact();
        let now = (session.reader.memory(), session.answers_memory());
        let before = std::mem::replace(&mut session.weighed, now);
        let user = session.user;
        if now == before {
            return;
        }
        if now.0.max(now.1) > KEPT_SPARINGLY {
            self.keep_warm(id, now.0.max(now.1));
        }
        self.read = self.read + now.0 - before.0;
        self.unread = self.unread + now.1 - before.1;
        if let Some(had) = self.users.get_mut(&user) {
            had.read = had.read + now.0 - before.0;
            had.over.take_if(|over| *over == id && now.0 < ALWAYS);
        }
        self.relieved |= now.0 < before.0;
        let goes_on = |one: &Session| one.weighed.0 >= ALWAYS && one.needs_turn();
        if self.turn.is_some_and(|(whose, _)| whose == id) && !self.peek(id).is_some_and(goes_on) {
            self.end_turn_of(id);
        }
    }

    /// A program has sent something, or has taken some of its answers.
    pub fn was_active(&mut self, id: ClientId) {
        if let Some(session) = self.get(id)
            && !std::mem::replace(&mut session.active, true)
        {
            self.active.push(id);
        }
    }

    /// Bytes that may be read from a program now. One that is not read for want of room is noted,
    /// and comes out of [`Sessions::take_fed`] when there is some.
    pub fn may_read(&mut self, id: ClientId) -> usize {
        let Some(session) = self.peek(id).filter(|session| session.wants_read()) else { return 0 };
        let (user, held, room) = (session.user, session.reader.len(), session.room());
        let allowed = self.allowed(id, user, held).min(room);
        if allowed > 0 {
            return allowed;
        }
        if self.turn.is_none() && self.starved.is_empty() && self.may_have_turn(id) {
            self.give_turn(id, user);
            return room;
        }
        self.starve(id);
        0
    }

    fn allowed(&self, id: ClientId, user: u32, held: usize) -> usize {
        if self.turn.is_some_and(|(whose, _)| whose == id) {
            return usize::MAX;
        }
        let of_user = self.users.get(&user).map_or(0, |user| user.read);
        let free = READ_SUM.saturating_sub(self.read).min(READ_OF_USER.saturating_sub(of_user));
        let always = ALWAYS.saturating_sub(held);
        if free >= WORTH_A_READ { free.max(always) } else { always }
    }

    fn starve(&mut self, id: ClientId) {
        if let Some(session) = self.get(id)
            && !std::mem::replace(&mut session.starved, true)
        {
            self.starved.push_back(id);
            // Those before it may all be such as have no turn.
            self.relieved |= self.turn.is_none() && self.may_have_turn(id);
        }
    }

    fn may_have_turn(&self, id: ClientId) -> bool {
        let Some(session) = self.peek(id) else { return false };
        let over = self.users.get(&session.user).and_then(|user| user.over);
        over.is_none_or(|over| over == id) && session.needs_turn()
    }

    fn give_turn(&mut self, id: ClientId, user: u32) {
        if let Some(user) = self.users.get_mut(&user) {
            user.over = Some(id);
        }
        self.turn = Some((id, self.now));
        self.last_turn = Some(user);
    }

    fn end_turn_of(&mut self, id: ClientId) {
        if self.turn.is_some_and(|(whose, _)| whose == id) {
            self.turn = None;
            self.relieved = true;
        }
    }

    /// The programs that were not read for want of room, and can be now.
    pub fn take_fed(&mut self) -> Vec<ClientId> {
        if !std::mem::take(&mut self.relieved) || self.starved.is_empty() {
            return Vec::new();
        }
        let mut fed = Vec::new();
        let mut granted = 0;
        if self.turn.is_none() {
            // Another user's program first, so that those of one don't keep the turn among
            // themselves.
            let user = |id: &ClientId| self.peek(*id).map(|one| one.user);
            let may = |id: &ClientId| user(id).filter(|_| self.may_have_turn(*id));
            let users: Vec<_> = self.starved.iter().map(may).collect();
            let others = users.iter().position(|user| user.is_some() && *user != self.last_turn);
            let next = others.or(users.iter().position(Option::is_some));
            if let Some((id, user)) = next.and_then(|at| Some((self.starved.remove(at)?, users[at]?))) {
                self.give_turn(id, user);
                fed.push(id);
            }
        }
        for id in std::mem::take(&mut self.starved) {
            let Some(session) = self.peek(id) else { continue };
            let (user, held, room) = (session.user, session.reader.len(), session.room());
            if self.read + granted < READ_SUM && self.allowed(id, user, held) > 0 {
                // As much as it may become; what is not used comes to the next turn of the loop.
                granted += room.min(base::line::READ_SIZE);
                fed.push(id);
            } else {
                self.starved.push_back(id);
            }
        }
        for id in &fed {
            if let Some(session) = self.get(*id) {
                session.starved = false;
            }
        }
        fed
    }

    /// Whether there is room for the answers of the peer.
    pub fn hears(&self) -> bool {
        self.unread < unread_sum(self.max_line)
    }

    // Who is given up.

    /// What is to be done with one more program of this user.
    pub fn admit(&self, user: u32) -> Admission {
        let of_user = self.users.get(&user).map_or(0, |user| user.clients);
        if of_user >= MAX_OF_USER {
            return self.idlest(Some(user)).map_or(Admission::Full, Admission::InPlaceOf);
        }
        if self.count < MAX_CLIENTS {
            return Admission::Welcome;
        }
        let most = self.users.iter().max_by_key(|(_, user)| user.clients).map(|(user, _)| *user);
        self.idlest(most).or_else(|| self.idlest(None)).map_or(Admission::Full, Admission::InPlaceOf)
    }

    /// The program, of this user if one is given, that is owed nothing and was silent for longest.
    pub fn idlest(&self, user: Option<u32>) -> Option<ClientId> {
        let idle = self.each().filter(|(_, one)| user.is_none_or(|user| one.user == user) && one.is_idle());
        idle.min_by_key(|(_, session)| session.active_at).map(|(id, _)| id)
    }

    /// Notes the time, and gives up who keeps others waiting: who that is, and of which user. They
    /// are finished then.
    pub fn keep_time(&mut self, now: Instant) -> Vec<(ClientId, u32, Hoarder)> {
        self.now = now;
        let mut active = std::mem::take(&mut self.active);
        for id in active.drain(..) {
            if let Some(session) = self.get(id) {
                session.active = false;
                session.active_at = now;
            }
        }
        // Its room serves the next turn.
        self.active = active;
        self.cool(now);
        let ends = self.turn.filter(|(id, since)| {
            let goes_on = |one: &Session| one.needs_turn() && (one.reader.len() >= ALWAYS || *since >= now);
            !self.peek(*id).is_some_and(goes_on)
        });
        if let Some((id, _)) = ends {
            self.end_turn_of(id);
        }
        self.full_since = if self.hears() { None } else { self.full_since.or(Some(now)) };
        if self.starved.is_empty() && self.full_since.is_none() {
            self.look_at = None;
            return Vec::new();
        }
        if self.look_at.is_some_and(|at| at > now) {
            return Vec::new();
        }
        let mut given_up = Vec::new();
        if !self.starved.is_empty() {
            given_up.extend(self.slow_lines(now));
        }
        if let Some(since) = self.full_since {
            given_up.extend(self.unread_answers(since, now));
        }
        for (id, _, why) in &given_up {
            if let Some(session) = self.get(*id) {
                session.give_up(*why);
            }
            self.weigh(*id);
            self.end_turn_of(*id);
        }
        self.full_since = self.full_since.filter(|_| given_up.is_empty());
        self.look_at = Some(now + LOOK_EVERY);
        given_up
    }

    /// When [`Sessions::keep_time`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let waits = !self.starved.is_empty() || !self.hears();
        let look_at = waits.then(|| self.look_at.unwrap_or(self.now));
        look_at.into_iter().chain(self.warm.deadline()).min()
    }

    /// Who holds the beginning of a line and is silent, or slow though it has the turn.
    fn slow_lines(&self, now: Instant) -> Vec<(ClientId, u32, Hoarder)> {
        let slow = self.each().filter(|(id, session)| {
            let turn = self.turn.filter(|(whose, _)| whose == id);
            let patience = if turn.is_some() { SILENT_IN_TURN } else { SILENT };
            let silent = !session.starved && session.active_at + patience <= now;
            session.holds_beginning() && (silent || turn.is_some_and(|(_, since)| since + TURN <= now))
        });
        slow.map(|(id, session)| (id, session.user, Hoarder::Line)).collect()
    }

    /// Who has the most answers that are not read, until there is room again.
    fn unread_answers(&self, since: Instant, now: Instant) -> Vec<(ClientId, u32, Hoarder)> {
        if since + UNREAD_PATIENCE > now {
            return Vec::new();
        }
        let takes_none = |session: &Session| session.active_at <= since;
        let patient = since + UNREAD_MOST > now;
        let mut most: Vec<_> = self.each().filter(|(_, one)| one.weighed.1 > 0).collect();
        most.retain(|(_, session)| !patient || takes_none(session));
        most.sort_by_key(|(_, session)| std::cmp::Reverse(session.weighed.1));
        let mut left = self.unread;
        let enough = unread_sum(self.max_line) / 2;
        let needed = most.into_iter().take_while(|(_, session)| {
            let needed = left > enough;
            left -= session.weighed.1;
            needed
        });
        needed.map(|(id, session)| (id, session.user, Hoarder::Answers)).collect()
    }
}

#[cfg(test)]
mod tests;
