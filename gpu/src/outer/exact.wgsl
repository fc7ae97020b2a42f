// Quotients and square roots of floats, rounded to nearest, ties to even, as on a CPU. WGSL allows an error of 2.5
// units in the last place for a quotient, and more for a root, and lets an adapter flush denormals.
//
// The adapter's own result is only a guess. The remainder of the guess is exact in integers, and corrects it.

const NOT_A_NUMBER: u32 = 0x7fc00000u;

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
    return nearest(sign, q, rest, divisor, exponent);
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
