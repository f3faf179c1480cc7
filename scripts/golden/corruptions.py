#!/usr/bin/env python3
"""Golden values of the 15 corruptions of CIFAR-10-C at severities 1 to 5, on one 32x32 picture, from NumPy, SciPy, scikit-image, OpenCV
and Pillow: the libraries that the published images were made with. ImageMagick's motion blur is written out; `--imagemagick` holds it
against the library itself (Wand).

Needs: numpy scipy scikit-image opencv-python-headless pillow safetensors (and wand).
"""

import argparse
import io
import math
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from scipy import ndimage, stats
from skimage import color, filters

OUT = Path(__file__).resolve().parents[2] / "crates/robustness/tests/golden/corruptions.safetensors"


class Draws:
    """A linear congruential generator (Knuth's MMIX) that the test has too: uniforms of 24 bits, normals by Box and Muller in f64."""

    def __init__(self, seed):
        self.state = seed

    def uniform(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 40) / 2**24

    def normal(self):
        a, b = self.uniform(), self.uniform()
        return math.sqrt(-2 * math.log(1 - a)) * math.cos(2 * math.pi * b)

    def chw(self, draw):
        """An array [32, 32, 3], drawn channel by channel."""
        return np.array([draw() for _ in range(3 * 32 * 32)]).reshape(3, 32, 32).transpose(1, 2, 0)

    def plane(self, draw):
        return np.array([draw() for _ in range(32 * 32)]).reshape(32, 32)

    def between(self, low, high):
        return low + (high - low) * self.uniform()


def picture():
    """Slopes, a disk, stripes, and black and white corners: [32, 32, 3] bytes."""
    y, x = np.mgrid[:32, :32]
    base = np.stack([8 * x, 255 - 7 * y, 4 * (x + y)], 2)
    base[(x - 20) ** 2 + (y - 11) ** 2 < 49] = [210, 60, 90]
    base[22:28][:, ::2] = [30, 140, 250]
    base[:4, :4], base[-4:, -4:] = 0, 255
    return base.clip(0, 255).astype(np.uint8)


def gaussian_noise(x, k, draws):
    return x + draws.chw(draws.normal) * [0.04, 0.06, 0.08, 0.09, 0.10][k]


def shot_noise(x, k, draws):
    photons = [500, 250, 100, 75, 50][k]
    return stats.poisson.ppf(draws.chw(draws.uniform), x * photons).clip(0) / photons


def impulse_noise(x, k, draws):
    pairs = np.array([draws.uniform() for _ in range(2 * x.size)]).reshape(3, 32, 32, 2).transpose(1, 2, 0, 3)
    out = x.copy()
    hit, white = pairs[..., 0] <= [0.01, 0.02, 0.03, 0.05, 0.07][k], pairs[..., 1] <= 0.5
    out[hit & white], out[hit & ~white] = 1, 0
    return out


def defocus_blur(x, k, _):
    radius, smooth = [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)][k]
    grid = np.arange(-8, 9)
    disk = (grid[None] ** 2 + grid[:, None] ** 2 <= radius**2).astype(np.float32)
    kernel = cv2.GaussianBlur(disk / disk.sum(), ksize=(3, 3), sigmaX=smooth)
    return np.stack([cv2.filter2D(x[..., c], -1, kernel) for c in range(3)], 2)


def glass_blur(x, k, draws):
    sigma, reach, times = [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)][k]
    bytes_ = as_bytes(filters.gaussian(x, sigma=sigma, channel_axis=-1))
    for _ in range(times):
        for row in range(32 - reach, reach, -1):
            for column in range(32 - reach, reach, -1):
                dx, dy = int(draws.uniform() * 2 * reach) - reach, int(draws.uniform() * 2 * reach) - reach
                # As published: the two sides are views, so the first assignment changes what the second reads.
                a, b = bytes_[row, column], bytes_[row + dy, column + dx]
                bytes_[row, column], bytes_[row + dy, column + dx] = b, a
    return filters.gaussian(bytes_ / 255, sigma=sigma, channel_axis=-1)


def imagemagick_motion(bytes_, radius, sigma, angle):
    """MotionBlurImage of ImageMagick 6 (16 bits a value within) on bytes [H, W] or [H, W, C]; written as bytes, it rounds down."""
    width = 2 * math.ceil(radius) + 1
    kernel = np.exp(-(np.arange(width) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    py, px = width * math.cos(math.radians(angle)), width * math.sin(math.radians(angle))
    rows, columns = np.mgrid[: bytes_.shape[0], : bytes_.shape[1]]
    out = np.zeros(bytes_.shape)
    for i in range(width):
        dx, dy = math.ceil(i * py / math.hypot(px, py) - 0.5), math.ceil(i * px / math.hypot(px, py) - 0.5)
        out += kernel[i] * bytes_[(rows + dy).clip(0, bytes_.shape[0] - 1), (columns + dx).clip(0, bytes_.shape[1] - 1)]
    return (np.floor(out * 257 + 0.5) // 257).astype(np.uint8)


def motion_blur(x, k, draws):
    radius, sigma = [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)][k]
    return imagemagick_motion(np.uint8(np.round(x * 255)), radius, sigma, draws.between(-45, 45)) / 255


def zoomed(x, factor):
    shown = math.ceil(32 / factor)
    top = (32 - shown) // 2
    big = ndimage.zoom(x[top : top + shown, top : top + shown], (factor, factor, 1), order=1)
    trim = (big.shape[0] - 32) // 2
    return big[trim : trim + 32, trim : trim + 32]


def zoom_blur(x, k, _):
    factors = [np.arange(1, 1.06, 0.01), np.arange(1, 1.11, 0.01), np.arange(1, 1.16, 0.01), np.arange(1, 1.21, 0.01), np.arange(1, 1.26, 0.01)][k]
    x = x.astype(np.float32)
    return (x + sum(zoomed(x, factor) for factor in factors)) / (len(factors) + 1)


def plasma(decay, draws):
    """Diamond-square on a torus of 32x32, scaled to [0, 1]."""
    side, step, rough = 32, 32, 100.0
    land = np.zeros((side, side))
    while step >= 2:
        half = step // 2
        shape = (side // step,) * 2

        def jitter():
            return rough * np.array([draws.between(-rough, rough) for _ in range(shape[0] * shape[1])]).reshape(shape)

        corners = land[::step, ::step]
        ring = corners + np.roll(corners, -1, 0) + np.roll(corners, -1, 1) + np.roll(np.roll(corners, -1, 0), -1, 1)
        land[half::step, half::step] = ring / 4 + jitter()
        middles = land[half::step, half::step]
        land[::step, half::step] = (middles + np.roll(middles, 1, 0) + corners + np.roll(corners, -1, 1)) / 4 + jitter()
        land[half::step, ::step] = (middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 0)) / 4 + jitter()
        step, rough = half, rough / decay
    land -= land.min()
    return land / land.max()


def snow(x, k, draws):
    mean, deviation, zoom, least, radius, sigma, kept = [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ][k]
    flakes = zoomed((mean + deviation * draws.plane(draws.normal))[..., None], zoom)[..., 0]
    flakes[flakes < least] = 0
    flakes = as_bytes(flakes)
    layer = imagemagick_motion(flakes, radius, sigma, draws.between(-135, -45))[..., None] / 255
    x = x.astype(np.float32)
    grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None]
    x = kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5)
    return x + layer + np.rot90(layer, 2)


def frost(x, k, draws):
    """The blend; the texture is plain noise, handed to both sides."""
    own, ice = [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)][k]
    return own * x + ice * draws.chw(draws.uniform)


def fog(x, k, draws):
    amount, decay = [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)][k]
    most = x.max()
    return (x + amount * plasma(decay, draws)[..., None]) * most / (most + amount)


def brightness(x, k, _):
    hsv = color.rgb2hsv(x)
    hsv[..., 2] = (hsv[..., 2] + [0.05, 0.1, 0.15, 0.2, 0.3][k]).clip(0, 1)
    return color.hsv2rgb(hsv)


def contrast(x, k, _):
    mean = x.mean((0, 1), keepdims=True)
    return (x - mean) * [0.75, 0.5, 0.4, 0.3, 0.15][k] + mean


def elastic_transform(x, k, draws):
    shift, sigma, corners = [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)][k]
    x = x.astype(np.float32)
    points = np.float32([[26, 26], [26, 6], [6, 6]])
    moved = points + np.float32([[draws.between(-32 * corners, 32 * corners) for _ in "xy"] for _ in points])
    x = cv2.warpAffine(x, cv2.getAffineTransform(points, moved), (32, 32), borderMode=cv2.BORDER_REFLECT_101)
    fields = []
    for _ in "xy":
        field = np.array([draws.between(-1, 1) for _ in range(1024)]).reshape(32, 32)
        fields.append(filters.gaussian(field, sigma=32 * sigma, mode="reflect", truncate=3) * 32 * shift)
    y, column = np.mgrid[:32, :32]
    places = [y + fields[1], column + fields[0]]
    return np.stack([ndimage.map_coordinates(x[..., c], places, order=1, mode="reflect") for c in range(3)], 2)


def pixelate(x, k, _):
    side = int(32 * [0.95, 0.9, 0.85, 0.75, 0.65][k])
    image = Image.fromarray(np.uint8(np.round(x * 255)))
    return np.asarray(image.resize((side, side), Image.BOX).resize((32, 32), Image.BOX)) / 255


def jpeg_compression(x, k, _):
    file = io.BytesIO()
    Image.fromarray(np.uint8(np.round(x * 255))).save(file, "JPEG", quality=[80, 65, 58, 50, 40][k])
    return np.asarray(Image.open(file)) / 255


ALL = [
    gaussian_noise,
    shot_noise,
    impulse_noise,
    defocus_blur,
    glass_blur,
    motion_blur,
    zoom_blur,
    snow,
    frost,
    fog,
    brightness,
    contrast,
    elastic_transform,
    pixelate,
    jpeg_compression,
]


def as_bytes(values):
    """Clipped to [0, 1] and truncated, as the published files are. What is a whole level up to rounding is that level."""
    levels = np.asarray(values, dtype=np.float64).clip(0, 1) * 255
    return np.uint8(np.floor(levels + 1e-4))


def check_imagemagick():
    from wand.image import Image as Wand

    for radius, sigma, angle in [(6, 1, 10), (6, 2, -45), (9, 2.5, 33), (14, 12, -100), (8, 3, -60)]:
        for mode, bytes_ in (("RGB", picture()), ("L", picture()[..., 0])):
            file = io.BytesIO()
            Image.fromarray(bytes_, mode).save(file, "PNG")
            with Wand(blob=file.getvalue()) as wand:
                wand.motion_blur(radius, sigma, angle)
                theirs = np.asarray(Image.open(io.BytesIO(wand.make_blob("png"))).convert(mode))
            ours = imagemagick_motion(bytes_, radius, sigma, angle)
            difference = np.abs(theirs.astype(int) - ours)
            print(f"motion blur {radius} {sigma} {angle:5} {mode:3}: largest difference {difference.max()}, share {np.mean(difference > 0):.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imagemagick", action="store_true")
    if parser.parse_args().imagemagick:
        return check_imagemagick()
    bytes_ = picture()
    out = {"picture": np.ascontiguousarray(bytes_.transpose(2, 0, 1))}
    for number, corrupt in enumerate(ALL):
        for k in range(5):
            draws = Draws(1000 * number + k)
            found = as_bytes(corrupt(bytes_ / 255, k, draws))
            out[f"{corrupt.__name__.replace('_', '-')}-{k + 1}"] = np.ascontiguousarray(found.transpose(2, 0, 1))
    save_file(out, OUT)
    print(OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
