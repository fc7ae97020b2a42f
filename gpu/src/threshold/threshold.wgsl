// Threshold encoding: takes quanta out of residual + update.
//
//   acc = residual + update
//   if acc is not finite:    the residual keeps its value, the element is refused
//   elif |acc| >= threshold: q = min(trunc(|acc| / tau), QUANTA_MAX) quanta leave with acc's sign
//                            residual = acc - sign(acc) * q * tau
//   else:                    residual = acc
//
// The list of entries must be in the order of the elements, without a workgroup that waits for another one. Three
// passes do that:
//
// 1. `take` goes over both vectors once, in tiles of 1,024 elements, 16 for each of 64 invocations. The entry of an
//    element goes to a place in `scratch` that belongs to the element, and a bit in `masks` marks it.
// 2. `count` turns the number of words of each tile into the tile's place in the list (a prefix sum).
// 3. `gather` (gather.wgsl) moves the entries of each tile to its place.
//
// An entry is one word, the sign and the index; a second word follows if there is more than one quantum.
//
// n.x: index of the first element of this chunk within the section; n.y: 1 if there is an update; n.z: word of
// `counters` for the first workgroup's sum of squares; n.w: word of `counters` for the length of the chunk's list.

@group(0) @binding(1) var<storage, read_write> update: array<u32>;
@group(0) @binding(2) var<storage, read_write> residual: array<u32>;
// Two words per element: its entry, if it has one.
@group(0) @binding(3) var<storage, read_write> scratch: array<u32>;
// Number of words of each tile; after `count`, the tile's first word in the list.
@group(0) @binding(4) var<storage, read_write> tiles: array<u32>;
@group(0) @binding(5) var<storage, read_write> counters: array<atomic<u32>>;
// 64 words per tile: 32 with a bit for each element that has an entry, 32 with a bit for each second word.
@group(0) @binding(6) var<storage, read_write> masks: array<u32>;

// Indices of `counters`, as in section.rs. The threshold and the quantum are floats; the rest is added up.
const THRESHOLD: u32 = 0u;
const TAU: u32 = 1u;
const ENTRIES: u32 = 2u;
const REFUSED: u32 = 3u;
const FIRST_REFUSED: u32 = 4u;

const INVOCATIONS: u32 = 64u;
const TILE: u32 = 1024u;
// Marks the second word of an entry.
const MORE: u32 = 0x40000000u;
const QUANTA_MAX: u32 = 32767u;

var<workgroup> bits: array<atomic<u32>, 64>;
var<workgroup> words: atomic<u32>;
var<workgroup> number: atomic<u32>;
var<workgroup> squares: array<f32, 64>;

// min(trunc(magnitude / tau), QUANTA_MAX), for a power of two tau <= magnitude: a shift of the mantissa.
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
    // Copies, because some drivers load parameters again in every iteration of a loop.
    let len = p.len;
    let first = p.n.x;
    let with_update = p.n.y == 1u;
    let at_update = p.at.x;
    let at_residual = p.at.y;
    let groups = p.groups;
    let count = (len + TILE - 1u) / TILE;
    // A workgroup takes adjacent tiles.
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
        // The loop over all elements has no branches: invocations run in lockstep and would take both sides. Bit k of
        // these masks is the k-th element of this invocation; the rare elements follow in loops of their own.
        var reached = 0u;
        var refused = 0u;
        let start = tile * TILE + me;
        let own = (min(len, (tile + 1u) * TILE) + INVOCATIONS - 1u - start) / INVOCATIONS;
        for (var k = 0u; k < own; k++) {
            let i = start + k * INVOCATIONS;
            let old = residual[at_residual + i];
            // Without an update 0 is added, as on the CPU: it turns -0 into 0.
            var added = 0u;
            if with_update {
                added = update[at_update + i];
            }
            let acc = sum(old, added);
            let magnitude = acc & MAGNITUDE;
            let not_finite = magnitude >= INFINITY;
            refused |= select(0u, 1u << k, not_finite);
            reached |= select(0u, 1u << k, magnitude >= threshold && !not_finite);
            let left = select(acc, old, not_finite);
            residual[at_residual + i] = left;
            // Elements that emit are squared below, with the rest that is left of them.
            let x = bitcast<f32>(select(left, 0u, magnitude >= threshold && !not_finite));
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
            // Exact: q has 15 bits. The sign makes it the negative of acc's.
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
    // WGSL has no atomic floats: one sum per workgroup, which the host adds up.
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

// Words of the tiles of each invocation; then of all invocations up to it.
var<workgroup> runs: array<u32, 256>;

// One workgroup: an invocation adds up a run of adjacent tiles, then the runs are added up.
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
    // An inclusive prefix sum in eight steps (Hillis and Steele 1986).
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
