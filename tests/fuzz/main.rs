//! A short, deterministic run of every fuzz target: the same inputs each time, made by damaging
//! and splicing the seeds and the inputs that are kept in `fuzz/corpus`.
//!
//! It is no search: nobody tells it which input led somewhere new. For that there is
//! `scripts/fuzz.sh [SECONDS] [TARGET]`, which runs the same functions under libFuzzer. What is
//! kept of its finds, one input a line in hexadecimal digits, is the smallest set that reaches all
//! that it reached, and whatever made a target fail. To look at one input:
//! `RAFTKV_FUZZ_INPUT=FILE cargo test --test fuzz TARGET`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

mod mutate;
mod targets;

use mutate::Mutator;
use targets::{TARGETS, Target, depth};

/// Where the inputs of a target are kept.
fn file(target: &Target) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("fuzz/corpus")
        .join(format!("{}.hex", target.name))
}

/// The seeds, and what is kept in the repository.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let path = file(target);
    let kept = std::fs::read_to_string(&path).expect("every target has a file of inputs");
    let lines = kept.lines().filter(|line| !line.starts_with('#'));
    let kept = lines.map(|line| {
        let bytes = bytes_of(line);
        bytes.unwrap_or_else(|| panic!("{}: no hexadecimal digits: {line}", path.display()))
    });
    (target.seeds)().into_iter().chain(kept).collect()
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = hex.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    let pairs = digits.chunks_exact(2);
    Some(pairs.map(|pair| (16 * pair[0] + pair[1]) as u8).collect())
}

/// Runs one input; if it fails, says which one it was.
fn run(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!(
            "target {} fails; to keep the input, add this line to {}:\n{hex}",
            target.name,
            file(target).display()
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
    let reached = depth::take();
    println!("target {name}, the inputs that are kept: {reached:?}");
    for goal in target.goals {
        let count = reached.get(goal).copied().unwrap_or(0);
        assert!(count > 0, "target {name}: no input comes to where {goal}");
    }
    let unknown = reached.keys().find(|goal| !target.goals.contains(goal));
    assert_eq!(unknown, None, "target {name} has no such goal");
    let mut mutator = Mutator::new(1);
    for _ in 0..target.tries {
        run(target, &mutator.next(&corpus));
    }
    // What is made of them may miss one of the goals by chance, but not all.
    let reached = depth::take();
    println!("target {name}, what is made of them: {reached:?}");
    assert!(!reached.is_empty(), "target {name}: every input is refused");
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
    frame, handshake, client, peer, command, store, damaged, forged, snapshot, text, core
);

/// Writes what to start from to where `scripts/fuzz.sh` says, or else to a folder that goes again.
/// What is there then is what the short run starts from, to the byte.
#[test]
fn seeds_are_written_where_the_script_wants_them() {
    let own = tempfile::tempdir().expect("a temporary folder");
    let wanted = std::env::var_os("RAFTKV_FUZZ_SEEDS");
    let out = wanted.map_or_else(|| own.path().to_path_buf(), PathBuf::from);
    for target in TARGETS {
        let folder = out.join(target.name);
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        let corpus = corpus(target);
        assert!(corpus.len() > 1, "{} starts from nothing", target.name);
        for (number, seed) in corpus.iter().enumerate() {
            let path = folder.join(format!("seed-{number}"));
            std::fs::write(&path, seed).expect("a seed can be written");
            let written = std::fs::read(&path).expect("a seed can be read");
            assert_eq!(&written, seed, "{}", path.display());
        }
    }
}
