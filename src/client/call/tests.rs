//! Tests of one call that gets given sequences of answers. The servers are `a:1`, `b:1` and `c:1`.
//! In a trace, `a` means an attempt at `a:1`, and `-` means a pause.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::client::error::Kind;
use crate::raft::RoleName;
use crate::wire::client::Doubt;
use crate::wire::members::MemberList;

type Answered = Result<Answer, CallError>;

const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(10);

fn routes() -> Routes {
    Routes::new(["a:1", "b:1", "c:1"], 7).unwrap()
}

fn reply(reply: Reply) -> Answered {
    Ok(Answer::Reply(codec::to_bytes(&reply)))
}

fn not_leader(hint: Option<&str>) -> Answered {
    Ok(Answer::NotLeader(NotLeader {
        id: 1,
        role: RoleName::Follower,
        term: 7,
        leader: hint.map(|address| (2, address.to_string())),
    }))
}

fn not_sent() -> Answered {
    Err(CallError::NotSent("connection refused".into()))
}

fn lost() -> Answered {
    Err(CallError::Lost("reset".into()))
}

fn busy() -> Answered {
    Ok(Answer::Busy)
}

fn no_space() -> Answered {
    Ok(Answer::NoSpace("on node 1 there is no space".into()))
}

fn in_doubt() -> Answered {
    Ok(Answer::Unknown(Doubt::Timeout))
}

fn garbage() -> Answered {
    Ok(Answer::Reply(Bytes::from_static(&[0xff; 9])))
}

fn invalid() -> Answered {
    Ok(Answer::Invalid("the command does not decode".into()))
}

/// Describes the end of a call in a few words, for a table.
fn end(heard: Heard) -> String {
    match heard {
        Heard::GoOn => panic!("the call is not at its end"),
        Heard::Reply(reply) => format!("{reply:?}"),
        Heard::Reopen => "reopen".into(),
        Heard::Transferring => "transferring".into(),
        Heard::Changed { index, is_new } => format!("{index} {is_new}"),
        Heard::Failed(Error::SessionExpired { .. }) => "expired".into(),
        Heard::Failed(Error::NoSpace { .. }) => "no space".into(),
        Heard::Failed(error) => format!("{:?}", error.kind()).to_lowercase(),
    }
}

/// Runs one call that gets these answers, one for each attempt, and then lets its deadline pass.
/// Returns the trace.
fn play_on(routes: &mut Routes, nature: Nature, script: &[Answered]) -> String {
    let mut call = Call::new(nature, Duration::ZERO, DEADLINE, SECOND);
    let (mut trace, mut now, mut script) = (String::new(), Duration::ZERO, script.iter());
    loop {
        match call.next(now, routes) {
            Next::End(error) => return format!("{trace}|{}", end(Heard::Failed(error))),
            Next::Pause(pause) => {
                trace.push('-');
                now += pause;
            }
            Next::Ask { server, .. } => {
                let Some(answer) = script.next() else {
                    now = DEADLINE;
                    continue;
                };
                trace.push_str(&routes.address(server)[..1]);
                match call.heard(now, server, answer.clone(), routes) {
                    Heard::GoOn => {}
                    done => return format!("{trace}|{}", end(done)),
                }
            }
        }
    }
}

fn play(nature: Nature, script: &[Answered]) -> String {
    play_on(&mut routes(), nature, script)
}

#[test]
fn every_end_of_a_request_leads_to_what_the_design_says() {
    let done = || reply(Reply::Done);
    let table: &[(&str, &[Answered], &str)] = &[
        ("the reply", &[done()], "a|Done"),
        (
            "a hint is followed at once",
            &[not_leader(Some("c:1")), done()],
            "ac|Done",
        ),
        (
            "no hint: the next in turn",
            &[not_leader(None), done()],
            "ab|Done",
        ),
        (
            "leadership lost: repeated",
            &[Ok(Answer::Unknown(Doubt::LeadershipLost)), done()],
            "ab|Done",
        ),
        ("timeout: repeated", &[in_doubt(), done()], "ab|Done"),
        (
            "shutting down: repeated",
            &[Ok(Answer::Unknown(Doubt::ShuttingDown)), done()],
            "ab|Done",
        ),
        ("no answer: repeated", &[lost(), done()], "ab|Done"),
        ("nonsense: repeated", &[garbage(), done()], "ab|Done"),
        (
            "busy: the same server after a pause",
            &[busy(), done()],
            "a-a|Done",
        ),
        (
            "its disk is full: likewise, and then who leads instead",
            &[no_space(), not_leader(Some("c:1")), done()],
            "a-ac|Done",
        ),
        (
            "the session is full: likewise",
            &[reply(Reply::TooManyInFlight), done()],
            "a-a|Done",
        ),
        ("invalid: no", &[invalid()], "a|no"),
        (
            "refused by the store: no",
            &[reply(Reply::Refused("too large".into()))],
            "a|no",
        ),
    ];
    for (name, script, expected) in table {
        assert_eq!(play(Nature::Once, script), *expected, "{name}");
    }
}

#[test]
fn a_write_is_unknown_exactly_if_an_attempt_may_have_been_executed() {
    let table: &[(&[Answered], &str)] = &[
        (&[not_sent()], "a|unavailable"),
        (&[not_leader(None)], "a|unavailable"),
        (
            &[not_sent(), not_leader(Some("c:1")), not_sent()],
            "abc-|unavailable",
        ),
        (&[busy()], "a-|refused"),
        (&[no_space()], "a-|no space"),
        (&[no_space(), busy()], "a-a-|refused"),
        (&[no_space(), not_leader(None)], "a-a|unavailable"),
        (&[lost(), no_space()], "ab-|unknown"),
        (&[reply(Reply::TooManyInFlight)], "a-|refused"),
        (&[busy(), not_leader(None)], "a-a|unavailable"),
        (&[lost()], "a|unknown"),
        (&[in_doubt()], "a|unknown"),
        (&[garbage()], "a|unknown"),
        (&[lost(), not_sent(), not_leader(None)], "abc-|unknown"),
        (&[lost(), busy()], "ab-|unknown"),
        (&[lost(), invalid()], "ab|unknown"),
        (
            &[lost(), reply(Reply::Refused("too large".into()))],
            "ab|no",
        ),
    ];
    for (script, expected) in table {
        assert_eq!(play(Nature::Once, script), *expected, "{script:?}");
    }
}

#[test]
fn a_read_is_never_in_doubt() {
    for script in [[lost()], [in_doubt()], [garbage()]] {
        assert_eq!(
            play(Nature::Harmless, &script),
            "a|unavailable",
            "{script:?}"
        );
    }
    let lost_then_gone = [lost(), reply(Reply::NoSession(4))];
    assert_eq!(play(Nature::Harmless, &lost_then_gone), "ab|reopen");
}

#[test]
fn a_session_is_reopened_only_if_nothing_of_the_write_is_in_doubt() {
    let gone = || reply(Reply::NoSession(4));
    let table: &[(&[Answered], &str)] = &[
        (&[gone()], "a|reopen"),
        (&[not_sent(), not_leader(Some("c:1")), gone()], "abc|reopen"),
        (&[busy(), gone()], "a-a|reopen"),
        (&[lost(), gone()], "ab|expired"),
        (&[in_doubt(), gone()], "ab|expired"),
        (&[lost(), not_sent(), gone()], "abc|expired"),
        (&[reply(Reply::AnswerDropped)], "a|unknown"),
    ];
    for (script, expected) in table {
        assert_eq!(play(Nature::Once, script), *expected, "{script:?}");
    }
}

#[test]
fn what_acts_again_when_repeated_is_not_repeated_in_doubt() {
    let over = || Ok(Answer::Transferring);
    let single = |script: &[Answered]| play(Nature::Single, script);
    assert_eq!(
        single(&[not_leader(Some("c:1")), over()]),
        "ac|transferring"
    );
    assert_eq!(single(&[not_sent(), busy(), over()]), "ab-b|transferring");
    assert_eq!(single(&[lost(), over()]), "a|unknown");
    assert_eq!(single(&[in_doubt(), over()]), "a|unknown");
}

#[test]
fn a_change_of_members_is_repeated_in_doubt_because_the_leader_recognises_it() {
    let changed = |is_new| Ok(Answer::Changed { index: 9, is_new });
    let change = |script: &[Answered]| play(Nature::Once, script);
    let hinted = not_leader(Some("c:1"));
    assert_eq!(change(&[hinted, busy(), changed(true)]), "ac-c|9 true");
    assert_eq!(change(&[lost(), changed(false)]), "ab|9 false");
    assert_eq!(change(&[invalid()]), "a|no");
    assert_eq!(change(&[lost(), not_sent(), not_sent()]), "abc-|unknown");
}

/// Routes whose newest list of members has `b:1` and `d:1`. The servers `a:1` and `c:1`, which the
/// user has named, are gone.
fn half_gone() -> Routes {
    let mut routes = routes();
    let members = vec![(2, "b:1".to_string()), (4, "d:1".to_string())];
    let list = MemberList {
        index: 5,
        lineage: 7,
        members,
    };
    routes.learned(&list).unwrap();
    routes
}

#[test]
fn servers_that_are_gone_are_asked_only_if_no_member_answers() {
    let nobody_answers = vec![not_sent(); 6];
    let trace = play_on(&mut half_gone(), Nature::Once, &nobody_answers);
    assert_eq!(trace, "bdac-db|unavailable");
    let an_election = [vec![not_sent()], vec![not_leader(None); 5]].concat();
    let trace = play_on(&mut half_gone(), Nature::Once, &an_election);
    assert_eq!(trace, "bd-bd-bd-|unavailable");
}

#[test]
fn a_leader_is_asked_first_even_if_the_list_does_not_have_its_address() {
    let mut routes = half_gone();
    routes.leads(2);
    let done = [reply(Reply::Done)];
    assert_eq!(play_on(&mut routes, Nature::Once, &done), "c|Done");
    let hinted = [not_sent(), not_leader(Some("a:1")), reply(Reply::Done)];
    assert_eq!(play_on(&mut routes, Nature::Once, &hinted), "cda|Done");
}

/// What comes of an attempt whose answer brings a list of members of another lineage.
fn from_another_cluster(nature: Nature, before: &[Answered], answer: Answered) -> Error {
    let mut routes = half_gone();
    let mut call = Call::new(nature, Duration::ZERO, DEADLINE, SECOND);
    for result in before {
        assert_eq!(
            call.heard(Duration::ZERO, 0, result.clone(), &mut routes),
            Heard::GoOn
        );
    }
    let members = Some(Box::new(MemberList {
        index: 50,
        lineage: 8,
        members: vec![(1, "x:1".into())],
    }));
    let answered = answer.map(|answer| super::Answered { answer, members });
    let heard = call.heard(Duration::ZERO, 1, answered, &mut routes);
    assert_eq!(routes.known(), 5, "the list is not taken in");
    match heard {
        Heard::Failed(error @ Error::MadeAnew { .. }) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_of_a_cluster_made_anew_ends_the_call_and_says_what_may_have_been_executed() {
    let kind =
        |nature, before: &[Answered], answer| from_another_cluster(nature, before, answer).kind();
    let done = || reply(Reply::Done);
    assert_eq!(kind(Nature::Once, &[], done()), Kind::Unknown);
    assert_eq!(kind(Nature::Once, &[], not_leader(None)), Kind::Usage);
    assert_eq!(kind(Nature::Once, &[lost()], busy()), Kind::Unknown);
    assert_eq!(kind(Nature::Harmless, &[lost()], done()), Kind::Usage);
    let error = from_another_cluster(Nature::Once, &[], done()).to_string();
    assert!(
        error.contains("b:1") && error.contains("made anew"),
        "{error}"
    );
}

#[test]
fn a_round_asks_each_server_once_and_then_pauses() {
    let nobody_leads = vec![not_leader(None); 7];
    assert_eq!(play(Nature::Once, &nobody_leads), "abc-abc-a|unavailable");
    let each_names_the_other = [
        not_leader(Some("b:1")),
        not_leader(Some("a:1")),
        not_leader(Some("a:1")),
        reply(Reply::Done),
    ];
    assert_eq!(play(Nature::Once, &each_names_the_other), "abc-a|Done");
}

#[test]
fn the_next_call_begins_with_the_server_that_led_last() {
    let mut routes = routes();
    let to_c = [not_leader(Some("c:1")), reply(Reply::Done)];
    assert_eq!(play_on(&mut routes, Nature::Once, &to_c), "ac|Done");
    let done = [reply(Reply::Done)];
    assert_eq!(play_on(&mut routes, Nature::Once, &done), "c|Done");
    let c_is_gone = [not_sent(), reply(Reply::Done)];
    assert_eq!(play_on(&mut routes, Nature::Once, &c_is_gone), "ca|Done");
    assert_eq!(play_on(&mut routes, Nature::Once, &done), "a|Done");
    assert_eq!(
        routes.leader_changes(),
        2 - 1,
        "from c to a; the first is no change"
    );
}

#[test]
fn one_address_is_enough_to_find_the_leader() {
    let mut routes = Routes::new(["a:1"], 7).unwrap();
    let hinted = [not_leader(Some("d:1")), reply(Reply::Done)];
    assert_eq!(play_on(&mut routes, Nature::Once, &hinted), "ad|Done");
    assert_eq!(routes.servers(), ["a:1", "d:1"]);
}

#[test]
fn a_hint_that_is_no_address_is_passed_over() {
    let mut routes = routes();
    let script = [not_leader(Some("nonsense")), reply(Reply::Done)];
    assert_eq!(play_on(&mut routes, Nature::Once, &script), "ab|Done");
    assert_eq!(routes.servers().len(), 3);
}

/// Runs a call to whose attempts every server gives this result. Returns the length of each wait,
/// and when the call ended.
fn waits(seed: u64, answer: Answered) -> (Vec<Duration>, Duration) {
    let mut routes = Routes::new(["a:1", "b:1", "c:1"], seed).unwrap();
    let mut call = Call::new(Nature::Once, SECOND, DEADLINE, SECOND);
    let (mut now, mut waits) = (SECOND, Vec::new());
    loop {
        match call.next(now, &mut routes) {
            Next::End(_) => return (waits, now),
            Next::Pause(pause) => {
                now += pause;
                waits.push(pause);
            }
            Next::Ask { server, timeout } => {
                if answer == lost() {
                    now += timeout;
                    waits.push(timeout);
                }
                call.heard(now, server, answer.clone(), &mut routes);
            }
        }
    }
}

#[test]
fn a_call_ends_at_its_deadline_if_nobody_ever_answers() {
    let (waits, end) = waits(7, lost());
    assert_eq!(end, SECOND + DEADLINE);
    // Each unanswered attempt doubles the time of the next: 1 s, 2 s, 4 s. Then come a pause and an
    // attempt for the rest of the time.
    assert_eq!(waits[..3], [SECOND, 2 * SECOND, 4 * SECOND]);
    assert!(waits[3] <= FIRST_PAUSE, "{waits:?}");
    assert_eq!(waits.iter().sum::<Duration>(), DEADLINE);
}

#[test]
fn pauses_double_up_to_a_limit_and_half_of_each_is_random() {
    let (waits, end) = waits(7, not_leader(None));
    assert_eq!(end, SECOND + DEADLINE);
    let last = waits.len() - 1;
    for (round, pause) in waits[..last].iter().enumerate() {
        let full = (FIRST_PAUSE * 2u32.pow(round.min(10) as u32)).min(LONGEST_PAUSE);
        let drawn = full / 2..=full;
        assert!(drawn.contains(pause), "round {round}: {pause:?}");
    }
}

#[test]
fn the_seed_decides_the_jitter() {
    assert_eq!(waits(7, not_leader(None)), waits(7, not_leader(None)));
    assert_ne!(waits(7, not_leader(None)), waits(8, not_leader(None)));
}

fn answers() -> impl Strategy<Value = Answered> {
    let hint = prop::sample::select(vec![None, Some("a:1"), Some("b:1"), Some("d:1"), Some("")]);
    prop_oneof![
        Just(not_sent()),
        Just(lost()),
        Just(busy()),
        Just(in_doubt()),
        Just(garbage()),
        Just(invalid()),
        Just(reply(Reply::Done)),
        Just(reply(Reply::NoSession(4))),
        Just(reply(Reply::TooManyInFlight)),
        hint.prop_map(not_leader),
    ]
}

proptest! {
    /// For any sequence of results, each of which takes some time: the error of the call is the one
    /// that the definition of doubt demands.
    #[test]
    fn any_history_ends_in_time_and_is_classified_by_what_may_have_been_executed(
        history in prop::collection::vec((answers(), 0u64..3000), 1..60)
    ) {
        let mut routes = routes();
        let mut call = Call::new(Nature::Once, Duration::ZERO, DEADLINE, SECOND);
        let (mut now, mut doubt) = (Duration::ZERO, false);
        let mut history = history.into_iter().cycle();
        loop {
            let (server, timeout) = match call.next(now, &mut routes) {
                Next::Ask { server, timeout } => (server, timeout),
                Next::Pause(pause) => {
                    prop_assert!(!pause.is_zero(), "a pause of nothing would spin");
                    now += pause;
                    continue;
                }
                Next::End(error) => {
                    prop_assert_eq!(now, DEADLINE);
                    prop_assert_eq!(error.kind() == Kind::Unknown, doubt);
                    break;
                }
            };
            let (answer, took) = history.next().unwrap();
            now += timeout.min(Duration::from_millis(took));
            prop_assert!(now <= DEADLINE);
            doubt |= answer == lost() || answer == in_doubt() || answer == garbage();
            match call.heard(now, server, answer.clone(), &mut routes) {
                Heard::GoOn => {}
                Heard::Reply(Reply::Done) => break,
                Heard::Reopen => {
                    prop_assert!(!doubt, "it may be executed twice");
                    break;
                }
                Heard::Failed(error) => {
                    prop_assert_eq!(error.kind() == Kind::Unknown, doubt);
                    break;
                }
                _ => prop_assert!(false),
            }
        }
    }
}

/// A call whose deadline is no longer than one attempt can ask one server only. If every call began
/// with the same server, and that server was silent, this client could never reach the cluster.
#[test]
fn a_call_begins_behind_the_server_that_left_the_last_call_without_an_answer() {
    let mut routes = routes();
    let mut first_asked = Vec::new();
    for _ in 0..4 {
        let mut call = Call::new(Nature::Once, Duration::ZERO, SECOND, SECOND);
        let Next::Ask { server, .. } = call.next(Duration::ZERO, &mut routes) else {
            panic!("a new call asks at once");
        };
        first_asked.push(server);
        call.heard(SECOND, server, lost(), &mut routes);
    }
    assert_eq!(first_asked, [0, 1, 2, 0]);
}
