//! A `kvnode` process whose log can be waited for.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How long a process may take for whatever a test waits for. Far longer than it ever needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running program. Dropped, it is killed.
pub struct Process {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

/// What the program has written to standard error so far.
#[derive(Default)]
struct Log {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

/// How a program ended.
#[derive(Debug)]
pub struct End {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard error.
    pub lines: Vec<String>,
}

impl Process {
    /// Starts a program with nothing on its standard input.
    pub fn spawn(command: &mut Command) -> Self {
        Self::spawn_with_input(command.stdin(Stdio::null()))
    }

    /// Starts a program whose standard input is set already.
    pub fn spawn_with_input(command: &mut Command) -> Self {
        let streams = command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = streams.spawn().unwrap();
        let errors = child.stderr.take().unwrap();
        let log = Arc::new(Log::default());
        let reader = thread::spawn({
            let log = log.clone();
            move || {
                for line in BufReader::new(errors).lines() {
                    log.state.lock().lines.push(line.unwrap());
                    log.changed.notify_all();
                }
                log.state.lock().ended = true;
                log.changed.notify_all();
            }
        });
        Self {
            child,
            log,
            reader: Some(reader),
        }
    }

    /// Waits until a line of the log contains `what`, and returns the first that does. `None` if
    /// the process ended without it.
    pub fn line_or_end(&self, what: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.log.state.lock();
        loop {
            if let Some(line) = state.lines.iter().find(|line| line.contains(what)) {
                return Some(line.clone());
            }
            if state.ended {
                return None;
            }
            let late = self.log.changed.wait_until(&mut state, deadline);
            assert!(!late.timed_out(), "no {what:?} in {:#?}", state.lines);
        }
    }

    /// Waits until a line of the log contains `what`, and returns the first that does.
    pub fn line(&self, what: &str) -> String {
        let line = self.line_or_end(what);
        line.unwrap_or_else(|| panic!("it ended without {what:?}: {:#?}", self.lines()))
    }

    /// The log so far.
    pub fn lines(&self) -> Vec<String> {
        self.log.state.lock().lines.clone()
    }

    /// Sends a signal by its name: TERM, STOP, CONT.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let kill = ["-c", "kill -\"$0\" \"$1\"", name, &pid];
        let status = Command::new("sh").args(kill).status().unwrap();
        assert!(status.success(), "cannot send SIG{name} to {pid}");
    }

    /// Ends the process as a crash would: SIGKILL. Returns at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Waits until the process has ended.
    pub fn end(mut self) -> End {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.log.state.lock();
        while !state.ended {
            let late = self.log.changed.wait_until(&mut state, deadline);
            assert!(!late.timed_out(), "it does not end: {:#?}", state.lines);
        }
        let lines = std::mem::take(&mut state.lines);
        drop(state);
        End {
            code: self.child.wait().unwrap().code(),
            lines,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
