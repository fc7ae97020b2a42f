// How the adapter counts: what a promise of equal bits depends on.

@group(0) @binding(1) var<storage, read_write> x: array<u32>;

@compute @workgroup_size(1)
fn probe() {
    // Two denormals.
    x[0] = bitcast<u32>(bitcast<f32>(x[0]) + bitcast<f32>(x[1]));
    // Ties, to even: 1 + 2^-24, and 1 + 3 * 2^-24.
    x[2] = bitcast<u32>(bitcast<f32>(x[2]) + bitcast<f32>(x[3]));
    x[4] = bitcast<u32>(bitcast<f32>(x[4]) + bitcast<f32>(x[5]));
    // A product that is rounded before something is taken away.
    x[6] = sum(bitcast<u32>(opaque(bitcast<f32>(x[6]) * bitcast<f32>(x[7]))), x[8]);
    // A product that is denormal.
    x[9] = bitcast<u32>(bitcast<f32>(x[9]) * bitcast<f32>(x[10]));
}
