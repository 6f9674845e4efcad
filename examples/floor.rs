//! What this machine allows at the best: how long a sync takes, and a round trip over loopback.
//!
//! ```console
//! $ cargo run --release --example floor -- sync FOLDER BYTES    # writes, each with fdatasync
//! $ cargo run --release --example floor -- logs FOLDER SECONDS  # three at a time, without pause
//! $ cargo run --release --example floor -- echo PORT            # answers what it is sent
//! $ cargo run --release --example floor -- trip HOST:PORT       # asks the other one
//! ```
//!
//! `echo` ends when the first caller has left. With `taskset -c` before each, the round trip is
//! one within a core or between two. The result is a line of `name=value` words, in microseconds.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

type Failure = Box<dyn Error>;

const COUNT: usize = 1000;

/// About the size of a small request and of its answer, in bytes.
const MESSAGE: usize = 128;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["sync", folder, bytes] => sync(Path::new(folder), bytes.parse()?),
        ["logs", folder, seconds] => logs(Path::new(folder), seconds.parse()?),
        ["echo", port] => echo(port.parse()?),
        ["trip", address] => trip(address),
        _ => Err("say sync FOLDER BYTES, logs FOLDER SECONDS, echo PORT or trip HOST:PORT".into()),
    }
}

/// Into a file that has its space and is filled with zeros, and into one that grows.
fn sync(folder: &Path, bytes: usize) -> Result<(), Failure> {
    let block = vec![1; bytes];
    for (name, is_filled) in [("allocated", true), ("growing", false)] {
        let path = folder.join(format!("floor-{}.tmp", std::process::id()));
        let file = File::options().write(true).create_new(true).open(&path)?;
        let result = (|| {
            if is_filled {
                file.write_all_at(&vec![0; COUNT * bytes], 0)?;
            }
            file.sync_all()?;
            measure(|place| {
                file.write_all_at(&block, (place * bytes) as u64)?;
                Ok(file.sync_data()?)
            })
        })();
        std::fs::remove_file(&path)?;
        report(&format!("{name}_{bytes}"), result?);
    }
    println!();
    Ok(())
}

/// What the disk makes of three logs on it, each a file that has its space.
fn logs(folder: &Path, seconds: u64) -> Result<(), Failure> {
    let until = Instant::now() + Duration::from_secs(seconds);
    let threads = [1, 2, 3].map(|log| {
        let path = folder.join(format!("floor-{}-{log}.tmp", std::process::id()));
        thread::spawn(move || log_until(&path, until).map_err(|error| error.to_string()))
    });
    let mut times = Vec::new();
    for thread in threads {
        times.extend(thread.join().map_err(|_| "a writer panicked")??);
    }
    report("three_512", times);
    println!();
    Ok(())
}

fn log_until(path: &Path, until: Instant) -> io::Result<Vec<Duration>> {
    const BLOCK: usize = 512;
    let file = File::options().write(true).create_new(true).open(path)?;
    let mut times = Vec::new();
    let result = (|| {
        file.write_all_at(&vec![0; COUNT * BLOCK], 0)?;
        file.sync_all()?;
        for place in (0..COUNT).cycle() {
            let begun = Instant::now();
            if begun >= until {
                break;
            }
            file.write_all_at(&[1; BLOCK], (place * BLOCK) as u64)?;
            file.sync_data()?;
            times.push(begun.elapsed());
        }
        Ok(())
    })();
    std::fs::remove_file(path)?;
    result.map(|()| times)
}

fn echo(port: u16) -> Result<(), Failure> {
    let (mut stream, _) = TcpListener::bind(("127.0.0.1", port))?.accept()?;
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE];
    // The caller's leaving is the end, not an error.
    while stream.read_exact(&mut message).is_ok() {
        stream.write_all(&message)?;
    }
    Ok(())
}

fn trip(address: &str) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut message = [7; MESSAGE];
    let times = measure(|_| {
        stream.write_all(&message)?;
        Ok(stream.read_exact(&mut message)?)
    })?;
    report("trip", times);
    println!();
    Ok(())
}

fn measure(mut once: impl FnMut(usize) -> Result<(), Failure>) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::with_capacity(COUNT);
    for place in 0..COUNT {
        let begun = Instant::now();
        once(place)?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |permille: usize| times[(times.len() - 1) * permille / 1000].as_micros();
    print!("{what}_p50_us={} {what}_p99_us={} ", at(500), at(990));
    print!("{what}_p999_us={} {what}_max_us={} ", at(999), at(1000));
}
