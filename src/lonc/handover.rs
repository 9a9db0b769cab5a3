//! How the programs' connections pass from a link child to the next one of the same peer.
//!
//! A [`Passage`] is a socket pair that the supervisor has for each peer, through any number of
//! children, HUPs and reloads. A child that is replaced puts its programs in ([`Handover::send`]);
//! the next child takes them out before it accepts any ([`Passage::receive`]). Nobody else reads
//! there, so what a child that died at its start has not taken is still there for the one after it.
//! Where the supervisor is gone, so is the reading end: sending fails, and so it does when the
//! passage is full. Sending never waits.
//!
//! A message is one packet: [`FORM`], and as descriptors a nameless file and up to [`PER_MESSAGE`]
//! connections. The file has a record for each connection with what the child had read of its
//! requests and not written of its answers: in a file, because a packet has the bound of a socket's
//! buffer, and whole or not there at all, because the child may be killed at any moment. A packet
//! of another form (of an older program than this one) is dropped with an error in the log; its
//! programs see their connections end.

use super::session::Rest;
use nix::cmsg_space;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, IoSlice, IoSliceMut, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Connections in one message: the kernel takes 253 descriptors, the file's among them.
pub const PER_MESSAGE: usize = 250;

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

/// The end of a child that may have to hand its programs over.
#[derive(Debug)]
pub struct Handover(OwnedFd);

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

    /// The same passage for a child.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn try_clone(&self) -> io::Result<Passage> {
        Ok(Passage { into: self.into.try_clone()?, out: self.out.try_clone()? })
    }

    /// The next programs; `None` when there are no more.
    ///
    /// # Errors
    /// There were too few descriptors for them. Some may be open and nobody's then: the process is
    /// to end.
    pub fn receive(&self) -> io::Result<Option<Vec<Handed>>> {
        let mut form = [0];
        let mut space = cmsg_space!([RawFd; PER_MESSAGE + 1]);
        let mut data = [IoSliceMut::new(&mut form)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let mut descriptors = Vec::new();
        let bytes = match recvmsg::<()>(self.out.as_raw_fd(), &mut data, Some(&mut space), flags) {
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
        if bytes == 0 {
            return Ok(None);
        }
        let handed = if form == [FORM] { unpack(descriptors) } else { Err(malformed("of another form")) };
        Ok(Some(handed.unwrap_or_else(|error| {
            log::error!("take programs over: {error}; their connections are closed");
            Vec::new()
        })))
    }

    /// Closes the end where programs come out, once they all have.
    pub fn into_handover(self) -> Handover {
        Handover(self.into)
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

fn unpack(descriptors: Vec<OwnedFd>) -> io::Result<Vec<Handed>> {
    let mut descriptors = descriptors.into_iter();
    let mut file = File::from(descriptors.next().ok_or_else(|| malformed("without its file"))?);
    file.rewind()?;
    let mut reader = BufReader::new(file);
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
        handed.push((UnixStream::from(stream), rest));
    }
    Ok(handed)
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

    #[test]
    fn a_connection_goes_through_with_its_bytes_both_ways_and_so_does_what_lies_in_the_kernel() {
        let passage = Passage::new().unwrap();
        let child = passage.try_clone().unwrap().into_handover();
        let (mut program, ours) = UnixStream::pair().unwrap();
        program.write_all(b"unread by all\n").unwrap();
        let long = vec![b'x'; 3 << 20];
        let rests = [rest(b"half a li", b"", false, false), rest(&long, b"an answer\n", true, true)];
        child.send(&[(ours.as_fd(), rests[0].clone()), (ours.as_fd(), rests[1].clone())]).unwrap();
        drop((ours, child));

        let next = passage.try_clone().unwrap();
        let mut handed = next.receive().unwrap().unwrap();
        assert_eq!(handed.iter().map(|(_, rest)| rest.clone()).collect::<Vec<_>>(), rests);
        let mut bytes = [0; 14];
        handed[0].0.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"unread by all\n");
        assert!(next.receive().unwrap().is_none());
    }

    #[test]
    fn who_is_not_taken_out_stays_for_the_next_and_is_closed_when_the_passage_goes() {
        let passage = Passage::new().unwrap();
        let (mut program, ours) = UnixStream::pair().unwrap();
        let child = passage.try_clone().unwrap().into_handover();
        child.send(&[(ours.as_fd(), rest(b"", b"", false, false))]).unwrap();
        drop((ours, child));
        // A child that dies before it has taken anything.
        drop(passage.try_clone().unwrap());
        let handed = passage.receive().unwrap().unwrap();
        assert_eq!(handed.len(), 1);
        let child = passage.try_clone().unwrap().into_handover();
        child.send(&[(handed[0].0.as_fd(), rest(b"", b"", false, false))]).unwrap();
        drop((handed, passage));
        assert_eq!(program.read(&mut [0; 1]).unwrap(), 0);
        let (_program, ours) = UnixStream::pair().unwrap();
        child.send(&[(ours.as_fd(), rest(b"", b"", false, false))]).unwrap_err();
    }

    #[test]
    fn all_that_a_child_may_have_go_through_and_a_full_passage_refuses_without_waiting() {
        let passage = Passage::new().unwrap();
        let child = passage.try_clone().unwrap().into_handover();
        let (_program, ours) = UnixStream::pair().unwrap();
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
        assert!(messages > 100, "{messages}");
        let mut count = 0;
        while let Some(handed) = passage.receive().unwrap() {
            count += handed.len();
        }
        assert_eq!(count, 17 * PER_MESSAGE + messages - 17);
    }

    #[test]
    fn a_message_of_another_form_is_dropped_and_the_next_is_taken() {
        let passage = Passage::new().unwrap();
        let child = passage.try_clone().unwrap().into_handover();
        let (mut program, ours) = UnixStream::pair().unwrap();
        let send = |data: &[u8], descriptors: &[RawFd]| {
            let rights = [ControlMessage::ScmRights(descriptors)];
            let to = child.0.as_raw_fd();
            sendmsg::<()>(to, &[IoSlice::new(data)], &rights, MsgFlags::empty(), None).unwrap();
        };
        let empty = File::from(memfd_create(c"empty", MFdFlags::MFD_CLOEXEC).unwrap());
        send(&[FORM + 1], &[ours.as_raw_fd()]);
        send(&[FORM], &[empty.as_raw_fd(), ours.as_raw_fd()]);
        drop(ours);
        assert_eq!(passage.receive().unwrap().unwrap().len(), 0);
        assert_eq!(passage.receive().unwrap().unwrap().len(), 0);
        assert_eq!(program.read(&mut [0; 1]).unwrap(), 0, "its connection was kept open");
        let (_program, ours) = UnixStream::pair().unwrap();
        child.send(&[(ours.as_fd(), rest(b"", b"", false, false))]).unwrap();
        assert_eq!(passage.receive().unwrap().unwrap().len(), 1);
    }
}
