//! One HTML page that compares runs. It holds all its data and uses no network; its content policy
//! forbids network access.

mod cards;
mod charts;
mod tables;

use minijinja::Environment;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    caption::thousands,
    figures::run_styles,
    load::Runs,
    run::{Run, reason},
};
use crate::{
    error::{Error, Result},
    plot::{PALETTE, Style},
};

/// A figure of the page.
#[derive(Clone, Debug, Serialize)]
pub struct PageFigure {
    /// Name of its file under `plots/`, without the ending.
    pub name: String,
    /// The drawing.
    pub svg: String,
    /// Names of animations under `plots/`.
    pub animations: Vec<String>,
}

/// A line of the page's warnings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Warning {
    /// The run that the warning is about; empty for none in particular.
    pub run: String,
    /// The text of the warning.
    pub text: String,
}

/// The content of a page besides its runs.
#[derive(Clone, Debug, Default)]
pub struct PageContent {
    /// Figures, in order.
    pub figures: Vec<PageFigure>,
    /// Warnings, in order.
    pub warnings: Vec<Warning>,
    /// Heading; the names of the runs if it is `None`.
    pub title: Option<String>,
    /// For each run, files beside the page: `(words, address relative to the page)`.
    pub links: Vec<Vec<(String, String)>>,
    /// Seconds after which the page looks for a newer version; `None` for never.
    pub refresh: Option<u64>,
}

/// The warnings about `all`: folders that are not runs, catastrophic overfitting, warnings of
/// evaluations, damaged records.
pub fn warnings(all: &Runs) -> Vec<Warning> {
    let skipped = all.skipped.iter().map(|skipped| Warning {
        run: skipped.name(),
        text: format!("left out, not a run folder: {}", skipped.problem),
    });
    let mut found: Vec<Warning> = skipped.collect();
    for run in &all.runs {
        for text in warnings_of(run) {
            let warning = Warning { run: run.name.clone(), text };
            if !found.contains(&warning) {
                found.push(warning);
            }
        }
    }
    found
}

fn warnings_of(run: &Run) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(onset) = run.onset() {
        all.push(format!(
            "catastrophic overfitting, noticed at step {}: {}. Its single-step accuracy says \
             nothing about robustness.",
            onset.step,
            reason(&onset)
        ));
    }
    if let Some(rollback) = run.rollback() {
        all.push(format!(
            "rolled back to step {} after catastrophic overfitting of {} at step {}, then trained with {}",
            rollback.to_step, rollback.from_method, rollback.co.step, rollback.method
        ));
    }
    for record in &run.records {
        let n = thousands(record.n);
        all.extend(record.warnings.iter().map(|text| format!("evaluation of {n} images: {text}")));
    }
    all.extend(run.warnings.iter().cloned());
    all
}

/// Makes the page.
///
/// # Errors
/// [`Error::Defect`] for a mistake in the page's own template.
pub fn page(runs: &[Run], content: &PageContent) -> Result<String> {
    let names: Vec<_> = runs.iter().map(|run| run.name.as_str()).collect();
    let title = content.title.clone().unwrap_or_else(|| names.join(" and "));
    let styles = run_styles(runs);
    let colours: Vec<usize> = styles.iter().map(colour).collect();
    let charts = charts::charts(runs);
    let data = charts::data(runs, &styles, &charts);
    let (differing, common) = tables::settings(runs);
    let attacks = tables::attacks(runs);
    let licences = format!(
        "uPlot (interactive charts), MIT:\n\n{}\n\nInter (font of PNG figures; the page names it \
         and does not hold it), SIL Open Font License 1.1.",
        include_str!("../vendor/LICENSE-uPlot")
    );
    let plural = if runs.len() == 1 { "" } else { "s" };
    let value = json!({
        "title": title,
        "about": format!("{} run{plural} of adversarial training, drawn from their records.", runs.len()),
        "version": env!("CARGO_PKG_VERSION"),
        "refresh": content.refresh,
        "runs": cards::cards(runs, &styles, &content.links),
        "warnings": content.warnings,
        "charts": charts,
        "figures": content.figures,
        "attacks": attacks,
        "results": tables::results(runs, &colours, &attacks),
        "validations": tables::validations(runs, &colours),
        "seeds": tables::seeds(runs),
        "differing": differing,
        "common": common,
        "cost": tables::costs(runs, &colours),
        "licences": licences,
        "thinning": charts::thinning(),
        "data": in_script(&data),
        "css": include_str!("page.css"),
        "js": include_str!("page.js"),
        "uplot_css": include_str!("../vendor/uPlot.min.css"),
        "uplot_js": include_str!("../vendor/uPlot.iife.min.js"),
    });
    let mut environment = Environment::new();
    // The template engine escapes values in templates whose names end in .html.
    environment.add_template("page.html", include_str!("page.html")).map_err(broken)?;
    let template = environment.get_template("page.html").map_err(broken)?;
    template.render(minijinja::value::Serde(&value)).map_err(broken)
}

fn broken(error: minijinja::Error) -> Error {
    Error::defect(format!("cannot fill in the page: {error}"))
}

/// JSON in a form that cannot end the script element around it.
fn in_script(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Index of a style's colour in the palette.
fn colour(style: &Style) -> usize {
    PALETTE.iter().position(|paint| *paint == style.paint).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::log::ValFigures;

    fn run(name: &str, method: &str) -> Run {
        let accuracy = |v: f64| json!({"accuracy": v, "ci95": [v - 0.01, v + 0.01]});
        let config = format!(
            "method = \"{method}\"\nepsilon = \"8/255\"\nnorm = \"linf\"\nseed = 0\nepochs = 2\n\
             dataset = \"folder:/secret/place/pets\"\n"
        );
        let line = |step| json!({"step": step, "loss": 2.0, "pert_align": 0.5});
        let steps = (0..2000).map(|step| serde_json::from_value(line(step)).unwrap()).collect();
        let val: ValFigures = serde_json::from_value(
            json!({"n": 100, "clean": accuracy(0.5), "fgsm": accuracy(0.4), "pgd": accuracy(0.3)}),
        )
        .unwrap();
        let epoch = json!({"epoch": 0, "step": 2000, "seconds": 3.5, "val": val});
        Run {
            name: name.into(),
            config: config.parse().unwrap(),
            steps,
            epochs: vec![serde_json::from_value(epoch).unwrap()],
            ..Run::default()
        }
    }

    #[test]
    fn the_page_holds_the_figures_and_escapes_what_users_chose() {
        let hostile = "</script><img src=x onerror=alert(1)>&\"'";
        let runs = [run(hostile, "fgsm"), run("b", "sora")];
        let warnings = vec![Warning { run: hostile.into(), text: hostile.into() }];
        let title = Some(hostile.to_owned());
        let links = vec![vec![(hostile.into(), hostile.into())], Vec::new()];
        let content = PageContent { warnings, title, links, ..PageContent::default() };
        let text = page(&runs, &content).unwrap();
        assert!(!text.contains("<img"), "a name became markup");
        assert_eq!(
            text.matches("</script>").count(),
            3,
            "the page's own three scripts and no other end"
        );
        assert!(!text.contains("secret"), "a path of the machine");
        for part in [
            "30.0",
            "(29.0\u{2013}31.0)",
            "folder pets",
            "method",
            "no catastrophic overfitting noticed",
            "Content-Security-Policy",
            "<meta name=\"generator\" content=\"sora",
        ] {
            assert!(text.contains(part), "no '{part}'");
        }
        assert!(!text.contains("https://cdn") && !text.contains("<link"), "something is fetched");
        assert!(!text.contains("http-equiv=\"refresh\""));
        let content = PageContent { refresh: Some(7), ..PageContent::default() };
        assert!(page(&runs, &content).unwrap().contains("http-equiv=\"refresh\" content=\"7\""));
    }

    #[test]
    fn results_stand_right_under_the_cards() {
        let text = page(&[run("a", "fgsm")], &PageContent::default()).unwrap();
        let at = |id: &str| text.find(&format!("<h2 id=\"{id}\"")).unwrap();
        assert!(at("glance") < at("results") && at("results") < at("curves"));
    }
}
