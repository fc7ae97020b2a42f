// Source that precedes every shader: parameters, constants, and sums with the rounding of a CPU.
//
// Shaders handle floats as their bits (u32). So copies keep every bit, NaN payloads and denormals included, and a
// value becomes an f32 only for an arithmetic operation.

// The uniform parameters of a dispatch. See `Params` in program.rs.
struct Params {
    // Elements.
    len: u32,
    // Always 0, which no compiler can know: see `opaque`.
    zero: u32,
    // Workgroups of the dispatch.
    groups: u32,
    spare: u32,
    // First word of the segment within each binding.
    at: vec4<u32>,
    more_at: vec4<u32>,
    n: vec4<u32>,
    more_n: vec4<u32>,
    f: vec4<f32>,
}

@group(0) @binding(0) var<uniform> p: Params;

// The adapter flushes denormals: it treats numbers below 2^-126 as 0.
override flushes: bool = false;

const INFINITY: u32 = 0x7f800000u;
const MAGNITUDE: u32 = 0x7fffffffu;
const SIGN: u32 = 0x80000000u;

// Returns x. Prevents that a compiler fuses the product x with a later sum, which would skip the rounding of the
// product. The integer operation in between forces it to have the rounded bits, and `p.zero` is only known when the
// shader runs, so the operation cannot be optimised away.
fn opaque(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) ^ p.zero);
}

fn is_finite(bits: u32) -> bool {
    return (bits & INFINITY) != INFINITY;
}

// bits * 2^100, for magnitudes below 2^-60. Exact on adapters that flush denormals too: a denormal is converted as an
// integer number of 2^-149.
fn scale_up(bits: u32) -> f32 {
    if (bits & INFINITY) == 0u {
        // 2^-149 * 2^100
        let x = f32(bits & 0x7fffffu) * 1.7763568394002505e-15;
        return select(x, -x, (bits & SIGN) != 0u);
    }
    return bitcast<f32>(bits) * 1.2676506002282294e30;
}

// x * 2^-100, as bits. Exact, because sums of floats are multiples of 2^-149.
fn scale_down(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    // Below 2^-26 the result is below 2^-126, a denormal: its bits are the integer number of 2^-149.
    if (bits & MAGNITUDE) < 0x32800000u {
        return (bits & SIGN) | u32(abs(x) * 562949953421312.0);
    }
    return bits - (100u << 23u);
}

// a + b, rounded to nearest, ties to even. Operands below 2^-60 are scaled if the adapter flushes denormals; larger
// sums have no denormal operand that matters and no denormal result.
fn sum(a: u32, b: u32) -> u32 {
    if flushes {
        let largest = max(a & MAGNITUDE, b & MAGNITUDE);
        if largest < 0x21800000u && largest != 0u {
            return scale_down(scale_up(a) + scale_up(b));
        }
    }
    return bitcast<u32>(bitcast<f32>(a) + bitcast<f32>(b));
}

// A positive finite float: mantissa * 2^e. The mantissa has 24 bits, of which the first is set.
struct Parts {
    mantissa: u32,
    e: i32,
}

fn parts(magnitude: u32) -> Parts {
    let exponent = magnitude >> 23u;
    let fraction = magnitude & 0x7fffffu;
    if exponent != 0u {
        return Parts(fraction | 0x800000u, i32(exponent) - 150);
    }
    let by = countLeadingZeros(fraction) - 8u;
    return Parts(fraction << by, -149 - i32(by));
}

// (q + rest / divisor) * 2^(exponent - 150), rounded to nearest, ties to even. q has 24 bits, of which the first is set,
// and rest is below divisor, which is below 2^30.
fn nearest(sign: u32, q: u32, rest: i32, divisor: i32, exponent: i32) -> u32 {
    if exponent >= 255 {
        return sign | INFINITY;
    }
    if exponent > 0 {
        // A carry out of the fraction raises the exponent, up to infinity.
        let up = 2 * rest > divisor || (2 * rest == divisor && (q & 1u) == 1u);
        return sign | ((u32(exponent - 1) << 23u) + q + select(0u, 1u, up));
    }
    // A denormal: some bits of q do not fit.
    let by = u32(1 - exponent);
    if by > 24u {
        return sign;
    }
    let kept = q >> by;
    let lost = q & ((1u << by) - 1u);
    let half = 1u << (by - 1u);
    let up = lost > half || (lost == half && (rest != 0 || (kept & 1u) == 1u));
    return sign | (kept + select(0u, 1u, up));
}

// x * y, for finite numbers that are not 0, in integers.
fn exact_product(x: u32, y: u32) -> u32 {
    let a = parts(x & MAGNITUDE);
    let b = parts(y & MAGNITUDE);
    // The mantissas' product, 47 or 48 bits: high * 2^24 + low.
    let middle = (a.mantissa >> 12u) * (b.mantissa & 0xfffu) + (a.mantissa & 0xfffu) * (b.mantissa >> 12u);
    let lower = ((middle & 0xfffu) << 12u) + (a.mantissa & 0xfffu) * (b.mantissa & 0xfffu);
    let high = (a.mantissa >> 12u) * (b.mantissa >> 12u) + (middle >> 12u) + (lower >> 24u);
    let low = lower & 0xffffffu;
    let sign = (x ^ y) & SIGN;
    let exponent = a.e + b.e + 174;
    if high >= 0x800000u {
        return nearest(sign, high, i32(low), 0x1000000, exponent);
    }
    return nearest(sign, (high << 1u) | (low >> 23u), i32(low & 0x7fffffu), 0x800000, exponent - 1);
}

// x * y, rounded to nearest, ties to even, before it takes part in a sum. If the adapter flushes denormals, products
// that have a denormal operand, or that are as small as the smallest normal number, are made in integers.
fn rounded_product(x: u32, y: u32) -> u32 {
    let quick = bitcast<u32>(opaque(bitcast<f32>(x) * bitcast<f32>(y)));
    if flushes {
        let a = x & MAGNITUDE;
        let b = y & MAGNITUDE;
        let is_small = (quick & MAGNITUDE) <= 0x00800000u || min(a, b) < 0x00800000u;
        if is_small && a != 0u && b != 0u {
            if max(a, b) < INFINITY {
                return exact_product(x, y);
            }
            // Infinity times a denormal, or a NaN.
            return select(((x ^ y) & SIGN) | INFINITY, 0x7fc00000u, max(a, b) > INFINITY);
        }
    }
    return quick;
}
