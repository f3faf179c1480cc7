//! The Open Inference Protocol (version 2), which Triton, KServe, MLServer, TorchServe and OpenVINO
//! Model Server speak: what a model says of itself, requests and answers in JSON.

use serde::{Deserialize, Serialize};

use crate::{Answers, Description, Options};

/// `GET .../v2/models/NAME`.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

#[derive(Clone, Debug, Deserialize)]
struct Tensor {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

/// The tensors that are sent and read.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    input: String,
    datatype: String,
    output: String,
}

#[derive(Serialize)]
struct Request<'a> {
    inputs: [Input<'a>; 1],
    outputs: [Wanted<'a>; 1],
}

#[derive(Serialize)]
struct Input<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: [usize; 4],
    data: &'a [f32],
}

#[derive(Serialize)]
struct Wanted<'a> {
    name: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    shape: Vec<usize>,
    /// JSON has no word for a number that is none: `null` stands for it.
    data: Vec<Option<f64>>,
}

const FLOATS: [&str; 3] = ["FP32", "FP16", "FP64"];

impl Metadata {
    /// The model's description and the names of its tensors; what is wrong, to follow "its
    /// description".
    pub fn read(&self, options: &Options) -> Result<(Description, Names), String> {
        let [input] = &self.inputs[..] else {
            return Err(format!("has {} inputs, expected one", self.inputs.len()));
        };
        if !FLOATS.contains(&&*input.datatype) {
            return Err(format!(
                "has an input of {}; images are sent as floating-point pixels, expected FP32",
                input.datatype
            ));
        }
        let output = self.output(options)?;
        let [batch, channels, height, width] = input.shape[..] else {
            return Err(format!(
                "has an input of shape {:?}, expected [-1, channels, height, width]",
                input.shape
            ));
        };
        if batch > 1 {
            return Err(format!(
                "has a fixed batch of {batch}; serve the model with any batch, or 1"
            ));
        }
        let open = |size: i64, k: usize| {
            let given = options.image_size.map(|sizes| sizes[k]);
            usize::try_from(size)
                .ok()
                .filter(|size| *size > 0)
                .or(given)
                .ok_or("leaves the size of the images open: `image_size` is missing".to_owned())
        };
        let shape = [
            usize::try_from(channels).map_err(|_| "leaves the number of channels open")?,
            open(height, 0)?,
            open(width, 1)?,
        ];
        let classes = match output.shape[..] {
            [_, classes] if classes > 0 && FLOATS.contains(&&*output.datatype) => classes as usize,
            _ => {
                return Err(format!(
                    "has an output of {} and shape {:?}, expected logits: FP32 of shape [-1, classes]",
                    output.datatype, output.shape
                ));
            }
        };
        let batch = (batch == 1).then_some(1);
        let description =
            Description { shape, classes, answers: Answers::Logits, batch, protocol: 1 };
        description.check()?;
        let (input, datatype) = (input.name.clone(), input.datatype.clone());
        Ok((description, Names { input, datatype, output: output.name.clone() }))
    }

    fn output(&self, options: &Options) -> Result<&Tensor, String> {
        let names = || self.outputs.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ");
        match (&options.output, &self.outputs[..]) {
            (Some(name), all) => all
                .iter()
                .find(|tensor| tensor.name == *name)
                .ok_or_else(|| format!("has no output '{name}'; there are {}", names())),
            (None, [one]) => Ok(one),
            (None, []) => Err("has no output".into()),
            (None, _) => Err(format!("has several outputs, `output` says which: {}", names())),
        }
    }
}

impl Names {
    /// The body of a request.
    pub fn request(&self, x: &[f32], shape: [usize; 4]) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Request {
            inputs: [Input { name: &self.input, datatype: &self.datatype, shape, data: x }],
            outputs: [Wanted { name: &self.output }],
        })
    }

    /// Shape and values of an answer; what is wrong, to follow "its answer".
    pub fn answer(&self, body: &[u8]) -> Result<(Vec<usize>, Vec<f32>), String> {
        let answer: Answer = serde_json::from_slice(body).map_err(|e| {
            let nan = body.windows(3).any(|word| word == b"NaN");
            let hint = if nan { "; NaN is no JSON, send null" } else { "" };
            format!("is not one of the inference protocol: {e}{hint}")
        })?;
        let found = answer.outputs.into_iter().find(|output| output.name == self.output);
        let Output { shape, data, .. } =
            found.ok_or_else(|| format!("has no output '{}'", self.output))?;
        let count = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        if count != Some(data.len()) {
            return Err(format!("has {} values for shape {shape:?}", data.len()));
        }
        Ok((shape, data.into_iter().map(|v| v.map_or(f32::NAN, |v| v as f32)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, options: &Options) -> Result<Description, String> {
        serde_json::from_str::<Metadata>(text).unwrap().read(options).map(|(found, _)| found)
    }

    #[test]
    fn metadata_say_what_a_model_takes() {
        let plain = Options::default();
        let text = |input: &str, outputs: &str| {
            format!(r#"{{"name": "m", "inputs": [{input}], "outputs": [{outputs}]}}"#)
        };
        let image = r#"{"name": "x", "datatype": "FP32", "shape": [-1, 3, 8, 9]}"#;
        let open = r#"{"name": "x", "datatype": "FP32", "shape": [1, 3, -1, -1]}"#;
        let logits = r#"{"name": "y", "datatype": "FP32", "shape": [-1, 10]}"#;
        let found = read(&text(image, logits), &plain).unwrap();
        assert_eq!((found.shape, found.classes, found.batch), ([3, 8, 9], 10, None));
        let sized = Options { image_size: Some([4, 5]), ..Options::default() };
        assert_eq!(read(&text(open, logits), &sized).unwrap().shape, [3, 4, 5]);
        let second = r#"{"name": "z", "datatype": "FP32", "shape": [-1, 7]}"#;
        let both = format!("{logits}, {second}");
        let named = Options { output: Some("z".into()), ..Options::default() };
        assert_eq!(read(&text(image, &both), &named).unwrap().classes, 7);
        let labels = r#"{"name": "y", "datatype": "INT64", "shape": [-1]}"#;
        let bytes = image.replace("FP32", "UINT8");
        for (input, outputs, options, word) in [
            (open, logits, &plain, "`image_size`"),
            (image, &*both, &plain, "`output` says which: y, z"),
            (image, logits, &named, "no output 'z'"),
            (image, labels, &plain, "expected logits"),
            (&*bytes, logits, &plain, "UINT8"),
        ] {
            let problem = read(&text(input, outputs), options).unwrap_err();
            assert!(problem.contains(word), "{problem}");
        }
    }

    #[test]
    fn answers_are_read_with_numbers_that_are_none() {
        let names = Names { input: "x".into(), datatype: "FP32".into(), output: "y".into() };
        let body = br#"{"outputs": [{"name": "y", "shape": [1, 2], "datatype": "FP32", "data": [1.5, null]}]}"#;
        let (shape, values) = names.answer(body).unwrap();
        assert!(shape == [1, 2] && values[0] == 1.5 && values[1].is_nan());
        for (body, word) in [
            (r#"{"outputs": []}"#, "no output 'y'"),
            (r#"{"outputs": [{"name": "y", "shape": [2, 2], "data": [1]}]}"#, "1 values"),
            (r#"{"outputs": [{"name": "y", "shape": [1], "data": [NaN]}]}"#, "send null"),
        ] {
            let problem = names.answer(body.as_bytes()).unwrap_err();
            assert!(problem.contains(word), "{problem}");
        }
        let request = names.request(&[0.1, 1.0], [1, 1, 1, 2]).unwrap();
        let text = String::from_utf8(request).unwrap();
        assert!(text.contains(r#""shape":[1,1,1,2],"data":[0.1,1.0]"#), "{text}");
    }
}
