#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // What it says of them is its affair; that it says something is ours.
    let _ = sandcast_tests::fuzz::certificate(bytes);
});
