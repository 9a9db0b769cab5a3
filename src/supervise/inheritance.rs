//! What a program leaves to the one after it, as far as all programs leave the same.

use crate::reload::Ground;
use base::json_path::JsonPath;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::os::fd::RawFd;

/// What every program leaves to the one after it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Common {
    /// The descriptor of the pid file.
    pub lock: RawFd,
    /// That of the lock which lies with the spool, if there is one.
    #[serde(default)]
    pub spool_lock: Option<(RawFd, JsonPath)>,
    /// The log, for a new program that cannot read its configuration.
    pub log: JsonPath,
    /// Where the program is looked for, as its operator named it.
    #[serde(default)]
    pub program: Option<JsonPath>,
    /// What is as old as the process.
    #[serde(default)]
    pub ground: Option<Ground>,
    /// This host's key was there.
    #[serde(default)]
    pub key: bool,
    /// A HUP came that nothing has answered yet.
    #[serde(default)]
    pub restart: bool,
}

/// An inheritance, as far as a start is concerned.
pub trait Inherited: DeserializeOwned {
    /// What every inheritance has.
    fn common(&self) -> &Common;
}
