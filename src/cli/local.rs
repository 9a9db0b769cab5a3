//! What the rules of this host, `[[local]]`, say of who runs `lon`: so that a `refused` of its own
//! broker is told from the peer's, and that nobody has kept what he may not while the broker is
//! away.

use base::{Credentials, HostId};
use config::{Config, Unallowed};
use nix::unistd::{getegid, geteuid, getgroups};

/// No user: whoever the broker serves as, its own question back is not asked here.
const NOBODY: u32 = u32::MAX;

/// Why the rules refuse this request, as it is sent to the broker, if they do.
pub(super) fn barred(config: &Config, peer: &HostId, request: &[u8]) -> Option<String> {
    let (command, critical) = taken_apart(request);
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

/// The command of a request, and whether it is critical.
fn taken_apart(request: &[u8]) -> (&[u8], bool) {
    let (rest, critical) = match request.strip_prefix(b"critical") {
        Some([b':', rest @ ..]) => (rest, true),
        Some([b';', rest @ ..]) => match rest.iter().position(|&byte| byte == b':') {
            Some(colon) => (rest.get(colon + 1..).unwrap_or_default(), true),
            None => (request, false),
        },
        Some(_) | None => (request, false),
    };
    let rest = rest.strip_prefix(b"encrypt:").unwrap_or(rest);
    let word = rest.split(|&byte| byte == b':').next().unwrap_or_default();
    (base::line::without_return(word), critical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_no_part_of_the_command() {
        for (request, command, critical) in [
            ("echo:x", "echo", false),
            ("critical:echo:x", "echo", true),
            ("critical;key=K:encrypt:echo:x", "echo", true),
            ("encrypt:ping", "ping", false),
            ("critical", "critical", false),
        ] {
            assert_eq!(taken_apart(request.as_bytes()), (command.as_bytes(), critical), "{request}");
        }
    }
}
