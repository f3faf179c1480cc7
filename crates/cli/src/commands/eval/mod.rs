//! `sora eval`: accuracy, clean and under attack.

mod model_info;
mod protocol;
mod show;

use std::path::PathBuf;

use protocol::{Protocol, Suite};
use sora::{
    attack::{self, Entry},
    evaluate::{EvalConfig, Evaluator, Identity, Linked, Outcome, Pixels, Report},
    nn::{self, Precision},
    robustness::{Classifier, Corruption, NotOf, Samples, Toward},
};

use model_info::ModelInfo;

use super::shared::{SubjectArgs, Target, state_options};
use crate::{
    complete,
    console::print_json,
    error::{Failure, Result},
    finish::OnFinish,
    output_file::{self, Content, Overwrite},
    progress::EvaluationBar,
    values::{PRECISIONS, one_of},
    world,
};

/// What is evaluated and how.
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// Attacks, in order: clean, fgsm, pgd-10, pgd-50x10, autoattack, ...; see `sora attacks`
    /// [default: clean,fgsm,pgd-10; clean,apgd-ce in l1; clean alone with --corruptions; of a model
    /// without gradients, as --suite quick]
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMES",
        add = complete::attacks(),
        help_heading = "Threat"
    )]
    pub attacks: Vec<String>,
    /// A protocol instead of --attacks
    #[arg(long, value_enum, conflicts_with = "attacks", help_heading = "Threat")]
    pub suite: Option<Suite>,
    /// Accuracy under common corruptions as well, severities 1 to 5 of CIFAR-10-C: all, or names
    /// such as fog, blur, gaussian-noise
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMES",
        add = complete::corruptions(),
        conflicts_with = "target",
        help_heading = "Threat"
    )]
    pub corruptions: Vec<String>,
    /// Attack towards one class, by number or name: an image stands while it is not called that
    #[arg(long, value_name = "CLASS", help_heading = "Threat")]
    pub target: Option<String>,
    /// Round adversarial images to eight bits a value, as files hold them, before they are scored
    #[arg(long, help_heading = "Threat")]
    pub eight_bit: bool,
    /// Precision in which attacks search, if not f32: bf16 is faster. What they find is scored in
    /// f32, and what only the search takes for fooled is attacked again in f32
    #[arg(long, value_parser = one_of::<Precision>(PRECISIONS), help_heading = "Threat")]
    pub attack_precision: Option<Precision>,
    /// The record, in place of a file in the run's eval folder
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Also write RobustBench's entry, model_info/DATASET/NORM/NAME.json; fields that are the
    /// authors' own stay as they are in a file that is there
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["limit", "target", "eight_bit"],
        help_heading = "Output"
    )]
    pub model_info: Option<String>,
    /// Overwrite --out whatever it is
    #[arg(long, help_heading = "Output")]
    pub force: bool,
    /// Keep adversarial examples: an npz archive and a picture for each attack, in the run's eval
    /// folder or beside the weights file
    #[arg(long, help_heading = "Output")]
    pub save_adv: bool,
    /// Where an evaluation that is cut off is remembered [default: the run's eval folder, or
    /// beside the weights file]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub state: Option<PathBuf>,
    /// Forget an earlier evaluation that was cut off
    #[arg(long, help_heading = "Output")]
    pub fresh: bool,
    /// One JSON object on standard output
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    #[command(flatten)]
    pub finish: OnFinish,
}

/// Measures a run, a weights file, an ONNX file or a model that runs elsewhere.
pub fn run(args: EvalArgs) -> Result<()> {
    args.finish.after(|| evaluate(&args))
}

fn evaluate(args: &EvalArgs) -> Result<()> {
    let corruptions = match &args.corruptions[..] {
        [] => Vec::new(),
        names => Corruption::list(names).map_err(sora::Error::from)?,
    };
    let link = world::link();
    if args.save_adv && link.world() > 1 {
        let problem = "--save-adv: works in one process; the examples would be spread over several";
        return Err(Failure::input(problem));
    }
    if let Some(out) = args.out.as_ref().filter(|_| world::first()) {
        output_file::prepare(out, Content::Record, Overwrite::by(args.force))?;
    }
    let target = Target::load(&args.subject, args.suite.and_then(Suite::images))?;
    let protocol = protocol(args, &target)?;
    let entries = attack::entries(&protocol.names, target.threat.norm)?;
    let model_info = args
        .model_info
        .as_deref()
        .map(|name| model_info(name, &target, &protocol.names))
        .transpose()?;
    let precision = args.attack_precision.filter(|&precision| precision != Precision::F32);
    let near = precision.map(|precision| target.subject.computed_in(precision)).transpose()?;
    let goal = args.target.as_deref().map(|class| class_of(class, &target)).transpose()?;
    let toward = goal.map(|class| Toward::new(target.model(), class)).transpose()?;
    let near = near.as_ref().map(|model| model as &dyn Classifier);
    let near_toward = near.zip(goal).map(|(near, class)| Toward::new(near, class)).transpose()?;
    let near = near_toward.as_ref().map(|toward| toward as &dyn Classifier).or(near);
    let others = goal.map(|class| NotOf::new(&target.split, class));
    let model: &dyn Classifier = toward.as_ref().map_or(target.model(), |toward| toward);
    let samples: &dyn Samples = others.as_ref().map_or(&target.split, |others| others);
    let identity = identity(args, &target, goal, precision);

    attack::allowed(&entries, model.access())?;
    let examples = args.save_adv.then(|| model.shape().pixels());
    let options = state_options(args.fresh, examples);
    let ledger = target.ledger(args.state.as_deref(), &identity, options)?;
    let pixels = if args.eight_bit { Pixels::EightBit } else { Pixels::Any };
    let config = EvalConfig { pixels, ..target.config() };
    world::same_everywhere("network or data set", &identity.digest())?;
    let peers = Linked(&*link);
    let mut evaluator = Evaluator::new(model, samples, config, ledger)?
        .predict_by(target.model())
        .share(&peers)
        .observe(EvaluationBar::new(target.plan(&[&entries])?));
    if let (Some(near), Some(precision)) = (near, precision) {
        evaluator = evaluator.search_on(near, precision)?;
    }
    let mut outcome = evaluator.run(&entries)?;
    let corrupted = match &corruptions[..] {
        [] => None,
        list => Some(evaluator.corrupted(list)?),
    };
    explain(&mut outcome, &target, protocol, goal)?;
    let mut identity = identity.with_attacks(&entries);
    identity.attacks.extend(corruptions.iter().map(|one| format!("corruption {one}")));
    let mut report = Report::new(identity, outcome).on_corrupted(corrupted);
    report.n = samples.len() as u64;
    report.split_sha256.clone_from(&target.split_sha256);
    log_memory();
    tell_and_keep(args, &target, evaluator, &entries, &report, model_info)
}

/// The entry `name` of RobustBench, which is of all test images.
fn model_info(name: &str, target: &Target, attacks: &[String]) -> Result<ModelInfo> {
    if let Some((_, run)) = target.subject.run()
        && let Some(limit) = run.settings.limit_test
    {
        return Err(Failure::input(format!(
            "--model-info: this run has {limit} test images (limit_test), an entry is of all; \
             export the weights and measure the exported file"
        )));
    }
    ModelInfo::open(name, attacks, &target.dataset, target.threat.norm)
}

/// The target's identity with what this call adds to it.
fn identity(
    args: &EvalArgs,
    target: &Target,
    goal: Option<usize>,
    precision: Option<Precision>,
) -> Identity {
    let mut identity = target.identity.clone();
    identity.options.extend(goal.map(|class| format!("target {class}")));
    identity.options.extend(args.eight_bit.then(|| "eight-bit".to_owned()));
    identity.options.extend(precision.map(|precision| format!("attacks in {precision}")));
    identity
}

/// The attacks that were asked for; corruptions alone bring no attack with them.
fn protocol(args: &EvalArgs, target: &Target) -> Result<Protocol> {
    let named = if args.attacks.is_empty() && args.suite.is_none() && !args.corruptions.is_empty() {
        &["clean".to_owned()]
    } else {
        &args.attacks[..]
    };
    Protocol::choose(named, args.suite, target.model().access(), target.threat.norm)
}

/// Adds what a reader of the figures has to know.
fn explain(
    outcome: &mut Outcome,
    target: &Target,
    protocol: Protocol,
    goal: Option<usize>,
) -> Result<()> {
    outcome.warnings.extend(target.probe()?);
    if let (Some(clean), None) = (outcome.results.get("clean"), goal) {
        outcome.warnings.extend(target.subject.warn_of_units(clean.correct, clean.attacked));
    }
    outcome.notes.extend(protocol.note);
    outcome.notes.extend(protocol::upper_bound(&protocol.names, target.model().access()));
    target.subject.add_cost(outcome);
    outcome.notes.extend(goal.map(|class| {
        format!(
            "an image counts as standing while the network does not call it class {class}; images \
             of that class are left out"
        )
    }));
    Ok(())
}

/// Shows the results, before a failure to store them can end the command, then stores them.
fn tell_and_keep(
    args: &EvalArgs,
    target: &Target,
    mut evaluator: Evaluator<'_>,
    entries: &[Entry],
    report: &Report,
    model_info: Option<ModelInfo>,
) -> Result<()> {
    let shown = if args.json { print_json(report) } else { show::show(report, &target.epsilon) };
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    let stem = report.file_stem(&protocol_name(args.suite));
    let kept = target.keep(&stem, args.out.as_deref(), report);
    let saved = if args.save_adv { save(target, &mut evaluator, entries, report) } else { Ok(()) };
    kept?;
    saved?;
    // One process writes for all.
    let model_info = model_info.filter(|_| world::first());
    model_info.map_or(Ok(()), |info| info.write(report, &target.epsilon, &target.subject))?;
    evaluator.finish()?;
    target.say_what_is_left();
    shown
}

/// The class that `--target` names: by its number or its name.
fn class_of(class: &str, target: &Target) -> Result<usize> {
    let names = target.split.class_names();
    let by_name = names.iter().position(|name| name == class);
    by_name.or_else(|| class.parse().ok()).ok_or_else(|| {
        let known =
            if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
        Failure::input(format!("--target '{class}': expected the number or name of a class{known}"))
    })
}

fn log_memory() {
    let pool = nn::pool_counts();
    tracing::debug!(
        "memory of feature maps: {} MiB; {} of {} requests had to allocate",
        pool.bytes >> 20,
        pool.misses,
        pool.requests
    );
}

/// Characters of an attack's name that go into the name of a file.
const LONGEST: usize = 80;

/// Writes the adversarial examples of each attack.
fn save(
    target: &Target,
    evaluator: &mut Evaluator<'_>,
    entries: &[Entry],
    report: &Report,
) -> Result<()> {
    for entry in entries.iter().filter(|entry| !entry.parts.is_empty()) {
        let plain = |c: char| if c.is_alphanumeric() || "-+".contains(c) { c } else { '_' };
        let name: String = entry.name.chars().map(plain).take(LONGEST).collect();
        let file = target.file(&report.file_stem(&format!("adv-{name}")))?;
        let saved = evaluator.save(entry, &file)?;
        tracing::info!("adversarial examples: {}", saved.npz.display());
    }
    Ok(())
}

/// The name of the protocol in the file name of its record.
fn protocol_name(suite: Option<Suite>) -> String {
    suite.map_or_else(|| "attacks".into(), |suite| suite.to_string())
}
