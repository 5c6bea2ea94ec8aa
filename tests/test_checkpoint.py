"""Checkpoints: save, load, refuse."""

import hashlib
import os
import pickle
import zipfile

import pytest
import torch

from conftest import tiny_config, tiny_model
from rnndet.errors import OutputError, WeightsError
from rnndet.models import checkpoint
from rnndet.models import zoo as published
from rnndet.models.checkpoint import load_model, model_content, read_checkpoint, save_checkpoint


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


def test_checkpoint_of_format_1_has_its_names_changed(saved):
    model, path = saved

    def as_format_1(content):
        content["format"] = 1
        content["model"] = {
            name.replace("temporal.", "memory."): t for name, t in content["model"].items()
        }
        content["config"]["model"]["temporal"]["site"] = "trunk"
        content["config"]["train"]["freeze"] = ["trunk", "memory"]
        content["config"]["train"]["lr_trunk"] = content["config"]["train"].pop("lr_backbone")

    rewrite(path, as_format_1)
    content = read_checkpoint(path)
    assert content["model"].keys() == model.state_dict().keys()
    assert content["config"]["model"]["temporal"]["site"] == "backbone"
    assert content["config"]["train"]["freeze"] == ["backbone", "temporal"]
    assert "lr_backbone" in content["config"]["train"]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match="neither a file nor a published name"):
        load_model(tmp_path / "none.pt")


def test_truncated_file_is_refused(saved):
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
    with pytest.raises(WeightsError, match="not an rnndet checkpoint"):
        load_model(tmp_path / "m.pt")


def test_nan_weights_are_refused_by_name(saved):
    _, path = saved
    name = "temporal.fusions.0.gate.bias"
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
    monkeypatch.setattr(published, "WEIGHTS_DIR", tmp_path)
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


# other files, and checkpoints made to do harm


def refused(path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(WeightsError) as caught:
        load_model(path)
    line = str(caught.value)
    assert "\n" not in line and path.name in line
    assert len(line) < 1000
    return line


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_is_named(tmp_path):
    module = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    module.save(str(tmp_path / "m.pt"))
    assert "a TorchScript model" in refused(tmp_path / "m.pt")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("m.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", "a safetensors file"),
        ("m.pt", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", "a safetensors file"),
        ("m.onnx", b"\x08\x07\x12\x07pytorch", "an ONNX model"),
        ("m.pt", pickle.dumps({"format": 1}), "a bare pickle"),
        ("m.engine", b"ftrt", "a TensorRT engine"),
    ],
)
def test_other_kinds_of_files_are_named_and_explained(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    line = refused(tmp_path / name)
    assert kind in line and "rnndet train" in line


def test_torch_export_program_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("m/archive_format", "pt2")
    assert "torch.export" in refused(tmp_path / "m.pt2")


def test_archive_that_unpacks_into_more_is_refused(saved):
    _, path = saved
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert "compressed" in refused(path)


def test_weights_of_another_architecture_are_one_line_with_five_names(saved, tmp_path):
    _, path = saved
    other = model_content(tiny_model(cell="conv_gru"), tiny_config(cell="conv_gru"), step=0)
    rewrite(path, lambda content: content.update(model=other["model"]))
    line = refused(path)
    assert "FCOS with 2 classes" in line
    assert line.count("temporal.cells.") == 5


@pytest.mark.parametrize("change", [lambda t: t.half(), lambda t: t.to(torch.int32)])
def test_weights_of_another_dtype_are_refused_by_name(saved, change):
    _, path = saved
    name = "temporal.fusions.0.gate.bias"
    rewrite(path, lambda content: content["model"].update({name: change(content["model"][name])}))
    assert f"{name}: (" in refused(path)


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.eye(3).to_sparse(), "not a plain tensor"),
        (torch.zeros(1).expand(10**12), "larger than its storage"),
    ],
)
def test_tensor_that_is_sparse_or_larger_than_its_file_is_refused(tmp_path, tensor, reason):
    content = {"format": 1, "model": {"weight": tensor}, "classes": ["a"], "config": {"model": {}}}
    torch.save(content, tmp_path / "m.pt")
    line = refused(tmp_path / "m.pt")
    assert reason in line and "model.weight" in line


def test_configuration_that_asks_for_a_huge_model_is_refused_without_building_it(saved):
    _, path = saved
    rewrite(path, lambda c: c["config"]["model"]["temporal"].update(hidden=2_000_000))
    assert "does not fit" in refused(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("config"),
        lambda content: content.pop("classes"),
        lambda content: content.update(classes=[1, 2]),
        lambda content: content.update(model=[]),
        lambda content: content["model"].update(extra="text"),
        lambda content: content["config"].pop("model"),
    ],
)
def test_missing_and_wrong_parts_are_refused(saved, change):
    _, path = saved
    rewrite_raw(path, change)
    refused(path)


def rewrite_raw(path, change):
    """As `rewrite`, for content that `read_checkpoint` would refuse afterwards."""
    content = read_checkpoint(path)
    change(content)
    torch.save(content, path)


def test_flipped_bit_is_noticed_by_the_archives_checksum_without_a_sha256(saved):
    _, path = saved
    content = read_checkpoint(path)
    torch.save(content, path)
    data = bytearray(path.read_bytes())
    tensor = max(content["model"].values(), key=lambda t: t.numel())
    place = bytes(data).index(tensor.numpy().tobytes()[:64])
    data[place] ^= 1
    path.write_bytes(data)
    assert "damaged: checksum of" in refused(path)
