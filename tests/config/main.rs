//! The configuration as its users meet it: whole files in a folder of their own, and what is said
//! of them.

// The helpers of the tests fail as loudly as the tests themselves.
#![allow(clippy::unwrap_used)]

mod files;
mod folder;
mod handlers;
mod hosts;
mod local;
mod mistakes;
mod samples;
mod values;
