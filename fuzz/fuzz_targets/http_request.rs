#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| muster_fuzz::http_request::check(input));
