//! Keys of hosts, and the tunnel's configuration around them; made here and not by `lon`, so that
//! neither can be wrong alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// A host's key.
#[derive(Clone)]
pub struct Key(Arc<KeyPair>);

impl Key {
    /// A new one.
    pub fn new() -> Key {
        Key(Arc::new(KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("make a key")))
    }

    /// Its pin, as it stands in `hosts.pins`.
    pub fn pin(&self) -> String {
        pin_of(&self.0.subject_public_key_info())
    }

    /// Writes it to the file `host.key` of a folder, which is made.
    pub fn write(&self, key_dir: &Path) {
        fs::create_dir_all(key_dir).expect("make a folder for keys");
        fs::set_permissions(key_dir, Permissions::from_mode(0o700)).expect("close a folder for keys");
        let text = STANDARD.encode(self.0.serialize_der());
        let file = key_dir.join("host.key");
        fs::write(&file, format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"))
            .and_then(|()| fs::set_permissions(&file, Permissions::from_mode(0o600)))
            .expect("write a key");
    }

    /// A certificate around the key.
    fn certificate(&self) -> CertificateDer<'static> {
        let parameters = CertificateParams::new(["any".to_owned()]).expect("name a certificate");
        parameters.self_signed(&*self.0).expect("make a certificate").der().clone()
    }

    fn private(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }

    /// For a caller with this key.
    pub fn caller(&self) -> ClientConfig {
        let config = client().with_client_auth_cert(vec![self.certificate()], self.private());
        quiet(config.expect("configure a caller"))
    }

    /// For a listener with this key that wants one of its callers, whichever.
    pub fn listener(&self) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("configure a listener")
            .with_client_cert_verifier(Arc::new(Anyone(provider)))
            .with_single_cert(vec![self.certificate()], self.private())
            .expect("configure a listener");
        config.send_tls13_tickets = 0;
        config
    }
}

/// For a caller without a key.
pub fn nobody() -> ClientConfig {
    quiet(client().with_no_client_auth())
}

fn client() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(ring::default_provider());
    ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("configure a caller")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
}

fn quiet(mut config: ClientConfig) -> ClientConfig {
    config.enable_sni = false;
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// The pin of a certificate's key.
pub fn pin_in(certificate: &CertificateDer<'_>) -> String {
    let parsed = ParsedCertificate::try_from(certificate).expect("read a certificate");
    pin_of(&parsed.subject_public_key_info())
}

fn pin_of(key: &[u8]) -> String {
    format!("sha256:{}", STANDARD.encode(::ring::digest::digest(&::ring::digest::SHA256, key)))
}

/// Takes any key, if only its owner has signed: tests look at the pin themselves.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl Anyone {
    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn old() -> Result<HandshakeSignatureValid, Error> {
    panic!("TLS 1.2 was offered by nobody")
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Anyone {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
