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
