//! Ctrl-C: cancels the command that is under way, or ends the program if there is none.
//!
//! At the prompt of the shell, Ctrl-C raises no signal: the line editor reads it as a key.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use super::session::exit;
use crate::client::Canceller;

const IDLE: u8 = 0;
const BUSY: u8 = 1;
const INTERRUPTED: u8 = 2;

/// The state that decides what Ctrl-C does: whether a command is under way, and whether it has been
/// cancelled.
#[derive(Debug)]
pub struct Interrupt {
    state: AtomicU8,
    stays: bool,
}

/// The effect of one Ctrl-C: cancel the command under way, or end the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Cancel,
    End,
}

impl Interrupt {
    /// Makes the state for a single command or a pipe: Ctrl-C cancels the command. Ctrl-C ends the
    /// program if no command is under way, or if the command was already cancelled and still goes
    /// on.
    pub fn that_ends() -> Self {
        Self {
            state: AtomicU8::new(IDLE),
            stays: false,
        }
    }

    /// Makes the state for the shell: Ctrl-C cancels the command under way and never ends the
    /// program.
    pub fn that_stays() -> Self {
        Self {
            stays: true,
            ..Self::that_ends()
        }
    }

    /// Starts the thread that handles Ctrl-C (SIGINT); `canceller` cancels the Clerk's calls.
    ///
    /// # Errors
    /// If the operating system refuses the handler or its thread.
    pub fn handle(self: &Arc<Self>, canceller: Canceller) -> io::Result<()> {
        let mut signals = Signals::new([SIGINT])?;
        let interrupt = Arc::clone(self);
        // The thread is never joined, because it has nothing to finish when the program ends.
        thread::Builder::new()
            .name("interrupt".into())
            .spawn(move || {
                for _ in signals.forever() {
                    match interrupt.advance() {
                        Effect::Cancel => canceller.cancel(),
                        Effect::End => std::process::exit(i32::from(exit::INTERRUPTED)),
                    }
                }
            })?;
        Ok(())
    }

    fn advance(&self) -> Effect {
        let order = Ordering::SeqCst;
        let set = self.state.compare_exchange(BUSY, INTERRUPTED, order, order);
        match set.is_ok() || self.stays {
            true => Effect::Cancel,
            false => Effect::End,
        }
    }

    /// Acts as Ctrl-C does on the command under way.
    #[cfg(test)]
    pub(super) fn press(&self) {
        self.advance();
    }

    /// Notes that a command begins. The command ends when the guard is dropped.
    pub fn begin(&self) -> Busy<'_> {
        self.state.store(BUSY, Ordering::SeqCst);
        Busy(self)
    }

    /// Whether the command under way was cancelled.
    pub fn is_set(&self) -> bool {
        self.state.load(Ordering::SeqCst) == INTERRUPTED
    }
}

/// A guard which says that a command is under way as long as the guard exists.
#[derive(Debug)]
pub struct Busy<'a>(&'a Interrupt);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state.store(IDLE, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_interrupt_cancels_the_command_and_the_next_one_ends_the_program() {
        let interrupt = Interrupt::that_ends();
        assert_eq!(interrupt.advance(), Effect::End);
        let busy = interrupt.begin();
        assert!(!interrupt.is_set());
        assert_eq!(interrupt.advance(), Effect::Cancel);
        assert!(interrupt.is_set());
        assert_eq!(interrupt.advance(), Effect::End);
        drop(busy);
        assert!(!interrupt.is_set());
    }

    #[test]
    fn no_interrupt_ends_a_shell() {
        let interrupt = Interrupt::that_stays();
        assert_eq!(interrupt.advance(), Effect::Cancel);
        let _busy = interrupt.begin();
        assert!(!interrupt.is_set());
        assert_eq!(
            [interrupt.advance(), interrupt.advance()],
            [Effect::Cancel; 2]
        );
        assert!(interrupt.is_set());
    }
}
