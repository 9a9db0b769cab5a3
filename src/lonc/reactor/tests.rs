//! Reactors over real sockets, one after the other, as the children of one peer.

use super::*;
use crate::broker::tests::{peer, settings};
use crate::handover::{Handover, Passage, Room};
use crate::settings::LinkKeys;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::Path;
use std::thread::JoinHandle;
use store::spool::{RealDisk, Spool};
use supervise::control;

/// A child without a process of its own.
struct Child {
    control: Channel<ToLink, FromLink>,
    thread: JoinHandle<()>,
}

impl Child {
    /// Its peer is not dialled, so plain requests are answered `con_lost` and critical ones
    /// `con_delayed`.
    fn start(dir: &Path, listener: &StdListener, passage: &Passage) -> Child {
        let (ours, theirs) = control::pair().unwrap();
        let (dir, listener, passage) =
            (dir.to_owned(), listener.try_clone().unwrap(), Some(passage.takeover().unwrap()));
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            let peer = peer();
            let spool = Spool::open(RealDisk, &dir.join("delayed/msul1"), peer.spool);
            let barred = LinkKeys::Barred("a test".into());
            let broker = Broker::new(settings(&dir, &peer, barred), spool, 7, now());
            let (control, permlog) =
                (Channel::from_fd(theirs).unwrap().taking_descriptors(), PermLog::new(&dir));
            let sandbox = "nothing".to_owned();
            let given = Given { peer, keys: None, listener, control, passage, permlog, sandbox };
            Reactor::new(broker, ToldToEnd::new().unwrap(), given).unwrap().run().unwrap();
        });
        Child { control: Channel::from_fd(ours).unwrap(), thread }
    }

    /// The programs go there; ends when it has done so.
    fn hands_over(mut self, handover: Handover) {
        assert!(self.control.send_descriptor(&ToLink::HandOver, handover.as_fd()).unwrap());
        drop(handover);
        self.thread.join().unwrap();
    }

    /// Ends when it has done so.
    fn told(mut self, message: &ToLink) {
        self.control.send(message).unwrap();
        self.thread.join().unwrap();
    }
}

struct Program(BufReader<StdStream>);

impl Program {
    fn connect(socket: &Path) -> Program {
        let stream = StdStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Program(BufReader::new(stream))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }
}

#[test]
fn programs_pass_from_child_to_child_with_every_byte_and_no_descriptor_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("msul1");
    let listener = StdListener::bind(&socket).unwrap();
    let passage = Passage::new().unwrap();
    let mut programs: Vec<Program> = Vec::new();
    for round in 0..5 {
        let child = Child::start(dir.path(), &listener, &passage);
        for program in &mut programs {
            // The rest of the line that the child before had half of.
            program.send("1\nplain\n");
            assert_eq!(
                [program.answer(), program.answer()],
                ["con_delayed\n", "con_lost\n"],
                "round {round}"
            );
        }
        programs.extend((0..20).map(|_| Program::connect(&socket)));
        for program in &mut programs {
            program.send("plain\ncritical:a");
            assert_eq!(program.answer(), "con_lost\n");
        }
        child.hands_over(passage.handover().unwrap());
    }
    let mut count = 0;
    let (takeover, mut room) = (passage.takeover().unwrap(), Room::default());
    while let Some(handed) = takeover.receive(&mut room).unwrap() {
        count += handed.len();
    }
    assert_eq!(count, 100);
    assert!(programs.iter_mut().all(|program| program.answer().is_empty()), "a connection is open somewhere");
}

#[test]
fn where_nobody_can_take_the_programs_they_are_served_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("msul1");
    let listener = StdListener::bind(&socket).unwrap();
    let passage = Passage::new().unwrap();
    let child = Child::start(dir.path(), &listener, &passage);
    let mut program = Program::connect(&socket);
    program.send("plain\n");
    assert_eq!(program.answer(), "con_lost\n");
    let handover = passage.handover().unwrap();
    drop(passage);
    child.hands_over(handover);
    assert_eq!(program.answer(), "");
}

#[test]
fn a_child_that_drains_for_good_closes_its_programs_and_leaves_none_behind() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("msul1");
    let listener = StdListener::bind(&socket).unwrap();
    let passage = Passage::new().unwrap();
    let child = Child::start(dir.path(), &listener, &passage);
    let [mut program, mut ended] = [(); 2].map(|()| Program::connect(&socket));
    program.send("plain\n");
    assert_eq!(program.answer(), "con_lost\n");
    ended.send("critical:a\n");
    ended.0.get_mut().shutdown(Shutdown::Write).unwrap();
    assert_eq!([ended.answer(), ended.answer()], ["con_delayed\n", ""]);
    child.told(&ToLink::Drain);
    assert_eq!(program.answer(), "");
    assert!(passage.takeover().unwrap().receive(&mut Room::default()).unwrap().is_none());
}
