//! For Rust programs: one request, its answer; a critical message when the broker is away.
