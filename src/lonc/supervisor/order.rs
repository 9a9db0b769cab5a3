//! Whose child is begun, or replaced, before whose.
//!
//! A child costs the same whether its peer is there or not: of five thousand hosts those that are
//! up would wait for those that are away, in the order of their names. So links that were well come
//! first: at a start those of which the status file of the program before this one says no error
//! that is not past; at HUP, and where many are replaced, those that are up (`docs/adr/0107`).
//!
//! It is an order and nothing else: who comes later is begun all the same, and where nothing is
//! known, all are equal. So what the file says is believed.

use super::Lonc;
use super::children::Replace;
use base::HostId;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};
use supervise::daemon::{Ground, Role};
use supervise::publish;

/// What of a status file tells of this.
#[derive(Deserialize)]
struct LeftBehind {
    peers: Vec<LeftPeer>,
}

#[derive(Deserialize)]
struct LeftPeer {
    peer: HostId,
    #[serde(default)]
    last_error: Option<IgnoredAny>,
    #[serde(default)]
    last_error_past: bool,
}

/// When those are to be begun that come later: as soon as all others were.
pub(super) fn later(now: Instant) -> Instant {
    now + Duration::from_micros(1)
}

/// Whose links were not well when the program before this one wrote its last status. None, where
/// that goes on serving: its children are there.
pub(super) fn unwell_before(ground: &Ground<'_>) -> BTreeSet<HostId> {
    if ground.serves {
        return BTreeSet::new();
    }
    let json = Lonc::FILES.iter().find(|name| Path::new(name).extension().is_some_and(|it| it == "json"));
    let left = json.and_then(|name| publish::left(&ground.config.status_dir.join(name)));
    unwell(&left.unwrap_or_default())
}

fn unwell(json: &[u8]) -> BTreeSet<HostId> {
    let Ok(LeftBehind { peers }) = serde_json::from_slice(json) else { return BTreeSet::new() };
    let is_unwell = |it: &LeftPeer| it.last_error.is_some() && !it.last_error_past;
    peers.into_iter().filter(is_unwell).map(|it| it.peer).collect()
}

impl Lonc {
    /// Puts those first whose links are up, of all that are to be replaced.
    pub(super) fn line_up(&mut self) {
        let Lonc { replacing, board, .. } = self;
        up_first(replacing, |peer| board.is_up(peer));
    }
}

/// Among those that are up, and among the others, it stays as it was.
fn up_first(replacing: &mut VecDeque<Replace>, is_up: impl Fn(&HostId) -> bool) {
    replacing.make_contiguous().sort_by_cached_key(|it| !is_up(&it.peer));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_up_are_replaced_before_the_others_each_in_their_order() {
        let id = |id: &str| HostId::new(id).unwrap();
        let replace = |peer| Replace { peer: id(peer), pid: 1, drain: Duration::ZERO };
        let mut replacing: VecDeque<Replace> = ["a", "c", "b", "e", "d"].map(replace).into();
        up_first(&mut replacing, |peer| [id("e"), id("b")].contains(peer));
        let order: Vec<&str> = replacing.iter().map(|it| it.peer.as_str()).collect();
        assert_eq!(order, ["b", "e", "a", "c", "d"]);
    }

    #[test]
    fn those_are_unwell_whose_error_is_not_past_and_of_what_is_no_status_nobody_is() {
        let json = br#"{"program":"lonc","peers":[
            {"peer":"a","state":"stopped","last_error":"refused","last_error_past":false},
            {"peer":"b","state":"stopped","last_error":"reset","last_error_past":true},
            {"peer":"c","state":"stopped","last_error":null},
            {"peer":"d","state":"down","last_error":"refused"}]}"#;
        let ids = |ids: &[&str]| ids.iter().map(|id| HostId::new(id).unwrap()).collect();
        assert_eq!(unwell(json), ids(&["a", "d"]));
        let half = &json[..json.len() / 2];
        for odd in [half, b"", b"[]", br#"{"peers":[{"peer":"no id at all"}]}"#] {
            assert_eq!(unwell(odd), BTreeSet::new());
        }
    }
}
