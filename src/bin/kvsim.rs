fn main() {
    let mut total = 0.0;
    let start = std::time::Instant::now();
    let args: Vec<String> = std::env::args().collect();
    let from: u64 = args[1].parse().unwrap();
    let n: u64 = args[2].parse().unwrap();
    let trace = if args.len() > 3 { raftkv::sim::Trace::Print } else { raftkv::sim::Trace::Off };
    for seed in from..from + n {
        let report = raftkv::sim::run(raftkv::sim::Options { seed, trace });
        total += report.stats.virtual_us as f64 / 1e6;
        if let Some(f) = report.failure { println!("seed {seed}: {f}"); }
        if n == 1 { println!("{:?}", report.stats); }
    }
    println!("{n} seeds, {total} s virtual, {:?}", start.elapsed());
}
