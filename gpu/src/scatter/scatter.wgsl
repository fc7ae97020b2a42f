// Scatters the entries of a sparse body into a vector. An index occurs at most once, so no two invocations write the
// same word and no atomics are needed.
//
// n.x: index of the first element that is bound; n.y: number of bound elements. at.x: first pair.

// Index of an element, and the word for it.
@group(0) @binding(1) var<storage, read_write> pairs: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> into: array<u32>;

// Adds integers (the counts of a ledger).
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

// Adds floats.
@compute @workgroup_size(256)
fn add_floats(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var i = id.x; i < p.len; i += p.groups * 256u) {
        let pair = pairs[p.at.x + i];
        let at = pair.x - p.n.x;
        if at < p.n.y {
            into[p.at.y + at] = sum(into[p.at.y + at], pair.y);
        }
    }
}

// Stores words.
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
