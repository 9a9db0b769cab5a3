//! TLS 1.3 as a pump of bytes: ciphertext in, plaintext out, and the other way round. No socket, no
//! clock.
//!
//! Both ends show a certificate and both look at nothing in it but the key: its [`Pin`] must be one
//! of those expected (caller) or some host's (called), and the handshake must be signed by it.
//! Names and dates don't count; there is no authority. No resumption and no early data: each link
//! authenticates again.
//!
//! - [`Tunnel::feed`] takes what was read from the socket, [`Tunnel::seal`] what is to be sent;
//!   what is to be written to the socket gathers in [`Tunnel::out`]. After an error that holds the
//!   alert for the other side: write it, then close. An error is final; `feed` repeats it.
//! - [`Tunnel::established`] and [`Tunnel::peer`]: the called side knows then who calls. TLS 1.3
//!   lets the *caller* get there before the called side has judged the caller's key: its refusal
//!   comes as [`TunnelError::Refused`] from a later `feed`, so a caller's link is up when it has
//!   the other's HELLO and not before.
//! - Before that, at most [`MAX_HANDSHAKE`] bytes are taken from the other side, and what is held
//!   of them is less.

mod identity;
mod verify;

pub use identity::{Admission, TlsIdentity};

use base::line::Outgoing;
use base::{HostId, Pin};
use rustls::{AlertDescription, CertificateError, Connection, ServerConnection};
use std::io::{BufRead, Write};
use verify::{Refusal, pin_of};

/// Bytes taken from the other side until it is authenticated; more is an error. A handshake has
/// some 1,500.
pub const MAX_HANDSHAKE: usize = 32 * 1024;

/// Ciphertext and plaintext that the TLS library may hold by itself; [`Tunnel::seal`] moves on what
/// it has at each such step.
const LIBRARY_BUFFER: usize = 64 * 1024;

/// Why there is no tunnel, or none any longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// The host called has no pin: it cannot be known.
    #[error("call {0}: no pin for it in hosts.pins")]
    NoPin(HostId),
    /// The host called showed another key than it should have.
    #[error("verify the key of {host}: expected {}, seen {seen}", either(.expected))]
    WrongKey {
        /// Whom we called.
        host: HostId,
        /// The pins that the table has of it.
        expected: Vec<Pin>,
        /// The pin of the key that was shown.
        seen: Pin,
    },
    /// A caller whose key is no host's.
    #[error("verify the key of the caller: it is no host's in hosts.pins, seen {0}")]
    UnknownKey(Pin),
    /// A caller that shows no certificate.
    #[error("verify the key of the caller: it showed none")]
    NoCertificate,
    /// A certificate that cannot be read, or a handshake that its key did not sign.
    #[error("verify the key of the other side: {0}")]
    BadCertificate(String),
    /// The other side does not take our key.
    #[error(
        "authenticate: the other side refused with the alert {0:?}: is this host's key in its hosts.pins?"
    )]
    Refused(AlertDescription),
    /// The other side ended the tunnel with another alert.
    #[error("read the tunnel: the other side ended it with the alert {0:?}")]
    Alert(AlertDescription),
    /// Not TLS at all.
    #[error("begin TLS: what came is no TLS")]
    NotTls,
    /// TLS, but not of our kind.
    #[error("begin TLS: nothing in common: {0}")]
    Incompatible(String),
    /// More bytes before authentication than there can be.
    #[error("begin TLS: more than {MAX_HANDSHAKE} bytes and not authenticated")]
    TooMuch,
    /// Something was to be sealed before there is a tunnel, or after it was closed.
    #[error("seal: the tunnel is not open")]
    NotOpen,
    /// What came was changed on its way, or makes no sense.
    #[error("read the tunnel: {0}")]
    Broken(String),
    /// Our own certificate or configuration cannot be used.
    #[error("begin TLS: {0}")]
    Own(String),
}

impl TunnelError {
    /// Whether it says who the other side is not: worth a person's look, unlike what a network
    /// does.
    pub fn is_about_keys(&self) -> bool {
        match self {
            TunnelError::NoPin(_)
            | TunnelError::WrongKey { .. }
            | TunnelError::UnknownKey(_)
            | TunnelError::NoCertificate
            | TunnelError::BadCertificate(_)
            | TunnelError::Refused(_)
            | TunnelError::Own(_) => true,
            TunnelError::Alert(_)
            | TunnelError::NotTls
            | TunnelError::Incompatible(_)
            | TunnelError::TooMuch
            | TunnelError::NotOpen
            | TunnelError::Broken(_) => false,
        }
    }
}

/// `sha256:... or sha256:...`.
fn either(pins: &[Pin]) -> String {
    pins.iter().map(Pin::to_string).collect::<Vec<_>>().join(" or ")
}

/// One end of a tunnel.
pub struct Tunnel {
    connection: Connection,
    /// Whom a key belongs to at this end.
    keys: Keys,
    /// The pin of the key that is shown to the other side.
    own: Pin,
    out: Outgoing,
    /// Bytes taken before authentication.
    taken: usize,
    /// Set when the handshake is done.
    peer: Option<(HostId, Pin)>,
    /// Whether anything came through the tunnel: an alert after that is no refusal of our key.
    heard: bool,
    closed: bool,
    peer_closed: bool,
    failed: Option<TunnelError>,
}

/// Whose keys are taken.
enum Keys {
    Caller { host: HostId, expected: Vec<Pin> },
    Called(Admission),
}

impl Keys {
    fn who(&self, pin: &Pin) -> Option<HostId> {
        match self {
            Keys::Caller { host, expected } => expected.contains(pin).then(|| host.clone()),
            Keys::Called(admission) => admission.pins().who(pin).cloned(),
        }
    }
}

impl Tunnel {
    /// The end that calls `host`, which has the pins `expected`; the first bytes wait in
    /// [`Tunnel::out`].
    ///
    /// # Errors
    /// There is no pin, or our own key cannot be used.
    pub fn caller(identity: &TlsIdentity, host: &HostId, expected: &[Pin]) -> Result<Tunnel, TunnelError> {
        if expected.is_empty() {
            return Err(TunnelError::NoPin(host.clone()));
        }
        let connection = identity.call(expected).map_err(|error| TunnelError::Own(error.to_string()))?;
        let keys = Keys::Caller { host: host.clone(), expected: expected.to_vec() };
        Ok(Tunnel::begin(Connection::Client(connection), keys, identity.pin()))
    }

    /// The end that is called.
    ///
    /// # Errors
    /// Our own key cannot be used.
    pub fn called(admission: &Admission) -> Result<Tunnel, TunnelError> {
        let connection =
            ServerConnection::new(admission.config()).map_err(|error| TunnelError::Own(error.to_string()))?;
        let keys = Keys::Called(admission.clone());
        Ok(Tunnel::begin(Connection::Server(connection), keys, admission.own_pin()))
    }

    fn begin(mut connection: Connection, keys: Keys, own: Pin) -> Tunnel {
        connection.set_buffer_limit(Some(LIBRARY_BUFFER));
        let mut tunnel = Tunnel {
            connection,
            keys,
            own,
            out: Outgoing::default(),
            taken: 0,
            peer: None,
            heard: false,
            closed: false,
            peer_closed: false,
            failed: None,
        };
        tunnel.gather();
        tunnel
    }

    /// Takes what was read from the socket; what it says is appended to `plaintext`.
    ///
    /// # Errors
    /// The tunnel is gone. What it said before that is in `plaintext`, and the alert in
    /// [`Tunnel::out`].
    pub fn feed(&mut self, mut ciphertext: &[u8], plaintext: &mut Vec<u8>) -> Result<(), TunnelError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        while !ciphertext.is_empty() && !self.peer_closed {
            let result = self.step(&mut ciphertext, plaintext);
            self.gather();
            if let Err(error) = result {
                self.failed = Some(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Enciphers `plaintext`; the result waits in [`Tunnel::out`].
    ///
    /// # Errors
    /// The tunnel is not established, or closed, or gone.
    pub fn seal(&mut self, mut plaintext: &[u8]) -> Result<(), TunnelError> {
        if self.failed.is_some() || self.closed || self.peer.is_none() {
            return Err(self.failed.clone().unwrap_or(TunnelError::NotOpen));
        }
        while !plaintext.is_empty() {
            match self.connection.writer().write(plaintext) {
                Ok(0) | Err(_) => return Err(TunnelError::NotOpen),
                Ok(count) => plaintext = &plaintext[count..],
            }
            self.gather();
        }
        Ok(())
    }

    /// Says that nothing more will be sealed: close_notify, once.
    pub fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.connection.send_close_notify();
        self.gather();
    }

    /// The pin of the key that is shown to the other side.
    pub fn own_pin(&self) -> Pin {
        self.own
    }

    /// What is to be written to the socket.
    pub fn out(&mut self) -> &mut Outgoing {
        &mut self.out
    }

    /// Whether something waits to be written to the socket.
    pub fn wants_write(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether the handshake is done at this end.
    pub fn established(&self) -> bool {
        self.peer.is_some()
    }

    /// Who is at the other end, and by which key, once the tunnel is established.
    pub fn peer(&self) -> Option<&(HostId, Pin)> {
        self.peer.as_ref()
    }

    /// Whether the other side said that it will send nothing more. An end of the stream without it
    /// was cut off.
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Takes as much as the library takes at once.
    fn step(&mut self, ciphertext: &mut &[u8], plaintext: &mut Vec<u8>) -> Result<(), TunnelError> {
        let before = ciphertext.len();
        let taken = self.connection.read_tls(ciphertext);
        if self.peer.is_none() {
            self.taken += before - ciphertext.len();
        }
        // The library takes nothing only after close_notify and with plaintext that was not taken
        // out; both cannot be here. Were it wrong, an error is better than a loop.
        if matches!(taken, Ok(0) | Err(_)) {
            return Err(TunnelError::Broken("bytes that cannot be taken".to_owned()));
        }
        let processed = self.connection.process_new_packets();
        self.take_plaintext(plaintext);
        let state = processed.map_err(|error| self.explain(error))?;
        self.peer_closed = state.peer_has_closed();
        if self.peer.is_none() {
            if !self.connection.is_handshaking() {
                self.peer = Some(self.identify()?);
            } else if self.taken >= MAX_HANDSHAKE {
                return Err(TunnelError::TooMuch);
            }
        }
        Ok(())
    }

    fn take_plaintext(&mut self, plaintext: &mut Vec<u8>) {
        let mut reader = self.connection.reader();
        // An error is `WouldBlock`: no more for now.
        while let Ok(chunk) = reader.fill_buf() {
            let length = chunk.len();
            if length == 0 {
                break;
            }
            plaintext.extend_from_slice(chunk);
            reader.consume(length);
            self.heard = true;
        }
    }

    /// Who is at the other end of a handshake that was verified.
    fn identify(&self) -> Result<(HostId, Pin), TunnelError> {
        let certificate = self.connection.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.ok_or(TunnelError::NoCertificate)?;
        let pin = pin_of(certificate).map_err(|error| TunnelError::BadCertificate(error.to_string()))?;
        self.keys.who(&pin).map(|host| (host, pin)).ok_or(TunnelError::UnknownKey(pin))
    }

    /// Moves what the library wants to send to `out`.
    fn gather(&mut self) {
        while self.connection.wants_write() {
            // Writing to memory cannot fail.
            if matches!(self.connection.write_tls(self.out.tail()), Ok(0) | Err(_)) {
                break;
            }
        }
    }

    fn explain(&self, error: rustls::Error) -> TunnelError {
        use rustls::Error;
        match error {
            Error::InvalidCertificate(CertificateError::Other(cause)) => {
                match (cause.0.downcast_ref::<Refusal>(), &self.keys) {
                    (Some(&Refusal(seen)), Keys::Caller { host, expected }) => {
                        TunnelError::WrongKey { host: host.clone(), expected: expected.clone(), seen }
                    }
                    (Some(&Refusal(seen)), Keys::Called(_)) => TunnelError::UnknownKey(seen),
                    (None, _) => TunnelError::BadCertificate(cause.to_string()),
                }
            }
            Error::InvalidCertificate(cause) => TunnelError::BadCertificate(cause.to_string()),
            Error::NoCertificatesPresented => TunnelError::NoCertificate,
            Error::AlertReceived(alert) if !self.heard && is_about_certificates(alert) => {
                TunnelError::Refused(alert)
            }
            Error::AlertReceived(alert) => TunnelError::Alert(alert),
            Error::InvalidMessage(_) if self.connection.protocol_version().is_none() => TunnelError::NotTls,
            Error::PeerIncompatible(cause) => TunnelError::Incompatible(format!("{cause:?}")),
            other => TunnelError::Broken(other.to_string()),
        }
    }
}

/// The alerts by which a certificate is turned down.
fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRequired
    )
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel")
            .field("peer", &self.peer)
            .field("out", &self.out.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod openssl;
#[cfg(test)]
mod tests;
