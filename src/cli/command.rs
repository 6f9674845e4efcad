//! Turns words into a command, in the same way for the shell, a pipe and the command line.
//!
//! The row of the command in the [catalogue](super::catalog) says which options and operands it
//! takes; this file checks the words against that row.

use std::path::PathBuf;

use bytes::Bytes;

use super::catalog::{self, COMMON, Opt, Spec};
use super::grammar::{self, Word};
use crate::raft::NodeId;
use crate::wire::members::ChangeRequest;

/// A command of kvcli, checked as far as that is possible without a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read the value of a key.
    Get {
        /// The key to read.
        key: Bytes,
    },
    /// Set the value of a key.
    Put {
        /// The key to set.
        key: Bytes,
        /// The value to set.
        value: Input,
    },
    /// Add to the end of a value.
    Append {
        /// The key whose value grows.
        key: Bytes,
        /// The bytes to add.
        value: Input,
    },
    /// Remove keys, one after the other.
    Delete {
        /// The keys to remove; at least one.
        keys: Vec<Bytes>,
    },
    /// Set a value if the present value is the expected one.
    Cas {
        /// The key to set.
        key: Bytes,
        /// The value that must be present; `None`: the key must be missing.
        expected: Option<Bytes>,
        /// The value to set if the present value is the expected one.
        value: Bytes,
    },
    /// Read a range of keys in order.
    Scan(Range),
    /// Ask every node for its status.
    Status {
        /// Show the gauges of each node's state machine, too.
        verbose: bool,
    },
    /// Transfer the leadership of the cluster.
    Transfer {
        /// The node that is to lead; `None`: the node whose log is most up to date.
        to: Option<NodeId>,
    },
    /// Have nodes take a snapshot.
    Snapshot {
        /// The node that is to take a snapshot; `None`: all nodes.
        id: Option<NodeId>,
    },
    /// Show the members and how far each of them is.
    Members,
    /// Change the members, and wait until that is done.
    ChangeMembers {
        /// The change.
        change: ChangeRequest,
        /// Whether to make it although too few of the voters answer that there would be.
        force: bool,
    },
    /// Begin or cease to show how long each answer took.
    Timing(bool),
    /// Set the format of all later answers.
    Output(Format),
    /// Explain the command of this name; `None`: list all commands.
    Help(Option<&'static str>),
    /// Leave kvcli.
    Exit,
}

/// Where kvcli takes a value from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The value was given as a word of the command.
    Here(Bytes),
    /// The value is the content of this file; `-` is standard input.
    File(PathBuf),
}

/// The range of keys that a scan reads, and how many of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first key of the range, inclusive. Empty: from the first key of all.
    pub start: Bytes,
    /// The end of the range, exclusive. `None`: to the last key of all.
    pub end: Option<Bytes>,
    /// How many keys of the range to read.
    pub extent: Extent,
    /// Whether to read the keys without their values.
    pub keys_only: bool,
}

/// How many keys a scan reads at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// One page: as many keys as the server returns for one request.
    Page,
    /// Up to this many keys, from as many pages as that takes.
    Limit(u64),
    /// All keys of the range, with as many requests as that takes.
    All,
}

/// The format in which kvcli writes answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For scripts: bare values and lines of words
    Raw,
    /// For programs: one JSON object per answer
    Json,
    /// For people: tables and sentences
    Table,
}

impl Format {
    /// The names of the formats, as users type them.
    pub const NAMES: &'static [&'static str] = &["raw", "json", "table"];

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        match bytes {
            b"raw" => Ok(Self::Raw),
            b"json" => Ok(Self::Json),
            b"table" => Ok(Self::Table),
            other => Err(format!(
                "{} is no output format; there are raw, json and table",
                grammar::word(other)
            )),
        }
    }
}

/// A command, with the format in which its answer is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The command to execute.
    pub command: Command,
    /// The format of this one answer; `None`: the format that the session has set.
    pub format: Option<Format>,
}

/// Why the words that a user wrote are not a command: a sentence that says what is wrong and what
/// to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Turns a line into a command. `None` if the line is blank or a comment.
///
/// # Errors
/// [`UsageError`] if the line cannot be split into words, or if the words are not a command.
pub fn parse_line(line: &[u8]) -> Result<Option<Request>, UsageError> {
    let words = grammar::split(line).map_err(|error| UsageError(error.to_string()))?;
    match words.is_empty() {
        true => Ok(None),
        false => parse(&words).map(Some),
    }
}

/// Turns words into a command. The first word is the command's name.
///
/// # Errors
/// [`UsageError`] if there is no such command or the words do not fit it.
pub fn parse(words: &[Word]) -> Result<Request, UsageError> {
    let (name, rest) = words
        .split_first()
        .ok_or_else(|| UsageError("a command is missing: try help".into()))?;
    let spec = catalog::find(&name.bytes).ok_or_else(|| unknown_command(&name.bytes))?;
    let usage = |problem: String| {
        UsageError(format!(
            "{problem} (usage: {}; more: help {})",
            spec.usage, spec.name
        ))
    };
    let mut arguments = Arguments::collect(spec, rest).map_err(usage)?;
    if arguments.flag("--help") {
        let command = Command::Help(Some(spec.name));
        return Ok(Request {
            command,
            format: None,
        });
    }
    let format = arguments.take("--output");
    let format = format.as_deref().map(Format::parse).transpose();
    let format = format.map_err(usage)?;
    let given = arguments.operands.len();
    if given < spec.required {
        return Err(usage(match given {
            0 => format!("{} needs more than its name", spec.name),
            _ => format!("{} needs at least {} words", spec.name, spec.required),
        }));
    }
    if !spec.repeats && given > spec.operands.len() {
        let surplus = grammar::word(&arguments.operands[spec.operands.len()]).into_owned();
        return Err(usage(format!(
            "{} does not know what to do with {surplus}; a word with blanks needs quotes",
            spec.name
        )));
    }
    let command = (spec.build)(&mut arguments).map_err(usage)?;
    Ok(Request { command, format })
}

/// The words after a command's name, sorted into operands and options.
/// [`Spec::build`](super::catalog::Spec) takes them out, one after the other.
#[derive(Debug, Default)]
pub struct Arguments {
    operands: Vec<Bytes>,
    options: Vec<(&'static str, Bytes)>,
}

impl Arguments {
    fn collect(spec: &'static Spec, words: &[Word]) -> Result<Self, String> {
        let mut arguments = Self::default();
        let mut words = words.iter();
        let mut options_end = false;
        while let Some(word) = words.next() {
            if options_end || word.quoted || !is_option(&word.bytes) {
                let operand = Bytes::copy_from_slice(&word.bytes);
                arguments.operands.push(operand);
                continue;
            }
            if word.bytes == b"--" {
                options_end = true;
                continue;
            }
            let (name, inline) = match word.bytes.iter().position(|&byte| byte == b'=') {
                Some(at) => (&word.bytes[..at], Some(&word.bytes[at + 1..])),
                None => (&word.bytes[..], None),
            };
            let option = find_option(spec, name)?;
            let value = match (option.value, inline) {
                (None, None) => Bytes::new(),
                (None, Some(_)) => return Err(format!("{} takes no value", option.name)),
                (Some(_), Some(value)) => Bytes::copy_from_slice(value),
                (Some(what), None) => match words.next() {
                    Some(value) => Bytes::copy_from_slice(&value.bytes),
                    None => return Err(format!("{} needs its {what}", option.name)),
                },
            };
            if arguments
                .options
                .iter()
                .any(|(name, _)| *name == option.name)
            {
                return Err(format!("{} is given twice", option.name));
            }
            arguments.options.push((option.name, value));
        }
        Ok(arguments)
    }

    /// Takes out the value of the option with this name, if the option was given.
    pub fn take(&mut self, name: &str) -> Option<Bytes> {
        let at = self.options.iter().position(|(given, _)| *given == name)?;
        Some(self.options.swap_remove(at).1)
    }

    /// Takes out an option that has no value. Returns whether it was given.
    pub fn flag(&mut self, name: &str) -> bool {
        self.take(name).is_some()
    }

    /// Takes out the first operand, if there is one.
    pub fn operand(&mut self) -> Option<Bytes> {
        (!self.operands.is_empty()).then(|| self.operands.remove(0))
    }

    /// Takes out the first operand. If there is none, returns an error that calls it `what`.
    pub fn required(&mut self, what: &str) -> Result<Bytes, String> {
        self.operand().ok_or_else(|| format!("{what} is missing"))
    }

    /// Takes all operands out.
    pub fn operands(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.operands)
    }
}

/// Whether the word looks like an option: a minus and a letter, or two minuses. `-5` and `-` are
/// data.
fn is_option(word: &[u8]) -> bool {
    matches!(word, [b'-', b'-', ..]) || matches!(word, [b'-', c, ..] if c.is_ascii_alphabetic())
}

fn find_option(spec: &'static Spec, name: &[u8]) -> Result<&'static Opt, String> {
    let mut all = spec.options.iter().chain(COMMON);
    let found = all.find(|option| {
        option.name.as_bytes() == name || option.short.is_some_and(|short| short.as_bytes() == name)
    });
    found.ok_or_else(|| {
        let name = String::from_utf8_lossy(name);
        let names = spec.options.iter().chain(COMMON).map(|option| option.name);
        let hint = match nearest(&name, names) {
            Some(near) => format!("did you mean {near}?"),
            None => {
                "put -- before it if it is data; kvcli's own options, such as --cluster, go before \
                     the command"
                    .into()
            }
        };
        format!(
            "{} has no option {}: {hint}",
            spec.name,
            name.escape_debug()
        )
    })
}

fn unknown_command(name: &[u8]) -> UsageError {
    let shown = grammar::word(name);
    let names = catalog::COMMANDS.iter().flat_map(Spec::names);
    UsageError(match nearest(&String::from_utf8_lossy(name), names) {
        Some(near) => format!("there is no command {shown}: did you mean {near}?"),
        None => format!("there is no command {shown}: help lists all there are"),
    })
}

/// Finds the candidate that differs from the typed word by the fewest typing errors. `None` if all
/// differ by many.
fn nearest<'a>(typed: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed: Vec<char> = typed.to_lowercase().chars().take(32).collect();
    candidates
        .map(|candidate| (distance(&typed, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= 1 + candidate.len() / 4 && *distance < typed.len()
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The number of typing errors between two words (Damerau-Levenshtein distance): an insertion, a
/// deletion, a replacement, and two neighbours in the wrong order count as one error each.
fn distance(typed: &[char], candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=typed.len()).collect()];
    for (i, c) in candidate.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, t) in typed.iter().enumerate() {
            let mut best = rows[i][j] + usize::from(t != c);
            best = best.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *t == candidate[i - 1] && typed[j - 1] == *c {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[candidate.len()][typed.len()]
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
