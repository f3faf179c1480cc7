//! The loss around an image, over a plane through it.
//!
//! A network that has overfitted catastrophically shows a ridge between the image and its
//! single-step example (Kim et al. 2021, arXiv 2010.01799).

use std::{fmt, str::FromStr};

use robustness::Classifier;
use serde::{Deserialize, Serialize};

use super::{
    Opened, cache,
    passes::{self, Images},
    weights::{Choice, load},
};
use crate::{
    error::{Error, Result},
    evaluate::OnSplit,
    report::caption::Setting,
    threat::Threat,
};

/// The plane over which a landscape is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plane {
    /// The plane of the single-step attack's direction (the gradient's sign in l-inf, the
    /// normalised gradient in l2) and a random direction (signs in l-inf, a unit vector in l2),
    /// both of length epsilon.
    #[default]
    GradientRandom,
    /// The plane of the perturbations that fgsm and pgd-10 find: the image lies at (0, 0), fgsm's
    /// example at (1, 0), pgd-10's at (0, 1).
    FgsmPgd,
}

impl Plane {
    /// All planes.
    pub const ALL: [Self; 2] = [Self::GradientRandom, Self::FgsmPgd];

    /// Range along both directions by default, in units of their lengths.
    pub fn default_range(self) -> [f32; 2] {
        match self {
            Self::GradientRandom => [-1.0, 1.0],
            Self::FgsmPgd => [0.0, 1.0],
        }
    }
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GradientRandom => "gradient-random",
            Self::FgsmPgd => "fgsm-pgd",
        })
    }
}

impl FromStr for Plane {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|plane| plane.to_string() == text)
            .ok_or_else(|| Error::unknown("plane", text, Self::ALL.map(|plane| plane.to_string())))
    }
}

/// The settings of a landscape.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandscapeConfig {
    /// Index of the image in the test split, from 0.
    pub index: usize,
    /// The plane.
    pub plane: Plane,
    /// Number of points along each direction, 3 to 201.
    pub grid: usize,
    /// Range along both directions, in units of their lengths.
    pub range: [f32; 2],
    /// Seed of the random direction, or of pgd-10's start.
    pub seed: u64,
}

impl LandscapeConfig {
    /// A landscape around image `index` of the test split, over a plane in its default range, with
    /// 41 points a side and seed 0.
    pub fn new(index: usize, plane: Plane) -> Self {
        Self { index, plane, grid: 41, range: plane.default_range(), seed: 0 }
    }

    /// The same settings with the range from `-span` to `span`.
    pub fn span(self, span: f32) -> Self {
        Self { range: [-span, span], ..self }
    }

    /// Refuses settings that cannot be drawn.
    ///
    /// # Errors
    /// [`Error`] for the first wrong value.
    pub fn check(&self) -> Result<()> {
        if !(3..=201).contains(&self.grid) {
            return Err(Error::setting("grid", self.grid, "expected 3 to 201 points"));
        }
        let [low, high] = self.range;
        let sound = |v: f32| v.abs() <= 100.0;
        if !(low < high && sound(low) && sound(high)) {
            let span = if low == -high { high.to_string() } else { format!("{low} to {high}") };
            let problem = "expected a number of epsilons above 0, at most 100";
            return Err(Error::setting("span", span, problem));
        }
        Ok(())
    }
}

/// Loss over a plane through an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Landscape {
    /// The name of the weights.
    pub weights: String,
    /// Digest of all that decides the values; empty in files of older versions.
    #[serde(default)]
    pub of: String,
    /// Index of the image in the test split.
    pub index: usize,
    /// Class of the image.
    pub label: usize,
    /// Distances along both directions, in units of their lengths, in ascending order.
    pub at: Vec<f32>,
    /// Cross-entropy (nats), `[grid, grid]`: a row for each distance along the second direction.
    pub loss: Vec<f32>,
    /// Logit of the true class minus the largest other logit, `[grid, grid]`; below 0 the
    /// prediction is wrong.
    pub margin: Vec<f32>,
}

/// Loss landscapes of several weights of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Landscapes {
    /// The name of the run.
    pub name: String,
    /// Data set, network, threat model and seed, for the caption.
    #[serde(skip_deserializing)]
    pub about: Setting,
    /// Norm.
    pub norm: String,
    /// Radius, as the run's settings spell it.
    pub epsilon: String,
    /// Class of the image.
    pub class: String,
    /// The settings of the landscapes.
    pub config: LandscapeConfig,
    /// One landscape for each set of weights, oldest first.
    pub rows: Vec<Landscape>,
}

/// Computes the loss of `model`, in eval mode, around an image; pixels are clipped to [0, 1].
/// `weights` names the weights in the result.
///
/// # Errors
/// [`Error`] for a wrong setting, no image or several, or a device that fails.
pub fn landscape(
    model: &dyn Classifier,
    image: &Images,
    threat: Threat,
    config: &LandscapeConfig,
    weights: &str,
) -> Result<Landscape> {
    config.check()?;
    let [label] = image.labels[..] else {
        return Err(Error::unfit("a landscape", "expected one image"));
    };
    let [along, aside] = directions(model, image, threat, config)?;
    let last = (config.grid - 1) as f32;
    let [low, high] = config.range;
    let at: Vec<f32> = (0..config.grid).map(|i| low + (high - low) * i as f32 / last).collect();
    let classes = model.shape().classes;
    let (mut loss, mut margin) = (Vec::new(), Vec::new());
    for b in &at {
        let mut row = Vec::with_capacity(config.grid * image.x.len());
        for a in &at {
            let point = image.x.iter().zip(&along).zip(&aside);
            row.extend(point.map(|((x, u), v)| (x + a * u + b * v).clamp(0.0, 1.0)));
        }
        for logits in model.logits(&row)?.chunks(classes) {
            let (l, m) = passes::loss_and_margin(logits, label);
            loss.push(l);
            margin.push(m);
        }
    }
    let (weights, of) = (weights.to_owned(), String::new());
    Ok(Landscape { weights, of, index: config.index, label, at, loss, margin })
}

/// The two directions that span the plane.
fn directions(
    model: &dyn Classifier,
    image: &Images,
    threat: Threat,
    config: &LandscapeConfig,
) -> Result<[Vec<f32>; 2]> {
    let long = |direction: Vec<f32>| direction.into_iter().map(|v| v * threat.epsilon).collect();
    let gradient = long(passes::ascent(model, threat.norm, &image.x, &image.labels)?);
    let second = match config.plane {
        Plane::GradientRandom => long(passes::random_direction(model, threat, image, config.seed)),
        Plane::FgsmPgd => {
            let found = passes::multi_step(model, threat, image, config.seed)?;
            found.iter().zip(&image.x).map(|(p, x)| p - x).collect()
        }
    };
    Ok([gradient, second])
}

impl Opened<'_> {
    /// Landscapes around image `config.index` for the weights that `choice` names, at most `count`.
    ///
    /// # Errors
    /// [`Error`] for wrong settings, an image that does not exist, or damaged weights.
    pub fn landscapes(
        &mut self,
        config: LandscapeConfig,
        choice: &Choice,
        count: usize,
    ) -> Result<Landscapes> {
        config.check()?;
        let wanted = self.weights(choice, count)?;
        let image = Images::of(&OnSplit(self.dataset.test.as_ref().clone()), &[config.index])?;
        let alone = OnSplit(self.dataset.test.subset(&[config.index])?);
        let file = self.landscape_file(&config);
        let known: Option<Landscapes> =
            cache::known(&file).filter(|found: &Landscapes| found.config == config);
        let mut known = known.map(|found| found.rows).unwrap_or_default();
        let mut rows = Vec::new();
        let mut fresh = false;
        for weights in &wanted {
            load(&mut self.subject.model, weights)?;
            let of = self.identity(&alone)?;
            let name = weights.name.clone();
            if let Some(i) = known.iter().position(|row| row.of == of) {
                rows.push(Landscape { weights: name, ..known.swap_remove(i) });
                continue;
            }
            let (run, index) = (&self.run.name, config.index);
            tracing::info!("{run}: loss around image {index} at {name}");
            let threat = self.settings().threat();
            let row = landscape(&self.subject.model, &image, threat, &config, &name)?;
            rows.push(Landscape { of, ..row });
            fresh = true;
        }
        let found = self.named(config, rows);
        if fresh {
            let rows = found.rows.iter().cloned().chain(known).collect();
            cache::keep(&file, &Landscapes { rows, ..found.clone() });
        }
        Ok(found)
    }

    fn landscape_file(&self, config: &LandscapeConfig) -> std::path::PathBuf {
        let index = config.index;
        let name = match config.plane {
            Plane::GradientRandom => format!("landscape-{index}.json"),
            plane @ Plane::FgsmPgd => format!("landscape-{index}-{plane}.json"),
        };
        self.run.dir().plots().join(name)
    }

    fn named(&self, config: LandscapeConfig, rows: Vec<Landscape>) -> Landscapes {
        let label = rows.first().map_or(0, |row| row.label);
        Landscapes {
            name: self.run.name.clone(),
            about: self.about(),
            norm: self.run.norm(),
            epsilon: self.run.setting("epsilon"),
            class: self.classes().get(label).cloned().unwrap_or_else(|| label.to_string()),
            config,
            rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::passes::tests::Plane as Model, *};
    use crate::threat::Norm;

    const THREAT: Threat = Threat { norm: Norm::Linf, epsilon: 0.1 };

    #[test]
    fn the_corners_of_the_plane_are_the_image_and_its_adversarial_examples() {
        let model = Model { w: vec![3.0, -4.0], b: 0.0 };
        let image = Images { x: vec![0.5, 0.5], labels: vec![1], ids: vec![0] };
        let config = LandscapeConfig { grid: 3, ..LandscapeConfig::new(0, Plane::FgsmPgd) };
        let found = landscape(&model, &image, THREAT, &config, "final").unwrap();
        assert_eq!(found.at, [0.0, 0.5, 1.0]);
        let margin = |x: f32, y: f32| 3.0 * x - 4.0 * y;
        // fgsm and pgd-10 find the same corner of the ball here.
        for (i, expected) in [(0, margin(0.5, 0.5)), (2, margin(0.4, 0.6)), (6, margin(0.4, 0.6))] {
            assert!((found.margin[i] - expected).abs() < 1e-2, "{i}: {:?}", found.margin);
        }
        assert!((found.loss[0] - (1.0 + f32::exp(0.5)).ln()).abs() < 1e-5, "{:?}", found.loss);
    }

    #[test]
    fn a_plane_is_read_as_it_is_written_and_a_wrong_range_is_refused() {
        for plane in Plane::ALL {
            assert_eq!(plane.to_string().parse::<Plane>().unwrap(), plane);
            LandscapeConfig::new(0, plane).check().unwrap();
        }
        let error = "gradient".parse::<Plane>().unwrap_err().to_string();
        assert!(error.contains("gradient-random"), "{error}");
        let config = LandscapeConfig::new(0, Plane::FgsmPgd);
        for span in [0.0, -1.0, f32::NAN, 101.0] {
            assert!(config.span(span).check().unwrap_err().to_string().contains("span"), "{span}");
        }
        config.span(2.0).check().unwrap();
    }
}
