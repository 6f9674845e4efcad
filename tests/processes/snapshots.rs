//! Snapshots by command, and what `kvnode` does with data folders when it runs no node: inspect,
//! back up, restore.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use raftkv::testkit::{Process, free_addresses};

use super::cluster::{Cluster, kvcli, kvnode, text};

/// Writes so many keys, as one client that has gone when this returns.
fn fill(cluster: &Cluster, keys: u32) {
    let clerk = cluster.clerk();
    for key in 0..keys {
        let value = format!("value {key} ").repeat(20);
        clerk.put(format!("key-{key}"), value).unwrap();
    }
}

fn check(cluster: &Cluster, keys: u32) {
    let clerk = cluster.clerk();
    for key in 0..keys {
        let value = format!("value {key} ").repeat(20);
        assert_eq!(clerk.get(format!("key-{key}")), Ok(Some(value.into())));
    }
}

/// Every file of a folder with all of its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    files
        .map(|file| {
            let name = file.file_name().into_string().unwrap();
            (name, fs::read(file.path()).unwrap())
        })
        .collect()
}

/// A stopped node with ten keys and a snapshot of them.
fn stopped() -> Cluster {
    let mut cluster = Cluster::start(1);
    fill(&cluster, 10);
    assert_eq!(cluster.run(&["snapshot"]).status.code(), Some(0));
    assert!(cluster.stop(1).unwrap().status.success());
    cluster
}

fn offline(command: &str, words: &[&Path]) -> Output {
    kvnode().arg(command).args(words).output().unwrap()
}

fn restore(cluster: &Cluster, id: u64, file: &Path, data: &Path) -> Output {
    let ids = cluster.ids().into_iter();
    let members: Vec<_> = ids
        .map(|id| format!("{id}={}", cluster.address(id)))
        .collect();
    let mut command = kvnode();
    command.arg("restore").arg(file).arg("--data").arg(data);
    command.args(["--id", &id.to_string(), "--cluster", &members.join(",")]);
    command.args(["--cluster-name", "second"]).output().unwrap()
}

/// The name of the first file in the folder that starts like this.
fn file_named(folder: &Path, start: &str) -> std::path::PathBuf {
    let names = contents(folder).into_keys();
    let mut names = names.filter(|name| name.starts_with(start));
    folder.join(names.next().expect("there is such a file"))
}

fn damage(file: &Path, offset: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[offset] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_snapshot_is_taken_when_it_is_asked_for_and_shown_in_the_status() {
    let cluster = Cluster::start_with(3, &["--snapshot-log-bytes", "-1"]);
    fill(&cluster, 50);
    let before = cluster.run(&["-o", "raw", "status"]);
    assert_eq!(text(&before.stdout).matches("snapshot_index=0 ").count(), 3);
    let taken = cluster.run(&["-o", "raw", "snapshot"]);
    assert_eq!(taken.status.code(), Some(0), "{taken:?}");
    assert_eq!(
        text(&taken.stdout).matches(" new=true").count(),
        3,
        "{taken:?}"
    );
    assert_eq!(text(&taken.stderr), "", "no bar where there is no terminal");
    let after = cluster.run(&["-o", "raw", "status"]);
    assert!(
        !text(&after.stdout).contains("snapshot_index=0 "),
        "{after:?}"
    );
    let table = cluster.run(&["-o", "table", "status"]);
    assert_eq!(text(&table.stdout).matches("s ago ┆").count(), 3);
    let nobody = cluster.run(&["snapshot", "4"]);
    assert_eq!(nobody.status.code(), Some(3), "{nobody:?}");
}

#[test]
fn who_waits_for_a_snapshot_at_a_terminal_sees_a_bar() {
    let cluster = Cluster::start_with(1, &["--snapshot-log-bytes", "-1"]);
    fill(&cluster, 50);
    let cli = cluster.cli();
    let words = std::iter::once(cli.get_program()).chain(cli.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let line = format!("{} snapshot", words.join(" "));
    // A terminal of its own: util-linux is there wherever the scripts of this repository run.
    let mut terminal = Command::new("script");
    terminal
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::null());
    let output = terminal.output().unwrap();
    let seen = text(&output.stdout);
    assert!(output.status.success(), "{seen}");
    assert!(seen.contains("writing snapshots ["), "{seen}");
    assert!(seen.contains("node 1: snapshot up to "), "{seen}");
}

#[test]
fn a_snapshot_is_taken_by_itself_after_as_much_log_as_was_set_and_only_once() {
    let cluster = Cluster::start_with(1, &["--snapshot-log-bytes", "4096"]);
    fill(&cluster, 50);
    cluster.node(1).line("snapshot up to");
    let word = |output: Output| text(&output.stdout).to_string();
    // Nothing is written between these two.
    assert!(word(cluster.run(&["-o", "raw", "snapshot", "1"])).contains("id=1 "));
    let again = word(cluster.run(&["-o", "table", "snapshot", "1"]));
    assert!(
        again.starts_with("node 1: nothing new since the snapshot up to "),
        "{again}"
    );
}

#[test]
fn a_backup_of_a_running_cluster_becomes_a_new_cluster_with_the_same_state() {
    let old = Cluster::start(3);
    fill(&old, 100);
    let leader = old.leader();
    let id = leader.to_string();
    assert_eq!(old.run(&["snapshot", &id]).status.code(), Some(0));
    let file = old.folder().join("backup");
    let output = offline("backup", &[&old.data(leader), &file]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output.stdout).contains("members 1, 2, 3"),
        "{output:?}"
    );

    let mut new = Cluster::start_as(5, |new| {
        for id in new.ids() {
            let output = restore(new, id, &file, &new.data(id));
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            new.give(id, &["--cluster-name", "second"]);
        }
    });
    check(&new, 100);
    fill(&new, 120);
    new.kill(1..=5).unwrap();
    new.restart(1..=5).unwrap();
    check(&new, 120);
}

#[test]
fn neither_a_backup_nor_a_restore_replaces_anything() {
    let cluster = stopped();
    let (data, folder) = (cluster.data(1), cluster.folder());
    let (file, used) = (folder.join("backup"), folder.join("used"));
    assert_eq!(offline("backup", &[&data, &file]).status.code(), Some(0));
    let copy = fs::read(&file).unwrap();
    let output = offline("backup", &[&data, &file]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        text(&output.stderr).contains("it is there already"),
        "{output:?}"
    );
    fs::create_dir(&used).unwrap();
    fs::write(used.join("notes"), "mine").unwrap();
    let output = restore(&cluster, 1, &file, &used);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        text(&output.stderr).contains("it is not empty"),
        "{output:?}"
    );
    assert_eq!(contents(&used).len(), 1);
    assert_eq!(fs::read(&file).unwrap(), copy);
}

#[test]
fn a_damaged_backup_makes_no_folder_and_a_damaged_snapshot_no_backup() {
    let cluster = stopped();
    let (data, folder) = (cluster.data(1), cluster.folder());
    let (file, other) = (folder.join("backup"), folder.join("other"));
    assert_eq!(offline("backup", &[&data, &file]).status.code(), Some(0));
    let sound = fs::read(&file).unwrap();
    for offset in [100, 4096 + 100, sound.len() - 4000] {
        fs::write(&file, &sound).unwrap();
        damage(&file, offset);
        let output = restore(&cluster, 1, &file, &other);
        assert_eq!(output.status.code(), Some(4), "{offset}: {output:?}");
        let error = text(&output.stderr);
        assert!(error.contains("backup is damaged") && error.contains("another backup"));
        assert!(!other.exists() && !folder.join("other.new").exists());
    }
    damage(&file_named(&data, "snapshot-"), 5000);
    let output = offline("backup", &[&data, &other]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        text(&output.stderr).contains("it holds no valid snapshot"),
        "{output:?}"
    );
    assert!(!other.exists());
}

#[test]
fn inspecting_a_sound_folder_tells_what_it_holds_also_while_its_node_runs() {
    let mut cluster = stopped();
    let output = offline("inspect", &[&cluster.data(1)]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = text(&output.stdout);
    for part in [
        "node       1 of cluster \"raftkv\"",
        "vote for node 1",
        "log        log-00000000000000000001: entries 1 to ",
        "snapshot   snapshot-",
        "sound: all checksums hold",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    cluster.restart([1]).unwrap();
    check(&cluster, 10);
    let output = offline("inspect", &[&cluster.data(1)]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn inspecting_a_damaged_folder_finds_all_damage_and_changes_nothing() {
    let cluster = stopped();
    let data = cluster.data(1);
    fs::remove_file(data.join("lock")).unwrap();
    damage(&file_named(&data, "log-"), 4096 + 40);
    damage(&file_named(&data, "snapshot-"), 4096 + 100);
    damage(&data.join("vote"), 100);
    let before = contents(&data);
    let output = offline("inspect", &[&data]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let shown = text(&output.stdout);
    let damage = shown.lines().filter(|line| line.starts_with("damage "));
    let damage: Vec<_> = damage.collect();
    for part in ["vote", "log-00000000000000000001 is damaged", "snapshot-"] {
        assert!(
            damage.iter().any(|line| line.contains(part)),
            "{part}: {shown}"
        );
    }
    assert!(shown.contains("the node would not start"), "{shown}");
    assert!(contents(&data) == before, "a file was changed");
}

#[test]
fn a_folder_that_is_none_is_no_folder_to_inspect() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let cases = [
        (folder.path(), 4, "identity: this is no data folder"),
        (&missing, 2, "there is no "),
    ];
    for (path, code, expected) in cases {
        for words in [vec![path], vec![path, Path::new("file")]] {
            let command = ["inspect", "backup"][words.len() - 1];
            let output = offline(command, &words);
            assert_eq!(output.status.code(), Some(code), "{output:?}");
            assert!(text(&output.stderr).contains(expected), "{output:?}");
        }
    }
    assert!(!missing.exists());
    // An option of the node in the environment does not get in the way.
    let output = kvnode()
        .env("RAFTKV_ID", "x")
        .args(["inspect", "--help"])
        .output();
    assert_eq!(output.unwrap().status.code(), Some(0));
}

#[test]
fn a_node_that_has_applied_nothing_has_nothing_to_take_a_snapshot_of() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = free_addresses(3).unwrap();
    let members: Vec<_> = (1..)
        .zip(&addresses)
        .map(|(id, address)| format!("{id}={address}"))
        .collect();
    let mut command = kvnode();
    command.args(["--id", "1", "--cluster", &members.join(","), "--data"]);
    let node = Process::spawn(command.arg(folder.path())).unwrap();
    node.line("starts in term");
    let address = addresses[0].to_string();
    let words = ["--cluster", &address, "-o", "table", "snapshot", "1"];
    let output = kvcli().args(words).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout), "node 1: it has applied nothing yet\n");
}
