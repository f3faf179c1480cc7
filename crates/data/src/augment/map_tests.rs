use super::super::{Augment, AugmentDraw, Crop};
use crate::window::CropWindow;
use proptest::prelude::*;
use sora_rng::{Purpose, stream};

const SHAPE: [usize; 3] = [1, 2, 3];
const IMAGE: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

fn applied(draw: AugmentDraw) -> [f32; 6] {
    let mut out = [9.0; 6];
    draw.apply(&IMAGE, &mut out, SHAPE).unwrap();
    out
}

#[test]
fn by_hand() {
    let id = AugmentDraw::IDENTITY;
    assert_eq!(applied(id), IMAGE);
    assert_eq!(applied(AugmentDraw { flip: true, ..id }), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
    // One down, one to the left of the source: row 0 shows row 1, column 0 shows nothing.
    assert_eq!(applied(AugmentDraw { dy: 1, dx: -1, ..id }), [0.0, 4.0, 5.0, 0.0, 0.0, 0.0]);
    assert_eq!(
        applied(AugmentDraw { dy: 1, dx: -1, flip: true, ..id }),
        [5.0, 4.0, 0.0, 0.0, 0.0, 0.0]
    );
    assert_eq!(applied(AugmentDraw { dy: -1, dx: 2, ..id }), [0.0, 0.0, 0.0, 3.0, 0.0, 0.0]);
    assert_eq!(applied(AugmentDraw { dy: 0, dx: 3, ..id }), [0.0; 6]);
    assert_eq!(applied(AugmentDraw { dy: 0, dx: i32::MIN, ..id }), [0.0; 6]);
    assert_eq!(applied(AugmentDraw { dy: i32::MAX, dx: 0, ..id }), [0.0; 6]);
}

#[test]
fn unapply_leaves_what_the_crop_does_not_show() {
    let draw = AugmentDraw { dy: 1, dx: -1, flip: true, ..AugmentDraw::IDENTITY };
    let mut stored = IMAGE;
    draw.unapply(&[50.0, 40.0, 7.0, 7.0, 7.0, 7.0], &mut stored, SHAPE).unwrap();
    assert_eq!(stored, [1.0, 2.0, 3.0, 40.0, 50.0, 6.0]);
}

#[test]
fn inexact_maps_and_wrong_lengths_are_refused() {
    let turned = AugmentDraw { angle: 1.0, ..AugmentDraw::IDENTITY };
    let error = turned.apply(&IMAGE, &mut [0.0; 6], SHAPE).unwrap_err().to_string();
    assert!(error.contains("rotation"), "{error}");
    assert!(AugmentDraw::IDENTITY.apply(&IMAGE, &mut [0.0; 5], SHAPE).is_err());
    assert!(AugmentDraw::IDENTITY.unapply(&[], &mut [], [0, 2, 3]).is_err());
}

#[test]
fn windows_fit_and_have_the_area_asked_for() {
    for (height, width) in [(32, 32), (224, 160), (1, 1), (3, 200)] {
        for sample in 0..500 {
            let window = CropWindow::draw(
                &mut stream(3, Purpose::Augment, 0, 0, sample),
                height,
                width,
                0.25,
            );
            assert!(window.height >= 1 && window.width >= 1);
            assert!(window.top + window.height <= height && window.left + window.width <= width);
            if (height, width) == (32, 32) {
                let share = (window.height * window.width) as f32 / 1024.0;
                assert!(share > 0.22, "{window:?}");
                let ratio = window.width as f32 / window.height as f32;
                assert!((0.7..1.43).contains(&ratio), "{window:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn apply_after_unapply_gives_back_what_is_shown(
        c in 1usize..4, h in 1usize..7, w in 1usize..7, pad in 0usize..5, sample: u64,
    ) {
        let shape = [c, h, w];
        let n = c * h * w;
        let augment = Augment { crop: Crop::Pad(pad), flip: true, ..Augment::NONE };
        let draw = augment.draw(&mut stream(1, Purpose::Augment, 0, 0, sample), h, w);
        let image: Vec<f32> = (1..=n).map(|v| v as f32).collect();
        let mut out = vec![0.0; n];
        draw.apply(&image, &mut out, shape).unwrap();
        // unapply . apply restores exactly the shown elements and touches no other.
        let mut back = vec![-1.0; n];
        draw.unapply(&out, &mut back, shape).unwrap();
        let visible = out.iter().filter(|v| **v != 0.0).count();
        prop_assert_eq!(back.iter().filter(|v| **v != -1.0).count(), visible);
        for (b, i) in back.iter().zip(&image) {
            prop_assert!(*b == -1.0 || b == i);
        }
        // apply . unapply is the identity on augmented images that are zero outside.
        let mut again = vec![9.0; n];
        draw.apply(&back, &mut again, shape).unwrap();
        prop_assert_eq!(again, out);
    }

    #[test]
    fn bytes_and_floats_agree(sample: u64, image in proptest::collection::vec(any::<u8>(), 2 * 5 * 6)) {
        let shape = [2, 5, 6];
        let draw = "crop:3,flip".parse::<Augment>().unwrap()
            .draw(&mut stream(1, Purpose::Augment, 0, 0, sample), 5, 6);
        let floats: Vec<f32> = image.iter().map(|&v| f32::from(v) / 255.0).collect();
        let (mut a, mut b) = (vec![0.0; 60], vec![0.0; 60]);
        draw.render(&image, &mut a, shape);
        draw.apply(&floats, &mut b, shape).unwrap();
        prop_assert_eq!(a, b);
    }
}
