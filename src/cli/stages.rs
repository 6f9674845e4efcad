//! Shows how long commands take in each stage of their way through a node, as a table and as JSON.

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::raft::NodeId;
use crate::wire::client::{Stage, Status};

/// Makes a table for all nodes that answer. The table has a row for each stage through which a
/// batch of entries has passed in the last 10 to 20 seconds; `None` if there is no such stage on
/// any node.
pub fn table<'a>(nodes: impl Iterator<Item = &'a Status>) -> Option<String> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["id", "stage", "count", "p50 us", "p99 us", "max us"]);
    for status in nodes {
        let passed = status.stages.iter().filter(|stage| stage.count > 0);
        for (place, stage) in passed.enumerate() {
            table.add_row(row((place == 0).then_some(status.id), stage));
        }
    }
    let caption = "how long batches took in each stage, in the last 10 to 20 seconds:";
    (!table.is_empty()).then(|| format!("{caption}\n{table}\n"))
}

/// Makes the row of one stage. Only the first row of each node shows the node's `id`.
fn row(id: Option<NodeId>, stage: &Stage) -> Vec<Cell> {
    let id = id.map_or(String::new(), |id| id.to_string());
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut row = vec![right(id), Cell::new(&stage.name)];
    row.push(right(stage.count.to_string()));
    let times = [stage.p50_ns, stage.p99_ns, stage.max_ns];
    row.extend(times.map(|ns| right(format!("{:.1}", ns as f64 / 1000.0))));
    row
}

/// All stages of a node as JSON, with times in nanoseconds. Stages through which no batch passed
/// are included.
pub fn json(stages: &[Stage]) -> Value {
    let stages = stages.iter().map(|stage| {
        json!({
            "name": stage.name,
            "count": stage.count,
            "p50_ns": stage.p50_ns,
            "p99_ns": stage.p99_ns,
            "max_ns": stage.max_ns,
        })
    });
    stages.collect()
}
