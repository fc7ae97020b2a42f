// One element in, one out. Grids of any size go over all elements.

@group(0) @binding(1) var<storage, read_write> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(3) var<storage, read_write> z: array<u32>;

const STRIDE: u32 = 256u;

fn times(scale: f32, bits: u32) -> u32 {
    return bitcast<u32>(opaque(scale * bitcast<f32>(bits)));
}

fn negated(bits: u32) -> u32 {
    return bits ^ SIGN;
}

// into = from - scale * update
@compute @workgroup_size(256)
fn apply(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var i = id.x; i < p.len; i += p.groups * STRIDE) {
        z[p.at.z + i] = sum(x[p.at.x + i], negated(times(p.f.x, y[p.at.y + i])));
    }
}

// into -= scale * update
@compute @workgroup_size(256)
fn apply_in_place(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var i = id.x; i < p.len; i += p.groups * STRIDE) {
        y[p.at.y + i] = sum(y[p.at.y + i], negated(times(p.f.x, x[p.at.x + i])));
    }
}

// into = scale * update
@compute @workgroup_size(256)
fn scale(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var i = id.x; i < p.len; i += p.groups * STRIDE) {
        y[p.at.y + i] = times(p.f.x, x[p.at.x + i]);
    }
}

// velocity = momentum * velocity + update
@compute @workgroup_size(256)
fn accelerate(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var i = id.x; i < p.len; i += p.groups * STRIDE) {
        y[p.at.y + i] = sum(times(p.f.x, y[p.at.y + i]), x[p.at.x + i]);
    }
}

// A whole number as a float, rounded to nearest, ties to even: conversions may round otherwise.
fn whole(n: i32) -> f32 {
    let magnitude = u32(abs(n));
    let shift = 8u - min(countLeadingZeros(magnitude), 8u);
    let unit = 1u << shift;
    let rest = magnitude & (unit - 1u);
    var kept = magnitude >> shift;
    if rest * 2u > unit || (rest * 2u == unit && (kept & 1u) == 1u && shift > 0u) {
        kept += 1u;
    }
    let x = f32(kept) * f32(unit);
    return select(x, -x, n < 0);
}

// into = base - unit * ledger
@compute @workgroup_size(256)
fn materialise(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var i = id.x; i < p.len; i += p.groups * STRIDE) {
        let quanta = bitcast<u32>(opaque(p.f.x * whole(bitcast<i32>(y[p.at.y + i]))));
        z[p.at.z + i] = sum(x[p.at.x + i], negated(quanta));
    }
}
