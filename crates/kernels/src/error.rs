use thiserror::Error;

/// A slice or a parameter does not fit the shape an operation was given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// A buffer does not hold the number of elements its shape asks for.
    #[error("{what}: expected {expected} elements, got {actual}")]
    Length {
        /// Name of the argument.
        what: &'static str,
        /// Number of elements the shape asks for.
        expected: usize,
        /// Number of elements the caller passed.
        actual: usize,
    },
    /// The product of the dimensions does not fit in `usize`.
    #[error("{what}: the shape {dims:?} has more elements than this machine can address")]
    Overflow {
        /// Name of the argument.
        what: &'static str,
        /// The dimensions whose product overflowed.
        dims: Vec<usize>,
    },
    /// A parameter is outside the range the operation accepts.
    #[error("{what}: {reason}")]
    Parameter {
        /// Name of the parameter.
        what: &'static str,
        /// What is wrong and what would be accepted.
        reason: String,
    },
}

/// Number of elements of a tensor with dimensions `dims`.
///
/// # Errors
/// [`ShapeError::Overflow`] when the byte size of that many `f32` exceeds `isize::MAX`.
pub(crate) fn elements(what: &'static str, dims: &[usize]) -> Result<usize, ShapeError> {
    // A zero anywhere makes the tensor empty, whatever the other factors multiply to.
    if dims.contains(&0) { Ok(0) } else { extent(what, dims) }
}

/// Number of elements as in [`elements`], where a dimension of zero counts as one: for sizes that
/// index arithmetic must be able to hold even where a tensor is empty.
///
/// # Errors
/// [`ShapeError::Overflow`] when the byte size of that many `f32` exceeds `isize::MAX`.
pub(crate) fn extent(what: &'static str, dims: &[usize]) -> Result<usize, ShapeError> {
    dims.iter()
        .try_fold(1usize, |product, &d| product.checked_mul(d.max(1)))
        .filter(|&count| count <= isize::MAX as usize / size_of::<f32>())
        .ok_or_else(|| ShapeError::Overflow { what, dims: dims.to_vec() })
}

/// `x` rounded up to a multiple of `step`.
///
/// # Errors
/// [`ShapeError::Overflow`] when the result exceeds `usize::MAX`.
pub(crate) fn padded(what: &'static str, x: usize, step: usize) -> Result<usize, ShapeError> {
    x.checked_next_multiple_of(step)
        .ok_or_else(|| ShapeError::Overflow { what, dims: vec![x, step] })
}

/// Checks that a slice of `actual` elements holds exactly `expected`.
pub(crate) fn expect_len(
    what: &'static str,
    actual: usize,
    expected: usize,
) -> Result<(), ShapeError> {
    if actual == expected { Ok(()) } else { Err(ShapeError::Length { what, expected, actual }) }
}

pub(crate) fn parameter(what: &'static str, reason: impl Into<String>) -> ShapeError {
    ShapeError::Parameter { what, reason: reason.into() }
}
