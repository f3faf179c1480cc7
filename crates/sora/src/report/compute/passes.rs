//! Passes that figures need of any classifier: gradients, directions of attack, predictions. Images
//! are rows of pixels in [0, 1].

use robustness::{
    Classifier, Samples,
    attack::{AttackContext, AttackDraw as Draw, RowKey},
    rows,
};

use crate::{
    error::{Error, Result},
    threat::{Norm, Threat},
};

/// Number of steps of the multi-step attack.
pub(super) const STEPS: usize = 10;

/// Some images with their labels.
#[derive(Clone, Debug)]
pub struct Images {
    /// Rows of pixels in [0, 1].
    pub x: Vec<f32>,
    /// Classes.
    pub labels: Vec<usize>,
    /// Sample ids, by which draws are keyed.
    pub ids: Vec<u32>,
}

impl Images {
    /// The images `indices` of `samples`.
    ///
    /// # Errors
    /// [`Error`] for an index that does not exist, or an image that cannot be read.
    pub fn of(samples: &dyn Samples, indices: &[usize]) -> Result<Self> {
        if let Some(index) = indices.iter().find(|index| **index >= samples.len()) {
            let problem = format!("the split has {} images, counted from 0", samples.len());
            return Err(Error::setting("index", index, problem));
        }
        Ok(Self {
            x: samples.pixels(indices)?,
            labels: indices.iter().map(|&i| samples.label(i)).collect(),
            ids: indices.iter().map(|&i| samples.id(i)).collect(),
        })
    }

    /// Number of values of an image, over all channels.
    pub fn width(&self) -> usize {
        self.x.len() / self.labels.len().max(1)
    }
}

/// The direction of steepest ascent of the cross-entropy at the points `x` in `norm`: the
/// gradient's sign (l-inf), or the gradient divided by its length (l2).
pub(super) fn ascent(
    model: &dyn Classifier,
    norm: Norm,
    x: &[f32],
    labels: &[usize],
) -> Result<Vec<f32>> {
    let classes = model.shape().classes;
    let mut cotangent = |first: usize, logits: &[f32]| {
        let mut out = Vec::with_capacity(logits.len());
        for (i, row) in logits.chunks(classes).enumerate() {
            let mut gradient = softmax(row);
            gradient[labels[first + i]] -= 1.0;
            out.extend(gradient.iter().map(|v| *v as f32));
        }
        out
    };
    let gradient = model.pull_back(x, &mut cotangent)?.grad;
    let width = x.len() / labels.len().max(1);
    let mut direction = vec![0.0; gradient.len()];
    rows::for_each(&mut direction, width, |i, row| {
        rows::ascend(norm, row, rows::row(&gradient, width, i), 1.0);
    });
    Ok(direction)
}

/// The points after [`STEPS`] steps of epsilon/4 from a random start in the ball. The steps do not
/// stop where an image falls.
pub(super) fn multi_step(
    model: &dyn Classifier,
    threat: Threat,
    images: &Images,
    seed: u64,
) -> Result<Vec<f32>> {
    let width = images.width();
    let mut point = start(model, threat, images, seed);
    for _ in 0..STEPS {
        let direction = ascent(model, threat.norm, &point, &images.labels)?;
        let step = threat.epsilon / 4.0;
        rows::for_each(&mut point, width, |i, row| {
            let along = rows::row(&direction, width, i);
            row.iter_mut().zip(along).for_each(|(p, d)| *p += step * d);
            rows::project(threat, rows::row(&images.x, width, i), row);
        });
    }
    Ok(point)
}

/// Random starts, uniform in the ball (l2: a uniform direction and a uniform length), in the box.
fn start(model: &dyn Classifier, threat: Threat, images: &Images, seed: u64) -> Vec<f32> {
    let width = images.width();
    let mut none = |_| {};
    let draws = AttackContext::new(model, threat, seed, "figure", &mut none);
    let mut point = vec![0.0; images.x.len()];
    match threat.norm {
        Norm::Linf => {
            draws.fill_uniform(Draw::Eta, &mut point, &RowKey::of(&images.ids, 0));
            point.iter_mut().for_each(|v| *v = (2.0 * *v - 1.0) * threat.epsilon);
        }
        Norm::L2 | Norm::L1 => {
            draws.fill_normal(Draw::Direction, &mut point, &RowKey::of(&images.ids, 0));
            let mut lengths = vec![0.0; images.labels.len()];
            draws.fill_uniform(Draw::Radius, &mut lengths, &RowKey::of(&images.ids, 0));
            rows::for_each(&mut point, width, |i, row| {
                rows::scale_to(threat.norm, row, threat.epsilon * lengths[i]);
            });
        }
    }
    rows::for_each(&mut point, width, |i, row| {
        let x = rows::row(&images.x, width, i);
        row.iter_mut().zip(x).for_each(|(p, x)| *p += x);
        rows::project(threat, x, row);
    });
    point
}

/// A direction drawn from the seed: signs (l-inf), or a unit vector (l2).
pub(super) fn random_direction(
    model: &dyn Classifier,
    threat: Threat,
    images: &Images,
    seed: u64,
) -> Vec<f32> {
    let mut none = |_| {};
    let draws = AttackContext::new(model, threat, seed, "figure", &mut none);
    let mut direction = vec![0.0; images.x.len()];
    draws.fill_normal(Draw::Direction, &mut direction, &RowKey::of(&images.ids, 0));
    match threat.norm {
        Norm::Linf => direction.iter_mut().for_each(|v| *v = v.signum()),
        Norm::L2 | Norm::L1 => {
            let width = images.width();
            rows::for_each(&mut direction, width, |_, row| rows::scale_to(Norm::L2, row, 1.0));
        }
    }
    direction
}

/// Probabilities of the classes.
pub(super) fn softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|v| f64::from(v - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|v| v / sum).collect()
}

/// Cross-entropy in nats, and margin: the logit of the true class minus the largest other logit,
/// below 0 where the prediction is wrong.
pub(super) fn loss_and_margin(logits: &[f32], label: usize) -> (f32, f32) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|v| f64::from(v - most).exp()).sum();
    let own = logits.get(label).copied().unwrap_or(f32::NAN);
    let others = logits.iter().enumerate().filter(|(class, _)| *class != label).map(|(_, v)| *v);
    let loss = sum.ln() - f64::from(own - most);
    (loss as f32, own - others.fold(f32::NEG_INFINITY, f32::max))
}

#[cfg(test)]
pub(super) mod tests {
    use robustness::{Cotangent, PullBack, Result, Shape};

    use super::*;

    /// A classifier of two classes that a plane separates: logits `(0, w . x - b)`.
    #[derive(Debug)]
    pub(in crate::report::compute) struct Plane {
        pub(in crate::report::compute) w: Vec<f32>,
        pub(in crate::report::compute) b: f32,
    }

    impl Classifier for Plane {
        fn shape(&self) -> Shape {
            Shape { channels: 1, height: 1, width: self.w.len(), classes: 2 }
        }

        fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
            let dot = |row: &[f32]| row.iter().zip(&self.w).map(|(x, w)| x * w).sum::<f32>();
            Ok(x.chunks(self.w.len()).flat_map(|row| [0.0, dot(row) - self.b]).collect())
        }

        fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
            let logits = self.logits(x)?;
            let c = cotangent(0, &logits);
            let grad = c.chunks(2).flat_map(|c| self.w.iter().map(move |w| w * c[1])).collect();
            Ok(PullBack { logits, grad })
        }
    }

    #[test]
    fn the_multi_step_attack_on_a_plane_ends_at_the_corner_of_the_ball() {
        let plane = Plane { w: vec![3.0, -4.0], b: 0.0 };
        let images = Images { x: vec![0.5, 0.5], labels: vec![1], ids: vec![7] };
        // In l2, ten steps turn a start at the ball's rim to within a fifth of its radius.
        let cases = [(Norm::Linf, [0.4, 0.6], 1e-6), (Norm::L2, [0.44, 0.58], 0.02)];
        for (norm, expected, close) in cases {
            let threat = Threat { norm, epsilon: 0.1 };
            let point = multi_step(&plane, threat, &images, 3).unwrap();
            for (a, b) in point.iter().zip(expected) {
                assert!((a - b).abs() < close, "{norm}: {point:?}");
            }
        }
    }

    #[test]
    fn loss_and_margin_are_those_of_the_logits() {
        let (loss, margin) = loss_and_margin(&[1.0, 3.0, 2.0], 0);
        let sum = 1f64.exp() + 2f64.exp() + 3f64.exp();
        assert!((f64::from(loss) - (sum.ln() - 1.0)).abs() < 1e-6);
        assert_eq!(margin, -2.0);
        assert!((softmax(&[1.0, 3.0, 2.0])[1] - 3f64.exp() / sum).abs() < 1e-12);
    }
}
