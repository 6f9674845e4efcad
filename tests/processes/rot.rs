//! A bit that flips in a file of a running process, on the machine's own disk.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use super::cluster::{Cluster, PATIENCE};

const SEGMENT: &str = "log-00000000000000000001";
/// A byte of the first record.
const OFFSET: u64 = 4096 + 40;

#[test]
fn a_bit_that_flips_in_the_log_of_a_running_process_is_found_and_repaired() {
    let mut cluster = Cluster::start_with(3, &["--scrub", "5"]);
    let clerk = cluster.clerk();
    for number in 0..20 {
        clerk.put(format!("before-{number}"), "v").unwrap();
    }
    let rotten = cluster.leader();
    let address = cluster.address(rotten).to_string();
    let path = cluster.data(rotten).join(SEGMENT);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, OFFSET).unwrap();
    file.write_all_at(&[byte[0] ^ 1], OFFSET).unwrap();
    file.sync_all().unwrap();

    let began = Instant::now();
    let said = cluster
        .node(rotten)
        .line("found while the files were verified");
    println!("found after {:?}: {said}", began.elapsed());
    assert!(
        said.contains(SEGMENT) && said.contains("at offset 4096"),
        "{said}"
    );
    cluster.node(rotten).line("this node's log is damaged");
    let damage = || clerk.status_of(&address).unwrap().disk.damage;
    while damage().is_some() {
        clerk.put("meanwhile", "v").unwrap();
        assert!(began.elapsed() < PATIENCE, "{:?}", damage());
    }
    println!("repaired after {:?}", began.elapsed());
    assert_ne!(cluster.leader(), rotten, "it leads with a damaged log");

    assert!(cluster.stop(rotten).unwrap().status.success());
    cluster.restart([rotten]).unwrap();
    for number in 0..20 {
        let kept = clerk.get(format!("before-{number}")).unwrap();
        assert_eq!(kept.as_deref(), Some(&b"v"[..]), "{number}");
    }
}
