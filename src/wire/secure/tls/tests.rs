//! Both ends of a tunnel in memory: who gets in, who doesn't and what is said, and what an attacker
//! can do between.

use super::*;
use crate::secure::HostKey;
use base::Pins;

struct Host {
    id: HostId,
    identity: TlsIdentity,
}

fn host(id: &str) -> Host {
    let dir = tempfile::tempdir().unwrap();
    let key = HostKey::make(dir.path()).unwrap();
    Host { id: HostId::new(id).unwrap(), identity: TlsIdentity::new(&key).unwrap() }
}

fn pins(hosts: &[&Host]) -> Pins {
    Pins::from_pairs(hosts.iter().map(|host| (host.id.clone(), host.identity.pin())))
}

fn call(caller: &Host, called: &Host) -> Tunnel {
    Tunnel::caller(&caller.identity, &called.id, &[called.identity.pin()]).unwrap()
}

fn answer(called: &Host, known: &[&Host]) -> Tunnel {
    Tunnel::called(&Admission::new(&called.identity, pins(known)).unwrap()).unwrap()
}

#[test]
fn an_identity_is_the_same_as_another_of_its_key_and_as_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let key = HostKey::make(dir.path()).unwrap();
    let [first, again] = [(); 2].map(|()| TlsIdentity::new(&key).unwrap());
    assert!(first == again && first != host("msul1").identity);
}

/// Two ends, and what came out at each.
struct Pair {
    caller: Tunnel,
    called: Tunnel,
    at_caller: Vec<u8>,
    at_called: Vec<u8>,
}

impl Pair {
    fn new(caller: Tunnel, called: Tunnel) -> Pair {
        Pair { caller, called, at_caller: Vec::new(), at_called: Vec::new() }
    }

    /// Carries bytes over, `piece` at a time, until neither end has any more; the errors of the
    /// caller and the called.
    fn run(&mut self, piece: usize) -> (Option<TunnelError>, Option<TunnelError>) {
        let (mut caller_failed, mut called_failed) = (None, None);
        while self.caller.wants_write() || self.called.wants_write() {
            if let Err(error) = carry(&mut self.caller, &mut self.called, &mut self.at_called, piece) {
                called_failed = Some(error);
            }
            if let Err(error) = carry(&mut self.called, &mut self.caller, &mut self.at_caller, piece) {
                caller_failed = Some(error);
            }
        }
        (caller_failed, called_failed)
    }
}

fn carry(
    from: &mut Tunnel,
    to: &mut Tunnel,
    plaintext: &mut Vec<u8>,
    piece: usize,
) -> Result<(), TunnelError> {
    let bytes = from.out().bytes().to_vec();
    from.out().wrote(bytes.len());
    bytes.chunks(piece).try_for_each(|chunk| to.feed(chunk, plaintext))
}

fn open_pair() -> Pair {
    let (a, b) = (host("a"), host("b"));
    let mut pair = Pair::new(call(&a, &b), answer(&b, &[&a]));
    assert_eq!(pair.run(usize::MAX), (None, None));
    pair
}

#[test]
fn two_hosts_that_know_each_others_keys_get_a_tunnel_however_the_bytes_arrive() {
    let (a, b, c) = (host("a"), host("b"), host("c"));
    for piece in [1, 7, 1000, usize::MAX] {
        let mut pair = Pair::new(call(&a, &b), answer(&b, &[&c, &a, &b]));
        assert!(!pair.caller.established() && !pair.called.established());
        assert_eq!(pair.caller.seal(b"early"), Err(TunnelError::NotOpen));
        assert_eq!(pair.run(piece), (None, None));
        assert_eq!(pair.caller.peer(), Some(&(b.id.clone(), b.identity.pin())));
        assert_eq!(pair.called.peer(), Some(&(a.id.clone(), a.identity.pin())));
        pair.caller.seal(b"request").unwrap();
        pair.called.seal(b"answer").unwrap();
        let wire = pair.caller.out().bytes().to_vec();
        assert!(!wire.windows(7).any(|window| window == b"request"), "nothing of it is in clear");
        assert_eq!(pair.run(piece), (None, None));
        assert_eq!((&pair.at_called[..], &pair.at_caller[..]), (&b"request"[..], &b"answer"[..]));
    }
}

#[test]
fn any_of_several_pins_lets_a_host_in() {
    let (a, b, old) = (host("a"), host("b"), host("b"));
    let both = [old.identity.pin(), b.identity.pin()];
    let caller = Tunnel::caller(&a.identity, &b.id, &both).unwrap();
    let admission = Admission::new(&b.identity, pins(&[&host("a"), &a])).unwrap();
    let mut pair = Pair::new(caller, Tunnel::called(&admission).unwrap());
    assert_eq!(pair.run(usize::MAX), (None, None));
    assert_eq!(pair.caller.peer().unwrap().1, b.identity.pin());
    assert_eq!(pair.called.peer().unwrap().1, a.identity.pin());
}

#[test]
fn a_host_without_a_pin_is_not_called() {
    let (a, b) = (host("a"), host("b"));
    let error = Tunnel::caller(&a.identity, &b.id, &[]).unwrap_err();
    assert_eq!(error.to_string(), "call b: no pin for it in hosts.pins");
}

#[test]
fn a_called_host_with_another_key_is_refused_with_both_pins_and_an_alert() {
    let (a, b, impostor) = (host("a"), host("b"), host("b"));
    let mut pair = Pair::new(call(&a, &b), answer(&impostor, &[&a]));
    let (caller, called) = pair.run(usize::MAX);
    let wrong = TunnelError::WrongKey {
        host: b.id.clone(),
        expected: vec![b.identity.pin()],
        seen: impostor.identity.pin(),
    };
    assert_eq!(caller, Some(wrong.clone()));
    assert_eq!(
        wrong.to_string(),
        format!("verify the key of b: expected {}, seen {}", b.identity.pin(), impostor.identity.pin())
    );
    assert!(wrong.is_about_keys());
    assert_eq!(called, Some(TunnelError::Refused(AlertDescription::CertificateUnknown)));
    assert!(!pair.caller.established() && !pair.called.established());
    assert_eq!(pair.caller.feed(b"more", &mut Vec::new()), Err(wrong), "the error stays");
}

#[test]
fn a_caller_with_an_unknown_key_is_refused_with_its_pin_and_an_alert() {
    let (a, b, stranger) = (host("a"), host("b"), host("a"));
    let mut pair = Pair::new(call(&stranger, &b), answer(&b, &[&a, &b]));
    let (caller, called) = pair.run(usize::MAX);
    assert_eq!(called, Some(TunnelError::UnknownKey(stranger.identity.pin())));
    assert_eq!(caller, Some(TunnelError::Refused(AlertDescription::CertificateUnknown)));
    assert!(!pair.called.established());
    assert!(pair.caller.established(), "TLS 1.3: only an answer tells the caller that it was taken");
}

#[test]
fn a_caller_that_shows_no_certificate_is_refused() {
    let (a, b) = (host("a"), host("b"));
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verify::CallerVerifier::new(&provider, &[b.identity.pin()]);
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(verifier))
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("x").unwrap();
    let client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let keys = Keys::Caller { host: b.id.clone(), expected: vec![b.identity.pin()] };
    let mut pair =
        Pair::new(Tunnel::begin(Connection::Client(client), keys, a.identity.pin()), answer(&b, &[&a]));
    let (caller, called) = pair.run(usize::MAX);
    assert_eq!(called, Some(TunnelError::NoCertificate));
    assert_eq!(caller, Some(TunnelError::Refused(AlertDescription::CertificateRequired)));
}

/// A host that shows the certificate of `victim`, whose key it has not.
fn who_shows_the_certificate_of(victim: &Host) -> Host {
    Host { id: victim.id.clone(), identity: host("x").identity.with_the_certificate_of(&victim.identity) }
}

fn did_not_sign(error: Option<TunnelError>) {
    let error = error.expect("a certificate without its key is refused");
    assert_eq!(error, TunnelError::BadCertificate("BadSignature".to_owned()));
    assert!(error.is_about_keys());
}

#[test]
fn a_called_host_that_shows_the_right_certificate_and_has_not_its_key_is_refused() {
    let (a, b) = (host("a"), host("b"));
    let impostor = who_shows_the_certificate_of(&b);
    assert_eq!(impostor.identity.pin(), b.identity.pin(), "its pin is the right one");
    let mut pair = Pair::new(call(&a, &b), answer(&impostor, &[&a]));
    let (caller, called) = pair.run(usize::MAX);
    did_not_sign(caller);
    assert_eq!(called, Some(TunnelError::Refused(AlertDescription::DecryptError)));
    assert!(!pair.caller.established() && !pair.called.established());
}

#[test]
fn a_caller_that_shows_the_right_certificate_and_has_not_its_key_is_refused() {
    let (a, b) = (host("a"), host("b"));
    let impostor = who_shows_the_certificate_of(&a);
    let mut pair = Pair::new(call(&impostor, &b), answer(&b, &[&a]));
    let (caller, called) = pair.run(usize::MAX);
    did_not_sign(called);
    assert_eq!(caller, Some(TunnelError::Refused(AlertDescription::DecryptError)));
    assert!(!pair.called.established());
}

#[test]
fn what_is_no_tls_is_a_typed_error_at_both_ends() {
    let (a, b) = (host("a"), host("b"));
    for nonsense in
        [&b"init\n"[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 100], &[0x16, 3, 1, 0, 5, 9, 9, 9, 9, 9]]
    {
        for mut tunnel in [answer(&b, &[&a]), call(&a, &b)] {
            assert_eq!(tunnel.feed(nonsense, &mut Vec::new()), Err(TunnelError::NotTls), "{nonsense:?}");
        }
    }
}

#[test]
fn an_alert_that_is_not_about_certificates_is_no_refusal_of_a_key() {
    let (a, b) = (host("a"), host("b"));
    // A fatal alert in clear, as one says who has nothing in common: handshake_failure.
    let alert = [0x15, 3, 3, 0, 2, 2, 40];
    for mut tunnel in [answer(&b, &[&a]), call(&a, &b)] {
        let error = tunnel.feed(&alert, &mut Vec::new()).unwrap_err();
        assert_eq!(error, TunnelError::Alert(AlertDescription::HandshakeFailure));
        assert!(!error.is_about_keys());
    }
}

#[test]
fn what_makes_no_sense_within_a_tunnel_is_not_said_to_be_no_tls() {
    let mut pair = open_pair();
    pair.caller.seal(b"x").unwrap();
    assert_eq!(pair.run(usize::MAX), (None, None));
    let error = pair.called.feed(&[0xff; 100], &mut pair.at_called).unwrap_err();
    assert!(matches!(error, TunnelError::Broken(_)), "{error:?}");
}

#[test]
fn a_handshake_of_many_bytes_at_once_counts_them_once() {
    let (a, b) = (host("a"), host("b"));
    let mut tunnel = answer(&b, &[&a]);
    // The beginning of a ClientHello of 65,535 bytes, in as long a record as there can be.
    let mut record = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
    record.resize(5 + 0x4000, 0);
    assert_eq!(tunnel.feed(&record, &mut Vec::new()), Ok(()));
    assert_eq!(tunnel.feed(&record[..MAX_HANDSHAKE - record.len() - 1], &mut Vec::new()), Ok(()));
    assert_eq!(tunnel.feed(&[0], &mut Vec::new()), Err(TunnelError::TooMuch));
}

#[test]
fn who_never_finishes_the_handshake_is_cut_off_at_the_bound() {
    let (a, b) = (host("a"), host("b"));
    let mut tunnel = answer(&b, &[&a]);
    // A ClientHello of 65,535 bytes is announced, in records of 1,000, and never ends.
    let mut record = vec![0x16, 3, 1, 0x03, 0xe8, 1, 0, 0xff, 0xff];
    record.resize(5 + 1000, 0);
    let mut next = vec![0x16, 3, 3, 0x03, 0xe8];
    next.resize(5 + 1000, 0);
    let mut plaintext = Vec::new();
    let mut sent = record.len();
    tunnel.feed(&record, &mut plaintext).unwrap();
    let error = loop {
        assert!(sent < 64 * 1024, "cut off before 64 KiB");
        sent += next.len();
        if let Err(error) = tunnel.feed(&next, &mut plaintext) {
            break error;
        }
    };
    assert_eq!(error, TunnelError::TooMuch);
    assert!(plaintext.is_empty() && tunnel.out().len() < 100);
    // All of it at once is cut off as well.
    let mut tunnel = answer(&b, &[&a]);
    let mut flood = record.clone();
    flood.extend(next.repeat(60));
    assert_eq!(tunnel.feed(&flood, &mut plaintext), Err(TunnelError::TooMuch));
}

#[test]
fn a_megabyte_crosses_in_both_directions_at_once() {
    let mut pair = open_pair();
    let text: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    pair.caller.seal(&text).unwrap();
    pair.called.seal(&text).unwrap();
    assert_eq!(pair.run(65_536), (None, None));
    assert_eq!(pair.at_called, text);
    assert_eq!(pair.at_caller, text);
}

#[test]
fn an_orderly_end_is_told_from_a_cut_one() {
    let mut pair = open_pair();
    pair.caller.seal(b"last").unwrap();
    pair.caller.close();
    assert_eq!(pair.run(3), (None, None));
    assert_eq!(pair.at_called, b"last");
    assert!(pair.called.peer_closed() && !pair.caller.peer_closed());
    assert!(pair.caller.seal(b"more").is_err());
    pair.called.seal(b"still an answer").unwrap();
    pair.called.close();
    assert_eq!(pair.run(usize::MAX), (None, None));
    assert_eq!(pair.at_caller, b"still an answer");
    assert!(pair.caller.peer_closed());
    assert_eq!(pair.caller.feed(b"anything", &mut Vec::new()), Ok(()), "nothing after it is looked at");
}

#[test]
fn flipped_dropped_repeated_and_reordered_bytes_end_the_tunnel_and_nothing_false_comes_through() {
    // Three records on the wire, and what a man in the middle makes of them.
    let records = || {
        let mut pair = open_pair();
        let mut records = Vec::new();
        for text in [b"one", b"two", b"thr"] {
            pair.caller.seal(text).unwrap();
            let bytes = pair.caller.out().bytes().to_vec();
            pair.caller.out().wrote(bytes.len());
            records.push(bytes);
        }
        (pair, records)
    };
    let attack = |name: &str, change: &dyn Fn(&mut Vec<Vec<u8>>), through: &[u8]| {
        let (mut pair, mut records) = records();
        change(&mut records);
        let mut plaintext = Vec::new();
        let error = pair.called.feed(&records.concat(), &mut plaintext).expect_err(name);
        assert!(matches!(error, TunnelError::Broken(_) | TunnelError::NotTls), "{name}: {error:?}");
        assert_eq!(plaintext, through, "{name}");
        assert!(pair.called.wants_write(), "{name}: an alert says so");
    };
    let length = records().1[1].len();
    // The five bytes before are the header: its type and version are of old and mean nothing once
    // enciphered, a longer length waits for more.
    for at in 5..length {
        attack("flip", &|records| records[1][at] ^= 1, b"one");
    }
    attack("drop", &|records| drop(records.remove(1)), b"one");
    attack("repeat", &|records| records.insert(1, records[0].clone()), b"one");
    attack("reorder", &|records| records.swap(0, 1), b"");
    attack("insert", &|records| records.insert(1, b"hello".to_vec()), b"one");
}

#[test]
fn a_flipped_bit_anywhere_in_a_handshake_never_lets_anyone_in_or_panics() {
    let (a, b) = (host("a"), host("b"));
    let reference = call(&a, &b).out().bytes().len();
    for at in 0..reference {
        let mut pair = Pair::new(call(&a, &b), answer(&b, &[&a]));
        let mut bytes = pair.caller.out().bytes().to_vec();
        let length = bytes.len();
        pair.caller.out().wrote(length);
        bytes[at] ^= 0x10;
        let first = pair.called.feed(&bytes, &mut pair.at_called);
        let (caller, called) = pair.run(usize::MAX);
        let failed = first.is_err() || caller.is_some() || called.is_some();
        // A flip in the record header's legacy version is of no meaning; a longer length waits for
        // more bytes.
        assert!(failed || !pair.called.established() || (1..3).contains(&at), "byte {at}");
    }
}

#[test]
fn no_session_is_resumed() {
    let (a, b) = (host("a"), host("b"));
    let admission = Admission::new(&b.identity, pins(&[&a])).unwrap();
    for _ in 0..2 {
        let mut pair = Pair::new(call(&a, &b), Tunnel::called(&admission).unwrap());
        assert_eq!(pair.run(usize::MAX), (None, None));
        assert_eq!(pair.caller.connection.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}
