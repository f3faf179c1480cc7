use super::*;
use sora_rng::{Purpose, stream};

#[test]
fn text_round_trips() {
    for text in [
        "none",
        "crop:4,flip",
        "flip",
        "flip,rotate:10",
        "resized-crop:0.08,flip",
        "crop:8",
        "rotate:2.5",
        "cutout:8",
        "crop:4,flip,rotate:1,cutout:16",
    ] {
        assert_eq!(text.parse::<Augment>().unwrap().to_string(), text);
    }
    let spaced: Augment = " flip , crop:4".parse().unwrap();
    assert_eq!(spaced.to_string(), "crop:4,flip");
    assert_eq!("resized-crop".parse::<Augment>().unwrap().crop, Crop::Resized { min_scale: 0.08 });
}

#[test]
fn wrong_text_is_one_clear_line() {
    for text in [
        "",
        "crop",
        "crop:-1",
        "crop:4,crop:4",
        "crop:4,resized-crop",
        "flip:1",
        "flip,flip",
        "rotate:x",
        "rotate:NaN",
        "rotate:181",
        "resized-crop:0",
        "resized-crop:nan",
        "crop:1025",
        "cutout",
        "cutout:1025",
        "cutout:2,cutout:2",
        "mirror",
        "none,flip",
    ] {
        let error = text.parse::<Augment>().unwrap_err().to_string();
        assert!(
            error.starts_with("wrong ") && error.contains("expected") && !error.contains('\n'),
            "{text}: {error}"
        );
    }
}

#[test]
fn draws_cover_their_range_evenly() {
    let augment: Augment = "crop:2,flip".parse().unwrap();
    let mut offsets = [[0usize; 5]; 5];
    let mut flips = 0;
    const N: usize = 25_000;
    for sample in 0..N {
        let draw = augment.draw(&mut stream(0, Purpose::Augment, 0, 0, sample as u64), 8, 8);
        offsets[(draw.dy + 2) as usize][(draw.dx + 2) as usize] += 1;
        flips += usize::from(draw.flip);
    }
    // Expected 1,000 a cell with a standard deviation of 31: within 5 of them.
    assert!(offsets.iter().flatten().all(|n| n.abs_diff(N / 25) < 155), "{offsets:?}");
    assert!(flips.abs_diff(N / 2) < 400, "{flips}");
}

#[test]
fn cutouts_have_their_centre_anywhere_and_stay_inside() {
    let augment: Augment = "cutout:4".parse().unwrap();
    let mut centres = [[0usize; 6]; 5];
    for sample in 0..3000 {
        let hole =
            augment.draw(&mut stream(0, Purpose::Augment, 0, 0, sample), 5, 6).cutout.unwrap();
        assert!(
            hole.top + hole.height <= 5
                && hole.left + hole.width <= 6
                && hole.height >= 2
                && hole.width >= 2
        );
        // The far edges tell the centre: it lies two pixels before them, or the square is cut
        // off there.
        let (bottom, right) = (hole.top + hole.height, hole.left + hole.width);
        let cy = if hole.top > 0 { hole.top + 2 } else { bottom - 2 };
        let cx = if hole.left > 0 { hole.left + 2 } else { right - 2 };
        centres[cy][cx] += 1;
    }
    // 100 expected, standard deviation 10.
    assert!(centres.iter().flatten().all(|n| n.abs_diff(100) < 50), "{centres:?}");
}
