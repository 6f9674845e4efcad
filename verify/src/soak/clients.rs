//! The clients of a run: Clerks within this process, and one `kvcli` in a process of its own, which
//! can be frozen.

use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde_json::Value;

use super::history::{Ask, Line, Outcome, Writer};
use super::workload::{Keys, Workload};
use raftkv::client::{Clerk, Error, Kind, Options};
use raftkv::kv::Reply;

/// When a call gives up.
const DEADLINE: Duration = Duration::from_secs(4);
/// How long one server may take.
const ATTEMPT: Duration = Duration::from_millis(400);
/// A client that was refused asks again after this.
const PAUSE: Duration = Duration::from_millis(20);

/// What the clients have done so far.
pub struct History {
    start: Instant,
    state: Mutex<State>,
    answered: Condvar,
    enough: AtomicBool,
}

struct State {
    lines: Vec<Line>,
    writer: Writer,
    failure: Option<io::Error>,
}

impl History {
    pub fn new(writer: Writer) -> Self {
        Self {
            start: Instant::now(),
            state: Mutex::new(State {
                lines: Vec::new(),
                writer,
                failure: None,
            }),
            answered: Condvar::new(),
            enough: AtomicBool::new(false),
        }
    }

    /// Microseconds since the start of the run.
    pub fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// Tells the clients to end.
    pub fn stop(&self) {
        self.enough.store(true, Ordering::SeqCst);
    }

    /// Waits a moment for so many answers to what was asked after `since_us`. Whether they came.
    pub fn answers_since(&self, since_us: u64, wanted: usize, wait: Duration) -> bool {
        let mut state = self.state.lock();
        let enough = |state: &State| {
            let late = state.lines.iter().rev();
            let late = late.take_while(|line| line.returned_us >= since_us);
            let answers = late.filter(|line| line.called_us >= since_us);
            answers.filter(|line| line.outcome.is_answer()).count() >= wanted
        };
        if !enough(&state) {
            self.answered.wait_for(&mut state, wait);
        }
        enough(&state)
    }

    /// Whether the history could be written so far.
    pub fn failure(&self) -> Option<String> {
        let state = self.state.lock();
        state.failure.as_ref().map(io::Error::to_string)
    }

    /// The history.
    ///
    /// # Errors
    /// It could not be written.
    pub fn finish(&self) -> io::Result<Vec<Line>> {
        let mut state = self.state.lock();
        if let Some(error) = state.failure.take() {
            return Err(error);
        }
        state.writer.finish()?;
        Ok(std::mem::take(&mut state.lines))
    }

    /// Has a client ask, and notes what came of it.
    fn ask(&self, client: usize, caller: &mut dyn Caller, ask: Ask) -> Line {
        let called_us = self.now_us();
        let outcome = caller.call(&ask);
        let returned_us = self.now_us();
        let line = Line {
            client,
            called_us,
            returned_us,
            ask,
            outcome,
        };
        let mut state = self.state.lock();
        if let Err(error) = state.writer.add(&line) {
            state.failure.get_or_insert(error);
        }
        state.lines.push(line.clone());
        drop(state);
        self.answered.notify_all();
        line
    }
}

/// Who can be asked.
pub trait Caller: Send {
    /// Asks, and waits for the end.
    fn call(&mut self, ask: &Ask) -> Outcome;
}

/// One client from its start to its end.
pub fn run(client: usize, caller: &mut dyn Caller, keys: &Keys, history: &History, seed: u64) {
    let mut workload = Workload::new(keys, client, seed);
    while !history.enough.load(Ordering::SeqCst) {
        let line = history.ask(client, caller, workload.next());
        workload.ended(&line);
        if !line.outcome.is_answer() {
            thread::sleep(PAUSE);
        }
    }
}

/// Reads every key that ever was, in the end. The error is a sentence.
pub fn read_all(client: usize, clerk: Clerk, keys: &Keys, history: &History) -> Result<(), String> {
    let mut caller = ClerkCaller(clerk);
    for key in keys.all() {
        let line = history.ask(client, &mut caller, Ask::Get { key });
        if !line.outcome.is_answer() {
            return Err(format!("the last reads: {line:?}"));
        }
    }
    Ok(())
}

/// A Clerk within this process.
pub struct ClerkCaller(pub Clerk);

/// Options of a Clerk that is as impatient as the clients of a run.
pub fn options(seed: u64) -> Options {
    Options {
        deadline: DEADLINE,
        attempt_timeout: ATTEMPT,
        seed,
        ..Options::default()
    }
}

impl Caller for ClerkCaller {
    fn call(&mut self, ask: &Ask) -> Outcome {
        let reply = match ask {
            Ask::Get { key } => self.0.get(key).map(Reply::Value),
            other => self.0.execute(other.op()),
        };
        match reply {
            Ok(reply) => answered(ask, reply),
            Err(error) => failed(ask, &error),
        }
    }
}

/// What a reply says, if it is one to this question.
fn answered(ask: &Ask, reply: Reply) -> Outcome {
    let text =
        |value: Option<bytes::Bytes>| value.map(|value| String::from_utf8_lossy(&value).into());
    match (ask, reply) {
        (Ask::Get { .. } | Ask::LoggedGet { .. }, Reply::Value(value)) => {
            Outcome::Value(text(value))
        }
        (Ask::Put { .. }, Reply::Done) => Outcome::Done,
        (Ask::Append { .. }, Reply::Appended(len)) => Outcome::Appended(len),
        (Ask::Delete { .. }, Reply::Deleted(was_there)) => Outcome::Deleted(was_there),
        (Ask::Cas { .. }, Reply::Swapped(Ok(()))) => Outcome::Swapped,
        (Ask::Cas { .. }, Reply::Swapped(Err(present))) => Outcome::Differs(text(present)),
        (_, other) => Outcome::Wrong(format!("answered {other:?}")),
    }
}

fn failed(ask: &Ask, error: &Error) -> Outcome {
    let why = error.to_string();
    match error.kind() {
        // Nothing that these clients ask for passes a limit, and none of them names a server that
        // is not there.
        Kind::No | Kind::Usage => Outcome::Wrong(why),
        _ if matches!(error, Error::BadAnswer(_)) => Outcome::Wrong(why),
        _ if ask.is_read() => Outcome::Unread(why),
        Kind::Unknown => Outcome::Unknown(why),
        Kind::Refused | Kind::Unavailable => Outcome::NotExecuted(why),
    }
}

/// A `kvcli` that gets commands one line at a time, and is started anew when it ends.
pub struct CliCaller<'a> {
    program: PathBuf,
    servers: String,
    /// The process that runs now; 0 if none does. Locked while it is sent a signal and while it is
    /// ended, so that no signal comes too late.
    pid: &'a Mutex<u32>,
    process: Option<Cli>,
}

struct Cli {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl<'a> CliCaller<'a> {
    pub fn new(program: PathBuf, servers: String, pid: &'a Mutex<u32>) -> Self {
        Self {
            program,
            servers,
            pid,
            process: None,
        }
    }

    fn start(&self) -> io::Result<Cli> {
        let mut command = Command::new(&self.program);
        command.args(["--cluster", &self.servers, "-o", "json", "--timeout", "4s"]);
        let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = streams.stderr(Stdio::null()).spawn()?;
        let missing = || io::Error::other("a pipe to kvcli is missing");
        let input = child.stdin.take().ok_or_else(missing)?;
        let output = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        *self.pid.lock() = child.id();
        Ok(Cli {
            child,
            input,
            output,
        })
    }

    fn answer(&mut self, ask: &Ask) -> io::Result<Outcome> {
        let process = match self.process.take() {
            Some(process) => process,
            None => match self.start() {
                Ok(process) => process,
                Err(error) if ask.is_read() => return Ok(Outcome::Unread(error.to_string())),
                Err(error) => return Ok(Outcome::NotExecuted(error.to_string())),
            },
        };
        let process = self.process.insert(process);
        process.input.write_all(command(ask).as_bytes())?;
        let mut line = String::new();
        if process.output.read_line(&mut line)? == 0 {
            return Err(io::Error::other("kvcli ended"));
        }
        Ok(understood(ask, &serde_json::from_str(&line)?))
    }

    fn end(&mut self) {
        let mut pid = self.pid.lock();
        *pid = 0;
        if let Some(mut process) = self.process.take() {
            // It may have ended already.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

impl Caller for CliCaller<'_> {
    fn call(&mut self, ask: &Ask) -> Outcome {
        self.answer(ask).unwrap_or_else(|error| {
            self.end();
            match error.kind() {
                // It has printed a line that is no JSON.
                io::ErrorKind::InvalidData => Outcome::Wrong(error.to_string()),
                _ if ask.is_read() => Outcome::Unread(error.to_string()),
                _ => Outcome::Unknown(error.to_string()),
            }
        })
    }
}

impl Drop for CliCaller<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Keys and values have no characters that the grammar gives a meaning to between quotes.
fn command(ask: &Ask) -> String {
    match ask {
        Ask::Get { key } | Ask::LoggedGet { key } => format!("get \"{key}\"\n"),
        Ask::Put { key, value } => format!("put \"{key}\" \"{value}\"\n"),
        Ask::Append { key, value } => format!("append \"{key}\" \"{value}\"\n"),
        Ask::Delete { key } => format!("delete \"{key}\"\n"),
        Ask::Cas {
            key,
            expected: Some(expected),
            value,
        } => format!("cas \"{key}\" \"{expected}\" \"{value}\"\n"),
        Ask::Cas { key, value, .. } => format!("cas \"{key}\" --missing \"{value}\"\n"),
    }
}

fn understood(ask: &Ask, answer: &Value) -> Outcome {
    let text = || answer["value"].as_str().map(str::to_string);
    if let Some(error) = answer.get("error") {
        let (kind, message) = (&error["kind"], error.to_string());
        let kind = kind.as_str().unwrap_or_default();
        return match kind {
            _ if message.contains("makes no sense") => Outcome::Wrong(message),
            "unavailable" | "unknown" | "interrupted" if ask.is_read() => Outcome::Unread(message),
            "unavailable" => Outcome::NotExecuted(message),
            "unknown" | "interrupted" => Outcome::Unknown(message),
            _ => Outcome::Wrong(message),
        };
    }
    match ask {
        // The answer to a compare-and-swap has a value, too.
        Ask::Get { .. } | Ask::LoggedGet { .. }
            if answer.get("value").is_some() && answer.get("swapped").is_none() =>
        {
            Outcome::Value(text())
        }
        Ask::Put { .. } if answer["ok"] == true => Outcome::Done,
        Ask::Append { .. } if answer["length"].is_u64() => {
            Outcome::Appended(answer["length"].as_u64().unwrap_or_default())
        }
        Ask::Delete { .. } if answer["deleted"].is_u64() => {
            Outcome::Deleted(answer["deleted"] == 1)
        }
        Ask::Cas { .. } if answer["swapped"] == true => Outcome::Swapped,
        Ask::Cas { .. } if answer["swapped"] == false => Outcome::Differs(text()),
        _ => Outcome::Wrong(format!("answered {answer}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks() -> [Ask; 6] {
        let key = || "k".to_string();
        let value = || "v".to_string();
        [
            Ask::Get { key: key() },
            Ask::LoggedGet { key: key() },
            Ask::Put {
                key: key(),
                value: value(),
            },
            Ask::Append {
                key: key(),
                value: value(),
            },
            Ask::Delete { key: key() },
            Ask::Cas {
                key: key(),
                expected: None,
                value: value(),
            },
        ]
    }

    /// For each kind of answer the questions that it answers, by their places above.
    #[test]
    fn an_answer_to_another_question_is_wrong_and_not_unknown() {
        let replies: [(Reply, &[usize]); 8] = [
            (Reply::Value(None), &[0, 1]),
            (Reply::Done, &[2]),
            (Reply::Appended(1), &[3]),
            (Reply::Deleted(true), &[4]),
            (Reply::Swapped(Ok(())), &[5]),
            (Reply::Swapped(Err(None)), &[5]),
            (Reply::Opened(7), &[]),
            (Reply::Refused("no".into()), &[]),
        ];
        for (reply, fits) in replies {
            for (place, ask) in asks().iter().enumerate() {
                let outcome = answered(ask, reply.clone());
                let is_wrong = matches!(outcome, Outcome::Wrong(_));
                assert_ne!(is_wrong, fits.contains(&place), "{ask:?}: {outcome:?}");
            }
        }
    }

    #[test]
    fn a_line_of_kvcli_that_answers_another_question_is_wrong() {
        for (line, fits) in [
            (r#"{"value":"v"}"#, &[0, 1][..]),
            (r#"{"ok":true}"#, &[2]),
            (r#"{"length":3}"#, &[3]),
            (r#"{"deleted":1}"#, &[4]),
            (r#"{"swapped":false,"value":null}"#, &[5]),
            (r#"{}"#, &[]),
            (r#"{"error":{"kind":"no","message":"too large"}}"#, &[]),
            (r#"{"error":{"kind":"usage","message":"?"}}"#, &[]),
        ] {
            let answer = serde_json::from_str(line).unwrap();
            for (place, ask) in asks().iter().enumerate() {
                let outcome = understood(ask, &answer);
                let is_wrong = matches!(outcome, Outcome::Wrong(_));
                assert_ne!(is_wrong, fits.contains(&place), "{ask:?}: {outcome:?}");
            }
        }
    }

    #[test]
    fn what_fails_is_unknown_unread_or_not_executed_but_not_wrong() {
        let unavailable = Error::Unavailable {
            asked: Vec::new(),
            waited: DEADLINE,
        };
        let unknown = Error::Unknown {
            asked: Vec::new(),
            waited: DEADLINE,
        };
        let nonsense = Error::BadAnswer("done to a get".into());
        for ask in asks() {
            let of = |error: &Error| failed(&ask, error);
            assert!(matches!(of(&nonsense), Outcome::Wrong(_)));
            match ask.is_read() {
                true => assert!(matches!(of(&unavailable), Outcome::Unread(_))),
                false => {
                    assert!(matches!(of(&unavailable), Outcome::NotExecuted(_)));
                    assert!(matches!(of(&unknown), Outcome::Unknown(_)));
                }
            }
        }
    }
}
