//! `kvcli bench` on a cluster of processes.

use std::fs;
use std::process::Stdio;

use super::cluster::{Cluster, kvcli, text};

#[test]
fn a_benchmark_reports_as_text_as_json_and_as_a_picture() {
    let cluster = Cluster::start(1);
    let file = |name: &str| cluster.folder().join(name);
    let (json, svg) = (file("report.json"), file("report.svg"));
    let paths = [json.to_str().unwrap(), svg.to_str().unwrap()];
    let mix = "put=2,append=1,get=2,delete=1";
    let output = cluster.run(&[
        "bench",
        "-n",
        "500",
        "-w",
        "0",
        "-c",
        "5",
        "-C",
        "2",
        "-P",
        "3",
        "-k",
        "50",
        "--prefill",
        "-d",
        "zipfian",
        "-m",
        mix,
        "--json",
        paths[0],
        "--svg",
        paths[1],
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("requests/s"), "{output:?}");
    let report = fs::read(&json).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(
        (&report["requests"], &report["failures"]),
        (&500.into(), &0.into())
    );
    let kinds = ["put", "append", "get", "delete"].map(|kind| &report["latency_us"][kind]);
    let counts = kinds.map(|latency| latency["count"].as_u64().unwrap());
    assert_eq!(counts.iter().sum::<u64>(), 500, "{counts:?}");
    let picture = fs::read_to_string(&svg).unwrap();
    assert!(
        picture.starts_with("<svg") && picture.contains("p99"),
        "{picture:.300}"
    );
}

#[test]
fn requests_that_are_due_are_begun_on_time_and_late_ones_are_counted() {
    let cluster = Cluster::start(1);
    let run = |rate: &str| {
        let words = ["-o", "json", "bench", "-s", "0.5", "-w", "0", "-r", rate];
        let output = cluster.run(&words);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    assert_eq!(run("20")["requests"], 10);
    // Nobody executes so many one after the other.
    let report = run("1000000");
    let [begun, not_begun] = ["requests", "not_begun"].map(|name| report[name].as_u64().unwrap());
    assert!(not_begun > 10 * begun, "{begun} {not_begun}");
    assert!(
        (490_000..=500_000).contains(&(begun + not_begun)),
        "{begun} {not_begun}"
    );
}

#[test]
fn each_append_of_a_benchmark_is_executed_once_though_the_leader_dies() {
    let mut cluster = Cluster::start(3);
    let (appends, size) = (4000, 10);
    let count = appends.to_string();
    let words = [
        "-o", "json", "bench", "-m", "append", "-k", "1", "-v", "10", "-c", "4", "-w", "0",
    ];
    let bench = cluster
        .cli()
        .args(words)
        .args(["-n", &count])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let clerk = cluster.clerk();
    let value = || clerk.get("b000000000000000").unwrap().unwrap_or_default();
    while value().len() < appends * size / 8 {}
    let leader = cluster.leader();
    cluster.kill([leader]).unwrap();
    let output = bench.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["requests"], &report["failures"]),
        (&appends.into(), &0.into())
    );
    assert!(report["retries"].as_u64() > Some(0), "{report}");
    assert_eq!(value().len(), appends * size);
}

#[test]
fn the_help_of_the_benchmark_is_where_help_is_looked_for() {
    let output = kvcli().args(["help", "bench"]).output().unwrap();
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("--rate"));
}
