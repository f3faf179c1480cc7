/// The tensor that is added to the result of an operation.
#[derive(Debug, Clone, Copy, Default)]
pub enum Addend<'a, E = f32> {
    /// Nothing is added; the output is overwritten.
    #[default]
    None,
    /// A tensor of the output's shape, such as a shortcut or its gradient.
    Tensor(&'a [E]),
    /// The output slice's own content: the operation accumulates into the slice.
    Output,
}
