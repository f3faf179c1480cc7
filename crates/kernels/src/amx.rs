//! AMX tiles: eight registers of up to 16 rows of 64 bytes, and the product of two of them.
//!
//! `tdpbf16ps` multiplies a tile of 16 rows of 16 bf16 pairs with a tile of 16 pair rows of 16
//! columns and adds the products to 16 x 16 `f32`. [`multiply`] keeps 32 x 32 sums in four tiles
//! and feeds them from two tiles of each operand, so a loaded tile serves two products. The
//! instructions are written in assembly, because the compiler's intrinsics are not stable. One
//! assembly block holds a whole product, so that the compiler never has to keep a tile between two
//! blocks. Source: Intel 64 and IA-32 Architectures Software Developer's Manual, chapter "Intel AMX
//! Instruction Set Reference".

use std::arch::asm;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows and columns of a block of sums: two tiles of 16 each way.
pub(crate) const BLOCK: usize = 32;
/// Depths (bf16 values) that one instruction multiplies: 16 pairs.
pub(crate) const STEP: usize = 32;

/// Whether a signal handler executes the tile instructions in place of the processor.
static EMULATED: AtomicBool = AtomicBool::new(false);

/// Declares that tile instructions work although the processor lacks them.
///
/// # Safety
/// A handler of the illegal instruction signal executes them, on every thread, from now on.
pub(crate) unsafe fn assume() {
    EMULATED.store(true, Ordering::SeqCst);
}

/// Whether processor and operating system offer AMX-TILE and AMX-BF16. The first call asks the
/// operating system for the permission to use tiles, which then holds for the whole process.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    EMULATED.load(Ordering::Relaxed) || *AVAILABLE.get_or_init(detect)
}

#[cfg(all(target_os = "linux", not(miri)))]
fn detect() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    #[target_feature(enable = "xsave")]
    unsafe fn enabled_states() -> u64 {
        // SAFETY: the caller has seen the OSXSAVE bit: the operating system enabled `xgetbv`.
        unsafe { _xgetbv(0) }
    }

    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    const TILE_STATES: u64 = 0b11 << 17;
    if __cpuid(0).eax < 0x1d || __cpuid(1).ecx & 1 << 27 == 0 {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    let (bf16, tile) = (features & 1 << 22 != 0, features & 1 << 24 != 0);
    // SAFETY: `enabled_states` needs the OSXSAVE bit, which `&&` has tested first.
    if !bf16 || !tile || unsafe { enabled_states() } & TILE_STATES != TILE_STATES {
        return false;
    }
    // Palette 1: eight tiles of 16 rows of 64 bytes.
    let palette = __cpuid_count(0x1d, 1);
    if palette.ebx != 8 << 16 | 64 || palette.ecx & 0xffff != 16 {
        return false;
    }
    // SAFETY: the call asks for a permission; it reads and writes no memory of this process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn detect() -> bool {
    false
}

/// The operand of `ldtilecfg`: palette, and rows and bytes per row of each tile.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    column_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Proof that this thread's tiles are set up. Dropping the value releases the tiles.
pub(crate) struct Tiles(std::marker::PhantomData<*const ()>);

impl Tiles {
    /// Sets up tiles for products whose left operand has `rows[0]` rows in its first tile and
    /// `rows[1]` rows in its second, at most 16 each. `rows[1]` may be 0 if no product uses the
    /// second tile.
    ///
    /// # Safety
    /// [`is_available`] has returned true, so that the tile instructions exist.
    pub(crate) unsafe fn new(rows: [usize; 2]) -> Self {
        let mut config = Config {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            column_bytes: [0; 16],
            rows: [0; 16],
        };
        for (tile, left) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 0), (5, 1)] {
            config.rows[tile] = rows[left].clamp(1, 16) as u8;
        }
        config.rows[6..8].fill(16);
        config.column_bytes[..8].fill(64);
        // SAFETY: the configuration is valid for palette 1; the caller promises that tile
        // instructions exist.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, preserves_flags, readonly))
        };
        Self(std::marker::PhantomData)
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: `Tiles::new` made this value, and its caller promised that tile instructions
        // exist.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// One term of a block of sums: a left matrix times a right panel.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct TileTerm {
    /// Address of row 0, depth 0 of the left matrix.
    pub a: *const u8,
    /// Address of depth 0 of the right panel, whose rows hold 32 pairs (128 bytes), one row for
    /// each pair of depths.
    pub b: *const u8,
}

/// The sums of 32 rows of 32 columns.
#[repr(C, align(64))]
pub(crate) struct Sums(pub [[f32; BLOCK]; BLOCK]);

impl Sums {
    pub(crate) fn zeroed() -> Self {
        Self([[0.0; BLOCK]; BLOCK])
    }
}

/// Defines one form of the product, for a given number of row tiles and column tiles.
macro_rules! product {
    ($name:ident: $($zero:literal)*; $($body:literal)*; $($store:literal)*) => {
        #[inline(always)]
        unsafe fn $name(terms: &[TileTerm], steps: usize, a_row: usize, sums: &mut Sums) {
            // SAFETY: the caller keeps the conditions of `multiply`: tiles set up for these rows,
            // and operands readable for every step.
            unsafe {
                asm!(
                    $($zero,)*
                    "test {count}, {count}",
                    "jz 4f",
                    "2:",
                    "mov {a}, [{terms}]",
                    "mov {b}, [{terms} + 8]",
                    "mov {lower}, {a_row}",
                    "shl {lower}, 4",
                    "add {lower}, {a}",
                    "mov {k}, {steps}",
                    "3:",
                    $($body,)*
                    "add {a}, 64",
                    "add {lower}, 64",
                    "add {b}, 2048",
                    "dec {k}",
                    "jnz 3b",
                    "add {terms}, 16",
                    "dec {count}",
                    "jnz 2b",
                    "4:",
                    $($store,)*
                    terms = inout(reg) terms.as_ptr() => _,
                    count = inout(reg) terms.len() => _,
                    steps = in(reg) steps,
                    a_row = in(reg) a_row,
                    // Bytes of a row of the right panel and of the sums.
                    row = in(reg) 4 * BLOCK,
                    sums = in(reg) sums.0.as_mut_ptr(),
                    a = out(reg) _,
                    b = out(reg) _,
                    lower = out(reg) _,
                    k = out(reg) _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

// Tiles 0 1 / 2 3 hold the sums, 4 / 5 the left operand, 6 7 the right operand. A load stands just
// ahead of the first product that needs it, so that the next step's loads run below this step's
// products.
product!(product_2x2:
    "tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3";
    "tileloadd tmm4, [{a} + {a_row}*1]"
    "tileloadd tmm6, [{b} + {row}*1]"
    "tdpbf16ps tmm0, tmm4, tmm6"
    "tileloadd tmm7, [{b} + {row}*1 + 64]"
    "tdpbf16ps tmm1, tmm4, tmm7"
    "tileloadd tmm5, [{lower} + {a_row}*1]"
    "tdpbf16ps tmm2, tmm5, tmm6"
    "tdpbf16ps tmm3, tmm5, tmm7";
    "tilestored [{sums} + {row}*1], tmm0"
    "tilestored [{sums} + {row}*1 + 64], tmm1"
    "tilestored [{sums} + {row}*1 + 2048], tmm2"
    "tilestored [{sums} + {row}*1 + 2112], tmm3"
);
product!(product_2x1:
    "tilezero tmm0" "tilezero tmm2";
    "tileloadd tmm4, [{a} + {a_row}*1]"
    "tileloadd tmm6, [{b} + {row}*1]"
    "tdpbf16ps tmm0, tmm4, tmm6"
    "tileloadd tmm5, [{lower} + {a_row}*1]"
    "tdpbf16ps tmm2, tmm5, tmm6";
    "tilestored [{sums} + {row}*1], tmm0"
    "tilestored [{sums} + {row}*1 + 2048], tmm2"
);
product!(product_1x2:
    "tilezero tmm0" "tilezero tmm1";
    "tileloadd tmm4, [{a} + {a_row}*1]"
    "tileloadd tmm6, [{b} + {row}*1]"
    "tdpbf16ps tmm0, tmm4, tmm6"
    "tileloadd tmm7, [{b} + {row}*1 + 64]"
    "tdpbf16ps tmm1, tmm4, tmm7";
    "tilestored [{sums} + {row}*1], tmm0"
    "tilestored [{sums} + {row}*1 + 64], tmm1"
);
product!(product_1x1:
    "tilezero tmm0";
    "tileloadd tmm4, [{a} + {a_row}*1]"
    "tileloadd tmm6, [{b} + {row}*1]"
    "tdpbf16ps tmm0, tmm4, tmm6";
    "tilestored [{sums} + {row}*1], tmm0"
);

/// `sums = sum over terms of a * b`, each term over `steps` steps of 32 depths. `rows` and
/// `columns` say how many of the sums are wanted (1 to 32 each); sums outside the tiles that hold
/// the wanted ones keep their old values.
///
/// # Safety
/// `tiles` was set up on this thread for the rows of `a`, which are `a_row` bytes apart. `a` is
/// readable at those rows (16 in each tile in use, unless `tiles` was set up for fewer) for 64
/// bytes of each step, and `b` for 2048 bytes of each step.
#[inline(always)]
pub(crate) unsafe fn multiply(
    _: &Tiles,
    terms: &[TileTerm],
    steps: usize,
    a_row: usize,
    rows: usize,
    columns: usize,
    sums: &mut Sums,
) {
    // The assembly counts down before it tests, so a step count of zero would wrap around.
    let terms = if steps == 0 { &[] } else { terms };
    // SAFETY: the caller promises that `tiles` fits the rows of `a`, and operands readable for
    // every step.
    unsafe {
        match (rows > BLOCK / 2, columns > BLOCK / 2) {
            (true, true) => product_2x2(terms, steps, a_row, sums),
            (true, false) => product_2x1(terms, steps, a_row, sums),
            (false, true) => product_1x2(terms, steps, a_row, sums),
            (false, false) => product_1x1(terms, steps, a_row, sums),
        }
    }
}

/// Runs `tdpbf16ps` on tiles alone, without memory, and returns the number of operations.
///
/// # Safety
/// [`is_available`] has returned true, so that the tile instructions exist.
pub(crate) unsafe fn peak(rounds: usize) -> usize {
    const PRODUCTS: usize = 8;
    // SAFETY: the caller promises that tile instructions exist; `rounds` is not zero, so the loop
    // ends.
    unsafe {
        let _tiles = Tiles::new([16; 2]);
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
            "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {rounds}",
            "jnz 2b",
            rounds = inout(reg) rounds.max(1) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, nomem),
        );
    }
    PRODUCTS * rounds.max(1) * 2 * 16 * 16 * STEP
}
