//! Networks of ONNX files: the structure that runs and weights files keep, and the network itself.

use std::{fmt, io::Read, sync::Arc};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use burn::tensor::Tensor;
use flate2::{
    Compression,
    read::{DeflateDecoder, DeflateEncoder},
};
use serde::{Deserialize, Serialize};
use sora_onnx::{Normalisation, Options, Trainable};

use super::{Model, ModelConfig, Network};
use crate::{
    error::{Error, Result},
    files,
    nn::{Flat, HostTensor, OnnxLayer, Pass, SpecBuilder, Weights},
};

/// Name of a network that was read from an ONNX file.
pub const IMPORTED: &str = "onnx";

/// Most characters of a structure: it stands in the settings of a run and in each weights file.
const LONGEST: usize = 4 << 20;
/// Most bytes of a structure that is unpacked.
const LARGEST: u64 = 64 << 20;

/// What a short name begins with; it is no base64.
const DIGEST: &str = "sha256:";

/// The structure of an ONNX file, without its weights: the file, compressed, as text in base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OnnxGraph(String);

impl fmt::Debug for OnnxGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnnxGraph({} characters)", self.0.len())
    }
}

impl OnnxGraph {
    /// The structure of `graph`; `origin` names its file in errors.
    ///
    /// # Errors
    /// [`Error`] for a file that holds too much beside its weights.
    pub fn new(graph: &Trainable, origin: &str) -> Result<Self> {
        let bytes = graph.structure();
        if bytes.len() as u64 > LARGEST {
            return Err(Self::too_large(origin, bytes.len()));
        }
        let mut packed = Vec::new();
        let read = DeflateEncoder::new(&*bytes, Compression::best()).read_to_end(&mut packed);
        read.map_err(|e| Error::defect(format!("compressing a graph: {e}")))?;
        let text = BASE64_STANDARD.encode(packed);
        match text.len() > LONGEST {
            true => Err(Self::too_large(origin, bytes.len())),
            false => Ok(Self(text)),
        }
    }

    fn too_large(origin: &str, len: usize) -> Error {
        let mib = len >> 20;
        let problem = format!(
            "it holds {mib} MiB of numbers that are no weights; expected them folded into weights"
        );
        Error::unfit(origin, problem)
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let damaged = |e: String| Error::unfit("network", format!("its graph is damaged: {e}"));
        let packed = BASE64_STANDARD.decode(&self.0).map_err(|e| damaged(e.to_string()))?;
        let mut bytes = Vec::new();
        let read = DeflateDecoder::new(&*packed).take(LARGEST + 1).read_to_end(&mut bytes);
        read.map_err(|e| damaged(e.to_string()))?;
        match bytes.len() as u64 > LARGEST {
            true => Err(damaged(format!("more than {} MiB", LARGEST >> 20))),
            false => Ok(bytes),
        }
    }

    /// A short name for the structure, in the same form; a short name is its own. It is of the file's
    /// bytes, as they may be packed in more than one way.
    pub(super) fn digest(&self) -> Self {
        if self.0.starts_with(DIGEST) {
            return self.clone();
        }
        let bytes = self.bytes().unwrap_or_else(|_| self.0.clone().into_bytes());
        Self(format!("{DIGEST}{}", files::sha256(&bytes)))
    }
}

/// The graph of a network that was read from an ONNX file.
#[derive(Debug)]
pub(super) struct Imported(OnnxLayer);

impl Imported {
    /// The network and its values.
    pub fn open(config: &ModelConfig) -> Result<(Arc<dyn Network>, SpecBuilder)> {
        let mut specs = SpecBuilder::default();
        let layer = OnnxLayer::new(&mut specs, config.onnx_graph()?);
        Ok((Arc::new(Self(layer)), specs))
    }
}

impl Network for Imported {
    fn forward(&self, weights: &Weights, x: Tensor<4>, pass: &mut Pass) -> Flat {
        self.0.forward(weights, x, pass)
    }

    fn least_bytes(&self, images: usize) -> Option<u64> {
        Some(self.0.least_bytes(images))
    }
}

impl ModelConfig {
    /// The configuration of the network of `graph`, for pixels in [0, 1] that `mean` and `std`
    /// normalise; `origin` names its file in errors.
    ///
    /// # Errors
    /// Those of [`OnnxGraph::new`].
    pub fn imported(
        graph: &Trainable,
        [mean, std]: [Vec<f32>; 2],
        origin: &str,
    ) -> Result<ModelConfig> {
        Ok(Self {
            name: IMPORTED.into(),
            width: 1,
            shape: graph.shape(),
            mean,
            std,
            options: Default::default(),
            onnx: Some(OnnxGraph::new(graph, origin)?),
        })
    }

    /// Whether the network was read from an ONNX file.
    pub fn is_imported(&self) -> bool {
        self.name == IMPORTED
    }

    /// The graph of the ONNX file that the network was read from.
    ///
    /// # Errors
    /// [`Error`] for a network without one, or a graph that does not give such a network.
    pub fn onnx_graph(&self) -> Result<Trainable> {
        let Some(graph) = &self.onnx else {
            return Err(Error::unfit(self.name.as_str(), "it has no graph of an ONNX file"));
        };
        let options = Options {
            image_size: Some([self.shape.height, self.shape.width]),
            ..Options::default()
        };
        let graph = Trainable::from_structure(&graph.bytes()?, "the network's graph", &options)
            .map_err(|e| Error::unfit("network", e.to_string()))?;
        match graph.shape() == self.shape {
            true => Ok(graph),
            false => {
                let (found, expected) = (graph.shape(), self.shape);
                let problem = format!("its graph is one for {found:?}, expected {expected:?}");
                Err(Error::unfit("network", problem))
            }
        }
    }

    /// The configuration for an identity: with the digest of a graph in its place.
    pub fn for_identity(&self) -> Self {
        Self { onnx: self.onnx.as_ref().map(OnnxGraph::digest), ..self.clone() }
    }
}

/// The bytes of the ONNX file that `model` was read from, with the model's weights, and with its
/// normalisation inside.
///
/// # Errors
/// [`Error`] for another network, or one too large for the format.
pub(crate) fn to_onnx(model: &Model, metadata: &[(String, String)]) -> Result<Vec<u8>> {
    let graph = model.config.onnx_graph()?;
    let host = model.to_host()?;
    let find = |name: &str| host.iter().find(|tensor| tensor.name == name);
    let values = graph.weights().iter().filter_map(|weight| find(&weight.name));
    let values: Vec<&[f32]> = values.map(|tensor: &HostTensor| &tensor.data[..]).collect();
    let (mean, std) = (model.config.mean.clone(), model.config.std.clone());
    let plain = mean.iter().all(|&m| m == 0.0) && std.iter().all(|&s| s == 1.0);
    let normalisation = (!plain).then_some(Normalisation { mean, std });
    graph
        .to_file(&values, normalisation.as_ref(), metadata)
        .map_err(|e| Error::unfit(model.config.name.as_str(), e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(bytes: &[u8], how: Compression) -> OnnxGraph {
        let mut packed = Vec::new();
        DeflateEncoder::new(bytes, how).read_to_end(&mut packed).unwrap();
        OnnxGraph(BASE64_STANDARD.encode(packed))
    }

    #[test]
    fn a_digest_is_of_the_bytes_and_its_own() {
        let bytes: Vec<u8> = (0..9000).map(|i| (i % 251) as u8).collect();
        let [fast, best] =
            [Compression::fast(), Compression::best()].map(|how| packed(&bytes, how));
        assert_ne!(fast, best);
        assert_eq!(fast.digest(), best.digest());
        assert_eq!(fast.digest(), fast.digest().digest());
        assert_ne!(fast.digest(), packed(&bytes[1..], Compression::fast()).digest());
        assert!(fast.digest().bytes().is_err(), "a digest is no graph");
    }

    #[test]
    fn a_graph_that_unpacks_without_end_is_refused() {
        let zeros = packed(&vec![0; LARGEST as usize + 1], Compression::fast());
        assert!(zeros.0.len() < LONGEST);
        assert!(zeros.bytes().unwrap_err().to_string().contains("more than 64 MiB"));
    }
}
