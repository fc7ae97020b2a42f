// Takes quanta out of residual + update, in one pass over both: tiles of 1,024 elements, each handled by 64 invocations. What an
// element emits is written to a place of its own, and a bit says so. Then the tiles are counted up, and their entries
// moved together in order (`gather`). No invocation waits for another workgroup, and the order of entries does not depend on
// the order in which workgroups run.

@group(0) @binding(1) var<storage, read_write> update: array<u32>;
@group(0) @binding(2) var<storage, read_write> residual: array<u32>;
// Two words per element, of those that have an entry.
@group(0) @binding(3) var<storage, read_write> scratch: array<u32>;
// Of each tile: a bit per element that has an entry, another if that has a second word.
@group(0) @binding(6) var<storage, read_write> masks: array<u32>;
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
const TILE: u32 = 1024u;
const MORE: u32 = 0x40000000u;
const QUANTA_MAX: u32 = 32767u;

var<workgroup> bits: array<atomic<u32>, 64>;
var<workgroup> words: atomic<u32>;
var<workgroup> number: atomic<u32>;
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
    // Read once: a loop would read them again and again.
    let len = p.len;
    let first = p.n.x;
    let with_update = p.n.y == 1u;
    let at_update = p.at.x;
    let at_residual = p.at.y;
    let groups = p.groups;
    let count = (len + TILE - 1u) / TILE;
    // Tiles that lie side by side.
    let each = (count + groups - 1u) / groups;
    let last = min(count, (group.x + 1u) * each);
    var total = 0.0;
    for (var tile = group.x * each; tile < last; tile++) {
        atomicStore(&bits[me], 0u);
        if me == 0u {
            atomicStore(&words, 0u);
            atomicStore(&number, 0u);
        }
        workgroupBarrier();
        // What is done for every element has no branches: a vector of invocations goes through both sides of one. Bit k of
        // these is the k-th element of this invocation.
        var reached = 0u;
        var refused = 0u;
        let start = tile * TILE + me;
        let own = (min(len, (tile + 1u) * TILE) + INVOCATIONS - 1u - start) / INVOCATIONS;
        for (var k = 0u; k < own; k++) {
            let i = start + k * INVOCATIONS;
            let old = residual[at_residual + i];
            // Without an update, 0 is added all the same: it makes -0 a 0.
            var came = 0u;
            if with_update {
                came = update[at_update + i];
            }
            let acc = sum(old, came);
            let magnitude = acc & MAGNITUDE;
            let odd = magnitude >= INFINITY;
            refused |= select(0u, 1u << k, odd);
            reached |= select(0u, 1u << k, magnitude >= threshold && !odd);
            let left = select(acc, old, odd);
            residual[at_residual + i] = left;
            let x = bitcast<f32>(select(left, 0u, magnitude >= threshold && !odd));
            total += x * x;
        }
        while refused != 0u {
            let k = countTrailingZeros(refused);
            refused &= refused - 1u;
            atomicAdd(&counters[REFUSED], 1u);
            atomicMin(&counters[FIRST_REFUSED], first + start + k * INVOCATIONS);
        }
        while reached != 0u {
            let k = countTrailingZeros(reached);
            reached &= reached - 1u;
            let i = start + k * INVOCATIONS;
            let acc = residual[at_residual + i];
            let q = quanta(acc & MAGNITUDE, tau);
            let word_of = 2u * k + (me >> 5u);
            let bit = 1u << (me & 31u);
            atomicOr(&bits[word_of], bit);
            scratch[2u * i] = (acc & SIGN) | (first + i);
            if q > 1u {
                atomicOr(&bits[32u + word_of], bit);
                scratch[2u * i + 1u] = MORE | (q - 1u);
            }
            let taken = f32(q) * bitcast<f32>(tau);
            let left = sum(acc, bitcast<u32>(taken) | (~acc & SIGN));
            residual[at_residual + i] = left;
            let x = bitcast<f32>(left);
            total += x * x;
        }
        workgroupBarrier();
        let mask = atomicLoad(&bits[me]);
        masks[tile * 64u + me] = mask;
        if mask != 0u {
            atomicAdd(&words, countOneBits(mask));
            if me < 32u {
                atomicAdd(&number, countOneBits(mask));
            }
        }
        workgroupBarrier();
        if me == 0u {
            tiles[tile] = atomicLoad(&words);
            atomicAdd(&counters[ENTRIES], atomicLoad(&number));
        }
        workgroupBarrier();
    }
    squares[me] = total;
    workgroupBarrier();
    if me == 0u {
        var all = 0.0;
        for (var k = 0u; k < INVOCATIONS; k++) {
            all += squares[k];
        }
        atomicStore(&counters[p.n.z + group.x], bitcast<u32>(all));
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
