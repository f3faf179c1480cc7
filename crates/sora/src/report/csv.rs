//! The logs of a run as comma-separated values, for spreadsheets and data frames.

use std::fmt::Write;

use super::run::Run;
use crate::run::log::{StepLine, ValFigures};

/// A column: its name and its value.
type Column = (&'static str, fn(&StepLine) -> Option<f64>);

const COLUMNS: [Column; 13] = [
    ("loss", |s| Some(s.loss.into())),
    ("adv_acc", |s| Some(s.adv_acc.into())),
    ("lr", |s| Some(s.lr.into())),
    ("momentum", |s| s.momentum.map(f64::from)),
    ("alpha", |s| Some(s.alpha.into())),
    ("linearity", |s| Some(s.linearity.into())),
    ("pert_align", |s| Some(s.pert_align.into())),
    ("delta_mean", |s| Some(s.delta_mean.into())),
    ("images_per_s", |s| Some(s.images_per_s.into())),
    ("linearity_raw", |s| s.linearity_raw.map(f64::from)),
    ("linearity_of_sums", |s| s.linearity_of_sums.map(f64::from)),
    ("grad_ratio", |s| s.grad_ratio.map(f64::from)),
    ("abnormal", |s| s.abnormal.map(f64::from)),
];

/// One row for each step: its figures, and the validation after it where there was one. A figure
/// that is absent or not finite gives an empty cell.
pub fn csv(run: &Run) -> String {
    let mut validations = run.validations().into_iter().peekable();
    let mut text = String::from("step,epoch");
    COLUMNS.iter().for_each(|(name, _)| text.extend([",", name]));
    text.push_str(",val_n,val_clean,val_fgsm,val_pgd,co\n");
    for line in &run.steps {
        let _ = write!(text, "{},{}", line.step, line.epoch);
        COLUMNS.iter().for_each(|(_, of)| cell(&mut text, of(line)));
        while validations.next_if(|(step, _)| *step <= line.step).is_some() {}
        let val = validations.next_if(|(step, _)| *step == line.step + 1).map(|(_, val)| val);
        cell(&mut text, val.map(|val| val.n as f64));
        let accuracies: [fn(&ValFigures) -> f64; 3] =
            [|v| v.clean.accuracy, |v| v.fgsm.accuracy, |v| v.pgd.accuracy];
        accuracies.iter().for_each(|of| cell(&mut text, val.as_ref().map(of)));
        let _ = writeln!(text, ",{}", u8::from(line.co.is_some()));
    }
    text
}

fn cell(text: &mut String, value: Option<f64>) {
    text.push(',');
    if let Some(value) = value.filter(|v| v.is_finite()) {
        // The figure is written with the digits of single precision, not those of its value in
        // double.
        let _ = write!(text, "{}", value as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_a_step_and_the_validation_after_it() {
        let accuracy = |v: f64| serde_json::json!({"accuracy": v, "ci95": [0.0, 1.0]});
        let val = serde_json::json!(
            {"n": 10, "clean": accuracy(0.5), "fgsm": accuracy(0.4), "pgd": accuracy(0.3)}
        );
        let line = |value| serde_json::from_value(value).unwrap();
        let mut run = Run {
            steps: vec![
                line(serde_json::json!({"step": 0, "epoch": 0, "loss": 2.1, "lr": 0.1})),
                line(serde_json::json!({"step": 1, "epoch": 0, "loss": null, "lr": 0.1})),
            ],
            ..Run::default()
        };
        run.epochs = vec![
            serde_json::from_value(serde_json::json!({"epoch": 0, "step": 2, "val": val})).unwrap(),
        ];
        let text = csv(&run);
        let rows: Vec<_> = text.lines().collect();
        let width = rows[0].split(',').count();
        assert!(rows.iter().all(|row| row.split(',').count() == width), "{text}");
        assert!(rows[1].starts_with("0,0,2.1,,0.1,"), "{text}");
        assert!(rows[2].starts_with("1,0,,") && rows[2].ends_with(",10,0.5,0.4,0.3,0"), "{text}");
    }
}
