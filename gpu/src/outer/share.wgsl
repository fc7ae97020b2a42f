// Source that precedes the steps of outer optimizers. Every workgroup loops over a share of the elements, so a grid of
// any size covers all of them.

// The share of one invocation: elements i, i + 256, ... below `end`.
struct Share {
    i: u32,
    end: u32,
}

fn share(group: u32, me: u32) -> Share {
    let each = ((p.len + p.groups - 1u) / p.groups + 255u) & ~255u;
    let first = group * each;
    return Share(first + me, min(p.len, first + each));
}

fn negated(bits: u32) -> u32 {
    return bits ^ SIGN;
}

// A product that is rounded before it takes part in a sum, as on the CPU.
fn times(scale: f32, bits: u32) -> u32 {
    return rounded_product(bitcast<u32>(scale), bits);
}
