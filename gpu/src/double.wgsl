// Double precision in integer words. WGSL has no f64, and the native ones of a few adapters do not promise to round
// like a CPU. Normal numbers only: the exponents of means lie far within the range of f64.

// 2^e times a number in [1, 2). `high` and `low` are its mantissa of 64 bits, of which the first is set. Of a rounded
// number the last eleven bits are 0, which leaves 53. Zero has a mantissa of 0.
struct Double {
    negative: bool,
    e: i32,
    high: u32,
    low: u32,
}

fn zero(negative: bool) -> Double {
    return Double(negative, 0, 0u, 0u);
}

fn is_zero(x: Double) -> bool {
    return x.high == 0u;
}

// Shifts a mantissa to the left until its first bit is set. It must not be 0.
fn first_bit_set(negative: bool, e: i32, high: u32, low: u32) -> Double {
    if high == 0u {
        let by = countLeadingZeros(low);
        return Double(negative, e - 32 - i32(by), low << by, 0u);
    }
    let by = countLeadingZeros(high);
    if by == 0u {
        return Double(negative, e, high, low);
    }
    return Double(negative, e - i32(by), (high << by) | (low >> (32u - by)), low << by);
}

// Rounds to 53 bits, to nearest, ties to even.
fn rounded(x: Double) -> Double {
    let rest = x.low & 0x7ffu;
    var low = x.low & ~0x7ffu;
    var high = x.high;
    var e = x.e;
    if rest > 0x400u || (rest == 0x400u && (low & 0x800u) != 0u) {
        low += 0x800u;
        if low == 0u {
            high += 1u;
            if high == 0u {
                high = 0x80000000u;
                e += 1;
            }
        }
    }
    return Double(x.negative, e, high, low);
}

// All 64 bits of a product, low word first: WGSL multiplies to 32 bits.
fn wide_product(x: u32, y: u32) -> vec2<u32> {
    let x0 = x & 0xffffu;
    let x1 = x >> 16u;
    let y0 = y & 0xffffu;
    let y1 = y >> 16u;
    let middle = x1 * y0 + ((x0 * y0) >> 16u);
    let other = x0 * y1 + (middle & 0xffffu);
    return vec2(x * y, x1 * y1 + (middle >> 16u) + (other >> 16u));
}

// A finite float times an integer of at most 29 bits. Exact: 24 + 29 bits.
fn product(bits: u32, weight: u32) -> Double {
    let exponent = (bits >> 23u) & 0xffu;
    let fraction = bits & 0x7fffffu;
    let negative = (bits & SIGN) != 0u;
    let mantissa = select(fraction | 0x800000u, fraction, exponent == 0u);
    if mantissa == 0u {
        return zero(negative);
    }
    let both = wide_product(mantissa, weight);
    return first_bit_set(negative, max(i32(exponent), 1) - 150 + 63, both.y, both.x);
}

// x + y, rounded.
fn plus(x: Double, y: Double) -> Double {
    if is_zero(x) {
        if is_zero(y) {
            return zero(x.negative && y.negative);
        }
        return y;
    }
    if is_zero(y) {
        return x;
    }
    // The subtraction below needs the larger magnitude first.
    let swap = y.e > x.e || (y.e == x.e && (y.high > x.high || (y.high == x.high && y.low > x.low)));
    var large = x;
    var small = y;
    if swap {
        large = y;
        small = x;
    }
    // Align `small` with `large`. The last bit is sticky: it is set if any 1 is shifted out, so that rounding sees it.
    let by = u32(large.e - small.e);
    var high = small.high;
    var low = small.low;
    if by >= 64u {
        high = 0u;
        low = 1u;
    } else if by >= 32u {
        let lost = low != 0u || (by > 32u && (high << (64u - by)) != 0u);
        low = (high >> (by - 32u)) | select(0u, 1u, lost);
        high = 0u;
    } else if by > 0u {
        let lost = (low << (32u - by)) != 0u;
        low = (low >> by) | (high << (32u - by)) | select(0u, 1u, lost);
        high = high >> by;
    }
    if large.negative == small.negative {
        let sum_low = large.low + low;
        let carry = select(0u, 1u, sum_low < low);
        let sum_high = large.high + high;
        let over = sum_high < high;
        let all_high = sum_high + carry;
        // The sum has 65 bits: shift right by one, with the last bit sticky.
        if over || (carry == 1u && all_high == 0u) {
            let kept = (sum_low >> 1u) | (all_high << 31u) | (sum_low & 1u);
            return rounded(Double(large.negative, large.e + 1, (all_high >> 1u) | SIGN, kept));
        }
        return rounded(Double(large.negative, large.e, all_high, sum_low));
    }
    let left_low = large.low - low;
    let left_high = large.high - high - select(0u, 1u, large.low < low);
    if left_high == 0u && left_low == 0u {
        // x - x is +0 when rounding to nearest.
        return zero(false);
    }
    return rounded(first_bit_set(large.negative, large.e, left_high, left_low));
}

// Adds y to the low word of x; the high word counts the carries.
fn add_word(x: vec2<u32>, y: u32) -> vec2<u32> {
    let low = x.x + y;
    return vec2(low, x.y + select(0u, 1u, low < y));
}

// x * y, rounded.
fn times(x: Double, y: Double) -> Double {
    if is_zero(x) || is_zero(y) {
        return zero(x.negative != y.negative);
    }
    // A product of 128 bits in four words. The lower two only matter as a sticky bit.
    let lowest = wide_product(x.low, y.low);
    let cross = wide_product(x.high, y.low);
    let other_cross = wide_product(x.low, y.high);
    let highest = wide_product(x.high, y.high);
    let half = add_word(vec2(lowest.y, 0u), cross.x);
    let second = add_word(half, other_cross.x);
    let third = add_word(add_word(add_word(vec2(highest.x, 0u), cross.y), other_cross.y), second.y);
    let fourth = highest.y + third.y;
    let negative = x.negative != y.negative;
    if (fourth & SIGN) != 0u {
        let lost = select(0u, 1u, (lowest.x | second.x) != 0u);
        return rounded(Double(negative, x.e + y.e + 1, fourth, third.x | lost));
    }
    let lost = select(0u, 1u, (lowest.x | (second.x << 1u)) != 0u);
    let low = (third.x << 1u) | (second.x >> 31u) | lost;
    return rounded(Double(negative, x.e + y.e, (fourth << 1u) | (third.x >> 31u), low));
}

// Rounds to f32 bits, to nearest, ties to even. Above the largest float: infinity.
fn narrow(x: Double) -> u32 {
    let sign = select(0u, SIGN, x.negative);
    if is_zero(x) {
        return sign;
    }
    if x.e > 127 {
        return sign | INFINITY;
    }
    // Bits of `high` that do not fit: 8 for a normal result, more for a denormal one.
    let by = select(8u, 8u + u32(-126 - x.e), x.e < -126);
    // Less than half of the smallest denormal.
    if by > 32u {
        return sign;
    }
    var kept = 0u;
    var rest = x.high;
    var half = SIGN;
    if by < 32u {
        kept = x.high >> by;
        rest = x.high & ((1u << by) - 1u);
        half = 1u << (by - 1u);
    }
    if rest > half || (rest == half && (x.low != 0u || (kept & 1u) == 1u)) {
        kept += 1u;
    }
    // The addition below is deliberate: a carry out of the fraction raises the exponent, up to infinity.
    if x.e < -126 {
        return sign | kept;
    }
    return sign | ((u32(x.e + 126) << 23u) + kept);
}
