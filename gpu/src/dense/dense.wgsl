// The common part of dense encoders: accumulation into the residual, refusal of sums that are not finite, and the sum
// of squares.
//
// n.x: index of the first element of this dispatch; n.y: 1 if there is an update; n.z: word of `counters` for the
// first workgroup's sum of squares; n.w: variant of the format.

@group(0) @binding(1) var<storage, read_write> update: array<u32>;
@group(0) @binding(2) var<storage, read_write> residual: array<u32>;
@group(0) @binding(3) var<storage, read_write> body: array<atomic<u32>>;
// Word 0: number of refused elements; word 1: index of the first; from word 8 on: a sum of squares per workgroup.
@group(0) @binding(4) var<storage, read_write> counters: array<atomic<u32>>;

// residual + update of an element; the residual alone if the sum is not finite.
fn accumulated(i: u32) -> u32 {
    let old = residual[p.at.y + i];
    if p.n.y == 0u {
        return old;
    }
    let acc = sum(old, update[p.at.x + i]);
    if is_finite(acc) {
        return acc;
    }
    atomicAdd(&counters[0], 1u);
    atomicMin(&counters[1], p.n.x + i);
    return old;
}

// Stores the new residual of an element and returns its square.
fn store_residual(i: u32, left: u32) -> f32 {
    residual[p.at.y + i] = left;
    let x = bitcast<f32>(left);
    return x * x;
}

// x - y.
fn minus(x: u32, y: f32) -> u32 {
    return sum(x, bitcast<u32>(y) ^ SIGN);
}

var<workgroup> squares: array<f32, 64>;

// Adds up the invocations' sums of squares and stores the workgroup's. WGSL has no atomic floats, so the host adds up
// the workgroups.
fn store_squares(me: u32, group: u32, total: f32) {
    squares[me] = total;
    workgroupBarrier();
    if me == 0u {
        var all = 0.0;
        for (var k = 0u; k < 64u; k++) {
            all += squares[k];
        }
        atomicStore(&counters[p.n.z + group], bitcast<u32>(all));
    }
}
