//! Quotients and roots on the device, compared with the host's bit for bit, on adapters that flush denormals too.

use super::*;
use crate::commands::{Commands, Part};
use crate::context::Context;
use crate::memory::Staging;
use crate::tests::{Random, context};
use crate::wgpu;

pub(crate) static EXACT: Program =
    program("exact", concat!(include_str!("share.wgsl"), include_str!("exact.wgsl"), include_str!("tests.wgsl")), 2);

/// The root of the host's kernel.
fn host_root(x: f32) -> f32 {
    if x > 0.0 { x.sqrt() } else { 0.0 }
}

/// Floats at the ends of their ranges, where a rounding carries or a result becomes a denormal.
const EDGES: [u32; 16] = [
    0,
    1,
    2,
    3,
    0x007f_ffff,
    0x0080_0000,
    0x0080_0001,
    0x00ff_ffff,
    0x3f7f_ffff,
    0x3f80_0000,
    0x3f80_0001,
    0x7f00_0000,
    0x7f7f_ffff,
    0x7f80_0000,
    0x7f80_0001,
    0x7fc0_0000,
];

/// Operands: all pairs of edges with both signs, random bits of all exponents, and quotients near the smallest float.
fn operands(random: &mut Random) -> (Vec<u32>, Vec<u32>) {
    let edges: Vec<u32> = EDGES.into_iter().flat_map(|bits| [bits, bits | 0x8000_0000]).collect();
    let mut pairs: Vec<(u32, u32)> = edges.iter().flat_map(|x| edges.iter().map(move |y| (*x, *y))).collect();
    for _ in 0..100_000 {
        let (x, y) = (random.next() as u32, random.next() as u32);
        pairs.push((x, y));
        // The exponents differ by about 130, so that the quotient is a denormal or nearly one.
        let small = (random.next() % 40) as u32;
        pairs.push(((x & 0x807f_ffff) | small << 23, (y & 0x807f_ffff) | (small + 118 + x % 30) << 23));
        // Few bits: quotients and roots that are exact, or ties.
        pairs.push((x & 0xffff_8000, y & 0xfff0_0000));
        let root = f32::from_bits(y & 0x7fff_ffff).sqrt();
        pairs.push(((root * root).to_bits(), root.to_bits()));
    }
    pairs.into_iter().unzip()
}

#[test]
fn quotients_and_roots_equal_the_host() {
    let Some(context) = context() else { return };
    let (x, y) = operands(&mut Random(43));
    // The software adapter rounds correctly, so the guesses are made worse by these units.
    for error in [0, 1, -1, 7, -7, 32, -32] {
        compare(&context, &x, &y, error);
    }
}

fn compare(context: &Context, x: &[u32], y: &[u32], error: i32) {
    let mut commands = Commands::new(context.clone());
    let bytes = 4 * x.len() as u64;
    let buffers = [x, y].map(|words| {
        let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("operands"),
            size: bytes,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        commands.upload(&buffer, 0, bytemuck::cast_slice(words));
        buffer
    });
    let groups = commands.workgroups(&EXACT, x.len() as u32);
    let n = [(error + 32) as u32, 0, 0, 0];
    let params = Params { len: x.len() as u32, groups, n, ..Params::default() };
    commands.run(&EXACT, &[Part::whole(&buffers[0]), Part::whole(&buffers[1])], params);
    let [quotients, roots] = buffers.each_ref().map(|buffer| {
        let staging = Staging::new(&mut commands, bytes);
        commands.copy(Part::whole(buffer), &staging.buffer, 0);
        commands.submit();
        staging.map(bytes);
        context.wait().unwrap();
        assert!(staging.is_ready(&commands).unwrap());
        staging.take(bytes, |bytes| bytemuck::cast_slice::<u8, u32>(bytes).to_vec()).unwrap()
    });
    let same =
        |expected: f32, got: u32| expected.to_bits() == got || (expected.is_nan() && f32::from_bits(got).is_nan());
    for (i, (a, b)) in x.iter().zip(y).enumerate() {
        let (a, b) = (f32::from_bits(*a), f32::from_bits(*b));
        let expected = a / b;
        let (bits, got) = (expected.to_bits(), quotients[i]);
        assert!(same(expected, got), "{a:e} / {b:e}, {error}: expected {bits:#010x}, got {got:#010x}");
        let expected = host_root(b);
        let (bits, got) = (expected.to_bits(), roots[i]);
        assert!(same(expected, got), "the root of {b:e}, {error}: expected {bits:#010x}, got {got:#010x}");
    }
}
