// What a sparse body says, into a vector: pairs of an element and a word, each element at most once.

@group(0) @binding(1) var<storage, read_write> pairs: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> into: array<u32>;

// Whole numbers are added.
@compute @workgroup_size(256)
fn add(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var i = id.x; i < p.len; i += p.groups * 256u) {
        let pair = pairs[p.at.x + i];
        let at = pair.x - p.n.x;
        if at < p.n.y {
            into[p.at.y + at] += pair.y;
        }
    }
}

// Words are put there.
@compute @workgroup_size(256)
fn put(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var i = id.x; i < p.len; i += p.groups * 256u) {
        let pair = pairs[p.at.x + i];
        let at = pair.x - p.n.x;
        if at < p.n.y {
            into[p.at.y + at] = pair.y;
        }
    }
}
