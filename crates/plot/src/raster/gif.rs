//! Animations.

use super::png::pixmap;
use crate::{
    error::{Error, Result},
    picture::GENERATOR,
    svg::Svg,
};

/// `frames` as an animated GIF.
pub(crate) fn gif(frames: &[Svg], scale: f32, hundredths: u16) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::Draw(e.to_string());
    let [width, height] = frames.first().ok_or(Error::NoFrame)?.size();
    let side = |v: f64| {
        let pixels = (v * f64::from(scale)).ceil();
        let fits = (1.0..=65535.0).contains(&pixels);
        if fits { Ok(pixels as u16) } else { Err(Error::FrameSize { pixels: pixels as u32 }) }
    };
    let mut bytes = Vec::new();
    let mut encoder =
        gif::Encoder::new(&mut bytes, side(width)?, side(height)?, &[]).map_err(|e| failed(&e))?;
    encoder.set_repeat(gif::Repeat::Infinite).map_err(|e| failed(&e))?;
    encoder
        .write_raw_extension(gif::Extension::Comment.into(), &[GENERATOR.as_bytes()])
        .map_err(|e| failed(&e))?;
    for (i, svg) in frames.iter().enumerate() {
        let mut pixels = pixmap(svg, scale)?;
        let [width, height] = svg.size();
        let (width, height) = (side(width)?, side(height)?);
        // The speed goes from 1 (best) to 30 (fastest); drawings have few colours, so 10 loses
        // nothing.
        let mut frame = gif::Frame::from_rgba_speed(width, height, pixels.data_mut(), 10);
        frame.delay = if i + 1 == frames.len() { hundredths.saturating_mul(4) } else { hundredths };
        encoder.write_frame(&frame).map_err(|e| failed(&e))?;
    }
    drop(encoder);
    Ok(bytes)
}
