//! Executes commands outside the interactive shell: the commands in a pipe or a file, one on each
//! line, or the single command of a command line.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::time::Instant;

use super::command::{self, Request, UsageError};
use super::output::{Printer, Style};
use super::session::{Failure, Outcome, Session, exit};
use crate::wire::frame::MAX_PAYLOAD;

/// The longest line that is accepted, in bytes: the largest request, with each byte written as
/// `\xNN`.
const MAX_LINE: usize = 4 * MAX_PAYLOAD;

/// Executes the single command of a command line. Returns the exit code.
pub fn one(
    session: &mut Session,
    request: &Request,
    out: &mut dyn Write,
    errors: &mut dyn Write,
) -> u8 {
    let terminal = io::stdout().is_terminal();
    let mut printer = Printer::new(out, Style::Single { terminal }, session.format);
    let start = Instant::now();
    let result = session.run(request, &mut printer);
    let code = tell(&result, "kvcli: ", errors);
    if session.timing {
        say(errors, &took(start));
    }
    code
}

/// Executes the commands of `input`. Returns the exit code of the first command that failed. If
/// none failed, returns 1 if an answer was "no", as for a missing key, else 0.
///
/// Blank lines and comments are skipped. Every other line gets one line of answer, `(error)` if the
/// command failed; the error itself goes to `errors` with the number of the line. After a failed
/// command the next ones are executed, unless `stop_on_error` is set.
pub fn run(
    session: &mut Session,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
    errors: &mut dyn Write,
    stop_on_error: bool,
) -> u8 {
    let (mut failed, mut said_no) = (None, false);
    let mut printer = Printer::new(out, Style::Piped, session.format);
    for number in 1_u64.. {
        let start = Instant::now();
        let result = match next_line(input) {
            Err(error) => Some(Err(Failure::Unreadable(error))),
            Ok(None) => break,
            Ok(Some(line)) => execute(session, line, &mut printer),
        };
        let Some(result) = result else {
            continue;
        };
        let code = tell(&result, &format!("line {number}: "), errors);
        if session.timing {
            say(errors, &format!("line {number}: {}", took(start)));
        }
        match result {
            Ok(Outcome { leave: true, .. }) => break,
            Ok(_) => said_no |= code != exit::DONE,
            Err(failure) => {
                failed = failed.or(Some(code));
                if stop_on_error || failure.is_final() {
                    break;
                }
            }
        }
    }
    failed.unwrap_or(if said_no { exit::NO } else { exit::DONE })
}

/// Executes one line. `None` if the line is blank or a comment.
fn execute(
    session: &mut Session,
    line: Result<Vec<u8>, UsageError>,
    printer: &mut Printer,
) -> Option<Result<Outcome, Failure>> {
    let error = match line
        .and_then(|line| command::parse_line(&line))
        .transpose()?
    {
        Ok(request) => return Some(session.run(&request, printer)),
        Err(error) => error,
    };
    printer.format = session.format;
    let failure = Failure::Usage(error);
    Some(match printer.failed(failure.kind(), &failure.to_string()) {
        Ok(()) => Err(failure),
        Err(error) => Err(error.into()),
    })
}

/// Reads the next line; `None` at the end of the input. A line that is too long is read to its end
/// and replaced by an error.
fn next_line(input: &mut dyn BufRead) -> io::Result<Option<Result<Vec<u8>, UsageError>>> {
    let mut line = Vec::new();
    let limit = MAX_LINE as u64 + 1;
    if input.take(limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.len() <= MAX_LINE || line.ends_with(b"\n") {
        return Ok(Some(Ok(line)));
    }
    while !line.ends_with(b"\n") {
        line.clear();
        if input.take(limit).read_until(b'\n', &mut line)? == 0 {
            break;
        }
    }
    Ok(Some(Err(UsageError(format!(
        "the line is longer than {MAX_LINE} bytes, the most that a request can take"
    )))))
}

/// Writes to `errors` what the answer does not say and a person must know: a note, or why the
/// command failed. Returns the exit code.
pub(super) fn tell(result: &Result<Outcome, Failure>, before: &str, errors: &mut dyn Write) -> u8 {
    match result {
        Ok(outcome) => {
            if let Some(note) = &outcome.note {
                say(errors, &format!("{before}{note}"));
            }
            outcome.code
        }
        Err(failure) => {
            if failure.code() != exit::DONE {
                say(errors, &format!("{before}{failure}"));
            }
            failure.code()
        }
    }
}

pub(super) fn took(start: Instant) -> String {
    format!("({:.2} ms)", start.elapsed().as_secs_f64() * 1000.0)
}

/// Writes a line to standard error. A failure is ignored: there is no other place to report it.
pub(super) fn say(errors: &mut dyn Write, text: &str) {
    let _ = writeln!(errors, "{text}");
}
