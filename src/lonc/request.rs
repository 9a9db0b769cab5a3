//! A local program's line, taken apart: prefixes, and what is left for the peer.

/// What a local program asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// To be sent to the peer.
    Forward(Forward<'a>),
    /// A blank line: no request, no answer.
    Blank,
    /// `close_connection_exit`: close the link, end the child.
    CloseConnectionExit,
    /// It could not be a request; answered `error:<this>`.
    Bad(&'static str),
}

/// A request for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward<'a> {
    /// It said `critical:`: it is stored when it cannot be delivered.
    pub critical: bool,
    /// With the prefix `encrypt:`, if it had one: the form in which it is stored.
    pub text: &'a [u8],
}

impl<'a> Forward<'a> {
    /// What the peer is to get, and whether enciphered.
    pub fn payload(&self) -> (&'a [u8], bool) {
        payload(self.text)
    }
}

/// What the peer is to get of a request in its stored form, and whether enciphered.
pub fn payload(text: &[u8]) -> (&[u8], bool) {
    match text.strip_prefix(b"encrypt:") {
        Some(rest) => (rest, true),
        None => (text, false),
    }
}

/// Takes a line apart.
pub fn parse(line: &[u8]) -> Request<'_> {
    if line.is_empty() {
        return Request::Blank;
    }
    if line == b"close_connection_exit" {
        return Request::CloseConnectionExit;
    }
    let (critical, text) = match line.strip_prefix(b"critical:") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let forward = Forward { critical, text };
    let (payload, _) = forward.payload();
    if payload.is_empty() {
        return Request::Bad("nothing behind the prefix");
    }
    if of_the_link(payload) {
        return Request::Bad("this request belongs to the opening of a link");
    }
    Request::Forward(forward)
}

/// Requests that would change what both ends of the link have agreed on: `ekey` makes a new key, so that every
/// later enciphered request of every program would be garbage.
fn of_the_link(payload: &[u8]) -> bool {
    payload == b"init" || payload == b"ekey" || payload.starts_with(b"sethost:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(critical: bool, text: &[u8]) -> Request<'_> {
        Request::Forward(Forward { critical, text })
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
        assert_eq!(both.payload(), (&b"log:x"[..], true));
    }

    #[test]
    fn what_is_no_request_is_told_apart() {
        assert_eq!(parse(b""), Request::Blank);
        assert_eq!(parse(b"close_connection_exit"), Request::CloseConnectionExit);
        for line in [&b"critical:"[..], b"encrypt:", b"critical:encrypt:"] {
            assert_eq!(parse(line), Request::Bad("nothing behind the prefix"));
        }
        for line in [&b"ekey"[..], b"init", b"sethost:x", b"critical:ekey", b"encrypt:ekey"] {
            assert!(matches!(parse(line), Request::Bad(_)), "{:?}", line.escape_ascii().to_string());
        }
        assert_eq!(parse(b"ekeys"), forward(false, b"ekeys"));
    }
}
