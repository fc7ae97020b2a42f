// Third pass over a chunk: moves the tiles' entries from their places in `scratch` to the list, in order.
//
// The passes before are `take` and `count` in threshold.wgsl. Half of a workgroup handles a tile, and an invocation
// handles the entries of 32 elements: one word of a mask.

@group(0) @binding(1) var<storage, read_write> scratch: array<u32>;
// First word of each tile in the list.
@group(0) @binding(2) var<storage, read_write> tiles: array<u32>;
@group(0) @binding(3) var<storage, read_write> counters: array<u32>;
@group(0) @binding(4) var<storage, read_write> list: array<u32>;
@group(0) @binding(5) var<storage, read_write> masks: array<u32>;

const TILE: u32 = 1024u;

var<workgroup> words: array<u32, 64>;

@compute @workgroup_size(64)
fn gather(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let count = (p.len + TILE - 1u) / TILE;
    let pairs = (count + 1u) / 2u;
    let groups = p.groups;
    let each = (pairs + groups - 1u) / groups;
    let last = min(pairs, (group.x + 1u) * each);
    for (var pair = group.x * each; pair < last; pair++) {
        let tile = 2u * pair + me / 32u;
        let lane = me % 32u;
        var entries = 0u;
        var longer = 0u;
        if tile < count {
            entries = masks[tile * 64u + lane];
            longer = masks[tile * 64u + 32u + lane];
        }
        words[me] = countOneBits(entries) + countOneBits(longer);
        workgroupBarrier();
        // Most words of a mask are 0, because messages are sparse.
        if entries != 0u {
            var to = tiles[tile];
            for (var k = me - lane; k < me; k++) {
                to += words[k];
            }
            let first = 2u * (tile * TILE + lane * 32u);
            while entries != 0u {
                let bit = countTrailingZeros(entries);
                entries &= entries - 1u;
                list[to] = scratch[first + 2u * bit];
                to += 1u;
                if (longer & (1u << bit)) != 0u {
                    list[to] = scratch[first + 2u * bit + 1u];
                    to += 1u;
                }
            }
        }
        // `words` is written again in the next iteration.
        workgroupBarrier();
    }
}
