//! How long one client waits for a write, beside what the disk alone takes.
//!
//! ```console
//! $ scripts/cluster.sh start
//! $ cargo run --release --example latency -- 127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003
//! $ scripts/cluster.sh stop
//! ```
//!
//! A thousand puts of 128 bytes, one after the other; then as many writes of 512 bytes into a file
//! that is allocated and filled, each followed by `fdatasync`, in the folder that is given as the
//! second argument (the present one by default). Times are in microseconds.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use raftkv::client::Clerk;

const COUNT: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let servers = arguments
        .next()
        .ok_or("which servers? HOST:PORT,HOST:PORT,...")?;
    let folder = arguments.next().unwrap_or_else(|| ".".to_string());

    let clerk = Clerk::connect(servers.split(','))?;
    clerk.put("latency/warm-up", "")?;
    let value = [b'x'; 128];
    let puts = measure(|n| Ok(clerk.put(format!("latency/{n:07}"), value)?))?;
    let gets = measure(|n| {
        clerk
            .get(format!("latency/{n:07}"))
            .map(drop)
            .map_err(Into::into)
    })?;
    report("put", puts);
    report("get", gets);
    report("fdatasync", syncs(Path::new(&folder))?);
    Ok(())
}

fn syncs(folder: &Path) -> Result<Vec<Duration>, Box<dyn Error>> {
    let path = folder.join("latency.tmp");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    file.write_all_at(&vec![0; COUNT * 512], 0)?;
    file.sync_all()?;
    let times = measure(|n| {
        file.write_all_at(&[1; 512], n as u64 * 512)?;
        Ok(file.sync_data()?)
    });
    std::fs::remove_file(&path)?;
    times
}

fn measure(
    mut once: impl FnMut(usize) -> Result<(), Box<dyn Error>>,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut times = Vec::with_capacity(COUNT);
    for n in 0..COUNT {
        let begun = Instant::now();
        once(n)?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |permille: usize| times[(times.len() - 1) * permille / 1000].as_micros();
    let (p50, p99, most) = (at(500), at(990), at(1000));
    let total = times.iter().sum::<Duration>().as_millis();
    println!("{what:<10} p50 {p50:>6}  p99 {p99:>6}  max {most:>6} us   {COUNT} in {total} ms");
}
