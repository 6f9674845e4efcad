//! The history of a run as a file: one line of JSON for each operation, in the order of their ends.
//!
//! Times are in microseconds since the start of the run. Keys and values are text of our own
//! making. A run of 64 and more times `x` in a value is written as `~` and its length, so that
//! large values do not make the file large.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::sim::{Action, End, Record};
use raftkv::kv::{Op, Reply};

/// From how many on, times `x` are counted rather than written.
const LONG_RUN: usize = 64;

/// One operation of one client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Whose it was.
    pub client: usize,
    /// When it was begun; a moment earlier at the most.
    pub called_us: u64,
    /// When it was over; a moment later at the most.
    pub returned_us: u64,
    /// What was asked for.
    pub ask: Ask,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields say what they are")]
pub enum Ask {
    /// A confirmed read.
    Get { key: String },
    /// A read through the log.
    LoggedGet { key: String },
    /// Sets a value.
    Put { key: String, value: String },
    /// Adds to a value.
    Append { key: String, value: String },
    /// Removes a key.
    Delete { key: String },
    /// Sets a value if it is the expected one.
    Cas {
        key: String,
        expected: Option<String>,
        value: String,
    },
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// To a read: what was there.
    Value(Option<String>),
    /// To a put.
    Done,
    /// To an append: the length after it, in bytes.
    Appended(u64),
    /// To a delete: whether the key was there.
    Deleted(bool),
    /// To a compare-and-swap that was done.
    Swapped,
    /// To one that was not: what was there instead.
    Differs(Option<String>),
    /// Certainly not executed, and never to be.
    NotExecuted(String),
    /// A read that nobody answered. It has changed nothing, so it says nothing about the order of
    /// operations; but it is counted, for a cluster that answers no read must not pass.
    Unread(String),
    /// What came is no answer to the question: a fault of the cluster, whatever it has executed.
    Wrong(String),
    /// Executed, or yet to be executed, or never.
    Unknown(String),
}

impl Ask {
    /// The key that it is about.
    pub fn key(&self) -> &str {
        match self {
            Ask::Get { key }
            | Ask::LoggedGet { key }
            | Ask::Put { key, .. }
            | Ask::Append { key, .. }
            | Ask::Delete { key }
            | Ask::Cas { key, .. } => key,
        }
    }

    /// Whether it leaves everything as it is.
    pub fn is_read(&self) -> bool {
        matches!(self, Ask::Get { .. } | Ask::LoggedGet { .. })
    }

    /// Its kind, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Ask::Get { .. } => "get",
            Ask::LoggedGet { .. } => "get through the log",
            Ask::Put { .. } => "put",
            Ask::Append { .. } => "append",
            Ask::Delete { .. } => "delete",
            Ask::Cas { .. } => "cas",
        }
    }

    /// The operation, in the form in which a session executes it.
    pub fn op(&self) -> Op {
        let bytes = |text: &str| Bytes::from(text.to_string());
        let key = bytes(self.key());
        match self {
            Ask::Get { .. } | Ask::LoggedGet { .. } => Op::Get { key },
            Ask::Put { value, .. } => Op::Put {
                key,
                value: bytes(value),
            },
            Ask::Append { value, .. } => Op::Append {
                key,
                value: bytes(value),
            },
            Ask::Delete { .. } => Op::Delete { key },
            Ask::Cas {
                expected, value, ..
            } => Op::Cas {
                key,
                expected: expected.as_deref().map(bytes),
                value: bytes(value),
            },
        }
    }
}

impl Outcome {
    /// Whether the cluster answered the question.
    pub fn is_answer(&self) -> bool {
        !matches!(
            self,
            Outcome::NotExecuted(_) | Outcome::Unread(_) | Outcome::Unknown(_) | Outcome::Wrong(_)
        )
    }

    /// Its kind, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Outcome::NotExecuted(_) => "not executed",
            Outcome::Unread(_) | Outcome::Unknown(_) => "unknown",
            Outcome::Wrong(_) => "wrong",
            _ => "answered",
        }
    }

    fn end(&self) -> End {
        let bytes = |text: &Option<String>| text.clone().map(Bytes::from);
        End::Reply(match self {
            Outcome::Value(value) => Reply::Value(bytes(value)),
            Outcome::Done => Reply::Done,
            Outcome::Appended(len) => Reply::Appended(*len),
            Outcome::Deleted(was_there) => Reply::Deleted(*was_there),
            Outcome::Swapped => Reply::Swapped(Ok(())),
            Outcome::Differs(present) => Reply::Swapped(Err(bytes(present))),
            Outcome::NotExecuted(why) | Outcome::Unread(why) => {
                return End::NotExecuted(why.clone());
            }
            Outcome::Unknown(why) | Outcome::Wrong(why) => return End::Unknown(why.clone()),
        })
    }
}

impl Line {
    /// The operation as the checkers know it.
    pub fn record(&self) -> Record {
        let action = match &self.ask {
            Ask::Get { key } => Action::Get(key.clone().into()),
            other => Action::Execute(other.op()),
        };
        Record {
            client: self.client,
            action,
            called: self.called_us,
            number: None,
            end: Some((self.returned_us, self.outcome.end())),
        }
    }

    /// The same line with every value in the other form.
    fn map(&self, form: impl Fn(&str) -> String) -> Self {
        let mut line = self.clone();
        let all = |value: &mut String| *value = form(value);
        let maybe = |value: &mut Option<String>| *value = value.as_deref().map(&form);
        match &mut line.ask {
            Ask::Put { value, .. } | Ask::Append { value, .. } => all(value),
            Ask::Cas {
                expected, value, ..
            } => {
                maybe(expected);
                all(value);
            }
            Ask::Get { .. } | Ask::LoggedGet { .. } | Ask::Delete { .. } => {}
        }
        if let Outcome::Value(value) | Outcome::Differs(value) = &mut line.outcome {
            maybe(value);
        }
        line
    }
}

fn shorten(value: &str) -> String {
    let mut short = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('x') {
        short.push_str(&rest[..at]);
        let after = rest[at..].trim_start_matches('x');
        match rest.len() - at - after.len() {
            run @ LONG_RUN.. => short.push_str(&format!("~{run}~")),
            run => short.push_str(&rest[at..at + run]),
        }
        rest = after;
    }
    short + rest
}

fn lengthen(short: &str) -> String {
    let mut parts = short.split('~');
    let mut value = parts.next().unwrap_or_default().to_string();
    while let (Some(run), Some(rest)) = (parts.next(), parts.next()) {
        value.push_str(&"x".repeat(run.parse().unwrap_or(0)));
        value.push_str(rest);
    }
    value
}

/// Writes a history.
pub struct Writer(BufWriter<File>);

impl Writer {
    /// Makes a new file.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(BufWriter::new(File::create(path)?)))
    }

    /// Adds a line.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, &line.map(shorten))?;
        self.0.write_all(b"\n")
    }

    /// Has all of it in the file.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Reads a history back.
///
/// # Errors
/// What the system says; or which line is none.
pub fn read(path: &Path) -> io::Result<Vec<Line>> {
    let lines = BufReader::new(File::open(path)?).lines();
    let parse = |(number, text): (usize, io::Result<String>)| {
        let line: Line = serde_json::from_str(&text?).map_err(|error| {
            let place = format!("{} line {number}: {error}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, place)
        })?;
        Ok(line.map(lengthen))
    };
    (1..).zip(lines).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_are_counted_and_come_back() {
        let run = "x".repeat(70);
        for value in ["", "x", "<1.2>xxx", &run, &format!("<1>{run}<2>x<3>{run}")] {
            assert_eq!(lengthen(&shorten(value)), value);
        }
        assert_eq!(shorten(&format!("<1>{run}<2>")), "<1>~70~<2>");
    }

    #[test]
    fn a_history_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let line = Line {
            client: 3,
            called_us: 5,
            returned_us: 9,
            ask: Ask::Cas {
                key: "k".into(),
                expected: None,
                value: "x".repeat(100),
            },
            outcome: Outcome::Differs(Some("<1.1>".into())),
        };
        let mut writer = Writer::create(&path).unwrap();
        writer.add(&line).unwrap();
        writer.finish().unwrap();
        let read = read(&path).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", [line]));
    }
}
