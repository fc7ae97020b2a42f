// Means as the CPU makes them: products with weights and their sum in double precision, rounded at each step, then times the
// reciprocal of all weights, and rounded once more to a float.

@group(0) @binding(1) var<storage, read_write> a: array<u32>;
@group(0) @binding(2) var<storage, read_write> b: array<u32>;
@group(0) @binding(3) var<storage, read_write> c: array<u32>;
@group(0) @binding(4) var<storage, read_write> d: array<u32>;
@group(0) @binding(5) var<storage, read_write> into: array<u32>;
// What the sum is so far, three words per element, where there are more than four inputs.
@group(0) @binding(6) var<storage, read_write> so_far: array<u32>;

// What is not finite among the inputs decides: bit 0 and 1 infinities, bit 2 no number.
fn odd(bits: u32) -> u32 {
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

// Inputs of this pass: `more_n.w` & 7; 8: the sum goes on; 16: it ends here; 32: a sum begins with -0.
@compute @workgroup_size(64)
fn mean(@builtin(global_invocation_id) id: vec3<u32>) {
    let inputs = p.more_n.w & 7u;
    for (var i = id.x; i < p.len; i += p.groups * 64u) {
        var total = zero((p.more_n.w & 32u) != 0u);
        var odds = 0u;
        if (p.more_n.w & 8u) != 0u {
            let first = so_far[3u * i];
            odds = (first >> 1u) & 7u;
            total = Double((first & 1u) != 0u, i32(first >> 4u) - 0x8000, so_far[3u * i + 1u], so_far[3u * i + 2u]);
        }
        for (var k = 0u; k < inputs; k++) {
            var bits = 0u;
            switch k {
                case 0u: { bits = a[p.at.x + i]; }
                case 1u: { bits = b[p.at.y + i]; }
                case 2u: { bits = c[p.at.z + i]; }
                default: { bits = d[p.at.w + i]; }
            }
            odds |= odd(bits);
            if odds == 0u {
                total = plus(total, product(bits, p.n[k]));
            }
        }
        if (p.more_n.w & 16u) == 0u {
            so_far[3u * i] = (u32(total.e + 0x8000) << 4u) | (odds << 1u) | select(0u, 1u, total.negative);
            so_far[3u * i + 1u] = total.high;
            so_far[3u * i + 2u] = total.low;
            continue;
        }
        var result = narrow(times(total, reciprocal()));
        if odds == 1u || odds == 2u {
            result = INFINITY | select(0u, SIGN, odds == 2u);
        } else if odds != 0u {
            result = 0x7fc00000u;
        }
        into[p.more_at.x + i] = result;
    }
}
