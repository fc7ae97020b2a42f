// Which magnitude is the largest of some rank in a sample of residual + update: three rounds that count by 11, 11 and 9 bits.
// `tally` counts, in as many workgroups as there is work for; `pick` then says which of the bits it is.

@group(0) @binding(1) var<storage, read_write> update: array<u32>;
@group(0) @binding(2) var<storage, read_write> residual: array<u32>;
@group(0) @binding(3) var<storage, read_write> counters: array<u32>;
// Zeros before a round, and after.
@group(0) @binding(4) var<storage, read_write> bins: array<atomic<u32>, 2048>;

// Of `counters`: the bits that are known, and the rank among those that have them; 0 when there are not so many.
const PREFIX: u32 = 5u;
const RANK: u32 = 6u;

var<workgroup> own: array<atomic<u32>, 2048>;

// `more_n.x`: the lowest of the bits that are counted; `more_n.y`: how many; `more_n.z`: is it the first round?
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
    let every = p.n.x;
    let run = p.n.w;
    for (var i = group.x * 256u + me; i < len; i += p.groups * 256u) {
        // Runs of elements side by side, `every` apart; all of them if that is 0.
        var at = i;
        if every != 0u {
            at = (i / run) * every + i % run;
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
var<workgroup> sums: array<u32, 256>;

@compute @workgroup_size(256)
fn pick(@builtin(local_invocation_index) me: u32) {
    var eight = 0u;
    for (var i = 0u; i < 8u; i++) {
        let bin = me * 8u + i;
        counts[bin] = atomicLoad(&bins[bin]);
        atomicStore(&bins[bin], 0u);
        eight += counts[bin];
    }
    sums[me] = eight;
    workgroupBarrier();
    if me != 0u {
        return;
    }
    var prefix = counters[PREFIX];
    var rank = counters[RANK];
    if p.more_n.z == 1u {
        prefix = 0u;
        rank = p.n.z;
    }
    // From the largest down.
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
    if p.more_n.x != 0u {
        return;
    }
    var threshold = select(bitcast<u32>(p.f.x), prefix, found);
    // Not below a unit; the quantum is the power of two below it, and not above the largest. Positive floats compare as their
    // bits do.
    threshold = clamp(threshold, bitcast<u32>(p.f.y), INFINITY - 1u);
    counters[0] = threshold;
    counters[1] = min(threshold & INFINITY, bitcast<u32>(p.f.z));
}
