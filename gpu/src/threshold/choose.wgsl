// Chooses a threshold: the magnitude with a given rank, from the largest down, in a sample of residual + update.
//
// A radix selection in three rounds over the 31 bits of a magnitude, from the highest down: 11, 11 and 9 bits. In each
// round `tally` makes a histogram of these bits over the elements that agree with the bits known so far, and `pick`
// finds the bin that has the rank.
//
// n.x: distance between runs of the sample in elements, 0 for all elements; n.y: 1 if there is an update; n.z: the
// rank, from 1; n.w: elements of a run. more_n.x: lowest bit of this round; more_n.y: number of bits; more_n.z: 1 in
// the first round. f.x: threshold if the sample has too few finite elements; f.y: least threshold; f.z: largest
// quantum.

@group(0) @binding(1) var<storage, read_write> update: array<u32>;
@group(0) @binding(2) var<storage, read_write> residual: array<u32>;
@group(0) @binding(3) var<storage, read_write> counters: array<u32>;
// The histogram. All zeros before a round and after it.
@group(0) @binding(4) var<storage, read_write> bins: array<atomic<u32>, 2048>;

// Indices of `counters`. The threshold and the quantum are the results, as in section.rs.
const THRESHOLD: u32 = 0u;
const TAU: u32 = 1u;
// Between rounds: the bits known so far, and the rank among the elements that have them; 0 if there are too few.
const PREFIX: u32 = 5u;
const RANK: u32 = 6u;

// A histogram per workgroup keeps most atomic operations out of device memory.
var<workgroup> own: array<atomic<u32>, 2048>;

@compute @workgroup_size(256)
fn tally(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    for (var i = me; i < 2048u; i += 256u) {
        atomicStore(&own[i], 0u);
    }
    workgroupBarrier();
    let shift = p.more_n.x;
    let mask = (1u << p.more_n.y) - 1u;
    let above = shift + p.more_n.y;
    let first_round = p.more_n.z == 1u;
    let prefix = counters[PREFIX] >> min(above, 31u);
    let len = p.len;
    let stride = p.n.x;
    let run = p.n.w;
    for (var i = group.x * 256u + me; i < len; i += p.groups * 256u) {
        // Runs of adjacent elements use whole cache lines.
        var at = i;
        if stride != 0u {
            at = (i / run) * stride + i % run;
        }
        var acc = residual[p.at.y + at];
        if p.n.y == 1u {
            acc = sum(acc, update[p.at.x + at]);
        }
        let magnitude = acc & MAGNITUDE;
        if magnitude < INFINITY && (first_round || (magnitude >> above) == prefix) {
            atomicAdd(&own[(magnitude >> shift) & mask], 1u);
        }
    }
    workgroupBarrier();
    for (var i = me; i < 2048u; i += 256u) {
        let count = atomicLoad(&own[i]);
        if count != 0u {
            atomicAdd(&bins[i], count);
        }
    }
}

var<workgroup> counts: array<u32, 2048>;
// Sums of eight bins each.
var<workgroup> sums: array<u32, 256>;

@compute @workgroup_size(256)
fn pick(@builtin(local_invocation_index) me: u32) {
    var subtotal = 0u;
    for (var i = 0u; i < 8u; i++) {
        let bin = me * 8u + i;
        counts[bin] = atomicLoad(&bins[bin]);
        atomicStore(&bins[bin], 0u);
        subtotal += counts[bin];
    }
    sums[me] = subtotal;
    workgroupBarrier();
    // The search is short: at most 256 sums and 8 bins.
    if me != 0u {
        return;
    }
    var prefix = counters[PREFIX];
    var rank = counters[RANK];
    if p.more_n.z == 1u {
        prefix = 0u;
        rank = p.n.z;
    }
    // From the largest magnitudes down: subtract counts from the rank until a bin has it.
    var found = false;
    if rank != 0u {
        var part = 256u;
        while part > 0u {
            part -= 1u;
            if sums[part] >= rank {
                found = true;
                break;
            }
            rank -= sums[part];
        }
        if found {
            var bin = part * 8u + 7u;
            while counts[bin] < rank {
                rank -= counts[bin];
                bin -= 1u;
            }
            prefix |= bin << p.more_n.x;
        }
    }
    counters[PREFIX] = prefix;
    counters[RANK] = select(0u, rank, found);
    // Only the last round, which has the lowest bits, stores the result.
    if p.more_n.x != 0u {
        return;
    }
    var threshold = select(bitcast<u32>(p.f.x), prefix, found);
    // The quantum is the largest power of two up to the threshold, within its limit. Positive floats compare like their
    // bits.
    threshold = clamp(threshold, bitcast<u32>(p.f.y), INFINITY - 1u);
    counters[THRESHOLD] = threshold;
    counters[TAU] = min(threshold & INFINITY, bitcast<u32>(p.f.z));
}
