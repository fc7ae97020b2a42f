// Steps with two vectors of state on merged updates: Adam, and momentum that waits for a milestone.
//
// n.x: 0 for Adam, 1 for a step before a milestone, 2 for a milestone.
// Adam: f: the scale of the update, the rate, the floor, mu. more_n: the bits of 1 - mu, beta and 1 - beta.
// Otherwise f.x: the rate times the scale of the update, f.w: mu.
//
// Bindings: the update, the parameters and both vectors of state after the step; then, where they are elsewhere before
// it, the parameters, or the parameters and both vectors.

@group(0) @binding(1) var<storage, read_write> update: array<u32>;
@group(0) @binding(2) var<storage, read_write> params: array<u32>;
@group(0) @binding(3) var<storage, read_write> first: array<u32>;
@group(0) @binding(4) var<storage, read_write> second: array<u32>;
@group(0) @binding(5) var<storage, read_write> one: array<u32>;
@group(0) @binding(6) var<storage, read_write> two: array<u32>;
@group(0) @binding(7) var<storage, read_write> three: array<u32>;

const ADAM: u32 = 0u;
const WAIT: u32 = 1u;

struct Moved {
    params: u32,
    first: u32,
    second: u32,
}

// a, b: the mean and the mean square, or the velocity and the sum since the last milestone.
fn moved(params: u32, a: u32, b: u32, update: u32) -> Moved {
    let d = times(p.f.x, update);
    if p.n.x == ADAM {
        let mean = sum(times(p.f.w, a), times(bitcast<f32>(p.more_n.x), d));
        let square = times(bitcast<f32>(d), d);
        let squares = sum(times(bitcast<f32>(p.more_n.y), b), times(bitcast<f32>(p.more_n.z), square));
        let by = quotient(times(p.f.y, mean), sum(root(squares), bitcast<u32>(p.f.z)));
        return Moved(sum(params, negated(by)), mean, squares);
    }
    let since = sum(b, d);
    if p.n.x == WAIT {
        return Moved(sum(params, negated(d)), a, since);
    }
    let v = sum(times(p.f.w, a), since);
    return Moved(sum(params, negated(sum(d, times(p.f.w, v)))), v, 0u);
}

@compute @workgroup_size(256)
fn pair_in_place(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        let m = moved(params[p.at.y + i], first[p.at.z + i], second[p.at.w + i], update[p.at.x + i]);
        params[p.at.y + i] = m.params;
        first[p.at.z + i] = m.first;
        second[p.at.w + i] = m.second;
    }
}

// one: the parameters before the step
@compute @workgroup_size(256)
fn pair_to(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        let m = moved(one[p.more_at.x + i], first[p.at.z + i], second[p.at.w + i], update[p.at.x + i]);
        params[p.at.y + i] = m.params;
        first[p.at.z + i] = m.first;
        second[p.at.w + i] = m.second;
    }
}

// one, two, three: the parameters and both vectors before the step
@compute @workgroup_size(256)
fn pair_from_to(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        let m =
            moved(one[p.more_at.x + i], two[p.more_at.y + i], three[p.more_at.z + i], update[p.at.x + i]);
        params[p.at.y + i] = m.params;
        first[p.at.z + i] = m.first;
        second[p.at.w + i] = m.second;
    }
}
