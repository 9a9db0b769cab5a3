//! What the rules of this host, `[[local]]`, say of who runs `lon`: so that a `refused` of its own
//! broker is told from the peer's, and that nobody has kept what he may not while the broker is
//! away.

use base::request::{EXIT, Forward, Request, command_of, parse};
use base::{Credentials, HostId};
use config::{Config, Unallowed};
use nix::unistd::{getegid, geteuid, getgroups};

/// No user: whoever the broker serves as, its own question back is not asked here.
const NOBODY: u32 = u32::MAX;

/// Why the rules refuse this request, as it is sent to the broker, if they do.
pub(super) fn barred(config: &Config, peer: &HostId, request: &[u8]) -> Option<String> {
    let (command, critical) = match parse(request) {
        Request::Forward(Forward { critical, text }) => (command_of(text), critical),
        Request::CloseConnectionExit => (EXIT, false),
        // What could not be a request is answered so, whoever asks.
        Request::Blank | Request::Bad(_) => return None,
    };
    let why = match config.local.judge(peer, command, critical, &own(), NOBODY).err()? {
        Unallowed::By(rule) => match &rule.place {
            Some(place) => format!("refused by the rule at {place}"),
            None => "refused by a [[local]] rule".to_owned(),
        },
        Unallowed::NoRule => "refused: no [[local]] rule matches".to_owned(),
    };
    let kept = if critical { " as a critical message" } else { "" };
    Some(format!("ask {peer} for {}{kept}: {why}", command.escape_ascii()))
}

/// Whoever runs this, as the broker sees who connects.
fn own() -> Credentials {
    let mut groups: Vec<u32> = getgroups().unwrap_or_default().iter().map(|group| group.as_raw()).collect();
    groups.push(getegid().as_raw());
    Credentials { user: geteuid().as_raw(), groups: groups.into() }
}
