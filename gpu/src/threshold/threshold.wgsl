// Takes quanta out of residual + update, in one pass over both: tiles of 1,024 elements, each handled by 64 invocations, which
// write the tile's entries in order to a place of its own. Then the tiles are counted up, and their entries moved together. No
// invocation waits for another workgroup, and the order of entries does not depend on the order in which workgroups run.

@group(0) @binding(1) var<storage, read_write> update: array<u32>;
@group(0) @binding(2) var<storage, read_write> residual: array<u32>;
// Two words per element.
@group(0) @binding(3) var<storage, read_write> scratch: array<u32>;
// Words of each tile; then where they begin in the list.
@group(0) @binding(4) var<storage, read_write> tiles: array<u32>;
@group(0) @binding(5) var<storage, read_write> counters: array<atomic<u32>>;

// Of `counters`: the threshold and the quantum, as floats; what follows is added up.
const THRESHOLD: u32 = 0u;
const TAU: u32 = 1u;
const ENTRIES: u32 = 2u;
const REFUSED: u32 = 3u;
const FIRST_REFUSED: u32 = 4u;

const INVOCATIONS: u32 = 64u;
const EACH: u32 = 16u;
const TILE: u32 = 1024u;
const MORE: u32 = 0x40000000u;
const QUANTA_MAX: u32 = 32767u;

// A bit per element of the tile: it has an entry; that has a second word.
var<workgroup> entries: array<atomic<u32>, 32>;
var<workgroup> longer: array<atomic<u32>, 32>;
// Words before each 32 elements.
var<workgroup> before: array<u32, 33>;
var<workgroup> squares: array<f32, 64>;

// trunc(magnitude / tau), tau a power of two up to it.
fn quanta(magnitude: u32, tau: u32) -> u32 {
    let apart = (magnitude >> 23u) - (tau >> 23u);
    if apart >= 15u {
        return QUANTA_MAX;
    }
    return ((magnitude & 0x7fffffu) | 0x800000u) >> (23u - apart);
}

@compute @workgroup_size(64)
fn take(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let threshold = atomicLoad(&counters[THRESHOLD]);
    let tau = atomicLoad(&counters[TAU]);
    let count = (p.len + TILE - 1u) / TILE;
    var total = 0.0;
    for (var tile = group.x; tile < count; tile += p.groups) {
        if me < 32u {
            atomicStore(&entries[me], 0u);
            atomicStore(&longer[me], 0u);
        }
        workgroupBarrier();
        var word: array<u32, 16>;
        var more: array<u32, 16>;
        for (var k = 0u; k < EACH; k++) {
            let within = k * INVOCATIONS + me;
            let i = tile * TILE + within;
            word[k] = 0u;
            more[k] = 0u;
            if i >= p.len {
                continue;
            }
            let old = residual[p.at.y + i];
            // Without an update, 0 is added all the same: it makes -0 a 0.
            var came = 0u;
            if p.n.y == 1u {
                came = update[p.at.x + i];
            }
            var acc = sum(old, came);
            let magnitude = acc & MAGNITUDE;
            if magnitude >= threshold {
                if magnitude >= INFINITY {
                    atomicAdd(&counters[REFUSED], 1u);
                    atomicMin(&counters[FIRST_REFUSED], p.n.x + i);
                    acc = old;
                } else {
                    let q = quanta(magnitude, tau);
                    let bit = 1u << (within & 31u);
                    atomicOr(&entries[within >> 5u], bit);
                    word[k] = (acc & SIGN) | (p.n.x + i);
                    more[k] = q;
                    if q > 1u {
                        atomicOr(&longer[within >> 5u], bit);
                    }
                    let taken = f32(q) * bitcast<f32>(tau);
                    acc = sum(acc, bitcast<u32>(taken) | (~acc & SIGN));
                }
            }
            residual[p.at.y + i] = acc;
            let left = bitcast<f32>(acc);
            total += left * left;
        }
        workgroupBarrier();
        if me < 32u {
            var words = 0u;
            for (var k = 0u; k < me; k++) {
                words += countOneBits(atomicLoad(&entries[k])) + countOneBits(atomicLoad(&longer[k]));
            }
            before[me] = words;
            if me == 31u {
                let last = countOneBits(atomicLoad(&entries[31]));
                before[32] = words + last + countOneBits(atomicLoad(&longer[31]));
            }
        }
        workgroupBarrier();
        let words = before[32];
        if words > 0u {
            for (var k = 0u; k < EACH; k++) {
                if more[k] == 0u {
                    continue;
                }
                let within = k * INVOCATIONS + me;
                let below = (1u << (within & 31u)) - 1u;
                let word_of = within >> 5u;
                let ahead = countOneBits(atomicLoad(&entries[word_of]) & below) + countOneBits(atomicLoad(&longer[word_of]) & below);
                let to = tile * 2u * TILE + before[word_of] + ahead;
                scratch[to] = word[k];
                if more[k] > 1u {
                    scratch[to + 1u] = MORE | (more[k] - 1u);
                }
            }
        }
        if me == 0u {
            tiles[tile] = words;
            var number = 0u;
            for (var k = 0u; k < 32u; k++) {
                number += countOneBits(atomicLoad(&entries[k]));
            }
            if number > 0u {
                atomicAdd(&counters[ENTRIES], number);
            }
        }
        workgroupBarrier();
    }
    squares[me] = total;
    workgroupBarrier();
    if me == 0u {
        var sum_of_all = 0.0;
        for (var k = 0u; k < INVOCATIONS; k++) {
            sum_of_all += squares[k];
        }
        atomicStore(&counters[p.n.z + group.x], bitcast<u32>(sum_of_all));
    }
}

// Where each tile's words begin in the list: one workgroup, a run of tiles for each invocation.
var<workgroup> runs: array<u32, 256>;

@compute @workgroup_size(256)
fn count(@builtin(local_invocation_index) me: u32) {
    let all = (p.len + TILE - 1u) / TILE;
    let each = (all + 255u) / 256u;
    let first = min(me * each, all);
    let last = min(first + each, all);
    var words = 0u;
    for (var tile = first; tile < last; tile++) {
        words += tiles[tile];
    }
    runs[me] = words;
    workgroupBarrier();
    // Sums of all runs before: eight steps.
    for (var step = 1u; step < 256u; step *= 2u) {
        var left = 0u;
        if me >= step {
            left = runs[me - step];
        }
        workgroupBarrier();
        runs[me] += left;
        workgroupBarrier();
    }
    var at = runs[me] - words;
    for (var tile = first; tile < last; tile++) {
        let here = tiles[tile];
        tiles[tile] = at;
        at += here;
    }
    if me == 255u {
        atomicStore(&counters[p.n.w], runs[255]);
    }
}
