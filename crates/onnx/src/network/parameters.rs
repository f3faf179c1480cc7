//! The constants of a graph: their values and gradients.

use super::Network;
use crate::{
    error::{Error, Result},
    value::{Value, array, to_vec},
};

impl Network {
    /// Names of the constants that the file holds as floating-point numbers.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.graph.parameters.iter().map(|(name, _)| name.as_str())
    }

    /// Computes the gradients of `sum cotangent * logits` over all images by the constants called
    /// `names` (see [`parameters`](Self::parameters)), each in its own shape, row-major.
    ///
    /// # Errors
    /// Those of [`logits`](Self::logits), and an error for a name that does not exist.
    pub fn parameter_gradients(
        &self,
        x: &[f32],
        cotangent: &[f32],
        names: &[&str],
    ) -> Result<Vec<Vec<f32>>> {
        let ids = self.ids(names)?;
        let mut sums: Vec<Vec<f32>> = Vec::new();
        for (first, x) in self.groups(x)? {
            let rows = x.len() / self.row();
            let images = self.images(&self.filled(x)).map_err(|e| self.fault(e))?;
            let (output, pass) = self.graph.record(images).map_err(|e| self.fault(e))?;
            let width = output.shape().last().copied().unwrap_or(1);
            let start = (first * width).min(cotangent.len());
            let end = ((first + rows) * width).min(cotangent.len());
            let mut back = cotangent[start..end].to_vec();
            back.resize(output.shape().iter().product(), 0.0);
            let back = array(output.shape(), back).map_err(|e| self.fault(e.into()))?;
            let found = self.graph.parameter_gradients(pass, back, &ids);
            for (index, gradient) in found.map_err(|e| self.fault(e))?.into_iter().enumerate() {
                let shape = self.graph.constant(ids[index]).map_or(&[][..], Value::shape);
                let gradient = gradient
                    .map_or_else(|| vec![0.0; shape.iter().product()], |array| to_vec(&array));
                match sums.get_mut(index) {
                    Some(sum) => sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g),
                    None => sums.push(gradient),
                }
            }
        }
        Ok(sums)
    }

    fn ids(&self, names: &[&str]) -> Result<Vec<usize>> {
        let find = |name: &&str| {
            let found = self.graph.parameters.iter().find(|(known, _)| known == name);
            found.map(|(_, id)| *id).ok_or_else(|| Error::Damaged {
                path: self.path.clone(),
                problem: format!("no constant is called '{name}'"),
            })
        };
        names.iter().map(find).collect()
    }

    /// Returns the shape and the numbers of a constant, row-major.
    ///
    /// # Errors
    /// [`Error`] for a name that does not exist.
    pub fn parameter(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let id = self.ids(&[name])?[0];
        let value = self.graph.constant(id).and_then(|value| value.float().ok());
        Ok(value.map(|value| (value.shape().to_vec(), to_vec(value))).unwrap_or_default())
    }

    /// Gives a constant other numbers, row-major. Nodes that were computed from this constant alone
    /// when the file was read keep their old results.
    ///
    /// # Errors
    /// [`Error`] for a name that does not exist, or data of another length than the constant's.
    pub fn set_parameter(&mut self, name: &str, data: Vec<f32>) -> Result<()> {
        let id = self.ids(&[name])?[0];
        let shape = self.graph.constant(id).map_or(&[][..], Value::shape).to_vec();
        let value = array(&shape, data).map_err(|e| self.fault(e.into()))?;
        self.graph.set_constant(id, Value::Float(value));
        Ok(())
    }
}
