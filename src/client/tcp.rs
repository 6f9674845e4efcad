//! Requests over TCP.

use std::time::Duration;

use super::transport::{CallError, Stop, Transport};
use crate::wire::client::{Answer, Ask};

/// One connection per server.
pub struct Tcp {
    cluster: String,
}

impl Tcp {
    /// Connects on demand. `cluster` is the name of the cluster that must answer; empty: any.
    pub fn new(cluster: String) -> Self {
        Tcp { cluster }
    }
}

impl Transport for Tcp {
    fn call(
        &self,
        _server: &str,
        _ask: &Ask,
        _timeout: Duration,
        _stop: &Stop,
    ) -> Result<Answer, CallError> {
        Err(CallError::NotSent(self.cluster.clone()))
    }
}
