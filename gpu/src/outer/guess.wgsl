// The adapter's quotient or root as an integer. A test replaces this function by one that is wrong by a few units.
fn guess(x: u32) -> u32 {
    return x;
}

