mod harness;
#[test]
fn dbg() {
    let a: u64 = std::env::var("S").unwrap().parse().unwrap();
    let b: u64 = std::env::var("E").unwrap().parse().unwrap();
    for seed in a..b {
        let s = harness::Scenario::new(seed, u64::MAX);
        let t = std::time::Instant::now();
        eprintln!("start {seed} {:?} {:?}", s.kind, s.plan.cluster);
        let r = harness::run(&s);
        eprintln!("{seed} {:?} {:?} {}", r.is_ok(), t.elapsed(), r.map(|s| s.events).unwrap_or(0));
    }
}
