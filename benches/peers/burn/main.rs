//! The mean of one vector over threads by burn's collective: `burn PEERS FLOATS`. Prints the median and the best time of a
//! call at peer 0, of the fastest of its strategies, as `cargo bench --bench allreduce` does.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use burn_collective::{
    AllReduceStrategy, CollectiveConfig, PeerId, ReduceOperation, all_reduce, finish_collective, register,
};
use burn_flex::Flex;
use burn_tensor::{Tensor, TensorPrimitive};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, peers, floats] = &args[..] else { panic!("usage: burn PEERS FLOATS") };
    let (peers, floats): (usize, usize) = (peers.parse().unwrap(), floats.parse().unwrap());
    let strategies = [AllReduceStrategy::Centralized, AllReduceStrategy::Tree(2), AllReduceStrategy::Ring];
    let times = strategies.map(|strategy| measure(strategy, peers, floats));
    let [median, best] = times.into_iter().min().unwrap().map(|time| time.as_secs_f64() * 1e6);
    println!("{:>9}  {peers:>2}  {:>11}  {median:>12.1}  {best:>12.1}", "burn", 4 * floats);
}

/// The median and the best time of a call at peer 0.
fn measure(strategy: AllReduceStrategy, peers: usize, floats: usize) -> [Duration; 2] {
    let rounds = (500_000_000 / floats.max(1)).clamp(12, 2000);
    let begin = Barrier::new(peers);
    thread::scope(|scope| {
        let run = |rank: usize| {
            let begin = &begin;
            scope.spawn(move || {
                let id = PeerId::from(rank as u32);
                let config =
                    CollectiveConfig::default().with_num_devices(peers).with_local_all_reduce_strategy(strategy);
                register::<Flex>(id, Default::default(), config).unwrap();
                let tensor = Tensor::<Flex, 1>::full([floats], rank as f32, &Default::default());
                let mut tensor = tensor.into_primitive().tensor();
                begin.wait();
                let mut times = Vec::new();
                for _ in 0..rounds + rounds / 5 + 1 {
                    let begun = Instant::now();
                    tensor = all_reduce::<Flex>(id, tensor, ReduceOperation::Mean).unwrap();
                    times.push(begun.elapsed());
                }
                let mean = Tensor::<Flex, 1>::from_primitive(TensorPrimitive::Float(tensor)).to_data();
                let expected = (peers - 1) as f32 / 2.0;
                assert!(mean.iter::<f32>().all(|got| got == expected), "expected {expected} everywhere");
                finish_collective::<Flex>(id).unwrap();
                let mut times = times.split_off(rounds / 5 + 1);
                times.sort_unstable();
                [times[times.len() / 2], times[0]]
            })
        };
        let threads: Vec<_> = (0..peers).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).next().unwrap()
    })
}
