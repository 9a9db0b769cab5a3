//! hosts.pins.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lonnet_fuzz::pins(bytes));
