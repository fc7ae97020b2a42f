// The quotient and the root of exact.wgsl, for comparison with the host.

@group(0) @binding(1) var<storage, read_write> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

// Wrong by n.x units less 32, as the quotients and roots of a bad adapter are.
fn guess(x: u32) -> u32 {
    return x + p.n.x - 32u;
}

// x becomes x / y, and y becomes the root of y.
@compute @workgroup_size(256)
fn exact(@builtin(local_invocation_index) me: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let s = share(group.x, me);
    for (var i = s.i; i < s.end; i += 256u) {
        x[i] = quotient(x[i], y[i]);
        y[i] = root(y[i]);
    }
}
