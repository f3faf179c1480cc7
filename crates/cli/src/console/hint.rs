//! Finds the known names nearest to an unknown one.

use sora::error::nearest;

/// `: did you mean a or b?`, or an empty text where no name is near.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<String> = known.into_iter().map(str::to_owned).collect();
    match nearest(name, &known).as_slice() {
        [] => String::new(),
        near => format!(": did you mean {}?", near.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::did_you_mean;

    #[test]
    fn a_slip_gives_the_name_and_nonsense_gives_none() {
        let known = ["sora", "fgsm", "n-fgsm", "trades", "preact-resnet18", "cifar10"];
        for (slip, name) in [
            ("sorra", "sora"),
            ("CIFAR-10", "cifar10"),
            ("resnet18", "preact-resnet18"),
            ("nfgsm", "n-fgsm"),
            ("fgms", "fgsm"),
            ("spra", "sora"),
        ] {
            let hint = did_you_mean(slip, known);
            assert!(hint.starts_with(&format!(": did you mean {name}")), "{slip}: {hint}");
        }
        assert_eq!(did_you_mean("qqqq", known), "");
    }
}
