//! How kvcli writes answers, in its three formats: raw, json, and a table for people.
//!
//! | answer            | raw                      | json                                        |
//! |-------------------|--------------------------|---------------------------------------------|
//! | value             | the value, see below     | `{"value":"..."}`                           |
//! | missing value     | `(missing)`, see below   | `{"value":null}`                            |
//! | put               | `ok`                     | `{"ok":true}`                               |
//! | append            | the new length           | `{"length":5}`                              |
//! | delete            | how many were there      | `{"deleted":1}`                             |
//! | cas that was done | `ok`                     | `{"swapped":true}`                          |
//! | cas that was not  | `(differs) VALUE`        | `{"swapped":false,"value":"..."}`           |
//! | scan              | `KEY VALUE` on each line | `{"items":[{"key":"k","value":"v"}],"next":null}` |
//! | status            | a line for each node     | `{"leader":1,"nodes":[...],...}`            |
//! | snapshot          | a line for each node     | `{"snapshots":[{"id":1,"snapshot_index":9,...}]}` |
//! | member list       | a line for each member   | `{"index":9,"members":[{"id":1,"role":"voter",...}],...}` |
//! | other members     | `ok`                     | `{"index":12,"new":true,"ok":true}`         |
//! | error             | `(error)`                | `{"error":{"kind":"no","message":"..."}}`   |
//!
//! - For a single command, raw output is the value byte for byte. A newline follows only on a
//!   terminal, and nothing is written for a missing value.
//! - In a pipe, raw and json give one line for each command. All words of a scan are on one line;
//!   an empty scan is `(empty)`.
//! - Everywhere else a value is on one line, in quotes if it is not plain text. So a line that
//!   starts with `(` is not a value. Keys and values of a scan are words of the [`grammar`].
//! - In a table, long values of a scan are cut: a table is for people.
//! - In json, bytes that are not UTF-8 are `{"base64":"..."}` in place of a string.

use std::io::{self, Write};

use bytes::Bytes;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::command::Format;
use super::grammar;
use super::member::Done;
use super::member::list::Listing;
use super::snapshot::Taken;
use super::status::Report;
use crate::kv::Item;

/// The answer to one command. There is none for a scan, whose items are written as they arrive.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The command was executed, and has no other result.
    Done,
    /// The answer of `get`: the value, or `None` if the key is missing.
    Value(Option<Bytes>),
    /// The answer of `append`: the length of the value after it, in bytes.
    Length(u64),
    /// The answer of `delete`, which may name several keys.
    Deleted {
        /// How many of the named keys existed and were removed.
        removed: usize,
        /// How many keys the command named.
        named: usize,
    },
    /// The answer of `cas`: `Ok` if the value was replaced, else the value that the key has, or
    /// `None` if the key is missing.
    Swapped(Result<(), Option<Bytes>>),
    /// The answer of `status`.
    Status {
        /// The state of the cluster, made from the answers of its nodes.
        report: Box<Report>,
        /// Whether a table also shows the gauges of each node's state machine.
        verbose: bool,
    },
    /// The answer of `snapshot`: the result at each node that was asked to take a snapshot.
    Snapshots(Vec<Taken>),
    /// The answer of `member list`.
    Members(Listing),
    /// The answer of the other `member` commands, when the change is done.
    MembersChanged(Done),
    /// The answer of `help`: an explanation, in a long and in a short form.
    Help {
        /// The whole explanation: several lines, without the last newline.
        long: String,
        /// The explanation in one line, for a pipe.
        short: String,
    },
}

/// Who reads the answers. The reader decides whether a newline follows a value, and how a missing
/// value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The command line has a single command, which a person or a script has written.
    Single {
        /// Whether standard output is a terminal.
        terminal: bool,
    },
    /// A program that writes commands into a pipe, and reads one line for each of them.
    Piped,
    /// A person who uses the shell of kvcli.
    Shell,
}

/// Writes answers in one of the formats.
pub struct Printer<'a> {
    out: &'a mut dyn Write,
    style: Style,
    /// The format in which the next answer is written.
    pub format: Format,
    /// Whether the output is in the middle of the answer to a scan.
    scanning: bool,
    /// Whether an item has been written for the scan whose answer is under way.
    begun: bool,
}

impl<'a> Printer<'a> {
    /// Makes a printer that writes to `out`.
    pub fn new(out: &'a mut dyn Write, style: Style, format: Format) -> Self {
        Self {
            out,
            style,
            format,
            scanning: false,
            begun: false,
        }
    }

    /// Whether kvcli was called with a single command.
    pub fn is_single(&self) -> bool {
        matches!(self.style, Style::Single { .. })
    }

    /// Whether the answer for a missing value is empty, so that a note on standard error has to
    /// tell a person that the key is missing.
    pub fn hides_missing(&self) -> bool {
        self.is_single() && self.format == Format::Raw
    }

    /// Writes one answer.
    ///
    /// # Errors
    /// The error of the output.
    pub fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        match self.format {
            Format::Json => self.line(&to_json(answer).to_string()),
            Format::Raw => self.raw(answer),
            Format::Table => self.line(&for_people(answer)),
        }
    }

    fn raw(&mut self, answer: &Answer) -> io::Result<()> {
        let piped = self.style == Style::Piped;
        match (answer, self.style) {
            (Answer::Value(value), Style::Single { terminal }) => {
                self.out.write_all(value.as_deref().unwrap_or_default())?;
                if terminal && value.is_some() {
                    self.out.write_all(b"\n")?;
                }
                self.out.flush()
            }
            (Answer::Deleted { removed, .. }, _) => self.line(&removed.to_string()),
            (Answer::Length(length), _) => self.line(&length.to_string()),
            (Answer::Swapped(Err(present)), _) => {
                self.line(&format!("(differs) {}", shown(present.as_ref())))
            }
            (Answer::Status { report, .. }, _) => {
                let separator = if piped { " " } else { "\n" };
                self.line(&report.lines().join(separator))
            }
            (Answer::Snapshots(all), _) => {
                let lines: Vec<_> = all.iter().map(Taken::line).collect();
                self.line(&lines.join(if piped { " " } else { "\n" }))
            }
            (Answer::Members(listing), _) => {
                let separator = if piped { " " } else { "\n" };
                self.line(&listing.lines().join(separator))
            }
            (Answer::MembersChanged(_), _) => self.line("ok"),
            (Answer::Help { short, .. }, _) if piped => self.line(short),
            _ => self.line(&for_people(answer)),
        }
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Begins the answer to a scan.
    ///
    /// # Errors
    /// The error of the output.
    pub fn scan_begins(&mut self) -> io::Result<()> {
        (self.scanning, self.begun) = (true, false);
        match self.format {
            Format::Json => self.out.write_all(b"{\"items\":["),
            Format::Raw | Format::Table => Ok(()),
        }
    }

    /// Writes some items of a scan.
    ///
    /// # Errors
    /// The error of the output.
    pub fn scan_items(&mut self, items: &[Item], keys_only: bool) -> io::Result<()> {
        if self.format == Format::Table {
            self.begun |= !items.is_empty();
            return match items {
                [] => Ok(()),
                items => self.line(&item_table(items, keys_only)),
            };
        }
        for item in items {
            let separator = match (self.format, self.style) {
                _ if !self.begun => "",
                (Format::Json, _) => ",",
                (_, Style::Piped) => " ",
                _ => "\n",
            };
            self.begun = true;
            write!(self.out, "{separator}")?;
            match (self.format, keys_only) {
                (Format::Json, true) => write!(self.out, "{}", json!({"key": text(&item.key)})),
                (Format::Json, false) => {
                    let (key, value) = (text(&item.key), text(&item.value));
                    write!(self.out, "{}", json!({"key": key, "value": value}))
                }
                (_, true) => write!(self.out, "{}", grammar::word(&item.key)),
                (_, false) => {
                    let (key, value) = (grammar::word(&item.key), grammar::word(&item.value));
                    write!(self.out, "{key} {value}")
                }
            }?;
        }
        Ok(())
    }

    /// Ends the answer to a scan; `next` is the key at which another scan can go on.
    ///
    /// # Errors
    /// The error of the output.
    pub fn scan_ends(&mut self, next: Option<&Bytes>) -> io::Result<()> {
        let begun = self.begun;
        (self.scanning, self.begun) = (false, false);
        match (self.format, begun) {
            (Format::Json, _) => {
                let next = next.map_or(Value::Null, |next| text(next));
                self.line(&format!("],\"next\":{next}}}"))
            }
            (Format::Table, true) => Ok(()),
            (Format::Raw, true) => self.line(""),
            // Without keys, a script gets no line, because it gets one line for each key. In a pipe
            // each command gets one line, so an empty scan does, too.
            (Format::Raw, false) if self.style != Style::Piped => self.out.flush(),
            (Format::Raw | Format::Table, false) => self.line("(empty)"),
        }
    }

    /// Called when a command has failed: ends or replaces its answer, if the output would be
    /// misread otherwise. So a scan that fails in the middle is still one line in a pipe, and one
    /// object in json. The message for a person goes to standard error.
    ///
    /// # Errors
    /// The error of the output.
    pub fn failed(&mut self, kind: &str, message: &str) -> io::Result<()> {
        let error = json!({"kind": kind, "message": message});
        let piped = self.style == Style::Piped;
        let (scanning, begun) = (self.scanning, self.begun);
        (self.scanning, self.begun) = (false, false);
        match self.format {
            Format::Json if scanning => self.line(&format!("],\"error\":{error}}}")),
            Format::Json if piped => self.line(&json!({"error": error}).to_string()),
            Format::Raw if begun && piped => self.line(" (error)"),
            Format::Raw if begun => self.line(""),
            Format::Raw | Format::Table if piped => self.line("(error)"),
            _ => Ok(()),
        }
    }
}

/// Writes a value on one line, or `(missing)`.
fn shown(value: Option<&Bytes>) -> String {
    value.map_or("(missing)".into(), |value| {
        grammar::line(value).into_owned()
    })
}

fn for_people(answer: &Answer) -> String {
    match answer {
        Answer::Done | Answer::Swapped(Ok(())) => "ok".into(),
        Answer::Value(value) => shown(value.as_ref()),
        Answer::Length(1) => "1 byte".into(),
        Answer::Length(length) => format!("{length} bytes"),
        Answer::Deleted { removed, named: 1 } => match removed {
            0 => "(missing)".into(),
            _ => "ok".into(),
        },
        Answer::Deleted { removed, named } => format!("{removed} of {named} keys removed"),
        Answer::Swapped(Err(None)) => "not set: the key is missing".into(),
        Answer::Swapped(Err(present)) => {
            format!("not set: the value is {}", shown(present.as_ref()))
        }
        Answer::Status { report, verbose } => report.table(*verbose),
        Answer::Snapshots(all) => {
            let lines: Vec<_> = all.iter().map(Taken::sentence).collect();
            lines.join("\n")
        }
        Answer::Members(listing) => listing.table(),
        Answer::MembersChanged(done) => done.sentence.clone(),
        Answer::Help { long, .. } => long.clone(),
    }
}

/// Writes a value for a table: a long value is cut, and its length follows.
fn shortened(value: &[u8]) -> String {
    /// How many characters of a value a table shows at most. A shorter value is shown whole.
    const SHOWN: usize = 100;
    // A character has at most four bytes, so four times as many bytes are enough. If they end
    // inside a character, they are not plain text and are shown in quotes.
    let shown = grammar::line(&value[..value.len().min(4 * SHOWN)]);
    match (shown.char_indices().nth(SHOWN), value.len() > 4 * SHOWN) {
        (None, false) => shown.into_owned(),
        (cut, _) => {
            let end = cut.map_or(shown.len(), |(end, _)| end);
            format!("{}... ({} bytes)", &shown[..end], value.len())
        }
    }
}

fn item_table(items: &[Item], keys_only: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    match keys_only {
        true => table.set_header(["key"]),
        false => table.set_header(["key", "value"]),
    };
    for item in items {
        match keys_only {
            true => table.add_row([grammar::word(&item.key).into_owned()]),
            false => table.add_row([
                grammar::word(&item.key).into_owned(),
                shortened(&item.value),
            ]),
        };
    }
    table.to_string()
}

fn to_json(answer: &Answer) -> Value {
    let value = |value: &Option<Bytes>| value.as_deref().map_or(Value::Null, text);
    match answer {
        Answer::Done => json!({"ok": true}),
        Answer::Value(found) => json!({"value": value(found)}),
        Answer::Length(length) => json!({"length": length}),
        Answer::Deleted { removed, .. } => json!({"deleted": removed}),
        Answer::Swapped(Ok(())) => json!({"swapped": true}),
        Answer::Swapped(Err(present)) => json!({"swapped": false, "value": value(present)}),
        Answer::Status { report, .. } => report.json(),
        Answer::Snapshots(all) => {
            json!({"snapshots": all.iter().map(Taken::json).collect::<Vec<_>>()})
        }
        Answer::Members(listing) => listing.json(),
        Answer::MembersChanged(done) => {
            json!({"ok": true, "index": done.index, "new": done.is_new})
        }
        Answer::Help { long, .. } => json!({"help": long}),
    }
}

/// Returns bytes as a JSON string, or as base64 if they are not UTF-8.
fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": base64(bytes)}),
    }
}

/// Encodes bytes as base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            match place <= chunk.len() {
                true => {
                    let digit = (group >> (18 - 6 * place)) & 63;
                    out.push(char::from(DIGITS[digit as usize]));
                }
                false => out.push('='),
            }
        }
    }
    out
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
