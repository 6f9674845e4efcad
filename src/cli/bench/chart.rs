//! The picture of a run.

use super::report::Report;

/// Latency over time, and by percentile, as SVG.
pub fn svg(_report: &Report) -> String {
    String::new()
}
