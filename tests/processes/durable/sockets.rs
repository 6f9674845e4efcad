//! What a node has said on its sockets, and to whom.

use std::collections::HashMap;

use raftkv::wire::client::{Answer, Ask, Request, Response};
use raftkv::wire::handshake::{Caller, Hello, MAGIC};
use raftkv::wire::{codec, frame};

use super::{Command, Trace};
use crate::strace::Call;

/// The bytes of a connection, each way.
#[derive(Default)]
pub struct Socket {
    sent: Stream,
    received: Stream,
}

#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    /// Where the bytes of each call begin, and when the call began.
    calls: Vec<(usize, u64)>,
}

impl Socket {
    pub fn note(&mut self, call: &Call) {
        let stream = match &*call.name {
            "sendto" | "sendmsg" | "write" | "writev" => &mut self.sent,
            _ => &mut self.received,
        };
        stream.calls.push((stream.bytes.len(), call.begin));
        stream.bytes.extend(call.data());
    }

    /// Enters what the node has said here.
    pub fn say(&self, trace: &mut Trace) {
        if let Some(frames) = self.sent.frames(MAGIC.len())
            && self.sent.bytes.starts_with(&MAGIC)
        {
            let envelopes = frames.into_iter().skip(1);
            let envelopes = envelopes.map(|(at, bytes)| (at, codec::decode(bytes).unwrap()));
            trace.sent.extend(envelopes);
            return;
        }
        let Some(asked) = self.received.frames(MAGIC.len()) else {
            return;
        };
        let is_client = |hello: &[u8]| {
            let hello: Hello = codec::decode(hello).unwrap();
            hello.caller == Caller::Client
        };
        if !self.received.bytes.starts_with(&MAGIC) || !is_client(asked[0].1) {
            return;
        }
        let asked = asked.iter().skip(1).map(|(_, bytes)| {
            let request: Request = codec::decode(bytes).unwrap();
            (request.id, request.ask)
        });
        let asked: HashMap<u64, Ask> = asked.collect();
        for (at, bytes) in self.sent.frames(0).into_iter().flatten().skip(1) {
            let response: Response = codec::decode(bytes).unwrap();
            if let (Answer::Reply(_), Ask::Submit(command)) =
                (response.answer, &asked[&response.id])
            {
                trace.answered.push((at, Command::new(command)));
            }
        }
    }
}

impl Stream {
    /// The payloads of the frames from an offset on, each with when the first of its bytes may have
    /// been on its way; `None` if there is none.
    fn frames(&self, mut at: usize) -> Option<Vec<(u64, &[u8])>> {
        let mut frames = Vec::new();
        while let Some(header) = self.bytes.get(at..at + frame::HEADER_LEN) {
            let len = u32::from_le_bytes(*header.first_chunk().unwrap()) as usize;
            let payload = self.bytes[at + frame::HEADER_LEN..].get(..len);
            let Some(payload) = payload else {
                break;
            };
            let call = self.calls.partition_point(|(start, _)| *start <= at) - 1;
            frames.push((self.calls[call].1, payload));
            at += frame::HEADER_LEN + len;
        }
        (!frames.is_empty()).then_some(frames)
    }
}
