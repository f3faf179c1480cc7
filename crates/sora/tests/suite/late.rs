//! Figures that come a step late, as a GPU's do: the run is the same, and nothing bad is kept.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use sora::{
    Error, Trainer,
    data::Dataset,
    error::Result,
    method::{
        self, Awaited, Method, MethodInfo, Options, Passes, StepContext, StepOutput, TrainBatch,
    },
    nn::{BnMode, HostTensor},
    run::{self, RunDir, checkpoint, log},
    threat::Norm,
    train::{Event, Observer, Trained},
};

/// Steps that were made so far, by run.
static MADE: Mutex<BTreeMap<u64, u64>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Wanted {
    /// Whether the figures come late.
    late: bool,
    /// Step from which PertAlign is low.
    fall: u64,
    /// Step whose loss is not a number.
    lost: u64,
    /// The run.
    run: u64,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { late: false, fall: u64::MAX >> 1, lost: u64::MAX >> 1, run: 0 }
    }
}

/// FGSM with such figures. `grad_ratio` is the number of steps that were made after this one when its
/// figures were taken.
#[derive(Debug)]
struct Late {
    wanted: Wanted,
    step: u64,
}

impl Method for Late {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let grad = cx.input_gradient(batch.x.clone(), &batch.labels).grad;
        let delta = batch.clamp_to_box(grad.clone().sign() * cx.threat.epsilon);
        let mut out = cx.train(batch, delta, Some(grad))?;
        let Wanted { late, fall, lost, run } = self.wanted;
        let step = self.step;
        self.step += 1;
        MADE.lock().unwrap().insert(run, self.step);
        let mut metrics = out.metrics.wait()?;
        metrics.pert_align = if step < fall { 0.9 } else { 0.05 };
        metrics.linearity = metrics.pert_align;
        if step == lost {
            metrics.loss = f32::NAN;
        }
        let mut taken = move || {
            metrics.grad_ratio = (MADE.lock().unwrap()[&run] - step - 1) as f32;
            Ok(metrics)
        };
        out.metrics = if late { Awaited::coming(taken) } else { Awaited::Known(taken()?) };
        Ok(out)
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        Ok(vec![HostTensor { name: "step".into(), shape: vec![1], data: vec![self.step as f32] }])
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>) -> Result<()> {
        self.step = state["step"].data[0] as u64;
        Ok(())
    }
}

static LATE: MethodInfo = MethodInfo {
    name: "late",
    summary: "-",
    source: "-",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: Passes { forward: 2, backward_input: 1, backward_full: 1 },
    bound: 1.0,
    options: || Options::of(&Wanted::default()),
    build: |options, _| Ok(Box::new(Late { wanted: options.parse("late")?, step: 0 })),
};

/// 6 steps an epoch.
fn trainer<'a>(wanted: &Wanted) -> Trainer<'a> {
    // Other tests may have been here before.
    let _ = method::register(&LATE);
    Trainer::new("late")
        .set("options", toml::Table::try_from(wanted).unwrap())
        .set("dataset", "synthetic")
        .set("image_size", 8)
        .set("limit_train", 260)
        .set("limit_test", 50)
        .set("val", 20)
        .model("preact-resnet18", 4)
        .batch(40)
        .seed(7)
}

fn data() -> Dataset {
    run::open_dataset(&trainer(&Wanted::default()).config().unwrap()).unwrap()
}

fn lines(dir: &Path) -> Vec<log::StepLine> {
    log::Lines::<log::StepLine>::read(&RunDir::at(dir).metrics()).lines
}

/// What does not depend on the clock.
fn records(dir: &Path) -> (Vec<log::StepLine>, Vec<log::EpochLine>) {
    let mut steps = lines(dir);
    for line in &mut steps {
        (line.images_per_s, line.grad_ratio) = (0.0, None);
    }
    let mut epochs = log::Lines::<log::EpochLine>::read(&RunDir::at(dir).epochs()).lines;
    for line in &mut epochs {
        (line.seconds, line.val_seconds, line.peak_rss_mib) = (0.0, 0.0, 0);
    }
    (steps, epochs)
}

fn weights(trained: &Trained) -> Vec<HostTensor> {
    trained.model.to_host().unwrap()
}

fn checkpoints(dir: &Path) -> Vec<u64> {
    let all = checkpoint::list(&RunDir::at(dir).checkpoints()).unwrap();
    all.iter().map(|path| checkpoint::step(path, 6).unwrap()).collect()
}

/// Runs the same with figures that are known and with late ones, each in a folder.
fn both<T>(run: u64, wanted: Wanted, of: impl Fn(Wanted, &Path) -> T) -> [T; 2] {
    [false, true].map(|late| {
        let root = tempfile::tempdir().unwrap();
        of(
            Wanted { late, run: 2 * run + u64::from(late), ..wanted.clone() },
            &root.path().join("run"),
        )
    })
}

#[test]
fn a_run_with_late_figures_leaves_the_same_records() {
    let data = data();
    let [known, late] = both(1, Wanted::default(), |wanted, dir| {
        let run = trainer(&wanted).epochs(3).set("checkpoint_steps", 4).set("val_steps", 9);
        let trained = run.in_dir(dir).fit(&data).unwrap();
        let behind: Vec<f32> = lines(dir).iter().map(|line| line.grad_ratio.unwrap()).collect();
        (weights(&trained), records(dir), behind)
    });
    assert_eq!(known.0, late.0, "the same weights");
    assert_eq!(known.1, late.1, "the same lines");
    assert!(known.1.0.len() == 18 && known.1.0.iter().any(|line| line.val.is_some()));
    assert_eq!(known.2, [0.0; 18]);
    // A step behind, but before a checkpoint (after 4, 8, ...), a validation and the end of an epoch.
    let expected: Vec<f32> = (1..=18)
        .map(|made| f32::from(u8::from(made % 4 != 0 && made % 9 != 0 && made % 6 != 0)))
        .collect();
    assert_eq!(late.2, expected);
}

/// Sets the flag when the figures of a step have come.
struct StopAt<'a>(u64, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn observe(&mut self, event: &Event<'_>) -> Result<()> {
        if let Event::Step(line) = event {
            self.1.fetch_or(line.step == self.0, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[test]
fn a_run_that_is_stopped_takes_its_figures_with_it() {
    let data = data();
    let [whole, stopped] = [false, true].map(|stop| {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("run");
        let wanted = Wanted { late: true, run: 10 + u64::from(stop), ..Wanted::default() };
        if !stop {
            let trained = trainer(&wanted).epochs(2).in_dir(&dir).fit(&data).unwrap();
            return (weights(&trained), records(&dir));
        }
        let flag = AtomicBool::new(false);
        let run = trainer(&wanted).epochs(2).in_dir(&dir).observe(StopAt(1, &flag));
        let error = run.interrupt(&flag).fit(&data).unwrap_err();
        assert!(matches!(error, Error::Interrupted { step: 3, .. }), "{error}");
        assert_eq!((lines(&dir).len(), checkpoints(&dir)), (3, vec![3]), "all that was made");
        let trained = Trainer::resume(&dir, None).unwrap().fit(&data).unwrap();
        (weights(&trained), records(&dir))
    });
    assert_eq!(whole, stopped);
}

#[test]
fn a_run_that_diverges_names_the_step_and_keeps_nothing_behind_it() {
    let data = data();
    // In the middle, right before a checkpoint, and in the last step of an epoch.
    for (lost, kept) in [(7, vec![3, 6]), (8, vec![3, 6]), (11, vec![3, 6, 9])] {
        let wanted = Wanted { lost, ..Wanted::default() };
        let found = both(10 + lost, wanted, |wanted, dir| {
            let run = trainer(&wanted).epochs(3).set("checkpoint_steps", 3).set("keep", 9);
            let error = run.in_dir(dir).fit(&data).unwrap_err();
            let Error::Diverged { step, last_good, .. } = error else { panic!("{error}") };
            assert!(last_good.is_some() && !RunDir::at(dir).model().exists());
            (step, checkpoints(dir), records(dir))
        });
        for (step, checkpoints, (lines, epochs)) in &found {
            assert_eq!((*step, checkpoints, lines.len() as u64), (lost, &kept, lost));
            assert_eq!(epochs.len(), 1);
        }
        assert_eq!(found[0], found[1]);
    }
}

#[test]
fn a_rollback_and_a_stop_are_a_step_later_and_end_alike() {
    let data = data();
    let wanted = Wanted { fall: 40, ..Wanted::default() };
    let [known, late] = both(30, wanted.clone(), |wanted, dir| {
        let run = trainer(&wanted).epochs(9).set("checkpoint_steps", 4).set("on_co", "rollback");
        let trained = run.in_dir(dir).fit(&data).unwrap();
        let abandoned = fs::read_to_string(dir.join("abandoned.jsonl")).unwrap().lines().count();
        let passes = trained.summary.passes.forward;
        let (steps, _) = records(dir);
        assert!(trained.summary.rollback.is_some());
        ((weights(&trained), steps, abandoned), passes)
    });
    assert_eq!(known.0, late.0);
    assert_eq!(known.1 + 2, late.1, "one step more was made, and is paid for");
    let [known, late] = both(31, wanted, |wanted, dir| {
        let run = trainer(&wanted).epochs(9).set("on_co", "stop").in_dir(dir);
        let Error::CoStopped { event, .. } = run.fit(&data).unwrap_err() else { panic!() };
        let made = lines(dir).len() as u64;
        assert_eq!(checkpoints(dir).last(), Some(&made), "the log goes as far as the checkpoint");
        (event.step, made)
    });
    assert_eq!((known.0, known.1), (late.0, known.0 + 1), "noticed in the same step");
    assert_eq!(late.1, known.1 + 1);
}
