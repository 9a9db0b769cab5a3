//! The broker's part that the local programs see: who comes, what they send, and who goes.

use super::Broker;
use crate::session::{ClientId, Session};
use crate::sessions::Admission;
use base::Credentials;
use store::spool::Disk;

impl<D: Disk> Broker<D> {
    /// A program connected.
    pub fn client_connected(&mut self) -> ClientId {
        self.programs.sessions_mut().add()
    }

    /// Whose a program is, as the system says.
    pub fn client_belongs(&mut self, id: ClientId, who: Credentials) {
        self.programs.sessions_mut().belongs(id, who.user);
        if let Some(session) = self.programs.sessions_mut().get(id) {
            session.who = who;
        }
    }

    /// What is to be done with one more program, of this user.
    pub fn admit(&self, user: u32) -> Admission {
        self.programs.sessions().admit(user)
    }

    /// The program that may go when one more is to come and this process can have no more
    /// connections.
    pub fn idlest_client(&self) -> Option<ClientId> {
        self.programs.sessions().idlest(None)
    }

    /// All programs that are connected.
    pub fn clients(&self) -> Vec<ClientId> {
        self.programs.sessions().ids()
    }

    /// A program's session.
    pub fn session(&mut self, id: ClientId) -> Option<&mut Session> {
        self.programs.sessions_mut().get(id)
    }

    /// The programs that may have something to be written, or may be finished, into `touched`,
    /// which is empty. Some may be gone.
    pub fn take_touched(&mut self, touched: &mut Vec<ClientId>) {
        self.programs.take_touched(touched);
    }

    /// Bytes that may be read from a program now. Who is not read for want of room comes out of
    /// [`Broker::take_fed`] later.
    pub fn may_read(&mut self, id: ClientId) -> usize {
        self.programs.sessions_mut().may_read(id)
    }

    /// The programs that may be read again.
    pub fn take_fed(&mut self) -> Vec<ClientId> {
        self.programs.sessions_mut().take_fed()
    }

    /// A program sent something.
    pub fn client_sent(&mut self, id: ClientId, bytes: &[u8]) {
        self.programs.sent(id, bytes);
    }

    /// A program shut its writing half: it still gets its answers.
    pub fn client_closed_input(&mut self, id: ClientId) {
        self.programs.close_input(id);
    }

    /// A program is gone. Its critical requests are carried out all the same.
    pub fn client_gone(&mut self, id: ClientId) {
        self.programs.sessions_mut().remove(id);
    }

    /// Answers were written to a program, so there may be room for more of its requests.
    pub fn client_read(&mut self, id: ClientId) {
        self.programs.read(id);
    }
}
