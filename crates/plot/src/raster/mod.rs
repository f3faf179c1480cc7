//! Turns drawings into pixels, where the build has the features for it.

#[cfg(feature = "gif")]
mod gif;
#[cfg(feature = "png")]
mod png;

use crate::{error::Result, svg::Svg};

/// `svg` on white as a PNG file, with `scale` pixels for each pixel of the drawing.
///
/// # Errors
/// A size outside the limits of a picture, or a build without the feature `png`.
pub fn png(svg: &Svg, scale: f32) -> Result<Vec<u8>> {
    #[cfg(feature = "png")]
    return png::png(svg, scale);
    #[cfg(not(feature = "png"))]
    return {
        let _ = (svg, scale);
        Err(crate::Error::NotBuilt { format: "PNG", feature: "png" })
    };
}

/// `frames` as an animated GIF that repeats. Each frame is shown for `hundredths` hundredths of a
/// second, the last one four times as long.
///
/// # Errors
/// No frame, frames of different sizes, a size above GIF's limit, or a build without the feature
/// `gif`.
pub fn gif(frames: &[Svg], scale: f32, hundredths: u16) -> Result<Vec<u8>> {
    #[cfg(feature = "gif")]
    return gif::gif(frames, scale, hundredths);
    #[cfg(not(feature = "gif"))]
    return {
        let _ = (frames, scale, hundredths);
        Err(crate::Error::NotBuilt { format: "GIF", feature: "gif" })
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn a_build_without_a_format_says_which_feature_adds_it() {
        let svg = Svg::new(20.0, 10.0, "");
        match (png(&svg, 1.0), cfg!(feature = "png")) {
            (Ok(bytes), true) => assert!(bytes.starts_with(b"\x89PNG")),
            (Err(Error::NotBuilt { feature: "png", .. }), false) => {}
            (other, _) => panic!("{other:?}"),
        }
        match (gif(&[svg], 1.0, 10), cfg!(feature = "gif")) {
            (Ok(bytes), true) => assert!(bytes.starts_with(b"GIF89a")),
            (Err(Error::NotBuilt { feature: "gif", .. }), false) => {}
            (other, _) => panic!("{other:?}"),
        }
    }

    #[cfg(feature = "gif")]
    #[test]
    fn every_file_says_near_its_beginning_what_made_it() {
        let svg = Svg::new(20.0, 10.0, &"long title ".repeat(500));
        let files = [
            svg.finish().unwrap().into_bytes(),
            png(&svg, 2.0).unwrap(),
            gif(&[svg.clone(), svg], 1.0, 10).unwrap(),
        ];
        for file in files {
            let start = String::from_utf8_lossy(&file[..file.len().min(1024)]).into_owned();
            assert!(start.contains(crate::GENERATOR), "{start:.40}");
        }
    }

    #[cfg(feature = "gif")]
    #[test]
    fn what_no_file_can_hold_is_refused() {
        let svg = |side| Svg::new(side, side, "");
        assert!(matches!(png(&svg(30_000.0), 1.0), Err(Error::PictureSize { .. })));
        assert!(matches!(png(&svg(0.0), 1.0), Err(Error::PictureSize { .. })));
        assert!(matches!(gif(&[], 1.0, 10), Err(Error::NoFrame)));
        assert!(matches!(gif(&[svg(70_000.0)], 1.0, 10), Err(Error::FrameSize { .. })));
    }
}
