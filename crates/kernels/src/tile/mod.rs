//! The register tile: a small block of a matrix product held in vector registers.

mod epilogue;

pub(crate) use epilogue::epilogue;

use crate::element::Element;
use crate::normalize::Normalize;
use crate::simd::{Kernel, Simd, store, stored};

/// One term of a tile: `rows(a) * panel(b)`.
#[derive(Clone, Copy)]
pub struct Term {
    /// Address of row 0, depth 0 of the left matrix.
    pub a: *const f32,
    /// Address of depth 0 of the right panel.
    pub b: *const f32,
}

/// Running sums of the shifted outputs of one task, per output channel.
#[derive(Clone, Copy)]
pub struct TileStats {
    /// Shift per channel. A tile sets it from the task's first row when `first` is set.
    pub shift: *mut f32,
    /// Sum of `y - shift`.
    pub sum: *mut f32,
    /// Sum of `(y - shift)^2`.
    pub square: *mut f32,
    /// Whether this tile holds the first row of its task for these channels.
    pub first: bool,
}

impl TileStats {
    /// The sums of the channels from `channel` on, in a task's `[3][channels]`; a null `sums` gives
    /// none.
    #[inline(always)]
    pub(crate) fn new(
        sums: *mut f32,
        channel: usize,
        channels: usize,
        first: bool,
    ) -> Option<Self> {
        let at = |kind: usize| sums.wrapping_add(kind * channels + channel);
        (!sums.is_null()).then(|| Self { shift: at(0), sum: at(1), square: at(2), first })
    }
}

/// A batch norm with constant statistics of a tile's outputs.
#[derive(Clone, Copy)]
pub struct TileNorm<E> {
    /// Matrix with the layout of the tile's `c`.
    pub c: *mut E,
    /// Mean, scale and beta, one value per column.
    pub parameters: [*const f32; 3],
    /// Whether a ReLU follows.
    pub relu: bool,
}

impl<E: Element> TileNorm<E> {
    /// Loads the parameters of `lanes` columns from `at` on.
    ///
    /// # Safety
    /// The features of `S` are enabled, and `at + lanes` columns exist.
    #[inline(always)]
    pub(crate) unsafe fn channels<S: Simd>(&self, at: usize, lanes: usize) -> Normalize<S> {
        // SAFETY: the caller enabled the features of `S` and promises `lanes` columns from `at` on.
        unsafe {
            Normalize::load(
                [
                    self.parameters[0].add(at),
                    self.parameters[1].add(at),
                    self.parameters[2].add(at),
                ],
                lanes,
            )
        }
    }

    /// Stores the batch norm of `lanes` outputs `y` at `offset` from `c`.
    ///
    /// # Safety
    /// The features of `S` are enabled, and `c` is writable for `lanes` values at `offset`.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd>(
        &self,
        channels: Normalize<S>,
        y: S,
        offset: usize,
        lanes: usize,
    ) {
        // SAFETY: the caller enabled the features of `S` and promises that `c` is writable at
        // `offset`.
        unsafe { store(channels.forward(self.relu, stored::<S, E>(y)), self.c.add(offset), lanes) }
    }
}

/// Arguments of one register tile, `c = sum over terms of a * b (+ bias) (+ add)`, and a batch norm
/// of `c`.
#[derive(Clone, Copy)]
pub struct Tile<'a, E> {
    pub terms: &'a [Term],
    /// Number of elements added to every `a`, so that a tile steps over rows without new terms.
    pub a_offset: usize,
    /// Depth of every term.
    pub depth: usize,
    /// Distance between rows of `a`.
    pub a_row: usize,
    /// Distance between depths of `a`.
    pub a_depth: usize,
    /// Distance between depths of `b`.
    pub b_depth: usize,
    /// Distance from the first two vectors of `b` to the next two, in tiles of more than two.
    pub b_panel: usize,
    /// Destination; null where the sums are not stored.
    pub c: *mut E,
    /// Distance between rows of `c`, of `add` and of the batch norm's result.
    pub c_row: usize,
    /// Number of columns that exist; further columns are computed on the panel's padding and
    /// dropped.
    pub columns: usize,
    /// Null, or a matrix with the layout of `c` (it may be `c` itself).
    pub add: *const E,
    /// Null, or one value per column.
    pub bias: *const f32,
    pub stats: Option<TileStats>,
    pub norm: Option<TileNorm<E>>,
    /// Memory that is read soon: at each depth one cache line is fetched, from this address on. The
    /// address need not be valid.
    pub prefetch: *const f32,
    /// Distance between the fetches of successive depths.
    pub prefetch_step: usize,
}

impl<'a, E> Tile<'a, E> {
    /// A tile of `terms` without destination, epilogue and prefetch; the caller sets the other
    /// fields.
    #[inline(always)]
    pub(crate) fn plain(terms: &'a [Term]) -> Self {
        Self {
            terms,
            a_offset: 0,
            depth: 0,
            a_row: 0,
            a_depth: 1,
            b_depth: 0,
            b_panel: 0,
            c: std::ptr::null_mut(),
            c_row: 0,
            columns: 0,
            add: std::ptr::null(),
            bias: std::ptr::null(),
            stats: None,
            norm: None,
            prefetch: std::ptr::null(),
            prefetch_step: 0,
        }
    }

    /// Moves down by `rows` rows.
    #[inline(always)]
    pub(crate) fn step(&mut self, rows: usize) {
        let at = rows * self.c_row;
        self.a_offset += rows * self.a_row;
        if !self.c.is_null() {
            self.c = self.c.wrapping_add(at);
        }
        if !self.add.is_null() {
            self.add = self.add.wrapping_add(at);
        }
        if let Some(stats) = &mut self.stats {
            stats.first = false;
        }
        if let Some(norm) = &mut self.norm {
            norm.c = norm.c.wrapping_add(at);
        }
    }

    /// Whether the sums are stored with nothing but `add` added to them.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.bias.is_null() && self.stats.is_none() && self.norm.is_none() && !self.c.is_null()
    }

    /// Whether the sums are stored and their statistics taken, with nothing but `add` added.
    #[inline(always)]
    fn has_sums(&self) -> bool {
        self.bias.is_null() && self.stats.is_some() && self.norm.is_none() && !self.c.is_null()
    }
}

/// Calls `$function` on `$tile` with the run-time row and vector counts as constants.
macro_rules! tile_table {
    ($function:ident, $types:tt, $rows:expr, $vectors:expr, $tile:expr; $($r:literal)*) => {
        match ($rows, $vectors) {
            $(
                ($r, 1) => crate::tile::tile_table!(@ $function, $types, $r, 1, $tile),
                ($r, 2) => crate::tile::tile_table!(@ $function, $types, $r, 2, $tile),
            )*
            _ => debug_assert!(false, "no register tile of this size"),
        }
    };
    (@ $function:ident, [$($type:ty),*], $r:literal, $v:literal, $tile:expr) => {
        $function::<$($type,)* $r, $v>($tile)
    };
}
pub(crate) use tile_table;

/// [`compute`] as a kernel, for [`Simd::enter`].
struct Compute<'a, 'b, E, const R: usize, const V: usize>(&'a Tile<'b, E>);

impl<E: Element, const R: usize, const V: usize> Kernel for Compute<'_, '_, E, R, V> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller enabled the features of `S` and keeps the conditions of `compute`.
        unsafe { compute::<S, E, R, V>(self.0) }
    }
}

/// Calls [`compute`], unless `R` exceeds the rows of `S`.
///
/// # Safety
/// The conditions of [`compute`] hold, and the features of `S` are enabled.
#[inline(always)]
unsafe fn enter<S: Simd, E: Element, const R: usize, const V: usize>(tile: &Tile<E>) {
    if const { R <= S::TILE_ROWS } {
        // SAFETY: the caller enabled the features of `S` and keeps the conditions of `compute`.
        unsafe { S::enter(Compute::<E, R, V>(tile)) }
    } else {
        debug_assert!(false, "no register tile of this size");
    }
}

/// Computes one register tile of `rows <= TILE_ROWS` rows and `vectors <= TILE_VECTORS` vectors.
///
/// # Safety
/// The conditions of [`compute`] hold for `R = rows` and `V = vectors`, and the features of `S` are
/// enabled.
#[inline(always)]
pub(crate) unsafe fn run_tile<S: Simd, E: Element>(rows: usize, vectors: usize, tile: &Tile<E>) {
    // SAFETY: the caller enabled the features of `S` and keeps the conditions of `compute` for
    // these counts.
    unsafe { tile_table!(enter, [S, E], rows, vectors, tile; 1 2 3 4 5 6 7 8 9 10 11 12 13 14) }
}

/// Computes a tile of `R` rows and `V` vectors.
///
/// # Safety
/// The features of `S` are enabled. `a` is readable at `R` rows and `depth` depths of every term,
/// `b` at `depth` depths of `V` vectors. `c`, `add` and the batch norm's `c` are null or valid for
/// `R` rows of `columns` columns; `bias`, the statistics and the batch norm's parameters for
/// `columns` values. `(V - 1) * LANES < columns <= V * LANES`.
#[inline(always)]
unsafe fn compute<S: Simd, E: Element, const R: usize, const V: usize>(tile: &Tile<E>) {
    // SAFETY: the caller enabled the features of `S` and promises operands and destinations of
    // these sizes.
    unsafe {
        let mut acc = [[S::zero(); V]; R];
        if !tile.add.is_null() {
            for r in 0..R {
                S::prefetch(tile.add.wrapping_add(r * tile.c_row).cast());
                S::prefetch(tile.add.wrapping_add(r * tile.c_row + S::LANES).cast());
            }
        }
        let mut prefetch = tile.prefetch;
        for term in tile.terms {
            let mut a = term.a.wrapping_add(tile.a_offset);
            let mut b = term.b;
            for _ in 0..tile.depth {
                let mut panel = [S::zero(); V];
                for (v, lane) in panel.iter_mut().enumerate() {
                    *lane = S::load(b.wrapping_add(v * S::LANES));
                }
                for (r, row) in acc.iter_mut().enumerate() {
                    let x = S::splat(*a.wrapping_add(r * tile.a_row));
                    for (v, sum) in row.iter_mut().enumerate() {
                        *sum = x.mul_add(panel[v], *sum);
                    }
                }
                S::prefetch(prefetch);
                prefetch = prefetch.wrapping_add(tile.prefetch_step);
                a = a.wrapping_add(tile.a_depth);
                b = b.wrapping_add(tile.b_depth);
            }
        }
        epilogue(tile, acc);
    }
}

/// Number of columns and vectors of the panel that starts at column `at` of `columns`.
#[inline(always)]
pub(crate) fn panel_extent<S: Simd>(columns: usize, at: usize) -> (usize, usize) {
    let width = (columns - at).min(S::TILE_COLUMNS);
    (width, width.div_ceil(S::LANES))
}

/// Splits `rows` into blocks of at most `TILE_ROWS` whose sizes differ by at most one.
#[inline(always)]
pub(crate) fn row_blocks<S: Simd>(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let blocks = rows.div_ceil(S::TILE_ROWS);
    let (size, larger) = match blocks {
        0 => (0, 0),
        _ => (rows / blocks, rows % blocks),
    };
    (0..blocks).map(move |i| (i * size + i.min(larger), size + usize::from(i < larger)))
}
