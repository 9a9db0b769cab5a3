//! What this host shows to others: a certificate made in memory around its key; and whom it takes.
//!
//! The certificate is made again at each start, is never stored, and nobody looks at anything in it
//! but the key.

use super::super::key::{HostKey, KeyError, SecretKey};
use super::verify::{CalledVerifier, CallerVerifier};
use base::{Pin, Pins};
use rcgen::CertificateParams;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ServerConfig, version};
use std::sync::Arc;
use std::time::Duration;

/// The name in the certificate and in the library's hands; it crosses the network in neither hello.
const NAME: &str = "lonnet";

/// The library's clock: it stands still. The library asks for the time to judge dates, which count
/// for nothing here, and its own clock panics where this machine's is before 1970.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::ZERO))
    }
}

/// This host's key and certificate, ready for any number of tunnels. A clone is the same and costs
/// nothing.
#[derive(Clone)]
pub struct TlsIdentity {
    pin: Pin,
    provider: Arc<CryptoProvider>,
    shown: Arc<SingleCertAndKey>,
    key: SecretKey,
}

impl TlsIdentity {
    /// Makes the certificate.
    ///
    /// # Errors
    /// The key can make none.
    pub fn new(key: &HostKey) -> Result<TlsIdentity, KeyError> {
        let failed = |cause: String| KeyError::Certificate { pin: key.pin(), cause };
        let certificate = CertificateParams::new([NAME.to_owned()])
            .and_then(|parameters| parameters.self_signed(key.key()))
            .map_err(|error| failed(error.to_string()))?;
        let provider = rustls::crypto::ring::default_provider();
        let key_of_shown = Arc::new(key.key().clone());
        let shown = CertifiedKey::new(vec![certificate.der().clone()], key_of_shown);
        let (provider, shown) = (Arc::new(provider), Arc::new(shown.into()));
        Ok(TlsIdentity { pin: key.pin(), provider, shown, key: key.key().clone() })
    }

    /// What is forked meanwhile can show it as well; no other process that is forked can.
    pub fn lend<T>(&self, fork: impl FnOnce() -> T) -> T {
        self.key.lend(fork)
    }

    /// The pin of this host's key.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// Who shows the certificate of `other` and has the key of `self`: anybody can have seen the
    /// one, nobody has the other.
    #[cfg(test)]
    pub(super) fn with_the_certificate_of(&self, other: &TlsIdentity) -> TlsIdentity {
        use rustls::client::ResolvesClientCert;
        let own = |identity: &TlsIdentity| identity.shown.resolve(&[], &super::verify::SCHEMES).unwrap();
        let shown = CertifiedKey::new(own(other).cert.clone(), own(self).key.clone());
        let (provider, key) = (self.provider.clone(), self.key.clone());
        TlsIdentity { pin: other.pin, provider, shown: Arc::new(shown.into()), key }
    }

    /// A call to a host with one of these keys.
    pub(super) fn call(&self, expected: &[Pin]) -> Result<ClientConnection, rustls::Error> {
        let verifier = CallerVerifier::new(&self.provider, expected);
        let mut config = ClientConfig::builder_with_details(self.provider.clone(), Arc::new(NoClock))
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.shown.clone());
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        let name = ServerName::try_from(NAME).map_err(|error| rustls::Error::General(error.to_string()))?;
        ClientConnection::new(Arc::new(config), name)
    }
}

/// Two are the same if the key is: nobody looks at anything else.
impl PartialEq for TlsIdentity {
    fn eq(&self, other: &TlsIdentity) -> bool {
        self.pin == other.pin
    }
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsIdentity({})", self.pin)
    }
}

/// Whom the called side takes, for any number of tunnels. A clone is the same and costs nothing:
/// one count is written, in memory that a forked process shares until then.
#[derive(Clone)]
pub struct Admission(Arc<Parts>);

struct Parts {
    pins: Pins,
    own: Pin,
    config: Arc<ServerConfig>,
    key: SecretKey,
}

impl Admission {
    /// The hosts of `pins` are taken, and shown `identity`.
    ///
    /// # Errors
    /// The TLS library has no use for the identity.
    pub fn new(identity: &TlsIdentity, pins: Pins) -> Result<Admission, KeyError> {
        let verifier = CalledVerifier::new(&identity.provider, pins.clone());
        let mut config = ServerConfig::builder_with_details(identity.provider.clone(), Arc::new(NoClock))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| KeyError::Certificate { pin: identity.pin, cause: error.to_string() })?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(identity.shown.clone());
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let (own, key) = (identity.pin, identity.key.clone());
        Ok(Admission(Arc::new(Parts { pins, own, config: Arc::new(config), key })))
    }

    /// Whose keys are taken.
    pub fn pins(&self) -> &Pins {
        &self.0.pins
    }

    /// The pin of the key that they are shown.
    pub fn own_pin(&self) -> Pin {
        self.0.own
    }

    /// Wipes the key in this process: no tunnel is opened from here on; those that are open go on.
    pub fn forget_key(&self) {
        self.0.key.forget();
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.0.config.clone()
    }
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admission({} pins)", self.0.pins.len())
    }
}
