//! Whole programs: `lonc`, `lond` and `lon` as processes on loopback addresses of their own.
//!
//! One file a theme. The other end of everything is in `tests/common`, which knows only what
//! `docs/` says.

#[path = "../common/mod.rs"]
mod common;

mod ahead;
mod at_the_door;
mod backlog;
mod bad_peers;
mod broken_files;
mod busy_poll;
mod calling;
mod clients;
mod confined;
mod crashes;
mod delayed;
mod delayed_trouble;
mod dials;
mod dropped_in;
mod few_descriptors;
mod full_disks;
mod handler_rules;
mod handlers;
mod handlers_away;
mod handover;
mod hundred_hups;
mod key_in_memory;
mod known_failures;
mod left_behind;
mod libraries;
mod listening;
mod listening_limits;
mod local_rules;
mod log_files;
mod log_quota;
mod many_hosts;
mod many_links;
mod memory_bounds;
mod owners;
mod places;
mod pools;
mod programs_of_handlers;
mod refused_callers;
mod restarts;
mod second_copies;
mod secure_attacks;
mod secure_heartbeat;
mod secure_identity;
mod secure_once;
mod secure_pins;
mod secure_programs;
mod secure_reload;
mod secure_requests;
mod secure_slow;
mod shares;
mod soak;
mod starting;
mod stopping;
mod tagged;
mod timeouts;
mod told_to_end;
mod two_hosts;
mod under_way;
