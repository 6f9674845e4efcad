//! Shell scripts stop at the first error, and signal only the processes that they started.

use crate::source::{File, Finding};

/// How a script begins: with bash, and with the options that turn a slip into an error.
pub fn header(file: &File, findings: &mut Vec<Finding>) {
    if !file.is_shell() {
        return;
    }
    if file.text.lines().next() != Some("#!/usr/bin/env bash") {
        findings.push(file.finding(1, "a script begins with `#!/usr/bin/env bash`"));
    }
    let mut commands = file
        .text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let (number, first) = commands.next().unwrap_or_default();
    if first != "set -euo pipefail" {
        let rule = "the first command of a script is `set -euo pipefail`";
        findings.push(file.finding(number + 1, rule));
    }
}

/// Signals go to process ids that a script knows, never to a name.
pub fn signals(file: &File, findings: &mut Vec<Finding>) {
    if !file.is_shell() {
        return;
    }
    for (number, line) in file.text.lines().enumerate() {
        for command in ["pkill", "killall", "skill", "fuser -k"] {
            let parts: Vec<&str> = line.split(command).collect();
            let alone = parts.windows(2).any(|pair| {
                let word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
                !pair[0].ends_with(word) && !pair[1].starts_with(word)
            });
            if alone {
                let rule = format!("`{command}` hits what others run; `kill` a known process id");
                findings.push(file.finding(number + 1, rule));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(rule: fn(&File, &mut Vec<Finding>), path: &str, text: &str) -> Vec<usize> {
        let mut findings = Vec::new();
        rule(&File::new(path, text), &mut findings);
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_script_without_its_header_is_found() {
        let good = "#!/usr/bin/env bash\n# Why.\n\nset -euo pipefail\n";
        assert_eq!(judged(header, "x.sh", good), [0; 0]);
        assert_eq!(
            judged(header, ".ci/run", "#!/bin/sh\nset -euo pipefail\n"),
            [1]
        );
        assert_eq!(
            judged(header, "x.sh", "#!/usr/bin/env bash\nset -eu\n"),
            [2]
        );
        assert_eq!(judged(header, "x.sh", ""), [1, 1]);
        assert_eq!(judged(header, "x.rs", ""), [0; 0]);
    }

    #[test]
    fn a_signal_to_a_name_is_found() {
        assert_eq!(
            judged(signals, "x.sh", "kill 1\npkill kvnode\n$(killall x)\n"),
            [2, 3]
        );
        assert_eq!(
            judged(signals, "x.sh", "kill -9 \"$pid\"; my_pkill\n"),
            [0; 0]
        );
    }
}
