use super::*;
use crate::error::Result;
use crate::picture::{Fit, Picture, Pictures};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One-pixel images whose value is the index.
fn tiny(labels: &[u32]) -> Split {
    Split::new((0..labels.len()).map(|i| i as u8).collect(), labels.to_vec(), [1, 1, 1], 4).unwrap()
}

#[test]
fn sizes_must_fit() {
    assert!(Split::new(vec![0; 6], vec![0, 1], [1, 1, 3], 2).is_ok());
    assert!(Split::new(vec![0; 5], vec![0, 1], [1, 1, 3], 2).is_err());
    assert!(Split::new(vec![], vec![], [0, 1, 3], 2).is_err());
    assert!(Split::new(vec![], vec![0], [usize::MAX, 2, 3], 2).is_err());
    let error = Split::new(vec![0; 2], vec![0, 2], [1, 1, 1], 2).unwrap_err();
    assert_eq!(error.to_string(), "wrong label of image 1: 2; expected below 2");
}

#[test]
fn classes_are_found_by_their_names() {
    let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let named = tiny(&[0, 1, 2, 3]).with_class_names(names("ape bee cat dog")).unwrap();
    let there = named.clone().in_classes(&names("dog cat elk bee ape")).unwrap();
    let labels = |split: &Split| (0..split.len()).map(|i| split.label(i)).collect::<Vec<_>>();
    assert_eq!(labels(&there), [4, 3, 1, 0]);
    assert_eq!((there.num_classes(), there.class_counts()), (5, vec![1, 1, 0, 1, 1]));
    assert_eq!(labels(&there.subset(&[2, 0]).unwrap()), [1, 4]);
    let other = named.clone().in_classes(&names("bee ape dog cat")).unwrap();
    assert!(other.identity().unwrap().difference(&named.identity().unwrap()).is_some());
    let back = there.in_classes(&names("ape bee cat dog elk")).unwrap();
    assert_eq!(labels(&back), [0, 1, 2, 3], "names count, not the labels before");
    let error = named.in_classes(&names("ape bee cat")).unwrap_err().to_string();
    assert_eq!(error, "wrong class: 'dog'; expected one of ape, bee, cat");
}

#[test]
fn images_of_another_split_are_left_out() {
    let all = tiny(&[0, 1, 2, 3]);
    // The same pixels under other labels, in another order.
    let some = Split::new(vec![3, 1, 9], vec![0; 3], [1, 1, 1], 1).unwrap();
    let left = all.without(&[&some.take(1), &some.subset(&[2, 1]).unwrap()]).unwrap();
    assert_eq!(left.ids(), [0, 2]);
    assert_eq!(all.without(&[]).unwrap().len(), 4);
}

#[test]
fn images_of_another_split_are_found_however_they_are_stored() {
    #[derive(Debug)]
    struct Numbers;
    impl Pictures for Numbers {
        fn picture(&self, i: usize) -> Result<Picture> {
            Picture::new(1, 1, 1, vec![i as u8])
        }
    }
    let memory = tiny(&[0, 1, 2, 3]);
    let on_demand =
        |fit| Split::on_demand(Arc::new(Numbers), fit, vec![0; 6], [1, 1, 1], 1).unwrap();
    let files = on_demand(Fit::Exact);
    assert_eq!(memory.without(&[&files.subset(&[5, 2]).unwrap()]).unwrap().ids(), [0, 1, 3]);
    assert_eq!(files.without(&[&memory]).unwrap().ids(), [4, 5]);
    assert_eq!(files.without(&[&files.take(2), &memory.take(3)]).unwrap().ids(), [3, 4, 5]);
    assert_eq!(files.without(&[&files.take(2)]).unwrap().ids(), [2, 3, 4, 5]);
    assert_eq!(files.without(&[&on_demand(Fit::Square).take(5)]).unwrap().ids(), [5]);
}

#[test]
fn subsets_keep_ids() {
    let all = tiny(&[0, 1, 2, 3]);
    let part = all.subset(&[3, 1]).unwrap();
    assert_eq!((part.ids(), part.label(0), &*part.image(1).unwrap()), (&[3, 1][..], 3, &[1][..]));
    let again = part.subset(&[1]).unwrap();
    assert_eq!((again.ids(), again.len()), (&[1][..], 1));
    assert!(all.subset(&[4]).is_err());
    assert_eq!(all.take(2).ids(), [0, 1]);
    assert_eq!(all.take(9).len(), 4);
}

#[test]
fn statistics_by_hand() {
    // Channel 0 holds 0, 255, 255, 0: mean 1/2, std 1/2. Channel 1 is constant 51 = 0.2: std at its
    // floor.
    let split = Split::new(vec![0, 255, 51, 51, 255, 0, 51, 51], vec![0, 0], [2, 1, 2], 1).unwrap();
    let (mean, std) = split.channel_stats().unwrap();
    assert!((mean[0] - 0.5).abs() < 1e-12 && (mean[1] - 0.2).abs() < 1e-12);
    assert!((std[0] - 0.5).abs() < 1e-12 && (std[1] - 1.0 / 255.0).abs() < 1e-12);
    assert_eq!(split.take(0).channel_stats().unwrap(), (vec![0.0; 2], vec![1.0; 2]));
}

#[test]
fn hold_out_is_seeded() {
    let all = tiny(&(0..200).map(|i| i % 4).collect::<Vec<_>>());
    let ids = |seed| all.hold_out(40, seed).unwrap().1.ids().to_vec();
    assert_eq!(ids(1), ids(1));
    assert_ne!(ids(1), ids(2));
    assert!(
        all.hold_out(200, 0).unwrap_err().to_string().contains("less than the 200 training images")
    );
    let (train, val) = all.hold_out(0, 0).unwrap();
    assert_eq!((train.len(), val.len()), (200, 0));
}

proptest! {
    #[test]
    fn hold_out_is_a_stratified_partition(
        labels in proptest::collection::vec(0u32..4, 2..120),
        part in 0.0f64..1.0,
        seed: u64,
    ) {
        let all = tiny(&labels);
        let n = ((labels.len() as f64 * part) as usize).min(labels.len() - 1);
        let (train, val) = all.hold_out(n, seed).unwrap();
        prop_assert_eq!(val.len(), n);
        let union: BTreeSet<u32> = train.ids().iter().chain(val.ids()).copied().collect();
        prop_assert_eq!(union.len(), labels.len());
        prop_assert_eq!(train.len() + val.len(), labels.len());
        prop_assert!(train.ids().is_sorted() && val.ids().is_sorted());
        for (have, all) in val.class_counts().iter().zip(all.class_counts()) {
            let share = n as f64 * all as f64 / labels.len() as f64;
            prop_assert!((*have as f64 - share).abs() < 1.0, "{} of {}", have, share);
        }
    }
}
