//! Models that run elsewhere.

use std::time::Duration;

use sora::evaluate::Outcome;
use sora_served::{Cost, Normalisation, Options, Served};

use super::{ForeignArgs, Judged};
use crate::{
    console::duration,
    error::{Failure, Result},
};

/// A program or a URL in place of a file, and how it is asked.
#[derive(Clone, Debug, clap::Args)]
pub struct ServedArgs {
    /// A program that reads images and writes logits or labels, in place of a file; see
    /// docs/black-box.md
    #[arg(long, value_name = "COMMAND", conflicts_with = "url", help_heading = "Network")]
    pub exec: Option<String>,
    /// A model behind a URL: of the Open Inference Protocol (http://HOST:PORT/v2/models/NAME) or of
    /// the form of docs/black-box.md
    #[arg(long, value_name = "URL", help_heading = "Network")]
    pub url: Option<String>,
    /// With --url: a header of every request, such as 'Authorization: Bearer ...'
    #[arg(long, value_name = "NAME: VALUE", requires = "url", help_heading = "Network")]
    pub header: Vec<String>,
    /// With --exec and --url: seconds that an answer may take [default: 60]
    #[arg(long, value_name = "SECONDS", help_heading = "Network")]
    pub timeout: Option<f64>,
    /// With --exec and --url: how often an answer that did not come is asked for again [default: 2]
    #[arg(long, value_name = "N", help_heading = "Network")]
    pub retries: Option<u32>,
}

impl ServedArgs {
    /// Starts the program, or asks the server what it is.
    ///
    /// # Errors
    /// A wrong value, or a model that does not answer.
    pub fn open(&self, foreign: &ForeignArgs, batch: usize) -> Result<Served> {
        let plain = Options::default();
        let options = Options {
            timeout: self.timeout()?.unwrap_or(plain.timeout),
            retries: self.retries.unwrap_or(plain.retries),
            batch: Some(batch),
            normalisation: foreign.normalisation()?.map(|(mean, std)| Normalisation { mean, std }),
            image_size: foreign.side.map(|side| [side, side]),
            output: foreign.output.clone(),
            one_output: foreign.one_output,
            headers: self.headers()?,
        };
        let opened = match (&self.exec, &self.url) {
            (Some(command), _) => Served::exec(command, options),
            (None, Some(url)) => Served::connect(url, options),
            (None, None) => return Err(Failure::input("name a file, --exec or --url")),
        };
        let model = opened.map_err(|e| match e.is_input() {
            true => Failure::input(e.to_string()),
            false => Failure::work(e.to_string()),
        })?;
        tracing::info!(
            "{}: answers with {} of {} classes; no gradients",
            model.name(),
            model.description().answers.access(),
            model.description().classes
        );
        Ok(model)
    }

    fn timeout(&self) -> Result<Option<Duration>> {
        let Some(seconds) = self.timeout else { return Ok(None) };
        let found = Duration::try_from_secs_f64(seconds).ok().filter(|d| !d.is_zero());
        found.map(Some).ok_or_else(|| {
            Failure::input(format!("--timeout {seconds}: expected seconds above 0, such as 60"))
        })
    }

    fn headers(&self) -> Result<Vec<(String, String)>> {
        let split = |text: &String| {
            let (name, value) = text.split_once(':')?;
            let (name, value) = (name.trim(), value.trim());
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            let fits = !name.is_empty()
                && name.chars().all(plain)
                && value.chars().all(|c| c.is_ascii_graphic() || c == ' ');
            fits.then(|| (name.to_owned(), value.to_owned()))
        };
        // The value may be a password: it is not shown.
        let wrong = || Failure::input("--header: expected 'NAME: VALUE' of printable characters");
        self.header.iter().map(|text| split(text).ok_or_else(wrong)).collect()
    }

    /// # Errors
    /// Anything that was given: it goes with a served model alone.
    pub fn refuse(&self) -> Result<()> {
        let given = [("timeout", self.timeout.is_some()), ("retries", self.retries.is_some())];
        match given.into_iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Failure::input(format!("--{name}: is for --exec and --url"))),
            None => Ok(()),
        }
    }
}

impl Judged {
    /// Adds what the answers of a served model cost, and what was wrong with them.
    pub fn add_cost(&self, outcome: &mut Outcome) {
        let Self::Served(model) = self else { return };
        let Cost { queries, requests, retries, seconds, not_finite } = model.cost();
        let again = match retries {
            0 => String::new(),
            1 => ", one asked again".into(),
            n => format!(", {n} asked again"),
        };
        outcome.notes.push(format!(
            "{queries} images in {requests} requests{again}, {} of waiting for answers, checks and \
             the digest of the clean answers included",
            duration(seconds)
        ));
        if not_finite > 0 {
            outcome.warnings.push(format!(
                "{not_finite} of {queries} answers hold logits that are no finite numbers: where \
                 they are not numbers at all the image counts as misclassified; look into the model"
            ));
        }
    }
}
