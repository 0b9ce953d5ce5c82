//! libFuzzer around the targets of `tests/src/fuzz/targets.rs`; `AGENTSEC_FUZZ_TARGET` says which.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

#[path = "../../../agentsec-userspace/src/inspect/mod.rs"]
pub mod inspect;
#[path = "../../src/fuzz/targets.rs"]
pub mod targets;

static TARGET: LazyLock<String> =
    LazyLock::new(|| std::env::var("AGENTSEC_FUZZ_TARGET").expect("AGENTSEC_FUZZ_TARGET names a target"));

fuzz_target!(|data: &[u8]| targets::run(&TARGET, data));
