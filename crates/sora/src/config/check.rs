//! Refuses impossible values before anything is read or written.

use super::{OnCo, TrainConfig};
use crate::{
    device::MOST_THREADS,
    error::{Error, Result},
    method,
    model::{IMPORTED, NetworkOptions},
    nn::Precision,
    optim::{OptimizerKind, Schedule},
    threat::{EpsilonConvention, Norm, Threat},
};

impl TrainConfig {
    /// Refuses impossible values and impossible combinations of values.
    ///
    /// # Errors
    /// [`Error`] for the first wrong value, in one line.
    pub fn check(&self) -> Result<()> {
        Threat::new(self.norm, &self.epsilon)
            .map_err(|e| Error::setting("epsilon", &self.epsilon, e.to_string()))?;
        self.check_numbers()?;
        self.check_schedule()?;
        self.check_validation()?;
        self.check_rollback()?;
        self.check_imported()?;
        // A norm or option that the method does not know must fail before any data is read.
        method::method(&self.method)?.build(&self.options, self.threat()).map(drop)
    }

    /// Refuses what a network of an ONNX file does not have, and what only such a file needs.
    fn check_imported(&self) -> Result<()> {
        let is_file = self.begins_with_onnx();
        for (setting, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.is_empty() {
                continue;
            }
            let all = values.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
            if !is_file {
                let problem = "is for an ONNX file as `init`; other networks know what they take";
                return Err(Error::setting(setting, all, problem));
            }
            if self.mean.len() != self.std.len() {
                let problem = "give one value a channel of `mean` and of `std`";
                return Err(Error::setting(setting, all, problem));
            }
            // A mean of 125 means that the file expects pixels from 0 to 255.
            if !values.iter().all(|value| (-10.0..=10.0).contains(value)) {
                let problem = "no values for pixels in [0, 1]; divide by 255?";
                return Err(Error::setting(setting, all, problem));
            }
        }
        if self.std.iter().any(|std| *std <= 0.0) {
            return Err(Error::setting("std", "", "expected values above 0"));
        }
        let imported = self.model == IMPORTED;
        if is_file && !imported {
            let problem = "an ONNX file as `init` brings its own network; leave it out";
            return Err(Error::setting("model", &self.model, problem));
        }
        if !imported {
            return Ok(());
        }
        if self.init.is_none() {
            let problem = "the network of an ONNX file needs that file, or a run that began with \
                           it, as `init`";
            return Err(Error::setting("model", &self.model, problem));
        }
        self.check_for_imported()
    }

    fn check_for_imported(&self) -> Result<()> {
        let NetworkOptions { activation, dropout, stem, patch, shortcut } = self.network_options();
        let given = [
            ("width", self.width != 1),
            ("activation", activation.is_some()),
            ("dropout", dropout != 0.0),
            ("stem", stem.is_some()),
            ("patch", patch.is_some()),
            ("shortcut", shortcut.is_some()),
        ];
        if let Some((setting, _)) = given.into_iter().find(|(_, given)| *given) {
            let problem = "the network of an ONNX file is what the file says; leave it out";
            return Err(Error::setting(setting, "", problem));
        }
        if self.precision != Precision::F32 {
            let problem = "a network of an ONNX file is computed in f32";
            return Err(Error::setting("precision", self.precision, problem));
        }
        if self.device != "cpu" {
            let problem = "a network of an ONNX file is computed on the cpu only";
            return Err(Error::setting("device", &self.device, problem));
        }
        let after = (self.on_co == OnCo::Rollback).then_some(("on_co_method", &self.on_co_method));
        for (setting, name) in [("method", &self.method)].into_iter().chain(after) {
            let info = method::method(name)?;
            let options =
                if setting == "method" { self.options.clone() } else { (info.options)()? };
            if info.build(&options, self.threat())?.needs_tangents() {
                let problem = "differentiates layers along a direction, which is not possible in \
                               the network of an ONNX file; choose another method, such as sora";
                return Err(Error::setting(setting, name, problem));
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<()> {
        range("epochs", self.epochs as f64, 1.0, 100_000.0)?;
        if let Some(fraction) = self.extra_fraction {
            if self.extra_data.is_none() {
                let problem = "there is no `extra_data` to take it from; give both or none";
                return Err(Error::setting("extra_fraction", fraction, problem));
            }
            if !(fraction > 0.0 && fraction < 1.0) {
                return Err(Error::setting(
                    "extra_fraction",
                    fraction,
                    "expected above 0 and below 1",
                ));
            }
        }
        range("batch", self.batch as f64, 1.0, 65_536.0)?;
        range("lr_max", self.lr_max, 0.0, 1000.0)?;
        if let Some(lr_min) = self.lr_min {
            range("lr_min", lr_min, 0.0, self.lr_max)?;
        }
        for &milestone in &self.milestones {
            range("milestones", milestone as f64, 1.0, self.epochs as f64)?;
        }
        range("momentum", f64::from(self.momentum), 0.0, 1.0)?;
        range("weight_decay", f64::from(self.weight_decay), 0.0, 10.0)?;
        range("label_smoothing", f64::from(self.label_smoothing), 0.0, 1.0)?;
        range("awp", f64::from(self.awp), 0.0, 1.0)?;
        if !(0.0..1.0).contains(&self.ema) {
            let problem = "expected at least 0 and below 1: with 1 the average would stay at the \
                           untrained weights";
            return Err(Error::setting("ema", self.ema, problem));
        }
        range("clip_grad", f64::from(self.clip_grad), 0.0, 1e9)?;
        range("accumulate", f64::from(self.accumulate), 1.0, 65_536.0)?;
        range("epsilon_warmup", self.epsilon_warmup, 0.0, self.epochs as f64)?;
        range("keep", self.keep as f64, 1.0, 1e9)?;
        range("threads", self.threads as f64, 0.0, MOST_THREADS as f64)?;
        range("width", self.width as f64, 1.0, 4096.0)?;
        if let Some(steps) = self.checkpoint_steps {
            range("checkpoint_steps", steps as f64, 1.0, 1e12)?;
        }
        for (setting, value) in [("limit_train", self.limit_train), ("limit_test", self.limit_test)]
        {
            if value == Some(0) {
                return Err(Error::setting(setting, 0, "expected at least 1"));
            }
        }
        if self.norm == Norm::L1 {
            let problem = "training knows linf and l2; l1 is for evaluation";
            return Err(Error::setting("norm", self.norm, problem));
        }
        if self.norm == Norm::Linf && self.epsilon.value() >= 1.0 {
            let problem = format!(
                "pixels are in [0, 1], so that every image would be allowed; did you mean {}/255?",
                self.epsilon
            );
            return Err(Error::setting("epsilon", &self.epsilon, problem));
        }
        Ok(())
    }

    /// Refuses settings that would have no effect ([`ignored`](Self::ignored)).
    ///
    /// # Errors
    /// [`Error::Setting`] for the first of them.
    pub fn check_ignored(&self) -> Result<()> {
        self.ignored()?.into_iter().next().map_or(Ok(()), Err)
    }

    /// The settings that would have no effect, each as an [`Error::Setting`]: for whoever gives them
    /// in a call. In a file that several runs share, or that a run has begun with, they do no harm.
    ///
    /// # Errors
    /// An unknown method.
    pub fn ignored(&self) -> Result<Vec<Error>> {
        let mut found = Vec::new();
        let usual = TrainConfig::default();
        if self.on_co != OnCo::Rollback && self.on_co_method != usual.on_co_method {
            let problem = "takes over after a rollback only; add `on_co` rollback";
            found.push(Error::setting("on_co_method", &self.on_co_method, problem));
        }
        if self.optimizer != OptimizerKind::Sgd && self.momentum != usual.momentum {
            let problem = format!("{} does not use it; leave it out", self.optimizer);
            found.push(Error::setting("momentum", self.momentum, problem));
        }
        let method = &self.method;
        let has = |name: &str| self.options.iter().any(|(key, _)| key == name);
        if self.label_smoothing != 0.0 && has("true_share") {
            let problem =
                format!("{method} smooths labels by its option `true_share`; leave this out");
            found.push(Error::setting("label_smoothing", self.label_smoothing, problem));
        }
        let info = method::method(method)?;
        let usual = info.attack_bn_with(&self.options, self.threat())?;
        if info.passes.backward_input == 0 && self.attack_bn != usual {
            let problem = format!("{method} has no attack pass of its own; leave this out");
            found.push(Error::setting("attack_bn", self.attack_bn, problem));
        }
        Ok(found)
    }

    /// Refuses settings that the schedule or the norm would ignore.
    fn check_schedule(&self) -> Result<()> {
        let unused = |setting: &'static str, value: &str, with: &str| {
            let Self { schedule, optimizer, .. } = self;
            let problem = format!(
                "{schedule} with {optimizer} does not use it; leave it out or choose {with}"
            );
            Err(Error::setting(setting, value, problem))
        };
        let cyclic = self.schedule == Schedule::Cyclic;
        if self.cycle_momentum && !(cyclic && self.optimizer == OptimizerKind::Sgd) {
            return unused("cycle_momentum", "true", "cyclic with sgd");
        }
        if !self.milestones.is_empty() && self.schedule != Schedule::Multistep {
            return unused("milestones", "", "multistep");
        }
        if self.lr_min.is_some() && self.schedule == Schedule::Constant {
            return unused("lr_min", "", "a schedule that moves");
        }
        if self.epsilon_convention == EpsilonConvention::Reference && self.norm != Norm::L2 {
            let problem = "it differs from pixel in l2 only";
            return Err(Error::setting("epsilon_convention", "reference", problem));
        }
        Ok(())
    }

    fn check_validation(&self) -> Result<()> {
        let needs = [("val_steps", self.val_steps.unwrap_or(0)), ("early_stop", self.early_stop)];
        if let Some(steps) = self.val_steps {
            range("val_steps", steps as f64, 1.0, 1e12)?;
        }
        for (setting, value) in needs {
            if value > 0 && self.val == Some(0) {
                let problem =
                    "there is nothing to validate on with `val` 0; leave one of the two out";
                return Err(Error::setting(setting, value, problem));
            }
        }
        Ok(())
    }

    fn check_rollback(&self) -> Result<()> {
        let after = method::method(&self.on_co_method).map_err(|e| match e {
            Error::UnknownName { .. } => {
                Error::setting("on_co_method", &self.on_co_method, e.to_string())
            }
            other => other,
        })?;
        if self.on_co != OnCo::Rollback {
            return Ok(());
        }
        if after.name == "none" || after.stored_images > 0 || after.name == "free" {
            let problem = "cannot take over in the middle of a run; choose a method that keeps \
                           nothing by image, such as sora or pgd";
            return Err(Error::setting("on_co_method", after.name, problem));
        }
        after.build(&(after.options)()?, self.threat()).map(drop)
    }
}

fn range(setting: &'static str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::setting(setting, value, format!("expected {low} to {high}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::BnMode;

    fn refused(change: impl FnOnce(&mut TrainConfig), setting: &str) {
        let mut config = TrainConfig::from_table(toml::Table::new()).unwrap();
        change(&mut config);
        match config.check().and_then(|()| config.check_ignored()).unwrap_err() {
            Error::Setting { setting: found, .. } => assert_eq!(found, setting),
            other => panic!("{setting}: {other}"),
        }
    }

    #[test]
    fn a_wrong_value_is_refused_under_its_name() {
        refused(|c| c.extra_fraction = Some(0.5), "extra_fraction");
        for fraction in [0.0, 1.0, -0.1, f64::NAN] {
            let given = (Some("synthetic".to_owned()), Some(fraction));
            refused(|c| (c.extra_data, c.extra_fraction) = given, "extra_fraction");
        }
        refused(|c| c.label_smoothing = 1.5, "label_smoothing");
        refused(|c| c.awp = -0.1, "awp");
        refused(|c| c.ema = f32::NAN, "ema");
        refused(|c| c.ema = 1.0, "ema");
        refused(|c| c.clip_grad = -1.0, "clip_grad");
        refused(|c| c.accumulate = 0, "accumulate");
        refused(|c| c.threads = 100_000, "threads");
        refused(|c| c.epsilon = "8".parse().unwrap(), "epsilon");
        refused(|c| (c.val, c.val_steps) = (Some(0), Some(5)), "val_steps");
        refused(|c| (c.val, c.early_stop) = (Some(0), 5), "early_stop");
        refused(|c| c.on_co_method = "pgd".into(), "on_co_method");
        refused(
            |c| {
                (c.optimizer, c.momentum, c.cycle_momentum) = (OptimizerKind::Adam, 0.5, false);
            },
            "momentum",
        );
        let method = |c: &mut TrainConfig, name: &str| {
            c.method = name.into();
            c.options = (method::method(name).unwrap().options)().unwrap();
        };
        refused(|c| (method(c, "fgsm-pgi"), c.label_smoothing = 0.1).0, "label_smoothing");
        for name in ["none", "lap", "free"] {
            refused(|c| (method(c, name), c.attack_bn = BnMode::Eval).0, "attack_bn");
        }
        let mut config = TrainConfig { on_co: OnCo::Rollback, ..TrainConfig::default() };
        config.options = (method::method("sora").unwrap().options)().unwrap();
        for (method, part) in [("magic", "unknown method"), ("atas", "keeps nothing by image")] {
            config.on_co_method = method.into();
            let text = config.check().unwrap_err().to_string();
            assert!(text.starts_with("on_co_method") && text.contains(part), "{text}");
        }
    }
}
