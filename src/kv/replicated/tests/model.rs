//! Random commands, compared with a model that keeps everything in plain maps and searches all of
//! them each time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

pub(super) fn small_limits() -> Limits {
    Limits {
        max_value_bytes: 40,
        max_sessions: 3,
        session_ttl_ms: 100,
        max_in_flight: 4,
        max_session_reply_bytes: 130,
        max_reply_bytes: 350,
        ..Limits::default()
    }
}

struct ModelSession {
    lowest_unanswered: u64,
    replies: BTreeMap<u64, Reply>,
    used: At,
}

#[derive(Default)]
struct Model {
    sessions: BTreeMap<u64, ModelSession>,
    values: BTreeMap<Bytes, Vec<u8>>,
}

fn weight<'a>(replies: impl Iterator<Item = &'a Reply>) -> u64 {
    let payload = |reply: &Reply| match reply {
        Reply::Value(Some(value)) => value.len(),
        Reply::Refused(reason) => reason.len(),
        _ => 0,
    };
    replies.map(|reply| 64 + payload(reply) as u64).sum()
}

impl Model {
    fn all_replies(&self) -> impl Iterator<Item = &Reply> {
        self.sessions
            .values()
            .flat_map(|session| session.replies.values())
    }

    fn displace(&mut self) {
        let (&oldest, _) = self
            .sessions
            .iter()
            .min_by_key(|(_, session)| session.used.index)
            .expect("there is a session to displace");
        self.sessions.remove(&oldest);
    }

    fn apply(&mut self, at: At, command: &Command) -> Reply {
        let limits = small_limits();
        self.sessions
            .retain(|_, session| session.used.time_ms + limits.session_ttl_ms >= at.time_ms);
        match command {
            Command::OpenSession => {
                if self.sessions.len() == limits.max_sessions {
                    self.displace();
                }
                let session = ModelSession {
                    lowest_unanswered: 1,
                    replies: BTreeMap::new(),
                    used: at,
                };
                self.sessions.insert(at.index, session);
                Reply::Opened(at.index)
            }
            Command::CloseSession { session } => match self.sessions.remove(session) {
                Some(_) => Reply::Done,
                None => Reply::NoSession(*session),
            },
            Command::KeepAlive {
                session,
                lowest_unanswered,
            } => match self.use_session(at, *session, *lowest_unanswered) {
                Some(_) => Reply::Done,
                None => Reply::NoSession(*session),
            },
            Command::Execute {
                session,
                seq,
                lowest_unanswered,
                op,
            } => self.execute(at, *session, (*seq, *lowest_unanswered), op),
        }
    }

    fn use_session(&mut self, at: At, id: u64, lowest: u64) -> Option<&mut ModelSession> {
        let session = self.sessions.get_mut(&id)?;
        session.used = at;
        session.lowest_unanswered = session.lowest_unanswered.max(lowest);
        let lowest = session.lowest_unanswered;
        session.replies.retain(|seq, _| *seq >= lowest);
        Some(session)
    }

    fn execute(&mut self, at: At, id: u64, (seq, lowest): (u64, u64), op: &Op) -> Reply {
        let limits = small_limits();
        let Some(session) = self.use_session(at, id, lowest) else {
            return Reply::NoSession(id);
        };
        let lowest = session.lowest_unanswered;
        if seq < lowest {
            return Reply::AnswerDropped;
        }
        if let Some(reply) = session.replies.get(&seq) {
            return reply.clone();
        }
        let kept = weight(session.replies.values());
        if seq > lowest
            && (seq >= lowest + limits.max_in_flight || kept >= limits.max_session_reply_bytes)
        {
            return Reply::TooManyInFlight;
        }
        let reply = self.operate(op);
        let session = self.sessions.get_mut(&id).expect("it was there before");
        session.replies.insert(seq, reply.clone());
        while weight(self.all_replies()) > limits.max_reply_bytes && self.sessions.len() > 1 {
            self.displace();
        }
        reply
    }

    fn operate(&mut self, op: &Op) -> Reply {
        match op {
            Op::Get { key } => Reply::Value(self.values.get(key).cloned().map(Bytes::from)),
            Op::Delete { key } => Reply::Deleted(self.values.remove(key).is_some()),
            Op::Append { key, value } => {
                let mut grown = self.values.get(key).cloned().unwrap_or_default();
                grown.extend_from_slice(value);
                let len = grown.len();
                if len > 40 {
                    return Reply::Refused(format!(
                        "the value after the append has {len} bytes; the limit is 40 \
                         (max_value_bytes)"
                    ));
                }
                self.values.insert(key.clone(), grown);
                Reply::Appended(len as u64)
            }
            _ => unreachable!("the test makes no other operations"),
        }
    }
}

/// A command for one of the latest sessions: `back` is how many sessions were opened after
/// that session.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub wait_ms: u64,
    back: usize,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Open,
    Close,
    KeepAlive(u64),
    Execute(u64, u64, Op),
}

fn an_op() -> impl Strategy<Value = Op> {
    let key = || prop::sample::select(vec!["a", "b"]).prop_map(Bytes::from);
    prop_oneof![
        3 => (key(), prop::sample::select(vec!["x", "yz", "0123456789"]))
            .prop_map(|(key, value)| Op::Append { key, value: value.into() }),
        2 => key().prop_map(|key| Op::Get { key }),
        1 => key().prop_map(|key| Op::Delete { key }),
    ]
}

pub(super) fn a_step(op: impl Strategy<Value = Op>) -> impl Strategy<Value = Step> {
    let execute = (1..12u64, 0..6u64, op)
        .prop_map(|(seq, behind, op)| Kind::Execute(seq, seq.saturating_sub(behind), op));
    let kind = prop_oneof![
        2 => Just(Kind::Open),
        1 => Just(Kind::Close),
        1 => (0..10u64).prop_map(Kind::KeepAlive),
        16 => execute,
    ];
    let wait_ms = prop_oneof![8 => Just(0), 4 => 0..30u64, 1 => 90..110u64];
    (wait_ms, prop_oneof![6 => 0..2usize, 1 => 0..6usize], kind).prop_map(
        |(wait_ms, back, kind)| Step {
            wait_ms,
            back,
            kind,
        },
    )
}

impl Step {
    pub fn command(&self, opened: &[u64]) -> Command {
        let session = opened.iter().rev().nth(self.back).copied().unwrap_or(0);
        match self.kind.clone() {
            Kind::Open => Command::OpenSession,
            Kind::Close => Command::CloseSession { session },
            Kind::KeepAlive(lowest_unanswered) => Command::KeepAlive {
                session,
                lowest_unanswered,
            },
            Kind::Execute(seq, lowest_unanswered, op) => {
                numbered(session, seq, lowest_unanswered, op)
            }
        }
    }
}

proptest! {
    #[test]
    fn sessions_do_what_the_model_does_and_replicas_stay_equal(
        steps in prop::collection::vec(a_step(an_op()), 1..120),
    ) {
        let mut replicas = [Replica::new(small_limits()), Replica::new(small_limits())];
        let mut model = Model::default();
        let mut opened = Vec::new();
        for step in steps {
            let command = step.command(&opened);
            let [reply, same] = replicas.each_mut().map(|replica| {
                replica.at.time_ms += step.wait_ms;
                replica.apply(&command)
            });
            let at = replicas[0].at;
            prop_assert_eq!(&reply, &model.apply(at, &command), "{:?} at {:?}", command, at);
            prop_assert_eq!(&reply, &same);
            prop_assert_eq!(replicas[0].kv.digest(), replicas[1].kv.digest());
            prop_assert_eq!(replicas[0].gauge("sessions"), model.sessions.len() as u64);
            prop_assert_eq!(replicas[0].gauge("replies"), model.all_replies().count() as u64);
            prop_assert_eq!(replicas[0].gauge("reply_bytes"), weight(model.all_replies()));
            if let Reply::Opened(session) = reply {
                opened.push(session);
            }
        }
        for (key, value) in &model.values {
            let key = std::str::from_utf8(key).unwrap();
            let read = replicas[0].read(key);
            prop_assert_eq!(read.as_deref(), Some(&value[..]));
        }
    }

    /// Two clients append words of their own, and each client has several appends in flight. The
    /// network delivers every command that was ever sent, in any order and any number of times.
    #[test]
    fn each_acknowledged_operation_took_effect_exactly_once(
        deliveries in prop::collection::vec(
            (0..2usize, 1..16u64, 0..4u64, prop_oneof![20 => Just(0), 1 => 60..120u64]),
            1..150,
        ),
    ) {
        let limits = Limits { max_value_bytes: 1 << 20, ..small_limits() };
        let mut replica = Replica::new(limits);
        let sessions = [replica.open(), replica.open()];
        let mut answered = BTreeMap::new();
        for (client, seq, behind, wait_ms) in deliveries {
            replica.at.time_ms += wait_ms;
            let value = Bytes::from(format!("<{client}.{seq}>"));
            let op = Op::Append { key: "k".into(), value };
            let lowest_unanswered = seq.saturating_sub(behind);
            let reply = replica.apply(&numbered(sessions[client], seq, lowest_unanswered, op));
            if let Reply::Appended(_) = reply {
                let first = answered.entry((client, seq)).or_insert(reply.clone());
                prop_assert_eq!(&*first, &reply);
            }
        }
        let text = String::from_utf8(replica.read("k").unwrap_or_default().to_vec()).unwrap();
        for client in 0..2 {
            for seq in 1..16 {
                let times = text.matches(&format!("<{client}.{seq}>")).count();
                let expected = usize::from(answered.contains_key(&(client, seq)));
                prop_assert_eq!(times, expected, "{}.{} in {}", client, seq, text);
            }
        }
    }
}
