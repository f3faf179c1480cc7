use super::*;
use crate::info::Checksum;
use std::collections::HashSet;

#[test]
fn rows_are_well_formed() {
    let all = registry();
    let names: HashSet<_> = all.iter().map(|i| &i.name).collect();
    assert_eq!(names.len(), all.len());
    for info in &all {
        assert!(info.classes.is_empty() || info.classes.len() == info.num_classes, "{}", info.name);
        assert_eq!(
            info.classes.iter().collect::<HashSet<_>>().len(),
            info.classes.len(),
            "{}",
            info.name
        );
        assert!(info.mean.is_empty() || info.mean.len() == info.channels, "{}", info.name);
        assert_eq!(info.mean.len(), info.std.len(), "{}", info.name);
        for source in info.sources.iter().chain(&info.also) {
            let digits = match &source.checksum {
                Checksum::Sha256(_) => 64,
                Checksum::Md5(_) => 32,
            };
            let hex = source.checksum.hex();
            assert_eq!(hex.len(), digits, "{}", source.file);
            assert!(
                hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
                "{}",
                source.file
            );
            assert!(source.url.contains(&source.file));
            assert!(!source.file.contains(['/', '\\']));
        }
    }
}

#[test]
fn names_of_the_command_line_contract_are_there() {
    for name in [
        "fashion-mnist",
        "mnist",
        "cifar10",
        "cifar100",
        "svhn",
        "pathmnist",
        "tiny-imagenet",
        "imagenet100",
        "folder",
        "synthetic",
    ] {
        assert!(find(name).is_some(), "{name}");
    }
    let large = find("organsmnist-224").unwrap();
    assert_eq!(
        (large.height, large.folder(), &*large.sources[0].file),
        (224, "organsmnist", "organsmnist_224.npz")
    );
    assert!(large.sources[0].url.contains("organsmnist_224.npz"));
    for none in ["pathmnist-28", "pathmnist-65", "cifar10-64", "pathmnist-"] {
        assert!(find(none).is_none(), "{none}");
    }
    assert_eq!(find("cifar100").unwrap().classes.len(), 100);
}
