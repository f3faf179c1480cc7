//! What a model says of itself.

use robustness::{Access, Shape};
use serde::{Deserialize, Serialize};

/// What a model answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answers {
    /// Rows of logits; log-probabilities do as well.
    Logits,
    /// Classes.
    Labels,
}

impl Answers {
    /// What can be asked of such a model.
    pub fn access(self) -> Access {
        match self {
            Self::Logits => Access::Scores,
            Self::Labels => Access::Labels,
        }
    }
}

/// What a model says of itself, in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Channels, height and width of an image.
    pub shape: [usize; 3],
    /// Classes. A model with one output (a sigmoid) says 1; it has two classes.
    pub classes: usize,
    /// What it answers with.
    pub answers: Answers,
    /// Images at a time, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Version of the protocol: 1.
    #[serde(default = "first")]
    pub protocol: u32,
}

fn first() -> u32 {
    1
}

/// Most values of an image, and most classes: what is beyond is a mistake.
const MOST: usize = 1 << 28;
const MOST_CLASSES: usize = 1 << 22;

impl Description {
    /// Reads the text that a model sends.
    ///
    /// # Errors
    /// What is wrong, to follow "its description".
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let example = r#"{"shape": [3, 32, 32], "classes": 10, "answers": "logits"}"#;
        let found: Self =
            serde_json::from_str(text).map_err(|e| format!("is not of the form {example}: {e}"))?;
        found.check()?;
        Ok(found)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let [channels, height, width] = self.shape;
        let values = channels.checked_mul(height).and_then(|n| n.checked_mul(width));
        if !values.is_some_and(|n| (1..=MOST).contains(&n)) {
            return Err(format!(
                "has `shape` {:?}: expected channels, height and width",
                self.shape
            ));
        }
        let least = if self.answers == Answers::Labels { 2 } else { 1 };
        if !(least..=MOST_CLASSES).contains(&self.classes) {
            return Err(format!("has `classes` {}: expected {least} or more", self.classes));
        }
        if self.batch == Some(0) {
            return Err("has `batch` 0: expected 1 or more".into());
        }
        if self.protocol != 1 {
            return Err(format!("has `protocol` {}: this program speaks 1", self.protocol));
        }
        Ok(())
    }

    /// What an attack sees.
    pub(crate) fn seen(&self) -> Shape {
        let [channels, height, width] = self.shape;
        Shape { channels, height, width, classes: self.classes.max(2) }
    }

    /// The shape of an answer to `n` images.
    pub(crate) fn answer_shape(&self, n: usize) -> Vec<usize> {
        match self.answers {
            Answers::Logits => vec![n, self.classes],
            Answers::Labels => vec![n],
        }
    }

    /// Whether `found` is the shape of an answer to `n` images; what is wrong, to follow "its
    /// answer".
    pub(crate) fn fits(&self, found: &[usize], n: usize) -> Result<(), String> {
        let expected = self.answer_shape(n);
        // A column of labels, or of single logits without the column, is the same in other brackets.
        let column = [n, 1];
        let plain = [n];
        let same = found == expected
            || expected == plain && found == column
            || expected == column && found == plain;
        if same { Ok(()) } else { Err(format!("has shape {found:?}, expected {expected:?}")) }
    }

    /// Classes as whole numbers below [`classes`](Self::classes); what is wrong, to follow "its
    /// answer".
    pub(crate) fn check_labels(&self, values: &[f32]) -> Result<(), String> {
        let fits = |v: &&f32| v.fract() == 0.0 && (0.0..self.classes as f32).contains(*v);
        match values.iter().find(|v| !fits(v)) {
            Some(wrong) => Err(format!(
                "names class {wrong}, expected 0 to {}",
                self.classes.saturating_sub(1)
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_read_and_wrong_ones_say_why() {
        let good = r#"{"shape": [3, 32, 32], "classes": 10, "answers": "labels", "batch": 8}"#;
        let read = Description::read(good).unwrap();
        assert_eq!((read.batch, read.answers.access()), (Some(8), Access::Labels));
        for (text, word) in [
            ("no", "of the form"),
            (r#"{"shape": [3, 32], "classes": 10, "answers": "logits"}"#, "of the form"),
            (r#"{"shape": [3, 32, 32], "classes": 10, "answers": "scores"}"#, "scores"),
            (r#"{"shape": [3, 0, 32], "classes": 10, "answers": "logits"}"#, "`shape`"),
            (
                r#"{"shape": [4294967296, 4294967296, 4294967296], "classes": 9, "answers": "logits"}"#,
                "`shape`",
            ),
            (r#"{"shape": [3, 32, 32], "classes": 1, "answers": "labels"}"#, "`classes`"),
            (r#"{"shape": [3, 2, 2], "classes": 2, "answers": "logits", "batch": 0}"#, "`batch`"),
            (
                r#"{"shape": [3, 2, 2], "classes": 2, "answers": "logits", "protocol": 2}"#,
                "speaks 1",
            ),
        ] {
            let problem = Description::read(text).unwrap_err();
            assert!(problem.contains(word), "{text}: {problem}");
        }
    }

    #[test]
    fn one_logit_is_two_classes_and_labels_are_whole() {
        let text = r#"{"shape": [1, 2, 2], "classes": 1, "answers": "logits"}"#;
        let single = Description::read(text).unwrap();
        assert_eq!(single.seen().classes, 2);
        assert!(single.fits(&[5], 5).is_ok() && single.fits(&[5, 1], 5).is_ok());
        assert!(single.fits(&[5, 2], 5).unwrap_err().contains("[5, 2], expected [5, 1]"));
        let labels = Description { classes: 3, answers: Answers::Labels, ..single };
        assert!(labels.check_labels(&[0.0, 2.0]).is_ok());
        for wrong in [3.0, -1.0, 0.5, f32::NAN] {
            assert!(labels.check_labels(&[0.0, wrong]).is_err(), "{wrong}");
        }
    }
}
