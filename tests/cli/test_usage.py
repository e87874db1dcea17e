"""A wrong command line: one sentence, the nearest name, exit code 2."""

import pytest

WRONG = [
    ("runn photos", "unknown command \"runn\". Did you mean \"run\"?"),
    ("val m photos", "Did you mean \"evaluate\"?"),
    ("fit c m", "Did you mean \"train\"?"),
    ("photos", "Available commands: run, embed, train, finetune, predict, evaluate, backbones"),
    ("run", "`pipeline run` needs SOURCE: A folder with one subfolder per class"),
    ("run photos", "`pipeline run` needs --out: The folder to write into."),
    ("run photos out", "`pipeline run` needs --out"),
    ("run photos --out", "`pipeline run` needs a value after --out"),
    ("run photos --out o --backbon x", "option --backbon for `pipeline run`. Did you mean --b"),
    ("run photos --out o --model x", "Did you mean --backbone?"),
    ("run photos --output o", "Did you mean --out?"),
    ("run photos --project=o", "Did you mean --out?"),
    ("run photos --out o --imgsz 64", "Did you mean --image-size?"),
    ("embed photos c --batch 8", "Did you mean --batch-size?"),
    ("embed photos c --batch-Size 8", "Did you mean --batch-size?"),
    ("run photos --out o --epochs 3", "Did you mean --max-epochs?"),
    ("run photos --out o --dry-run", "unknown option --dry-run for `pipeline run`. See:"),
    ("embed photos c --seed 1", "unknown option --seed for `pipeline embed`"),
    ("embed photos c --config x.toml", "unknown option --config for `pipeline embed`"),
    ("train c m --backbone x", "unknown option --backbone for `pipeline train`"),
    ("predict --model m photos", "MODEL is given by its place, without a flag."),
    ("run --source photos --out o", "SOURCE is given by its place, without a flag."),
    ("predict m", "`pipeline predict` needs SOURCE"),
    ("embed photos", "`pipeline embed` needs CACHE: The HDF5 file to make or to extend."),
    ("embed photos c d", "`pipeline embed` takes nothing more, but got: d."),
    ("embed photos c --image-size 3.5", "'3.5' is not a whole number."),
    ("embed photos c --image-size big", "'big' is not a whole number."),
    ("train c m --seed x", "'x' is not a whole number."),
    ("train c m --test-fraction much", "unable to convert \"much\" into float"),
    ("embed photos c --resize crpo", "\"squash\", \"pad\". Did you mean \"crop\"?"),
    ("train c m --class-weight balnced", "Did you mean \"balanced\"?"),
    ("predict m photos --on-bad-input stop", "Choose from: \"skip\", \"fail\"."),
    ("train c m --seed 1 --seed 2", "--seed specified multiple times"),
    ("embed photos c --no-prune", "unknown option --no-prune for `pipeline embed`"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "sentence"), WRONG, ids=[line for line, _ in WRONG])
def test_a_wrong_command_line_is_explained(refused, line, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refused(2, *line.split())
    assert sentence in said
    assert said.splitlines()[-1].endswith("--help")
    assert not list(tmp_path.iterdir())


OUT_OF_RANGE = [
    ("train c m --seed -1", "seed is -1, but must be from 0 to 4294967295. Leave it out"),
    ("train c m --test-fraction 2", "test fraction is 2.0, but must be at least 0 and below 1"),
    ("train c m --refit --test-fraction 0", "with test fraction 0 none are held out"),
    ("embed photos c --batch-size none", "batch size is 'none', but must be auto or a"),
    ("embed photos c --device gpu", "unknown device 'gpu'"),
    ("embed photos c --precision float8", "unknown precision 'float8'"),
    ("embed photos c --pooling men", "unknown pooling 'men'. Did you mean 'mean'?"),
    ("embed photos c --layers blocks.33", "unknown layer 'blocks.33'. Did you mean 'blocks.3'?"),
    ("embed photos c --backbone eficientnet_lite0", "Did you mean 'efficientnet_lite0'?"),
    ("embed photos c --image-size 0", "image size is 0, but must be at least 1 pixel"),
    ("embed photos c --dry-run --json", "--dry-run makes nothing that --json could tell of"),
    ("predict m photos --min-confidence 7", "min-confidence is 7.0, but must be a probability"),
    ("run photos --out o --target colour", "unknown target 'colour'. Accepted: label."),
    ("run photos --out o --target-kind number", "target kind is 'number', but must be NAME=class"),
    ("run photos --out o --target-kind label=klass", "Did you mean 'class'?"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "sentence"), OUT_OF_RANGE, ids=[line for line, _ in OUT_OF_RANGE])
def test_a_value_out_of_range_is_explained(refused, line, sentence, album, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(album)
    assert sentence in refused(1, *line.split())
