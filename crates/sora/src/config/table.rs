//! Settings as a table: the given values replace those of a file, which replace the defaults.

use std::path::Path;

use toml::{Table, Value};

use super::{OnCo, SETTINGS, TrainConfig, one_line};
use crate::{
    error::{Error, Result},
    method::{self, Variant},
    model::{IMPORTED, network},
    optim::{OptimizerKind, Schedule},
    threat::{Epsilon, Norm},
};

/// Key of the method's hyperparameters.
const OPTIONS: &str = "options";
/// Keys that a run's own config.toml holds besides its settings.
pub(crate) const ABOUT_THE_RUN: [&str; 10] = [
    "provenance",
    "network",
    "steps_per_epoch",
    "data",
    "extra",
    "classes",
    "extended",
    "init_sha256",
    "world",
    "worlds",
];
/// Largest file in bytes.
const LARGEST_FILE: u64 = 1 << 20;
/// Steps between checkpoints of a run that may return to one.
const ROLLBACK_STEPS: u64 = 100;

/// Reads a settings file, such as the config.toml of a run, and drops the keys that are not
/// settings.
///
/// # Errors
/// [`Error`] for a file that cannot be read, is too large, or is not TOML.
pub fn read_file(path: &Path) -> Result<Table> {
    parse(&read_text(path, "a settings file")?).map_err(|e| Error::damaged(path, e.to_string()))
}

/// The text of `path`, which is `what`.
///
/// # Errors
/// [`Error`] for a file that cannot be read or is too large.
pub(crate) fn read_text(path: &Path, what: &str) -> Result<String> {
    let size = std::fs::metadata(path).map_err(|e| Error::read(path, e))?.len();
    if size > LARGEST_FILE {
        let problem = format!("{size} bytes; {what} has at most {LARGEST_FILE}");
        return Err(Error::damaged(path, problem));
    }
    std::fs::read_to_string(path).map_err(|e| Error::read(path, e))
}

/// Reads the settings in the text of a file.
///
/// # Errors
/// [`Error`] for a text that is not TOML.
pub fn parse(text: &str) -> Result<Table> {
    let mut table =
        text.parse::<Table>().map_err(|e| Error::unfit("not TOML", one_line(&e.to_string())))?;
    let of_a_run = table.contains_key("provenance");
    for key in ABOUT_THE_RUN {
        table.remove(key);
    }
    if of_a_run {
        complete(&mut table);
    }
    Ok(table)
}

/// Adds the settings that an older version used without writing them down, where today's defaults
/// differ.
pub(crate) fn complete(table: &mut Table) {
    // Older versions kept the momentum constant.
    table.entry("cycle_momentum").or_insert(Value::Boolean(false));
    // Older versions had only the reference's form of a method that now has two.
    let name = table.get("method").and_then(Value::as_str).unwrap_or_default();
    let defaults = method::method(name).and_then(|info| (info.options)());
    if defaults.is_ok_and(|options| options.iter().any(|(key, _)| key == "variant"))
        && let Value::Table(options) =
            table.entry(OPTIONS).or_insert_with(|| Value::Table(Table::new()))
    {
        options.entry("variant").or_insert_with(|| Variant::Reference.to_string().into());
    }
}

/// Settings that belong to another setting. Where that setting gets another value than the file's,
/// the file's values of these are dropped, because they were chosen for the old value or are its
/// defaults.
const BELONGINGS: [(&str, &[&str]); 8] = [
    ("method", &[OPTIONS, "attack_bn"]),
    ("model", &["width", "activation", "dropout", "stem", "patch", "shortcut"]),
    ("norm", &["epsilon", "epsilon_convention"]),
    ("optimizer", &["lr_max", "momentum", "cycle_momentum"]),
    ("schedule", &["cycle_momentum", "milestones", "lr_min"]),
    ("on_co", &["on_co_method"]),
    ("dataset", &["image_size", "augment", "extra_data", "extra_fraction"]),
    ("extra_data", &["extra_fraction"]),
];

/// Completes `given` with the values of `file`. Where `given` replaces a method or its variant, a
/// network, norm, optimizer, schedule or data set, the file's settings that belong to it are
/// dropped, and a line says so.
pub fn over(given: Table, mut file: Table) -> Table {
    for (key, belongings) in BELONGINGS {
        drop_belongings(
            key,
            [given.get(key), file.get(key)].map(|v| v.map(text)),
            belongings,
            &mut file,
        );
    }
    // The options of a method's two forms differ, and so may the batch norm of its attack.
    let variant = |table: &Table| table.get(OPTIONS)?.get("variant").map(text);
    drop_belongings(
        "options.variant",
        [variant(&given), variant(&file)],
        &[OPTIONS, "attack_bn"],
        &mut file,
    );
    for (key, value) in given {
        match (file.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => old.extend(new),
            (_, value) => drop(file.insert(key, value)),
        }
    }
    file
}

/// Drops `belongings` from `file` where its value of `key` (the second) is replaced by another.
fn drop_belongings(
    key: &str,
    [new, old]: [Option<String>; 2],
    belongings: &[&str],
    file: &mut Table,
) {
    let (Some(new), Some(old)) = (new, old) else { return };
    if new == old {
        return;
    }
    let dropped: Vec<_> =
        belongings.iter().filter(|name| file.remove(**name).is_some()).copied().collect();
    if !dropped.is_empty() {
        tracing::warn!(
            "{key} {new} in place of the file's {old}: what the file sets for that stays out ({})",
            dropped.join(", ")
        );
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Adds a hyperparameter of the method, `key=value`, to `table`.
///
/// # Errors
/// [`Error`] for a text without an equals sign.
pub fn put_option(table: &mut Table, pair: &str) -> Result<()> {
    let (key, text) = pair.split_once('=').ok_or_else(|| {
        Error::setting("options", format!("'{pair}'"), "expected key=value, such as beta=0.05")
    })?;
    let value = format!("v = {}", text.trim())
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| Value::String(text.trim().to_owned()));
    let options = table.entry(OPTIONS).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(options) = options {
        options.insert(key.trim().to_owned(), value);
    }
    Ok(())
}

impl TrainConfig {
    /// Reads the settings in `table`, adds defaults for the others, and checks them. `augment` and
    /// `val` stay open until the data set is known.
    ///
    /// # Errors
    /// [`Error`] for an unknown key, a value of the wrong type, or the first wrong value, in one
    /// line.
    pub fn from_table(table: Table) -> Result<Self> {
        let mut config = read(&table)?;
        let given = |key: &str| table.contains_key(key);
        if config.begins_with_onnx() && !given("model") {
            config.model = IMPORTED.into();
        }
        let info = method::method(&config.method)?;
        let mut options = (info.options)()?;
        options.merge(&config.options, &config.method)?;
        config.options = options;
        if !given("epsilon") {
            config.epsilon = default_epsilon(config.norm);
        }
        if !given("width") {
            config.width = match config.model.as_str() {
                IMPORTED => 1,
                model => network(model)?.default_width,
            };
        }
        if !given("lr_max") && config.optimizer != OptimizerKind::Sgd {
            config.lr_max = 0.001;
        }
        if !given("cycle_momentum") {
            config.cycle_momentum =
                config.schedule == Schedule::Cyclic && config.optimizer == OptimizerKind::Sgd;
        }
        if !given("attack_bn") {
            config.attack_bn = info.attack_bn_with(&config.options, config.threat())?;
        }
        if !given("epochs") {
            let built = info.build(&config.options, config.threat())?;
            let updates = built.updates_per_batch().max(1);
            config.epochs = config.epochs.div_ceil(u64::from(updates));
        }
        if !given("checkpoint_steps") && config.on_co == OnCo::Rollback {
            config.checkpoint_steps = Some(ROLLBACK_STEPS);
        }
        config.check()?;
        Ok(config)
    }

    /// Reads the settings in the text of a file like [`from_table`](Self::from_table).
    ///
    /// # Errors
    /// Those of [`from_table`](Self::from_table), and a text that is not TOML.
    pub fn from_toml(text: &str) -> Result<Self> {
        Self::from_table(parse(text)?)
    }
}

/// The radius that is usual in the literature for a norm.
pub fn default_epsilon(norm: Norm) -> Epsilon {
    match norm {
        Norm::L2 => Epsilon::ratio(128, 255),
        _ => Epsilon::ratio(8, 255),
    }
}

/// Reads the settings of `table` unchanged, with the plain defaults for the others.
pub(crate) fn read(table: &Table) -> Result<TrainConfig> {
    let known = || SETTINGS.iter().map(|setting| setting.name).chain([OPTIONS]);
    if let Some(key) = table.keys().find(|key| !known().any(|known| known == key.as_str())) {
        return Err(Error::unknown("setting", key, known()));
    }
    table.clone().try_into().map_err(|all: toml::de::Error| {
        // The message about the whole table does not always name the key, so each key is tried
        // alone.
        for (key, value) in table {
            let one: Table = [(key.clone(), value.clone())].into_iter().collect();
            if let Err(e) = one.try_into::<TrainConfig>() {
                let name = SETTINGS.iter().map(|setting| setting.name).find(|name| name == key);
                return Error::setting(name.unwrap_or(OPTIONS), text(value), one_line(e.message()));
            }
        }
        Error::unfit("settings", one_line(all.message()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Values;

    fn settle(text: &str) -> Result<TrainConfig> {
        TrainConfig::from_toml(text)
    }

    #[test]
    fn defaults_that_hang_on_other_settings() {
        let plain = settle("").unwrap();
        assert_eq!(
            (plain.epsilon.to_string().as_str(), plain.lr_max, plain.width, plain.epochs),
            ("8/255", 0.2, 64, 30)
        );
        let l2 = settle("norm = 'l2'\noptimizer = 'adam'\nmethod = 'trades'").unwrap();
        assert_eq!((l2.epsilon.to_string().as_str(), l2.lr_max), ("128/255", 0.001));
        assert_eq!(l2.attack_bn, crate::nn::BnMode::Eval);
        let free = settle("method = 'free'\non_co = 'rollback'").unwrap();
        assert_eq!((free.checkpoint_steps, free.epochs < 30), (Some(100), true));
        let given = settle("method = 'free'\nepochs = 7\n[options]\nreplays = 2").unwrap();
        assert_eq!(given.epochs, 7);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_and_a_wrong_type_its_key() {
        let text = settle("epohcs = 3").unwrap_err().to_string();
        assert_eq!(text, "unknown setting 'epohcs'; did you mean epochs?");
        let text = settle("batch = 'many'").unwrap_err().to_string();
        assert!(text.starts_with("batch many: "), "{text}");
        assert!(settle("= nothing").unwrap_err().to_string().starts_with("not TOML"));
    }

    #[test]
    fn what_belongs_to_a_replaced_method_or_network_goes_with_it() {
        let file = parse(
            "method = 'sora'\nmodel = 'vit-tiny'\npatch = 4\nwidth = 3\nbatch = 8\n[options]\nbeta \
             = 0.1\n[provenance]\nsora = '0'",
        )
        .unwrap();
        let given = parse("method = 'pgd'\nmodel = 'mnist-cnn'").unwrap();
        let config = TrainConfig::from_table(over(given, file.clone())).unwrap();
        assert_eq!((config.method.as_str(), config.patch, config.batch), ("pgd", None, 8));
        // The same method keeps them, and a single one can be changed.
        let mut given = parse("method = 'sora'").unwrap();
        put_option(&mut given, "beta=0.2").unwrap();
        let config = TrainConfig::from_table(over(given, file)).unwrap();
        let beta = config.options.iter().find(|(key, _)| *key == "beta").unwrap().1.clone();
        assert_eq!((beta.as_float(), config.patch), (Some(0.2), Some(4)));
    }

    #[test]
    fn what_belongs_to_a_replaced_schedule_or_variant_goes_with_it() {
        let of_a_run = |text: &str| {
            let config = settle(text).unwrap();
            parse(&toml::to_string(&config).unwrap()).unwrap()
        };
        let multistep = of_a_run("schedule = 'multistep'\nmilestones = [10]\nlr_min = 0.001");
        let config = |given: &str, file: &Table| {
            TrainConfig::from_table(over(parse(given).unwrap(), file.clone())).unwrap()
        };
        let cyclic = config("schedule = 'cyclic'", &multistep);
        assert!(cyclic.cycle_momentum && cyclic.milestones.is_empty() && cyclic.lr_min.is_none());
        assert!(!config("schedule = 'cosine'", &of_a_run("")).cycle_momentum);
        assert_eq!(config("schedule = 'multistep'", &multistep).milestones, [10]);

        let official = of_a_run("method = 'nuat'\n[options]\nvariant = 'official'");
        let reference = config("[options]\nvariant = 'reference'", &official);
        let fresh = settle("method = 'nuat'\n[options]\nvariant = 'reference'").unwrap();
        assert_eq!(reference, fresh);
        assert_ne!(settle("method = 'nuat'").unwrap().options, fresh.options);
    }

    #[test]
    fn every_choice_is_a_value_of_its_setting_and_the_settings_survive_a_file() {
        for setting in SETTINGS {
            if let Values::Choice(names) = setting.values {
                for name in names {
                    let table = [(setting.name.to_owned(), Value::from(*name))];
                    read(&table.into_iter().collect()).unwrap();
                }
            }
            assert!(!setting.help.trim().is_empty() && setting.help.starts_with(' '));
        }
        let config = settle("dropout = 0.1\nepsilon_warmup = 2\nval_steps = 7").unwrap();
        let text = toml::to_string(&config).unwrap();
        assert_eq!(settle(&text).unwrap(), config);
    }
}
