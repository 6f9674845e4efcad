//! A program in a process of its own, for whose log a test can wait.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// How long a program may take until it writes a line or ends. It is far longer than a program ever
/// needs, so a wait that takes this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running program. Dropping it kills it.
pub struct Process {
    child: Child,
    errors: Arc<SharedErrors>,
    reader: Option<JoinHandle<()>>,
}

/// How a program has ended.
#[derive(Debug)]
pub struct End {
    /// Its exit code, or the signal that has ended it.
    pub status: ExitStatus,
    /// The lines of its standard error.
    pub lines: Vec<String>,
}

#[derive(Default)]
struct SharedErrors {
    state: Mutex<Errors>,
    changed: Condvar,
}

/// What a program has written to its standard error so far.
#[derive(Default)]
struct Errors {
    lines: Vec<String>,
    /// The program has closed it, so it has ended.
    closed: bool,
}

impl Process {
    /// Starts a program. Its standard output is thrown away; its standard input is what the command
    /// says.
    ///
    /// # Errors
    /// If the system refuses the process or a thread.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Self::spawn_with_log(command, None)
    }

    /// As [`spawn`](Self::spawn). The lines of the standard error go to a file as well.
    pub(super) fn spawn_with_log(command: &mut Command, log: Option<File>) -> io::Result<Self> {
        let streams = command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = streams.spawn()?;
        let pipe = child.stderr.take();
        // From here on the child is killed if an error ends this function.
        let mut process = Self {
            child,
            errors: Arc::default(),
            reader: None,
        };
        let errors = process.errors.clone();
        let reader = thread::Builder::new().name("process-log".into());
        let reader = reader.spawn(move || errors.read(pipe, log))?;
        process.reader = Some(reader);
        Ok(process)
    }

    /// Waits until a line of the standard error contains `what`, and returns the first that does.
    ///
    /// # Panics
    /// If the program ends without such a line, or writes none for a long time.
    pub fn line(&self, what: &str) -> String {
        let line = self.line_if_any(what);
        line.unwrap_or_else(|| panic!("there is no {what:?} in {:#?}", self.lines()))
    }

    /// As [`line`](Self::line), but returns `None` where that panics.
    pub(super) fn line_if_any(&self, what: &str) -> Option<String> {
        let find = |errors: &Errors| {
            let found = errors.lines.iter().find(|line| line.contains(what));
            found.cloned()
        };
        let is_over = |errors: &Errors| errors.closed || find(errors).is_some();
        find(&self.errors.wait(is_over))
    }

    /// The lines of the standard error so far.
    pub fn lines(&self) -> Vec<String> {
        self.errors.state.lock().lines.clone()
    }

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the process a signal by its name, such as TERM, STOP or CONT.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn signal(&self, name: &str) -> io::Result<()> {
        signal(self.child.id(), name)
    }

    /// Ends the process as a crash would, by SIGKILL, and returns at once.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }

    /// Whether the process has ended. If it has, the system may give its id to another process: so
    /// no signal must be sent any more.
    pub(super) fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// If it does not end for a long time; then it is killed.
    pub fn end(mut self) -> io::Result<End> {
        let mut errors = self.errors.wait(|errors| errors.closed);
        if !errors.closed {
            let last = errors.lines.last().cloned().unwrap_or_default();
            drop(errors);
            let message = format!("it has not ended within {PATIENCE:?}; its last line: {last}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        let lines = std::mem::take(&mut errors.lines);
        drop(errors);
        let status = self.child.wait()?;
        Ok(End { status, lines })
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

impl SharedErrors {
    fn read(&self, pipe: Option<impl Read>, mut log: Option<File>) {
        let lines = pipe.map(|pipe| BufReader::new(pipe).split(b'\n'));
        for line in lines.into_iter().flatten().map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some(log) = &mut log {
                // The file is for people. If it cannot be written, a test still has the lines.
                let _ = writeln!(log, "{line}");
            }
            self.state.lock().lines.push(line);
            self.changed.notify_all();
        }
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits until `holds` returns true, but not for ever.
    fn wait(&self, holds: impl Fn(&Errors) -> bool) -> MutexGuard<'_, Errors> {
        let deadline = Instant::now() + PATIENCE;
        let mut errors = self.state.lock();
        while !holds(&errors) {
            if self.changed.wait_until(&mut errors, deadline).timed_out() {
                break;
            }
        }
        errors
    }
}

/// Sends a process a signal by its name, such as TERM, STOP or CONT.
///
/// # Errors
/// If the system refuses it.
pub fn signal(pid: u32, name: &str) -> io::Result<()> {
    let kill = ["-c", "kill -\"$0\" \"$1\"", name, &pid.to_string()];
    match Command::new("sh").args(kill).status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "cannot send SIG{name} to process {pid}"
        ))),
    }
}
