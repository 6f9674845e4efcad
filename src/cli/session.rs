//! Executes commands, in the same way for the shell, a pipe and a single command.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::command::{Command, Extent, Format, Input, Range, Request, UsageError};
use super::interrupt::Interrupt;
use super::member::list::Listing;
use super::output::{Answer, Printer};
use super::status::Report;
use super::{grammar, help, member, snapshot};
use crate::client::{CasOutcome, Clerk, Error, Kind};
use crate::kv::Scan;
use crate::wire::frame::MAX_PAYLOAD;
use crate::wire::members::ChangeRequest;

/// The exit codes of kvcli.
pub mod exit {
    /// The command was executed, and the answer was not "no".
    pub const DONE: u8 = 0;
    /// The server said no: the key is missing, the value is not the expected one, or the request
    /// breaks a limit.
    pub const NO: u8 = 1;
    /// The command or an option is wrong; nothing was sent.
    pub const USAGE: u8 = 2;
    /// Not executed: no connection, no leader, no quorum, or no room.
    pub const UNAVAILABLE: u8 = 3;
    /// A write may or may not have been executed, or its answer could not be written.
    pub const UNKNOWN: u8 = 4;
    /// Ctrl-C ended the command before it was executed. A shell gives the same code to a program
    /// that SIGINT has ended.
    pub const INTERRUPTED: u8 = 130;
}

/// The result of a command, besides the answer that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code of kvcli if this was its only command. It is [`exit::NO`] if the answer was
    /// "no".
    pub code: u8,
    /// A sentence for a person. It goes to standard error, so that a script does not read it as an
    /// answer.
    pub note: Option<String>,
    /// Whether kvcli is to end after this command.
    pub leave: bool,
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The words that were typed are not a command.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The file that holds the command's value cannot be read.
    #[error("{0}")]
    Input(String),
    /// Standard input with the commands cannot be read any further, so some of them may not have
    /// been executed.
    #[error("cannot read on: {0}")]
    Unreadable(io::Error),
    /// The cluster did not execute the command, or it is not known whether it did.
    #[error(transparent)]
    Client(#[from] Error),
    /// A command with several keys failed at one of them.
    #[error("{done} of {named} keys were done before this one: {error}")]
    Partly {
        /// How many keys the command had handled before the one at which it failed.
        done: usize,
        /// How many keys the command named.
        named: usize,
        /// Why the command failed at the next key.
        error: Error,
    },
    /// A change of members is not done, or not by this command: it goes on, it is not known, or
    /// another change has come in between.
    #[error("{sentence}")]
    Member {
        /// What has become of the change, and what to do.
        sentence: String,
        /// The exit code.
        code: u8,
    },
    /// Ctrl-C came between two requests of the command.
    #[error("cancelled")]
    Interrupted,
    /// The answer cannot be written to standard output.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The exit code of kvcli for this failure.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::Input(_) | Failure::Unreadable(_) => exit::USAGE,
            Failure::Client(Error::Cancelled {
                maybe_executed: false,
            })
            | Failure::Interrupted => exit::INTERRUPTED,
            Failure::Member { code, .. } => *code,
            Failure::Client(error) | Failure::Partly { error, .. } => match error.kind() {
                Kind::No => exit::NO,
                Kind::Usage => exit::USAGE,
                Kind::Refused | Kind::Unavailable => exit::UNAVAILABLE,
                Kind::Unknown => exit::UNKNOWN,
            },
            // A closed pipe is no error: its reader has read enough, as in `kvcli scan | head`.
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::DONE,
            // The command was executed, but its answer could not be written.
            Failure::Output(_) => exit::UNKNOWN,
        }
    }

    /// The name of the exit code, as json output has it.
    pub fn kind(&self) -> &'static str {
        match self.code() {
            exit::DONE => "done",
            exit::NO => "no",
            exit::USAGE => "usage",
            exit::UNAVAILABLE => "unavailable",
            exit::INTERRUPTED => "interrupted",
            _ => "unknown",
        }
    }

    /// Whether the commands after the failed one must not, or cannot, be executed.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Failure::Output(_)
                | Failure::Unreadable(_)
                | Failure::Interrupted
                | Failure::Member {
                    code: exit::INTERRUPTED,
                    ..
                }
                | Failure::Client(Error::Cancelled { .. })
                | Failure::Partly {
                    error: Error::Cancelled { .. },
                    ..
                }
        )
    }
}

/// Executes commands one after the other: a Clerk, and the settings that commands can change.
pub struct Session {
    clerk: Clerk,
    interrupt: Arc<Interrupt>,
    /// The format of answers whose command does not ask for another one.
    pub format: Format,
    /// Whether kvcli tells after each answer how long it took.
    pub timing: bool,
}

impl Session {
    /// Makes a session that executes commands through `clerk`. A command with several requests
    /// looks at `interrupt` between them.
    pub fn new(clerk: Clerk, interrupt: Arc<Interrupt>, format: Format, timing: bool) -> Self {
        Self {
            clerk,
            interrupt,
            format,
            timing,
        }
    }

    /// The Clerk's counters so far, in one line of `name=value` words.
    pub fn stats(&self) -> String {
        let stats = self.clerk.stats();
        format!(
            "calls={} attempts={} retries={} leader_changes={}",
            stats.calls, stats.attempts, stats.retries, stats.leader_changes
        )
    }

    /// Executes one command and writes its answer.
    ///
    /// # Errors
    /// [`Failure`]. It is also marked in the output, where the output would be misread otherwise.
    pub fn run(&mut self, request: &Request, printer: &mut Printer) -> Result<Outcome, Failure> {
        let interrupt = Arc::clone(&self.interrupt);
        let _busy = interrupt.begin();
        printer.format = request.format.unwrap_or(self.format);
        match self.execute(&request.command, printer) {
            Err(Failure::Output(error)) => Err(Failure::Output(error)),
            Err(failure) => {
                printer.failed(failure.kind(), &failure.to_string())?;
                Err(failure)
            }
            done => done,
        }
    }

    fn execute(&mut self, command: &Command, printer: &mut Printer) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::default();
        let answer = match command {
            Command::Get { key } => {
                let value = self.clerk.get(key)?;
                if value.is_none() {
                    outcome.code = exit::NO;
                    outcome.note = printer.hides_missing().then(|| "(missing)".into());
                }
                Answer::Value(value)
            }
            Command::Put { key, value } => {
                self.clerk.put(key, load(value, printer.is_single())?)?;
                Answer::Done
            }
            Command::Append { key, value } => {
                let value = load(value, printer.is_single())?;
                Answer::Length(self.clerk.append(key, value)?)
            }
            Command::Delete { keys } => self.delete(keys)?,
            Command::Cas {
                key,
                expected,
                value,
            } => {
                let result = self.cas(key, expected.as_deref(), value)?;
                outcome.code = if result.is_ok() { exit::DONE } else { exit::NO };
                Answer::Swapped(result)
            }
            Command::Scan(range) => return self.scan(range, printer),
            Command::Status { verbose } => return self.status(*verbose, printer),
            Command::Transfer { to } => {
                self.clerk.transfer(*to)?;
                Answer::Done
            }
            Command::Snapshot { id } => {
                let taken = snapshot::take(&self.clerk, *id, &self.interrupt)?;
                outcome.code = snapshot::code(&taken);
                Answer::Snapshots(taken)
            }
            Command::Members => Answer::Members(Listing::new(self.clerk.members()?)),
            Command::ChangeMembers { change, force } => self.change_members(change, *force)?,
            Command::Help(name) => help::answer(*name),
            Command::Timing(on) => {
                self.timing = *on;
                Answer::Done
            }
            Command::Output(format) => {
                (self.format, printer.format) = (*format, *format);
                Answer::Done
            }
            Command::Exit => {
                outcome.leave = true;
                return Ok(outcome);
            }
        };
        printer.answer(&answer)?;
        Ok(outcome)
    }

    fn cas(
        &self,
        key: &Bytes,
        expected: Option<&[u8]>,
        value: &Bytes,
    ) -> Result<Result<(), Option<Bytes>>, Error> {
        Ok(match self.clerk.cas(key, expected, value)? {
            CasOutcome::Swapped => Ok(()),
            CasOutcome::Mismatch(present) => Err(present),
        })
    }

    fn change_members(&self, change: &ChangeRequest, force: bool) -> Result<Answer, Failure> {
        let done = member::change(&self.clerk, change, force, &self.interrupt)?;
        Ok(Answer::MembersChanged(done))
    }

    fn delete(&self, keys: &[Bytes]) -> Result<Answer, Failure> {
        let mut removed = 0;
        for (done, key) in keys.iter().enumerate() {
            let named = keys.len();
            let deleted = match self.clerk.delete(key) {
                Err(error) if named > 1 => return Err(Failure::Partly { done, named, error }),
                deleted => deleted?,
            };
            removed += usize::from(deleted);
            if self.interrupt.is_set() && done + 1 < named {
                let maybe_executed = false;
                return Err(Failure::Partly {
                    done: done + 1,
                    named,
                    error: Error::Cancelled { maybe_executed },
                });
            }
        }
        Ok(Answer::Deleted {
            removed,
            named: keys.len(),
        })
    }

    fn scan(&self, range: &Range, printer: &mut Printer) -> Result<Outcome, Failure> {
        let mut left = match range.extent {
            Extent::Limit(limit) => limit,
            Extent::Page | Extent::All => u64::MAX,
        };
        let mut start = range.start.clone();
        printer.scan_begins()?;
        let next = loop {
            let page = self.clerk.scan(Scan {
                start,
                end: range.end.clone(),
                // Zero means the server's own limit. A number that does not fit into 32 bits
                // becomes zero, which is right because the server's limit is lower.
                limit: u32::try_from(left).unwrap_or(0),
                limit_bytes: 0,
                keys_only: range.keys_only,
            })?;
            printer.scan_items(&page.items, range.keys_only)?;
            left = left.saturating_sub(page.items.len() as u64);
            match page.next {
                Some(next) if range.extent != Extent::Page && left > 0 => start = next,
                next => break next,
            }
            if self.interrupt.is_set() {
                return Err(Failure::Interrupted);
            }
        };
        printer.scan_ends(next.as_ref())?;
        let note = next.filter(|_| range.extent == Extent::Page).map(|next| {
            let next = grammar::word(&next);
            format!("there are more keys: go on with --from {next}, or read all with --all")
        });
        Ok(Outcome {
            note,
            ..Outcome::default()
        })
    }

    fn status(&self, verbose: bool, printer: &mut Printer) -> Result<Outcome, Failure> {
        let answers = self.clerk.status().into_iter().map(|server| {
            let result = server.result.map_err(|error| error.to_string());
            (server.address, result)
        });
        let report = Report::new(answers.collect());
        let code = match report.has_quorum() {
            true => exit::DONE,
            false => exit::UNAVAILABLE,
        };
        printer.answer(&Answer::Status {
            report: Box::new(report),
            verbose,
        })?;
        Ok(Outcome {
            code,
            ..Outcome::default()
        })
    }
}

/// Reads the value of a command. The value may come from standard input only if the commands do not
/// come from there.
fn load(input: &Input, stdin_is_free: bool) -> Result<Bytes, Failure> {
    match input {
        Input::Here(value) => Ok(value.clone()),
        Input::File(path) if path == Path::new("-") && !stdin_is_free => Err(Failure::Input(
            "--file - works for a single command only: here, commands come from standard input"
                .into(),
        )),
        Input::File(path) if path == Path::new("-") => {
            read("standard input", &mut io::stdin().lock())
        }
        Input::File(path) => {
            let name = path.display().to_string();
            let mut file = File::open(path)
                .map_err(|error| Failure::Input(format!("cannot open {name}: {error}")))?;
            read(&name, &mut file)
        }
    }
}

/// Reads a file to its end. Returns an error if it is larger than any request can be.
fn read(name: &str, from: &mut dyn Read) -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    from.take(MAX_PAYLOAD as u64 + 1)
        .read_to_end(&mut value)
        .map_err(|error| Failure::Input(format!("cannot read {name}: {error}")))?;
    match value.len() > MAX_PAYLOAD {
        true => Err(Failure::Input(format!(
            "{name} is larger than {MAX_PAYLOAD} bytes, the most that can be sent"
        ))),
        false => Ok(value.into()),
    }
}
