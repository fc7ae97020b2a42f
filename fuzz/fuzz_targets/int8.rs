//! See the library: `int8`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gradwire_fuzz::run("int8", data));
