use std::process::Stdio;

use super::*;

/// A shell that says its process id, and then waits for ever.
fn waiting() -> (Process, u32) {
    let mut command = program("sh");
    command.args(["-c", "echo id $$ >&2; exec tail -f /dev/null"]);
    let process = Process::spawn(&mut command).unwrap();
    let line = process.line("id ");
    (process, line["id ".len()..].parse().unwrap())
}

fn runs(pid: u32) -> bool {
    let mut kill = Command::new("sh");
    let kill = kill.args(["-c", &format!("kill -0 {pid}")]);
    kill.stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn a_process_that_is_dropped_has_ended_even_if_it_was_frozen() {
    for frozen in [false, true] {
        let (process, pid) = waiting();
        if frozen {
            process.signal("STOP").unwrap();
        }
        assert!(runs(pid));
        drop(process);
        assert!(!runs(pid), "frozen: {frozen}");
    }
}

#[test]
fn a_process_that_ends_by_itself_tells_its_status_and_its_lines() {
    let mut command = program("sh");
    command.args(["-c", "echo one >&2; printf '\\377' >&2; exit 7"]);
    let process = Process::spawn(&mut command).unwrap();
    assert_eq!(process.line_if_any("two"), None);
    let end = process.end().unwrap();
    assert_eq!(end.status.code(), Some(7));
    assert_eq!(end.lines, ["one", "\u{fffd}"]);
}

#[test]
fn addresses_are_given_out_once() {
    let addresses: BTreeSet<_> = free_addresses(2000).unwrap().into_iter().collect();
    assert_eq!(addresses.len(), 2000);
}
