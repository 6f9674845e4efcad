//! A short, deterministic run of every fuzz target: the same inputs each time, made by damaging
//! and splicing the seeds and the inputs in `fuzz/corpus`.
//!
//! It is no search: nobody tells it which input led somewhere new. For that there is
//! `scripts/fuzz.sh [SECONDS] [TARGET]`, which runs the same functions under libFuzzer; what it
//! finds goes into `fuzz/corpus/TARGET` and is run here from then on. To look at one input:
//! `RAFTKV_FUZZ_INPUT=FILE cargo test --test fuzz TARGET`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

mod mutate;
mod targets;

use mutate::Mutator;
use targets::{TARGETS, Target};

/// Where the inputs of a target are kept.
fn folder(target: &Target) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("fuzz/corpus").join(target.name)
}

/// The seeds, and what is kept in the repository, in a fixed order.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let mut corpus = (target.seeds)();
    let listing = std::fs::read_dir(folder(target));
    let paths = listing.into_iter().flatten().map(|file| {
        let file = file.expect("the folder of inputs can be read");
        file.path()
    });
    let mut paths: Vec<PathBuf> = paths.collect();
    paths.sort();
    let read = |path: &PathBuf| std::fs::read(path).expect("an input can be read");
    corpus.extend(paths.iter().map(read));
    corpus
}

/// Runs one input; if it fails, says which one it was.
fn run(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = folder(target).join("NAME");
        eprintln!(
            "target {} fails; to keep the input: echo {hex} | xxd -r -p > {}",
            target.name,
            path.display()
        );
        resume_unwind(panic);
    }
}

fn short_run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("every test names a target");
    if let Some(path) = std::env::var_os("RAFTKV_FUZZ_INPUT") {
        return run(target, &std::fs::read(path).expect("the input can be read"));
    }
    let corpus = corpus(target);
    for input in &corpus {
        run(target, input);
    }
    let mut mutator = Mutator::new(1);
    for _ in 0..target.tries {
        run(target, &mutator.next(&corpus));
    }
}

/// One test for each target, and one that none is left out.
macro_rules! short_runs {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            short_run(stringify!($name));
        })*

        #[test]
        fn every_target_has_a_short_run() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

short_runs!(
    frame, handshake, client, peer, command, store, damaged, forged, text, core
);

/// Writes the seeds to where `scripts/fuzz.sh` says; does nothing without it.
#[test]
fn seeds_are_written_where_the_script_wants_them() {
    let Some(out) = std::env::var_os("RAFTKV_FUZZ_SEEDS") else {
        return;
    };
    for target in TARGETS {
        let folder = Path::new(&out).join(target.name);
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        for (number, seed) in (target.seeds)().iter().enumerate() {
            let path = folder.join(format!("seed-{number}"));
            std::fs::write(path, seed).expect("a seed can be written");
        }
    }
}
