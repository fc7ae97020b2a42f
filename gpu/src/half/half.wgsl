// Sixteen bits per element: bf16, or f16 where `n.w` is 1. Two elements a word.

fn narrow_bf16(bits: u32) -> u32 {
    let rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
    return (rounded & 0x8000u) | min(rounded & 0x7fffu, 0x7f7fu);
}

fn narrow_f16(x: u32) -> u32 {
    let bits = min(x & MAGNITUDE, 0x477fe000u);
    let small = bitcast<u32>(bitcast<f32>(bits) + 0.5) - 0x3f000000u;
    let large = (bits - (112u << 23u) + 0xfffu + ((bits >> 13u) & 1u)) >> 13u;
    return ((x >> 16u) & 0x8000u) | select(large, small, bits < (113u << 23u));
}

fn widen_f16(x: u32) -> f32 {
    let sign = (x & 0x8000u) << 16u;
    // Small ones are whole numbers of 2^-24.
    if (x & 0x7c00u) == 0u {
        return bitcast<f32>(bitcast<u32>(f32(x & 0x3ffu) * 5.9604644775390625e-8) | sign);
    }
    return bitcast<f32>((((x & 0x7fffu) << 13u) + (112u << 23u)) | sign);
}

@compute @workgroup_size(64)
fn half(
    @builtin(local_invocation_index) me: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(global_invocation_id) id: vec3<u32>,
) {
    var total = 0.0;
    for (var w = id.x; 2u * w < p.len; w += p.groups * 64u) {
        var word = 0u;
        for (var k = 0u; k < 2u && 2u * w + k < p.len; k++) {
            let i = 2u * w + k;
            let acc = joined(i);
            var narrowed = narrow_bf16(acc);
            var value = bitcast<f32>(narrowed << 16u);
            if p.n.w == 1u {
                narrowed = narrow_f16(acc);
                value = widen_f16(narrowed);
            }
            word |= narrowed << (16u * k);
            total += keep(i, less(acc, value));
        }
        atomicStore(&body[p.at.z + w], word);
    }
    leave(me, group.x, total);
}
