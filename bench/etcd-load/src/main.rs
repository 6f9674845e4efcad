//! Puts load on an etcd cluster, for comparison: what `kvcli bench` is for this store.
//!
//! ```console
//! $ cargo run --release -- 127.0.0.1:2379,127.0.0.1:22379 clients=64 kind=put
//! ```
//!
//! Debian has etcd, but no tool that loads it. This one is a client of etcd's gRPC interface, with
//! one thread, so that it takes no more of a small machine than what it is compared with. Each
//! client has one request under way. Clients share connections; a connection leads to the first
//! address and is opened to the next one when it breaks or when an answer is later than
//! `timeout_ms`. Options are `name=value` words, see `Plan::parse`. The result is one line of such
//! words, named as by `kvcli -o raw bench`.

mod etcd;
mod plan;
mod tally;

use std::cell::RefCell;
use std::error::Error;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use etcd::{Failed, Line, Request};
use plan::Plan;
use tally::Tally;
use tokio::task::LocalSet;

/// What ends the program: a sentence for standard error.
type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    match run() {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("etcd-load: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, Failure> {
    let plan = Plan::parse(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, load(Rc::new(plan)))
}

/// Runs all clients to their end, and returns the line with the result.
async fn load(plan: Rc<Plan>) -> Result<String, Failure> {
    let mut lines = Vec::new();
    for _ in 0..plan.connections {
        lines.push(Rc::new(Line::open(Rc::clone(&plan)).await?));
    }
    // The time that the connections took does not count.
    let tally = Rc::new(RefCell::new(Tally::new(Rc::clone(&plan), Instant::now())?));
    let clients: Vec<_> = (0..plan.clients)
        .map(|client| {
            let line = Rc::clone(&lines[client % lines.len()]);
            tokio::task::spawn_local(drive(client, Rc::clone(&plan), line, Rc::clone(&tally)))
        })
        .collect();
    for client in clients {
        client.await??;
    }
    let report = tally.borrow().report(Instant::now());
    Ok(report)
}

/// One client: one request after the other until the time is up or all keys are written.
async fn drive(
    client: usize,
    plan: Rc<Plan>,
    line: Rc<Line>,
    tally: Rc<RefCell<Tally>>,
) -> Result<(), etcd::Unreachable> {
    loop {
        let Some((key, begun)) = tally.borrow_mut().next(Instant::now()) else {
            return Ok(());
        };
        tokio::time::sleep_until(begun.into()).await;
        let request = Request::new(&plan, key);
        let (channel, attempt) = line.channel().await;
        let answer = line.call(channel, request).await;
        let ended = Instant::now();
        tally
            .borrow_mut()
            .ended(client, begun, ended, answer.is_ok());
        if let Err(Failed::Connection) = answer {
            line.reopen(attempt).await?;
        }
    }
}
