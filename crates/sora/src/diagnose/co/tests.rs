use super::*;
use crate::run::log::Accuracy;

/// Noise of the given size, the same each time.
fn noise(step: u64, size: f64) -> f64 {
    size * ((step as f64 * 12.9898).sin() * 43_758.547).fract()
}

fn run(steps: u64, level: impl Fn(u64) -> f64) -> CoDetector {
    let mut detector = CoDetector::default();
    let mut said = 0;
    for step in 0..steps {
        let value = (level(step) + noise(step, 0.08)) as f32;
        let line = StepLine {
            step,
            pert_align: value,
            linearity: value,
            delta_mean: 0.03,
            lr: 0.1,
            ..StepLine::default()
        };
        said += u32::from(detector.observe(&line, 0.2).is_some());
    }
    assert_eq!(said, u32::from(detector.event().is_some()), "it speaks once");
    detector
}

#[test]
fn a_collapse_is_found_within_a_few_steps_from_high_and_low_levels() {
    for level in [0.95, 0.6, 0.3] {
        let event = run(300, |step| if step < 150 { level } else { 0.02 }).event().unwrap();
        assert!((150..156).contains(&event.step), "{level}: {event:?}");
        assert!((140..=150).contains(&event.onset), "{level}: {event:?}");
        assert!(
            event.sign == CoSign::PertAlign
                && event.sure > 0.98
                && (event.from - level).abs() < 0.05,
            "{event:?}"
        );
    }
}

#[test]
fn a_rise_from_nothing_and_the_collapse_after_it_as_fgsm_shows_at_16_255() {
    let level = |step| match step {
        0..80 => 0.35 * step as f64 / 80.0,
        80..90 => 0.35,
        90..100 => 0.35 - 0.03 * (step - 90) as f64,
        _ => 0.03,
    };
    let event = run(300, level).event().unwrap();
    assert!((92..102).contains(&event.step) && (80..96).contains(&event.onset), "{event:?}");
}

#[test]
fn noise_a_slow_start_and_a_slow_decline_are_no_collapse() {
    let healthy = |step| {
        if step < 100 { 0.3 + 0.0065 * step as f64 } else { 0.95 - 0.0002 * (step - 100) as f64 }
    };
    assert_eq!(run(1000, healthy).event(), None);
    assert_eq!(run(2000, |_| 0.5).event(), None);
}

#[test]
fn pert_align_that_never_rises_is_told_once_it_should_have() {
    let event = run(1000, |_| 0.01).event().unwrap();
    assert_eq!((event.step, event.onset, event.sign), (RISEN_BY - 1, 0, CoSign::Low));
    assert_eq!(run(RISEN_BY - 1, |_| 0.01).event(), None);
}

#[test]
fn training_on_clean_images_is_never_told() {
    let mut detector = CoDetector::default();
    for step in 0..1000 {
        let line = StepLine {
            step,
            pert_align: if step < 500 { 1.0 } else { 0.0 },
            ..StepLine::default()
        };
        assert_eq!(detector.observe(&line, 0.2), None);
    }
}

#[test]
fn the_gap_between_fgsm_and_pgd_counts_once_it_is_beyond_chance() {
    let val = |n, fgsm: u64, pgd: u64| ValFigures {
        n,
        clean: Accuracy::of(n / 2, n),
        fgsm: Accuracy::of(fgsm, n),
        pgd: Accuracy::of(pgd, n),
    };
    let mut detector = CoDetector::default();
    assert_eq!(
        detector.observe_validation(9, &val(500, 50, 0)),
        None,
        "nothing was there to be lost"
    );
    assert_eq!(detector.observe_validation(19, &val(500, 120, 100)), None);
    assert_eq!(
        detector.observe_validation(29, &val(500, 120, 58)),
        None,
        "within chance of a half"
    );
    let event = detector.observe_validation(39, &val(500, 140, 20)).unwrap();
    assert_eq!((event.step, event.sign, event.from), (39, CoSign::Gap, 0.28));
    assert!(event.sure > 0.99);
    assert_eq!(detector.observe_validation(49, &val(500, 140, 20)), None, "once");
}

#[test]
fn it_goes_on_from_its_state() {
    let level = |step: u64| if step < 60 { 0.9 } else { 0.1 };
    let whole = run(100, level);
    let mut detector = run(50, level);
    for step in 50..100 {
        let json = serde_json::to_string(&detector).unwrap();
        detector = serde_json::from_str(&json).unwrap();
        let value = (level(step) + noise(step, 0.08)) as f32;
        detector.observe(
            &StepLine {
                step,
                pert_align: value,
                linearity: value,
                delta_mean: 0.03,
                lr: 0.1,
                ..StepLine::default()
            },
            0.2,
        );
    }
    assert_eq!(detector, whole);
}
