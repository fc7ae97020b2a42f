// Which magnitude is the largest of some rank in a sample of residual + update: three passes that count by 11, 11 and 9
// bits. One workgroup.

@group(0) @binding(1) var<storage, read_write> update: array<u32>;
@group(0) @binding(2) var<storage, read_write> residual: array<u32>;
@group(0) @binding(3) var<storage, read_write> counters: array<u32>;

var<workgroup> bins: array<atomic<u32>, 2048>;
var<workgroup> prefix: u32;
var<workgroup> left: u32;
var<workgroup> missing: u32;

@compute @workgroup_size(256)
fn choose(@builtin(local_invocation_index) me: u32) {
    if me == 0u {
        prefix = 0u;
        left = p.n.z;
        missing = 0u;
    }
    for (var pass_ = 0u; pass_ < 3u; pass_++) {
        var shift = 20u;
        var bits = 11u;
        if pass_ == 1u {
            shift = 9u;
        } else if pass_ == 2u {
            shift = 0u;
            bits = 9u;
        }
        for (var i = me; i < 2048u; i += 256u) {
            atomicStore(&bins[i], 0u);
        }
        workgroupBarrier();
        let above = shift + bits;
        for (var i = me; i < p.len; i += 256u) {
            // Runs of elements side by side, `n.x` apart; all of them if that is 0.
            var at = i;
            if p.n.x != 0u {
                at = (i / p.n.w) * p.n.x + i % p.n.w;
            }
            var acc = residual[p.at.y + at];
            if p.n.y == 1u {
                acc = sum(acc, update[p.at.x + at]);
            }
            let magnitude = acc & MAGNITUDE;
            if magnitude < INFINITY && (above == 31u || (magnitude >> above) == (prefix >> above)) {
                atomicAdd(&bins[(magnitude >> shift) & ((1u << bits) - 1u)], 1u);
            }
        }
        workgroupBarrier();
        if me == 0u && missing == 0u {
            var bin = 1u << bits;
            var rest = left;
            loop {
                if bin == 0u {
                    // Fewer are finite than the rank says.
                    missing = 1u;
                    break;
                }
                bin -= 1u;
                let here = atomicLoad(&bins[bin]);
                if here >= rest {
                    break;
                }
                rest -= here;
            }
            left = rest;
            prefix |= bin << shift;
        }
        workgroupBarrier();
    }
    if me == 0u {
        var threshold = prefix;
        if missing == 1u {
            threshold = bitcast<u32>(p.f.x);
        }
        // Not below a unit; the quantum is the power of two below it, and not above the largest. Positive floats compare
        // as their bits do.
        threshold = clamp(threshold, bitcast<u32>(p.f.y), INFINITY - 1u);
        counters[0] = threshold;
        counters[1] = min(threshold & INFINITY, bitcast<u32>(p.f.z));
    }
}
