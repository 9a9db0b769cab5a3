//! `lon reply PEER [REQUEST]`: requests that are answered now or not at all.
//!
//! What the broker cannot be asked is answered `con_lost`, as the broker itself would; why, goes to
//! standard error.

use super::bearings::Bearings;
use super::{Asked, Failure, complain, exchange, local};
use client::Connection;

pub(super) fn run(bearings: &Bearings, asked: &Asked) -> Result<u8, Failure> {
    let (config, peer) = (&bearings.config, bearings.peer(&asked.peer)?);
    let mut said = false;
    let connected = Connection::open(&config.socket_path(&peer), None);
    let judge = |request: &[u8]| local::barred(config, &peer, request);
    exchange::run(asked, connected, <[u8]>::to_owned, &judge, &mut |_, error| {
        if !std::mem::replace(&mut said, true) {
            complain(format_args!("ask {}: {error}", config.socket_path(&peer).display()));
        }
        b"con_lost".to_vec()
    })
}
