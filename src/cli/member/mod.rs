//! Shows the members of the cluster and changes them.
//!
//! The leader answers a request for a change as soon as the change is in its log, and the cluster
//! goes on with it by itself: a new voter catches up first, and the voters before and after the
//! change agree in a joint configuration. So kvcli asks for a report about the members again and
//! again, until the report shows that the change is done. [`words`] reads the command,
//! [`progress`] decides what a report says about the change, and [`list`] writes a report. Those
//! are pure; this file asks and waits.

pub mod list;
pub mod progress;
pub mod words;

use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use self::progress::{Goal, Now};
use super::interrupt::Interrupt;
use super::session::{Failure, exit};
use crate::client::{Clerk, Error, MembersChanged};
use crate::wire::members::ChangeRequest;

/// The longest pause between two requests for a report. The first pause is a twentieth of it, and
/// each is twice as long as the one before, up to the longest. An impatient client makes shorter
/// pauses: it has looked fifty times before it gives up.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A change of members that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What is so now, in a sentence.
    pub sentence: String,
    /// The index of the configuration in force.
    pub index: u64,
    /// Whether this command made the change. If false, it was made already or under way.
    pub is_new: bool,
}

/// Asks for a change and waits until it is done. The wait goes on as long as there is progress,
/// because nobody can guess how long a new member takes to catch up. It ends when there has been
/// none for as long as the Clerk's deadline. If standard error is a terminal, a line shows the
/// progress.
///
/// # Errors
/// [`Failure`]: the cluster refuses the change, the wait ended early, or Ctrl-C ended it. In the
/// last two cases the change goes on.
pub fn change(
    clerk: &Clerk,
    change: &ChangeRequest,
    force: bool,
    interrupt: &Interrupt,
) -> Result<Done, Failure> {
    let patience = clerk.options().deadline;
    let goal = Goal::of(change);
    let mut changed = ask(clerk, change, force)?;
    let bar = bar();
    let (mut deadline, mut before) = (Instant::now() + patience, None);
    let longest = LONGEST_PAUSE.min(patience / 50);
    let mut pause = longest / 20;
    let result = loop {
        let step = match look(clerk, &goal, &changed) {
            Ok(Now::Done { sentence, index }) => {
                let is_new = changed.is_new;
                break Ok(Done {
                    sentence,
                    index,
                    is_new,
                });
            }
            Ok(Now::Undone(sentence)) => break Err((exit::NO, sentence)),
            Ok(Now::TooSlow(sentence)) => break Err((exit::UNKNOWN, sentence)),
            Ok(Now::Lost) => {
                changed = ask(clerk, change, force)?;
                None
            }
            Ok(Now::Step { text, measure }) => {
                if before.replace(measure) != Some(measure) {
                    deadline = Instant::now() + patience;
                }
                Some(text)
            }
            Err(_) if interrupt.is_set() => None,
            Err(error) => Some(error.to_string()),
        };
        let text = step.unwrap_or_else(|| "the change begins again".into());
        if interrupt.is_set() {
            let sentence = "stopped waiting; the change goes on, and `kvcli member list` shows it";
            break Err((exit::INTERRUPTED, sentence.into()));
        }
        if Instant::now() >= deadline {
            break Err((exit::UNKNOWN, no_progress(patience, &text)));
        }
        bar.set_message(text);
        bar.tick();
        thread::sleep(pause);
        pause = (2 * pause).min(longest);
    };
    bar.finish_and_clear();
    result.map_err(|(code, sentence)| Failure::Member { sentence, code })
}

fn no_progress(patience: Duration, text: &str) -> String {
    let waited = patience.as_secs_f64();
    format!(
        "no progress for {waited:.1} s: {text}. The change goes on by itself; `kvcli member list` \
         shows it, and to wait again repeat the command"
    )
}

/// Asks the leader for the change. What its errors say about writes is said about changes here.
fn ask(clerk: &Clerk, change: &ChangeRequest, force: bool) -> Result<MembersChanged, Failure> {
    let maybe = "The change may have begun: `kvcli member list` shows it, and to repeat the \
                 command does no harm";
    let open = |code, what: String| Failure::Member {
        sentence: format!("{what}. {maybe}"),
        code,
    };
    clerk
        .change_members(change.clone(), force)
        .map_err(|error| match error {
            Error::Cancelled {
                maybe_executed: true,
            } => open(exit::INTERRUPTED, "cancelled".into()),
            Error::Unknown { asked, waited } => {
                let asked: Vec<_> = asked.iter().map(ToString::to_string).collect();
                let (waited, asked) = (waited.as_secs_f64(), asked.join("; "));
                let what =
                    format!("outcome unknown: nobody confirmed it within {waited:.1} s ({asked})");
                open(exit::UNKNOWN, what)
            }
            error => Failure::Client(error),
        })
}

fn look(clerk: &Clerk, goal: &Goal, changed: &MembersChanged) -> Result<Now, Error> {
    let report = clerk.members()?;
    Ok(progress::now(&report, goal, changed.index))
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template("{spinner} {msg}, {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
