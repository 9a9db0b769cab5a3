//! How the programs' connections pass from a link child to the next one of the same peer.
//!
//! A [`Passage`] is a socket pair that the supervisor makes when it tells a child to hand over, and
//! has until the next child has taken over. The child that is replaced is sent the end where
//! programs go in ([`Handover::send`]); the next child is born with the end where they come out,
//! and takes them before it accepts any ([`Takeover::receive`]). So what a child that died at its
//! start has not taken is still there for the one after it, and no child that serves can leave
//! anything in there. Where the supervisor is gone, so is the reading end: sending fails, and so it
//! does when the passage is full. Sending never waits.
//!
//! A message is one packet: [`FORM`], and as descriptors a nameless file and up to [`PER_MESSAGE`]
//! connections. The file has a record for each connection with what the child had read of its
//! requests and not written of its answers: in a file, because a packet has the bound of a socket's
//! buffer, and whole or not there at all, because the child may be killed at any moment.
//!
//! What comes out was put in by a process that may have been taken over. It is believed as far as
//! its programs are concerned, which were that process's to answer, and no further: whatever is of
//! another form (an older program's, too), too long or too much ([`Room`]) is dropped with an error
//! in the log, and so is what is no connection; a program whose connection was in it sees its end.

use super::session::Rest;
use crate::sessions::MAX_CLIENTS;
use nix::cmsg_space;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, getsockname,
    getsockopt, recvmsg, sendmsg, setsockopt, socketpair, sockopt,
};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, IoSlice, IoSliceMut, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Connections in one message: the kernel takes [`DESCRIPTORS`], the file's among them.
pub const PER_MESSAGE: usize = 250;
/// Descriptors that the kernel takes with one message, whoever sends it.
const DESCRIPTORS: usize = 253;
/// Bytes of requests not taken and answers not written that go to the next child with all programs
/// together. More than [`crate::sessions`] lets there be, with the longest lines too.
pub const HANDED_BYTES: usize = 128 << 20;
/// What a passage's buffer is told to hold: 40 messages at least, and 60 at most. All programs that
/// a child can have go in fewer. The kernel counts some 800 bytes for each, and doubles this.
const BUFFER: usize = 20 << 10;
/// More descriptors than that go into no passage, whatever a child sends.
pub const IN_PASSAGE: u64 = 60 * DESCRIPTORS as u64;

/// The form of a message; another one for every change of it.
const FORM: u8 = 1;
/// Flags, bytes read, bytes not written.
const RECORD_HEAD: usize = 1 + 8 + 8;
const ENDED: u8 = 1;
const SKIPPING: u8 = 2;

/// Both ends of what programs pass through: the child that goes writes, the next one reads.
#[derive(Debug)]
pub struct Passage {
    into: OwnedFd,
    out: OwnedFd,
}

/// The end of a child that hands its programs over.
#[derive(Debug)]
pub struct Handover(OwnedFd);

/// The end of the child that takes them over.
#[derive(Debug)]
pub struct Takeover(OwnedFd);

/// What is taken out of a passage in all; the rest of it is dropped.
#[derive(Debug)]
pub struct Room {
    programs: usize,
    bytes: u64,
}

impl Default for Room {
    fn default() -> Room {
        Room { programs: MAX_CLIENTS, bytes: (HANDED_BYTES + MAX_CLIENTS * RECORD_HEAD) as u64 }
    }
}

/// A program as it comes out of a passage: its connection, and what the child before had of it.
pub type Handed = (UnixStream, Rest<'static>);

impl Passage {
    /// A new one; closed on `exec`.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn new() -> io::Result<Passage> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (into, out) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        setsockopt(&into, sockopt::SndBuf, &BUFFER)?;
        Ok(Passage { into, out })
    }

    /// From the descriptors that [`Passage::ends`] told.
    pub fn from_ends(into: OwnedFd, out: OwnedFd) -> Passage {
        Passage { into, out }
    }

    /// The end where programs go in, and the end where they come out.
    pub fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.into.as_fd(), self.out.as_fd()]
    }

    /// The end of the child that hands over.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn handover(&self) -> io::Result<Handover> {
        self.into.try_clone().map(Handover)
    }

    /// The end of a child that takes over.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn takeover(&self) -> io::Result<Takeover> {
        self.out.try_clone().map(Takeover)
    }
}

impl Takeover {
    /// The next programs; `None` when there are no more.
    ///
    /// # Errors
    /// There were too few descriptors for them. Some may be open and nobody's then: the process is
    /// to end.
    pub fn receive(&self, room: &mut Room) -> io::Result<Option<Vec<Handed>>> {
        let mut form = [0];
        // For as many as there can be: where some are cut off, this process can have no more.
        let mut space = cmsg_space!([RawFd; DESCRIPTORS]);
        let mut data = [IoSliceMut::new(&mut form)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let mut descriptors = Vec::new();
        let bytes = match recvmsg::<()>(self.0.as_raw_fd(), &mut data, Some(&mut space), flags) {
            Ok(message) => {
                for part in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(numbers) = part {
                        // SAFETY: the kernel has just opened them for this process; nothing else
                        // knows them.
                        let owned = |number| unsafe { OwnedFd::from_raw_fd(number) };
                        descriptors.extend(numbers.into_iter().map(owned));
                    }
                }
                message.bytes
            }
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // Whoever is gone has sent all; a packet of nothing is none of ours.
        if bytes == 0 && descriptors.is_empty() {
            return Ok(None);
        }
        let of_ours = (bytes, form) == (1, [FORM]);
        let handed = if of_ours { unpack(descriptors, room) } else { Err(malformed("of another form")) };
        Ok(Some(handed.unwrap_or_else(|error| {
            log::error!("take programs over: {error}; their connections are closed");
            Vec::new()
        })))
    }
}

impl AsFd for Takeover {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Handover {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Handover {
    /// As it came from the supervisor.
    fn from(end: OwnedFd) -> Handover {
        Handover(end)
    }
}

impl Handover {
    /// Hands these programs over, all or none: [`PER_MESSAGE`] at most.
    ///
    /// # Errors
    /// The passage is full, its other end is gone, or there is no room for the file.
    pub fn send<'a>(&self, programs: &[(BorrowedFd<'a>, Rest<'a>)]) -> io::Result<()> {
        let file = pack(programs.iter().map(|(_, rest)| rest))?;
        let mut descriptors = vec![file.as_raw_fd()];
        descriptors.extend(programs.iter().map(|(stream, _)| stream.as_raw_fd()));
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&[FORM])], &rights, flags, None)?;
        Ok(())
    }
}

fn pack<'a>(rests: impl Iterator<Item = &'a Rest<'a>>) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"lonnet-programs", MFdFlags::MFD_CLOEXEC)?);
    let mut writer = BufWriter::new(&mut file);
    for rest in rests {
        let flags = if rest.ended { ENDED } else { 0 } | if rest.skipping { SKIPPING } else { 0 };
        writer.write_all(&[flags])?;
        writer.write_all(&(rest.unread.len() as u64).to_le_bytes())?;
        writer.write_all(&(rest.unsent.len() as u64).to_le_bytes())?;
        writer.write_all(&rest.unread)?;
        writer.write_all(&rest.unsent)?;
    }
    writer.flush()?;
    drop(writer);
    Ok(file)
}

fn unpack(descriptors: Vec<OwnedFd>, room: &mut Room) -> io::Result<Vec<Handed>> {
    let mut descriptors = descriptors.into_iter();
    let mut file = File::from(descriptors.next().ok_or_else(|| malformed("without its file"))?);
    let about = file.metadata()?;
    // Of another kind it could make this process wait.
    if !about.is_file() {
        return Err(malformed("whose file is none"));
    }
    let left = room.bytes.checked_sub(about.len()).zip(room.programs.checked_sub(descriptors.len()));
    let (bytes, programs) = left.ok_or_else(|| malformed("of more than a child may have"))?;
    *room = Room { programs, bytes };
    file.rewind()?;
    let mut reader = BufReader::new(file.take(about.len()));
    let mut handed = Vec::new();
    for stream in descriptors {
        let mut head = [0; RECORD_HEAD];
        reader.read_exact(&mut head)?;
        let [flags, lengths @ ..] = head;
        let (unread, unsent) = lengths.split_at(8);
        let rest = Rest {
            unread: Cow::Owned(take(&mut reader, unread)?),
            skipping: flags & SKIPPING != 0,
            unsent: Cow::Owned(take(&mut reader, unsent)?),
            ended: flags & ENDED != 0,
        };
        handed.push((connection(stream)?, rest));
    }
    Ok(handed)
}

/// A program's connection, at which nobody waits, and nothing else.
fn connection(descriptor: OwnedFd) -> io::Result<UnixStream> {
    let is_local = getsockname::<UnixAddr>(descriptor.as_raw_fd()).is_ok();
    let is_stream = getsockopt(&descriptor, sockopt::SockType) == Ok(SockType::Stream);
    if !is_local || !is_stream || getsockopt(&descriptor, sockopt::AcceptConn)? {
        return Err(malformed("with what is no connection"));
    }
    if !net::does_not_wait(&descriptor)? {
        return Err(malformed("with a connection that would be waited for"));
    }
    Ok(descriptor.into())
}

fn take(reader: &mut impl Read, length: &[u8]) -> io::Result<Vec<u8>> {
    let length = length.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(malformed("cut short")) }
}

fn malformed(how: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("a message {how}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest<'a>(unread: &'a [u8], unsent: &'a [u8], skipping: bool, ended: bool) -> Rest<'a> {
        Rest { unread: unread.into(), unsent: unsent.into(), skipping, ended }
    }

    /// A program's end, and that of a child, which does not wait.
    fn pair() -> (UnixStream, UnixStream) {
        let (program, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (program, ours)
    }

    fn receive(passage: &Passage) -> Option<Vec<Handed>> {
        passage.takeover().unwrap().receive(&mut Room::default()).unwrap()
    }

    #[test]
    fn a_connection_goes_through_with_its_bytes_both_ways_and_so_does_what_lies_in_the_kernel() {
        let passage = Passage::new().unwrap();
        let child = passage.handover().unwrap();
        let (mut program, ours) = pair();
        program.write_all(b"unread by all\n").unwrap();
        let long = vec![b'x'; 3 << 20];
        let rests = [rest(b"half a li", b"", false, false), rest(&long, b"an answer\n", true, true)];
        child.send(&[(ours.as_fd(), rests[0].clone()), (ours.as_fd(), rests[1].clone())]).unwrap();
        drop((ours, child));

        let next = passage.takeover().unwrap();
        let mut handed = next.receive(&mut Room::default()).unwrap().unwrap();
        assert_eq!(handed.iter().map(|(_, rest)| rest.clone()).collect::<Vec<_>>(), rests);
        let mut bytes = [0; 14];
        handed[0].0.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"unread by all\n");
        assert!(next.receive(&mut Room::default()).unwrap().is_none());
    }

    #[test]
    fn who_is_not_taken_out_stays_for_the_next_and_is_closed_when_the_passage_goes() {
        let passage = Passage::new().unwrap();
        let (mut program, ours) = pair();
        let child = passage.handover().unwrap();
        child.send(&[(ours.as_fd(), rest(b"", b"", false, false))]).unwrap();
        drop((ours, child));
        // A child that dies before it has taken anything.
        drop(passage.takeover().unwrap());
        let handed = receive(&passage).unwrap();
        assert_eq!(handed.len(), 1);
        let child = passage.handover().unwrap();
        child.send(&[(handed[0].0.as_fd(), rest(b"", b"", false, false))]).unwrap();
        drop((handed, passage));
        assert_eq!(program.read(&mut [0; 1]).unwrap(), 0);
        let (_program, ours) = pair();
        child.send(&[(ours.as_fd(), rest(b"", b"", false, false))]).unwrap_err();
    }

    #[test]
    fn all_that_a_child_may_have_go_through_and_a_full_passage_refuses_without_waiting() {
        let passage = Passage::new().unwrap();
        let child = passage.handover().unwrap();
        let (_program, ours) = pair();
        let many: Vec<_> =
            (0..PER_MESSAGE).map(|_| (ours.as_fd(), rest(b"some", b"", false, false))).collect();
        let mut messages = 0;
        let error = loop {
            match child.send(&many[..if messages < 17 { PER_MESSAGE } else { 1 }]) {
                Ok(()) => messages += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!((40..60).contains(&messages), "{messages}");
        let mut count = 0;
        while let Some(handed) = receive(&passage) {
            count += handed.len();
        }
        assert_eq!(count, 17 * PER_MESSAGE + messages - 17);
    }

    #[test]
    fn a_message_of_another_form_is_dropped_and_the_next_is_taken() {
        let passage = Passage::new().unwrap();
        let child = passage.handover().unwrap();
        let (mut program, ours) = pair();
        let send = |data: &[u8], descriptors: &[RawFd]| {
            let rights = [ControlMessage::ScmRights(descriptors)];
            let to = child.0.as_raw_fd();
            sendmsg::<()>(to, &[IoSlice::new(data)], &rights, MsgFlags::empty(), None).unwrap();
        };
        let empty = File::from(memfd_create(c"empty", MFdFlags::MFD_CLOEXEC).unwrap());
        send(&[FORM + 1], &[ours.as_raw_fd()]);
        send(&[FORM], &[empty.as_raw_fd(), ours.as_raw_fd()]);
        drop(ours);
        assert_eq!(receive(&passage).unwrap().len(), 0);
        assert_eq!(receive(&passage).unwrap().len(), 0);
        assert_eq!(program.read(&mut [0; 1]).unwrap(), 0, "its connection was kept open");
        let (_program, ours) = pair();
        child.send(&[(ours.as_fd(), rest(b"", b"", false, false))]).unwrap();
        assert_eq!(receive(&passage).unwrap().len(), 1);
    }

    fn send(passage: &Passage, data: &[u8], descriptors: &[RawFd]) {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let to = passage.into.as_raw_fd();
        sendmsg::<()>(to, &[IoSlice::new(data)], &rights, MsgFlags::empty(), None).unwrap();
    }

    fn file(length: u64) -> File {
        let file = File::from(memfd_create(c"whatever", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(length).unwrap();
        file
    }

    /// What a process may put in that was taken over: none of it ends the next child, makes it
    /// wait, fills its memory or is a program; and what is well is taken all the same.
    #[test]
    fn what_no_child_of_ours_puts_in_is_dropped() {
        let passage = Passage::new().unwrap();
        let (_program, ours) = pair();
        let number = ours.as_raw_fd();
        let well = || {
            passage.handover().unwrap().send(&[(ours.as_fd(), rest(b"x", b"", false, false))]).unwrap();
        };
        let one = file(RECORD_HEAD as u64);
        let huge = file(1 << 50);
        let empty_pipe = UnixStream::pair().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let listening = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        let datagrams = std::os::unix::net::UnixDatagram::unbound().unwrap();
        // SAFETY: two numbers; what comes back is nobody else's.
        let event = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
        for (what, data, descriptors) in [
            ("as many as there can be", &[FORM][..], vec![number; DESCRIPTORS]),
            ("without anything", &[FORM], vec![]),
            ("without a byte", &[], vec![one.as_raw_fd(), number]),
            ("a socket for its file", &[FORM], vec![empty_pipe.0.as_raw_fd(), number]),
            ("an event for its file, which would be waited for", &[FORM], vec![event.as_raw_fd(), number]),
            ("a file for a program", &[FORM], vec![one.as_raw_fd(), one.as_raw_fd()]),
            ("a listening socket", &[FORM], vec![one.as_raw_fd(), listening.as_raw_fd()]),
            (
                "a connection that would be waited for",
                &[FORM],
                vec![one.as_raw_fd(), empty_pipe.0.as_raw_fd()],
            ),
            ("datagrams", &[FORM], vec![one.as_raw_fd(), datagrams.as_raw_fd()]),
            ("a petabyte", &[FORM], vec![huge.as_raw_fd(), number]),
        ] {
            send(&passage, data, &descriptors);
            well();
            let (takeover, mut room) = (passage.takeover().unwrap(), Room::default());
            let mut next = || takeover.receive(&mut room).unwrap().map(|handed| handed.len());
            assert_eq!([next(), next(), next()], [Some(0), Some(1), None], "{what}");
        }
    }

    #[test]
    fn no_more_is_taken_out_than_a_child_may_have() {
        let passage = Passage::new().unwrap();
        let (_program, ours) = pair();
        let heads = file((PER_MESSAGE * RECORD_HEAD) as u64);
        let mut full = vec![ours.as_raw_fd(); PER_MESSAGE + 1];
        full[0] = heads.as_raw_fd();
        let (takeover, mut room) = (passage.takeover().unwrap(), Room::default());
        let mut taken = 0;
        for _ in 0..MAX_CLIENTS.div_ceil(PER_MESSAGE) + 1 {
            send(&passage, &[FORM], &full);
            taken += takeover.receive(&mut room).unwrap().unwrap().len();
        }
        assert_eq!(taken, MAX_CLIENTS / PER_MESSAGE * PER_MESSAGE);
        let (more_than_half, mut room) = (file(HANDED_BYTES as u64 / 3 * 2), Room::default());
        let mut left = Vec::new();
        for _ in 0..3 {
            left.push(room.bytes);
            send(&passage, &[FORM], &[more_than_half.as_raw_fd()]);
            takeover.receive(&mut room).unwrap();
        }
        assert!(left[1] < left[0] && left[1] == left[2], "the second does not fit: {left:?}");
    }
}
