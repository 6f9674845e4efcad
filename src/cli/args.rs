//! The command line of `kvcli`.

use std::ffi::OsString;
use std::io::{self, BufReader, BufWriter, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

use super::command::{self, Format, Request, UsageError};
use super::grammar::Word;
use super::interrupt::Interrupt;
use super::piped::{self, say};
use super::session::{Session, exit};
use super::{bench, help, shell};
use crate::client::{Clerk, Options};

/// Talk to a raftkv cluster. With a command, kvcli executes it. Without a command, kvcli opens a
/// shell, or executes the commands that come from a pipe or a file, one on each line.
#[derive(Debug, Parser)]
#[command(name = "kvcli", version, after_help = after_help())]
pub struct Args {
    /// The servers, separated by commas; one is enough, the others are learned from it
    #[arg(
        short,
        long,
        env = "RAFTKV_CLUSTER",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        default_value = "127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003"
    )]
    cluster: Vec<String>,

    /// The name of the cluster that must answer; without a name, any cluster may
    #[arg(long, env = "RAFTKV_CLUSTER_NAME", value_name = "NAME")]
    cluster_name: Option<String>,

    /// How long a command may take, retries and elections included: 500ms, 10s, 1.5s, 2m
    #[arg(
        short,
        long,
        env = "RAFTKV_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = duration
    )]
    timeout: Duration,

    /// The form of the answers; by default table for a person at a terminal, else raw
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,

    /// Tell how long each answer took
    #[arg(long)]
    timing: bool,

    /// At the end, write to standard error how many requests the commands took: calls, attempts,
    /// retries, changes of leader
    #[arg(long)]
    stats: bool,

    /// When commands come from a pipe: stop at the first command that fails
    #[arg(long)]
    stop_on_error: bool,

    /// A command and its words; a word after -- is never an option
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn after_help() -> String {
    format!(
        "\
Commands:
{}

kvcli help COMMAND explains one command. kvcli bench puts load on the cluster and measures it: see
kvcli bench --help. The words of a single command are taken as your shell passes them: the quotes
and \\xNN of kvcli work only in the shell of kvcli and in pipes. A value that no argument can
contain comes from a file or a pipe: kvcli put KEY --file PATH, with - for standard input.

In a pipe, the answer to each command is one line, (error) if the command failed; the reason goes to
standard error with the number of the line. The next commands are still executed, unless
--stop-on-error is given. Blank lines and lines that start with # are skipped.

Exit codes: 0 done; 1 the server said no (a missing key, cas with another value, a limit); 2 wrong
usage; 3 not executed: no connection, no quorum or no room; 4 the outcome is unknown; 130 Ctrl-C.
In a pipe, the exit code is that of the first command that failed.",
        help::list()
    )
}

/// Runs `kvcli` with the arguments and the standard streams of the process.
pub fn main() -> ExitCode {
    ExitCode::from(run(&Args::parse()).unwrap_or_else(|error| {
        say(&mut io::stderr(), &format!("kvcli: {error}"));
        exit::USAGE
    }))
}

fn run(args: &Args) -> Result<u8, UsageError> {
    let options = Options {
        deadline: args.timeout,
        cluster: args.cluster_name.clone().unwrap_or_default(),
        ..Options::default()
    };
    match &args.command[..] {
        [bench, ..] if bench == "bench" => return Ok(args.bench(&options)),
        // `bench` has options of its own, so its help is made from these options, and not from the
        // catalogue of commands.
        [help, bench] if help == "help" && bench == "bench" => {
            bench::args::Args::parse_from(["bench", "--help"]);
        }
        _ => {}
    }
    let request = args.request()?;
    let clerk = args.clerk(options.clone())?;
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let interactive = request.is_none() && stdin.is_terminal();
    let interrupt = Arc::new(match interactive {
        true => Interrupt::that_stays(),
        false => Interrupt::that_ends(),
    });
    let mut errors = io::stderr();
    if let Err(error) = interrupt.handle(clerk.canceller()) {
        let text = format!("kvcli: Ctrl-C ends kvcli instead of cancelling a command: {error}");
        say(&mut errors, &text);
    }
    let default = match stdout.is_terminal() && (interactive || request.is_some()) {
        true => Format::Table,
        false => Format::Raw,
    };
    let format = args.output.unwrap_or(default);
    let mut session = Session::new(clerk, interrupt, format, args.timing);
    let mut out = BufWriter::new(&stdout);
    let code = match request {
        Some(request) => piped::one(&mut session, &request, &mut out, &mut errors),
        None if interactive => {
            let keys = args.clerk(shell::for_keys(options))?;
            shell::run(&mut session, keys, &mut out)
        }
        None => {
            let mut input = BufReader::with_capacity(1 << 16, stdin.lock());
            let stop = args.stop_on_error;
            piped::run(&mut session, &mut input, &mut out, &mut errors, stop)
        }
    };
    if args.stats {
        say(&mut errors, &session.stats());
    }
    Ok(code)
}

impl Args {
    /// The single command that the arguments contain; `None` if there is none.
    fn request(&self) -> Result<Option<Request>, UsageError> {
        // On Unix the encoded bytes are exactly those of the argument, even if they are not UTF-8.
        let words = self.command.iter();
        let words: Vec<_> = words
            .map(|word| Word::bare(word.as_encoded_bytes()))
            .collect();
        match words.is_empty() {
            true => Ok(None),
            false => command::parse(&words).map(Some),
        }
    }

    /// Runs `kvcli bench`, with the options that follow the word `bench`.
    fn bench(&self, options: &Options) -> u8 {
        let args = bench::args::Args::parse_from(&self.command);
        let format = self.output.unwrap_or(Format::Table);
        bench::run(&args, &self.cluster, options, format).unwrap_or_else(|failure| {
            say(&mut io::stderr(), &format!("kvcli bench: {failure}"));
            failure.code()
        })
    }

    fn clerk(&self, options: Options) -> Result<Clerk, UsageError> {
        let servers = self.cluster.iter().map(|server| server.trim());
        Clerk::with_options(servers, options)
            .map_err(|error| UsageError(format!("{error} (in --cluster or RAFTKV_CLUSTER)")))
    }
}

/// Reads a time such as 500ms, 10s, 1.5s, 2m or 1h; a number without a unit means seconds.
fn duration(text: &str) -> Result<Duration, String> {
    /// The longest timeout, in seconds: longer than anybody needs, and short enough that no sum of
    /// times overflows.
    const LONGEST: f64 = 24.0 * 3600.0;
    let wrong = || format!("{text:?} is no time: write 500ms, 10s, 1.5s or 2m");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let plain = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let seconds = number * scale;
    if !plain {
        return Err(wrong());
    }
    match seconds {
        _ if seconds < 0.001 => Err("a timeout is at least 1ms".into()),
        _ if seconds > LONGEST => Err("a timeout is at most 24h".into()),
        seconds => Ok(Duration::from_secs_f64(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(words: &[&str]) -> Args {
        Args::try_parse_from([&["kvcli"], words].concat()).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_description_of_the_arguments_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let ms = |text| duration(text).map(|duration| duration.as_millis());
        for (text, expected) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("10", 10_000),
            ("1.5s", 1500),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(ms(text), Ok(expected), "{text}");
        }
        for text in [
            "", "s", "-1s", "1e3s", "inf", "NaN", "1d", "1 s", "1.2.3s", "0", "25h", "ß",
        ] {
            assert!(ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn everything_from_the_first_word_on_belongs_to_the_command() {
        let args = parsed(&[
            "-o", "json", "put", "k", "-v", "--output", "raw", "--", "-x",
        ]);
        assert_eq!(args.output, Some(Format::Json));
        assert_eq!(
            args.command,
            ["put", "k", "-v", "--output", "raw", "--", "-x"]
        );
    }

    #[test]
    fn servers_are_separated_by_commas() {
        let args = parsed(&["--cluster", "a:1,b:2", "status"]);
        assert_eq!(args.cluster, ["a:1", "b:2"]);
    }

    #[test]
    fn unknown_flags_and_formats_are_refused() {
        for words in [&["--frob"][..], &["-o", "xml"], &["--timeout", "soon"]] {
            let error = Args::try_parse_from([&["kvcli"], words].concat()).unwrap_err();
            assert_eq!(error.exit_code(), i32::from(exit::USAGE), "{words:?}");
        }
    }
}
