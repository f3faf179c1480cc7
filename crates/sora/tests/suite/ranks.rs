//! Several ranks, here threads of one process, train as one process does.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use burn::tensor::{Device, Int, Tensor};
use sora::{
    Error, Result, Trainer,
    data::{self, Dataset, OpenOptions},
    evaluate::{self, EvalConfig},
    gradient::train_gradient,
    method::{METHODS, MethodInfo},
    model::{Model, ModelConfig, NetworkOptions, Shape},
    nn::{BatchPart, HostTensor},
    ranks::{BatchNormScope, Counted, Ranks},
    run::{self, RunDir, log},
    threat::Norm,
    train::{Communicator, Event, Observer, OtherWorld, Threads},
};

use crate::support::{SIDE, assert_close, batch, host, threat};

/// What `work` gives on every rank of a world of `world`.
fn on_ranks<T: Send>(world: usize, work: impl Fn(Arc<dyn Communicator>) -> T + Sync) -> Vec<T> {
    on_ranks_of(1, world, work)
}

/// The same, with `threads` for each rank.
fn on_ranks_of<T: Send>(
    threads: usize,
    world: usize,
    work: impl Fn(Arc<dyn Communicator>) -> T + Sync,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let spawn = |link: Threads| {
            scope.spawn(move || {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| work(Arc::new(link)))
            })
        };
        let threads: Vec<_> = Threads::of(world).into_iter().map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn network(name: &str, dropout: f32) -> Model {
    // The transformer's is a multiple of its heads.
    network_of_width(name, if name == "vit-tiny" { 12 } else { 8 }, dropout)
}

fn network_of_width(name: &str, width: usize, dropout: f32) -> Model {
    let config = ModelConfig {
        name: name.into(),
        width,
        shape: Shape { channels: 3, height: SIDE, width: SIDE, classes: 10 },
        mean: vec![0.5; 3],
        std: vec![0.25; 3],
        options: NetworkOptions { dropout, ..Default::default() },
        onnx: None,
    };
    Model::init(config, 5, &Device::flex()).unwrap()
}

/// Gradients of weights and images, logits and running statistics of a training pass over a part
/// of 16 images.
fn pass(name: &str, dropout: f32, ranks: &Arc<Ranks>) -> [Vec<f32>; 4] {
    pass_of(network(name, dropout), ranks)
}

fn pass_of(mut model: Model, ranks: &Arc<Ranks>) -> [Vec<f32>; 4] {
    let whole = batch(16);
    let (rank, world) = (ranks.link().rank(), ranks.world());
    let images = 16 / world;
    let part = rank * images..(rank + 1) * images;
    let x: Tensor<4> = whole.x.clone().slice_dim(0, part.clone());
    let labels: Tensor<1, Int> = whole.labels.clone().slice_dim(0, part);
    model.begin_step_of(3, 7, BatchPart { rank, world, images });
    ranks
        .enter(|| {
            let mut out = train_gradient(&model, x, labels);
            model.absorb(std::mem::take(&mut out.stats));
            let buffers = model.buffers.to_host().unwrap();
            [
                out.params.iter().flat_map(host).collect(),
                host(&out.input),
                host(&out.logits),
                buffers.into_iter().flat_map(|tensor| tensor.data).collect(),
            ]
        })
        .unwrap()
}

#[test]
fn gradients_of_a_shared_batch_are_those_of_one_process() {
    let networks =
        [("preact-resnet18", 0.0), ("wideresnet-28-10", 0.3), ("senet18", 0.0), ("vit-tiny", 0.2)];
    for (name, dropout) in networks {
        let [weights, images, logits, buffers] = pass(name, dropout, &Ranks::alone());
        for world in [2, 4] {
            let found = on_ranks(world, |link| {
                pass(name, dropout, &Ranks::new(link, BatchNormScope::Sync))
            });
            let what = |part: &str| format!("{name}, {world} ranks: {part}");
            for [of_weights, _, _, of_buffers] in &found {
                assert_eq!(*of_weights, found[0][0], "{}", what("the same bits on every rank"));
                assert_close(&what("weights"), of_weights, &weights, 1e-5);
                assert_close(&what("running statistics"), of_buffers, &buffers, 1e-5);
            }
            let together = |k: usize| found.iter().flat_map(|part| part[k].clone()).collect();
            let (of_images, of_logits): (Vec<f32>, Vec<f32>) = (together(1), together(2));
            assert_close(&what("images"), &of_images, &images, 1e-5);
            assert_close(&what("logits"), &of_logits, &logits, 1e-5);
        }
    }
}

#[test]
fn gradients_that_are_summed_during_the_backward_pass_have_the_same_bits() {
    // Weights of several buckets of a mebibyte, and of less than one.
    for (name, width) in [("preact-resnet18", 24), ("vit-tiny", 12)] {
        for (world, norm) in [(2, BatchNormScope::Sync), (4, BatchNormScope::Local)] {
            let found = on_ranks(world, |link| {
                let in_turn = pass_of(
                    network_of_width(name, width, 0.0),
                    &Ranks::new(Arc::clone(&link), norm),
                );
                let link = Arc::new(Counted::new(link));
                let ranks = Ranks::overlapping(link.clone(), norm).unwrap();
                // A second pass follows the first.
                let both = [(); 2].map(|()| pass_of(network_of_width(name, width, 0.0), &ranks));
                assert!(both.iter().all(|pass| *pass == in_turn), "{name}, {world} ranks");
                assert!(!ranks.take_window().is_zero() && ranks.take_window().is_zero());
                link.take()[1]
            });
            // Every rank sends the others' parts of all gradients, and its sums, in both passes.
            let weights = network_of_width(name, width, 0.0).params.to_host().unwrap();
            let bytes = |tensor: &HostTensor| tensor.data.len() as u64 * 4;
            let large = weights.iter().filter(|tensor| tensor.shape.len() > 1).map(bytes);
            let expected = 2 * 2 * large.sum::<u64>() * (world as u64 - 1) / world as u64;
            for traffic in found {
                assert!(traffic.sent.abs_diff(expected) < expected / 5, "{traffic:?}, {expected}");
                let buckets = if width == 24 { 3 } else { 1 };
                assert!(traffic.calls >= 2 * 2 * buckets, "{traffic:?}");
                // Their parts are added up and shared, in two calls that are one sum.
                assert_eq!(traffic.calls, 2 * traffic.sums, "{traffic:?}");
                let sent = 2 * traffic.summed * (world as u64 - 1) / world as u64;
                assert_eq!(traffic.sent, sent, "{traffic:?}");
            }
        }
    }
}

#[test]
fn a_training_with_a_thread_to_spare_for_sums_has_the_same_bits() {
    let data = data();
    // The second has a weight perturbation: two backward passes a step.
    for awp in [0.0, 0.01] {
        let weights = |threads: usize| {
            on_ranks_of(threads, 2, |link| {
                let link = Arc::new(Counted::new(link));
                let trainer = trainer("sora").set("awp", awp).epochs(1);
                let trained = trainer.communicator(link.clone()).fit(&data).unwrap();
                assert_eq!(link.take()[1].calls > 0, threads > 1, "summed beside the pass");
                trained.model.to_host().unwrap()
            })
        };
        assert_eq!(weights(1), weights(2));
    }
}

#[test]
fn a_rank_that_fails_ends_those_that_wait_for_its_gradients() {
    let ended = on_ranks(2, |link| {
        let failed = link.rank() == 1;
        let ranks = Ranks::overlapping(link, BatchNormScope::Local).unwrap();
        let model = network("preact-resnet18", 0.0);
        let batch = batch(4);
        let pass = || ranks.enter(|| train_gradient(&model, batch.x.clone(), batch.labels.clone()));
        // The second leaves after the first pass.
        pass().is_ok() && (failed || matches!(pass(), Err(Error::Ranks(_))))
    });
    assert_eq!(ended, [true, true]);
}

/// A link whose second link breaks at the call `after`.
#[derive(Debug)]
struct Breaks {
    link: Arc<dyn Communicator>,
    second: bool,
    after: usize,
    calls: AtomicUsize,
}

impl Breaks {
    fn new(link: Arc<dyn Communicator>, second: bool, after: usize) -> Arc<Self> {
        Arc::new(Self { link, second, after, calls: AtomicUsize::new(0) })
    }

    fn count(&self) -> Result<()> {
        let broken = self.second && self.calls.fetch_add(1, Ordering::Relaxed) >= self.after;
        if broken { Err(Error::Ranks("the link is broken".into())) } else { Ok(()) }
    }
}

impl Communicator for Breaks {
    fn rank(&self) -> usize {
        self.link.rank()
    }
    fn world(&self) -> usize {
        self.link.world()
    }
    fn gather(&self, mine: &[u8]) -> Result<Vec<u8>> {
        self.count()?;
        self.link.gather(mine)
    }
    fn exchange(&self, mine: &[u8]) -> Result<Vec<u8>> {
        self.count()?;
        self.link.exchange(mine)
    }
    fn second(&self) -> Result<Option<Arc<dyn Communicator>>> {
        let second = self.link.second()?;
        Ok(second.map(|link| Self::new(link, true, self.after) as Arc<dyn Communicator>))
    }
}

#[test]
fn a_link_that_breaks_while_buckets_are_under_way_ends_the_pass_of_all() {
    // A bucket takes two calls.
    for after in [0, 1, 2, 3] {
        let ended = on_ranks(2, |link| {
            let after = if link.rank() == 1 { after } else { usize::MAX };
            let link = Breaks::new(link, false, after);
            let ranks = Ranks::overlapping(link, BatchNormScope::Local).unwrap();
            let model = network_of_width("preact-resnet18", 24, 0.0);
            let batch = batch(4);
            let pass =
                ranks.enter(|| train_gradient(&model, batch.x.clone(), batch.labels.clone()));
            matches!(pass, Err(Error::Ranks(_)))
        });
        assert_eq!(ended, [true, true], "after {after} calls");
    }
}

#[test]
fn local_statistics_are_each_ranks_own_and_weights_stay_the_same_everywhere() {
    let found =
        on_ranks(2, |link| pass("preact-resnet18", 0.0, &Ranks::new(link, BatchNormScope::Local)));
    assert_eq!((&found[0][0], &found[0][3]), (&found[1][0], &found[1][3]));
    // Half a batch normalises by itself what the whole does together.
    let whole = pass("preact-resnet18", 0.0, &Ranks::alone());
    let first = found[0][2].iter().zip(&whole[2]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(first > 1e-3, "{first}");
}

fn trainer<'a>(method: &str) -> Trainer<'a> {
    Trainer::new(method)
        .set("dataset", "synthetic")
        .set("image_size", SIDE as i64)
        .set("limit_train", 84)
        .set("limit_test", 20)
        .set("val", 20)
        .set("schedule", "constant")
        .set("lr_max", 0.05)
        .model("preact-resnet18", 4)
        .batch(16)
        .seed(7)
}

fn data() -> Dataset {
    run::open_dataset(&trainer("sora").config().unwrap()).unwrap()
}

/// Keeps the lines of the steps.
struct Steps<'a>(&'a mut Vec<log::StepLine>);

impl Observer for Steps<'_> {
    fn observe(&mut self, event: &Event<'_>) -> Result<()> {
        if let Event::Step(line) = event {
            self.0.push((*line).clone());
        }
        Ok(())
    }
}

type Ran = (Vec<log::StepLine>, Vec<HostTensor>);

/// Trains one epoch of 4 batches on each of `world` ranks.
fn ran(world: usize, data: &Dataset, make: impl Fn() -> Trainer<'static> + Sync) -> Vec<Ran> {
    on_ranks(world, |link| {
        let mut steps = Vec::new();
        let trained = make().epochs(1).communicator(link).observe(Steps(&mut steps)).fit(data);
        let weights = trained.unwrap().model.to_host().unwrap();
        (steps, weights)
    })
}

/// The figures of a step that do not depend on the clock.
fn figures(line: &log::StepLine) -> [f32; 9] {
    [
        line.loss,
        line.adv_acc,
        line.alpha,
        line.linearity,
        line.pert_align,
        line.delta_mean,
        line.linearity_of_sums.unwrap(),
        line.grad_ratio.unwrap(),
        line.abnormal.unwrap_or_default(),
    ]
}

/// A trainer of the method, with the options under which what it shares counts from the first step
/// on.
fn trainer_of(method: &str) -> Trainer<'static> {
    let (name, value) = match method {
        "nuat" => ("variant", toml::Value::from("reference")),
        "atas" => ("warmup", 0.into()),
        _ => return trainer(method),
    };
    trainer(method).set("options", toml::Table::from_iter([(name.to_owned(), value)]))
}

/// The norm that `info` is tried in.
fn norm_of(info: &MethodInfo) -> &'static str {
    if info.norms.contains(&Norm::Linf) { "linf" } else { "l2" }
}

/// A wrong factor of a term of the loss, or of its gradient, is seen in the weights after one step of
/// plain SGD at once.
#[test]
fn the_first_step_of_every_method_moves_the_weights_as_in_one_process() {
    for info in METHODS {
        let make = || {
            let plain = trainer_of(info.name).set("norm", norm_of(info)).set("limit_train", 36);
            plain.set("momentum", 0.0).set("weight_decay", 0.0).set("cycle_momentum", false)
        };
        let data = run::open_dataset(&make().config().unwrap()).unwrap();
        let (steps, alone) = ran(1, &data, make).remove(0);
        let (_, still) = ran(1, &data, || make().set("lr_max", 1e-30)).remove(0);
        assert!(steps.len() <= 8, "{}: {} steps", info.name, steps.len());
        let found = ran(2, &data, make).remove(0).1;
        let moves = |weights: &[HostTensor]| -> Vec<f64> {
            let each = weights.iter().zip(&still).filter(|(w, _)| !w.name.contains("running_"));
            each.flat_map(|(a, b)| a.data.iter().zip(&b.data))
                .map(|(a, b)| f64::from(*a) - f64::from(*b))
                .collect()
        };
        let (alone, found) = (moves(&alone), moves(&found));
        let length = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
        let off = length(&mut alone.iter().zip(&found).map(|(a, b)| a - b));
        let whole = length(&mut alone.iter().copied());
        assert!(whole > 1e-2 && off < 1e-4 * whole, "{}: {off:e} of {whole:e}", info.name);
    }
}

/// A graph has no statistics of a batch; its gradients are summed as those of other networks.
#[test]
fn the_graph_of_an_onnx_file_trains_as_in_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.onnx");
    fs::write(&file, crate::imported::values("pre-activation.model")).unwrap();
    let make = || {
        let settings = [("dataset", "synthetic"), ("schedule", "constant")];
        let sizes = [("image_size", 16), ("limit_train", 84), ("limit_test", 20), ("val", 20)];
        let begun = Trainer::new("sora").set("init", file.to_str().unwrap()).batch(16).seed(7);
        let begun = begun.set("lr_max", 0.01).set("momentum", 0.0).set("cycle_momentum", false);
        let begun = settings.into_iter().fold(begun, |begun, (name, value)| begun.set(name, value));
        sizes.into_iter().fold(begun, |begun, (name, value)| begun.set(name, value))
    };
    let data = run::open_dataset(&make().config().unwrap()).unwrap();
    let (steps, alone) = ran(1, &data, make).remove(0);
    let found = ran(2, &data, make);
    assert_eq!(found[0].1, found[1].1, "the same weights on every rank");
    for (a, b) in steps.iter().zip(&found[0].0) {
        assert!((a.loss - b.loss).abs() < 1e-4 * a.loss, "{} and {}", a.loss, b.loss);
    }
    for (a, b) in alone.iter().zip(&found[0].1) {
        let most = a.data.iter().fold(1e-2f32, |m, v| m.max(v.abs()));
        let off = a.data.iter().zip(&b.data).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(off < 1e-3 * most, "{}: {off:e} of {most:e}", a.name);
    }
}

#[test]
fn every_method_begins_alike_in_one_process_and_in_several() {
    let data = data();
    for info in METHODS {
        let make = || trainer_of(info.name).set("norm", norm_of(info));
        let (alone, _) = ran(1, &data, make).remove(0);
        let worlds = if info.name == "sora" { [2, 4].as_slice() } else { &[2] };
        for &world in worlds {
            let found = ran(world, &data, make);
            let (steps, weights) = &found[0];
            for (other, theirs) in &found[1..] {
                assert_eq!(weights, theirs, "{}: the same weights on every rank", info.name);
                let same = other.iter().zip(steps).all(|(a, b)| figures(a) == figures(b));
                assert!(same, "{}: the same figures on every rank", info.name);
            }
            for step in [0, 1] {
                let what = format!("{}, {world} ranks, step {step}", info.name);
                assert_alike(&what, step, figures(&steps[step]), figures(&alone[step]));
            }
        }
    }
}

/// Rounding is amplified by training: another instruction set moves the loss of this network's step
/// 1 by 1e-3, its linearity by 7e-3, and may decide an image or two of the 16. A wrong sum is off by
/// much more at once.
fn assert_alike(what: &str, step: usize, found: [f32; 9], alone: [f32; 9]) {
    let [of_loss, of_others] = [[1e-4, 2e-3], [1e-2, 2e-1]][step];
    for (figure, (a, b)) in found.iter().zip(&alone).enumerate() {
        let tolerance = if figure == 0 { of_loss } else { of_others };
        let counts_images = matches!(figure, 1 | 8) && step > 0;
        let images = if counts_images { 2.0 / 16.0 } else { 0.0 };
        let allowed = tolerance * b.abs().max(0.1) + images;
        assert!((a - b).abs() <= allowed, "{what}, figure {figure}: {a}, alone {b}");
    }
}

#[test]
fn extras_of_a_training_are_shared_too() {
    let data = data();
    let make = || {
        trainer("sora")
            .set("awp", 0.01)
            .set("ema", 0.5)
            .set("clip_grad", 1.0)
            .set("accumulate", 2)
            .set("label_smoothing", 0.1)
            .set("precision", "bf16")
    };
    let (alone, _) = ran(1, &data, make).remove(0);
    let found = ran(2, &data, make);
    assert_eq!(found[0].1, found[1].1);
    let (loss, expected) = (found[0].0[0].loss, alone[0].loss);
    assert!((loss - expected).abs() < 1e-2 * expected, "{loss}, alone {expected}");
    assert_eq!(found[0].1, ran(2, &data, make)[0].1, "the same bits every time");
}

#[test]
fn extra_data_are_shared_too() {
    let data = data();
    let make = || trainer("sora").set("extra_data", "synthetic:200").set("extra_fraction", 0.25);
    let (alone, weights_alone) = ran(1, &data, make).remove(0);
    assert_ne!(weights_alone, ran(1, &data, || trainer("sora"))[0].1, "they count");
    for world in [2, 4] {
        let found = ran(world, &data, make);
        assert!(found.iter().all(|(steps, weights)| {
            *weights == found[0].1 && steps.len() == alone.len() && steps.len() == 5
        }));
        for step in [0, 1] {
            let what = format!("extra data, {world} ranks, step {step}");
            assert_alike(&what, step, figures(&found[0].0[step]), figures(&alone[step]));
        }
        assert_eq!(found[0].1, ran(world, &data, make)[0].1, "the same bits every time");
    }
    let data = &data;
    let text = |set: &(dyn Fn(usize) -> Trainer<'static> + Sync)| {
        on_ranks(2, |link| {
            set(link.rank()).epochs(1).communicator(link).fit(data).unwrap_err().to_string()
        })
    };
    let texts = text(&|_| make().set("drop_last", false));
    assert!(
        texts.iter().all(|text| text.contains("with extra images the last batch")),
        "{texts:?}"
    );
    let texts = text(&|rank| make().set("extra_fraction", 0.25 + 0.25 * rank as f64));
    assert!(texts.iter().all(|text| text.contains("differ in their settings")), "{texts:?}");
}

/// Sets the flag when a step is done.
struct StopAt<'a>(u64, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn observe(&mut self, event: &Event<'_>) -> Result<()> {
        if let Event::Step(line) = event {
            self.1.fetch_or(line.step == self.0, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A run of 2 epochs in `dir`, stopped by its second rank after step `step`.
fn stopped(dir: &Path, method: &str, data: &Dataset, world: usize, step: u64) {
    for error in on_ranks(world, |link| {
        let (flag, second) = (AtomicBool::new(false), link.rank() + 1 == world);
        let trainer = trainer(method).epochs(2).in_dir(dir).communicator(link).interrupt(&flag);
        let trainer = if second { trainer.observe(StopAt(step, &flag)) } else { trainer };
        trainer.fit(data).unwrap_err()
    }) {
        assert!(matches!(error, Error::Interrupted { .. }), "{error}");
    }
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bits() {
    let (root, data) = (tempfile::tempdir().unwrap(), data());
    // A place in the batch, a value for each image, a running figure.
    for method in ["free", "atas", "fgsm-pgi", "sora"] {
        let [whole, broken] = ["whole", "broken"].map(|kind| root.path().join(method).join(kind));
        let fit = |dir: &Path, link| trainer(method).epochs(2).in_dir(dir).communicator(link);
        on_ranks(2, |link| drop(fit(&whole, link).fit(&data).unwrap()));
        stopped(&broken, method, &data, 2, 5);
        on_ranks(2, |link| {
            let trainer = Trainer::resume(&broken, None).unwrap().communicator(link);
            drop(trainer.fit(&data).unwrap());
        });
        let read = |dir: &Path, file: &str| fs::read(dir.join(file)).unwrap();
        for file in ["model.safetensors", "best.safetensors", "config.toml"] {
            assert_eq!(read(&whole, file), read(&broken, file), "{method} {file}");
        }
        let lines = |dir| log::Lines::<log::StepLine>::read(&RunDir::at(dir).metrics()).lines;
        let (whole, broken) = (lines(&whole), lines(&broken));
        assert!(whole.len() == broken.len() && whole.len() >= 8, "{method}");
        assert!(whole.iter().zip(&broken).all(|(a, b)| figures(a) == figures(b)), "{method}");
    }
}

#[test]
fn another_number_of_processes_is_refused_or_written_down() {
    let (root, data) = (tempfile::tempdir().unwrap(), data());
    let dir = root.path().join("run");
    stopped(&dir, "sora", &data, 2, 5);
    let text = Trainer::resume(&dir, None).unwrap().fit(&data).unwrap_err().to_string();
    assert!(text.starts_with("processes 1: the run began with 2"), "{text}");
    let texts = on_ranks(4, |link| {
        Trainer::resume(&dir, None).unwrap().communicator(link).fit(&data).unwrap_err().to_string()
    });
    assert!(texts.iter().all(|text| text.contains("began with 2")), "{texts:?}");
    let trainer = Trainer::resume(&dir, None).unwrap().other_world(OtherWorld::Allow);
    trainer.fit(&data).unwrap();
    let (_, config) = RunDir::open(&dir).unwrap();
    assert_eq!((config.world, config.worlds), (1, vec![2]));
    let text = fs::read_to_string(dir.join("config.toml")).unwrap();
    assert!(text.contains("worlds = [2]") && !text.contains("world = "), "{text}");
}

#[test]
fn a_shared_evaluation_finds_what_one_process_does() {
    let data = data();
    let model = trainer("none").epochs(1).fit(&data).unwrap().model.in_f32();
    let config = EvalConfig::under(threat(Norm::Linf));
    let names = ["clean", "fgsm", "pgd-10", "square-20"];
    let counts = |outcome: evaluate::Outcome| -> Vec<_> {
        let of = |(name, result): (String, evaluate::AttackResult)| {
            (name, result.correct, result.attacked, result.by_class)
        };
        outcome.results.0.into_iter().map(of).collect()
    };
    let alone = counts(evaluate::evaluate(&model, &data.test, &names, config).unwrap());
    for world in [2, 3] {
        let found = on_ranks(world, |link| {
            let shared = evaluate::evaluate_shared(&*link, &model, &data.test, &names, config);
            counts(shared.unwrap())
        });
        assert!(found.iter().all(|found| *found == alone), "{world}: {found:?}, alone {alone:?}");
    }
}

#[test]
fn what_ranks_cannot_share_or_do_not_agree_on_is_refused_on_each() {
    let (data, root) = (data(), tempfile::tempdir().unwrap());
    let refused = |world: usize, make: &(dyn Fn(usize) -> Trainer<'static> + Sync)| {
        on_ranks(world, |link| {
            let dir = root.path().join("run");
            let trainer = make(link.rank()).epochs(1).in_dir(dir);
            trainer.communicator(link).fit(&data).unwrap_err().to_string()
        })
    };
    let all = |texts: Vec<String>, part: &str| {
        assert!(texts.iter().all(|text| text.contains(part)), "{part}: {texts:?}");
    };
    all(refused(3, &|_| trainer("sora")), "choose a multiple of 3, such as 15");
    // 64 training images and batches of 12: the last has 4, which 3 processes cannot share.
    all(refused(3, &|_| trainer("sora").batch(12).set("drop_last", false)), "the last batch");
    all(
        refused(2, &|rank| trainer("sora").set("lr_max", 0.05 + rank as f64)),
        "differ in their settings",
    );
    // One rank alone fails: the others are told which, and why.
    let texts = refused(2, &|rank| trainer(if rank == 1 { "sora" } else { "pgd" }));
    all(texts, "differ in their settings");
    let texts = refused(2, &|rank| trainer("sora").set("val", if rank == 1 { 84 } else { 20 }));
    assert!(texts[0].starts_with("process 1 of 2: val 84"), "{texts:?}");
    assert!(texts[1].starts_with("val 84"), "{texts:?}");
    assert!(!root.path().join("run").exists(), "nothing was made");
    // Other images on one of them.
    let options = OpenOptions {
        image_size: Some(SIDE),
        limit_train: Some(84),
        limit_test: Some(20),
        seed: 1,
        ..Default::default()
    };
    let other = data::open("synthetic", &options).unwrap();
    let texts = on_ranks(2, |link| {
        let data = if link.rank() == 0 { &data } else { &other };
        trainer("sora").epochs(1).communicator(link).fit(data).unwrap_err().to_string()
    });
    all(texts, "differ in their training images");
}
