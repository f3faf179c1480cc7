//! Unknown names, with the known ones nearest to them.

use sora::error::nearest;

use crate::error::Failure;

/// The failure for the `name` of a `kind` (attack, schema, ...) that is none of those `known`.
/// `all` is a sentence that says which there are.
pub fn no_such<'a>(
    kind: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    all: &str,
) -> Failure {
    let known: Vec<String> = known.into_iter().map(str::to_owned).collect();
    let near = match nearest(name, &known).as_slice() {
        [] => String::new(),
        near => format!("did you mean {}? ", near.join(" or ")),
    };
    Failure::input(format!("{kind} '{name}': no such {kind}; {near}{all}"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let told = crate::render::text(&no_such("word", slip, known, "`sora list`"));
            let wanted = format!("word '{slip}': no such word; did you mean {name}");
            assert!(told.starts_with(&wanted) && told.ends_with("? `sora list`"), "{told}");
        }
        let told = crate::render::text(&no_such("word", "qqqq", known, "`sora list`"));
        assert_eq!(told, "word 'qqqq': no such word; `sora list`");
    }
}
