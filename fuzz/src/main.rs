//! One program for all the targets of `tests/fuzz`; the variable `RAFTKV_FUZZ_TARGET` names the one
//! to run. `scripts/fuzz.sh` builds it with coverage counters and starts it.
#![no_main]

use std::sync::LazyLock;

#[path = "../../tests/fuzz/targets/mod.rs"]
mod targets;

static TARGET: LazyLock<&'static targets::Target> = LazyLock::new(|| {
    let name = std::env::var("RAFTKV_FUZZ_TARGET").unwrap_or_default();
    let target = targets::TARGETS.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("RAFTKV_FUZZ_TARGET names no target: \"{name}\""))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
