//! What the target of snapshots starts from.

/// Every kind with one change of each kind, and parts in several orders.
pub fn seeds() -> Vec<Vec<u8>> {
    let parts: [&[u8]; 4] = [
        &[0, 0],
        &[0, 3, 0, 255, 200, 5, 60, 0, 10],
        &[0, 4, 0, 70, 0, 70, 255, 0, 100],
        &[255, 1, 2, 0, 100, 0, 100],
    ];
    let edits: [&[u8]; 8] = [
        &[0],
        &[1, 20, 0],
        &[1, 80, 1, 3, 1, 2, 3],
        &[1, 64, 2, 12],
        &[1, 28, 3, 245],
        &[1, 64, 4, 3],
        &[1, 64, 5, 40, 190, 90],
        &[1, 200, 100, 100, 6, 2, 9, 9],
    ];
    let mut seeds = Vec::new();
    for (shape, parts) in (0..8).zip(parts.iter().cycle()) {
        match shape >> 1 {
            0 | 1 => seeds.extend(edits.map(|edit| [&[shape], edit, parts].concat())),
            2 => seeds.push([&[shape, 70, 8], *parts].concat()),
            _ => seeds.push([&[shape], *parts].concat()),
        }
    }
    seeds
}
