//! Layers of transformers: sequences of tokens.

use super::{Builder, Id, Start};
use crate::{
    error::Error,
    model::graph::Op,
    nn::{Init, LayerNorm},
};

impl Builder {
    /// Adds a conversion of a map to the sequence of its pixels.
    pub fn tokens(&mut self, x: Id) -> Id {
        self.expect(x, "tokens", &[3]);
        let (channels, pixels) = (self.features(x), self.dims(x).iter().skip(1).product());
        self.push(Op::Tokens, &[x], vec![pixels, channels])
    }

    fn tokens_of(&mut self, x: Id) -> [usize; 2] {
        self.expect(x, "a layer of tokens", &[2]);
        [self.dims(x).first().copied().unwrap_or(0), self.features(x)]
    }

    /// Adds a learned token before the other tokens.
    pub fn prepend(&mut self, x: Id, name: &str, init: Init) -> Id {
        let [tokens, features] = self.tokens_of(x);
        let token = self.specs.param(name.to_owned(), &[1, 1, features], init);
        self.push(Op::Prepend(token), &[x], vec![tokens + 1, features])
    }

    /// Adds a learned summand for every token.
    pub fn position(&mut self, x: Id, name: &str, init: Init) -> Id {
        let [tokens, features] = self.tokens_of(x);
        let position = self.specs.param(name.to_owned(), &[1, tokens, features], init);
        self.push(Op::Position(position), &[x], vec![tokens, features])
    }

    /// Adds a layer norm.
    pub fn layer_norm(&mut self, x: Id, name: &str, epsilon: f64) -> Id {
        self.expect(x, "layer norm", &[2]);
        let shape = self.dims(x).to_vec();
        let features = self.features(x);
        let norm = LayerNorm::new(&mut self.specs, name, features, epsilon);
        self.push(Op::LayerNorm(norm), &[x], shape)
    }

    /// Adds self-attention: `NAME.qkv`, attention, `NAME.proj`.
    pub fn self_attention(
        &mut self,
        x: Id,
        name: &str,
        heads: usize,
        qkv_bias: bool,
        start: Start,
    ) -> Id {
        let [tokens, features] = self.tokens_of(x);
        if heads == 0 || !features.is_multiple_of(heads) {
            let problem =
                format!("the network has {heads} attention heads; expected a multiple of {heads}");
            self.refuse(Error::setting("width", features, problem));
        }
        let qkv =
            self.fully_connected(x, &format!("{name}.qkv"), 3 * features, start, qkv_bias, &[]);
        let out = self.push(Op::Attention { heads }, &[qkv], vec![tokens, features]);
        self.dense(out, &format!("{name}.proj"), features, start)
    }

    /// Adds the selection of the first token.
    pub fn first(&mut self, x: Id) -> Id {
        self.expect(x, "the first token", &[2]);
        let features = self.features(x);
        self.push(Op::First, &[x], vec![features])
    }

    /// Adds the mean of the tokens, weighted by the softmax of learned scores.
    pub fn pool_tokens(&mut self, x: Id, name: &str, start: Start) -> Id {
        self.expect(x, "a mean of tokens", &[2]);
        let features = self.features(x);
        let scores = self.dense(x, name, 1, start);
        self.push(Op::PoolTokens, &[x, scores], vec![features])
    }
}
