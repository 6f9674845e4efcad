//! Tests of the decision whether a node with a damaged folder can begin anew.

use super::*;
use crate::raft::{Configuration, Member, MemberRole, NodeId};
use crate::wire::members::MemberReport;

/// The lineage of the cluster, and the number of the damaged folder, which is that of node 3.
const LINEAGE: u64 = 7;
const DAMAGED: FolderId = 33;

fn voters(size: u64) -> Configuration {
    let voter = |id: NodeId| Member {
        id,
        folder: Some(FolderId::from(11 * id)),
        address: format!("host:{id}"),
        role: MemberRole::Voter,
    };
    Configuration::of(LINEAGE, (1..=size).map(voter).collect(), Vec::new())
}

/// What node 1 reports as the leader of `term`, which hears these others.
fn led(configuration: Configuration, term: u64, heard: &[NodeId]) -> Box<MembersReport> {
    let others = configuration.contacts().filter(|member| member.id != 1);
    let report = |member: &Member| MemberReport {
        id: member.id,
        folder: member.folder,
        matched: 5,
        silent_ms: if heard.contains(&member.id) { 20 } else { 9000 },
        snapshot: None,
        round: None,
        is_departing: false,
    };
    Box::new(MembersReport {
        id: 1,
        leader: Some(1),
        term,
        commit: 5,
        last_index: 5,
        members: others.map(report).collect(),
        configuration: LoggedConfiguration {
            index: 2,
            configuration,
        },
        committed: 2,
        blocker: None,
    })
}

fn decided(reports: &[Box<MembersReport>]) -> Verdict {
    let config = Config::new(3, [], "in memory");
    let asking = Asking {
        config: &config,
        folder: DAMAGED,
        lineage: LINEAGE,
    };
    asking.decide(reports, &["nobody answers at host:2".into()], 200)
}

#[test]
fn a_cluster_is_willing_if_its_leader_hears_a_quorum_without_the_damaged_node() {
    for (size, heard, is_willing) in [
        (3, &[2][..], true),
        (3, &[], false),
        // The damaged node itself does not help.
        (3, &[3], false),
        (4, &[2, 4], true),
        (4, &[2, 3], false),
        (5, &[2, 4], true),
        (5, &[2], false),
        (7, &[2, 4, 5], true),
        (7, &[2, 3, 4], false),
    ] {
        let verdict = decided(&[led(voters(size), 4, heard)]);
        assert_eq!(verdict == Verdict::Willing, is_willing, "{size}: {heard:?}");
        assert!(!matches!(verdict, Verdict::Never(_)), "{verdict:?}");
    }
}

/// The leader lost its quorum a moment ago and does not know yet.
#[test]
fn who_was_heard_before_the_node_began_to_ask_does_not_count() {
    let mut report = led(voters(3), 4, &[2]);
    assert_eq!(decided(&[report.clone()]), Verdict::Willing);
    report.members[0].silent_ms = 200;
    assert!(matches!(decided(&[report]), Verdict::NotNow(_)));
}

#[test]
fn without_a_leader_a_quorum_decides_nothing_and_the_sentence_says_who_is_silent() {
    let mut report = led(voters(5), 4, &[2, 4, 5]);
    report.leader = None;
    let Verdict::NotNow(sentence) = decided(&[report.clone(), report]) else {
        panic!("nobody leads");
    };
    assert!(sentence.contains("2 of the others answer"), "{sentence}");
    assert!(sentence.contains("host:2"), "{sentence}");
}

#[test]
fn the_leader_of_the_highest_term_decides() {
    let old = led(voters(5), 4, &[2, 4, 5]);
    let new = led(voters(5), 6, &[]);
    for reports in [[old.clone(), new.clone()], [new, old]] {
        assert!(matches!(decided(&reports), Verdict::NotNow(_)));
    }
}

#[test]
fn a_node_that_was_removed_or_replaced_or_whose_cluster_was_made_anew_never_begins_anew() {
    let without = Configuration::of(LINEAGE, voters(5).members()[3..].to_vec(), Vec::new());
    let mut other = voters(5).members().to_vec();
    other[2].folder = Some(99);
    let other = Configuration::of(LINEAGE, other, Vec::new());
    let anew = Configuration::of(8, voters(5).members().to_vec(), Vec::new());
    for (configuration, says) in [
        (without, "no member any more"),
        (other, "another data folder by now"),
        (anew, "another cluster of the same name"),
    ] {
        let Verdict::Never(sentence) = decided(&[led(configuration, 4, &[2, 4, 5])]) else {
            panic!("an operator has to decide: {says}");
        };
        assert!(sentence.contains(says), "{sentence}");
    }
}

#[test]
fn in_a_joint_configuration_both_halves_have_to_be_heard() {
    let outgoing = voters(3).members().to_vec();
    let members = voters(5).members().to_vec();
    let joint = Configuration::of(LINEAGE, members, outgoing);
    assert_eq!(decided(&[led(joint.clone(), 4, &[2, 4])]), Verdict::Willing);
    let one_half = decided(&[led(joint, 4, &[4, 5])]);
    assert!(matches!(one_half, Verdict::NotNow(_)), "{one_half:?}");
}

#[test]
fn the_others_are_asked_wherever_the_folder_or_the_settings_name_them() {
    let members = [(3, "own:3".to_string()), (2, "told:2".to_string())];
    let mut config = Config::new(3, members, "in memory");
    config.join = vec!["join:1".to_string()];
    config.reach = [(1, "proxy:1".to_string())].into();
    let known = LoggedConfiguration {
        index: 2,
        configuration: voters(3),
    };
    let all: Vec<String> = others_of(&config, Some(&known)).into_iter().collect();
    assert_eq!(all, ["host:2", "join:1", "proxy:1", "told:2"]);
}
