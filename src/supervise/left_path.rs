//! A path in what is left to the next program. JSON is text, and a path need not be: one that is no text is a list of
//! its bytes there. One that is text is text, as programs before this one wrote it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftPath(pub PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Bytes(Vec<u8>),
}

impl LeftPath {
    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Serialize for LeftPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => Form::Bytes(self.0.as_os_str().as_bytes().to_owned()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for LeftPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LeftPath, D::Error> {
        Ok(LeftPath(match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into(),
            Form::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }))
    }
}

/// For fields that are paths: `#[serde(with = ...)]`.
pub mod plain {
    use super::{Deserialize, Deserializer, LeftPath, Path, PathBuf, Serialize, Serializer};

    /// As a [`LeftPath`].
    ///
    /// # Errors
    /// What the serializer says.
    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        LeftPath(path.to_owned()).serialize(serializer)
    }

    /// As a [`LeftPath`].
    ///
    /// # Errors
    /// What the deserializer says.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        LeftPath::deserialize(deserializer).map(|left| left.0)
    }
}

/// For fields that may be a path: `#[serde(with = ...)]`.
pub mod optional {
    use super::{Deserialize, Deserializer, LeftPath, PathBuf, Serialize, Serializer};

    /// As a [`LeftPath`].
    ///
    /// # Errors
    /// What the serializer says.
    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.clone().map(LeftPath).serialize(serializer)
    }

    /// As a [`LeftPath`].
    ///
    /// # Errors
    /// What the deserializer says.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<LeftPath>::deserialize(deserializer)?.map(|left| left.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_text_is_text_and_any_other_comes_back_as_it_was() {
        let text = LeftPath("/srv/müller \"x\"".into());
        assert_eq!(serde_json::to_string(&text).unwrap(), "\"/srv/müller \\\"x\\\"\"");
        let odd = LeftPath(OsString::from_vec(b"/srv/caf\xe9/\xff".to_vec()).into());
        for path in [text, odd] {
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<LeftPath>(&json).unwrap(), path);
        }
    }
}
