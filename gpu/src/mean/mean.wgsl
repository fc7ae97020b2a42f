// Weighted means with the bits of the CPU kernel: products with weights (exact) and their sum in double precision,
// rounded after each addition, then a product with the reciprocal of the total weight, rounded to a double and then to
// a float.
//
// n: the weights of this pass. more_n.x, .y, .z: high word, low word and exponent of the reciprocal.
// more_n.w: number of inputs, plus flags: 8 continues a partial sum, 16 ends the sum, 32 starts the sum at -0.

@group(0) @binding(1) var<storage, read_write> a: array<u32>;
@group(0) @binding(2) var<storage, read_write> b: array<u32>;
@group(0) @binding(3) var<storage, read_write> c: array<u32>;
@group(0) @binding(4) var<storage, read_write> d: array<u32>;
@group(0) @binding(5) var<storage, read_write> into: array<u32>;
// Partial sums, three words per element: bit 0 the sign, bits 1 to 3 the flags of `non_finite`, above them the
// exponent; then the mantissa. Used when there are more than four inputs.
@group(0) @binding(6) var<storage, read_write> partial_sums: array<u32>;

const CONTINUES: u32 = 8u;
const ENDS: u32 = 16u;
const FROM_MINUS_ZERO: u32 = 32u;

// Flags of a float that is not finite: 1 infinity, 2 minus infinity, 4 NaN; 0 if it is finite. The doubles of
// double.wgsl are finite, so the flags of all inputs decide about such results.
fn non_finite(bits: u32) -> u32 {
    if is_finite(bits) {
        return 0u;
    }
    if (bits & MAGNITUDE) > INFINITY {
        return 4u;
    }
    return select(1u, 2u, (bits & SIGN) != 0u);
}

fn reciprocal() -> Double {
    return Double(false, i32(p.more_n.z), p.more_n.x, p.more_n.y);
}

@compute @workgroup_size(64)
fn mean(@builtin(global_invocation_id) id: vec3<u32>) {
    let inputs = p.more_n.w & 7u;
    for (var i = id.x; i < p.len; i += p.groups * 64u) {
        var total = zero((p.more_n.w & FROM_MINUS_ZERO) != 0u);
        var flags = 0u;
        if (p.more_n.w & CONTINUES) != 0u {
            let first = partial_sums[3u * i];
            flags = (first >> 1u) & 7u;
            let e = i32(first >> 4u) - 0x8000;
            total = Double((first & 1u) != 0u, e, partial_sums[3u * i + 1u], partial_sums[3u * i + 2u]);
        }
        for (var k = 0u; k < inputs; k++) {
            var bits = 0u;
            switch k {
                case 0u: { bits = a[p.at.x + i]; }
                case 1u: { bits = b[p.at.y + i]; }
                case 2u: { bits = c[p.at.z + i]; }
                default: { bits = d[p.at.w + i]; }
            }
            flags |= non_finite(bits);
            if flags == 0u {
                total = plus(total, product(bits, p.n[k]));
            }
        }
        if (p.more_n.w & ENDS) == 0u {
            // The bias keeps the exponent positive.
            partial_sums[3u * i] = (u32(total.e + 0x8000) << 4u) | (flags << 1u) | select(0u, 1u, total.negative);
            partial_sums[3u * i + 1u] = total.high;
            partial_sums[3u * i + 2u] = total.low;
            continue;
        }
        var result = narrow(times(total, reciprocal()));
        if flags == 1u || flags == 2u {
            result = INFINITY | select(0u, SIGN, flags == 2u);
        } else if flags != 0u {
            // A NaN among the inputs, or infinities of both signs.
            result = 0x7fc00000u;
        }
        into[p.more_at.x + i] = result;
    }
}
