//! What is fuzzed: every place where bytes from outside meet this crate, as plain functions.
//!
//! Each target takes any bytes and panics if something does not hold. Two drivers run them: the
//! coverage-guided libFuzzer (`fuzz/`, `scripts/fuzz.sh`), and a short deterministic one in
//! `cargo test` (`tests/fuzz/main.rs`). Both start from the same seeds: valid encodings, so that
//! nobody has to guess a format, and the inputs kept in `fuzz/corpus`, among them each one that
//! ever made a target fail.

mod bits;
mod core;
pub mod depth;
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
    /// How deep inputs must get: each of these is [reached](depth::reached) by some input. A target
    /// whose inputs are all refused at the door shows nothing.
    #[allow(dead_code, reason = "the deterministic run looks at it")]
    pub goals: &'static [&'static str],
    /// Inputs to start from.
    #[allow(dead_code, reason = "libFuzzer reads the seeds from files")]
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs the deterministic run tries.
    #[allow(dead_code, reason = "libFuzzer is given a time")]
    pub tries: u32,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target(
        "frame",
        wire::frames,
        wire::frame_seeds,
        30_000,
        &["a frame is read"],
    ),
    target(
        "handshake",
        wire::handshake,
        wire::handshake_seeds,
        30_000,
        &[
            "a hello is read",
            "a node is let in",
            "another version is told",
            "a welcome is read",
        ],
    ),
    target(
        "client",
        wire::client,
        wire::client_seeds,
        30_000,
        &["a request is read", "a response is read"],
    ),
    target(
        "peer",
        wire::peer,
        wire::peer_seeds,
        30_000,
        &["a message is read", "entries are read"],
    ),
    target(
        "command",
        store::decoders,
        store::decoder_seeds,
        30_000,
        &["a command is read", "a query is read", "a reply is read"],
    ),
    target(
        "store",
        store::sequence,
        store::sequence_seeds,
        1_500,
        &[
            "a command is executed",
            "a repeated one is answered",
            "a session has expired",
            "a command is refused",
            "a query is answered",
        ],
    ),
    target(
        "damaged",
        folder::damaged,
        folder::seeds,
        1_500,
        &[
            "a damaged folder starts",
            "a torn tail is cut",
            "damage is found",
        ],
    ),
    target(
        "forged",
        folder::forged,
        folder::forged_seeds,
        1_500,
        &[
            "a forged log is replayed",
            "a forged vote is believed",
            "a forged file is refused",
        ],
    ),
    target(
        "snapshot",
        snapshot::files,
        snapshot::seeds,
        1_000,
        &[
            "an intact file is restored",
            "a forged file is accepted",
            "a forged state is refused",
            "a forged state is restored",
            "a damaged file is refused",
        ],
    ),
    target(
        "text",
        text::lines,
        text::seeds,
        20_000,
        &[
            "a line is a command",
            "a line is refused",
            "a list of members is read",
        ],
    ),
    target(
        "core",
        core::inputs,
        core::seeds,
        3_000,
        &[
            "the node leads",
            "a leader commits",
            "a follower acknowledges",
            "a read is decided",
            "a snapshot is taken",
            "a snapshot is installed",
            "the node restarts",
        ],
    ),
];

const fn target(
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    tries: u32,
    goals: &'static [&'static str],
) -> Target {
    Target {
        name,
        run,
        goals,
        seeds,
        tries,
    }
}
