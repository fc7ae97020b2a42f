// What every kernel begins with.

struct Params {
    // Elements.
    len: u32,
    // 0, which no compiler knows: see `opaque`.
    zero: u32,
    // Workgroups.
    groups: u32,
    spare: u32,
    // Where each binding's segment begins, in words.
    at: vec4<u32>,
    more_at: vec4<u32>,
    n: vec4<u32>,
    more_n: vec4<u32>,
    f: vec4<f32>,
}

@group(0) @binding(0) var<uniform> p: Params;

// The adapter takes numbers below 2^-126 for 0.
override flushes: bool = false;

const INFINITY: u32 = 0x7f800000u;
const MAGNITUDE: u32 = 0x7fffffffu;
const SIGN: u32 = 0x80000000u;

// A product that cannot be fused with what is added to it: it has been a word in between, combined with another that is 0
// but might not be.
fn opaque(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) ^ p.zero);
}

fn is_finite(bits: u32) -> bool {
    return (bits & INFINITY) != INFINITY;
}

// A float below 2^-60, times 2^100, though it may be denormal and the adapter flush those.
fn up(bits: u32) -> f32 {
    if (bits & INFINITY) == 0u {
        // 2^-149 * 2^100
        let x = f32(bits & 0x7fffffu) * 1.7763568394002505e-15;
        return select(x, -x, (bits & SIGN) != 0u);
    }
    return bitcast<f32>(bits) * 1.2676506002282294e30;
}

// Back again; exact, as sums of floats are multiples of 2^-149.
fn down(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    // Below 2^-26, what was 2^-126: whole numbers of 2^-49.
    if (bits & MAGNITUDE) < 0x32800000u {
        return (bits & SIGN) | u32(abs(x) * 562949953421312.0);
    }
    return bits - (100u << 23u);
}

// The sum, rounded to nearest, ties to even, whether the adapter flushes or not.
fn sum(a: u32, b: u32) -> u32 {
    if flushes {
        let largest = max(a & MAGNITUDE, b & MAGNITUDE);
        if largest < 0x21800000u && largest != 0u {
            return down(up(a) + up(b));
        }
    }
    return bitcast<u32>(bitcast<f32>(a) + bitcast<f32>(b));
}
