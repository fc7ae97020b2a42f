// A step of momentum on merged updates.
//
// f.x: mu. f.y: the rate times the scale of the update. n.x: bit 0 looks ahead, bit 1 is set if mu is 0. Bit 2: the velocity
// is that of updates over their learning rate, f.z, by which f.y has been divided.
//
// Bindings: the update, the parameters and the velocity after the step; then, where they are elsewhere before it, the
// parameters, or the parameters and the velocity.

@group(0) @binding(1) var<storage, read_write> update: array<u32>;
@group(0) @binding(2) var<storage, read_write> params: array<u32>;
@group(0) @binding(3) var<storage, read_write> velocity: array<u32>;
@group(0) @binding(4) var<storage, read_write> one: array<u32>;
@group(0) @binding(5) var<storage, read_write> two: array<u32>;

const LOOK: u32 = 1u;
const NO_MU: u32 = 2u;
const RATED: u32 = 4u;

struct Moved {
    params: u32,
    velocity: u32,
}

fn moved(params: u32, velocity: u32, update: u32) -> Moved {
    let d = times(p.f.y, update);
    // Without the product of 0, which has a sign.
    if (p.n.x & NO_MU) != 0u {
        return Moved(sum(params, negated(d)), d);
    }
    let v = sum(times(p.f.x, velocity), d);
    var step = v;
    if (p.n.x & LOOK) != 0u {
        step = sum(d, times(p.f.x, v));
    }
    if (p.n.x & RATED) != 0u {
        step = times(p.f.z, step);
    }
    return Moved(sum(params, negated(step)), v);
}

@compute @workgroup_size(256)
fn momentum_in_place(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        let m = moved(params[p.at.y + i], velocity[p.at.z + i], update[p.at.x + i]);
        params[p.at.y + i] = m.params;
        velocity[p.at.z + i] = m.velocity;
    }
}

// one: the parameters before the step
@compute @workgroup_size(256)
fn momentum_to(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        let m = moved(one[p.at.w + i], velocity[p.at.z + i], update[p.at.x + i]);
        params[p.at.y + i] = m.params;
        velocity[p.at.z + i] = m.velocity;
    }
}

// one, two: the parameters and the velocity before the step
@compute @workgroup_size(256)
fn momentum_from_to(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        let m = moved(one[p.at.w + i], two[p.more_at.x + i], update[p.at.x + i]);
        params[p.at.y + i] = m.params;
        velocity[p.at.z + i] = m.velocity;
    }
}
