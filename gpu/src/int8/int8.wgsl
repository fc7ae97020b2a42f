// int8: blocks of 64 elements, each element an integer from -127 to 127 times the block's scale, a power of two.
//
// A body is the scales' exponents, a byte per block, then the elements, a byte each. A workgroup takes a block at a
// time, with one invocation per element. The body holds zeros before: a scale is one byte of a word, set by atomicOr.
//
// more_n.x: index of the first block of this dispatch; more_n.y: words of all scales.

var<workgroup> largest: atomic<u32>;
var<workgroup> bytes: array<u32, 64>;

@compute @workgroup_size(64)
fn int8(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let blocks = (p.len + 63u) / 64u;
    var total = 0.0;
    for (var block = group.x; block < blocks; block += p.groups) {
        let i = block * 64u + me;
        var acc = 0u;
        if i < p.len {
            acc = accumulated(i);
        }
        if me == 0u {
            atomicStore(&largest, 0u);
        }
        workgroupBarrier();
        // Magnitudes of floats compare like their bits.
        atomicMax(&largest, acc & MAGNITUDE);
        workgroupBarrier();
        let above = atomicLoad(&largest) >> 23u;
        let exponent = select(0u, above - 6u, above > 6u);
        var byte = 0u;
        if i < p.len {
            var left = acc;
            // A block that is too small for a scale stays in the residual.
            if exponent != 0u {
                let per_scale = bitcast<f32>((254u - exponent) << 23u);
                let quotient = clamp(round(bitcast<f32>(acc) * per_scale), -127.0, 127.0);
                byte = u32(i32(quotient)) & 0xffu;
                if quotient != 0.0 {
                    left = minus(acc, quotient * bitcast<f32>(exponent << 23u));
                }
            }
            total += store_residual(i, left);
        }
        bytes[me] = byte;
        workgroupBarrier();
        if me % 4u == 0u && i < p.len {
            let word = bytes[me] | (bytes[me + 1u] << 8u) | (bytes[me + 2u] << 16u) | (bytes[me + 3u] << 24u);
            atomicStore(&body[p.at.z + p.more_n.y + ((p.more_n.x + block) * 64u + me) / 4u], word);
        }
        if me == 0u && exponent != 0u {
            let number = p.more_n.x + block;
            atomicOr(&body[p.at.z + number / 4u], exponent << (8u * (number % 4u)));
        }
    }
    store_squares(me, group.x, total);
}
