//! What the ranks of a training must have in common before the first step.

use super::{Communicator, Ranks};
use crate::{
    config::TrainConfig,
    data::{self, Dataset},
    error::{Error, Result},
    nn::Backend,
    run::{Provenance, RunConfig, TrainPlan},
};

/// Whether a run may go on in a world of another size than it began in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherWorld {
    /// No: its bits would not be those of an unbroken run.
    #[default]
    Refuse,
    /// Yes; config.toml keeps the sizes before.
    Allow,
}

/// Refuses a training that `world` ranks cannot share.
///
/// # Errors
/// Batches that the world does not divide; a device that has no sums over ranks.
pub(super) fn check(config: &TrainConfig, plan: &TrainPlan, world: usize) -> Result<()> {
    if world == 1 {
        return Ok(());
    }
    if !config.batch.is_multiple_of(world) {
        let below = config.batch / world * world;
        let problem = format!(
            "{world} processes share a batch in equal parts; choose a multiple of {world}, such as {}",
            if below == 0 { world } else { below }
        );
        return Err(Error::setting("batch", config.batch, problem));
    }
    let last = plan.train.len() % config.batch;
    if !config.drop_last && !last.is_multiple_of(world) {
        let problem = format!(
            "the last batch of an epoch has {last} images, which {world} processes cannot share \
             in equal parts; leave it out with true"
        );
        return Err(Error::setting("drop_last", false, problem));
    }
    if !config.drop_last && plan.extra.is_some() {
        let problem = "with extra images the last batch of an epoch cannot be shared by several \
                       processes; leave it out with true";
        return Err(Error::setting("drop_last", false, problem));
    }
    if Backend::of(&crate::device::device(&config.device)?) != Backend::Engine {
        let problem = format!("{world} processes share a training on the cpu only");
        return Err(Error::setting("device", &config.device, problem));
    }
    Ok(())
}

/// Refuses a run that began in a world of another size, or notes the change.
///
/// # Errors
/// [`OtherWorld::Refuse`].
pub(super) fn take(config: &mut RunConfig, world: usize, other: OtherWorld) -> Result<bool> {
    let before = config.world;
    if before == world {
        return Ok(false);
    }
    if other == OtherWorld::Refuse {
        let problem = format!(
            "the run began with {before} and goes on to the same bits with {before} only; start \
             as many, or allow another number with `world_size_may_differ`"
        );
        return Err(Error::setting("processes", world, problem));
    }
    config.worlds.push(before);
    config.world = world;
    Ok(true)
}

/// `result`, unless another rank has failed: then that rank's error, as every rank is told.
///
/// # Errors
/// That of `result`, that of the first rank that failed.
pub(super) fn agreed<T>(link: &dyn Communicator, result: Result<T>) -> Result<T> {
    if link.world() == 1 {
        return result;
    }
    let text = result.as_ref().err().map_or_else(String::new, Error::to_string);
    let all = link.gather_each(text.as_bytes())?;
    match (result, all.iter().position(|text| !text.is_empty())) {
        (Ok(_), Some(rank)) => {
            let text = String::from_utf8_lossy(&all[rank]);
            Err(Error::Ranks(format!("process {rank} of {}: {text}", link.world())))
        }
        (result, _) => result,
    }
}

/// Refuses ranks that would not do the same: other settings, images, versions or instruction sets.
///
/// # Errors
/// In what which rank differs from the first.
pub(super) fn same_everywhere(
    ranks: &Ranks,
    config: &TrainConfig,
    plan: &TrainPlan,
    init_sha256: Option<&str>,
    data: &Dataset,
) -> Result<()> {
    if ranks.world() == 1 {
        return Ok(());
    }
    let mine = agreed(ranks.link(), facts(config, plan, init_sha256, data))?;
    let text: String = mine.iter().map(|(_, fact)| format!("{fact}\n")).collect();
    let all = ranks.link().gather_each(text.as_bytes())?;
    let lines = |bytes: &[u8]| -> Vec<String> {
        String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
    };
    let first = lines(&all[0]);
    for (rank, theirs) in all.iter().enumerate().skip(1) {
        let theirs = lines(theirs);
        let differs = (0..mine.len()).find(|&i| first.get(i) != theirs.get(i));
        if let Some(i) = differs {
            let line = |lines: &[String]| lines.get(i).cloned().unwrap_or_default();
            let (a, b) = (line(&first), line(&theirs));
            let alike = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
            let shown = |text: &str| -> String {
                text.chars().skip(alike.saturating_sub(24)).take(64).collect()
            };
            return Err(Error::Ranks(format!(
                "processes 0 and {rank} differ in their {}: {} and {}; all must do the same",
                mine[i].0,
                shown(&a),
                shown(&b)
            )));
        }
    }
    Ok(())
}

/// What all ranks must have in common, and what it is called.
fn facts(
    config: &TrainConfig,
    plan: &TrainPlan,
    init_sha256: Option<&str>,
    dataset: &Dataset,
) -> Result<[(&'static str, String); 8]> {
    // Where files lie and how many threads there are may differ from host to host.
    let settings = TrainConfig {
        data_dir: None,
        threads: 0,
        init: None,
        dataset: data::without_place(&config.dataset),
        extra_data: config.extra_data.as_deref().map(data::without_place),
        ..config.clone()
    };
    let here = Provenance::here(&config.device)?;
    let extra = plan.extra_identity()?;
    let network = serde_json::to_string(&plan.network.for_identity())
        .map_err(|e| Error::defect(format!("cannot serialise the network's options: {e}")))?;
    Ok([
        ("program", format!("{} {}", here.sora, here.git_revision)),
        ("instruction set (SORA_ISA chooses one that all have)", here.instruction_set),
        ("settings", format!("{settings:?}")),
        ("weights to begin with", init_sha256.unwrap_or_default().to_owned()),
        ("training images", dataset.train.identity()?.sha256),
        ("extra training images", extra.map_or_else(String::new, |extra| extra.sha256)),
        ("validation and test images", dataset.test.identity()?.sha256),
        // Last: its normalisation follows from the images.
        ("network", network),
    ])
}
