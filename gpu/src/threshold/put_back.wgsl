// Adds the quanta of a rejected message to the residual. An index occurs at most once, so no atomics are needed.
//
// n.x: index of the first element that is bound; n.y: number of bound elements.

// Index of an element, and the bits of count * tau.
@group(0) @binding(1) var<storage, read_write> pairs: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> residual: array<u32>;

@compute @workgroup_size(256)
fn put_back(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var i = id.x; i < p.len; i += p.groups * 256u) {
        // Elements before the binding wrap around to large numbers and fail the test as well.
        let at = pairs[i].x - p.n.x;
        if at < p.n.y {
            residual[p.at.y + at] = sum(residual[p.at.y + at], pairs[i].y);
        }
    }
}
