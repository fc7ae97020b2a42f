//! See the library: `bf16`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gradwire_fuzz::run("bf16", data));
