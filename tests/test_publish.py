"""Publishing weights."""

import pytest
import torch

from conftest import tiny_config, tiny_model
from rnndet.errors import RnndetError
from rnndet.models import zoo as published
from rnndet.models.checkpoint import load_model, model_content, read_checkpoint, save_checkpoint
from rnndet.models.publish import publish


@pytest.fixture
def run(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(published, "WEIGHTS_DIR", folder)
    content = model_content(tiny_model(), tiny_config(), step=3)
    content["config"]["data"]["cache"] = "/secret/place"
    content["config"]["train"]["init"] = "/secret/start.pt"
    content["config"]["train"]["teacher"] = "/secret/teacher.pt"
    content["config"]["model"]["options"]["backbone_weights"] = "/secret/backbone.pth"
    content["optimizer"] = {"state": torch.zeros(10)}
    save_checkpoint(tmp_path / "run.pt", content)
    return tmp_path / "run.pt"


def test_published_weights_load_by_name(run):
    publish(run, "tiny", licence="Apache-2.0")
    model = load_model("tiny")
    for name, tensor in tiny_model().state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_published_weights_hold_neither_paths_nor_optimiser_state(run):
    path = publish(run, "tiny", licence="Apache-2.0")
    assert b"secret" not in path.read_bytes()
    assert "optimizer" not in read_checkpoint(path)


def test_entries_of_other_weights_are_kept(run):
    publish(run, "tiny", licence="Apache-2.0")
    publish(run, "other", licence="Apache-2.0")
    publish(run, "tiny", licence="MIT")
    table = published.published_weights()
    assert set(table) == {"tiny", "other"}
    assert table["tiny"]["licence"] == "MIT"


def test_invalid_name_is_refused(run):
    with pytest.raises(RnndetError, match="lower-case letters"):
        publish(run, "../tiny", licence="Apache-2.0")


def test_weights_over_the_size_limit_leave_the_published_ones(run, monkeypatch):
    path = publish(run, "tiny", licence="Apache-2.0")
    before = path.read_bytes()
    monkeypatch.setattr("rnndet.models.publish.MAX_BYTES", 1000)
    with pytest.raises(RnndetError, match="the limit is 16 MB"):
        publish(run, "tiny", licence="Apache-2.0")
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.part*"))
