import pytest

from rnndet.config import Config, config_from_dict, config_to_dict, load_config
from rnndet.errors import RnndetError


def write(path, text):
    path.write_text(text)
    return path


def test_missing_keys_take_defaults(tmp_path):
    assert load_config(write(tmp_path / "a.toml", "")) == Config()


def test_values_are_read_from_nested_tables(tmp_path):
    path = write(tmp_path / "a.toml", "[model.temporal]\ncell = 'conv_gru'\nlevels = ['0']\n")
    temporal = load_config(path).model.temporal
    assert (temporal.cell, temporal.levels) == ("conv_gru", ("0",))


def test_unknown_key_names_the_nearest(tmp_path):
    path = write(tmp_path / "a.toml", "[train]\nstep = 5\n")
    with pytest.raises(RnndetError, match=r"train\.step is unknown; did you mean 'steps'"):
        load_config(path)


def test_wrong_type_names_the_key(tmp_path):
    path = write(tmp_path / "a.toml", "[train]\nlr = 'fast'\n")
    with pytest.raises(RnndetError, match=r"train\.lr must be float, found 'fast'"):
        load_config(path)


def test_value_out_of_range_names_the_rule(tmp_path):
    path = write(tmp_path / "a.toml", "[train]\nsteps = 0\n")
    with pytest.raises(RnndetError, match=r"train\.steps = 0 must be at least 1"):
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
