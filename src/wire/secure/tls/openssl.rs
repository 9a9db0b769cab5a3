//! The `openssl` program at the other end, as client and as server, with keys that it made. Where
//! it is not installed these tests say so and pass.

use super::*;
use crate::secure::{HostKey, KeyFile};
use base::Pins;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// No step of a test takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether `openssl` is here; says so if not.
fn have_openssl() -> bool {
    let here = Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !here {
        // Past the harness, which keeps what a passing test prints; `scripts/test` counts these
        // lines.
        let _ = writeln!(std::io::stderr(), "skipped: openssl is not installed");
    }
    here
}

fn openssl(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").current_dir(dir).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A key made by openssl in `dir/host.key` and a certificate around it in `dir/cert.pem`.
fn make_key(dir: &Path, arguments: &[&str]) -> HostKey {
    openssl(dir, &[&["genpkey", "-out", "host.key"], arguments].concat());
    fs::set_permissions(dir.join("host.key"), fs::Permissions::from_mode(0o600)).unwrap();
    openssl(
        dir,
        &["req", "-x509", "-new", "-key", "host.key", "-subj", "/CN=any", "-days", "1", "-out", "cert.pem"],
    );
    HostKey::load(dir).unwrap()
}

const KINDS: [&[&str]; 3] = [
    &["-algorithm", "ED25519"],
    &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
];

/// A child that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Carries bytes between a tunnel and a socket until `done` or the end of the stream; what came is
/// returned.
fn run(
    tunnel: &mut Tunnel,
    socket: &mut TcpStream,
    done: impl Fn(&Tunnel, &[u8]) -> bool,
) -> Result<Vec<u8>, TunnelError> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut plaintext = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        tunnel.out().flush_to(socket).unwrap();
        if done(tunnel, &plaintext) {
            return Ok(plaintext);
        }
        let count = match socket.read(&mut bytes) {
            Ok(0) => return Ok(plaintext),
            Ok(count) => count,
            Err(error) => panic!("openssl says nothing for {PATIENCE:?}: {error}"),
        };
        let fed = tunnel.feed(&bytes[..count], &mut plaintext);
        tunnel.out().flush_to(socket).unwrap();
        fed?;
    }
}

fn id(text: &str) -> HostId {
    HostId::new(text).unwrap()
}

#[test]
fn keys_made_by_openssl_are_taken_and_have_the_pin_that_openssl_computes() {
    if !have_openssl() {
        return;
    }
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let key = make_key(dir.path(), kind);
        let spki = openssl(dir.path(), &["pkey", "-in", "host.key", "-pubout", "-outform", "DER"]);
        assert_eq!(key.pin(), Pin::of(&spki), "{kind:?}");
        let ours = HostKey::make_file(dir.path(), KeyFile::New, None).unwrap();
        let spki = openssl(dir.path(), &["pkey", "-in", "host.key.new", "-pubout", "-outform", "DER"]);
        assert_eq!(ours.pin(), Pin::of(&spki));
    }
    let dir = tempfile::tempdir().unwrap();
    openssl(dir.path(), &["genpkey", "-algorithm", "RSA", "-out", "host.key"]);
    fs::set_permissions(dir.path().join("host.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let said = HostKey::load(dir.path()).unwrap_err().to_string();
    assert!(said.ends_with("want an Ed25519, P-256 or P-384 key"), "{said}");
}

#[test]
fn openssl_s_client_connects_with_a_pinned_key_and_not_with_another() {
    if !have_openssl() {
        return;
    }
    let ours = tempfile::tempdir().unwrap();
    let identity = TlsIdentity::new(&HostKey::make(ours.path()).unwrap()).unwrap();
    for (kind, known) in KINDS.into_iter().map(|kind| (kind, true)).chain([(KINDS[0], false)]) {
        let dir = tempfile::tempdir().unwrap();
        let key = make_key(dir.path(), kind);
        let pin = if known { key.pin() } else { Pin::of(b"another") };
        let admission = Admission::new(&identity, Pins::from_pairs([(id("caller"), pin)])).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut child = Command::new("openssl")
            .current_dir(dir.path())
            .args(["s_client", "-connect", &address, "-key", "host.key", "-cert", "cert.pem", "-quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let _child = Ended(child);
        stdin.write_all(b"ping\n").unwrap();
        let mut socket = listener.accept().unwrap().0;
        let mut tunnel = Tunnel::called(&admission).unwrap();
        let came = run(&mut tunnel, &mut socket, |_, came| came.ends_with(b"\n"));
        if known {
            assert_eq!(came.as_deref(), Ok(&b"ping\n"[..]), "{kind:?}");
            assert_eq!(tunnel.peer(), Some(&(id("caller"), key.pin())));
        } else {
            assert_eq!(came, Err(TunnelError::UnknownKey(key.pin())));
        }
    }
}

#[test]
fn openssl_s_client_without_a_key_or_with_an_older_tls_is_refused() {
    if !have_openssl() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let identity = TlsIdentity::new(&HostKey::make(dir.path()).unwrap()).unwrap();
    let admission = Admission::new(&identity, Pins::default()).unwrap();
    for (option, older) in [("-tls1_3", false), ("-tls1_2", true)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let child = Command::new("openssl")
            .args(["s_client", "-connect", &address, option])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _child = Ended(child);
        let mut socket = listener.accept().unwrap().0;
        let mut tunnel = Tunnel::called(&admission).unwrap();
        let error = run(&mut tunnel, &mut socket, |_, _| false).unwrap_err();
        match error {
            TunnelError::NoCertificate => assert!(!older),
            TunnelError::Incompatible(_) => assert!(older),
            other => panic!("{option}: {other}"),
        }
    }
}

#[test]
fn openssl_s_server_is_called_by_its_pinned_key_and_refused_with_another() {
    if !have_openssl() {
        return;
    }
    let ours = tempfile::tempdir().unwrap();
    let identity = TlsIdentity::new(&HostKey::make(ours.path()).unwrap()).unwrap();
    for (kind, known) in KINDS.into_iter().map(|kind| (kind, true)).chain([(KINDS[0], false)]) {
        let dir = tempfile::tempdir().unwrap();
        let key = make_key(dir.path(), kind);
        let child = Command::new("openssl")
            .current_dir(dir.path())
            .args(["s_server", "-accept", "127.0.0.1:0", "-key", "host.key", "-cert", "cert.pem"])
            .args(["-Verify", "1", "-tls1_3", "-naccept", "1", "-rev"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = Ended(child.unwrap());
        let stdout = child.0.stdout.take().unwrap();
        let accepts = BufReader::new(stdout)
            .lines()
            .map(Result::unwrap)
            .find(|line| line.starts_with("ACCEPT "))
            .expect("s_server says where it listens");
        let mut socket = TcpStream::connect(accepts.trim_start_matches("ACCEPT ")).unwrap();
        let pin = if known { key.pin() } else { Pin::of(b"another") };
        let mut tunnel = Tunnel::caller(&identity, &id("there"), &[pin]).unwrap();
        let came = run(&mut tunnel, &mut socket, |tunnel, _| tunnel.established());
        if !known {
            let wrong = TunnelError::WrongKey { host: id("there"), expected: vec![pin], seen: key.pin() };
            assert_eq!(came, Err(wrong));
            continue;
        }
        assert_eq!(came.as_deref(), Ok(&b""[..]), "{kind:?}");
        assert_eq!(tunnel.peer(), Some(&(id("there"), key.pin())));
        tunnel.seal(b"abc\n").unwrap();
        let came = run(&mut tunnel, &mut socket, |_, came| came.ends_with(b"\n"));
        assert_eq!(came.as_deref(), Ok(&b"cba\n"[..]), "{kind:?}");
    }
}
