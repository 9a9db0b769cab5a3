//! `lon` as people and scripts meet it: arguments in; output, exit code and files out.

// The helpers of the tests fail as loudly as the tests themselves.
#![allow(clippy::unwrap_used)]

mod access;
mod asking;
mod bench;
mod keys;
mod owners;
mod place;
mod reloading;
mod setting_up;
mod status;
mod views;
mod who;

#[path = "../common/skip.rs"]
mod skip;
