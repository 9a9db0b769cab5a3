//! `lon critical PEER [REQUEST]`: requests that arrive, if not now then later.
//!
//! What the broker cannot be asked is stored in the delayed directory, where the broker finds it,
//! and answered `con_delayed`; `con_failed`, with the cause on standard error, when it cannot be
//! stored either; `refused` where the rules of `[[local]]` do not let its user have messages kept.
//! A message that was sent to a broker which then went without an answer is stored too: the broker
//! may have stored it already. So each is sent with an automatic key, by which the other host knows
//! the second copy and does not run it (the secure wire's; the classic one has no keys).

use super::bearings::Bearings;
use super::{Asked, Failure, complain, exchange, local};
use client::{self, Connection};
use std::io;

pub(super) fn run(bearings: &Bearings, asked: &Asked) -> Result<u8, Failure> {
    let (config, peer) = (&bearings.config, bearings.peer(&asked.peer)?);
    let mut said = false;
    let connected = Connection::open(&config.socket_path(&peer), None);
    let judge = |request: &[u8]| local::barred(config, &peer, request);
    let max_line = client::longest_line(config, &peer);
    let once = |request: &[u8]| client::as_critical_once(request, max_line);
    exchange::run(asked, connected, once, &judge, &mut |request, error| {
        let request = &client::as_critical(request);
        if let Some(why) = judge(request) {
            complain(&why);
            return exchange::REFUSED.to_vec();
        }
        if !std::mem::replace(&mut said, true) {
            complain(format_args!("ask {}: {error}: storing", config.socket_path(&peer).display()));
        }
        let stored = bearings.spool().map_err(io::Error::other);
        match stored.and_then(|()| client::store(config, &peer, request)) {
            Ok(_) => client::CON_DELAYED.to_vec(),
            Err(error) => {
                complain(format_args!("store message for {peer} in {}: {error}", config.spool_dir.display()));
                b"con_failed".to_vec()
            }
        }
    })
}
