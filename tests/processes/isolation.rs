//! A leader that the others cannot reach, but its clients can.

use raftkv::client::Clerk;
use raftkv::kv::{Command, Query};
use raftkv::raft::RoleName;
use raftkv::testkit::{Cable, Quality};
use raftkv::wire::client::{Answer, Ask, Doubt, Response};

use super::cluster::{Cluster, PATIENCE, clerk_at};
use super::raw::Raw;

/// A cluster whose node 1 leads, at the far end of the cable. Its elections are so slow that it
/// goes on to believe that it leads long after the others have elected another leader.
fn led_by_node_1(cable: &Cable) -> Cluster {
    let cluster = Cluster::start_as(3, |cluster| {
        for other in [2, 3] {
            cluster.link(1, other, cable).unwrap();
            cluster.link(other, 1, cable).unwrap();
        }
        cluster.give(1, &["--election-ms", "30000"]);
    });
    while cluster.leader() != 1 {
        cluster.clerk().transfer(Some(1)).unwrap();
    }
    cluster
}

#[test]
fn a_leader_that_was_replaced_without_knowing_answers_nothing_stale_and_confirms_nothing() {
    let cable = Cable::default();
    let cluster = led_by_node_1(&cable);
    cluster.clerk().put("key", "old").unwrap();
    let address = cluster.address(1);
    let (mut reader, mut writer) = (Raw::open(address), Raw::open(address));
    cable.set(Quality::waiting());
    // Its first attempts may go to node 1 over the cable.
    let others = [2, 3].map(|id| cluster.address(id).to_string());
    let clerk = clerk_at(others.to_vec(), PATIENCE);
    clerk.put("key", "new").unwrap();
    let key = "key".into();
    reader.send(Ask::Query(Query::Get { key }.to_bytes()));
    writer.send(Ask::Submit(Command::OpenSession.to_bytes()));
    for raw in [&mut reader, &mut writer] {
        let answer = raw.receive::<Response>().answer;
        assert_eq!(answer, Answer::Unknown(Doubt::Timeout));
    }
    let statuses = Clerk::connect([address.to_string()]).unwrap().status();
    let mut known = statuses.into_iter().filter_map(|server| server.result.ok());
    let status = known.find(|status| status.id == 1).unwrap();
    assert_eq!(status.role, RoleName::Leader);
    cable.set(Quality::default());
    cluster.node(1).line("is in a higher term");
    assert_eq!(cluster.clerk().get("key"), Ok(Some("new".into())));
}
