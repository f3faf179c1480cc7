//! What is kept of a folder, in memory or on disk.

use super::*;

#[test]
fn the_cache_is_used_and_rebuilt_when_stale_or_damaged() {
    let tree = Place::new();
    let fresh = reds(&tree.open().unwrap().train);
    let [cache] = &tree.caches()[..] else { panic!("one cache file") };
    let [kept, decoded] = [true, false].map(|cache| {
        tree.open_with(&OpenOptions { limit_train: Some(1), cache, ..tree.options() }).unwrap()
    });
    assert_eq!(
        (kept.info.mean, kept.info.std),
        (decoded.info.mean, decoded.info.std),
        "as limited, with and without the cache"
    );
    // Write 99 in place of the first image's bytes, to see whether the cache is used.
    let counts = [5, 2];
    let listed = || key(&Tree::read(&tree.path(""), &["test"], true).unwrap(), &tree.options());
    let key = listed();
    let mut forged = cache::load(cache, &key, counts).unwrap();
    forged.train[0] = 99;
    cache::save(cache, &key, counts, &forged).unwrap();
    assert_eq!(reds(&tree.open().unwrap().train)[0], 99);
    // A call with a limit uses the cache, too.
    let limited = tree.open_with(&OpenOptions { limit_train: Some(1), ..tree.options() }).unwrap();
    assert_eq!((reds(&limited.train), limited.test.len()), (vec![99], 2));
    // A call that does not ask for the cache does not use it.
    assert_eq!(
        reds(&tree.open_with(&OpenOptions { cache: false, ..tree.options() }).unwrap().train),
        fresh
    );
    // Another image size has a cache of its own.
    tree.open_with(&OpenOptions { image_size: Some(4), ..tree.options() }).unwrap();
    assert_eq!(tree.caches().len(), 2);
    // A damaged cache is rebuilt.
    let mut bytes = fs::read(cache).unwrap();
    let last = bytes.len() - 6;
    bytes[last] ^= 1;
    fs::write(cache, bytes).unwrap();
    assert_eq!(reds(&tree.open().unwrap().train), fresh);
    assert!(cache::load(cache, &key, counts).is_ok(), "rebuilt on disk");
    // A change within the same length is noticed by the file's time.
    let file = fs::File::options().append(true).open(tree.path("train/a/x.png")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
    assert!(cache::load(cache, &listed(), counts).is_err());
    // A new image is noticed.
    tree.png("train/a/w.png", 6, 4, 90);
    assert_eq!(tree.open().unwrap().train.len(), 6);
    assert_eq!(tree.caches().len(), 2, "stale ones are replaced");
}

#[test]
fn a_limit_decodes_no_more_than_it_needs() {
    let tree = Place::new();
    fs::write(tree.path("train/b/2.png"), "broken, but fifth").unwrap();
    let limited = tree.open_with(&OpenOptions { limit_train: Some(4), ..tree.options() }).unwrap();
    assert_eq!(limited.train.len(), 4);
    assert!(tree.caches().is_empty(), "a part is not kept");
    assert!(tree.open().is_err());
}

#[test]
fn what_does_not_fit_in_memory_is_decoded_on_demand_to_the_same_pixels() {
    let tree = Place::new();
    let all = |split: &Split| -> Vec<Vec<u8>> {
        (0..split.len()).map(|i| split.image(i).unwrap().into_owned()).collect()
    };
    for image_size in [None, Some(3)] {
        let options = OpenOptions { image_size, ..tree.options() };
        let kept = tree.open_with(&options).unwrap();
        let small = OpenOptions { max_memory: 7 * 3 * 3 * 3 - 1, ..options };
        let on_demand = tree.open_with(&small).unwrap();
        assert!(on_demand.train.is_on_demand() && !kept.train.is_on_demand());
        assert_eq!(
            (all(&on_demand.train), all(&on_demand.test)),
            (all(&kept.train), all(&kept.test))
        );
        assert_eq!(on_demand.info, kept.info);
    }
    tree.png("train/b/2.png", 5, 4, 0);
    let data = tree.open_with(&OpenOptions { max_memory: 0, ..tree.options() });
    let error = data.unwrap_err().to_string();
    assert!(error.contains("train/b/2.png: found 5x4 pixels"), "{error}");
}

#[test]
fn an_unwritable_cache_is_no_error() {
    let tree = Place::new();
    // A file stands where the data folder should be, so that nobody can make a folder there,
    // whichever user runs the test.
    fs::write(tree.dir.path().join("data"), "").unwrap();
    assert_eq!(tree.open().unwrap().train.len(), 5);
}
