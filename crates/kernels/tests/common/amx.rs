//! Tile instructions for processors without them: a handler of the illegal instruction signal that
//! executes them on tiles of its own, one set for each thread.
//!
//! Written from the descriptions in the Intel 64 and IA-32 Architectures Software Developer's
//! Manual. What the manual calls an exception is refused here, so that the signal ends the process
//! as it would without a handler.

use std::cell::UnsafeCell;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sora_kernels::Isa;

pub const ROWS: usize = 16;
pub const ROW_BYTES: usize = 64;

/// The tiles of one thread and their configuration.
pub struct Tiles {
    configured: bool,
    rows: [usize; 8],
    column_bytes: [usize; 8],
    data: [[[u8; ROW_BYTES]; ROWS]; 8],
}

impl Tiles {
    pub const fn new() -> Self {
        Self {
            configured: false,
            rows: [0; 8],
            column_bytes: [0; 8],
            data: [[[0; ROW_BYTES]; ROWS]; 8],
        }
    }

    /// `ldtilecfg`.
    pub fn configure(&mut self, config: &[u8; 64]) -> Option<()> {
        *self = Self::new();
        let reserved = config[2..16].iter().chain(&config[32..48]).chain(&config[56..64]);
        if config[0] > 1 || config[1] != 0 || reserved.into_iter().any(|&b| b != 0) {
            return None;
        }
        if config[0] == 0 {
            return Some(());
        }
        for tile in 0..8 {
            self.column_bytes[tile] =
                usize::from(u16::from_le_bytes([config[16 + 2 * tile], config[17 + 2 * tile]]));
            self.rows[tile] = usize::from(config[48 + tile]);
            let (rows, bytes) = (self.rows[tile], self.column_bytes[tile]);
            if rows > ROWS || bytes > ROW_BYTES || (rows == 0) != (bytes == 0) {
                return None;
            }
        }
        self.configured = true;
        Some(())
    }

    fn usable(&self, tile: usize) -> Option<()> {
        (self.configured && tile < 8 && self.rows[tile] > 0).then_some(())
    }

    /// `tilezero`.
    pub fn zero(&mut self, tile: usize) -> Option<()> {
        self.usable(tile)?;
        self.data[tile] = [[0; ROW_BYTES]; ROWS];
        Some(())
    }

    /// `tileloadd`.
    ///
    /// # Safety
    /// The tile's rows are readable, `stride` bytes apart.
    pub unsafe fn load(&mut self, tile: usize, start: *const u8, stride: isize) -> Option<()> {
        self.zero(tile)?;
        for row in 0..self.rows[tile] {
            let source = start.wrapping_offset(row as isize * stride);
            // SAFETY: the caller promises that the tile's rows are readable; a row of `data` has room for
            // `column_bytes`.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    source,
                    self.data[tile][row].as_mut_ptr(),
                    self.column_bytes[tile],
                )
            };
        }
        Some(())
    }

    /// `tilestored`.
    ///
    /// # Safety
    /// The tile's rows are writable, `stride` bytes apart.
    pub unsafe fn store(&self, tile: usize, start: *mut u8, stride: isize) -> Option<()> {
        self.usable(tile)?;
        for row in 0..self.rows[tile] {
            let target = start.wrapping_offset(row as isize * stride);
            // SAFETY: the caller promises that the tile's rows are writable; a row of `data` holds
            // `column_bytes`.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    self.data[tile][row].as_ptr(),
                    target,
                    self.column_bytes[tile],
                )
            };
        }
        Some(())
    }

    /// `tdpbf16ps`: even and odd halves of the pairs are summed apart, then together, then added.
    /// Denormals count as zero and become zero; rounding is to nearest even.
    pub fn multiply(&mut self, c: usize, a: usize, b: usize) -> Option<()> {
        [c, a, b].into_iter().try_for_each(|tile| self.usable(tile))?;
        let distinct = c != a && a != b && b != c;
        let fits = self.rows[c] == self.rows[a]
            && self.column_bytes[a] == 4 * self.rows[b]
            && self.column_bytes[c] == self.column_bytes[b];
        if !distinct || !fits || !self.column_bytes[c].is_multiple_of(4) {
            return None;
        }
        let columns = self.column_bytes[c] / 4;
        let half = |bytes: &[u8; ROW_BYTES], index: usize| {
            flushed(f32::from_bits(
                u32::from(u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]])) << 16,
            ))
        };
        let mut right = [[[0.0f32; 16]; 2]; ROWS];
        for (row, halves) in right.iter_mut().enumerate().take(self.rows[b]) {
            for n in 0..columns {
                for (h, half_row) in halves.iter_mut().enumerate() {
                    half_row[n] = half(&self.data[b][row], 2 * n + h);
                }
            }
        }
        for m in 0..self.rows[c] {
            let mut sums = [[0.0f32; 16]; 2];
            for (k, right) in right.iter().enumerate().take(self.rows[b]) {
                for (h, (sums, right)) in sums.iter_mut().zip(right).enumerate() {
                    let left = half(&self.data[a][m], 2 * k + h);
                    for (sum, right) in sums.iter_mut().zip(right) {
                        // The product of two bf16 is exact in f32, so this rounds once, like a
                        // fused operation.
                        *sum = flushed(*sum + flushed(left * right));
                    }
                }
            }
            for n in 0..columns {
                let at = 4 * n..4 * n + 4;
                let row = &mut self.data[c][m];
                let old = flushed(f32::from_le_bytes([
                    row[4 * n],
                    row[4 * n + 1],
                    row[4 * n + 2],
                    row[4 * n + 3],
                ]));
                let new = flushed(old + flushed(sums[0][n] + sums[1][n]));
                row[at].copy_from_slice(&new.to_le_bytes());
            }
        }
        Some(())
    }
}

/// Zero, with its sign, in place of a denormal.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// Operand in memory, as encoded.
struct Address {
    /// Base and displacement.
    start: u64,
    /// Scaled index.
    stride: u64,
}

/// Executes the instruction at `code` and returns its length.
///
/// # Safety
/// `code` is readable for 16 bytes, and the instruction's operands are what its execution needs.
unsafe fn execute(
    tiles: &mut Tiles,
    code: *const u8,
    register: impl Fn(usize) -> u64,
) -> Option<usize> {
    // SAFETY: the caller promises 16 readable bytes at `code`, and no instruction here is longer.
    let byte = |at: usize| unsafe { *code.add(at) };
    if byte(0) != 0xc4 {
        return None;
    }
    // R, X and B extend the fields of ModRM and SIB, vvvv names a register; all are stored
    // inverted.
    let (r, x, b) = (
        usize::from(!byte(1) >> 7 & 1),
        usize::from(!byte(1) >> 6 & 1),
        usize::from(!byte(1) >> 5 & 1),
    );
    let (map, w, vvvv) = (byte(1) & 31, byte(2) >> 7, usize::from(!byte(2) >> 3 & 15));
    let (long, prefix, opcode, modrm) = (byte(2) >> 2 & 1, byte(2) & 3, byte(3), byte(4));
    let (mode, reg, rm) =
        (modrm >> 6, usize::from(modrm >> 3 & 7) | r << 3, usize::from(modrm & 7));
    if map != 2 || w != 0 || long != 0 {
        return None;
    }
    let mut length = 5;
    let mut address = Address { start: 0, stride: 0 };
    let in_memory = mode != 3;
    if in_memory {
        let mut base = Some(rm | b << 3);
        if rm == 4 {
            let sib = byte(length);
            length += 1;
            let (index, low) = (usize::from(sib >> 3 & 7) | x << 3, usize::from(sib & 7));
            base = if low == 5 && mode == 0 { None } else { Some(low | b << 3) };
            if index != 4 {
                address.stride = register(index) << (sib >> 6);
            }
        } else if rm == 5 && mode == 0 {
            // Relative to the next instruction, which is 4 bytes on.
            base = None;
            address.start = code as u64 + length as u64 + 4;
        }
        let four =
            |at: usize| i32::from_le_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
        let (displacement, size) = match (mode, base) {
            (1, _) => (i32::from(byte(length) as i8), 1),
            (2, _) | (0, None) => (four(length), 4),
            _ => (0, 0),
        };
        length += size;
        address.start = address
            .start
            .wrapping_add_signed(i64::from(displacement))
            .wrapping_add(base.map_or(0, register));
    }
    const NONE: u8 = 0;
    const OPERAND: u8 = 1;
    const REPEAT: u8 = 2;
    const REPEAT_NOT: u8 = 3;
    let stride = address.stride as isize;
    // Only loads, stores and products may have a register in vvvv.
    let unused = vvvv == 0;
    // SAFETY: the caller promises operands in memory that the instruction may read or write.
    unsafe {
        match (opcode, prefix) {
            (0x49, NONE) if in_memory && unused && reg == 0 => {
                tiles.configure(&*(address.start as *const [u8; 64]))?
            }
            (0x49, NONE) if modrm == 0xc0 && unused => *tiles = Tiles::new(),
            (0x49, REPEAT_NOT) if mode == 3 && rm == 0 && unused => tiles.zero(reg)?,
            (0x4b, REPEAT_NOT | OPERAND) if in_memory && rm == 4 && unused => {
                tiles.load(reg, address.start as *const u8, stride)?
            }
            (0x4b, REPEAT) if in_memory && rm == 4 && unused => {
                tiles.store(reg, address.start as *mut u8, stride)?
            }
            (0x5c, REPEAT) if mode == 3 => tiles.multiply(reg, rm | b << 3, vvvv)?,
            _ => return None,
        }
    }
    Some(length)
}

thread_local! {
    static TILES: UnsafeCell<Tiles> = const { UnsafeCell::new(Tiles::new()) };
}

/// Tile instructions executed so far.
static EXECUTED: AtomicUsize = AtomicUsize::new(0);
static EMULATED: AtomicBool = AtomicBool::new(false);

/// How many tile instructions the handler has executed, on all threads.
pub fn executed() -> usize {
    EXECUTED.load(Ordering::SeqCst)
}

/// Whether the handler is in place, as opposed to a processor with AMX or without AVX-512.
pub fn is_emulated() -> bool {
    EMULATED.load(Ordering::SeqCst)
}

extern "C" fn on_illegal_instruction(
    signal: libc::c_int,
    _: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    use libc::{
        REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RAX, REG_RBP,
        REG_RBX, REG_RCX, REG_RDI, REG_RDX, REG_RIP, REG_RSI, REG_RSP,
    };
    const REGISTERS: [libc::c_int; 16] = [
        REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9,
        REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
    ];
    // SAFETY: the kernel hands over the state of the interrupted thread, whose instruction pointer
    // is at the instruction that was refused. The tiles are this thread's, and no other code
    // borrows them while the handler runs.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let code = registers[REG_RIP as usize] as *const u8;
        let length = TILES.with(|tiles| {
            execute(&mut *tiles.get(), code, |index| registers[REGISTERS[index] as usize] as u64)
        });
        match length {
            Some(length) => {
                registers[REG_RIP as usize] += length as i64;
                EXECUTED.fetch_add(1, Ordering::Relaxed);
            }
            // Not a tile instruction, or one the processor would refuse: it ends the process when
            // it runs again.
            None => {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// The instruction sets that can be tested: those of this machine, and AMX where the processor has
/// at least what lies below it.
pub fn instruction_sets() -> Vec<Isa> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if !Isa::Amx.is_available() && Isa::Avx512Bf16.is_available() {
            // SAFETY: the handler has the signature that SA_SIGINFO asks for; it executes every
            // tile instruction that the kernels use, on the thread that meets it.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_illegal_instruction as extern "C" fn(_, _, _) as usize;
                action.sa_flags = libc::SA_SIGINFO;
                assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
                sora_kernels::isa::assume_amx_is_emulated();
                EMULATED.store(true, Ordering::SeqCst);
            }
        }
    });
    Isa::available().collect()
}
