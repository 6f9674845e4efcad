//! Expired sessions count as gone, whether or not a replica has removed them from memory.

use super::*;

#[test]
fn many_sessions_that_expire_at_once_are_cleared_away_by_and_by_and_nobody_can_tell() {
    let ttl_ms = Limits::default().session_ttl_ms;
    let mut replica = Replica::new(Limits::default());
    let expired: Vec<u64> = (0..1000).map(|_| replica.open()).collect();
    for (session, text) in expired.iter().zip(["a", "b", "c"].iter().cycle()) {
        replica.apply(&numbered(*session, 1, 1, append(text)));
    }
    replica.at.time_ms += ttl_ms / 2;
    let live = replica.open();
    replica.at.time_ms += ttl_ms / 2 + 1;
    replica.apply(&numbered(live, 1, 1, append("d")));
    let left = replica.gauge("sessions");
    assert!((900..1000).contains(&left), "one command has left {left}");

    // Compare the replica with one that is restored from its snapshot, which contains no expired
    // session: both must give the same reply to each command.
    for (turn, session) in (0..).zip(expired.iter().rev().chain([&live])) {
        let bytes = snapshots::written(&replica.kv);
        let kv = snapshots::restored(Limits::default(), &bytes).unwrap();
        assert!(kv.sessions.len() <= 201, "it has expired ones");
        assert_eq!(kv.digest(), replica.kv.digest());
        let mut other = Replica { kv, at: replica.at };
        let command = match turn % 5 {
            0 => Command::CloseSession { session: *session },
            1 => Command::OpenSession,
            2 => Command::KeepAlive {
                session: *session,
                lowest_unanswered: 1,
            },
            _ => numbered(*session, 1, 1, get()),
        };
        let reply = replica.apply(&command);
        assert_eq!(other.apply(&command), reply, "to {command:?}");
        assert_eq!(
            snapshots::written(&other.kv),
            snapshots::written(&replica.kv)
        );
        if turn % 5 != 1 && *session != live {
            assert_eq!(reply, Reply::NoSession(*session));
        }
    }
    assert!(
        replica.gauge("sessions") <= 201,
        "they are never cleared away"
    );
}

#[test]
fn sessions_that_have_expired_make_room_before_any_that_lives() {
    let limits = Limits {
        max_sessions: 200,
        max_session_reply_bytes: 20_000,
        max_reply_bytes: 20_000,
        ..Limits::default()
    };
    let ttl_ms = limits.session_ttl_ms;
    let mut replica = Replica::new(limits);
    let live: Vec<u64> = (0..50).map(|_| replica.open()).collect();
    let expired: Vec<u64> = (0..150).map(|_| replica.open()).collect();
    for session in &expired {
        replica.apply(&numbered(*session, 1, 1, append("a")));
    }
    replica.at.time_ms += ttl_ms;
    for session in &live {
        replica.apply(&numbered(*session, 1, 1, append("b")));
    }
    // Now the 150 unused sessions expire. The commands below reach both limits before the expired
    // sessions are removed from memory.
    replica.at.time_ms += 1;
    let value = Bytes::from(vec![b'x'; 16_000]);
    let put = Op::Put {
        key: "large".into(),
        value,
    };
    let large = Op::Get {
        key: "large".into(),
    };
    replica.apply(&numbered(live[0], 2, 2, put));
    replica.apply(&numbered(live[0], 3, 3, large));
    assert!(replica.gauge("reply_bytes") <= 20_000);
    let opened: Vec<u64> = (0..150).map(|_| replica.open()).collect();
    for session in live.iter().chain(&opened) {
        let keep_alive = Command::KeepAlive {
            session: *session,
            lowest_unanswered: 1,
        };
        assert_eq!(replica.apply(&keep_alive), Reply::Done);
    }
    assert_eq!(replica.gauge("sessions"), 200);
}
