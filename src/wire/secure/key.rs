//! This host's key on disk: `<key_dir>/host.key`, PKCS#8 as PEM.
//!
//! [`HostKey::make`] makes Ed25519; P-256 and P-384 keys made by other programs are taken as well.
//! A key that its group or others may read is refused: it is no secret any more. A key never shows
//! in an error, a log or a `Debug`. Of what it passes through on its way everything is wiped; it
//! stays in one place, which forked processes have only if it is lent to them. While keys change
//! over there is a second file, see [`KeyFile`].

mod pem;
mod secret;
mod signing;

use base::Pin;
use base::disk::own::OwnFile;
use pem::PemError;
use rcgen::PublicKeyData;
use secret::Secret;
pub(super) use signing::SecretKey;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// Longest key file that is read; ours have 120 bytes. A longer one is refused.
const MAX_FILE: u64 = 16 * 1024;

/// Permission bits of a key's file.
const MODE: u32 = 0o600;

/// What stands before the 32 secret bytes of an Ed25519 key in PKCS#8, version 1 (RFC 8410).
/// Libraries that make version 2, with the public key in it, make files that `openssl` cannot read.
const ED25519_PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Which key of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFile {
    /// `host.key`: in use.
    Current,
    /// `host.key.new`: made, its pin being spread; not in use yet.
    New,
    /// `host.key.old`: was in use until the switch.
    Old,
}

impl KeyFile {
    /// The file in `key_dir` that has it.
    pub fn path(self, key_dir: &Path) -> PathBuf {
        key_dir.join(match self {
            KeyFile::Current => "host.key",
            KeyFile::New => "host.key.new",
            KeyFile::Old => "host.key.old",
        })
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not there.
    #[error("read {}: there is no key: lon pin --make makes one", .0.display())]
    Missing(PathBuf),
    /// The system did not let us have it.
    #[error("read {}: {cause}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Others than its owner may read it.
    #[error("read {}: readable by others (mode {mode:04o}): chmod 600 it", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no key of the kinds that we use.
    #[error("read {}: {what}", .path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// A key could not be made or stored.
    #[error("make {}: {cause}", .path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A certificate or a signer could not be made of the key.
    #[error("make a certificate of the key {pin}: {cause}")]
    Certificate {
        /// The key.
        pin: Pin,
        /// Why not, as the library says.
        cause: String,
    },
}

/// This host's key.
pub struct HostKey {
    key: SecretKey,
    pin: Pin,
}

impl HostKey {
    /// Loads the key in use.
    ///
    /// # Errors
    /// There is none that can be used.
    pub fn load(key_dir: &Path) -> Result<HostKey, KeyError> {
        HostKey::load_file(key_dir, KeyFile::Current)
    }

    /// Loads one of this host's keys.
    ///
    /// # Errors
    /// There is none that can be used.
    pub fn load_file(key_dir: &Path, which: KeyFile) -> Result<HostKey, KeyError> {
        let path = which.path(key_dir);
        let bytes = read(&path)?;
        let no_key = |what| KeyError::NoKey { path: path.clone(), what };
        let der = pem::decode(&bytes).map_err(|error| match error {
            PemError::None => no_key("there is no PKCS#8 key in it (-----BEGIN PRIVATE KEY-----)"),
            PemError::Broken => no_key("it is no PEM text"),
        })?;
        let secret = Secret::copy(&der).map_err(|cause| KeyError::Read { path: path.clone(), cause })?;
        let key = SecretKey::new(secret).ok_or_else(|| no_key("want an Ed25519, P-256 or P-384 key"))?;
        Ok(HostKey::of(key))
    }

    /// Makes a key in a file that must not exist, for its owner alone. The file is there whole or
    /// not at all, and on disk when this returns.
    ///
    /// # Errors
    /// It could not be made or stored; a file that this made is gone again.
    pub fn make(key_dir: &Path) -> Result<HostKey, KeyError> {
        HostKey::make_file(key_dir, KeyFile::Current, None)
    }

    /// The same, for one of this host's keys and given to `owner`, a user and a group: a key that
    /// root makes is of no use to programs that become another user.
    ///
    /// # Errors
    /// It could not be made or stored; a file that this made is gone again.
    pub fn make_file(key_dir: &Path, which: KeyFile, owner: Option<(u32, u32)>) -> Result<HostKey, KeyError> {
        let path = which.path(key_dir);
        let failed = |cause| KeyError::Make { path: path.clone(), cause };
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| failed(io::Error::other(error)))?;
        let der = Zeroizing::new([&ED25519_PKCS8[..], &random].concat());
        random.zeroize();
        let text = pem::encode(&der);
        let key = SecretKey::new(Secret::copy(&der).map_err(failed)?);
        let key = key.ok_or_else(|| failed(io::Error::other("it is no key")))?;
        let stored = OwnFile::create(&path, MODE).and_then(|new| {
            if let Some((user, group)) = owner {
                fchown(new.file(), Some(user), Some(group))?;
            }
            new.file().write_all(text.as_bytes())?;
            new.file().sync_all()?;
            new.place()
        });
        stored.map_err(failed)?;
        if let Err(cause) = sync_folder(key_dir) {
            // Nobody else could make it. The failure that led here is what is reported.
            let _ = fs::remove_file(&path);
            return Err(failed(cause));
        }
        Ok(HostKey::of(key))
    }

    /// The pin by which the peers' tables know this key.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// What signs.
    pub(super) fn key(&self) -> &SecretKey {
        &self.key
    }

    fn of(key: SecretKey) -> HostKey {
        let pin = Pin::of(&key.subject_public_key_info());
        HostKey { key, pin }
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({})", self.pin)
    }
}

/// Makes the names in a folder durable.
///
/// # Errors
/// What the system said.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => KeyError::Missing(path.to_owned()),
        _ => KeyError::Read { path: path.to_owned(), cause },
    };
    // O_NONBLOCK: a FIFO in its place must not hold the start up.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let no_key = |what| KeyError::NoKey { path: path.to_owned(), what };
    if !metadata.is_file() {
        return Err(no_key("it is no file"));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path: path.to_owned(), mode });
    }
    // With room for all that is read: it is never moved to another place, which would not be wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 64));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(no_key("it is too long for a key"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_key_that_is_made_is_its_owners_alone_and_loads_as_itself() {
        let dir = tempfile::tempdir().unwrap();
        let made = HostKey::make(dir.path()).unwrap();
        assert_eq!(mode(&dir.path().join("host.key")), 0o600);
        let loaded = HostKey::load(dir.path()).unwrap();
        assert_eq!(loaded.pin(), made.pin());
        assert_eq!(format!("{loaded:?}"), format!("HostKey({})", made.pin()), "nothing of the key itself");
        let other = HostKey::make_file(dir.path(), KeyFile::New, None).unwrap();
        assert_ne!(other.pin(), made.pin());
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.key");
        fs::write(&path, "mine").unwrap();
        let error = HostKey::make(dir.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("make {}: File exists (os error 17)", path.display()));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn names_in_a_folder_that_is_not_there_are_not_said_to_be_durable() {
        let dir = tempfile::tempdir().unwrap();
        assert!(sync_folder(dir.path()).is_ok());
        assert_eq!(sync_folder(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        HostKey::make(dir.path()).unwrap();
        let path = dir.path().join("host.key");
        for (bits, shown) in [(0o644, "0644"), (0o640, "0640"), (0o604, "0604"), (0o620, "0620")] {
            fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
            let said = HostKey::load(dir.path()).unwrap_err().to_string();
            let path = path.display();
            assert_eq!(said, format!("read {path}: readable by others (mode {shown}): chmod 600 it"));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(HostKey::load(dir.path()).is_ok());
    }

    #[test]
    fn what_is_no_key_is_an_error_that_says_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.key");
        let shown = path.display().to_string();
        let said = |dir: &Path| HostKey::load(dir).unwrap_err().to_string().replace(&shown, "F");
        assert_eq!(said(dir.path()), "read F: there is no key: lon pin --make makes one");
        let put = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        for (bytes, what) in [
            (&b""[..], "there is no PKCS#8 key in it (-----BEGIN PRIVATE KEY-----)"),
            (
                b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
                "there is no PKCS#8 key in it (-----BEGIN PRIVATE KEY-----)",
            ),
            (b"-----BEGIN PRIVATE KEY-----\nAAAA\n", "it is no PEM text"),
            (b"-----BEGIN PRIVATE KEY-----\n&&\n-----END PRIVATE KEY-----\n", "it is no PEM text"),
            (
                b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                "want an Ed25519, P-256 or P-384 key",
            ),
            (&[b'x'; MAX_FILE as usize], "there is no PKCS#8 key in it (-----BEGIN PRIVATE KEY-----)"),
            (&[b'x'; MAX_FILE as usize + 1], "it is too long for a key"),
        ] {
            put(bytes);
            assert_eq!(said(dir.path()), format!("read F: {what}"));
        }
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(said(dir.path()), "read F: it is no file");
    }
}
