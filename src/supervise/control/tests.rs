//! A control socket's two ends: order, bounds, descriptors, and what is no end.

use super::*;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::fs::File;
use std::io::{Read, Write};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Told {
    Probe,
    Drain,
    TakeIn,
    Listen,
    Report(u64),
}

impl Message for Told {
    fn supersedes(&self, earlier: &Self) -> bool {
        self == earlier
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Said {
    Status { report: Option<u64>, doing: String },
    Opened(String),
}

impl Message for Said {
    fn supersedes(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Said::Status { report, .. }, Said::Status { report: before, .. }) => report >= before,
            _ => self == earlier,
        }
    }
}

fn ends() -> (Channel<Told, Said>, Channel<Said, Told>) {
    let (ours, theirs) = pair().unwrap();
    (Channel::from_fd(ours).unwrap(), Channel::from_fd(theirs).unwrap())
}

fn status(report: Option<u64>, doing: &str) -> Said {
    Said::Status { report, doing: doing.to_owned() }
}

#[test]
fn messages_arrive_in_order_and_the_end_is_told_once_they_have() {
    let _still = crate::still::no_program_starts();
    let (mut supervisor, mut child) = ends();
    let mut scratch = [0; 7];
    let sent = [Told::Probe, Told::Report(7), Told::TakeIn, Told::Drain];
    sent.iter().for_each(|message| supervisor.send(message).unwrap());
    assert_eq!(child.receive(&mut scratch).unwrap(), Received { messages: sent.to_vec(), closed: false });
    child.send(&status(Some(7), "up")).unwrap();
    drop(child);
    let received = supervisor.receive(&mut scratch).unwrap();
    assert_eq!(received, Received { messages: vec![status(Some(7), "up")], closed: true });
    supervisor.send(&Told::Probe).unwrap();
    assert!(!supervisor.wants_write(), "what is sent to an end that is gone is dropped");
}

#[test]
fn a_status_that_waits_gives_way_to_a_newer_one_but_an_answer_to_a_report_does_not() {
    let _still = crate::still::no_program_starts();
    let (mut supervisor, mut child) = ends();
    let long = "x".repeat(1000);
    for number in 0..10_000 {
        child.send(&status(None, &format!("{number} {long}"))).unwrap();
    }
    assert!(child.wants_write());
    child.send(&status(Some(3), "report")).unwrap();
    child.send(&status(None, "last")).unwrap();
    assert!(child.waiting.len() <= 2);
    let mut scratch = [0; 4096];
    let mut all = Vec::new();
    while child.wants_write() || all.is_empty() {
        all.extend(supervisor.receive(&mut scratch).unwrap().messages);
        child.flush().unwrap();
    }
    all.extend(supervisor.receive(&mut scratch).unwrap().messages);
    assert_eq!(all[all.len() - 2..], [status(Some(3), "report"), status(None, "last")]);
    assert!(all.len() < 10_000);
}

#[test]
fn a_descriptor_comes_with_its_message_and_none_is_kept_for_an_end_that_does_not_read() {
    let _still = crate::still::no_program_starts();
    let (mut supervisor, child) = ends();
    let mut child = child.taking_descriptors();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    supervisor.send(&Told::Probe).unwrap();
    assert!(supervisor.send_descriptor(&Told::Listen, ours.as_fd()).unwrap());
    supervisor.send(&Told::TakeIn).unwrap();
    drop(ours);
    let mut scratch = [0; 4096];
    // The bytes of a message with a descriptor are read apart from those behind it, or not: the
    // order stays.
    let mut messages = Vec::new();
    while messages.len() < 3 {
        messages.extend(child.receive(&mut scratch).unwrap().messages);
    }
    assert_eq!(messages, [Told::Probe, Told::Listen, Told::TakeIn]);
    let taken = child.take_descriptor().unwrap();
    let flags = FdFlag::from_bits_retain(fcntl(&taken, FcntlArg::F_GETFD).unwrap());
    assert!(flags.contains(FdFlag::FD_CLOEXEC), "no program that is started has it");
    let mut taken = UnixStream::from(taken);
    assert!(child.take_descriptor().is_none());
    taken.write_all(b"through").unwrap();
    drop(taken);
    let mut said = String::new();
    theirs.read_to_string(&mut said).unwrap();
    assert_eq!(said, "through");

    for _ in 0..2 * MAX_DESCRIPTORS {
        assert!(supervisor.send_descriptor(&Told::Listen, theirs.as_fd()).unwrap());
    }
    child.receive(&mut scratch).unwrap();
    assert_eq!(child.descriptors.iter().flatten().count(), MAX_DESCRIPTORS, "what nobody takes is closed");
    while supervisor.send_descriptor(&Told::Listen, theirs.as_fd()).unwrap() {}
    assert!(!supervisor.wants_write(), "nothing waits");
}

#[test]
fn an_end_that_takes_no_descriptors_is_left_none_and_one_that_has_no_room_keeps_their_order() {
    let _still = crate::still::no_program_starts();
    let (mut supervisor, mut child) = ends();
    let mut scratch = [0; 4096];
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    assert!(supervisor.send_descriptor(&Told::Listen, ours.as_fd()).unwrap());
    drop(ours);
    assert_eq!(child.receive(&mut scratch).unwrap().messages, [Told::Listen]);
    assert!(child.take_descriptor().is_none());
    assert_eq!(theirs.read(&mut scratch).unwrap(), 0, "the system has closed it");

    // Each of those that were not to be had keeps its place.
    let mut child = child.taking_descriptors();
    for _ in 0..=MAX_DESCRIPTORS {
        assert!(supervisor.send_descriptor(&Told::Listen, theirs.as_fd()).unwrap());
    }
    child.receive(&mut scratch).unwrap();
    assert!(supervisor.send_descriptor(&Told::Probe, theirs.as_fd()).unwrap());
    let taken: Vec<bool> = (0..=MAX_DESCRIPTORS).map(|_| child.take_descriptor().is_some()).collect();
    assert_eq!(taken.iter().filter(|had| !**had).count(), 1);
    assert_eq!(taken.last(), Some(&false));
    child.receive(&mut scratch).unwrap();
    assert!(child.take_descriptor().is_some() && child.take_descriptor().is_none());
}

#[test]
fn an_end_that_never_reads_is_an_error_at_the_bound_not_memory_without_end() {
    let _still = crate::still::no_program_starts();
    let (ours, _theirs) = pair().unwrap();
    let mut channel: Channel<Said, Told> = Channel::from_fd(ours).unwrap();
    let opened = |n: usize| Said::Opened(format!("{n:0>64}"));
    let error = (0..1_000_000).find_map(|n| channel.send(&opened(n)).err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
    assert_eq!(channel.waiting.len(), MAX_WAITING);
}

#[test]
fn a_malformed_or_endless_line_is_an_error_value() {
    let _still = crate::still::no_program_starts();
    for bytes in [b"{\n".to_vec(), b"\"no-such\"\n".to_vec(), b"\xff\n".to_vec(), vec![b'x'; MAX_LINE + 1]] {
        let (ours, theirs) = pair().unwrap();
        let mut channel: Channel<Told, Said> = Channel::from_fd(ours).unwrap();
        UnixStream::from(theirs).write_all(&bytes).unwrap();
        let error = channel.receive(&mut [0; 4096]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}

#[test]
fn a_channel_goes_on_in_another_program_where_it_stopped() {
    let _still = crate::still::no_program_starts();
    let (mut supervisor, mut child) = ends();
    let mut scratch = [0; 4096];
    // The supervisor has half a line of the child, and waits with lines of its own.
    let line = encode(&status(None, "lost")).unwrap();
    child.stream.write_all(&line[..10]).unwrap();
    assert!(supervisor.receive(&mut scratch).unwrap().messages.is_empty());
    supervisor.waiting.extend([Told::Probe, Told::Drain]);
    let carried = supervisor.carried().unwrap();
    let carried = serde_json::from_str(&serde_json::to_string(&carried).unwrap()).unwrap();
    let mut supervisor: Channel<Told, Said> = Channel::resume(supervisor.into_fd(), carried).unwrap();
    assert!(supervisor.wants_write());
    child.stream.write_all(&line[10..]).unwrap();
    child.stream.write_all(b"\n").unwrap();
    child.send(&status(None, "kept")).unwrap();
    assert_eq!(supervisor.receive(&mut scratch).unwrap().messages, [status(None, "kept")]);
    supervisor.flush().unwrap();
    assert_eq!(child.receive(&mut scratch).unwrap().messages, [Told::Probe, Told::Drain]);
}

#[test]
fn what_waits_is_to_be_written_whether_it_was_begun_or_not() {
    let _still = crate::still::no_program_starts();
    let (mut supervisor, _child) = ends();
    assert!(!supervisor.wants_write());
    supervisor.waiting.push_back(Told::Probe);
    assert!(supervisor.wants_write(), "it was not begun");
    supervisor.waiting.clear();
    supervisor.outgoing.push_line(b"\"probe\"");
    assert!(supervisor.wants_write(), "it was begun");
    assert!(supervisor.flush().unwrap() && !supervisor.wants_write());
}

#[test]
fn the_longest_message_comes_through_and_one_that_is_longer_is_not_sent() {
    let _still = crate::still::no_program_starts();
    let (mut supervisor, mut child) = ends();
    let quotes = encode(&Said::Opened(String::new())).unwrap().len();
    let opened = |length: usize| Said::Opened("x".repeat(length - quotes));
    let error = child.send(&opened(MAX_LINE + 1)).unwrap_err();
    assert_eq!((error.kind(), child.wants_write()), (ErrorKind::InvalidData, false));
    child.send(&opened(MAX_LINE)).unwrap();
    child.flush().unwrap();
    drop(child);
    let received = supervisor.receive(&mut [0; 4096]).unwrap();
    assert!(received.messages == [opened(MAX_LINE)] && received.closed);
}

#[test]
fn an_end_that_writes_faster_than_it_is_read_is_broken() {
    let _still = crate::still::no_program_starts();
    let most = 3 * b"\"probe\"\n".len();
    for (sent, is_flood) in [(3, false), (4, true)] {
        let (mut supervisor, mut child) = ends();
        (0..sent).for_each(|_| supervisor.send(&Told::Probe).unwrap());
        match child.receive_at_most(most, &mut [0; 7]) {
            Ok(received) => assert!(!is_flood && received.messages.len() == sent),
            Err(error) => assert!(is_flood && error.kind() == ErrorKind::InvalidData, "{error}"),
        }
    }
}

#[test]
fn an_end_that_goes_with_something_unread_is_gone_all_the_same() {
    let _still = crate::still::no_program_starts();
    let (mut supervisor, mut child) = ends();
    child.send(&status(None, "last")).unwrap();
    supervisor.send(&Told::Probe).unwrap();
    drop(child);
    let mut heard = Vec::new();
    let closed = (0..2).any(|_| {
        let received = supervisor.receive(&mut [0; 4096]).unwrap();
        heard.extend(received.messages);
        received.closed
    });
    assert!(closed);
    assert_eq!(heard, [status(None, "last")]);
}

#[test]
fn what_else_the_system_says_is_an_error_and_no_end() {
    let _still = crate::still::no_program_starts();
    let no_socket = OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
    let mut channel: Channel<Told, Said> = Channel::from_fd(no_socket).unwrap();
    for error in [channel.send(&Told::Probe).unwrap_err(), channel.receive(&mut [0; 16]).unwrap_err()] {
        assert_eq!(error.raw_os_error(), Some(Errno::ENOTSOCK as i32), "{error}");
    }
}
