// Elementwise kernels. Every workgroup loops over a share of the elements, so a grid of any size covers all of them.
//
// Bindings: the inputs in the order of the formula, then the output. f.x: the scalar factor of the formula.

@group(0) @binding(1) var<storage, read_write> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(3) var<storage, read_write> z: array<u32>;

// The share of one invocation: elements i, i + 256, ... below `end`. The shares of a workgroup are contiguous, for
// coalesced access. The parameters are copied here because some drivers load them again in every iteration of a loop.
struct Share {
    i: u32,
    end: u32,
    x: u32,
    y: u32,
    z: u32,
    factor: f32,
}

fn share(group: u32, me: u32) -> Share {
    let each = ((p.len + p.groups - 1u) / p.groups + 255u) & ~255u;
    let first = group * each;
    return Share(first + me, min(p.len, first + each), p.at.x, p.at.y, p.at.z, p.f.x);
}

// A product that is rounded before it takes part in a sum, as on the CPU.
fn times(scale: f32, bits: u32) -> u32 {
    return rounded_product(bitcast<u32>(scale), bits);
}

fn negated(bits: u32) -> u32 {
    return bits ^ SIGN;
}

// into = from - scale * update
@compute @workgroup_size(256)
fn apply(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        z[s.z + i] = sum(x[s.x + i], negated(times(s.factor, y[s.y + i])));
    }
}

// into -= scale * update
@compute @workgroup_size(256)
fn apply_in_place(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        y[s.y + i] = sum(y[s.y + i], negated(times(s.factor, x[s.x + i])));
    }
}

// into = scale * update
@compute @workgroup_size(256)
fn scale(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        y[s.y + i] = times(s.factor, x[s.x + i]);
    }
}

// x = factor * x
@compute @workgroup_size(256)
fn scale_in_place(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        x[s.x + i] = times(s.factor, x[s.x + i]);
    }
}

// velocity = momentum * velocity + update
@compute @workgroup_size(256)
fn accelerate(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        y[s.y + i] = sum(times(s.factor, y[s.y + i]), x[s.x + i]);
    }
}

// An integer as a float, rounded to nearest, ties to even. WGSL leaves the rounding of `f32(n)` open where n has more
// than 24 bits, so the rounding is done on integers. The conversions and the product at the end are exact.
fn to_float(n: i32) -> f32 {
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
fn materialise(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        let quanta = rounded_product(bitcast<u32>(s.factor), bitcast<u32>(to_float(bitcast<i32>(y[s.y + i]))));
        z[s.z + i] = sum(x[s.x + i], negated(quanta));
    }
}
