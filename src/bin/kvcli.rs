//! The program `kvcli`, a client of the store for terminals, scripts and pipes: see
//! [`raftkv::cli`].

fn main() -> std::process::ExitCode {
    raftkv::cli::main()
}
