//! The frames that the wire itself wants sent, on their way out: PONG, PING, WINDOW.
//!
//! Bounded: of each kind one is due at most, and none is put before those put last have gone. So a
//! side that sends and does not read makes nothing grow: of PINGs that come faster than PONGs leave
//! the newest is answered, what is given back adds up.

use super::Credit;
use crate::secure::{put_ping, put_pong, put_window};
use base::line::Outgoing;

/// See the module.
#[derive(Debug, Default)]
pub struct Control {
    /// The other side's PING that is to be answered.
    pong: Option<Vec<u8>>,
    /// Number of a PING of ours that is to be sent.
    ping: Option<u64>,
    /// The frames put last are gone when the buffer has come so far.
    gone_at: u64,
}

impl Control {
    /// The other side has sent a PING with this body.
    pub fn pinged(&mut self, body: &[u8]) {
        self.pong = Some(body.to_vec());
    }

    /// A PING of ours is due.
    pub fn ping(&mut self, number: u64) {
        self.ping = Some(number);
    }

    /// Puts what is due, what `credit` has to tell included, unless the frames put last are still
    /// in `out`. That must be the same buffer each time.
    pub fn put(&mut self, credit: &mut Credit, out: &mut Outgoing) {
        let window = credit.due();
        if out.gone() < self.gone_at || (self.pong.is_none() && self.ping.is_none() && window.is_none()) {
            return;
        }
        if let Some(ping) = self.pong.take() {
            put_pong(out.tail(), &ping);
        }
        if let Some(number) = self.ping.take() {
            put_ping(out.tail(), number);
        }
        if let Some(bytes) = window {
            put_window(out.tail(), bytes.get());
            credit.told(bytes);
        }
        self.gone_at = out.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secure::{Frame, FrameReader};

    fn kinds(out: &mut Outgoing) -> String {
        let mut reader = FrameReader::new();
        reader.push(out.bytes());
        out.clear();
        let mut kinds = Vec::new();
        while let Some(frame) = reader.next_frame() {
            kinds.push(match frame.unwrap() {
                Frame::Pong(body) => format!("pong {}", body[0]),
                Frame::Ping(_) => "ping".to_owned(),
                Frame::Window(bytes) => format!("window {bytes}"),
                other => panic!("{other:?}"),
            });
        }
        kinds.join(", ")
    }

    #[test]
    fn what_is_due_waits_until_what_was_put_last_has_gone_and_then_is_put_once() {
        let (mut control, mut credit, mut out) = (Control::default(), Credit::new(1000), Outgoing::default());
        control.put(&mut credit, &mut out);
        assert!(out.is_empty());
        control.pinged(&[1; 8]);
        control.put(&mut credit, &mut out);
        let waits = out.len();
        for number in 2..100 {
            control.pinged(&[number; 8]);
            control.ping(number.into());
            assert!(credit.take(5));
            credit.give_back(5);
            control.put(&mut credit, &mut out);
            assert_eq!(out.len(), waits, "nothing grows");
        }
        assert_eq!(kinds(&mut out), "pong 1");
        control.put(&mut credit, &mut out);
        assert_eq!(kinds(&mut out), "pong 99, ping, window 490");
        control.put(&mut credit, &mut out);
        assert!(out.is_empty());
    }
}
