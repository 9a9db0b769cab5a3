//! Where on earth the times of lines are read.
//!
//! A process that gives up its files could not find out any more; it keeps what it knew ([`keep`]).

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::sync::OnceLock;

static KEPT: OnceLock<TimeZone> = OnceLock::new();

/// From here on this process's zone is what it is now, whatever becomes of the system's.
pub fn keep() {
    // It may be kept already.
    let _ = KEPT.set(TimeZone::system());
}

/// The time now, as it is read here.
pub(super) fn now() -> Zoned {
    match KEPT.get() {
        Some(zone) => Timestamp::now().to_zoned(zone.clone()),
        None => Zoned::now(),
    }
}
