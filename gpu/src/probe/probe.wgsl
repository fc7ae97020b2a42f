// Evaluates the expressions of the probe (probe/mod.rs). Each result replaces its first operand.

@group(0) @binding(1) var<storage, read_write> x: array<u32>;

@compute @workgroup_size(1)
fn probe() {
    // The sum of two denormals: 0 if the adapter flushes.
    x[0] = bitcast<u32>(bitcast<f32>(x[0]) + bitcast<f32>(x[1]));
    // Ties, which must round to even: 1 + 2^-24 down, 1 + 3 * 2^-24 up.
    x[2] = bitcast<u32>(bitcast<f32>(x[2]) + bitcast<f32>(x[3]));
    x[4] = bitcast<u32>(bitcast<f32>(x[4]) + bitcast<f32>(x[5]));
    // A product that must be rounded before the sum: `opaque` has to prevent a fused multiply-add.
    x[6] = sum(bitcast<u32>(opaque(bitcast<f32>(x[6]) * bitcast<f32>(x[7]))), x[8]);
    // A product that is denormal: 0 if the adapter flushes.
    x[9] = bitcast<u32>(bitcast<f32>(x[9]) * bitcast<f32>(x[10]));
}
