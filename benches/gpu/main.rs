//! Times of the GPU kernels, as ratios to a copy on the same device and to the same kernel on the CPU.
//!
//! `cargo bench --features gpu --bench gpu` runs all kernels, `-- NAME` the kernels with a name that contains NAME, and
//! `-- --test` all kernels at a small size. `WGPU_ADAPTER_NAME` chooses the adapter. Without an adapter the bench is
//! skipped, or fails if `GRADWIRE_REQUIRE_GPU` is set.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::time::Instant;

use gradwire::device::{Pool, Segment};
use gradwire::gpu::{Context, Gpu, wgpu};
use gradwire_core::BufferId;
use gradwire_core::codec::threshold::Aim;
use gradwire_core::kernel::executor::Executor;
use gradwire_core::kernel::{self, Coding, EncodeTarget, Kernel, KernelResult, MEAN_MAX, ledger};
use gradwire_core::recipe::Control;

/// Vectors of a set.
const VECTORS: u32 = 6;
/// Rounds use several sets of vectors in turn, so that a round does not find its vectors in a cache.
const SETS: u32 = 3;
/// The ledger, of which a machine has one: index 3 of set 0.
fn ledger(len: usize) -> Segment {
    vector(0, LEDGER, ledger::words(len))
}

const LEDGER: u32 = 3;
const SECTIONS: BufferId = BufferId(VECTORS * SETS);
const BODY: BufferId = BufferId(VECTORS * SETS + 1);
const TOUCHED: BufferId = BufferId(VECTORS * SETS + 2);
/// Scratch memory of encoders, which grows if the host runs one.
const SCRATCH: BufferId = BufferId(VECTORS * SETS + 3);

struct Bench {
    gpu: Gpu,
    pool: Pool,
    /// Floats of a vector.
    len: usize,
    rounds: u32,
    /// GB/s of a copy on the device; 0 before it has been measured.
    copy: f64,
    /// Seconds of encoding at a density of 3.6e-3.
    encode: f64,
    /// Parts of the names of the kernels to run; empty: all.
    wanted: Vec<String>,
}

/// A vector of a set.
fn vector(set: u32, index: u32, len: usize) -> Segment {
    Segment::floats(BufferId(set % SETS * VECTORS + index), 0, len)
}

impl Bench {
    fn new(context: Context, len: usize, rounds: u32, wanted: Vec<String>) -> Self {
        let body = Coding::Bf16.len_max(len, 1) + 64;
        let words = |index: u32| if index == LEDGER { ledger::words(len) } else { len };
        let lens = (0..VECTORS * SETS).map(|index| 4 * words(index)).chain([16, body, 4 * ledger::map_words(len), 0]);
        let mut pool = Pool::new(lens);
        let mut state = 1u64;
        for set in 0..SETS {
            for x in pool.floats_mut(vector(set, 0, len)) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *x = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            }
        }
        let sections: [u32; 4] = [0, len as u32, 0.9f32.to_bits(), 0];
        let at = Segment::floats(SECTIONS, 0, 4);
        pool.bytes_mut(at).copy_from_slice(bytemuck::cast_slice(&sections));
        Self { gpu: Gpu::new(context), pool, len, rounds, copy: 0.0, encode: 0.0, wanted }
    }

    /// Runs a kernel and waits for its result. The kernel itself may still be in the device's queue.
    fn run(&mut self, kernel: Kernel) -> KernelResult {
        let mut result = self.gpu.begin(&kernel, &mut self.pool).unwrap();
        while result.is_none() {
            result = self.gpu.poll(&mut self.pool).unwrap();
        }
        result.unwrap_or_default()
    }

    /// True if the command line selects this kernel. The copy comes first and is always measured.
    fn is_wanted(&self, name: &str) -> bool {
        self.copy == 0.0 || self.wanted.is_empty() || self.wanted.iter().any(|wanted| name.contains(wanted.as_str()))
    }

    /// The mean duration of a kernel in seconds. `kernel` makes the kernel for a set of vectors.
    fn time(&mut self, kernel: impl Fn(u32) -> Kernel) -> f64 {
        for set in 0..SETS {
            self.run(kernel(set));
        }
        self.gpu.wait().unwrap();
        let begun = Instant::now();
        for round in 0..self.rounds {
            self.run(kernel(round));
        }
        self.gpu.wait().unwrap();
        begun.elapsed().as_secs_f64() / f64::from(self.rounds)
    }

    /// Measures a kernel that moves `bytes_each` bytes per element, prints its row, and returns its rate in GB/s.
    fn row(&mut self, name: &str, bytes_each: usize, kernel: impl Fn(u32) -> Kernel) -> f64 {
        if !self.is_wanted(name) {
            return 0.0;
        }
        let seconds = self.time(kernel);
        let rate = (bytes_each * self.len) as f64 / seconds / 1e9;
        if self.copy == 0.0 {
            self.copy = rate;
        }
        println!("{name:<28} {:>10.3} ms {rate:>8.2} GB/s {:>6.2} of copy", seconds * 1e3, rate / self.copy);
        rate
    }

    /// Measures all selected kernels.
    fn kernels(&mut self) {
        let len = self.len;
        let v = |set: u32, index: u32| vector(set, index, len);
        self.row("copy", 8, |set| Kernel::Copy { from: v(set, 0), into: v(set, 2) });
        let axpy = self.row("apply in place (axpy)", 12, |set| Kernel::Apply {
            from: v(set, 1),
            update: v(set, 0),
            scale: 1e-3,
            into: v(set, 1),
        });
        self.row("apply", 12, |set| Kernel::Apply { from: v(set, 1), update: v(set, 0), scale: 0.3, into: v(set, 2) });
        self.row("accelerate (momentum)", 12, |set| Kernel::Accelerate {
            update: v(set, 0),
            velocity: v(set, 1),
            momentum: 0.9,
        });
        self.row("materialise", 12, |set| Kernel::Materialise {
            base: v(set, 0),
            ledger: ledger(len),
            unit: 1.0 / 1024.0,
            into: v(set, 2),
        });
        self.row("scan", 4, |set| Kernel::Scan { x: v(set, 0) });
        for count in [2, 4] {
            self.row(&format!("mean of {count}"), 4 * (count + 1), |set| {
                let mut inputs = [None; MEAN_MAX];
                let of = [v(set, 0), v(set, 1), v(set, 2), v(set, 4)];
                of.into_iter().take(count).zip(&mut inputs).for_each(|(x, input)| *input = Some((x, 32)));
                Kernel::Mean { inputs, into: v(set, 5) }
            });
        }
        for coding in [Coding::Bf16, Coding::Int8, Coding::Sign] {
            let body = Segment::floats(BODY, 0, coding.len_max(len, 1) / 4);
            let place = EncodeTarget { sections: Segment::floats(SECTIONS, 0, 4), scratch: SCRATCH, body };
            let bytes = 12 + coding.len_max(len, 1) / len;
            self.row(&format!("encode {coding:?}"), bytes, |set| Kernel::Encode {
                decay: 1.0,
                coding,
                update: Some(v(set, 0)),
                residual: v(set, 1),
                place,
            });
        }
        if axpy > 0.0 {
            self.host(axpy);
        }
        if self.is_wanted("sparse") {
            self.sparse();
            self.textbook();
        }
    }

    /// Measures the axpy on one thread of the CPU. `device`: its rate on the device in GB/s.
    fn host(&mut self, device: f64) {
        let (from, update) = (vector(0, 1, self.len), vector(0, 0, self.len));
        let kernel = Kernel::Apply { from, update, scale: 1e-3, into: from };
        let mut pool = Pool::new((0..2).map(|_| 4 * self.len));
        kernel::run(&kernel, &mut pool);
        let begun = Instant::now();
        for _ in 0..self.rounds {
            kernel::run(&kernel, &mut pool);
        }
        let seconds = begun.elapsed().as_secs_f64() / f64::from(self.rounds);
        let rate = (12 * self.len) as f64 / seconds / 1e9;
        println!(
            "{:<28} {:>10.3} ms {rate:>8.2} GB/s; the device reaches {:.2} of it",
            "axpy on the CPU",
            seconds * 1e3,
            device / rate
        );
    }

    /// Measures the threshold codec, from a gradient on the device to the bytes of a message on the host, and compares
    /// it with reading the whole gradient.
    fn sparse(&mut self) {
        let len = self.len;
        let v = |set: u32, index: u32| vector(set, index, len);
        let begun = Instant::now();
        for round in 0..self.rounds {
            // The copy makes the device's version of the vector newer, so that `fetch` has to read it.
            self.run(Kernel::Copy { from: v(round, 0), into: v(round, 2) });
            while !self.gpu.fetch(v(round, 2), &mut self.pool).unwrap() {}
        }
        let raw = begun.elapsed().as_secs_f64() / f64::from(self.rounds);
        println!("{:<28} {:>10.3} ms, including a copy on the device", "gradient to the host", raw * 1e3);
        for density in [1e-1, 1e-2, 3.6e-3, 1e-3, 1e-4] {
            let aim = Aim { unit: 1.0 / 4096.0, control: Control::Density { density }, tau: 0.5, dense: false };
            let coding = Coding::Threshold(aim);
            let sections = Segment::floats(SECTIONS, 0, 4);
            let body = Segment::floats(BODY, 0, coding.len_max(len, 1) / 4);
            let place = EncodeTarget { sections, scratch: SCRATCH, body };
            let encode =
                |set: u32| Kernel::Encode { coding, decay: 1.0, update: Some(v(set, 0)), residual: v(set, 1), place };
            let seconds = self.time(encode);
            let KernelResult::Encoded(encoded) = self.run(encode(0)) else {
                panic!("expected the result of an encoder")
            };
            if density == 3.6e-3 {
                self.encode = seconds;
            }
            let entries = f64::from(encoded.entries);
            let rate = (12 * len) as f64 / seconds / 1e9;
            println!(
                "{:<28} {:>10.3} ms {rate:>8.2} GB/s {:>6.2} of copy; {:.2} of reading the gradient, {} bytes",
                format!("encode at {density:.0e}"),
                seconds * 1e3,
                rate / self.copy,
                seconds / raw,
                encoded.bytes
            );
            let decode = |_: u32| Kernel::Decode {
                body: body.first(encoded.bytes),
                sections,
                unit: aim.unit,
                ledger: ledger(len),
                touched: Segment::floats(TOUCHED, 0, ledger::map_words(len)),
            };
            let seconds = self.time(decode);
            println!(
                "{:<28} {:>10.3} ms {:>8.2} ns per entry",
                format!("decode and apply, {density:.0e}"),
                seconds * 1e3,
                seconds * 1e9 / entries.max(1.0)
            );
        }
    }

    /// Compares the complete encoder, including reading the message back, with a textbook stream compaction alone, at
    /// the same density.
    fn textbook(&mut self) {
        let context = self.gpu.context().clone();
        let (device, queue) = (context.device(), context.queue());
        // A dispatch has at most 65,535 workgroups per dimension.
        let len = self.len.min(65_535 * 256);
        let buffer = |size: usize, usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: size as u64,
                usage: usage | wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        };
        let [x, list] = [4 * len, 4 * len].map(|size| buffer(size, wgpu::BufferUsages::COPY_DST));
        let counter = buffer(4, wgpu::BufferUsages::COPY_DST);
        queue.write_buffer(&x, 0, bytemuck::cast_slice(&self.pool.floats(vector(0, 0, self.len))[..len]));
        let source = wgpu::ShaderSource::Wgsl(include_str!("textbook.wgsl").into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("textbook"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let entries = [(0, &x), (1, &list), (2, &counter)];
        let entries =
            entries.map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() });
        let layout = pipeline.get_bind_group_layout(0);
        let group =
            device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries });
        let once = || {
            queue.write_buffer(&counter, 0, &[0; 4]);
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(len.div_ceil(256) as u32, 1, 1);
            drop(pass);
            queue.submit([encoder.finish()]);
        };
        let wait = || assert!(device.poll(wgpu::PollType::wait_indefinitely()).is_ok());
        once();
        wait();
        let begun = Instant::now();
        (0..self.rounds).for_each(|_| once());
        wait();
        let textbook = begun.elapsed().as_secs_f64() / f64::from(self.rounds) / len as f64;
        let ours = self.encode / self.len as f64;
        println!(
            "{:<28} {:>10.2} Melem/s; textbook compaction alone {:.2}: {:.1} times as fast",
            "encode at 3.6e-3",
            1e-6 / ours,
            1e-6 / textbook,
            textbook / ours
        );
    }
}

fn main() {
    let small = std::env::args().any(|arg| arg == "--test");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let context = match Context::open() {
        Ok(context) => context,
        Err(error) => {
            assert!(std::env::var_os("GRADWIRE_REQUIRE_GPU").is_none(), "{error}");
            return println!("skipped: {error}");
        }
    };
    println!("adapter: {}{}", context.name(), if context.flushes_denormals() { ", flushes denormals" } else { "" });
    // The longer vectors take 10 GB of memory, which a software adapter takes from the host.
    let sizes: &[usize] = match (small, context.is_software()) {
        (true, _) => &[20_000],
        (false, true) => &[14_600_000],
        (false, false) => &[14_600_000, 128_000_000],
    };
    for len in sizes {
        println!("\n{len} floats");
        Bench::new(context.clone(), *len, if small { 2 } else { 10 }, wanted.clone()).kernels();
    }
}
