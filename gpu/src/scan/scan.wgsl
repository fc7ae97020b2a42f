// The first float that is not finite: its index, or all ones.

@group(0) @binding(1) var<storage, read_write> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> found: array<atomic<u32>>;

@compute @workgroup_size(256)
fn scan(@builtin(global_invocation_id) id: vec3<u32>) {
    var first = 0xffffffffu;
    for (var i = id.x; i < p.len; i += p.groups * 256u) {
        if !is_finite(x[p.at.x + i]) {
            first = min(first, p.n.x + i);
        }
    }
    if first != 0xffffffffu {
        atomicMin(&found[0], first);
    }
}
