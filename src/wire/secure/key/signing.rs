//! What is done with a key: its public half, signatures.
//!
//! The library's form of a key is made for one signature and wiped after it, and so is the stack
//! that this was done on; what stays is the one [`Secret`].

use super::secret::Secret;
use rcgen::{PublicKeyData, SignatureAlgorithm as Algorithm};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::Arc;
use zeroize::Zeroize;

/// More stack than reading a key and signing with it takes.
const STACK: usize = 32 * 1024;

/// Kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ed25519,
    P256,
    P384,
}

/// A key as the library has it.
enum Pair {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
}

// Wiping it where it lies is enough: it owns nothing elsewhere.
const _: () = assert!(!std::mem::needs_drop::<Pair>());

/// A key that signs. A clone is the same key.
#[derive(Clone)]
pub(in crate::secure) struct SecretKey {
    secret: Arc<Secret>,
    kind: Kind,
    public: Arc<[u8]>,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
#[error("sign with this host's key: this process does not have it, or has it no more")]
struct Gone;

impl SecretKey {
    /// The key in PKCS#8 that `secret` is, if it is one of the kinds that are taken.
    pub(super) fn new(secret: Secret) -> Option<SecretKey> {
        let der = secret.read();
        let (kind, public) = with_pair(&der, |pair, kind| {
            let public: Arc<[u8]> = match pair {
                Pair::Ed(pair) => pair.public_key().as_ref().into(),
                Pair::Ec(pair) => pair.public_key().as_ref().into(),
            };
            (kind, public)
        })?;
        Some(SecretKey { secret: Arc::new(secret), kind, public })
    }

    /// What is forked meanwhile has the key as well.
    pub(in crate::secure) fn lend<T>(&self, fork: impl FnOnce() -> T) -> T {
        self.secret.lend(fork)
    }

    /// This process signs nothing more.
    pub(in crate::secure) fn forget(&self) {
        self.secret.forget();
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, Gone> {
        let signed = with_pair(&self.secret.read(), |pair, _| match pair {
            Pair::Ed(pair) => Some(pair.sign(message).as_ref().to_vec()),
            Pair::Ec(pair) => Some(pair.sign(&SystemRandom::new(), message).ok()?.as_ref().to_vec()),
        });
        signed.flatten().ok_or(Gone)
    }
}

fn with_pair<T>(der: &[u8], use_it: impl FnOnce(&Pair, Kind) -> T) -> Option<T> {
    let done = with_pair_on_stack(der, use_it);
    wipe_stack();
    done
}

#[inline(never)]
fn with_pair_on_stack<T>(der: &[u8], use_it: impl FnOnce(&Pair, Kind) -> T) -> Option<T> {
    let mut place = MaybeUninit::uninit();
    let kind = read(der, &mut place)?;
    // SAFETY: it was written, as there is a kind.
    let done = use_it(unsafe { place.assume_init_ref() }, kind);
    place.zeroize();
    Some(done)
}

fn read(der: &[u8], place: &mut MaybeUninit<Pair>) -> Option<Kind> {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
        place.write(Pair::Ed(pair));
        return Some(Kind::Ed25519);
    }
    let curves =
        [(&ECDSA_P256_SHA256_ASN1_SIGNING, Kind::P256), (&ECDSA_P384_SHA384_ASN1_SIGNING, Kind::P384)];
    curves.into_iter().find_map(|(curve, kind)| {
        let pair = EcdsaKeyPair::from_pkcs8(curve, der, &SystemRandom::new()).ok()?;
        place.write(Pair::Ec(pair));
        Some(kind)
    })
}

/// Writes over what functions that have returned may have left below.
#[inline(never)]
fn wipe_stack() {
    let mut below = [0_u8; STACK];
    below.zeroize();
}

impl PublicKeyData for SecretKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static Algorithm {
        match self.kind {
            Kind::Ed25519 => &rcgen::PKCS_ED25519,
            Kind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Kind::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        }
    }
}

impl rcgen::SigningKey for SecretKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signature(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl SigningKey for SecretKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.kind {
            Kind::Ed25519 => SignatureAlgorithm::ED25519,
            Kind::P256 | Kind::P384 => SignatureAlgorithm::ECDSA,
        }
    }
}

impl Signer for SecretKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.signature(message).map_err(|gone| rustls::Error::General(gone.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        match self.kind {
            Kind::Ed25519 => SignatureScheme::ED25519,
            Kind::P256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            Kind::P384 => SignatureScheme::ECDSA_NISTP384_SHA384,
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({:?})", self.kind)
    }
}
