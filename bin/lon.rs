//! Placeholder main, replaced when the program exists.
fn main() {}
