// The scan kernel: the smallest index of a float that is not finite. The host sets the result to all ones before.
//
// n.x: index of the first element of this dispatch within the segment.

@group(0) @binding(1) var<storage, read_write> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> result: array<atomic<u32>>;

@compute @workgroup_size(256)
fn scan(@builtin(global_invocation_id) id: vec3<u32>) {
    var first = 0xffffffffu;
    for (var i = id.x; i < p.len; i += p.groups * 256u) {
        if !is_finite(x[p.at.x + i]) {
            first = min(first, p.n.x + i);
        }
    }
    // The usual case is that all are finite: it then costs no atomic operation.
    if first != 0xffffffffu {
        atomicMin(&result[0], first);
    }
}
