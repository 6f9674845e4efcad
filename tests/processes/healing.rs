//! Nodes whose data folder is damaged: one begins anew, with what the others have; of two among
//! three neither does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use raftkv::client::Kind;
use raftkv::raft::NodeId;

use super::cluster::{Cluster, PATIENCE, kvnode, text};
use super::folders::contents;

/// Where the records of a segment and the pieces of a snapshot begin.
const BLOCK: usize = 4096;

/// A place in a data folder: the begin of a file's name, and an offset.
type Place = (String, usize);

/// A cluster of three that has a snapshot everywhere, and a log behind it.
fn used() -> Cluster {
    let cluster = Cluster::start(3);
    put_all(&cluster, 0..30);
    for id in cluster.ids() {
        let output = cluster.run(&["snapshot", &id.to_string()]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    put_all(&cluster, 30..40);
    cluster
}

fn put_all(cluster: &Cluster, keys: std::ops::Range<u32>) {
    let clerk = cluster.clerk();
    for key in keys {
        clerk
            .put(format!("key-{key}"), format!("value {key}"))
            .unwrap();
    }
}

fn assert_all(cluster: &Cluster, keys: u32) {
    let clerk = cluster.clerk();
    for key in 0..keys {
        let value = clerk.get(format!("key-{key}")).unwrap();
        assert_eq!(value, Some(format!("value {key}").into()));
    }
}

/// Flips a bit of the first file whose name begins so. Returns the file's name.
fn flip(folder: &Path, (prefix, offset): &Place, bit: u8) -> String {
    let names = contents(folder).into_keys();
    let name = names
        .into_iter()
        .find(|name| name.starts_with(prefix))
        .unwrap();
    let mut bytes = fs::read(folder.join(&name)).unwrap();
    bytes[*offset] ^= 1 << bit;
    fs::write(folder.join(&name), bytes).unwrap();
    name
}

/// The folders that were set aside, with all that is in them.
fn set_aside(cluster: &Cluster, id: NodeId) -> BTreeMap<PathBuf, BTreeMap<String, Vec<u8>>> {
    let data = cluster.data(id);
    let prefix = format!("{}.", data.file_name().unwrap().to_str().unwrap());
    let beside = fs::read_dir(data.parent().unwrap()).unwrap();
    let beside = beside.map(|entry| entry.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        path.is_dir() && name.starts_with(&prefix)
    });
    beside.map(|path| (path.clone(), contents(&path))).collect()
}

/// Waits until the members are those of a quiet cluster in which the node votes with the folder
/// that it has.
#[track_caller]
fn votes(cluster: &Cluster, id: NodeId) {
    let inspected = kvnode()
        .arg("inspect")
        .arg(cluster.data(id))
        .output()
        .unwrap();
    let lines = text(&inspected.stdout).lines();
    let folder = lines
        .filter_map(|line| line.strip_prefix("folder     "))
        .next()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = cluster.run(&["-o", "raw", "member", "list"]);
        let listed = text(&output.stdout);
        // While a change of voters is under way, the former folder is listed, too.
        let is_stable = !listed.contains("becomes=");
        if is_stable && listed.contains(folder) && listed.matches("role=voter").count() == 3 {
            return;
        }
        assert!(Instant::now() < deadline, "{output:?}");
    }
}

/// Stops a node, damages its folder, and starts it again.
fn damage(cluster: &mut Cluster, id: NodeId, place: &Place, bit: u8) -> String {
    cluster.kill([id]).unwrap();
    let name = flip(&cluster.data(id), place, bit);
    let before = contents(&cluster.data(id));
    let earlier = set_aside(cluster, id);
    cluster.restart([id]).unwrap();
    let mut later = set_aside(cluster, id);
    later.retain(|path, _| !earlier.contains_key(path));
    for (path, kept) in &later {
        let differs = |name: &&String| kept.get(*name) != before.get(*name);
        let names: Vec<_> = before.keys().chain(kept.keys()).filter(differs).collect();
        assert!(names.is_empty(), "{}: {names:?}", path.display());
        let inspected = kvnode().arg("inspect").arg(path).output().unwrap();
        assert_eq!(inspected.status.code(), Some(4), "{inspected:?}");
    }
    assert!(later.len() <= 1);
    match later.is_empty() {
        true => "not noticed".into(),
        false => name,
    }
}

#[test]
fn a_node_with_one_flipped_bit_comes_back_as_a_voter_by_itself_and_nothing_is_lost() {
    let mut cluster = used();
    let mut keys = 40;
    let certain = ["log-", "identity", "peers"];
    for (file, id) in certain.into_iter().zip([1, 2, 3].into_iter().cycle()) {
        let offset = if file == "log-" { BLOCK + 20 } else { 20 };
        // The others go on meanwhile.
        let place = (file.to_string(), offset);
        let noticed = damage(&mut cluster, id, &place, 3);
        assert!(noticed.starts_with(file), "{file}: {noticed}");
        cluster.node(id).line("is set aside as");
        votes(&cluster, id);
        put_all(&cluster, keys..keys + 5);
        keys += 5;
        // With it alone beside the leader, what was acknowledged is there: it counts.
        let leader = cluster.leader();
        let third = cluster
            .ids()
            .into_iter()
            .find(|other| *other != id && *other != leader);
        cluster.kill(third).unwrap();
        assert_all(&cluster, keys);
        cluster.restart(third).unwrap();
    }
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    println!("the seed of the places is {seed}");
    let mut random = seed;
    for _ in 0..5 {
        let mut next = |below: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695);
            (random >> 33) as usize % below
        };
        let id = 1 + next(3) as NodeId;
        let files: Vec<(String, Vec<u8>)> = contents(&cluster.data(id)).into_iter().collect();
        let (name, bytes) = &files[next(files.len())];
        // A log has much space that was never written.
        let used = bytes.len().min(4 * BLOCK);
        let place = (name.clone(), next(used));
        let noticed = damage(&mut cluster, id, &place, next(8) as u8);
        println!("a bit of {place:?} of node {id}: {noticed}");
        votes(&cluster, id);
        put_all(&cluster, keys..keys + 1);
        keys += 1;
    }
    assert_all(&cluster, keys);
}

#[test]
fn two_damaged_nodes_of_three_stay_as_they_are_and_say_what_to_do() {
    let mut cluster = used();
    cluster.kill([1, 2]).unwrap();
    flip(&cluster.data(1), &("log-".to_string(), BLOCK + 20), 1);
    fs::remove_file(cluster.data(2).join("vote")).unwrap();
    let before = [1, 2].map(|id| contents(&cluster.data(id)));
    cluster.launch([1, 2]).unwrap();
    for id in [1, 2] {
        let end = cluster.end(id).unwrap();
        assert_eq!(end.status.code(), Some(4), "{end:#?}");
        let sentence = end.lines.last().unwrap();
        for part in [
            "is damaged",
            "kvnode recover",
            "It was not set aside: 1 of the others",
        ] {
            assert!(sentence.contains(part), "{part}: {end:#?}");
        }
        assert!(set_aside(&cluster, id).is_empty());
    }
    let after = [1, 2].map(|id| contents(&cluster.data(id)));
    assert!(after == before, "a folder has changed");
}

/// The write is on the leader and on the damaged node. If that one went on with what is left of its
/// log, it could vote for the third one, which lacks the write.
#[test]
fn what_only_a_damaged_node_and_one_that_is_down_have_is_not_voted_away() {
    let mut cluster = used();
    let leader = cluster.leader();
    let mut followers = cluster.ids();
    followers.retain(|id| *id != leader);
    let (damaged, laggard) = (followers[0], followers[1]);
    cluster.kill([laggard]).unwrap();
    cluster.clerk().put("kept", "value").unwrap();
    cluster.kill([leader, damaged]).unwrap();
    flip(&cluster.data(damaged), &("log-".to_string(), BLOCK + 20), 3);

    cluster.restart([laggard]).unwrap();
    cluster.launch([damaged]).unwrap();
    let clerk = cluster.clerk_for(Duration::from_secs(12));
    let lost = clerk.put("lost", "value");
    let error = lost.expect_err("the damaged node has voted");
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    let end = cluster.end(damaged).unwrap();
    assert_eq!(end.status.code(), Some(4), "{end:#?}");

    cluster.restart([leader, damaged]).unwrap();
    votes(&cluster, damaged);
    let kept = cluster.clerk().get("kept").unwrap();
    assert_eq!(kept, Some("value".into()));
}

#[test]
fn a_damaged_folder_is_left_alone_if_its_node_is_told_so_or_was_removed() {
    let mut cluster = used();
    cluster.kill([3]).unwrap();
    flip(&cluster.data(3), &("log-".to_string(), BLOCK + 20), 1);
    let before = contents(&cluster.data(3));
    let end = super::settings::refusal(cluster.command(3).arg("--no-rejoin"));
    assert_eq!(end.status.code(), Some(4), "{end:#?}");
    assert!(
        super::settings::sentence(&end).contains("--no-rejoin is given"),
        "{end:#?}"
    );
    let output = cluster.run(&["member", "remove", "3"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let end = super::settings::refusal(&mut cluster.command(3));
    let sentence = end.lines.last().unwrap();
    assert_eq!(end.status.code(), Some(4), "{end:#?}");
    assert!(
        sentence.contains("node 3 is no member any more"),
        "{end:#?}"
    );
    assert!(
        contents(&cluster.data(3)) == before,
        "the folder has changed"
    );
    assert!(set_aside(&cluster, 3).is_empty());
}
