// Quotients and square roots of floats, rounded to nearest, ties to even, as on a CPU. WGSL allows an error of 2.5
// units in the last place for a quotient, and more for a root, and lets an adapter flush denormals.
//
// The adapter's own result is only a guess. The remainder of the guess is exact in integers, and corrects it.

const NOT_A_NUMBER: u32 = 0x7fc00000u;

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

// x / y.
fn quotient(x: u32, y: u32) -> u32 {
    let sign = (x ^ y) & SIGN;
    let a = x & MAGNITUDE;
    let b = y & MAGNITUDE;
    if a > INFINITY || b > INFINITY || (a == b && (a == 0u || a == INFINITY)) {
        return NOT_A_NUMBER;
    }
    if a == INFINITY || b == 0u {
        return sign | INFINITY;
    }
    if a == 0u || b == INFINITY {
        return sign;
    }
    let over = parts(a);
    let under = parts(b);
    // over.mantissa * 2^shift / under.mantissa lies between 2^23 and 2^24.
    let shift = select(24u, 23u, over.mantissa >= under.mantissa);
    var q = guess(u32(f32(over.mantissa) / f32(under.mantissa) * f32(1u << shift)));
    // The low word is enough: a guess that is wrong by a few units has a remainder of less than 31 bits.
    var rest = bitcast<i32>((over.mantissa << shift) - q * under.mantissa);
    let divisor = i32(under.mantissa);
    while rest < 0 {
        q -= 1u;
        rest += divisor;
    }
    while rest >= divisor {
        q += 1u;
        rest -= divisor;
    }
    let exponent = over.e - under.e - i32(shift) + 150;
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

// The square root as the CPU's kernel has it: 0 for NaN and for negative numbers.
fn root(x: u32) -> u32 {
    if x == 0u || x > INFINITY {
        return 0u;
    }
    if x == INFINITY {
        return INFINITY;
    }
    let square = parts(x);
    // The root of mantissa * 2^shift lies between 2^23 and 2^24, and the rest of the exponent is even.
    let shift = select(23u, 24u, (square.e & 1) == 0);
    let scaled = f32(square.mantissa) * select(0.5, 1.0, shift == 24u);
    var r = guess(u32(sqrt(scaled) * 4096.0));
    // The low word is enough, as above. The nearest integer r has (r - 1/2)^2 < square < (r + 1/2)^2. The root is never
    // in the middle of two integers, because the square of that is no integer.
    var rest = bitcast<i32>((square.mantissa << shift) - r * r);
    while rest > i32(r) {
        rest -= 2 * i32(r) + 1;
        r += 1u;
    }
    while rest <= -i32(r) {
        rest += 2 * i32(r) - 1;
        r -= 1u;
    }
    let exponent = (square.e - i32(shift)) / 2 + 150;
    return (u32(exponent - 1) << 23u) + r;
}
