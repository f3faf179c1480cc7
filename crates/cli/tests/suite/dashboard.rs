//! The terminal view, drawn into memory and held against pictures that were looked at:
//! `tests/snapshots/*.txt` (`SORA_SNAPSHOTS=write` makes them anew).

use std::{fs, path::Path, time::Duration};

use ratatui::{Terminal, backend::TestBackend};
use sora::{
    diagnose::{CoEvent, CoSign},
    method::Passes,
    run::{
        RunConfig,
        log::{Accuracy, EpochLine, Rollback, StepLine, TrainFigures, ValFigures},
    },
};

use sora_cli::dashboard::{Dashboard, RunState, plain_text};

use crate::support::path;

fn config() -> RunConfig {
    let toml = "dataset = 'cifar10'\nmethod = 'fgsm'\nepsilon = '16/255'\nwidth = 16\nepochs = 4\n\
                steps_per_epoch = 75\n[network]\nname = 'preact-resnet18'\nwidth = 16\n\
                mean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\n\
                [network.shape]\nchannels = 3\nheight = 32\nwidth = 32\nclasses = 10\n";
    RunConfig::parse(toml, Path::new("config.toml")).unwrap()
}

/// The figures of a run that rises and collapses at step 120.
fn steps(n: u64) -> Vec<StepLine> {
    (0..n)
        .map(|step| {
            let (t, fallen) = (step as f32 / 300.0, step >= 120);
            let align = if fallen { 0.03 } else { 0.35 * (step as f32 / 80.0).min(1.0) };
            StepLine {
                step,
                epoch: step / 75,
                loss: 2.4 - t,
                adv_acc: 0.1 + 0.4 * t,
                lr: 0.1,
                alpha: 16.0 / 255.0,
                linearity: align + 0.05,
                pert_align: align,
                delta_mean: 0.06,
                images_per_s: 500.0,
                val: (step % 15 == 14).then(|| val(if fallen { 4 } else { 60 })),
                ..StepLine::default()
            }
        })
        .collect()
}

fn val(pgd: u64) -> ValFigures {
    ValFigures {
        n: 500,
        clean: Accuracy::of(120, 500),
        fgsm: Accuracy::of(80, 500),
        pgd: Accuracy::of(pgd, 500),
    }
}

fn epochs(n: u64) -> Vec<EpochLine> {
    let train =
        TrainFigures { loss: 2.2, adv_acc: 0.2, pert_align: 0.3, linearity: 0.3, alpha: 0.06 };
    (0..n)
        .map(|epoch| EpochLine {
            epoch,
            step: 75 * (epoch + 1),
            train,
            val: Some(val(60)),
            co: None,
            rollback: None,
            seconds: 20.0,
            val_seconds: 5.0,
            passes: Passes::default(),
            peak_rss_mib: 715,
        })
        .collect()
}

fn drawn(view: &Dashboard<'_>, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view.draw(frame)).unwrap();
    plain_text(terminal.backend().buffer())
}

#[track_caller]
fn matches(name: &str, text: &str) {
    let file = path(&format!("crates/cli/tests/snapshots/{name}.txt"));
    if std::env::var_os("SORA_SNAPSHOTS").is_some_and(|value| value == "write") {
        fs::write(&file, text).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap();
    assert!(text == expected, "{name} looks different:\n{text}\ninstead of\n{expected}");
}

#[test]
fn runs_that_start_go_on_fall_and_end_look_as_they_should() {
    let config = config();
    let view = |steps: &[StepLine], epochs: &[EpochLine], state| {
        drawn(&Dashboard { config: &config, steps, epochs, state, damaged: 0 }, 80, 24)
    };
    matches("watch-starting", &view(&[], &[], RunState::Starting));
    matches("watch-running", &view(&steps(100), &epochs(1), RunState::Running));
    let mut fallen = steps(200);
    fallen[123].co = Some(CoEvent {
        step: 123,
        onset: 117,
        sign: CoSign::PertAlign,
        from: 0.35,
        to: 0.12,
        sure: 0.999,
    });
    matches("watch-fallen", &view(&fallen, &epochs(2), RunState::Silent(Duration::from_secs(125))));
    let mut rolled = steps(300);
    let rollback = Rollback {
        co: fallen[123].co.unwrap(),
        to_step: 110,
        from_method: "fgsm".into(),
        method: "sora".into(),
    };
    for line in &mut rolled[110..] {
        line.method = Some("sora".into());
    }
    rolled[110].rollback = Some(rollback);
    matches("watch-done", &view(&rolled, &epochs(4), RunState::Done));
}

#[test]
fn a_collapse_after_a_rollback_is_shown_beside_the_one_before() {
    let config = config();
    let mut steps = steps(300);
    let co = |step, onset| CoEvent { step, onset, sure: 0.999, ..CoEvent::default() };
    steps[200].rollback = Some(Rollback {
        co: co(210, 201),
        to_step: 200,
        from_method: "fgsm".into(),
        method: "sora".into(),
    });
    steps[275].co = Some(co(275, 256));
    let state = RunState::Done;
    let view = Dashboard { config: &config, steps: &steps, epochs: &[], state, damaged: 0 };
    let text = drawn(&view, 80, 24);
    let expected = "CO again at step 275 (sure to 99.9 %); at 210: back to step 200, sora since";
    assert!(text.lines().any(|line| line == expected), "{text}");
    assert!(text.contains("CATASTROPHIC OVERFITTING"), "{text}");
}

#[test]
fn a_slow_step_among_fast_ones_weighs_by_its_time() {
    let config = config();
    let mut steps = steps(100);
    // Of the newest 20 steps 10 are as fast as before; the others take nine times as long.
    for line in steps.iter_mut().skip(80).step_by(2) {
        line.images_per_s = 500.0 / 9.0;
    }
    let state = RunState::Running;
    let view = Dashboard { config: &config, steps: &steps, epochs: &[], state, damaged: 0 };
    let text = drawn(&view, 80, 24);
    assert!(text.contains("| 100 images/s"), "{text}");
    let left = (300 - 100) * config.settings.batch / 100;
    let shown = format!("{} min {:02} s left", left / 60, left % 60);
    assert!(text.contains(&shown), "no '{shown}' in {text}");
}

#[test]
fn no_size_and_no_figure_breaks_the_view() {
    let config = config();
    let mut odd = steps(50);
    for (i, line) in odd.iter_mut().enumerate() {
        if i % 7 == 0 {
            (line.pert_align, line.loss, line.images_per_s, line.alpha) =
                (f32::NAN, f32::INFINITY, 0.0, -1.0);
        }
    }
    let one = epochs(1);
    let mut unknown = config.clone();
    unknown.steps_per_epoch = 0;
    for config in [&config, &unknown] {
        for (width, height) in [(1, 1), (2, 30), (20, 5), (80, 24), (79, 23), (200, 60)] {
            for (steps, epochs) in [(&odd[..], &[][..]), (&[], &[]), (&odd[..1], &one[..])] {
                let text = drawn(
                    &Dashboard { config, steps, epochs, state: RunState::Running, damaged: 3 },
                    width,
                    height,
                );
                assert_eq!(text.lines().count(), usize::from(height));
            }
        }
    }
}
