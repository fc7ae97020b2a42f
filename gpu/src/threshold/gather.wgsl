// Moves the tiles' entries together.

@group(0) @binding(1) var<storage, read_write> scratch: array<u32>;
@group(0) @binding(2) var<storage, read_write> tiles: array<u32>;
@group(0) @binding(3) var<storage, read_write> counters: array<u32>;
@group(0) @binding(4) var<storage, read_write> list: array<u32>;

const TILE: u32 = 1024u;

@compute @workgroup_size(64)
fn gather(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let count = (p.len + TILE - 1u) / TILE;
    for (var tile = group.x; tile < count; tile += p.groups) {
        let to = tiles[tile];
        var end = counters[p.n.w];
        if tile + 1u < count {
            end = tiles[tile + 1u];
        }
        for (var i = me; i < end - to; i += 64u) {
            list[to + i] = scratch[tile * 2u * TILE + i];
        }
    }
}
