mod harness;
#[test]
fn dbg() {
    let seed: u64 = std::env::var("S").unwrap().parse().unwrap();
    let s = harness::Scenario::new(seed, u64::MAX);
    let r = harness::run(&s);
    println!("{:?}", r.is_ok());
}
