//! The limits of the store, and the check that enforces them before a command enters the Raft log.

use super::command::{CommandOf, OpOf};

/// The largest command or reply, in bytes. The largest payload of a frame has room for it and for
/// the other fields of a request or a response.
pub const MAX_MESSAGE: usize = 17 << 20;

/// The limits of the store. All nodes of a cluster must have the same limits, because the result of
/// a command depends on them: with different limits, replicas would diverge.
///
/// ```
/// use raftkv::kv::Limits;
///
/// let limits = Limits { max_value_bytes: 1 << 20, ..Limits::default() };
/// assert!(limits.validate().is_ok());
///
/// let limits = Limits { max_value_bytes: 1 << 30, ..Limits::default() };
/// assert!(limits.validate().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a key may be, in bytes.
    pub max_key_bytes: usize,
    /// The longest value, in bytes. It also bounds a value that grows by appends.
    pub max_value_bytes: usize,
    /// How many sessions there may be in the cluster. Opening one more ends the least recently used
    /// session.
    pub max_sessions: usize,
    /// How long a session lives without being used, in milliseconds of cluster time.
    pub session_ttl_ms: u64,
    /// How many operations of one session can be in flight: its sequence numbers must be less than
    /// its lowest unanswered number plus this.
    pub max_in_flight: u64,
    /// How many bytes of replies are kept for one session. Once a session keeps this many, only its
    /// lowest unanswered operation is executed; its other operations are refused until the client
    /// raises its lowest unanswered number.
    pub max_session_reply_bytes: u64,
    /// How many bytes of replies are kept for all sessions together. If they keep more, the least
    /// recently used sessions end.
    pub max_reply_bytes: u64,
    /// How many items one page of a scan may have.
    pub max_scan_items: usize,
    /// How many bytes of keys and values one page of a scan may have. A page of one item may be
    /// larger.
    pub max_scan_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_key_bytes: 64 << 10,
            max_value_bytes: 8 << 20,
            max_sessions: 65_536,
            session_ttl_ms: 60 * 60 * 1000,
            max_in_flight: 1024,
            max_session_reply_bytes: 16 << 20,
            max_reply_bytes: 256 << 20,
            max_scan_items: 10_000,
            max_scan_bytes: 8 << 20,
        }
    }
}

/// Why these limits cannot be used together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// One of the limits is zero, so that nothing could pass it.
    #[error("{0} is 0; it must be at least 1")]
    Zero(&'static str),
    /// The limits admit a command or a page that would not fit into one message.
    #[error(
        "{what} could take up {bytes} bytes, more than the {MAX_MESSAGE} that a message may have; \
         lower {lower}"
    )]
    Message {
        /// What the message that would not fit contains.
        what: &'static str,
        /// The largest size that this message could have, in bytes.
        bytes: usize,
        /// The limits that this size depends on: one of them has to be lowered.
        lower: &'static str,
    },
    /// The limit on kept replies of one session is above the limit for all sessions together.
    #[error("max_session_reply_bytes is larger than max_reply_bytes; it must be at most as large")]
    SessionOverAll,
}

impl Limits {
    /// Checks that these limits do not contradict each other, and that every message within them
    /// fits into a frame.
    ///
    /// # Errors
    /// [`LimitsError`] names the limit to change.
    pub fn validate(&self) -> Result<(), LimitsError> {
        let zero = self.named().into_iter().find(|(_, value)| *value == 0);
        if let Some((name, _)) = zero {
            return Err(LimitsError::Zero(name));
        }
        if self.max_session_reply_bytes > self.max_reply_bytes {
            return Err(LimitsError::SessionOverAll);
        }
        // The largest command is a compare-and-swap: a key and two values. The largest page is one
        // item, or `max_scan_bytes` of items, and the key where the next page starts. An item's two
        // length fields take 5 bytes each. 64 bytes are enough for all other fields.
        let (key, value) = (self.max_key_bytes, self.max_value_bytes);
        let command = value.saturating_mul(2).saturating_add(key);
        let page = key
            .saturating_add(value)
            .max(self.max_scan_bytes)
            .saturating_add(key)
            .saturating_add(self.max_scan_items.saturating_mul(10));
        for (what, bytes, lower) in [
            (
                "a compare-and-swap of the largest values",
                command,
                "max_value_bytes or max_key_bytes",
            ),
            (
                "a page of a scan",
                page,
                "max_scan_bytes, max_scan_items, max_value_bytes or max_key_bytes",
            ),
        ] {
            let bytes = bytes.saturating_add(64);
            if bytes > MAX_MESSAGE {
                return Err(LimitsError::Message { what, bytes, lower });
            }
        }
        Ok(())
    }

    /// All limits with their names, from which the machine's identity is made.
    pub(super) fn named(&self) -> [(&'static str, u64); 9] {
        let Self {
            max_key_bytes,
            max_value_bytes,
            max_sessions,
            session_ttl_ms,
            max_in_flight,
            max_session_reply_bytes,
            max_reply_bytes,
            max_scan_items,
            max_scan_bytes,
        } = *self;
        [
            ("max_key_bytes", max_key_bytes as u64),
            ("max_value_bytes", max_value_bytes as u64),
            ("max_sessions", max_sessions as u64),
            ("session_ttl_ms", session_ttl_ms),
            ("max_in_flight", max_in_flight),
            ("max_session_reply_bytes", max_session_reply_bytes),
            ("max_reply_bytes", max_reply_bytes),
            ("max_scan_items", max_scan_items as u64),
            ("max_scan_bytes", max_scan_bytes as u64),
        ]
    }

    /// Returns these limits, but with the limit called `name` set to `value`. `None` if there is no
    /// limit of this name, or if the value does not fit its type.
    pub(super) fn with(mut self, name: &str, value: u64) -> Option<Self> {
        let size = usize::try_from(value).ok()?;
        match name {
            "max_key_bytes" => self.max_key_bytes = size,
            "max_value_bytes" => self.max_value_bytes = size,
            "max_sessions" => self.max_sessions = size,
            "session_ttl_ms" => self.session_ttl_ms = value,
            "max_in_flight" => self.max_in_flight = value,
            "max_session_reply_bytes" => self.max_session_reply_bytes = value,
            "max_reply_bytes" => self.max_reply_bytes = value,
            "max_scan_items" => self.max_scan_items = size,
            "max_scan_bytes" => self.max_scan_bytes = size,
            _ => return None,
        }
        Some(self)
    }

    /// Decodes a command and checks everything about it that does not depend on the state. The gate
    /// calls this before a command enters the log, and the store calls it again when the command is
    /// applied: with the same function and the same limits in both places, the log never holds a
    /// command that cannot be applied.
    ///
    /// # Errors
    /// A sentence for the person who sent the command.
    pub(super) fn admit<'a>(&self, bytes: &'a [u8]) -> Result<CommandOf<&'a [u8]>, String> {
        let command = CommandOf::decode(bytes)
            .map_err(|error| format!("this is not a command of the store: {error}"))?;
        if let CommandOf::Execute {
            seq,
            lowest_unanswered,
            op,
            ..
        } = &command
        {
            check_seq(*seq, *lowest_unanswered)?;
            self.check_op(op)?;
        }
        Ok(command)
    }

    fn check_op(&self, op: &OpOf<&[u8]>) -> Result<(), String> {
        match op {
            OpOf::Get { key } | OpOf::Delete { key } => self.check_key(key),
            OpOf::Put { key, value } => {
                self.check_key(key)?;
                self.check_value("the value", value.len())
            }
            OpOf::Append { key, value } => {
                self.check_key(key)?;
                self.check_value("the value to append", value.len())
            }
            OpOf::Cas {
                key,
                expected,
                value,
            } => {
                self.check_key(key)?;
                self.check_value("the expected value", expected.map_or(0, <[u8]>::len))?;
                self.check_value("the value", value.len())
            }
        }
    }

    /// Refuses a key that is too long, and the empty key: an empty key is nearly always a variable
    /// that was not set, and as the start of a scan it means "from the first key".
    pub(super) fn check_key(&self, key: &[u8]) -> Result<(), String> {
        self.check_key_len(key.len())
    }

    pub(super) fn check_key_len(&self, len: usize) -> Result<(), String> {
        match len {
            0 => Err("the key is empty; a key has at least one byte".into()),
            len if len <= self.max_key_bytes => Ok(()),
            len => Err(format!(
                "the key has {len} bytes; the limit is {} (max_key_bytes)",
                self.max_key_bytes
            )),
        }
    }

    pub(super) fn check_value(&self, what: &str, len: usize) -> Result<(), String> {
        if len <= self.max_value_bytes {
            return Ok(());
        }
        Err(format!(
            "{what} has {len} bytes; the limit is {} (max_value_bytes)",
            self.max_value_bytes
        ))
    }
}

/// Checks the numbers of an operation: `1 <= seq` and `lowest_unanswered <= seq`. With a higher
/// `lowest_unanswered`, the command would drop its own reply.
fn check_seq(seq: u64, lowest_unanswered: u64) -> Result<(), String> {
    if seq == 0 {
        return Err("the sequence number is 0; the first one of a session is 1".into());
    }
    if lowest_unanswered > seq {
        return Err(format!(
            "the lowest unanswered sequence number, {lowest_unanswered}, is above that of the \
             command itself, {seq}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Command, Op};

    fn execute(op: Op) -> Command {
        Command::Execute {
            session: 1,
            seq: 1,
            lowest_unanswered: 1,
            op,
        }
    }

    fn gate(command: &Command) -> Result<(), String> {
        Limits::default().admit(&command.to_bytes()).map(drop)
    }

    fn refusal(op: Op) -> String {
        gate(&execute(op)).expect_err("the gate must refuse this")
    }

    #[test]
    fn what_is_too_large_is_refused_with_its_size_and_the_limit() {
        let key = |len| vec![b'k'; len].into();
        let value = |len| vec![b'v'; len].into();
        let put = |key, value| Op::Put { key, value };
        assert_eq!(gate(&execute(put(key(64 << 10), value(8 << 20)))), Ok(()));
        assert_eq!(
            refusal(put(key(65_537), value(0))),
            "the key has 65537 bytes; the limit is 65536 (max_key_bytes)"
        );
        assert_eq!(
            refusal(put(key(1), value(9_000_000))),
            "the value has 9000000 bytes; the limit is 8388608 (max_value_bytes)"
        );
        let append = Op::Append {
            key: key(1),
            value: value(9_000_000),
        };
        assert!(refusal(append).starts_with("the value to append has 9000000 bytes"));
        let cas = Op::Cas {
            key: key(1),
            expected: Some(value(9_000_000)),
            value: value(1),
        };
        assert!(refusal(cas).starts_with("the expected value has 9000000 bytes"));
        for op in [
            Op::Get { key: key(65_537) },
            Op::Delete { key: key(65_537) },
        ] {
            assert!(refusal(op).starts_with("the key has 65537 bytes"));
        }
    }

    #[test]
    fn an_empty_key_is_refused() {
        let key = bytes::Bytes::new;
        assert!(refusal(Op::Get { key: key() }).contains("the key is empty"));
        assert!(refusal(Op::Delete { key: key() }).contains("the key is empty"));
        let value = bytes::Bytes::new();
        assert!(refusal(Op::Put { key: key(), value }).contains("the key is empty"));
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let numbered = |seq, lowest_unanswered| Command::Execute {
            session: 1,
            seq,
            lowest_unanswered,
            op: Op::Get { key: "k".into() },
        };
        assert!(gate(&numbered(0, 0)).unwrap_err().contains("is 0"));
        assert!(gate(&numbered(3, 4)).unwrap_err().contains("4, is above"));
        assert_eq!(gate(&numbered(3, 3)), Ok(()));
        assert_eq!(gate(&numbered(3, 0)), Ok(()));
    }

    #[test]
    fn nothing_passes_that_does_not_decode() {
        let limits = Limits::default();
        let whole = execute(Op::Cas {
            key: "k".into(),
            expected: Some("old".into()),
            value: "new".into(),
        })
        .to_bytes();
        for len in 0..whole.len() {
            assert!(limits.admit(&whole[..len]).is_err(), "{len} bytes");
        }
        assert!(limits.admit(&whole).is_ok());
        assert!(limits.admit(&[&whole[..], b"!"].concat()).is_err());
        assert!(limits.admit(&[99]).is_err());
    }

    #[test]
    fn limits_that_cannot_work_are_told_by_name() {
        let zero = Limits {
            max_in_flight: 0,
            ..Limits::default()
        };
        assert_eq!(
            zero.validate().unwrap_err().to_string(),
            "max_in_flight is 0; it must be at least 1"
        );
        let large = Limits {
            max_value_bytes: 9 << 20,
            ..Limits::default()
        };
        let error = large.validate().unwrap_err().to_string();
        assert!(error.contains("compare-and-swap") && error.contains("lower max_value_bytes"));
        let page = Limits {
            max_scan_bytes: 17 << 20,
            ..Limits::default()
        };
        assert!(
            page.validate()
                .unwrap_err()
                .to_string()
                .contains("a page of a scan")
        );
        let over = Limits {
            max_reply_bytes: 1,
            ..Limits::default()
        };
        assert_eq!(over.validate(), Err(LimitsError::SessionOverAll));
        assert_eq!(Limits::default().validate(), Ok(()));
    }
}
