/// Tensor added to the result of an operation.
#[derive(Debug, Clone, Copy, Default)]
pub enum Addend<'a, E = f32> {
    /// Nothing; the output is overwritten.
    #[default]
    None,
    /// A tensor of the output's shape, such as a shortcut or its gradient.
    Tensor(&'a [E]),
    /// What the output slice holds: accumulate.
    Output,
}
