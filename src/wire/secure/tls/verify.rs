//! Judging the other side's certificate: by its key's pin, and by the key's signature over the
//! handshake.
//!
//! The signature is what proves that the other side *has* the key and is checked by the TLS
//! library's own function. Everything else that a certificate says (names, dates, issuer, uses) is
//! ignored: the pin is the whole trust.
//!
//! That a key is refused, and which, travels through the library as [`Refusal`], so that one
//! configuration serves all connections and the message can still name both pins. The other side
//! gets the alert certificate_unknown.

use base::{Pin, Pins};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    SignatureScheme,
};
use std::sync::Arc;

/// Signatures of the keys that a host may have.
pub(super) const SCHEMES: [SignatureScheme; 3] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
];

/// A key that is not taken.
#[derive(Debug, thiserror::Error)]
#[error("the key {0} is not taken")]
pub(super) struct Refusal(pub Pin);

/// The pin of a certificate's key.
pub(super) fn pin_of(certificate: &CertificateDer<'_>) -> Result<Pin, Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(Pin::of(&parsed.subject_public_key_info()))
}

/// Takes the certificate if `known` knows its key.
fn judge(certificate: &CertificateDer<'_>, known: impl FnOnce(&Pin) -> bool) -> Result<(), Error> {
    let pin = pin_of(certificate)?;
    if known(&pin) {
        return Ok(());
    }
    Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refusal(pin))))))
}

/// What both verifiers answer about TLS 1.2, which neither end offers.
fn not_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerIncompatible::Tls12NotOffered.into())
}

/// The caller's judge: one of the pins of the host called.
#[derive(Debug)]
pub(super) struct CallerVerifier {
    algorithms: WebPkiSupportedAlgorithms,
    expected: Vec<Pin>,
}

impl CallerVerifier {
    pub(super) fn new(provider: &CryptoProvider, expected: &[Pin]) -> CallerVerifier {
        CallerVerifier { algorithms: provider.signature_verification_algorithms, expected: expected.to_vec() }
    }
}

impl ServerCertVerifier for CallerVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        judge(certificate, |pin| self.expected.contains(pin)).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        not_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

/// The called side's judge: some host's pin.
#[derive(Debug)]
pub(super) struct CalledVerifier {
    algorithms: WebPkiSupportedAlgorithms,
    pins: Pins,
}

impl CalledVerifier {
    pub(super) fn new(provider: &CryptoProvider, pins: Pins) -> CalledVerifier {
        CalledVerifier { algorithms: provider.signature_verification_algorithms, pins }
    }
}

impl ClientCertVerifier for CalledVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        judge(certificate, |pin| self.pins.who(pin).is_some()).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        not_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}
