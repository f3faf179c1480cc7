//! Snow, frost, fog and brightness.

use super::{Draws, PlanarImage, Severity, frost::texture, motion, plasma::plasma};

/// Snowflakes that fall, seen twice (the second time upside down), over a whitened image.
pub(super) fn snow(x: &mut PlanarImage, severity: Severity, draws: &mut dyn Draws) {
    let (mean, deviation, zoom, least, [radius, sigma], kept) = severity.of([
        (0.1, 0.2, 1.0, 0.6, [8.0, 3.0], 0.95),
        (0.1, 0.2, 1.0, 0.5, [10.0, 4.0], 0.9),
        (0.15, 0.3, 1.75, 0.55, [10.0, 4.0], 0.9),
        (0.25, 0.3, 2.25, 0.6, [12.0, 6.0], 0.85),
        (0.3, 0.3, 1.25, 0.65, [14.0, 12.0], 0.8),
    ]);
    let (size, scale) = ([x.height, x.width], x.scale());
    let mut flakes = PlanarImage::zeros([1, x.height, x.width]);
    flakes.values.iter_mut().for_each(|v| *v = mean + deviation * draws.normal());
    flakes = flakes.zoomed(zoom);
    flakes.each(|v| if v < least { 0.0 } else { v });
    flakes.truncate();
    let angle = draws.between(-135.0, -45.0);
    motion::blur(&mut flakes.values, size, radius * scale, sigma * scale, angle);
    let grey = x.grey();
    let turned = flakes.values.iter().rev();
    let layer: Vec<f64> = flakes.values.iter().zip(turned).map(|(a, b)| a + b).collect();
    for plane in x.planes_mut() {
        for ((v, grey), snow) in plane.iter_mut().zip(&grey).zip(&layer) {
            *v = kept * *v + (1.0 - kept) * v.max(grey * 1.5 + 0.5) + snow;
        }
    }
}

/// Blends with a texture of ice.
pub(super) fn frost(x: &mut PlanarImage, severity: Severity, draws: &mut dyn Draws) {
    let ice = texture([x.channels, x.height, x.width], draws);
    blend(x, &ice, severity);
}

/// The published blend of image and ice.
pub(super) fn blend(x: &mut PlanarImage, ice: &PlanarImage, severity: Severity) {
    let (own, other) = severity.of([(1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)]);
    x.values.iter_mut().zip(&ice.values).for_each(|(v, ice)| *v = own * *v + other * ice);
}

/// Adds a height map and scales back to the image's brightest value.
pub(super) fn fog(x: &mut PlanarImage, severity: Severity, draws: &mut dyn Draws) {
    let (amount, decay) =
        severity.of([(0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)]);
    let side = x.height.max(x.width).next_power_of_two();
    let map = plasma(side, decay, draws);
    let most = x.values.iter().fold(0f64, |most, v| most.max(*v));
    let width = x.width;
    for plane in x.planes_mut() {
        for (p, v) in plane.iter_mut().enumerate() {
            let fog = map[p / width * side + p % width];
            *v = (*v + amount * fog) * most / (most + amount);
        }
    }
}

/// Raises the value of HSV: the largest channel grows by a constant, hue and saturation stay.
pub(super) fn brightness(x: &mut PlanarImage, severity: Severity) {
    let more = severity.of([0.05, 0.1, 0.15, 0.2, 0.3]);
    let size = x.height * x.width;
    for p in 0..size {
        let places = (0..x.channels).map(|c| c * size + p);
        // Colours only where there are three channels: others are grey ones.
        let groups: Vec<Vec<usize>> = if x.channels == 3 {
            vec![places.collect()]
        } else {
            places.map(|place| vec![place]).collect()
        };
        for group in groups {
            let value = group.iter().fold(0f64, |most, &i| most.max(x.values[i]));
            let raised = (value + more).min(1.0);
            for i in group {
                x.values[i] = if value > 0.0 { x.values[i] / value * raised } else { raised };
            }
        }
    }
}
