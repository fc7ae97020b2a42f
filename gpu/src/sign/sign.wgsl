// sign: one bit per element, and a scale per block of 1,024 elements.
//
// The scale is the largest power of two up to the block's mean magnitude. The mean is added up in the order of the CPU
// kernel (core/src/codec/sign.rs): sixteen sums of floats, then their sum in double precision. A workgroup takes a
// block at a time.
//
// more_n.x: index of the first block of this dispatch; more_n.y: words of all scales, which come first in the body.

const BLOCK: u32 = 1024u;
// 2^100.
const SCALE_MAX: u32 = 0x71800000u;

var<workgroup> values: array<u32, 1024>;
var<workgroup> lanes: array<u32, 16>;
var<workgroup> signs: array<atomic<u32>, 32>;
var<workgroup> scale: u32;

// x / by, rounded to a double, for a positive x and an integer of at most 1,024. Long division, one bit per iteration:
// it runs once per block.
fn divided(x: Double, by: u32) -> Double {
    if is_zero(x) {
        return x;
    }
    var rest = 0u;
    var high = 0u;
    var low = 0u;
    // The dividend is the mantissa, then zeros. The quotient starts at its first bit that is set and has 64 bits.
    var got = 0u;
    var e = x.e;
    var at = 0u;
    loop {
        var bit = 0u;
        if at < 32u {
            bit = (x.high >> (31u - at)) & 1u;
        } else if at < 64u {
            bit = (x.low >> (63u - at)) & 1u;
        }
        rest = (rest << 1u) | bit;
        var digit = 0u;
        if rest >= by {
            rest -= by;
            digit = 1u;
        }
        if got > 0u || digit == 1u {
            if got == 0u {
                e = x.e - i32(at);
            }
            high = (high << 1u) | (low >> 31u);
            low = (low << 1u) | digit;
            got += 1u;
            if got == 64u {
                break;
            }
        }
        at += 1u;
    }
    // A remainder sets the sticky bit.
    return rounded(Double(false, e, high, low | select(0u, 1u, rest != 0u)));
}

@compute @workgroup_size(64)
fn sign_bits(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let blocks = (p.len + BLOCK - 1u) / BLOCK;
    var total = 0.0;
    for (var block = group.x; block < blocks; block += p.groups) {
        let first = block * BLOCK;
        let len = min(BLOCK, p.len - first);
        for (var k = me; k < len; k += 64u) {
            values[k] = accumulated(first + k);
        }
        if me < 32u {
            atomicStore(&signs[me], 0u);
        }
        workgroupBarrier();
        if me < 16u {
            var lane = 0u;
            for (var k = me; k < len; k += 16u) {
                lane = sum(lane, values[k] & MAGNITUDE);
            }
            lanes[me] = lane;
        }
        workgroupBarrier();
        if me == 0u {
            var all = zero(false);
            for (var k = 0u; k < 16u; k++) {
                all = plus(all, product(lanes[k], 1u));
            }
            let mean = min(narrow(divided(all, len)), SCALE_MAX);
            scale = mean & INFINITY;
            atomicStore(&body[p.at.z + p.more_n.x + block], scale);
        }
        workgroupBarrier();
        for (var k = me; k < len; k += 64u) {
            let x = values[k];
            var left = x;
            if scale != 0u {
                // -0 counts as positive.
                let negative = (x & SIGN) != 0u && (x & MAGNITUDE) != 0u;
                if negative {
                    atomicOr(&signs[k / 32u], 1u << (k % 32u));
                }
                left = sum(x, scale | select(SIGN, 0u, negative));
            }
            total += store_residual(first + k, left);
        }
        workgroupBarrier();
        if me < (len + 31u) / 32u {
            let word = p.more_n.y + (p.more_n.x + block) * 32u + me;
            atomicStore(&body[p.at.z + word], atomicLoad(&signs[me]));
        }
        workgroupBarrier();
    }
    store_squares(me, group.x, total);
}
