//! A disk that takes no more: the node says so and stops; nothing that it acknowledged is lost.

use std::time::Duration;

use super::cluster::Cluster;

/// In blocks of 1024 bytes: more than the first megabyte that a log is given, less than two.
const LIMIT: &str = "1500";

#[test]
fn a_node_that_cannot_write_says_why_and_stops_with_code_1() {
    let mut cluster = Cluster::start(1);
    assert!(cluster.stop(1).unwrap().status.success());
    let limited = format!("ulimit -f {LIMIT}; exec \"$0\" \"$@\"");
    cluster.run_under(1, &["bash", "-c", &limited]);
    cluster.restart([1]).unwrap();
    let clerk = cluster.clerk_for(Duration::from_secs(3));
    let value = vec![b'x'; 200_000];
    let acknowledged = (0..100)
        .take_while(|number| clerk.put(format!("key-{number}"), &value).is_ok())
        .count();
    assert!((1..10).contains(&acknowledged), "{acknowledged}");
    let end = cluster.end(1).unwrap();
    assert_eq!(end.status.code(), Some(1), "{end:#?}");
    let last = end.lines.last().unwrap();
    assert!(last.starts_with("kvnode: cannot "), "{end:#?}");
    assert!(
        last.contains("log-0") && last.contains("ulimit -f"),
        "{end:#?}"
    );
    cluster.run_under(1, &[]);
    cluster.restart([1]).unwrap();
    let clerk = cluster.clerk();
    for number in 0..acknowledged {
        let kept = clerk.get(format!("key-{number}")).unwrap();
        assert_eq!(kept.as_deref(), Some(&value[..]), "{number}");
    }
    clerk.put("key", "value").unwrap();
}
