//! The report of a run: as text for a person, and as JSON for a program.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::session::exit;
use super::clients::Counts;
use super::load::Kind;
use super::measure::{Gap, Latencies, Measure};

/// The percentiles in the report, with their names.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// The content of a report, before it is written as text or as JSON.
#[derive(Debug)]
pub struct Report {
    /// The options of the benchmark, as JSON.
    pub config: Value,
    /// The servers that the clients knew at the end.
    pub servers: Vec<String>,
    /// The latencies, gaps and errors that were measured.
    pub measure: Measure,
    /// The counters of the clients during the measurement.
    pub counts: Counts,
    /// The processor time that kvcli took during the measurement.
    pub cpu: Duration,
    /// In open loop, how many requests were due and were never sent, because no client was free.
    pub not_begun: u64,
    /// Whether Ctrl-C ended the run early.
    pub interrupted: bool,
}

impl Report {
    /// The exit code: "interrupted" after Ctrl-C, "unavailable" if no request succeeded, else
    /// "done".
    pub fn code(&self) -> u8 {
        if self.interrupted {
            exit::INTERRUPTED
        } else if self.measure.successes() == 0 {
            exit::UNAVAILABLE
        } else {
            exit::DONE
        }
    }

    /// How much processor time kvcli took for each request, in microseconds.
    fn cpu_us(&self) -> f64 {
        let requests = self.measure.successes() + self.measure.failures();
        self.cpu.as_secs_f64() * 1e6 / requests.max(1) as f64
    }

    /// The report as text, for a person.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let measure = &self.measure;
        let early = if self.interrupted {
            ", ended early"
        } else {
            ""
        };
        let seconds = measure.length().as_secs_f64();
        writeln!(
            out,
            "{:.0} requests/s: {} in {seconds:.2} s{early}",
            measure.throughput(),
            measure.successes(),
        )?;
        writeln!(out)?;
        write!(out, "{:<10}{:>10}", "us", "count")?;
        for (name, _) in QUANTILES {
            write!(out, "{name:>10}")?;
        }
        writeln!(out, "{:>11}{:>10}", "max", "mean")?;
        let kinds = Kind::ALL
            .into_iter()
            .map(|kind| (kind.to_string(), measure.kind(kind)));
        let kinds: Vec<_> = kinds
            .filter(|(_, latencies)| !latencies.is_empty())
            .collect();
        for (name, latencies) in &kinds {
            row(out, name, latencies)?;
        }
        if kinds.len() > 1 {
            row(out, "all", &measure.all())?;
        }
        self.write_trouble(out)
    }

    /// Writes the errors, the gaps, and the processor time into the report for a person.
    fn write_trouble(&self, out: &mut String) -> std::fmt::Result {
        let measure = &self.measure;
        writeln!(out)?;
        for (name, (count, first)) in measure.errors() {
            writeln!(out, "errors, {name}: {count}, the first of them: {first}")?;
        }
        if self.not_begun > 0 {
            writeln!(
                out,
                "not begun: {} requests were due, but all clients waited for answers",
                self.not_begun
            )?;
        }
        let (client, all) = measure.gaps();
        writeln!(
            out,
            "longest gap: {} of one client, {} of all",
            gap(client),
            gap(all)
        )?;
        let Counts {
            attempts,
            retries,
            repeats_in_doubt,
            sessions,
            leader_changes,
        } = self.counts;
        writeln!(
            out,
            "attempts {attempts}, retries {retries} ({repeats_in_doubt} of writes in doubt), \
             sessions opened anew {sessions}, changes of leader {leader_changes}"
        )?;
        writeln!(
            out,
            "the generator took {:.2} s of processor time, {:.2} us for each request",
            self.cpu.as_secs_f64(),
            self.cpu_us()
        )
    }

    /// The main figures in one line of `name=value` words, for scripts.
    pub fn line(&self) -> String {
        let measure = &self.measure;
        let all = measure.all();
        let percentiles = QUANTILES.map(|(name, quantile)| {
            format!("{name}_us={:.1}", us(all.value_at_quantile(quantile)))
        });
        let (client, gap) = measure.gaps();
        let ms = |gap: Gap| gap.length.as_secs_f64() * 1000.0;
        format!(
            "throughput={:.0} requests={} failures={} seconds={:.3} {} max_us={:.1} \
             client_gap_ms={:.1} gap_ms={:.1} retries={} leader_changes={} not_begun={} \
             generator_us={:.2}\n",
            measure.throughput(),
            measure.successes(),
            measure.failures(),
            measure.length().as_secs_f64(),
            percentiles.join(" "),
            us(all.max()),
            ms(client),
            ms(gap),
            self.counts.retries,
            self.counts.leader_changes,
            self.not_begun,
            self.cpu_us(),
        )
    }

    /// The whole report as JSON, for programs.
    pub fn json(&self) -> Value {
        let measure = &self.measure;
        let mut latency = Map::new();
        latency.insert("all".into(), latencies_json(&measure.all()));
        for kind in Kind::ALL {
            if !measure.kind(kind).is_empty() {
                latency.insert(kind.to_string(), latencies_json(measure.kind(kind)));
            }
        }
        let errors: Map<String, Value> = measure
            .errors()
            .iter()
            .map(|(name, (count, first))| (name.clone(), json!({"count": count, "first": first})))
            .collect();
        let (client, all) = measure.gaps();
        let (length, moments) = measure.moments();
        let series: Vec<Value> = moments
            .iter()
            .enumerate()
            .map(|(place, moment)| {
                json!({
                    "s": round(length.as_secs_f64() * place as f64, 3),
                    "successes": moment.successes, "failures": moment.failures,
                    "p50_us": moment.p50_us, "p99_us": moment.p99_us, "max_us": moment.max_us,
                })
            })
            .collect();
        json!({
            "config": self.config,
            "servers": self.servers,
            "seconds": measure.length().as_secs_f64(),
            "interrupted": self.interrupted,
            "requests": measure.successes(),
            "throughput": round(measure.throughput(), 1),
            "latency_us": latency,
            "failures": measure.failures(),
            "errors": errors,
            "not_begun": self.not_begun,
            "attempts": self.counts.attempts,
            "retries": self.counts.retries,
            "repeats_in_doubt": self.counts.repeats_in_doubt,
            "sessions_reopened": self.counts.sessions,
            "leader_changes": self.counts.leader_changes,
            "longest_gap_ms": {"client": gap_json(client), "all": gap_json(all)},
            "generator": {
                "processor_s": self.cpu.as_secs_f64(),
                "processor_us_per_request": round(self.cpu_us(), 3),
            },
            "series": {"moment_s": length.as_secs_f64(), "moments": series},
        })
    }
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

fn round(number: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (number * scale).round() / scale
}

fn row(out: &mut String, name: &str, latencies: &Latencies) -> std::fmt::Result {
    write!(out, "{name:<10}{:>10}", latencies.len())?;
    for (_, quantile) in QUANTILES {
        write!(out, "{:>10.1}", us(latencies.value_at_quantile(quantile)))?;
    }
    let (max, mean) = (us(latencies.max()), latencies.mean() / 1000.0);
    writeln!(out, "{max:>11.1}{mean:>10.1}")
}

fn latencies_json(latencies: &Latencies) -> Value {
    let mut all = Map::new();
    all.insert("count".into(), latencies.len().into());
    for (name, quantile) in QUANTILES {
        all.insert(
            name.into(),
            us(latencies.value_at_quantile(quantile)).into(),
        );
    }
    all.insert("max".into(), us(latencies.max()).into());
    all.insert("mean".into(), round(latencies.mean() / 1000.0, 3).into());
    all.into()
}

fn gap(gap: Gap) -> String {
    format!("{:.1} ms", gap.length.as_secs_f64() * 1000.0)
}

fn gap_json(gap: Gap) -> Value {
    json!({
        "ms": round(gap.length.as_secs_f64() * 1000.0, 3),
        "since_s": round(gap.since.as_secs_f64(), 3),
    })
}
