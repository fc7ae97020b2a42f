//! Runs the target `columns` of the library under `cargo fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gradwire_fuzz::run("columns", data));
