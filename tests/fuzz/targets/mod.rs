//! What is fuzzed: every place where bytes from outside meet this crate, as plain functions.
//!
//! Each target takes any bytes and panics if something does not hold. Two drivers run them: the
//! coverage-guided libFuzzer (`fuzz/`, `scripts/fuzz.sh`), and a short deterministic one in
//! `cargo test` (`tests/fuzz/main.rs`). Both start from the same seeds: valid encodings, so that
//! nobody has to guess a format, and the inputs kept in `fuzz/corpus`, among them each one that
//! ever made a target fail.

mod bits;
mod core;
mod folder;
mod snapshot;
mod store;
mod text;
mod wire;

/// One thing that is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line, and of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// Panics if something does not hold.
    pub run: fn(&[u8]),
    /// Inputs to start from.
    #[allow(dead_code, reason = "libFuzzer reads the seeds from files")]
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs the deterministic run tries.
    #[allow(dead_code, reason = "libFuzzer is given a time")]
    pub tries: u32,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target("frame", wire::frames, wire::frame_seeds, 30_000),
    target("handshake", wire::handshake, wire::handshake_seeds, 30_000),
    target("client", wire::client, wire::client_seeds, 30_000),
    target("peer", wire::peer, wire::peer_seeds, 30_000),
    target("command", store::decoders, store::decoder_seeds, 30_000),
    target("store", store::sequence, store::sequence_seeds, 1_500),
    target("damaged", folder::damaged, folder::seeds, 1_500),
    target("forged", folder::forged, folder::seeds, 1_500),
    target("snapshot", snapshot::files, snapshot::seeds, 1_000),
    target("text", text::lines, text::seeds, 20_000),
    target("core", core::inputs, core::seeds, 3_000),
];

const fn target(
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    tries: u32,
) -> Target {
    Target {
        name,
        run,
        seeds,
        tries,
    }
}
