//! See `lonnet_fuzz::TARGETS`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lonnet_fuzz::run("tagged", bytes));
