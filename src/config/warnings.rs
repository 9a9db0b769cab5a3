//! What only `lonnet.toml` and the other files together can tell of many hosts at once: once for
//! each line that decides over them, with the first few ids. Mostly warnings: what is no error and
//! yet hardly meant.

use super::section::Report;
use super::settings::{Overlay, Settings, is_large_window};
use super::{Peer, Target};
use base::{HostId, Pins, WireKind};
use std::collections::{BTreeMap, HashMap};
use wire::secure::least_window;

/// Ids that one warning spells out.
const MAX_NAMES: usize = 5;

/// Says which hosts are to be called on the secure wire and cannot be, since nothing tells their
/// keys; and that nobody can call us.
pub(super) fn warn_of_pins(settings: &Settings, peers: &[Peer], pins: Option<&Pins>, report: &mut Report) {
    let shown = settings.pins.display();
    let line_of = line_of_key(settings, settings.lonc_line, |keys| keys.wire.map(|wire| wire.line));
    let secure = peers.iter().filter(|peer| peer.wire == WireKind::Secure).map(|peer| &peer.host.id);
    match pins {
        None if secure.clone().next().is_some() || !settings.lond.classic => {
            let what = format!(
                "pins: {shown} is not there: no secure link can be made; lon pin says what goes into it"
            );
            report.warning(settings.pins_line, what);
        }
        None => {}
        Some(pins) => {
            for (line, ids) in by_line(secure.filter(|id| pins.of(id).is_empty()), line_of) {
                let it = if ids.len() == 1 { "it" } else { "they" };
                let what = format!("no pin for {} in {shown}: {it} will not be dialled", names(&ids));
                report.warning(line, what);
            }
        }
    }
}

/// A window in which the longest line does not fit is an error: such a line would wait for ever.
pub(super) fn refuse_small_windows(settings: &Settings, peers: &[Peer], report: &mut Report) {
    let line_of = line_of_key(settings, None, |keys| keys.window.map(|window| window.line));
    let small = peers.iter().filter(|peer| (peer.window as usize) < least_window(peer.max_line));
    for (line, ids) in by_line(small.map(|peer| &peer.host.id), line_of) {
        let what = format!("window: is less than 2 x max_line + 65536 of {}", names(&ids));
        report.problem(line, what);
    }
}

/// Says by which windows one process could be made to hold more than any is to.
pub(super) fn warn_of_large_windows(settings: &Settings, peers: &[Peer], report: &mut Report) {
    let line_of = line_of_key(settings, None, |keys| keys.window.map(|window| window.line));
    let large = peers.iter().filter(|peer| is_large_window(peer.window, peer.max_line));
    for (line, ids) in by_line(large.map(|peer| &peer.host.id), line_of) {
        let what = format!(
            "window: is more than 6 MiB and than 2 x max_line + 65536 of {}: \
             a process may come to hold more than 64 MiB",
            names(&ids)
        );
        report.warning(line, what);
    }
}

/// Says where an address of one family is to be bound for a link to one of the other.
pub(super) fn warn_of_binds(settings: &Settings, peers: &[Peer], report: &mut Report) {
    let line_of = line_of_key(settings, settings.lonc_line, |keys| keys.bind.map(|bind| bind.line));
    let crossed = |peer: &&Peer| match (&peer.target, peer.bind) {
        (Target::Address(address), Some(bind)) => address.is_ipv4() != bind.is_ipv4(),
        (Target::Address(_), None) | (Target::Lookup { .. }, _) => false,
    };
    let ids = peers.iter().filter(crossed).map(|peer| &peer.host.id);
    for (line, ids) in by_line(ids, line_of) {
        let what =
            format!("bind is an address of the other family than {}: no link can be made", names(&ids));
        report.warning(line, what);
    }
}

/// Finds the line that decides over one key for one host: its own section's, `[lonc]`'s, or
/// `fallback`.
fn line_of_key<'a>(
    settings: &'a Settings,
    fallback: Option<usize>,
    line: impl Fn(&Overlay) -> Option<usize>,
) -> impl Fn(&HostId) -> Option<usize> {
    let below = line(&settings.lonc).or(fallback);
    let own: HashMap<&'a HostId, usize> =
        settings.host.iter().filter_map(|(id, keys)| Some((&id.value, line(keys)?))).collect();
    move |id| own.get(id).copied().or(below)
}

/// Gathers ids by the line that decides over them.
fn by_line<'a>(
    ids: impl Iterator<Item = &'a HostId>,
    line_of: impl Fn(&HostId) -> Option<usize>,
) -> BTreeMap<Option<usize>, Vec<&'a HostId>> {
    let mut lines: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for id in ids {
        lines.entry(line_of(id)).or_default().push(id);
    }
    lines
}

/// `msul1, msul2 and 4995 more`.
fn names(ids: &[&HostId]) -> String {
    let mut text = ids.iter().take(MAX_NAMES).map(|id| id.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(more) = ids.len().checked_sub(MAX_NAMES).filter(|&more| more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
