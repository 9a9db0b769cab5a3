//! `lon queue --json`: what waits, as one line of JSON. The names of its fields: `docs/status.md`.

use super::oldest;
use jiff::Timestamp;
use serde::Serialize;
use status::json;
use store::spool::{InboxFile, Listed, Listing};

/// All hosts, those too for which nothing waits.
#[derive(Serialize)]
struct Hosts<'a> {
    peers: Vec<Host<'a>>,
    /// Files that are for no host of the table.
    strays: &'a [String],
}

/// What waits for one host.
#[derive(Serialize)]
struct Host<'a> {
    peer: &'a str,
    /// The host has no line in the table any more: nobody sends it.
    stranger: bool,
    waiting: u64,
    bytes: u64,
    oldest: Option<Timestamp>,
    dropped_in: usize,
    failed: u64,
    corrupt: u64,
    unreadable: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<Message>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<File<'a>>>,
}

#[derive(Serialize)]
struct Message {
    sequence: u64,
    stored_at: Timestamp,
    /// Its number; `null` where that is not known.
    user: Option<u32>,
    bytes: u64,
    /// Bytes that are no printable ASCII as `\xNN`, as in the table.
    request: String,
    /// Whether `request` is all of it.
    whole: bool,
}

#[derive(Serialize)]
struct File<'a> {
    name: &'a str,
    user: u32,
    bytes: u64,
    modified: Timestamp,
}

/// A host of the table or (`true`) one that is there no more, and what waits for it.
pub(super) type Waiting = (String, bool, Listing);

pub(super) fn hosts(waiting: &[Waiting], strays: &[String]) -> String {
    let peers = waiting.iter().map(|(peer, stranger, listing)| host(peer, *stranger, listing)).collect();
    json(&Hosts { peers, strays }) + "\n"
}

pub(super) fn messages(peer: &str, stranger: bool, listing: &Listing) -> String {
    let message = |listed: &Listed| Message {
        sequence: listed.sequence.0,
        stored_at: listed.stored_at,
        user: listed.user,
        bytes: listed.length,
        request: listed.request.escape_ascii().to_string(),
        whole: listed.request.len() as u64 == listed.length,
    };
    let files = listing.inbox.iter().map(file).collect();
    let messages = listing.messages.iter().map(message).collect();
    json(&Host { messages: Some(messages), files: Some(files), ..host(peer, stranger, listing) }) + "\n"
}

fn file(found: &InboxFile) -> File<'_> {
    File { name: &found.name, user: found.user, bytes: found.length, modified: found.modified }
}

fn host<'a>(peer: &'a str, stranger: bool, listing: &'a Listing) -> Host<'a> {
    Host {
        peer,
        stranger,
        waiting: listing.waiting,
        bytes: listing.bytes,
        oldest: oldest(listing),
        dropped_in: listing.inbox.len(),
        failed: listing.failed,
        corrupt: listing.corrupt,
        unreadable: listing.unreadable,
        messages: None,
        files: None,
    }
}
