#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| muster_fuzz::hub_service_amqp::check(input));
