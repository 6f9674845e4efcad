//! The interactive shell: a prompt with history, completion and hints.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::catalog;
use super::command;
use super::completion;
use super::output::{Printer, Style};
use super::piped::{say, tell, took};
use super::session::{Failure, Session, exit};
use crate::client::{Clerk, Options};
use crate::kv::Scan;

const PROMPT: &str = "raftkv> ";

/// How many lines the history keeps.
const HISTORY_LINES: usize = 1000;

/// How many keys completion offers at most.
const COMPLETED_KEYS: u32 = 50;

/// How long completion may wait for the cluster's keys, while a person waits for the completion.
const COMPLETION_DEADLINE: Duration = Duration::from_millis(500);

/// The options of the second Clerk, which finds keys for completion.
pub fn for_keys(options: Options) -> Options {
    Options {
        deadline: COMPLETION_DEADLINE,
        attempt_timeout: COMPLETION_DEADLINE / 2,
        ..options
    }
}

/// Reads commands from the terminal until Ctrl-D or `exit`. Returns the exit code.
pub fn run(session: &mut Session, keys: Clerk, out: &mut dyn Write) -> u8 {
    let mut editor = match editor(keys) {
        Ok(editor) => editor,
        Err(error) => {
            say(
                &mut io::stderr(),
                &format!(
                    "kvcli: cannot use the terminal: {error}; write commands into a pipe instead"
                ),
            );
            return exit::USAGE;
        }
    };
    let mut history = History::open(&mut editor);
    say(
        &mut io::stderr(),
        &format!(
            "raftkv {}: help lists the commands, Tab completes, Ctrl-C cancels, Ctrl-D leaves",
            env!("CARGO_PKG_VERSION")
        ),
    );
    loop {
        match editor.readline(PROMPT) {
            Ok(line) => {
                history.add(&mut editor, &line);
                match execute(session, &line, out) {
                    Ok(true) => {}
                    Ok(false) => return exit::DONE,
                    Err(error) => {
                        say(&mut io::stderr(), &format!("kvcli: {error}"));
                        return exit::NO;
                    }
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return exit::DONE,
            Err(error) => {
                say(
                    &mut io::stderr(),
                    &format!("kvcli: cannot read from the terminal: {error}"),
                );
                return exit::USAGE;
            }
        }
    }
}

/// Executes one line. Returns false if the shell is to end. An error means that nothing can be
/// written to the terminal any more.
fn execute(session: &mut Session, line: &str, out: &mut dyn Write) -> Result<bool, Failure> {
    let mut errors = io::stderr();
    let request = match command::parse_line(line.as_bytes()) {
        Ok(None) => return Ok(true),
        Ok(Some(request)) => request,
        Err(error) => {
            tell(&Err(error.into()), "error: ", &mut errors);
            return Ok(true);
        }
    };
    let mut printer = Printer::new(out, Style::Shell, session.format);
    let start = Instant::now();
    let result = match session.run(&request, &mut printer) {
        Err(Failure::Output(error)) => return Err(Failure::Output(error)),
        result => result,
    };
    let before = if result.is_ok() { "" } else { "error: " };
    tell(&result, before, &mut errors);
    let leave = result.is_ok_and(|outcome| outcome.leave);
    if session.timing && !leave {
        writeln!(out, "{}", took(start))?;
        out.flush()?;
    }
    Ok(!leave)
}

type Prompt = Editor<Assistant, FileHistory>;

fn editor(keys: Clerk) -> rustyline::Result<Prompt> {
    let config = Config::builder()
        .max_history_size(HISTORY_LINES)?
        .history_ignore_space(true)
        .history_ignore_dups(true)?
        .completion_type(CompletionType::List)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Assistant { keys }));
    Ok(editor)
}

/// The file in which the history is kept; `None` if it cannot be kept.
struct History(Option<PathBuf>);

impl History {
    fn open(editor: &mut Prompt) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let path = history_path(variable).map(|path| {
            let loaded = load(editor, &path);
            (path, loaded)
        });
        match path {
            None => Self(None),
            Some((path, Ok(()))) => Self(Some(path)),
            Some((path, Err(error))) => {
                say(
                    &mut io::stderr(),
                    &format!(
                        "kvcli: the history is not kept: {}: {error}",
                        path.display()
                    ),
                );
                Self(None)
            }
        }
    }

    /// Adds a line and writes it at once, so that it is not lost if the program is killed.
    fn add(&mut self, editor: &mut Prompt, line: &str) {
        // The editor refuses some lines, such as a line that repeats the last one. Those are not
        // written to the file either.
        let added = editor.add_history_entry(line).unwrap_or(false);
        let Some(path) = self.0.as_ref().filter(|_| added) else {
            return;
        };
        if let Err(error) = editor.append_history(path) {
            say(
                &mut io::stderr(),
                &format!(
                    "kvcli: the history is no longer kept: {}: {error}",
                    path.display()
                ),
            );
            self.0 = None;
        }
    }
}

fn load(editor: &mut Prompt, path: &Path) -> rustyline::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match editor.load_history(path) {
        Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        loaded => loaded,
    }
}

/// The path of the history: `RAFTKV_HISTORY`, or `raftkv/history` in the folder for the user's
/// data. `None` if there is no such folder.
fn history_path(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    if let Some(path) = variable("RAFTKV_HISTORY") {
        return Some(path.into());
    }
    let data = match variable("XDG_DATA_HOME") {
        Some(data) => data.into(),
        None => PathBuf::from(variable("HOME")?).join(".local/share"),
    };
    Some(data.join("raftkv/history"))
}

/// Offers completions and hints for the line that is being typed.
struct Assistant {
    keys: Clerk,
}

impl Assistant {
    /// Returns some of the keys that start with the prefix; no keys if the cluster does not answer
    /// in time.
    fn keys(&self, prefix: &[u8]) -> Vec<Bytes> {
        let page = self.keys.scan(Scan {
            start: Bytes::copy_from_slice(prefix),
            end: catalog::prefix_end(prefix),
            limit: COMPLETED_KEYS,
            limit_bytes: 0,
            keys_only: true,
        });
        page.map_or(Vec::new(), |page| {
            page.items.into_iter().map(|item| item.key).collect()
        })
    }
}

impl Helper for Assistant {}

impl Validator for Assistant {}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = line.get(..pos).unwrap_or(line);
        let (start, candidates) = completion::complete(typed, |prefix| self.keys(prefix));
        let pair = |candidate: completion::Candidate| Pair {
            display: candidate.shown,
            replacement: candidate.replacement,
        };
        Ok((start, candidates.into_iter().map(pair).collect()))
    }
}

/// A hint that is shown but cannot be accepted, because it names operands that only the user knows.
struct Shown(String);

impl Hint for Shown {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Assistant {
    type Hint = Shown;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<Shown> {
        completion::hint(line)
            .filter(|_| pos == line.len())
            .map(Shown)
    }
}

impl Highlighter for Assistant {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        // The escape sequences make the hint grey.
        Cow::Owned(format!("\x1b[90m{hint}\x1b[0m"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_lies_where_the_environment_says() {
        let path = |set: &[&str]| {
            let set: Vec<_> = set.iter().filter_map(|pair| pair.split_once('=')).collect();
            let value = |name: &str| set.iter().find(|(known, _)| *known == name);
            history_path(|name| value(name).map(|(_, value)| value.into()))
        };
        assert_eq!(path(&[]), None);
        let home = "HOME=/home/u";
        for (set, expected) in [
            (&[home][..], "/home/u/.local/share/raftkv/history"),
            (&[home, "XDG_DATA_HOME=/data"], "/data/raftkv/history"),
            (&[home, "RAFTKV_HISTORY=/h"], "/h"),
        ] {
            assert_eq!(path(set), Some(expected.into()), "{set:?}");
        }
    }

    #[test]
    fn a_history_that_cannot_be_written_is_a_warning_and_one_that_is_missing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let mut editor: Prompt = editor(Clerk::connect(["127.0.0.1:1"]).unwrap()).unwrap();
        let path = folder.path().join("new/folder/history");
        load(&mut editor, &path).unwrap();
        let mut history = History(Some(path.clone()));
        history.add(&mut editor, "get a");
        history.add(&mut editor, "get a");
        history.add(&mut editor, "get b");
        let written = fs::read_to_string(&path).unwrap();
        assert_eq!(written.matches("get").count(), 2, "{written}");

        let mut history = History(Some(folder.path().into()));
        history.add(&mut editor, "get c");
        assert_eq!(history.0, None);
    }
}
