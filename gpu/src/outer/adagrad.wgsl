// A step of Adagrad on merged updates.
//
// f.x: the scale of the update. f.y: the rate. f.z: the floor.
//
// Bindings: the update, the parameters and the sum of squares after the step; then, where they are elsewhere before it,
// the parameters, or the parameters and the sum.

@group(0) @binding(1) var<storage, read_write> update: array<u32>;
@group(0) @binding(2) var<storage, read_write> params: array<u32>;
@group(0) @binding(3) var<storage, read_write> sums: array<u32>;
@group(0) @binding(4) var<storage, read_write> one: array<u32>;
@group(0) @binding(5) var<storage, read_write> two: array<u32>;

struct Moved {
    params: u32,
    squares: u32,
}

fn moved(params: u32, squares: u32, update: u32) -> Moved {
    let d = times(p.f.x, update);
    let s = sum(squares, times(bitcast<f32>(d), d));
    let by = quotient(times(p.f.y, d), root(sum(s, bitcast<u32>(p.f.z))));
    return Moved(sum(params, negated(by)), s);
}

@compute @workgroup_size(256)
fn adagrad_in_place(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        let m = moved(params[p.at.y + i], sums[p.at.z + i], update[p.at.x + i]);
        params[p.at.y + i] = m.params;
        sums[p.at.z + i] = m.squares;
    }
}

// one: the parameters before the step
@compute @workgroup_size(256)
fn adagrad_to(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        let m = moved(one[p.at.w + i], sums[p.at.z + i], update[p.at.x + i]);
        params[p.at.y + i] = m.params;
        sums[p.at.z + i] = m.squares;
    }
}

// one, two: the parameters and the sum before the step
@compute @workgroup_size(256)
fn adagrad_from_to(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        let m = moved(one[p.at.w + i], two[p.more_at.x + i], update[p.at.x + i]);
        params[p.at.y + i] = m.params;
        sums[p.at.z + i] = m.squares;
    }
}
