//! The store in a terminal, in a script and in a pipe: see [`raftkv::cli`].

fn main() -> std::process::ExitCode {
    raftkv::cli::main()
}
