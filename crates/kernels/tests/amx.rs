//! Tests of the emulator of tile instructions: its results, its decoding of instructions, and the
//! kernels on it.

#![allow(clippy::unwrap_used, clippy::panic)]
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod common;

use std::arch::asm;

use common::amx::{ROW_BYTES, ROWS, Tiles, executed, instruction_sets};
use common::{values, values_as};
use sora_kernels::conv::{Conv2d, ConvAlgorithm, ConvGeometry, Direction, Epilogue};
use sora_kernels::{Isa, bf16};

type Tile = [[u8; ROW_BYTES]; ROWS];

fn config(rows: [u8; 3], bytes: [u16; 3]) -> [u8; 64] {
    let mut config = [0; 64];
    config[0] = 1;
    for tile in 0..3 {
        config[16 + 2 * tile..18 + 2 * tile].copy_from_slice(&bytes[tile].to_le_bytes());
        config[48 + tile] = rows[tile];
    }
    config
}

/// A tile of bf16 with ordinary values, and a few denormals, zeros and infinities if `special`.
fn random(seed: u64, special: bool) -> Tile {
    let mut tile = [[0; ROW_BYTES]; ROWS];
    let x = values_as::<bf16>(ROWS * ROW_BYTES / 2, seed, 0.0);
    for (i, x) in x.iter().enumerate() {
        let bits = match i % 61 {
            7 if special => 0x0001,
            19 if special => 0x8040,
            31 if special => 0x8000,
            43 if special => 0x7f80,
            _ => x.to_bits(),
        };
        tile[i / 32][i % 32 * 2..][..2].copy_from_slice(&bits.to_le_bytes());
    }
    tile
}

fn sums(seed: u64) -> Tile {
    let mut tile = [[0; ROW_BYTES]; ROWS];
    for (i, x) in values(ROWS * ROW_BYTES / 4, seed, 0.0).iter().enumerate() {
        tile[i / 16][i % 16 * 4..][..4].copy_from_slice(&x.to_le_bytes());
    }
    tile
}

/// `c += a b` by tile instructions, on the processor if it has them.
fn by_instructions(config: &[u8; 64], c: &mut Tile, a: &Tile, b: &Tile) {
    // SAFETY: the instructions exist or are emulated, and the tiles' rows lie within the arrays.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            "tilezero tmm0",
            "tileloadd tmm0, [{c} + {stride}*1]",
            "tileloaddt1 tmm1, [{a} + {quarter}*4]",
            "tileloadd tmm2, [{b} + {stride}*1 + 0x1000]",
            "tdpbf16ps tmm0, tmm1, tmm2",
            "tilestored [{c} + {quarter}*4], tmm0",
            "tilerelease",
            config = in(reg) config,
            c = in(reg) c.as_mut_ptr(),
            a = in(reg) a.as_ptr(),
            b = in(reg) b.as_ptr().cast::<u8>().wrapping_sub(0x1000),
            stride = in(reg) ROW_BYTES,
            quarter = in(reg) ROW_BYTES / 4,
            out("tmm0") _, out("tmm1") _, out("tmm2") _,
            options(nostack),
        );
    }
}

/// On a processor with AMX this compares the emulator with it; elsewhere it compares calls through
/// the signal with direct calls.
#[test]
fn products_of_tiles() {
    if !instruction_sets().contains(&Isa::Amx) {
        return;
    }
    for (seed, rows, depth, columns, special) in
        [(1, 16, 16, 16, false), (2, 16, 16, 16, true), (3, 5, 7, 3, true), (4, 1, 1, 1, false)]
    {
        let config = config([rows, rows, depth], [columns * 4, u16::from(depth) * 4, columns * 4]);
        let (mut c, a, b) = (sums(seed), random(seed + 10, special), random(seed + 20, special));
        let mut expected = c;
        by_instructions(&config, &mut c, &a, &b);
        let mut tiles = Tiles::new();
        tiles.configure(&config).unwrap();
        // SAFETY: the rows that the tiles name lie within the arrays.
        unsafe {
            tiles.load(0, expected.as_ptr().cast(), ROW_BYTES as isize).unwrap();
            tiles.load(1, a.as_ptr().cast(), ROW_BYTES as isize).unwrap();
            tiles.load(2, b.as_ptr().cast(), ROW_BYTES as isize).unwrap();
            tiles.multiply(0, 1, 2).unwrap();
            tiles.store(0, expected.as_mut_ptr().cast(), ROW_BYTES as isize).unwrap();
        }
        let floats = |tile: &Tile| -> Vec<u32> {
            let words = tile
                .as_flattened()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes));
            // Any NaN equals any other here.
            words.map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
        };
        assert_eq!(floats(&c), floats(&expected), "{rows} x {depth} x {columns}");
    }
}

/// The emulator against sums in `f64`.
#[test]
fn emulated_product_is_a_matrix_product() {
    let (a, b) = (random(1, false), random(2, false));
    let mut c = sums(3);
    let half = |tile: &Tile, row: usize, i: usize| {
        f64::from(
            bf16::from_bits(u16::from_le_bytes([tile[row][2 * i], tile[row][2 * i + 1]])).to_f32(),
        )
    };
    let float = |tile: &Tile, row: usize, i: usize| {
        f64::from(f32::from_le_bytes(tile[row][4 * i..4 * i + 4].try_into().unwrap()))
    };
    let before = c;
    let mut tiles = Tiles::new();
    tiles.configure(&config([16; 3], [64; 3])).unwrap();
    // SAFETY: the rows that the tiles name lie within the arrays.
    unsafe {
        for (tile, data) in [(0, &c), (1, &a), (2, &b)] {
            tiles.load(tile, data.as_ptr().cast(), ROW_BYTES as isize).unwrap();
        }
        tiles.multiply(0, 1, 2).unwrap();
        tiles.store(0, c.as_mut_ptr().cast(), ROW_BYTES as isize).unwrap();
    }
    for m in 0..16 {
        for n in 0..16 {
            let product: f64 =
                (0..32).map(|k| half(&a, m, k) * half(&b, k / 2, 2 * n + k % 2)).sum();
            let expected = float(&before, m, n) + product;
            assert!((float(&c, m, n) - expected).abs() < 1e-5, "{m}, {n}");
        }
    }
}

#[test]
fn what_the_processor_would_refuse_is_refused() {
    let mut tiles = Tiles::new();
    assert!(tiles.zero(0).is_none(), "no configuration");
    assert!(tiles.configure(&config([17, 16, 16], [64; 3])).is_none(), "too many rows");
    assert!(tiles.configure(&config([0, 16, 16], [64; 3])).is_none(), "bytes without rows");
    tiles.configure(&config([16, 15, 16], [64; 3])).unwrap();
    assert!(tiles.multiply(0, 1, 2).is_none(), "rows of c and a differ");
    assert!(tiles.multiply(0, 0, 2).is_none(), "operands must differ");
    assert!(tiles.zero(3).is_none(), "a tile that is not configured");
}

/// A convolution on `amx` runs tile instructions: on an emulated machine they are counted.
#[test]
fn convolutions_run_on_tiles() {
    if !instruction_sets().contains(&Isa::Amx) {
        return;
    }
    let geometry = ConvGeometry::square(64, 40, [3, 2], 3, 1);
    let conv = Conv2d::<bf16>::new(geometry, Isa::Amx).unwrap();
    let algorithms = conv.algorithms();
    for algorithm in [algorithms.forward, algorithms.input_grad, algorithms.weight_grad] {
        assert_eq!(algorithm, ConvAlgorithm::DirectBf16);
    }
    let n = 20;
    let (x, dy) = (
        values_as::<bf16>(conv.input_len(n).unwrap(), 1, 0.0),
        values_as::<bf16>(conv.output_len(n).unwrap(), 2, 0.0),
    );
    let w = values(conv.weight_len(), 3, 0.0);
    let packed = conv.pack(&w, Direction::Forward).unwrap();
    let mut y = dy.clone();
    let before = executed();
    // With one thread, all counted instructions belong to this test.
    common::on_threads(1, || conv.forward(n, &x, &packed, &mut y, Epilogue::default())).unwrap();
    let forward = executed();
    let mut dw = vec![0.0; w.len()];
    common::on_threads(1, || conv.weight_grad(n, &x, &dy, &mut dw)).unwrap();
    if common::amx::is_emulated() {
        // Each pixel has 4 or 6 taps of two steps, and two panels: four products a step in the
        // first, which is full, two in the second, whose 8 columns are one tile.
        let taps = 4 * 4 + 2 * 6;
        assert!(forward - before >= taps * 2 * (4 + 2), "{} instructions", forward - before);
        assert!(
            executed() - forward >= taps * (2 * 4 + 2 * 2),
            "{} instructions",
            executed() - forward
        );
    }
}
