//! Runs real processes under real faults and says what became of them. See `docs/testing.md`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use raftkv_verify::soak::{self, Options, Programs};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Runs kvnode processes under faults, checks what clients saw, and writes a report.
///
/// Exit codes: 0 everything held, 1 something did not, 2 wrong usage, 130 interrupted.
#[derive(Parser)]
#[command(name = "kvsoak", verbatim_doc_comment)]
struct Args {
    /// Checks the history in the folder of an earlier run, and runs nothing.
    #[arg(long, value_name = "FOLDER")]
    check: Option<PathBuf>,
    /// How long faults are done.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What follows from it: the faults, the clients, and what they ask for.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A new folder for everything that the run leaves behind.
    #[arg(long, value_name = "FOLDER", default_value = "soak")]
    folder: PathBuf,
    /// The folder with the node's program and kvcli; by default, the one of this program.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// The node's program: kvnode, or kvnode_unsynced, whose disk loses what was not synced when
    /// the process is killed.
    #[arg(long, value_name = "NAME", default_value = "kvnode_unsynced")]
    node: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        if let Err(error) = flag::register(signal, interrupted.clone()) {
            eprintln!("kvsoak: cannot catch a signal: {error}");
            return ExitCode::FAILURE;
        }
    }
    let done = match &args.check {
        Some(folder) => check(folder),
        None => run(&args, &interrupted),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("kvsoak: {sentence}");
            match interrupted.load(Ordering::SeqCst) {
                true => ExitCode::from(130),
                false => ExitCode::FAILURE,
            }
        }
    }
}

fn check(folder: &std::path::Path) -> Result<(), String> {
    let operations = soak::check(folder)?;
    println!("{operations} operations: everything held");
    Ok(())
}

fn run(args: &Args, interrupted: &AtomicBool) -> Result<(), String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let beside = || own.parent().map(PathBuf::from).unwrap_or_default();
    let programs = args.programs.clone().unwrap_or_else(beside);
    let options = Options {
        programs: Programs {
            kvnode: programs.join(&args.node),
            kvcli: programs.join("kvcli"),
        },
        seed: args.seed,
        seconds: args.seconds,
        folder: args.folder.clone(),
    };
    let ended = soak::run(&options, interrupted)?;
    print!("{}", ended.report);
    ended.verdict
}
