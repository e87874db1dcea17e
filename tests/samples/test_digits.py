"""The digits that come with the package are those of scikit-learn."""

import runpy
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from pipeline.samples import SampleSet

DATA = Path(__file__).parent.parent.parent / "data"


def test_the_digits_are_fifty_of_each_and_small():
    samples = SampleSet.from_source(DATA / "digits")
    assert samples.summary() == "500 images, 10 classes (smallest: 0, 50)"
    assert samples.targets["label"].counts == {str(digit): 50 for digit in range(10)}
    assert sum(path.stat().st_size for path in samples.sources) < 400_000


def test_every_picture_is_its_original_scaled_up():
    images, labels = load_digits(return_X_y=True)
    for path in (DATA / "digits").rglob("*.png"):
        with Image.open(path) as picture:
            assert (picture.mode, picture.size) == ("L", (32, 32))
            small = np.asarray(picture.resize((8, 8), Image.Resampling.BOX)) * (16 / 255)
        row = int(path.stem)
        assert str(labels[row]) == path.parent.name
        assert np.corrcoef(small.ravel(), images[row])[0, 1] > 0.98


def test_the_script_writes_the_same_pixels_again(tmp_path):
    script = tmp_path / "make_digits.py"
    script.write_text((DATA / "make_digits.py").read_text())
    runpy.run_path(str(script), run_name="__main__")
    names = SampleSet.from_folder(tmp_path / "digits").ids
    assert names == SampleSet.from_folder(DATA / "digits").ids
    for name in names:
        pair = (Image.open(folder / "digits" / name) for folder in (tmp_path, DATA))
        ours, theirs = (np.asarray(picture) for picture in pair)
        np.testing.assert_array_equal(ours, theirs)
