//! The reactor's part when programs pass from child to child: their connections out of the passage, and into it.

use super::{Reactor, user_of};
use crate::lonc::broker::Broker;
use crate::lonc::handover::{PER_MESSAGE, Passage};
use crate::lonc::session::ClientId;
use crate::spool::Disk;
use mio::net::UnixStream;
use std::io;
use std::os::fd::AsFd;

impl<D: Disk> Reactor<D> {
    /// Hands over the programs that can go to the next child; whether some could not after all, and are served here.
    pub(super) fn hand_over(&mut self) -> bool {
        let going = self.broker.take_going();
        let mut some_stay = false;
        for group in going.chunks(PER_MESSAGE) {
            let clients = group.iter().filter_map(|id| self.clients.get(id.index())?.as_ref());
            let programs: Vec<_> = clients
                .filter_map(|client| Some((client.stream.as_fd(), self.broker.rest(client.id)?)))
                .collect();
            let sent = self.handover.send(&programs);
            if let Err(error) = &sent {
                log::warn!("hand {} programs over: {error}; they are served to the end here", group.len());
                some_stay = true;
            }
            for &id in group {
                match sent {
                    Ok(()) => self.let_go(id),
                    Err(_) => self.broker.client_stays(id),
                }
            }
        }
        some_stay
    }

    /// A program is the next child's. Its connection stays open, in the passage, and so it would in the poll.
    fn let_go(&mut self, id: ClientId) {
        if let Some(Some(client)) = self.clients.get_mut(id.index())
            && let Err(error) = self.poll.registry().deregister(&mut client.stream)
        {
            log::debug!("deregister a program's connection: {error}");
        }
        self.close_client(id);
    }
}

/// Takes the programs out of the passage.
pub(super) fn take_over<D: Disk>(
    passage: &Passage,
    broker: &mut Broker<D>,
) -> io::Result<Vec<(ClientId, UnixStream)>> {
    let mut programs = Vec::new();
    while let Some(handed) = passage.receive()? {
        for (stream, rest) in handed {
            let stream = UnixStream::from_std(stream);
            let id = broker.client_handed(rest);
            broker.client_belongs(id, user_of(&stream));
            programs.push((id, stream));
        }
    }
    if !programs.is_empty() {
        log::info!("took {} connected programs over", programs.len());
    }
    Ok(programs)
}
