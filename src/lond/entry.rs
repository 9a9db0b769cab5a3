//! Where a link child begins.
//!
//! Sets the socket up, finds out which wire the caller speaks and, on the classic one, who it is,
//! and serves the link to its end. Never returns into the supervisor's code. Exits 0, however the
//! link ended: that is the caller's affair; the supervisor is told of those that were turned away
//! and logs them. Exits 1 when the system gave not even what a link needs.

use super::Suspect;
use super::access;
use super::classic::LINGER;
use super::confined::Confined;
use super::first_byte::{self, First};
use super::ledger::Ledger;
use super::reactor::{Accepted, Given, Reactor, SetupError};
use super::settings::{Directory, ServeSettings};
use crate::messages::{FromServe, ToServe};
use base::{HostId, Pin};
use config::Host;
use net::tcp;
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;
use supervise::control::Channel;
use supervise::signals::ToldToEnd;
use supervise::title;
use wire::secure::Tunnel;

/// What a link child is born with.
#[derive(Debug)]
pub struct Seed {
    /// How to serve.
    pub settings: Arc<ServeSettings>,
    /// Who may call.
    pub directory: Arc<Directory>,
    /// The accepted connection; non-blocking.
    pub stream: TcpStream,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// Who calls, by the address, which counts on the classic wire alone. `None`: no host of the
    /// table has it, but one with an empty address may be meant, whose name is to be looked up.
    pub caller: Option<HostId>,
    /// The child's end of the control socket: receives `ToServe`, sends `FromServe`.
    pub control: OwnedFd,
    /// What each host has had written to the log.
    pub ledger: Ledger,
}

/// Serves one link until it closes or the child is told to stop; exits 0 then.
pub fn run(seed: Seed) -> ! {
    let code = match serve(seed) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("serve link: {error}");
            1
        }
    };
    std::process::exit(code)
}

/// Serves one link to its end.
fn serve(seed: Seed) -> Result<(), SetupError> {
    let Seed { settings, directory, stream, remote, caller, control, ledger } = seed;
    let opening_deadline = Instant::now() + settings.opening_timeout;
    title::set(&format!("{} opening", remote.ip()));
    if let Err(error) = tcp::set_up(SockRef::from(&stream)) {
        // The link can do without, and if it is broken that will show.
        log::debug!("set options of the link from {remote}: {error}");
    }
    // Before a name is looked up, which takes a thread.
    let told = ToldToEnd::new().map_err(SetupError::at("take signals"))?;
    let first = first_byte::wait(&stream, [control.as_fd(), told.as_fd()], opening_deadline);
    if matches!(first, Ok(First::Tls | First::Other)) {
        tell_spoke(&control);
    }
    if !matches!(first, Ok(First::Tls)) {
        directory.forget_key();
    }
    // Nothing that came was looked at so far but which wire it is.
    let confine = |records| {
        let confined = Confined::begin(settings.sandbox, directory.log_dir(), records);
        confined.map_err(|error| SetupError::at("confine the process")(io::Error::other(error)))
    };
    match first {
        Ok(First::Tls) => match tunnel(&directory) {
            Ok((tunnel, own)) => {
                let confined = confine(Some(&settings.spool_dir))?;
                let suspect = Suspect::new(directory.clone(), own, caller);
                let accepted = Accepted::Secure { tunnel: Box::new(tunnel), suspect, directory };
                let given = Given { stream, control, told, ledger, confined };
                Reactor::new(settings, accepted, given, opening_deadline)?.run();
            }
            Err(error) => tell_refused(control, format!("the secure wire cannot be served: {error}")),
        },
        Ok(First::Other) if !directory.classic() => {
            refuse(&stream);
            tell_refused(control, "the classic wire is refused".to_owned());
        }
        Ok(First::Other) => match find_caller(&directory, remote, caller.as_ref(), opening_deadline).cloned()
        {
            Some(caller) => {
                ledger.log_for(&caller.id, Instant::now());
                title::set(&format!("{} opening", caller.id));
                let accepted = Accepted::Classic(&caller);
                // The classic wire has no messages that are recorded.
                let confined = confine(None)?;
                let given = Given { stream, control, told, ledger, confined };
                Reactor::new(settings, accepted, given, opening_deadline)?.run();
            }
            None => {
                refuse(&stream);
                let hosts = directory.hosts_file().display();
                tell_refused(control, format!("the address is that of no host in {hosts}"));
            }
        },
        Ok(First::Deadline) => tell_refused(control, "it said nothing in time".to_owned()),
        Ok(First::End | First::Told) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            log::debug!("wait for the first byte from {remote}: {error}");
        }
        Err(error) => log::warn!("wait for the first byte from {remote}: {error}; closed"),
    }
    Ok(())
}

/// The called end of a tunnel, and this host's pin.
fn tunnel(directory: &Directory) -> Result<(Tunnel, Pin), String> {
    let admission = directory.admission()?;
    let tunnel = Tunnel::called(admission).map_err(|error| error.to_string())?;
    Ok((tunnel, admission.own_pin()))
}

/// The supervisor need not hold it for one that is silent.
fn tell_spoke(control: &OwnedFd) {
    let told = control
        .try_clone()
        .and_then(Channel::<FromServe, ToServe>::from_fd)
        .and_then(|mut control| control.send(&FromServe::Spoke));
    if let Err(error) = told {
        log::warn!("tell the supervisor that the caller has spoken: {error}; it counts as silent");
    }
}

/// The supervisor counts it, and says it in the log.
fn tell_refused(control: OwnedFd, why: String) {
    let told = Channel::<FromServe, ToServe>::from_fd(control)
        .and_then(|mut control| control.send(&FromServe::Refused { why, key: None }));
    if let Err(error) = told {
        log::warn!("tell the supervisor that a caller was refused: {error}");
    }
}

fn find_caller<'a>(
    directory: &'a Directory,
    remote: SocketAddr,
    known: Option<&HostId>,
    deadline: Instant,
) -> Option<&'a Host> {
    match known {
        Some(id) => directory.hosts().get(id),
        None => access::identify(directory.hosts().iter(), remote.ip(), deadline, access::addresses),
    }
}

/// Says `refused` and waits a moment for the caller to close: closing with its `init` unread would
/// take the word back.
fn refuse(stream: &TcpStream) {
    if let Err(error) = say_refused(stream) {
        log::debug!("say refused: {error}");
    }
}

fn say_refused(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LINGER))?;
    stream.set_write_timeout(Some(LINGER))?;
    stream.write_all(b"refused\n")?;
    stream.shutdown(Shutdown::Write)?;
    let until = Instant::now() + LINGER;
    let mut scratch = [0; 4096];
    while Instant::now() < until && stream.read(&mut scratch)? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Config;
    use std::time::Duration;
    use supervise::own_key::OwnKey;
    use wire::secure::{HostKey, TlsIdentity, TunnelError};

    #[test]
    fn a_refused_caller_reads_the_word_though_it_spoke_first() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        caller.write_all(b"init\n").unwrap();
        let child = std::thread::spawn(move || say_refused(&stream));
        caller.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut text = String::new();
        caller.read_to_string(&mut text).unwrap();
        assert_eq!(text, "refused\n");
        drop(caller);
        child.join().unwrap().unwrap();
    }

    /// A child that serves one connection with `config`; what the caller's end and the supervisor's
    /// are.
    fn child(
        config: Config,
        by_address: bool,
    ) -> (TcpStream, Channel<ToServe, FromServe>, std::thread::JoinHandle<()>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        caller.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (stream, remote) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let (ours, control) = supervise::control::pair().unwrap();
        let known = HostId::new("msua2").unwrap();
        let (key, _) = OwnKey::load_again(&config);
        let seed = Seed {
            settings: ServeSettings::of(&config).into(),
            directory: Directory::new(config.into(), &key).into(),
            stream,
            remote,
            caller: by_address.then_some(known),
            control,
            ledger: Ledger::new().unwrap(),
        };
        let child = std::thread::spawn(move || serve(seed).unwrap());
        (caller, Channel::from_fd(ours).unwrap(), child)
    }

    fn config(dir: &std::path::Path, classic: &str, table: &str) -> Config {
        let text = format!(
            "id = \"msul1\"\nsandbox = \"off\"\n[lond]\nclassic = \"{classic}\"\nopening_timeout = \"20s\"\n"
        );
        std::fs::write(dir.join("lonnet.toml"), text).unwrap();
        std::fs::write(dir.join("hosts.tab"), table).unwrap();
        Config::load(&dir.join("lonnet.toml")).unwrap()
    }

    const TABLE: &str = "msul1:msu:library:a.example:127.0.0.2\nmsua1:msu:access:b.example:127.0.0.9\n";

    #[test]
    fn whom_neither_wire_is_for_is_refused_by_the_one_it_speaks() {
        let dir = tempfile::tempdir().unwrap();
        for (classic, why) in [("refuse", "the classic wire is refused"), ("allow", "that of no host")] {
            let (mut caller, mut supervisor, child) = child(config(dir.path(), classic, TABLE), false);
            caller.write_all(b"init\n").unwrap();
            let mut text = String::new();
            caller.read_to_string(&mut text).unwrap();
            assert_eq!(text, "refused\n");
            drop(caller);
            child.join().unwrap();
            let told = supervisor.receive(&mut [0; 1000]).unwrap().messages;
            assert!(
                matches!(&told[..], [FromServe::Spoke, FromServe::Refused { why: said, key: None }] if said.contains(why)),
                "{told:?}"
            );
        }
    }

    #[test]
    fn a_caller_that_speaks_tls_is_known_by_its_key_wherever_it_calls_from() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("keys"), dir.path().join("theirs"));
        let keys = [&ours, &theirs].map(|dir| {
            std::fs::create_dir(dir).unwrap();
            HostKey::make(dir).unwrap()
        });
        for (pinned, line) in [(true, format!("msua1 {}\n", keys[1].pin())), (false, String::new())] {
            // The address is that of a host with another key.
            let pins = format!("msua2 {}\n{line}", keys[0].pin());
            std::fs::write(dir.path().join("hosts.pins"), pins).unwrap();
            let (mut caller, mut supervisor, child) = child(config(dir.path(), "refuse", TABLE), true);
            let identity = TlsIdentity::new(&keys[1]).unwrap();
            let called = HostId::new("msul1").unwrap();
            let mut tunnel = Tunnel::caller(&identity, &called, &[keys[0].pin()]).unwrap();
            let mut buffer = [0; 4096];
            while !tunnel.established() {
                caller.write_all(tunnel.out().bytes()).unwrap();
                tunnel.out().clear();
                let count = caller.read(&mut buffer).unwrap();
                tunnel.feed(&buffer[..count], &mut Vec::new()).unwrap();
            }
            caller.write_all(tunnel.out().bytes()).unwrap();
            if pinned {
                // Authenticated; the link ends before HELLO, as the test has it.
                drop(caller);
                child.join().unwrap();
                let told = supervisor.receive(&mut buffer).unwrap().messages;
                assert!(!told.iter().any(|told| matches!(told, FromServe::Refused { .. })), "{told:?}");
            } else {
                let refused = loop {
                    let count = caller.read(&mut buffer).unwrap();
                    assert!(count > 0, "closed without an alert");
                    if let Err(error) = tunnel.feed(&buffer[..count], &mut Vec::new()) {
                        break error;
                    }
                };
                assert!(matches!(refused, TunnelError::Refused(_)), "{refused}");
                drop(caller);
                child.join().unwrap();
                let told = supervisor.receive(&mut buffer).unwrap().messages;
                let [FromServe::Spoke, FromServe::Refused { why, key }] = &told[..] else {
                    panic!("{told:?}")
                };
                assert!(why.contains(&format!("seen {}", keys[1].pin())), "{why}");
                let expected = format!("it is msua2, of which was expected: {}", keys[0].pin());
                assert!(why.ends_with(&expected), "{why}");
                assert_eq!(*key, Some(keys[1].pin().to_string()));
            }
        }
        // A key that cannot be had is said; nothing is served with it.
        std::fs::remove_file(ours.join("host.key")).unwrap();
        let (mut caller, mut supervisor, child) = child(config(dir.path(), "refuse", TABLE), true);
        caller.write_all(b"\x16\x03").unwrap();
        child.join().unwrap();
        let told = supervisor.receive(&mut [0; 1000]).unwrap().messages;
        assert!(
            matches!(&told[..], [FromServe::Spoke, FromServe::Refused { why, key: None }] if why.contains("host.key")),
            "{told:?}"
        );
    }
}
