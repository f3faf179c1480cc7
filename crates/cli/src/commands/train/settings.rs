//! The settings of a run as arguments: one flag for each key of config.toml.

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, builder::PossibleValuesParser,
    error::Error as ClapError, parser::ValueSource, value_parser,
};
use toml::{Table, Value};

use crate::complete;
pub use sora::config::{SETTINGS, SettingInfo, Values};

/// Headings of the help, in order, with their settings.
const HEADINGS: &[(&str, &[&str])] = &[
    (
        "Data",
        &[
            "dataset",
            "extra_data",
            "extra_fraction",
            "data_dir",
            "image_size",
            "orientation",
            "augment",
            "limit_train",
            "limit_test",
            "val",
            "drop_last",
        ],
    ),
    (
        "Network",
        &[
            "model",
            "init",
            "mean",
            "std",
            "width",
            "activation",
            "shortcut",
            "dropout",
            "stem",
            "patch",
        ],
    ),
    ("Threat", &["method", "epsilon", "norm", "epsilon_convention", "epsilon_warmup", "attack_bn"]),
    (
        "Optimiser",
        &[
            "epochs",
            "batch",
            "lr_max",
            "lr_min",
            "schedule",
            "milestones",
            "optimizer",
            "momentum",
            "cycle_momentum",
            "weight_decay",
            "label_smoothing",
            "awp",
            "ema",
            "clip_grad",
            "accumulate",
            "seed",
        ],
    ),
    ("Guard", &["on_co", "on_co_method"]),
    ("Output", &["val_steps", "early_stop", "keep", "checkpoint_steps", "tensorboard"]),
    ("Machine", &["device", "threads", "precision", "batch_norm"]),
];

/// Other names of a flag.
const ALIASES: &[(&str, &str)] = &[("lr_max", "lr"), ("epsilon", "eps"), ("batch", "batch-size")];

/// The given settings, in the form of a config file.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Settings by key.
    pub table: Table,
    /// Hyperparameters of the method, `key=value`.
    pub set: Vec<String>,
}

/// The names of all settings.
pub fn names() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.name)
}

/// The flag of a setting, without its hyphens.
pub fn flag(name: &str) -> String {
    name.replace('_', "-")
}

/// `text` with flags in place of the settings that it names in backticks.
fn with_flags(text: &str) -> String {
    text.split('`').enumerate().fold(String::new(), |out, (i, part)| match i % 2 {
        0 => out + part,
        _ if names().any(|name| name == part) => out + "--" + &flag(part),
        _ => format!("{out}`{part}`"),
    })
}

/// Place of the setting in the help: its heading, and its rank among all settings.
fn place(name: &str) -> (&'static str, usize) {
    let mut before = 0;
    for (heading, settings) in HEADINGS {
        if let Some(at) = settings.iter().position(|setting| *setting == name) {
            return (heading, before + at);
        }
        before += settings.len();
    }
    ("Optimiser", before)
}

fn argument(setting: &'static SettingInfo) -> Arg {
    let (heading, order) = place(setting.name);
    let mut arg = Arg::new(setting.name)
        .long(flag(setting.name))
        .help(with_flags(&setting.description()))
        .help_heading(heading)
        .display_order(order)
        .action(ArgAction::Set);
    arg = match setting.value_name {
        "" => arg.value_name(setting.name.to_uppercase()),
        name => arg.value_name(name),
    };
    if let Some((_, alias)) = ALIASES.iter().find(|(name, _)| *name == setting.name) {
        arg = arg.visible_alias(*alias);
    }
    arg = match setting.name {
        "dataset" | "extra_data" => arg.add(complete::datasets()),
        "method" | "on_co_method" => arg.add(complete::methods()),
        "model" => arg.add(complete::networks()),
        _ => arg,
    };
    match setting.values {
        Values::Text => arg.allow_hyphen_values(setting.name == "epsilon"),
        // The settings go into a TOML file, and TOML has no larger integers.
        Values::Integer => arg.value_parser(value_parser!(u64).range(..=i64::MAX as u64)),
        Values::Integers => arg
            .value_parser(value_parser!(u64).range(..=i64::MAX as u64))
            .value_delimiter(',')
            .action(ArgAction::Append),
        Values::Number => arg.value_parser(value_parser!(f64)).allow_negative_numbers(true),
        Values::Numbers => arg
            .value_parser(value_parser!(f64))
            .allow_negative_numbers(true)
            .value_delimiter(',')
            .action(ArgAction::Append),
        Values::Switch => arg
            .value_parser(value_parser!(bool))
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Values::Choice(words) => arg.value_parser(PossibleValuesParser::new(words)),
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        let set = Arg::new("set")
            .long("set")
            .value_name("KEY=VALUE")
            .help("A hyperparameter of the method (see `sora methods NAME`); may be repeated")
            .help_heading("Threat")
            .display_order(place("method").1)
            .action(ArgAction::Append);
        command.args(SETTINGS.iter().map(argument)).arg(set)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, ClapError> {
        let mut given = Self::default();
        given.update_from_arg_matches(matches)?;
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), ClapError> {
        for setting in SETTINGS {
            if matches.value_source(setting.name) != Some(ValueSource::CommandLine) {
                continue;
            }
            if let Some(value) = value(setting, matches) {
                self.table.insert(setting.name.to_owned(), value);
            }
        }
        self.set = matches.get_many("set").into_iter().flatten().cloned().collect();
        Ok(())
    }
}

fn value(setting: &SettingInfo, matches: &ArgMatches) -> Option<Value> {
    let name = setting.name;
    match setting.values {
        Values::Text | Values::Choice(_) => matches.get_one(name).cloned().map(Value::String),
        Values::Integer => {
            let number: u64 = *matches.get_one(name)?;
            i64::try_from(number).ok().map(Value::Integer)
        }
        Values::Integers => {
            let numbers = matches.get_many::<u64>(name)?;
            let numbers = numbers.filter_map(|number| i64::try_from(*number).ok());
            Some(Value::Array(numbers.map(Value::Integer).collect()))
        }
        Values::Number => matches.get_one(name).copied().map(Value::Float),
        Values::Numbers => {
            let numbers = matches.get_many::<f64>(name)?.copied();
            Some(Value::Array(numbers.map(Value::Float).collect()))
        }
        Values::Switch => matches.get_one(name).copied().map(Value::Boolean),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str]) -> Given {
        let command = Given::augment_args(Command::new("train").args_override_self(true));
        let matches = command.try_get_matches_from([&["train"], words].concat()).unwrap();
        Given::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn flags_become_the_keys_of_a_config_file() {
        let words = ["--lr", "0.1", "--eps", "8/255", "--batch-size", "64", "--tensorboard"];
        let given = given(&[&words[..], &["--set", "beta=0.1", "--set", "eta=false"]].concat());
        let expected = "lr_max = 0.1\nepsilon = '8/255'\nbatch = 64\ntensorboard = true";
        assert_eq!(given.table, expected.parse::<Table>().unwrap());
        assert_eq!(given.set, ["beta=0.1", "eta=false"]);
    }

    #[test]
    fn what_is_not_given_is_not_there_and_the_last_one_counts() {
        assert_eq!(given(&[]).table, Table::new());
        assert_eq!(given(&["--seed", "1", "--seed", "2"]).table["seed"], Value::Integer(2));
    }

    #[test]
    fn the_help_has_a_place_for_every_setting() {
        for name in names() {
            let known = HEADINGS.iter().any(|(_, settings)| settings.contains(&name));
            assert!(known, "{name} has no heading");
        }
    }
}
