//! Frames and the messages in them, as both ends of a link read them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lonnet_fuzz::frame(bytes));
