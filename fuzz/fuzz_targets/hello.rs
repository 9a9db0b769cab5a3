//! Opening frames of both ends.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lonnet_fuzz::hello(bytes));
