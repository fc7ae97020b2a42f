// Textbook stream compaction, for comparison: one element per invocation, a prefix sum by doubling over the 256
// elements of a workgroup, and an atomic counter that gives each workgroup its place in the list. The order of entries
// is not deterministic.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> list: array<u32>;
@group(0) @binding(2) var<storage, read_write> counter: atomic<u32>;

var<workgroup> sums: array<u32, 256>;
var<workgroup> base: u32;

@compute @workgroup_size(256)
fn textbook(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let i = group.x * 256u + me;
    let keeps = i < arrayLength(&x) && abs(x[i]) >= 0.996;
    sums[me] = select(0u, 1u, keeps);
    workgroupBarrier();
    for (var step = 1u; step < 256u; step *= 2u) {
        var left = 0u;
        if me >= step {
            left = sums[me - step];
        }
        workgroupBarrier();
        sums[me] += left;
        workgroupBarrier();
    }
    if me == 255u {
        base = atomicAdd(&counter, sums[255]);
    }
    workgroupBarrier();
    if keeps {
        list[base + sums[me] - 1u] = i;
    }
}
