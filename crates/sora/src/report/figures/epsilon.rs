//! Epsilon overfitting: accuracy over the radius of the attack, and its change during training.

use super::{lines::top_accuracy, styles::Blank};
use crate::{
    plot::{
        Axis, Chart, Field, Figure, HeatMap, MUTED, Mark, Marker, PALETTE, Point, Series, Style,
    },
    report::{
        caption::{Setting, each, settings, thousands},
        compute::{EpsilonRow, Sweep, evenly},
    },
    stats::wilson95,
};

/// Most lines of a panel; a reader cannot tell more apart.
const LINES: usize = 5;

/// Draws curves and heat maps, with one row for each run.
pub fn epsilon(sweeps: &[Sweep]) -> Figure {
    let mut figure = Figure::new("Epsilon overfitting")
        .columns(3)
        .panel_size(370.0, 270.0)
        .caption(caption(sweeps));
    let percent = |sweep: &Sweep, count: u64| 100.0 * count as f64 / sweep.data.n.max(1) as f64;
    let all = sweeps.iter().flat_map(|s| {
        s.data.rows.iter().flat_map(move |r| {
            [&r.clean].into_iter().chain(&r.single).chain(&r.multi).map(move |c| percent(s, *c))
        })
    });
    let top = top_accuracy(all);
    let several = sweeps.windows(2).any(|two| two[0].about.threat != two[1].about.threat);
    for sweep in sweeps {
        let title = if several {
            format!("{}, {}", sweep.name, sweep.about.threat)
        } else {
            sweep.name.clone()
        };
        figure = figure.panel(curves(sweep, title, top)).panel(heat(
            sweep,
            "fgsm (single step)",
            &sweep.data.epsilons,
            |r| &r.single,
            top,
        ));
        figure = if sweep.data.multi_epsilons.is_empty() {
            figure.panel(Blank)
        } else {
            figure.panel(heat(
                sweep,
                "pgd-10 (multi-step)",
                &sweep.data.multi_epsilons,
                |r| &r.multi,
                top,
            ))
        };
    }
    figure
}

fn caption(sweeps: &[Sweep]) -> String {
    let abouts: Vec<&Setting> = sweeps.iter().map(|sweep| &sweep.about).collect();
    let of_each = |fact: fn(&Sweep) -> String| {
        each(&sweeps.iter().map(|s| (s.name.as_str(), fact(s))).collect::<Vec<_>>())
    };
    format!(
        "{} n = {} test images, seed of the random starts {}; bands are 95 % Wilson intervals. \
         Accuracy against attacks of other radii than the one trained with (upright line); the \
         dotted line is accuracy on clean images at the last weights. Under fgsm the radius is the \
         step size: a network that has overfitted to its epsilon is stronger there than at smaller \
         ones.",
        settings(&abouts),
        of_each(|sweep| thousands(sweep.data.n)),
        of_each(|sweep| sweep.data.seed.to_string())
    )
}

fn curves(sweep: &Sweep, title: String, top: f64) -> Chart {
    let x = Axis::linear(format!("attack radius \u{3b5} ({})", sweep.unit));
    let mut chart = Chart::new(title, x, Axis::linear("accuracy (%)").range(0.0, top));
    let n = sweep.data.n.max(1);
    let point = |x: f64, count: u64| {
        Point::from((x, 100.0 * count as f64 / n as f64, wilson95(count, n).map(|v| 100.0 * v)))
    };
    // At radius 0 the image is unchanged.
    let points = |epsilons: &[f32], counts: &[u64], clean: u64| {
        let radii = epsilons.iter().map(|e| f64::from(*e) * sweep.factor).zip(counts.to_vec());
        std::iter::once((0.0, clean)).chain(radii).map(|(x, c)| point(x, c)).collect::<Vec<_>>()
    };
    let chosen = evenly(&sweep.data.rows, LINES);
    for (i, row) in chosen.iter().enumerate() {
        chart = chart.series(Series::new(
            format!("fgsm, {}", row.weights),
            Style::line(i + 1),
            points(&sweep.data.epsilons, &row.single, row.clean),
        ));
    }
    if let Some(last) = chosen.last() {
        let style = Style::marked(0).paint(PALETTE[0]).dash("").marker(Marker::Square);
        let end = sweep.data.epsilons.last().map_or(1.0, |e| f64::from(*e) * sweep.factor);
        let clean = 100.0 * last.clean as f64 / n as f64;
        let dotted = Style::line(0).paint(PALETTE[6]).dash("1.5 3").width(1.4);
        chart = chart
            .series(Series::new(
                format!("pgd-10, {}", last.weights),
                style,
                points(&sweep.data.multi_epsilons, &last.multi, last.clean),
            ))
            .series(Series::new("clean", dotted, [(0.0, clean), (end, clean)]));
    }
    let training =
        Mark { paint: MUTED, ..Mark::alarm(sweep.epsilon * sweep.factor, "trained with") };
    chart.mark(training)
}

fn heat<'a>(
    sweep: &'a Sweep,
    title: &str,
    epsilons: &[f32],
    counts: impl Fn(&'a EpsilonRow) -> &'a Vec<u64>,
    top: f64,
) -> HeatMap {
    let places: Vec<f64> = epsilons.iter().map(|e| f64::from(*e) * sweep.factor).collect();
    let n = sweep.data.n.max(1) as f64;
    let values = sweep
        .data
        .rows
        .iter()
        .flat_map(|row| counts(row).iter().map(move |c| 100.0 * *c as f64 / n))
        .collect();
    let name = |value: &f64| {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let trained = sweep.epsilon * sweep.factor;
    let mark =
        places.windows(2).enumerate().find(|(_, pair)| pair[0] <= trained && trained <= pair[1]);
    let mark = mark.map(|(i, pair)| {
        (i as f64 + (trained - pair[0]) / (pair[1] - pair[0]), "trained with".to_owned())
    });
    HeatMap {
        title: format!("{}: {title}", sweep.name),
        field: Field {
            x: places.clone(),
            y: (0..sweep.data.rows.len()).map(|i| i as f64).collect(),
            values,
        },
        x_label: format!("attack radius \u{3b5} ({})", sweep.unit),
        columns: places.iter().map(name).collect(),
        y_label: "epoch".into(),
        rows: sweep
            .data
            .rows
            .iter()
            .map(|row| row.weights.trim_start_matches("epoch ").to_owned())
            .collect(),
        ends: [0.0, top],
        label: "%".into(),
        mark,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compute::EpsilonSweep;

    #[test]
    fn a_caption_is_of_every_run_that_is_drawn() {
        let sweep = |name: &str, threat: &str, n: u64| Sweep {
            name: name.into(),
            about: Setting { threat: threat.into(), seed: "0".into(), ..Setting::default() },
            epsilon: 0.1,
            factor: 255.0,
            unit: "1/255",
            data: EpsilonSweep {
                n,
                epsilons: vec![0.1, 0.2],
                rows: vec![EpsilonRow { single: vec![1, 0], ..EpsilonRow::default() }],
                ..EpsilonSweep::default()
            },
        };
        let (a, b) = (sweep("a", "l-inf 8/255", 200), sweep("b", "l2 0.5", 1000));
        let figure = epsilon(&[a.clone(), b]);
        let text = figure.caption_text();
        for part in ["l-inf 8/255, l2 0.5", "n = 200 (a), 1,000 (b) test", "starts 0; bands"] {
            assert!(text.contains(part), "no '{part}' in {text}");
        }
        let svg = figure.to_svg().unwrap();
        assert!(svg.contains("a, l-inf 8/255") && svg.contains("b, l2 0.5"), "{svg}");
        let alone = epsilon(&[a]);
        assert!(alone.caption_text().contains("n = 200 test images"));
    }
}
