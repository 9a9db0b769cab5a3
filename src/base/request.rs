//! A local program's line, taken apart: prefixes, and what is left for the peer. Pure; the broker
//! and whoever asks it must tell them apart alike.

use crate::line::without_return;
use crate::message::{Key, is_automatic};

/// What makes a request a critical one.
pub const CRITICAL: &[u8] = b"critical:";

/// What a critical request begins with that has its program's own key: then `key=K:`.
pub const KEYED: &[u8] = b"critical;";

/// The request that closes the link and ends its child; for the broker itself.
pub const EXIT: &[u8] = b"close_connection_exit";

/// What a local program asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// To be sent to the peer.
    Forward(Forward<'a>),
    /// A blank line: no request, no answer.
    Blank,
    /// [`EXIT`]: close the link, end the child.
    CloseConnectionExit,
    /// It could not be a request; answered `error:<this>`.
    Bad(&'static str),
}

/// A request for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward<'a> {
    /// It said `critical`: it is stored when it cannot be delivered.
    pub critical: bool,
    /// The form in which it is stored: without `critical:`, but with `critical;key=...:` and with
    /// `encrypt:` if it had them. [`payload`] takes it apart.
    pub text: &'a [u8],
}

/// A request in its stored form, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// The program's own name for it.
    pub key: Option<&'a str>,
    /// It is to be enciphered.
    pub encrypt: bool,
    /// What the peer is to get.
    pub bytes: &'a [u8],
}

/// Takes a request in its stored form apart.
pub fn payload(text: &[u8]) -> Payload<'_> {
    let (key, text) = match keyed(text) {
        Some((key, rest)) => (Some(key), rest),
        None => (None, text),
    };
    match text.strip_prefix(b"encrypt:") {
        Some(bytes) => Payload { key, encrypt: true, bytes },
        None => Payload { key, encrypt: false, bytes: text },
    }
}

/// The command that a request in its stored form is: the word before the first colon, without the
/// prefixes and without a carriage return at its end.
pub fn command_of(text: &[u8]) -> &[u8] {
    let bytes = payload(text).bytes;
    match memchr::memchr(b':', bytes) {
        Some(colon) => bytes.get(..colon).unwrap_or_default(),
        None => without_return(bytes),
    }
}

/// A request in its stored form as people and programs are shown it: without an automatic key.
pub fn shown(text: &[u8]) -> &[u8] {
    match keyed(text) {
        Some((key, rest)) if is_automatic(key) => rest,
        Some(_) | None => text,
    }
}

/// `critical;key=<key>:<rest>`, if the key is one.
fn keyed(text: &[u8]) -> Option<(&str, &[u8])> {
    let rest = text.strip_prefix(KEYED)?.strip_prefix(b"key=")?;
    let colon = rest.iter().take(Key::MAX + 1).position(|&byte| byte == b':')?;
    let (key, rest) = rest.split_at_checked(colon)?;
    Key::new(key)?;
    Some((str::from_utf8(key).ok()?, rest.get(1..)?))
}

/// Takes a line apart.
pub fn parse(line: &[u8]) -> Request<'_> {
    if line.is_empty() {
        return Request::Blank;
    }
    if without_return(line) == EXIT {
        return Request::CloseConnectionExit;
    }
    let (critical, text) = match line.strip_prefix(CRITICAL) {
        Some(rest) if rest.starts_with(KEYED) => return Request::Bad("critical twice"),
        Some(rest) => (true, rest),
        None if line.starts_with(KEYED) => {
            if keyed(line).is_none() {
                return Request::Bad(
                    "critical; is followed by key=K: with K of 1 to 64 letters A-Z a-z 0-9 . _ -",
                );
            }
            (true, line)
        }
        None => (false, line),
    };
    let payload = payload(text).bytes;
    if payload.is_empty() {
        return Request::Bad("nothing behind the prefix");
    }
    if of_the_link(payload) {
        return Request::Bad("this request belongs to the opening of a link");
    }
    Request::Forward(Forward { critical, text })
}

/// Requests that would change what both ends of the link have agreed on: `ekey` makes a new key, so
/// that every later enciphered request of every program would be garbage. With a carriage return at
/// its end it is the same one at `lond`.
fn of_the_link(payload: &[u8]) -> bool {
    let payload = without_return(payload);
    payload == b"init" || payload == b"ekey" || payload.starts_with(b"sethost:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(critical: bool, text: &[u8]) -> Request<'_> {
        Request::Forward(Forward { critical, text })
    }

    #[test]
    fn the_command_is_the_word_before_the_colon_behind_all_prefixes() {
        for (text, command) in [
            (&b"echo:a:b"[..], &b"echo"[..]),
            (b"encrypt:echo:a", b"echo"),
            (b"critical;key=K:encrypt:echo:a", b"echo"),
            (b"ping\r", b"ping"),
            (b"critical;x:y", b"critical;x"),
        ] {
            assert_eq!(command_of(text), command, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn prefixes_are_taken_in_their_order_and_nothing_else_is_touched() {
        assert_eq!(parse(b"ping"), forward(false, b"ping"));
        assert_eq!(parse(b"critical:log:x"), forward(true, b"log:x"));
        assert_eq!(parse(b"critical:encrypt:log:x"), forward(true, b"encrypt:log:x"));
        assert_eq!(parse(b"encrypt:critical:x"), forward(false, b"encrypt:critical:x"));
        assert_eq!(parse(b" \r"), forward(false, b" \r"));
        assert_eq!(parse(b"Critical:x"), forward(false, b"Critical:x"));
        let Request::Forward(both) = parse(b"critical:encrypt:log:x") else { panic!() };
        assert_eq!(payload(both.text), Payload { key: None, encrypt: true, bytes: b"log:x" });
    }

    #[test]
    fn a_program_s_own_key_is_kept_with_the_request_and_taken_off_for_the_peer() {
        let line = b"critical;key=a-1.b_C:encrypt:log:x";
        assert_eq!(parse(line), forward(true, line));
        assert_eq!(payload(line), Payload { key: Some("a-1.b_C"), encrypt: true, bytes: b"log:x" });
        let longest = [b"critical;key=", &[b'k'; 64][..], b":x"].concat();
        assert_eq!(payload(&longest).bytes, b"x");
        let too_long = [b"critical;key=", &[b'k'; 65][..], b":x"].concat();
        for bad in
            [&b"critical;key=:x"[..], b"critical;key=a b:x", b"critical;x", b"critical;key=a", &too_long]
        {
            assert!(matches!(parse(bad), Request::Bad(_)), "{}", bad.escape_ascii());
        }
        assert!(matches!(parse(b"critical:critical;key=a:x"), Request::Bad(_)));
        assert!(matches!(parse(b"critical;key=a:"), Request::Bad(_)));
        assert_eq!(payload(b"critical;key=a b:x").bytes, b"critical;key=a b:x");
    }

    #[test]
    fn an_automatic_key_is_not_shown_and_one_that_a_program_gave_is() {
        let automatic = format!("critical;key={}:encrypt:log:x", Key::automatic().unwrap());
        assert_eq!(shown(automatic.as_bytes()), b"encrypt:log:x");
        for text in [&b"critical;key=lon.mine:log:x"[..], b"log:x", b"", b"critical;key=:x", b"encrypt:x"] {
            assert_eq!(shown(text), text, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_request_is_told_apart() {
        assert_eq!(parse(b""), Request::Blank);
        assert_eq!(parse(b"close_connection_exit"), Request::CloseConnectionExit);
        assert_eq!(parse(b"close_connection_exit\r"), Request::CloseConnectionExit);
        for line in [&b"critical:"[..], b"encrypt:", b"critical:encrypt:"] {
            assert_eq!(parse(line), Request::Bad("nothing behind the prefix"));
        }
        for line in
            [&b"ekey"[..], b"init", b"sethost:x", b"critical:ekey", b"encrypt:ekey", b"ekey\r", b"init\r"]
        {
            assert!(matches!(parse(line), Request::Bad(_)), "{:?}", line.escape_ascii().to_string());
        }
        assert_eq!(parse(b"ekeys"), forward(false, b"ekeys"));
        assert_eq!(parse(b"ping\r"), forward(false, b"ping\r"), "what it means is the other end's to say");
    }
}
