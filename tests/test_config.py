"""Configurations: defaults, ranges, bases, errors."""

import pytest

from rnndet.config import Config, config_from_dict, config_to_dict, load_config
from rnndet.errors import RnndetError
from rnndet.models.detectors import build_detector


def write(path, text):
    path.write_text(text)
    return path


def test_missing_keys_take_defaults(tmp_path):
    assert load_config(write(tmp_path / "a.toml", "")) == Config()


def test_values_are_read_from_nested_tables(tmp_path):
    path = write(tmp_path / "a.toml", "[model.temporal]\ncell = 'conv_gru'\nlevels = ['0']\n")
    temporal = load_config(path).model.temporal
    assert (temporal.cell, temporal.levels) == ("conv_gru", ("0",))


PATHS = """
data.cache = "cache"
data.train = [{root = "set"}]
data.val = [{root = "none"}]
train.init = "runs/start.pt"
train.teacher = "teacher.pt"
model.options.backbone_weights = "back.pth"
"""


def paths_of(config):
    data, train = config.data, config.train
    roots = [source.root for source in (*data.train, *data.val)]
    return [data.cache, *roots, train.init, train.teacher, config.model.options["backbone_weights"]]


def make_files(folder):
    (folder / "runs").mkdir(parents=True)
    for name in ("cache", "set"):
        (folder / name).mkdir()
    for name in ("runs/start.pt", "teacher.pt", "back.pth"):
        (folder / name).touch()


def test_paths_beside_the_file_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path / "mine")
    config = load_config(write(tmp_path / "mine" / "a.toml", PATHS))
    beside = ["cache", "set", "runs/start.pt", "teacher.pt", "back.pth"]
    expected = [str(tmp_path / "mine" / name) for name in beside]
    assert paths_of(config) == [*expected[:2], "none", *expected[2:]]


def test_paths_of_the_current_folder_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path)
    make_files(tmp_path / "mine")
    config = load_config(write(tmp_path / "mine" / "a.toml", PATHS))
    own = ["cache", "set", "none", "runs/start.pt", "teacher.pt", "back.pth"]
    assert paths_of(config) == own


def test_paths_of_a_base_and_of_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path / "mine")
    write(tmp_path / "mine" / "base.toml", PATHS)
    path = write(tmp_path / "mine" / "a.toml", 'base = "base.toml"')
    config = load_config(path, changes=["train.teacher=teacher.pt"])
    assert config.train.init == str(tmp_path / "mine" / "runs/start.pt")
    assert config.train.teacher == "teacher.pt"


def test_name_of_weights_is_never_a_file_beside_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "everyday").touch()
    config = load_config(write(tmp_path / "mine" / "a.toml", "train.init = 'everyday'"))
    assert config.train.init == "everyday"


@pytest.mark.parametrize("tree", ["data = 1", "data.train = 'x'", "data.train = [{root = 1}]",
                                  "train = []", "train.init = 2", "data.train = [3]"])  # fmt: skip
def test_paths_of_a_wrong_type_are_errors(tmp_path, tree):
    with pytest.raises(RnndetError, match="must be"):
        load_config(write(tmp_path / "a.toml", tree))


def test_unknown_key_names_the_nearest(tmp_path):
    path = write(tmp_path / "a.toml", "[train]\nstep = 5\n")
    with pytest.raises(RnndetError, match=r"train\.step is unknown; did you mean 'steps'"):
        load_config(path)


def test_key_that_was_renamed_names_the_new_one(tmp_path):
    path = write(tmp_path / "a.toml", "[train]\nlr_trunk = 0.1\n")
    with pytest.raises(RnndetError, match=r"train\.lr_trunk is now called train\.lr_backbone"):
        load_config(path)


def test_set_changes_a_value(tmp_path):
    path = write(tmp_path / "a.toml", "[train]\nsteps = 5\n")
    config = load_config(path, changes=["train.steps=7", "model.temporal.cell=none"])
    assert (config.train.steps, config.model.temporal.cell) == (7, "none")


def test_set_without_a_value_is_an_error(tmp_path):
    with pytest.raises(RnndetError, match="expected KEY=VALUE"):
        load_config(write(tmp_path / "a.toml", ""), changes=["train.steps"])


def test_base_is_overlaid_by_the_file(tmp_path):
    write(tmp_path / "base.toml", "[train]\nsteps = 5\nbatch = 3\n")
    config = load_config(write(tmp_path / "a.toml", "base = 'base.toml'\n[train]\nsteps = 9\n"))
    assert (config.train.steps, config.train.batch) == (9, 3)


def test_base_of_a_base_is_refused(tmp_path):
    write(tmp_path / "c.toml", "")
    write(tmp_path / "b.toml", "base = 'c.toml'\n")
    with pytest.raises(RnndetError, match="one level"):
        load_config(write(tmp_path / "a.toml", "base = 'b.toml'\n"))


def test_plain_form_round_trips(tmp_path):
    config = load_config(write(tmp_path / "a.toml", "[augment]\ncrop = [64, 96]\n"))
    assert config_from_dict(config_to_dict(config), where="test") == config


@pytest.mark.parametrize("text", ["[train\n", "a = 1\na = 2\n", "\x00"])
def test_broken_toml_is_one_clear_line(tmp_path, text):
    with pytest.raises(RnndetError, match="not valid TOML"):
        load_config(write(tmp_path / "a.toml", text))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(RnndetError, match="no such config file"):
        load_config(tmp_path / "none.toml")


def test_file_over_1_mb_is_refused_unread(tmp_path):
    path = write(tmp_path / "a.toml", "[train\n" + "#" * 1_000_000)
    with pytest.raises(RnndetError, match=r"a\.toml: larger than 1 MB"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nlr = '1e-4'\n", r"train\.lr must be float, found '1e-4'"),
        ("[train]\nlr = -1.0\n", r"train\.lr = -1\.0 must be not negative"),
        ("[train]\nlr = true\n", r"train\.lr must be float, found True"),
        ("[train]\nsteps = 0\n", r"train\.steps = 0 must be at least 1"),
        ("[train]\nlr = nan\n", r"train\.lr = nan must be"),
        ("train = 3\n", r"train must be a table"),
        ("[model.temporal]\nlevels = '0'\n", r"model\.temporal\.levels must be a list"),
        ("[augment]\ncrop = [64]\n", r"augment\.crop must have 2 values"),
        ("[model.temporal]\ncel = 'conv_gru'\n", r"model\.temporal\.cel is .* 'cell'"),
        ("base = 3\n", "base must be the name of a file, found 3"),
        ("base = '/dev/zero'\n", "not a file"),
    ],
)
def test_wrong_values_are_one_line_that_names_the_key(tmp_path, text, message):
    with pytest.raises(RnndetError, match=message) as caught:
        load_config(write(tmp_path / "a.toml", text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("size", "big", "size"),
        ("channels", "64", "channels must be int, found '64'"),
        ("strides", [8, "16"], r"strides\.1 must be int, found '16'"),
        ("fold_batch_norm", 1, "fold_batch_norm must be bool, found 1"),
        ("head_convs", 10**9, "head_convs = 1000000000 must be from 0 to 32"),
    ],
)
def test_detector_options_of_a_wrong_type_or_range_are_named(key, value, message):
    options = {"size": [64, 64], "channels": 32} | {key: value}
    with pytest.raises(RnndetError, match=message):
        build_detector("fcos", 2, options)
