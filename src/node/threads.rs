//! The threads of a node. No thread decides anything: each carries inputs to the replica and acts
//! on their consequences.

use std::sync::Arc;

use super::hub::Hub;
use super::sync::Mutex;
use super::sync::thread::{self, JoinHandle, ThreadId};
use super::{NodeError, StartError};
use crate::machine::StateMachine;

/// Starts a named thread, which stops the node if it ends by an error or a panic.
fn spawn<S: StateMachine>(
    name: &'static str,
    hub: &Arc<Hub<S>>,
    run: impl FnOnce(&Arc<Hub<S>>) -> Result<(), NodeError> + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let hub = hub.clone();
    let body = move || {
        let _guard = StopOnPanic(&hub, name);
        if let Err(error) = run(&hub) {
            hub.stop(Some(error));
        }
    };
    let thread = thread::Builder::new().name(name.to_string());
    thread.spawn(body).map_err(StartError::Thread)
}

struct StopOnPanic<'a, S: StateMachine>(&'a Arc<Hub<S>>, &'static str);

impl<S: StateMachine> Drop for StopOnPanic<'_, S> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop(Some(NodeError::Panicked(self.1)));
        }
    }
}

/// The threads of a node, for whose end [`join`](Self::join) waits.
#[derive(Default)]
pub(super) struct Threads {
    ids: Vec<ThreadId>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Starts one more thread; see [`spawn`].
    pub fn start<S: StateMachine>(
        &mut self,
        name: &'static str,
        hub: &Arc<Hub<S>>,
        run: impl FnOnce(&Arc<Hub<S>>) -> Result<(), NodeError> + Send + 'static,
    ) -> Result<(), StartError> {
        let thread = spawn(name, hub, run)?;
        self.ids.push(thread.thread().id());
        self.running.lock().push(thread);
        Ok(())
    }

    /// Waits until all threads have ended, also if several callers wait at the same time. A thread
    /// of the node itself does not wait: it would wait for its own end.
    pub fn join(&self) {
        if self.ids.contains(&thread::current().id()) {
            return;
        }
        for thread in self.running.lock().drain(..) {
            // A thread that panicked has reported the panic itself.
            let _ = thread.join();
        }
    }
}
