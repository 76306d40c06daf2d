#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| muster_fuzz::nats_server::check(input));
