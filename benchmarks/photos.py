"""Photo-like JPEGs for benchmarks: crops of real photos with the detail and size of ImageNet's.

``python benchmarks/photos.py FOLDER --count 2000`` writes them; the same count and seed give
the same files. Needs scikit-image (with pooch, it comes with the ``dev`` extra) for its photos.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

SHAPES = [(500, 375), (500, 375), (500, 333), (375, 500), (333, 500), (640, 480)]
"""Width and height, as often as ImageNet has them."""


def originals() -> list[Image.Image]:
    """Photos that come inside scikit-image and scikit-learn."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    names = ("astronaut", "chelsea", "coffee", "rocket")
    photos = [*(getattr(data, name)() for name in names), *load_sample_images().images]
    return [Image.fromarray(np.asarray(photo)) for photo in photos]


def photo(photos: list[Image.Image], random: np.random.Generator) -> Image.Image:
    """One new picture: a crop of a photo, mirrored, lit anew and lightly grained."""
    width, height = SHAPES[random.integers(len(SHAPES))]
    source = photos[random.integers(len(photos))]
    share = random.uniform(0.6, 1.0)
    scale = share * min(source.width / width, source.height / height)
    crop_width, crop_height = scale * width, scale * height
    left = random.uniform(0, source.width - crop_width)
    top = random.uniform(0, source.height - crop_height)
    box = (left, top, left + crop_width, top + crop_height)
    pixels = np.asarray(source.resize((width, height), Image.Resampling.BICUBIC, box), np.float32)
    if random.random() < 0.5:
        pixels = pixels[:, ::-1]
    pixels = 255 * (pixels / 255) ** random.uniform(0.7, 1.4)
    # Enlarged crops are smooth; grain gives back the detail of a photo at its own size.
    pixels = pixels + random.normal(0, random.uniform(4, 10), (height, width, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_photos(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write ``count`` JPEGs of about 60 to 150 KB, unless they stand there already."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    photos = originals() if missing else []
    for number in missing:
        random = np.random.default_rng((seed, number))
        picture = photo(photos, random)
        quality = int(random.integers(91, 96))
        picture.save(paths[number], quality=quality, subsampling="4:2:0")
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    arguments = parser.parse_args()
    written = write_photos(arguments.folder, arguments.count)
    sizes = [path.stat().st_size for path in written]
    print(f"{len(written)} photos, {np.mean(sizes) / 1000:.0f} KB on average")
