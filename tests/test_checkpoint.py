import hashlib
import os
import pickle

import pytest
import torch

from conftest import tiny_config, tiny_model
from rnndet import checkpoint
from rnndet.checkpoint import load_model, model_content, read_checkpoint, save_checkpoint
from rnndet.errors import OutputError, WeightsError


@pytest.fixture
def saved(tmp_path):
    model = tiny_model()
    save_checkpoint(tmp_path / "m.pt", model_content(model, tiny_config(), step=3))
    return model, tmp_path / "m.pt"


def rewrite(path, change):
    content = read_checkpoint(path)
    change(content)
    save_checkpoint(path, content)


def test_model_comes_back_with_weights_and_classes(saved):
    model, path = saved
    again = load_model(path)
    assert again.classes == model.classes
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert not again.training


def test_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match="neither a file nor a published name"):
        load_model(tmp_path / "none.pt")


def test_cut_file_is_refused(saved):
    _, path = saved
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="incomplete"):
        load_model(path)


def test_empty_file_is_refused(tmp_path):
    (tmp_path / "m.pt").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"m\.pt"):
        load_model(tmp_path / "m.pt")


class Payload:
    def __reduce__(self):
        return os.mkdir, ("payload-ran",)


def test_code_in_a_file_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "model": Payload()}, tmp_path / "m.pt", pickle_module=pickle)
    with pytest.raises(WeightsError, match="refused"):
        load_model(tmp_path / "m.pt")
    assert not (tmp_path / "payload-ran").exists()


def test_other_dictionary_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(1)}, tmp_path / "m.pt")
    with pytest.raises(WeightsError, match="not a rnndet checkpoint"):
        load_model(tmp_path / "m.pt")


def test_nan_weights_are_refused_by_name(saved):
    _, path = saved
    name = "memory.fusions.0.gate.bias"
    rewrite(path, lambda content: content["model"][name].fill_(float("nan")))
    with pytest.raises(WeightsError, match=name):
        load_model(path)


def test_weights_of_other_shape_are_listed(saved):
    _, path = saved
    rewrite(path, lambda content: content.update(classes=["a", "b", "c"]))
    with pytest.raises(WeightsError, match="cls_logits"):
        load_model(path)


def test_damaged_published_weights_are_refused(saved, tmp_path, monkeypatch):
    _, path = saved
    monkeypatch.setattr(checkpoint, "WEIGHTS_DIR", tmp_path)
    good = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "weights.toml").write_text(f'[tiny]\nfile = "m.pt"\nsha256 = "{good}"\n')
    assert load_model("tiny").classes
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="sha256"):
        load_model("tiny")


def test_failed_save_leaves_the_old_file(saved, monkeypatch):
    _, path = saved
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OutputError, match="disk full"):
        save_checkpoint(path, {"format": 1})
    assert path.read_bytes() == before
    assert list(path.parent.glob("*.part")) == []


def test_training_options_of_another_version_do_not_matter(saved):
    _, path = saved
    rewrite(path, lambda content: content["config"]["train"].update(of_the_future=1))
    assert load_model(path).classes


def test_flipped_bit_in_a_tensor_is_noticed(saved, monkeypatch):
    """As a bit that flips before the archive's own checksum is made would be."""
    _, path = saved
    content = read_checkpoint(path)
    digest = checkpoint.content_sha256(content)
    tensor = content["model"][next(iter(content["model"]))]
    tensor.view(-1).view(torch.uint8)[0] ^= 1
    monkeypatch.setattr(checkpoint, "content_sha256", lambda _: digest)
    save_checkpoint(path, content)
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="damaged"):
        read_checkpoint(path)


def test_previous_checkpoint_is_kept_on_request(saved):
    _, path = saved
    content = read_checkpoint(path)
    save_checkpoint(path, content | {"step": 4}, keep_previous=True)
    assert read_checkpoint(path)["step"] == 4
    assert read_checkpoint(checkpoint.previous_of(path))["step"] == 3
