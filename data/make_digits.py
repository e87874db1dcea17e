"""Write data/digits: 500 small pictures of handwritten digits, 50 in each of ten class folders.

    python data/make_digits.py

The pictures are the first 50 of each digit in scikit-learn's `load_digits` (8 x 8 pixels of 0
to 16), scaled up fourfold. The same versions of Pillow and zlib write the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

PER_CLASS = 50
SIDE = 32


def main() -> None:
    folder = Path(__file__).parent / "digits"
    images, labels = load_digits(return_X_y=True)
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True, exist_ok=True)
        for place in np.flatnonzero(labels == digit)[:PER_CLASS]:
            picture = enlarged(images[place].reshape(8, 8))
            picture.save(folder / str(digit) / f"{place:04}.png", compress_level=9)


def enlarged(pixels: np.ndarray) -> Image.Image:
    """Scale 8 x 8 values of 0 to 16 up to a grey picture, white on black."""
    grey = np.round(pixels * (255 / 16)).astype(np.uint8)
    return Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


if __name__ == "__main__":
    main()
