//! A path in JSON: in what is left to the next program, and in views. JSON is text, and a path need
//! not be: one that is no text is a list of its bytes there. One that is text is text, as programs
//! before this one wrote it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath(pub PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Bytes(Vec<u8>),
}

impl JsonPath {
    /// The path itself; what is no UTF-8 is in it as it is on disk.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Serialize for JsonPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => Form::Bytes(self.0.as_os_str().as_bytes().to_owned()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for JsonPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<JsonPath, D::Error> {
        Ok(JsonPath(match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into(),
            Form::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }))
    }
}

/// For fields that are paths: `#[serde(with = ...)]`.
pub mod plain {
    use super::{Deserialize, Deserializer, JsonPath, Path, PathBuf, Serialize, Serializer};

    /// As a [`JsonPath`].
    ///
    /// # Errors
    /// What the serializer says.
    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        JsonPath(path.to_owned()).serialize(serializer)
    }

    /// As a [`JsonPath`].
    ///
    /// # Errors
    /// What the deserializer says.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        JsonPath::deserialize(deserializer).map(|left| left.0)
    }
}

/// For fields that may be a path: `#[serde(with = ...)]`.
pub mod optional {
    use super::{Deserialize, Deserializer, JsonPath, PathBuf, Serialize, Serializer};

    /// As a [`JsonPath`].
    ///
    /// # Errors
    /// What the serializer says.
    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.clone().map(JsonPath).serialize(serializer)
    }

    /// As a [`JsonPath`].
    ///
    /// # Errors
    /// What the deserializer says.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<JsonPath>::deserialize(deserializer)?.map(|left| left.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_paths_come_back_as_they_were() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Left {
            #[serde(with = "plain")]
            folder: PathBuf,
            #[serde(with = "optional")]
            file: Option<PathBuf>,
        }
        let odd = || PathBuf::from(OsString::from_vec(b"/srv/caf\xe9".to_vec()));
        for file in [None, Some("/srv/plain".into()), Some(odd())] {
            let left = Left { folder: odd(), file };
            let json = serde_json::to_string(&left).unwrap();
            assert_eq!(serde_json::from_str::<Left>(&json).unwrap(), left);
        }
    }

    #[test]
    fn a_path_that_is_text_is_text_and_any_other_comes_back_as_it_was() {
        let text = JsonPath("/srv/müller \"x\"".into());
        assert_eq!(serde_json::to_string(&text).unwrap(), "\"/srv/müller \\\"x\\\"\"");
        let odd = JsonPath(OsString::from_vec(b"/srv/caf\xe9/\xff".to_vec()).into());
        for path in [text, odd] {
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<JsonPath>(&json).unwrap(), path);
        }
    }
}
