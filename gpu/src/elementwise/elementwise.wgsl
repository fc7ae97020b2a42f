// One element in, one out. Grids of any size go over all elements.

@group(0) @binding(1) var<storage, read_write> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(3) var<storage, read_write> z: array<u32>;

// A workgroup goes over elements that lie side by side. What a loop needs of the parameters is read before it.
struct Span {
    i: u32,
    end: u32,
    x: u32,
    y: u32,
    z: u32,
    factor: f32,
}

fn span(group: u32, me: u32) -> Span {
    let each = ((p.len + p.groups - 1u) / p.groups + 255u) & ~255u;
    let first = group * each;
    return Span(first + me, min(p.len, first + each), p.at.x, p.at.y, p.at.z, p.f.x);
}

fn times(scale: f32, bits: u32) -> u32 {
    return bitcast<u32>(opaque(scale * bitcast<f32>(bits)));
}

fn negated(bits: u32) -> u32 {
    return bits ^ SIGN;
}

// into = from - scale * update
@compute @workgroup_size(256)
fn apply(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = span(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        z[s.z + i] = sum(x[s.x + i], negated(times(s.factor, y[s.y + i])));
    }
}

// into -= scale * update
@compute @workgroup_size(256)
fn apply_in_place(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = span(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        y[s.y + i] = sum(y[s.y + i], negated(times(s.factor, x[s.x + i])));
    }
}

// into = scale * update
@compute @workgroup_size(256)
fn scale(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = span(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        y[s.y + i] = times(s.factor, x[s.x + i]);
    }
}

// velocity = momentum * velocity + update
@compute @workgroup_size(256)
fn accelerate(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = span(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        y[s.y + i] = sum(times(s.factor, y[s.y + i]), x[s.x + i]);
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
fn materialise(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = span(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        let quanta = bitcast<u32>(opaque(s.factor * whole(bitcast<i32>(y[s.y + i]))));
        z[s.z + i] = sum(x[s.x + i], negated(quanta));
    }
}
