"""`--config`: a TOML file answers for flags that are not given, and for nothing else."""

import pytest


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[trian]\nseed = 1", "unknown table 'trian'. Did you mean 'train'?"),
        ("seed = 1", "'seed' stands outside the tables [embed], [train] and [finetune]."),
        ("[embed]\nbackbon = 'x'", "[embed]: unknown key 'backbon'. Did you mean 'backbone'?"),
        ("[train]\nlayers = 'x'", "[train]: unknown key 'layers'"),
        ("[embed]\nimage_size = 9", "unknown key 'image_size'. Did you mean 'image-size'?"),
        ("[embed", "cannot be read as a configuration: Expected ']'"),
        ("\xff[embed]", "cannot be read as a configuration"),
    ],
)  # fmt: skip
def test_what_no_command_reads_is_named(refused, config, album, text, sentence, tmp_path):
    said = refused(1, "run", album, "--out", tmp_path / "o", "--config", config(text))
    assert "mine.toml" in said
    assert sentence in said
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[embed]\nimage-size = 'big'", "'big' is not a whole number"),
        ("[embed]\nimage-size = 3.5", "'3.5' is not a whole number"),
        ("[embed]\nresize = 'crpo'", 'Did you mean "crop"?'),
        ("[train]\nrefit = 'perhaps'", 'unable to convert "perhaps" into bool'),
        ("[train]\ntest-fraction = 'much'", "into float"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_file(refused, config, album, text, sentence):
    said = refused(2, "run", album, "--out", "o", "--config", config(text))
    assert sentence in said
    assert "mine.toml" in said


def test_a_file_that_is_missing_or_a_folder_is_refused(refused, album, tmp_path):
    said = refused(1, "run", album, "--out", "o", "--config", tmp_path / "nowhere.toml")
    assert "nowhere.toml cannot be read as a configuration: No such file or directory." in said
    assert "Is a directory" in refused(1, "run", album, "--out", "o", "--config", tmp_path)


def test_flags_count_more_than_the_file(refused, config, album, tmp_path):
    """Both are read: the refusal of the second run says which value won."""
    path = config("[train]\ntarget = 'colour'\n")
    out = tmp_path / "o"
    assert "unknown target 'colour'" in refused(1, "run", album, "--out", out, "--config", path)
    for words in (["--target", "shape", "--config", path], [f"--config={path}", "--target=shape"]):
        assert "unknown target 'shape'" in refused(1, "run", album, "--out", out, *words)


def test_one_file_does_not_answer_for_the_next_command(refused, config, album, tmp_path):
    words = ["run", album, "--out", tmp_path / "o"]
    path = config("[train]\ntarget = 'colour'\n")
    assert "unknown target 'colour'" in refused(1, *words, "--config", path)
    assert "'shape'" in refused(1, *words, "--target", "shape")
