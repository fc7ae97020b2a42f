// bf16, or f16 where n.w is 1: 16 bits per element, two elements per word.
//
// The functions are the codecs' own (core/src/codec/bf16.rs and f16.rs), on the bits of floats.

// The nearest bf16 that is finite.
fn narrow_bf16(bits: u32) -> u32 {
    let rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
    return (rounded & 0x8000u) | min(rounded & 0x7fffu, 0x7f7fu);
}

// The nearest f16 that is finite. Below 2^-14 the spacing of f16 is 2^-24, that of floats in [0.5, 1): adding 0.5
// rounds.
fn narrow_f16(x: u32) -> u32 {
    let bits = min(x & MAGNITUDE, 0x477fe000u);
    let small = bitcast<u32>(bitcast<f32>(bits) + 0.5) - 0x3f000000u;
    let large = (bits - (112u << 23u) + 0xfffu + ((bits >> 13u) & 1u)) >> 13u;
    return ((x >> 16u) & 0x8000u) | select(large, small, bits < (113u << 23u));
}

// A finite f16 as a float. Exact.
fn widen_f16(x: u32) -> f32 {
    let sign = (x & 0x8000u) << 16u;
    // A denormal f16 is an integer number of 2^-24.
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
    // One invocation makes both halves of a word, so no two of them write the same word.
    for (var w = id.x; 2u * w < p.len; w += p.groups * 64u) {
        var word = 0u;
        for (var k = 0u; k < 2u && 2u * w + k < p.len; k++) {
            let i = 2u * w + k;
            let acc = accumulated(i);
            var narrowed = narrow_bf16(acc);
            var value = bitcast<f32>(narrowed << 16u);
            if p.n.w == 1u {
                narrowed = narrow_f16(acc);
                value = widen_f16(narrowed);
            }
            word |= narrowed << (16u * k);
            total += store_residual(i, minus(acc, value));
        }
        atomicStore(&body[p.at.z + w], word);
    }
    store_squares(me, group.x, total);
}
