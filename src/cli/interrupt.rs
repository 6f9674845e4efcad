//! Ctrl-C: cancels what is under way, and ends the program where nothing is.
//!
//! At the prompt of the shell the terminal hands Ctrl-C to the line editor instead.

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

/// Whether a command is under way, and whether it has been asked to end.
#[derive(Debug, Default)]
pub struct Interrupt {
    state: AtomicU8,
}

impl Interrupt {
    /// From now on SIGINT cancels the command that is under way. When none is, or when the second
    /// one comes because the first was not enough, it ends the program.
    ///
    /// # Errors
    /// If the system refuses the handler or its thread.
    pub fn handle(self: &Arc<Self>, canceller: Canceller) -> io::Result<()> {
        let mut signals = Signals::new([SIGINT])?;
        let interrupt = Arc::clone(self);
        // Lives as long as the program: it has nothing to finish.
        thread::Builder::new()
            .name("interrupt".into())
            .spawn(move || {
                for _ in signals.forever() {
                    match interrupt.advance() {
                        true => canceller.cancel(),
                        false => std::process::exit(i32::from(exit::INTERRUPTED)),
                    }
                }
            })?;
        Ok(())
    }

    /// Whether there is a command to cancel that has not been cancelled yet.
    fn advance(&self) -> bool {
        self.state
            .compare_exchange(BUSY, INTERRUPTED, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// A command begins; it ends when the guard goes.
    pub fn begin(&self) -> Busy<'_> {
        self.state.store(BUSY, Ordering::SeqCst);
        Busy(self)
    }

    /// Whether the command under way is to end.
    pub fn is_set(&self) -> bool {
        self.state.load(Ordering::SeqCst) == INTERRUPTED
    }
}

/// While it lives, a command is under way.
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
        let interrupt = Interrupt::default();
        assert!(!interrupt.advance());
        let busy = interrupt.begin();
        assert!(!interrupt.is_set());
        assert!(interrupt.advance());
        assert!(interrupt.is_set());
        assert!(!interrupt.advance());
        drop(busy);
        assert!(!interrupt.is_set());
        assert!(!interrupt.advance());
    }
}
