//! Data folders that a node must not use: it says why and what to do, and leaves them as they are.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

use raftkv::testkit::{End, free_addresses};

use super::cluster::{Cluster, kvnode};
use super::settings::{refusal, sentence};

const SEGMENT: &str = "log-00000000000000000001";

/// Where the records of a segment begin.
const FIRST_RECORD: usize = 4096;

/// Every file of a folder but the lock, which holds a process id.
pub fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    files
        .filter(|file| file.file_name() != "lock")
        .map(|file| {
            let name = file.file_name().into_string().unwrap();
            (name, fs::read(file.path()).unwrap())
        })
        .collect()
}

/// A stopped node with something in its folder.
pub fn stopped() -> Cluster {
    let mut cluster = Cluster::start(1);
    let clerk = cluster.clerk();
    for number in 0..10 {
        clerk.put(format!("key-{number}"), "value").unwrap();
    }
    assert!(cluster.stop(1).unwrap().status.success());
    cluster
}

/// How `kvnode` ends that has these options and the folder of node 1.
fn refused_folder(cluster: &Cluster, options: &[&str]) -> End {
    let mut command = kvnode();
    refusal(command.arg("--data").arg(cluster.data(1)).args(options))
}

/// With the right settings the node starts and has what it had.
fn still_works(cluster: &mut Cluster) {
    cluster.restart([1]).unwrap();
    let clerk = cluster.clerk();
    for number in 0..10 {
        assert_eq!(clerk.get(format!("key-{number}")), Ok(Some("value".into())));
    }
}

#[test]
fn a_folder_of_something_else_is_refused_and_left_as_it_is() {
    let mut cluster = stopped();
    let before = contents(&cluster.data(1));
    let own = format!("1={}", cluster.address(1));
    let other = format!("2={}", free_addresses(1).unwrap()[0]);
    let cases: [(&[&str], &[&str]); 3] = [
        (
            &["--id", "2", "--cluster", &other],
            &["it belongs to node 1, and this is node 2", "another folder"],
        ),
        (
            &["--id", "1", "--cluster", &own, "--cluster-name", "blue"],
            &["cluster \"raftkv\"", "cluster \"blue\"", "another folder"],
        ),
        (
            &["--id", "1", "--cluster", &own, "--max-value-bytes", "1000"],
            &[
                "\"max_value_bytes=8388608\"",
                "\"max_value_bytes=1000\"",
                "Run the node with the settings that the folder was made with",
            ],
        ),
    ];
    for (options, expected) in cases {
        let end = refused_folder(&cluster, options);
        assert_eq!(end.status.code(), Some(4), "{options:?}: {end:#?}");
        for part in expected {
            assert!(sentence(&end).contains(part), "{part}: {end:#?}");
        }
    }
    assert!(
        contents(&cluster.data(1)) == before,
        "the folder has changed"
    );
    still_works(&mut cluster);
}

#[test]
fn a_folder_of_another_format_is_refused_and_left_as_it_is() {
    let mut cluster = stopped();
    let path = cluster.data(1).join("identity");
    let original = fs::read(&path).unwrap();
    let mut other = original.clone();
    other[8] += 1;
    let checksum = crc32c::crc32c(&other[..4092]);
    other[4092..4096].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, &other).unwrap();
    let before = contents(&cluster.data(1));
    let end = refusal(&mut cluster.command(1));
    assert_eq!(end.status.code(), Some(4), "{end:#?}");
    assert!(sentence(&end).contains("it has the format 4"), "{end:#?}");
    assert!(sentence(&end).contains("Run the version of kvnode that wrote it"));
    assert!(
        contents(&cluster.data(1)) == before,
        "the folder has changed"
    );
    fs::write(&path, original).unwrap();
    still_works(&mut cluster);
}

#[test]
fn a_log_that_is_damaged_in_the_middle_is_neither_cut_nor_used() {
    let mut cluster = stopped();
    let path = cluster.data(1).join(SEGMENT);
    let original = fs::read(&path).unwrap();
    // In the header of the first record, in its payload, and the header of the segment itself.
    for place in [FIRST_RECORD + 5, FIRST_RECORD + 40, 100] {
        let mut damaged = original.clone();
        damaged[place] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let before = contents(&cluster.data(1));
        let end = refusal(&mut cluster.command(1));
        assert_eq!(end.status.code(), Some(4), "{end:#?}");
        let expected = format!("{} is damaged at offset", path.display());
        assert!(sentence(&end).contains(&expected), "{end:#?}");
        assert!(sentence(&end).contains("restore the folder from a copy"));
        assert!(
            contents(&cluster.data(1)) == before,
            "the folder has changed"
        );
    }
    fs::write(&path, original).unwrap();
    still_works(&mut cluster);
}

#[test]
fn a_vote_that_is_lost_is_not_made_up() {
    let mut cluster = stopped();
    let path = cluster.data(1).join("vote");
    let original = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let before = contents(&cluster.data(1));
    let end = refusal(&mut cluster.command(1));
    assert_ne!(end.status.code(), Some(0), "{end:#?}");
    assert!(sentence(&end).contains("vote"), "{end:#?}");
    assert!(
        contents(&cluster.data(1)) == before,
        "the folder has changed"
    );
    fs::write(&path, original).unwrap();
    still_works(&mut cluster);
}

#[test]
fn a_folder_in_use_is_refused_and_its_node_does_not_notice() {
    let cluster = Cluster::start(1);
    let clerk = cluster.clerk();
    clerk.put("key", "value").unwrap();
    let other = format!("1={}", free_addresses(1).unwrap()[0]);
    let end = refused_folder(&cluster, &["--id", "1", "--cluster", &other]);
    assert_eq!(end.status.code(), Some(3), "{end:#?}");
    for part in ["is in use", "process ", "Stop that one first"] {
        assert!(sentence(&end).contains(part), "{end:#?}");
    }
    assert_eq!(clerk.get("key"), Ok(Some("value".into())));
}

#[test]
fn a_port_in_use_is_refused_and_the_folder_is_as_good_as_before() {
    let mut cluster = stopped();
    let before = contents(&cluster.data(1));
    let listener = TcpListener::bind(cluster.address(1)).unwrap();
    let end = refusal(&mut cluster.command(1));
    assert_eq!(end.status.code(), Some(5), "{end:#?}");
    let expected = format!("cannot listen on {}", cluster.address(1));
    assert!(sentence(&end).contains(&expected), "{end:#?}");
    assert!(sentence(&end).contains("choose another port"));
    assert!(
        contents(&cluster.data(1)) == before,
        "the folder has changed"
    );
    drop(listener);
    still_works(&mut cluster);
}

#[test]
fn a_file_in_place_of_the_folder_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "something").unwrap();
    let list = format!("1={}", free_addresses(1).unwrap()[0]);
    for data in [file.clone(), file.join("below")] {
        let mut command = kvnode();
        command.args(["--id", "1", "--cluster", &list, "--data"]);
        let end = refusal(command.arg(&data));
        assert_eq!(end.status.code(), Some(1), "{end:#?}");
        assert!(sentence(&end).contains("cannot create the data folder"));
        assert!(sentence(&end).contains("choose another folder"), "{end:#?}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"something");
}
