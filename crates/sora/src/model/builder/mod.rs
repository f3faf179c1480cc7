//! Collects a network's layers.

mod dense;
mod pools;
mod residual;
mod start;
mod tokens;

pub(super) use self::residual::Block;
pub use self::start::{Start, Window};
use super::{
    NetworkOptions, Shape, Stem,
    graph::{Graph, Layer, Norm, Op},
};
use crate::{
    error::{Error, Result},
    nn::{Activation, BatchNorm, Conv2d, NormInput, ParamId, SpecBuilder},
};

/// The output of a layer, identified by the layer's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(pub(crate) usize);

/// A finished network: its layers, and the names, shapes and initial values of its parameters and
/// buffers.
#[derive(Debug)]
pub struct Structure {
    /// The layers.
    pub graph: Graph,
    /// The parameters and buffers.
    pub specs: SpecBuilder,
}

/// Collects a network's layers, in the order in which they run.
///
/// Each method adds one layer and returns its [`Id`]. Parameters are registered under PyTorch's
/// names, in the order of the calls. A mistake, such as an input that is too small for a layer, is
/// remembered and reported by [`finish`](Self::finish).
///
/// ```
/// use sora::model::{Builder, Shape, Start, Window};
///
/// let mut net = Builder::new(Shape { channels: 3, height: 32, width: 32, classes: 10 });
/// let x = net.input();
/// let x = net.conv(x, "conv1", 16, Window::of(3, 1, 1), Start::Default);
/// let x = net.norm_act(x, "bn1");
/// let x = net.global_pool(x);
/// net.dense(x, "fc", 10, Start::Default);
/// assert!(net.finish().is_ok());
/// ```
#[derive(Debug)]
pub struct Builder {
    specs: SpecBuilder,
    layers: Vec<Layer>,
    dropouts: usize,
    failed: Option<Error>,
    width: usize,
    shape: Shape,
    options: NetworkOptions,
    activation: Activation,
}

impl Builder {
    /// Begins a network for images and classes of `shape`, with ReLU.
    pub fn new(shape: Shape) -> Self {
        Self::with_options(1, shape, NetworkOptions::default(), Activation::Relu)
    }

    pub(in crate::model) fn with_options(
        width: usize,
        shape: Shape,
        options: NetworkOptions,
        activation: Activation,
    ) -> Self {
        let input = Layer {
            op: Op::Input,
            inputs: vec![],
            shape: vec![shape.channels, shape.height, shape.width],
        };
        let (specs, layers) = (SpecBuilder::default(), vec![input]);
        Self { specs, layers, dropouts: 0, failed: None, width, shape, options, activation }
    }

    /// The normalised images.
    pub fn input(&self) -> Id {
        Id(0)
    }

    /// Number of channels of the first stage, or of features of a token.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Shape of the images, and number of classes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The options that the user has chosen.
    pub fn options(&self) -> NetworkOptions {
        self.options
    }

    /// Finishes the network; its last layer gives the logits.
    ///
    /// # Errors
    /// [`Error`] for a layer that does not fit its input, one whose result no layer reads, or a last
    /// layer that does not give one logit per class.
    pub fn finish(mut self) -> Result<Structure> {
        let last = self.layers.last().map_or(&[][..], |layer| &layer.shape);
        if last != [self.shape.classes] {
            let problem = format!(
                "its last layer gives {last:?} an image; expected {} logits",
                self.shape.classes
            );
            self.fail("network", problem);
        }
        // A layer whose result goes nowhere would wait for its gradient for ever.
        let is_read = |index| self.layers.iter().any(|layer| layer.inputs.contains(&index));
        if let Some(index) = (0..self.layers.len().saturating_sub(1)).find(|&i| !is_read(i)) {
            let shape = self.layers[index].shape.clone();
            let problem = format!(
                "no layer reads the result of layer {index}, of shape {shape:?}; leave that layer out, or make it part \
                 of the logits"
            );
            self.fail("network", problem);
        }
        match self.failed {
            Some(e) => Err(e),
            None => Ok(Structure { graph: Graph::new(self.layers), specs: self.specs }),
        }
    }

    /// Remembers a mistake, if it is the first.
    pub(in crate::model) fn fail(&mut self, subject: &str, problem: impl Into<String>) {
        self.refuse(Error::unfit(subject, problem));
    }

    /// Remembers an error, if it is the first.
    pub(in crate::model) fn refuse(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }

    fn push(&mut self, op: Op, inputs: &[Id], shape: Vec<usize>) -> Id {
        if inputs.iter().any(|id| id.0 >= self.layers.len()) {
            self.fail("network", "a layer reads one of another network");
        }
        self.layers.push(Layer { op, inputs: inputs.iter().map(|id| id.0).collect(), shape });
        Id(self.layers.len() - 1)
    }

    /// Shape of a layer's output, without the batch: `[channels, height, width]` of a map,
    /// `[features]` of a vector, `[tokens, features]` of a sequence.
    pub fn dims(&self, x: Id) -> &[usize] {
        self.layers.get(x.0).map_or(&[], |layer| &layer.shape)
    }

    /// Reports a layer `what` whose input does not have one of the `ranks` numbers of dimensions.
    fn expect(&mut self, x: Id, what: &str, ranks: &[usize]) {
        if !ranks.contains(&self.dims(x).len()) {
            let problem = format!(
                "a layer ({what}) takes a {}, and its input is {:?}",
                ranks.iter().map(|rank| kind(*rank)).collect::<Vec<_>>().join(" or a "),
                self.dims(x)
            );
            self.fail("network", problem);
        }
    }

    /// Number of channels or features of a layer's output.
    pub fn features(&self, x: Id) -> usize {
        match *self.dims(x) {
            [channels, _, _] => channels,
            ref other => other.last().copied().unwrap_or(0),
        }
    }

    fn windows(&mut self, x: Id, window: Window) -> [usize; 2] {
        self.expect(x, "a window", &[3]);
        let sizes = [1, 2].map(|dim| self.dims(x).get(dim).copied().unwrap_or(0));
        let out = sizes.map(|size| window.output(size));
        if out.contains(&0) {
            let Shape { height, width, .. } = self.shape;
            let problem = format!(
                "too small for the network: a layer with windows of {k}x{k} meets a map of {}x{}; \
                 use larger ones (`image_size`) or another `model`",
                sizes[0],
                sizes[1],
                k = window.kernel
            );
            self.fail(&format!("images of {height}x{width}"), problem);
        }
        out.map(|size| size.max(1))
    }

    /// Adds a convolution without bias.
    pub fn conv(&mut self, x: Id, name: &str, cout: usize, window: Window, start: Start) -> Id {
        self.convolve(&[x], name, cout, window, start, false)
    }

    /// Adds a convolution with bias.
    pub fn conv_bias(
        &mut self,
        x: Id,
        name: &str,
        cout: usize,
        window: Window,
        start: Start,
    ) -> Id {
        self.convolve(&[x], name, cout, window, start, true)
    }

    /// Adds a convolution without bias, plus `add`, a map of the result's shape.
    pub fn conv_add(
        &mut self,
        x: Id,
        add: Id,
        name: &str,
        cout: usize,
        window: Window,
        start: Start,
    ) -> Id {
        self.convolve(&[x, add], name, cout, window, start, false)
    }

    fn convolve(
        &mut self,
        inputs: &[Id],
        name: &str,
        cout: usize,
        window: Window,
        start: Start,
        bias: bool,
    ) -> Id {
        let x = inputs[0];
        let (cin, Window { kernel, stride, padding }) = (self.features(x), window);
        let [h, w] = self.windows(x, window);
        if let Some(add) = inputs.get(1).filter(|add| *self.dims(**add) != [cout, h, w]) {
            let problem = format!("a sum of {:?} and {:?}", [cout, h, w], self.dims(*add));
            self.fail("network", problem);
        }
        let [weight, start_of_bias] = start.init(cin * kernel * kernel, cout * kernel * kernel);
        let conv = Conv2d::with_init(
            &mut self.specs,
            name,
            [cin, cout],
            kernel,
            [stride, padding],
            weight,
        );
        let bias = bias.then(|| self.specs.param(format!("{name}.bias"), &[cout], start_of_bias));
        self.push(Op::Conv { conv: Conv2d { bias, ..conv }, kernel }, inputs, vec![cout, h, w])
    }

    /// Adds a convolution without bias that runs here. [`register`](Self::register) must follow at
    /// the place where PyTorch registers the weight.
    pub(in crate::model) fn conv_ahead(&mut self, x: Id, cout: usize, window: Window) -> Id {
        let [h, w] = self.windows(x, window);
        let Window { kernel, stride, padding } = window;
        let conv = Conv2d { weight: ParamId(usize::MAX), bias: None, stride, padding, groups: 1 };
        self.push(Op::Conv { conv, kernel }, &[x], vec![cout, h, w])
    }

    /// Registers the weight of a convolution that [`conv_ahead`](Self::conv_ahead) has placed.
    pub(in crate::model) fn register(&mut self, placed: Id, name: &str, start: Start) {
        let cout = self.features(placed);
        let cin = self.layers[placed.0].inputs.first().map_or(0, |&x| self.features(Id(x)));
        if let Op::Conv { conv, kernel, .. } = &mut self.layers[placed.0].op {
            let [weight, _] = start.init(cin * *kernel * *kernel, cout * *kernel * *kernel);
            *conv = Conv2d::with_init(
                &mut self.specs,
                name,
                [cin, cout],
                *kernel,
                [conv.stride, conv.padding],
                weight,
            );
        }
    }

    fn norm(&mut self, x: Id, name: &str, activation: Option<Activation>, input: NormInput) -> Id {
        self.expect(x, "batch norm", &[3]);
        let channels = self.features(x);
        let norm = BatchNorm::new(&mut self.specs, name, channels);
        let shape = self.dims(x).to_vec();
        self.push(Op::Norm(Norm { norm, activation, input }), &[x], shape)
    }

    /// Adds a batch norm.
    pub fn norm_only(&mut self, x: Id, name: &str) -> Id {
        self.norm(x, name, None, NormInput::Alone)
    }

    /// Adds a batch norm and the network's activation.
    pub fn norm_act(&mut self, x: Id, name: &str) -> Id {
        self.norm(x, name, Some(self.activation), NormInput::Alone)
    }

    /// Adds the network's activation.
    pub fn act(&mut self, x: Id) -> Id {
        self.act_with(x, self.activation)
    }

    /// Adds an activation that the user cannot choose.
    pub fn act_with(&mut self, x: Id, activation: Activation) -> Id {
        let shape = self.dims(x).to_vec();
        self.push(Op::Activate(activation), &[x], shape)
    }

    /// Adds the sum of two layers.
    pub fn add(&mut self, x: Id, y: Id) -> Id {
        self.expect(x, "a sum", &[2, 3]);
        self.sum(Op::Add, x, y)
    }

    /// Adds the network's activation of the sum of a map and the shortcut around it.
    pub fn add_act(&mut self, x: Id, shortcut: Id) -> Id {
        self.expect(x, "a sum", &[3]);
        self.sum(Op::AddActivate(self.activation), x, shortcut)
    }

    fn sum(&mut self, op: Op, x: Id, y: Id) -> Id {
        if self.dims(x) != self.dims(y) {
            let problem = format!("a sum of {:?} and {:?}", self.dims(x), self.dims(y));
            self.fail("network", problem);
        }
        let shape = self.dims(x).to_vec();
        self.push(op, &[x, y], shape)
    }

    /// Adds the product of a map and the sigmoid of a factor for each channel.
    pub fn gate(&mut self, x: Id, factor: Id) -> Id {
        self.expect(x, "a gate", &[3]);
        if *self.dims(factor) != [self.features(x)] {
            self.fail("network", "a gate takes one factor a channel");
        }
        let shape = self.dims(x).to_vec();
        self.push(Op::Gate, &[x, factor], shape)
    }

    /// Adds dropout at the run's rate; adds nothing at rate 0.
    pub fn dropout(&mut self, x: Id) -> Id {
        let rate = self.options.dropout;
        if rate == 0.0 {
            return x;
        }
        self.dropouts += 1;
        let shape = self.dims(x).to_vec();
        self.push(Op::Dropout { rate, layer: self.dropouts }, &[x], shape)
    }

    /// The stem that the options select.
    pub(in crate::model) fn stem(&self) -> Stem {
        self.options.stem.unwrap_or(Stem::Cifar)
    }
}

/// The name of a value of `rank` dimensions.
fn kind(rank: usize) -> &'static str {
    match rank {
        1 => "vector",
        2 => "sequence",
        _ => "map",
    }
}
