//! An accepted connection of a client, on which the node receives requests and sends responses.

use std::sync::Arc;

use super::input::Input;
use super::protocol::{Close, Next, Protocol, Stage, Turn};
use super::reply::{Client, ReplyTo};
use crate::wire::client::Request;

/// Passes a client's requests to the service. Stops while the client is throttled because too many
/// of its requests or answers are under way.
pub(super) struct ClientSide {
    client: Arc<Client>,
}

impl ClientSide {
    pub(super) fn new(turn: &Turn<'_>) -> Self {
        let client = Client::new(turn.outlet, turn.local);
        Self {
            client: Arc::new(client),
        }
    }
}

impl Protocol for ClientSide {
    fn on_bytes(&mut self, input: &mut Input, turn: &mut Turn<'_>) -> Result<Next, Close> {
        while turn.messages_left > 0 {
            if self.client.must_wait() {
                return Ok(Next::Suspend);
            }
            let Some(request) = input.next::<Request>("request")? else {
                return Ok(Next::Read);
            };
            self.client.knows(request.known);
            let reply = ReplyTo::new(&self.client, request.id);
            turn.count_message();
            turn.service.request(request, reply);
        }
        Ok(Next::Yield)
    }

    fn stage(&self) -> Stage {
        Stage::Client
    }
}
