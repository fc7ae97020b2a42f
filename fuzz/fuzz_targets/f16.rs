//! See the library: `f16`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gradwire_fuzz::run("f16", data));
