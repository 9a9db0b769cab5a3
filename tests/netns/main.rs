//! Faults of the network and of the clock, between whole hosts: a `lonc` and a `lond` each, in
//! network namespaces that a test makes for itself, with a router between them that can lose,
//! refuse and forget.
//!
//! Each test puts load on both links, makes its fault, sees that it is found in the time that
//! `docs/wire.md` states, lets it end, and sees that everything is as if it had not been: see
//! [`world::World::finish`]. Needs root, iproute2, nftables and util-linux; where one is missing
//! the tests say so and pass. Nothing outlives a test: a namespace goes with the process that holds
//! it, and that ends with the test.

mod addresses;
mod black_hole;
mod clock;
mod dialling;
mod flapping;
mod loss;
mod middleboxes;
mod power;
mod resets;
mod space;
mod traffic;
mod world;

#[path = "../common"]
#[expect(dead_code, reason = "tests/network uses all of it, and is where what nobody uses is found")]
mod common {
    pub mod counter;
    pub mod handler;
    pub mod keys;
    pub mod local;
    pub mod network;
    pub mod preload;
    pub mod process;
    pub mod program;
    pub mod skip;
    pub mod tally;
    pub mod wait;
}
