use super::*;
use crate::raft::{Configuration, Member, MemberRole};
use crate::wire::handshake::VERSION;

const MACHINE: &str = "a machine";

fn who(id: NodeId, folder: FolderId) -> MemberId {
    MemberId { id, folder }
}

fn founding() -> LoggedConfiguration {
    let members = (1..=3).map(|id| (id, format!("host{id}:1")));
    LoggedConfiguration::founding(Configuration::founding(members))
}

/// A configuration of the log with these members; a folder 0 stands for an empty seat.
fn logged(index: Index, members: &[(NodeId, FolderId)]) -> LoggedConfiguration {
    let member = |&(id, folder): &(NodeId, FolderId)| Member {
        id,
        folder: (folder != 0).then_some(folder),
        address: format!("host{id}:1"),
        role: MemberRole::Voter,
    };
    let configuration = Configuration::of(7, members.iter().map(member).collect(), Vec::new());
    LoggedConfiguration {
        index,
        configuration,
    }
}

fn view<'a>(newest: &'a LoggedConfiguration, committed: &'a LoggedConfiguration) -> View<'a> {
    View {
        cluster: "test",
        machine: MACHINE,
        own: who(1, 10),
        newest,
        committed,
        founding: match newest.index {
            0 => founding_digest([1, 2, 3]),
            _ => 0,
        },
        is_blank: false,
    }
}

/// The greeting of node 2 with its folder 20, while it founds the cluster.
fn peer() -> PeerHello {
    PeerHello {
        from: 2,
        to: 1,
        machine: MACHINE.into(),
        folder: 20,
        to_folder: None,
        address: "host2:1".into(),
        lineage: 0,
        configuration: 0,
        founding: founding_digest([1, 2, 3]),
    }
}

fn hello(caller: Caller) -> Hello {
    Hello {
        version: VERSION,
        cluster: "test".into(),
        caller,
    }
}

fn judged(peer: PeerHello, view: &View<'_>) -> Judged {
    judge(&hello(Caller::Peer(peer)), view)
}

/// What a peer is told if the register says this of it, and knows the folder 20 of its id.
fn told(peer: PeerHello, view: &View<'_>, register: Acquainted) -> Standing {
    let Judged::Peer {
        welcome, address, ..
    } = judged(peer, view)
    else {
        panic!("it is not let in");
    };
    match let_in(register, welcome, Some(20).zip(address)) {
        Some(Welcome::Peer(welcome)) => welcome.standing,
        other => panic!("{other:?}"),
    }
}

fn refusal(judged: Judged) -> String {
    match judged {
        Judged::Answered(Welcome::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_means_another_cluster_node_folder_or_machine_is_told_so() {
    let log = logged(5, &[(1, 10), (2, 20)]);
    let (founds, runs) = (founding(), view(&log, &log));
    let founds = view(&founds, &founds);
    let changed = |change: &dyn Fn(&mut PeerHello)| {
        let mut peer = peer();
        change(&mut peer);
        peer
    };
    let cases = [
        (
            changed(&|peer| peer.to = 3),
            &runs,
            "this is node 1, not node 3",
        ),
        (changed(&|peer| peer.from = 1), &runs, "an id of its own"),
        (changed(&|peer| peer.from = 0), &runs, "an id of its own"),
        (
            changed(&|peer| peer.machine.push('2')),
            &runs,
            "same limits",
        ),
        (
            changed(&|peer| peer.to_folder = Some(11)),
            &runs,
            "lost its folder",
        ),
        (changed(&|peer| peer.lineage = 8), &runs, "another cluster"),
        (changed(&|peer| peer.founding = 9), &founds, "the same list"),
    ];
    for (peer, view, part) in cases {
        let why = refusal(judged(peer, view));
        assert!(why.contains(part), "{why}");
    }
    let mut elsewhere = hello(Caller::Peer(peer()));
    elsewhere.cluster = "other".into();
    assert!(refusal(judge(&elsewhere, &runs)).contains("\"test\", not of \"other\""));
    let probe = hello(Caller::Probe { to: 4 });
    assert!(refusal(judge(&probe, &runs)).contains("this is node 1, not node 4"));
}

/// A lineage is compared only if both nodes know one, and so are the founders.
#[test]
fn a_node_that_does_not_know_the_configuration_yet_is_let_in() {
    let log = logged(5, &[(1, 10), (2, 20)]);
    let founds = founding();
    let joins = PeerHello {
        founding: 0,
        ..peer()
    };
    let is_in = |peer, view: &View<'_>| matches!(judged(peer, view), Judged::Peer { .. });
    assert!(is_in(joins.clone(), &view(&log, &log)));
    assert!(is_in(joins, &view(&founds, &founds)));
    assert!(is_in(peer(), &view(&log, &log)));
    let leads = PeerHello {
        lineage: 7,
        configuration: 5,
        founding: 0,
        to_folder: Some(10),
        ..peer()
    };
    assert!(is_in(leads.clone(), &view(&log, &log)));
    assert!(is_in(leads, &view(&founds, &founds)));
}

#[test]
fn only_a_founder_with_the_same_founders_is_written_down() {
    let (founds, log) = (founding(), logged(5, &[(1, 10), (2, 20)]));
    let asked = |peer, view: &View<'_>| match judged(peer, view) {
        Judged::Peer { greeted, .. } => greeted,
        other => panic!("{other:?}"),
    };
    let greeted = |logged_here, same_founders| Greeted {
        logged_here,
        same_founders,
    };
    assert_eq!(asked(peer(), &view(&founds, &founds)), greeted(false, true));
    let joins = PeerHello {
        founding: 0,
        ..peer()
    };
    assert_eq!(
        asked(joins.clone(), &view(&founds, &founds)),
        greeted(false, false)
    );
    // Neither founds: that both say so does not make them founders of the same cluster.
    assert_eq!(asked(joins, &view(&log, &log)), greeted(true, false));
    // An entry that is not committed is enough to be no witness any more.
    assert_eq!(asked(peer(), &view(&log, &founds)), greeted(true, false));
}

#[test]
fn a_caller_is_a_member_with_the_folder_of_the_configuration_and_a_stranger_with_another() {
    let log = logged(5, &[(1, 10), (2, 20), (3, 0)]);
    let view = view(&log, &log);
    let stands = |id, folder| {
        let caller = PeerHello {
            from: id,
            folder,
            ..peer()
        };
        told(caller, &view, Acquainted::NoWitness)
    };
    let stranger = |known| Standing::Stranger {
        configuration: 5,
        known,
    };
    assert_eq!(stands(2, 20), Standing::Member);
    assert_eq!(stands(2, 21), stranger(Some((Some(20), "host2:1".into()))));
    let empty = Some((None, "host3:1".into()));
    assert_eq!(stands(3, 30), stranger(empty), "its seat is empty");
    assert_eq!(stands(4, 40), stranger(None));
}

#[test]
fn who_is_a_stranger_only_to_what_may_be_taken_back_is_told_so_with_the_index_0() {
    let (old, new) = (
        logged(5, &[(1, 10), (2, 20)]),
        logged(9, &[(1, 10), (2, 21)]),
    );
    let pending = view(&new, &old);
    let with = |folder| PeerHello { folder, ..peer() };
    let no_witness = Acquainted::NoWitness;
    assert_eq!(told(with(20), &pending, no_witness), Standing::Member);
    assert_eq!(told(with(21), &pending, no_witness), Standing::Member);
    let after = view(&new, &new);
    let stranger = Standing::Stranger {
        configuration: 9,
        known: Some((Some(21), "host2:1".into())),
    };
    assert_eq!(told(with(20), &after, no_witness), stranger);
    let founds = founding();
    let settling = view(&old, &founds);
    let stranger = Standing::Stranger {
        configuration: 0,
        known: Some((Some(20), "host2:1".into())),
    };
    assert_eq!(told(with(22), &settling, no_witness), stranger);
}

#[test]
fn while_a_cluster_is_founded_the_register_decides() {
    let founds = founding();
    let view = view(&founds, &founds);
    let stranger = Standing::Stranger {
        configuration: 0,
        known: Some((Some(20), "host2:1".into())),
    };
    assert_eq!(told(peer(), &view, Acquainted::Known), Standing::Witness);
    assert_eq!(told(peer(), &view, Acquainted::OtherFolder), stranger);
    assert_eq!(told(peer(), &view, Acquainted::NoWitness), Standing::Member);
    let Judged::Peer { welcome, .. } = judged(peer(), &view) else {
        panic!("it is not let in");
    };
    assert_eq!(let_in(Acquainted::NotYet, welcome, None), None);
}

#[test]
fn a_probe_learns_who_answers_and_a_client_is_let_in_by_any_name() {
    let log = logged(5, &[(1, 10)]);
    let view = view(&log, &log);
    match judge(&hello(Caller::Probe { to: 1 }), &view) {
        Judged::Answered(Welcome::Peer(welcome)) => {
            assert_eq!((welcome.id, welcome.folder, welcome.lineage), (1, 10, 7));
            assert_eq!(
                (welcome.machine.as_str(), welcome.is_blank),
                (MACHINE, false)
            );
        }
        other => panic!("{other:?}"),
    }
    let mut client = hello(Caller::Client);
    client.cluster = String::new();
    let accepted = Judged::Answered(Welcome::Accepted {
        cluster: "test".into(),
        id: 1,
    });
    assert_eq!(judge(&client, &view), accepted);
    let mut probe = hello(Caller::Probe { to: 1 });
    probe.cluster = String::new();
    assert!(refusal(judge(&probe, &view)).contains("not of \"\""));
}

/// What node 2 with folder 20 learns from this standing.
fn learned(standing: Standing, committed: &LoggedConfiguration, is_admitted: bool) -> Learned {
    learned_with(standing, (committed, committed), (0, is_admitted))
}

/// As above, with a newest configuration before a committed one, and the index of one that has the
/// folder and was known to be committed before the start.
fn learned_with(
    standing: Standing,
    (newest, committed): (&LoggedConfiguration, &LoggedConfiguration),
    (seated, is_admitted): (Index, bool),
) -> Learned {
    let own = Own {
        me: who(2, 20),
        newest,
        committed,
        seated,
        is_admitted,
    };
    let welcome = PeerWelcome {
        cluster: "test".into(),
        id: 1,
        machine: MACHINE.into(),
        folder: 10,
        lineage: 7,
        is_blank: false,
        standing,
    };
    learn(&welcome, &own)
}

#[test]
fn a_node_draws_conclusions_only_from_what_is_committed_later_than_what_it_has() {
    let (founds, log) = (founding(), logged(5, &[(1, 10), (2, 20)]));
    let stranger = |configuration, known: Option<FolderId>| Standing::Stranger {
        configuration,
        known: known.map(|folder| (Some(folder), "host2:1".into())),
    };
    assert_eq!(learned(Standing::Witness, &founds, false), Learned::Witness);
    assert_eq!(learned(Standing::Member, &founds, false), Learned::Nothing);
    // It founds, and the other one knows another folder of it, or has the log already.
    assert_eq!(learned(stranger(0, None), &founds, false), Learned::Nothing);
    assert_eq!(
        learned(stranger(0, Some(21)), &founds, false),
        Learned::OtherFolder
    );
    assert_eq!(
        learned(stranger(0, Some(21)), &founds, true),
        Learned::Nothing
    );
    assert_eq!(learned(stranger(5, None), &founds, false), Learned::Outside);
    assert_eq!(
        learned(stranger(5, Some(21)), &founds, false),
        Learned::Outside
    );
    // It is admitted: its seat may be empty, or somebody else's.
    assert_eq!(learned(stranger(5, None), &founds, true), Learned::Nothing);
    assert_eq!(
        learned(stranger(5, Some(21)), &founds, true),
        Learned::Removed
    );
    // It has the log. The other one has less of it, or more.
    assert_eq!(learned(stranger(0, None), &log, false), Learned::Nothing);
    assert_eq!(learned(stranger(4, None), &log, false), Learned::Nothing);
    assert_eq!(learned(stranger(6, None), &log, true), Learned::Removed);
    assert_eq!(
        learned(stranger(6, Some(21)), &log, false),
        Learned::Removed
    );
    // It has started again, and does not know yet that its log is committed.
    let restarted = |standing| learned_with(standing, (&log, &founds), (5, false));
    assert_eq!(restarted(stranger(0, Some(21))), Learned::Nothing);
    assert_eq!(restarted(stranger(5, Some(21))), Learned::Nothing);
    assert_eq!(restarted(stranger(6, Some(21))), Learned::Removed);
    // Nobody ever knew that what is in its log is committed: it may have been lost, and others may
    // have been committed since, or nothing.
    let unsure = |standing| learned_with(standing, (&log, &founds), (0, false));
    assert_eq!(unsure(stranger(5, Some(21))), Learned::Nothing);
    assert_eq!(unsure(stranger(6, Some(21))), Learned::Outside);
    assert_eq!(unsure(stranger(6, None)), Learned::Outside);
    // It joins, and has read of the time before it was let in.
    let before = logged(5, &[(1, 10)]);
    assert_eq!(learned(stranger(6, None), &before, false), Learned::Outside);
}

/// A leader that knows the node's id alone has sent it the log.
#[test]
fn a_founder_with_a_new_folder_that_has_read_the_log_already_learns_that_it_has_no_place() {
    for folder in [0, 21] {
        let log = logged(5, &[(1, 10), (2, folder), (3, 30)]);
        let known = (folder > 0).then_some(folder);
        let stranger = |configuration| Standing::Stranger {
            configuration,
            known: Some((known, "host2:1".into())),
        };
        for configuration in [4, 5] {
            let told = stranger(configuration);
            assert_eq!(learned(told.clone(), &log, false), Learned::Outside);
            let seated = learned_with(told, (&log, &log), (3, false));
            assert_eq!(seated, Learned::Nothing, "it was a member before");
        }
    }
    // The leader fills the seat of an admitted one.
    let empty = logged(5, &[(1, 10), (2, 0)]);
    let told = Standing::Stranger {
        configuration: 5,
        known: Some((None, "host2:1".into())),
    };
    assert_eq!(learned(told, &empty, true), Learned::Nothing);
}

#[test]
fn a_node_that_joins_learns_nothing_of_its_folder_from_a_founder() {
    let nothing = LoggedConfiguration::default();
    let own = Own {
        me: who(4, 40),
        newest: &nothing,
        committed: &nothing,
        seated: 0,
        is_admitted: false,
    };
    let founds = founding();
    let caller = PeerHello {
        from: 4,
        folder: 40,
        founding: 0,
        ..peer()
    };
    let Judged::Peer { welcome, .. } = judged(caller, &view(&founds, &founds)) else {
        panic!("it is not let in");
    };
    assert_eq!(learn(&welcome, &own), Learned::Nothing);
}

#[test]
fn the_digest_of_founders_depends_on_their_ids_and_not_on_their_order() {
    let digests = [
        founding_digest([]),
        founding_digest([1, 2]),
        founding_digest([1, 2, 3]),
        founding_digest([1, 2, 4]),
    ];
    assert_eq!(digests[0], 0);
    assert_eq!(founding_digest([3, 1, 2]), digests[2]);
    for (place, digest) in digests.iter().enumerate() {
        assert!(!digests[..place].contains(digest));
    }
}
