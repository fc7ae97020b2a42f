//! See the library: `float32`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gradwire_fuzz::run("float32", data));
