// What encoders of every element have in common: the residual takes the update, and what is not finite is left out.

@group(0) @binding(1) var<storage, read_write> update: array<u32>;
@group(0) @binding(2) var<storage, read_write> residual: array<u32>;
@group(0) @binding(3) var<storage, read_write> body: array<atomic<u32>>;
// Elements left out, the first of them; then a sum of squares for each workgroup.
@group(0) @binding(4) var<storage, read_write> counters: array<atomic<u32>>;

// `n.x`: index of the first element; `n.y`: is there an update? `n.z`: where this dispatch's sums begin; `n.w`: which of several
// ways.
fn joined(i: u32) -> u32 {
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

// Keeps what is left of an element; returns its square.
fn keep(i: u32, left: u32) -> f32 {
    residual[p.at.y + i] = left;
    let x = bitcast<f32>(left);
    return x * x;
}

fn less(x: u32, y: f32) -> u32 {
    return sum(x, bitcast<u32>(y) ^ SIGN);
}

var<workgroup> squares: array<f32, 64>;

fn leave(me: u32, group: u32, total: f32) {
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
