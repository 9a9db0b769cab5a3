//! Who asks on a supervisor's socket: when he is taken in, answered, and closed.

use super::*;
use net::Poll;
use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream as Client;

const OWN: Token = Token(1);

/// A status socket on which nobody has asked yet.
struct Place {
    folder: tempfile::TempDir,
    poll: Poll,
    admin: Admin<u8>,
    next: usize,
}

impl Place {
    fn new() -> Place {
        let (folder, poll) = (tempfile::tempdir().unwrap(), Poll::new().unwrap());
        let admin = Admin::new(&folder.path().join("lonc.sock"), None, poll.registry(), OWN).unwrap();
        Place { folder, poll, admin, next: 10 }
    }

    fn connect(&self) -> Client {
        let client = Client::connect(self.folder.path().join("lonc.sock")).unwrap();
        client.set_nonblocking(true).unwrap();
        client
    }

    fn accept(&mut self, now: Instant) {
        self.admin.accept(self.poll.registry(), now, || next(&mut self.next));
    }

    /// A client that has sent this line, and is waited for as `children` demand.
    fn ask(&mut self, line: &str, children: &[u8], now: Instant) -> (Client, Token, Option<Asked>) {
        let mut client = self.connect();
        client.write_all(line.as_bytes()).unwrap();
        self.accept(now);
        let token = Token(self.next - 1);
        let asked = self.admin.ready(token, &mut [0; 64], now, children.iter().copied());
        (client, token, asked)
    }

    fn turn(&mut self, now: Instant) {
        self.admin.turn(now, || "told".to_owned());
    }
}

fn next(number: &mut usize) -> Token {
    *number += 1;
    Token(*number - 1)
}

/// What the client has been told by now, if it was closed then.
fn told(client: &mut Client) -> Option<String> {
    let mut text = String::new();
    client.read_to_string(&mut text).ok().map(|_| text)
}

#[test]
fn each_status_waits_for_reports_of_its_own_number() {
    let _still = crate::still::no_program_starts();
    let (mut place, now) = (Place::new(), Instant::now());
    let (mut first, _, asked) = place.ask("status\n", &[1, 2], now);
    assert_eq!(asked, Some(Asked::Status(1)));
    let (mut second, _, asked) = place.ask("status\n", &[1], now);
    assert_eq!(asked, Some(Asked::Status(2)));
    place.admin.reported(&1, 1);
    place.turn(now);
    assert_eq!((told(&mut first), told(&mut second)), (None, None), "one child is missing for each");
    place.admin.reported(&2, 1);
    place.turn(now);
    assert_eq!((told(&mut first).as_deref(), told(&mut second)), (Some("told\n"), None));
    place.admin.reported(&1, u64::MAX);
    place.turn(now);
    assert_eq!(told(&mut second).as_deref(), Some("told\n"), "a child that will not report any more");
}

#[test]
fn who_is_not_done_in_time_is_answered_or_closed_just_then() {
    let _still = crate::still::no_program_starts();
    let (mut place, now) = (Place::new(), Instant::now());
    assert_eq!(place.admin.deadline(), None);
    let (mut silent, token, asked) = place.ask("stat", &[], now);
    assert_eq!((asked, place.admin.deadline()), (None, Some(now + STAY)));
    let (mut waiting, ..) = place.ask("status\n", &[1], now);
    assert_eq!(place.admin.deadline(), Some(now + WAIT));
    place.turn(now + WAIT - Duration::from_nanos(1));
    assert_eq!(told(&mut waiting), None);
    place.turn(now + WAIT);
    assert_eq!(told(&mut waiting).as_deref(), Some("told\n"));
    assert_eq!(place.admin.deadline(), Some(now + STAY));
    place.turn(now + STAY - Duration::from_nanos(1));
    assert!(place.admin.has(token) && told(&mut silent).is_none());
    place.turn(now + STAY);
    assert!(!place.admin.has(token) && told(&mut silent).is_some_and(|text| text.is_empty()));
    assert_eq!(place.admin.deadline(), None);
}

#[test]
fn who_could_not_be_taken_in_is_taken_in_after_a_pause() {
    let _still = crate::still::no_program_starts();
    let (mut place, now) = (Place::new(), Instant::now());
    // A socket that does not listen: accepting fails at once.
    let (dumb, _other) = Client::pair().unwrap();
    let path = place.folder.path().join("lonc.sock");
    let left = Some((dumb.into(), None));
    let mut broken: Admin<u8> = Admin::new(&path, left, place.poll.registry(), Token(2)).unwrap();
    broken.accept(place.poll.registry(), now, || Token(3));
    assert_eq!(broken.deadline(), Some(now + ACCEPT_PAUSE));

    place.accept(now);
    assert_eq!(place.admin.deadline(), None, "that nobody is there is no failure");
    place.admin.accept_again = broken.accept_again;
    let _client = place.connect();
    let (registry, mut number) = (place.poll.registry(), place.next);
    place.admin.accept_if_due(registry, now + ACCEPT_PAUSE - Duration::from_nanos(1), || next(&mut number));
    assert!(!place.admin.has(Token(10)));
    place.admin.accept_if_due(registry, now + ACCEPT_PAUSE, || next(&mut number));
    assert!(place.admin.has(Token(10)));
    assert_eq!(place.admin.deadline(), Some(now + ACCEPT_PAUSE + STAY), "the pause is over");
}

#[test]
fn a_client_that_cannot_be_read_is_gone() {
    let _still = crate::still::no_program_starts();
    let (mut place, now) = (Place::new(), Instant::now());
    let (_client, token, _) = place.ask("stat", &[], now);
    let unreadable = File::options().write(true).open("/dev/null").unwrap();
    let stream = std::os::unix::net::UnixStream::from(OwnedFd::from(unreadable));
    place.admin.clients.get_mut(&token).unwrap().stream = UnixStream::from_std(stream);
    assert_eq!(place.admin.ready(token, &mut [0; 64], now, [].into_iter()), None);
    assert!(!place.admin.has(token));
}

#[test]
fn a_socket_is_known_again_by_the_program_that_it_was_left_to() {
    let _still = crate::still::no_program_starts();
    let place = Place::new();
    let path = place.folder.path().join("lonc.sock");
    let copy = || Some((place.admin.as_fd().try_clone_to_owned().unwrap(), place.admin.mark()));
    let adopted = |token| Admin::<u8>::new(&path, copy(), place.poll.registry(), Token(token)).unwrap();
    assert!(adopted(2).is_in_place());
    std::fs::remove_file(&path).unwrap();
    let _another = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(!place.admin.is_in_place() && !adopted(3).is_in_place());
}
