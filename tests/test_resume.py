"""Resuming a training run: what belongs to a parameter, a class or a row finds it again."""

import dataclasses
import json
import shutil

import pytest
import torch

from conftest import CLASSES, TRAINING_TREE, error_line, tiny_model, write_coco_vid
from rnndet.cli import train as train_tool
from rnndet.config import TrainConfig, config_from_dict
from rnndet.errors import WeightsError
from rnndet.models.checkpoint import read_checkpoint, save_checkpoint
from rnndet.specs import TrackClassSpec
from rnndet.training import optim
from rnndet.training.run import build_run, run_training

SAME_RATES = {"lr": 1e-3, "lr_backbone": 1e-3, "lr_temporal": 1e-3}


def config_for(root, **changes):
    """The tiny training; changes: of [train], or another section as a dictionary."""
    sections = {name: changes.pop(name) for name in ("clip", "augment", "model") if name in changes}
    tree = TRAINING_TREE | {"data": {"train": [{"root": str(root)}], "holdout": ["1"]}}
    tree |= {"train": TRAINING_TREE["train"] | changes}
    for name, values in sections.items():
        tree[name] = tree[name] | values
    return config_from_dict(tree, where="test")


def train(root, folder, *, resume=False, **changes):
    run_training(config_for(root, **changes), folder, device="cpu", resume=resume, quiet=True)


def resumed(root, folder, **changes):
    config = config_for(root, **changes)
    return build_run(config, folder, device="cpu", resume=True, quiet=True)[0]


def refusal(root, folder, **changes):
    """The one line with which a run is not resumed."""
    with pytest.raises(WeightsError) as caught:
        resumed(root, folder, **changes)
    line = str(caught.value)
    assert "\n" not in line and line.startswith(str(folder / "last.pt"))
    return line


def rewrite(folder, change):
    content = read_checkpoint(folder / "last.pt")
    change(content)
    save_checkpoint(folder / "last.pt", content)


def without_names(content):
    """As versions before stored the optimiser's state."""
    for group in content["optimizer"]["param_groups"]:
        del group["names"]


def moments(trainer):
    """The first moment of each parameter by its name."""
    names = {id(p): n for n, p in trainer.model.named_parameters()}
    return {names[id(p)]: state["exp_avg"] for p, state in trainer.optimizer.state.items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """The data of a run, its folder, and the first moments after its two steps."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("data")
    write_coco_vid(root)
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(root, folder, steps=2)
    return root, folder, moments(resumed(root, folder))


@pytest.fixture
def run(two_steps, tmp_path):
    """A copy of the run that a test may change: the data, the folder, the first moments."""
    root, folder, expected = two_steps
    shutil.copytree(folder, tmp_path / "run")
    return root, tmp_path / "run", expected


# the optimiser


def test_each_parameter_gets_its_own_moments_with_rates_that_have_become_equal(run):
    root, folder, expected = run
    assert_equal(moments(resumed(root, folder, **SAME_RATES)), expected)
    assert len({float(value.abs().sum()) for value in expected.values()}) > 20


def test_run_with_equal_rates_is_resumed_with_others(coco_vid_root, tmp_path):
    train(coco_vid_root, tmp_path / "run", steps=2, **SAME_RATES)
    same = moments(resumed(coco_vid_root, tmp_path / "run", **SAME_RATES))
    assert_equal(moments(resumed(coco_vid_root, tmp_path / "run")), same)


def test_equal_rates_are_resumed_on_the_command_line(run, tmp_path):
    root, folder, _ = run
    path = tmp_path / "run.toml"
    path.write_text(
        f"""[model.options]
size = [64, 96]
backbone = "mobilenet_v3_small"
strides = [8, 16]
channels = 32
head_convs = 1
extra_levels = 0
fold_batch_norm = true
resize_in_training = false
[model.temporal]
levels = ["0", "1"]
hidden = 8
[[data.train]]
root = "{root}"
[clip]
length = 2
windows = 2
[augment]
crop = [64, 64]
[train]
steps = 3
batch = 2
warmup = 1
"""
    )
    rates = [f"--set=train.{name}={value}" for name, value in SAME_RATES.items()]
    args = [str(path), "--out", str(folder), "--resume", "--device", "cpu", "--quiet", *rates]
    assert train_tool.main(args) == 0
    assert read_checkpoint(folder / "last.pt")["step"] == 3


def test_groups_of_the_optimiser_do_not_depend_on_the_values_of_the_rates():
    model = tiny_model()
    found = [
        [group["names"] for group in optim.adamw(model, config).param_groups]
        for config in (TrainConfig(), TrainConfig(**SAME_RATES), TrainConfig(weight_decay=0.0))
    ]
    assert found[0] == found[1] == found[2]


def test_saved_state_holds_the_name_of_each_parameter(run):
    groups = read_checkpoint(run[1] / "last.pt")["optimizer"]["param_groups"]
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, _ in tiny_model().named_parameters())


def test_order_of_the_saved_groups_and_parameters_does_not_matter(run):
    root, folder, expected = run

    def reverse(content):
        groups = content["optimizer"]["param_groups"]
        groups.reverse()
        for group in groups:
            group["names"].reverse()
            group["params"].reverse()

    rewrite(folder, reverse)
    assert_equal(moments(resumed(root, folder)), expected)


def test_two_names_that_are_swapped_are_refused_if_their_shapes_differ(run):
    root, folder, _ = run

    def swap(content):
        names = content["optimizer"]["param_groups"][0]["names"]
        names[0], names[1] = names[1], names[0]

    rewrite(folder, swap)
    assert "the optimiser's exp_avg of detector.net.backbone.body" in refusal(root, folder)


def test_parameter_without_a_state_is_refused_by_name(run):
    root, folder, _ = run
    name = "temporal.fusions.0.gate.bias"

    def drop(content):
        for group in content["optimizer"]["param_groups"]:
            if name in group["names"]:
                del group["params"][group["names"].index(name)]
                group["names"].remove(name)

    rewrite(folder, drop)
    assert f"the optimiser's state lacks 1 parameter ({name}); set train.freeze" in refusal(
        root, folder
    )


def test_name_without_its_number_is_refused(run):
    root, folder, _ = run
    rewrite(folder, lambda c: c["optimizer"]["param_groups"][0]["names"].pop())
    assert "the optimiser's state is damaged or incomplete" in refusal(root, folder)


def test_other_frozen_parts_are_refused_by_name(run):
    root, folder, _ = run
    line = refusal(root, folder, freeze=["head"])
    assert "not trained now (detector.net.head." in line and "train.freeze" in line


@pytest.mark.parametrize(
    ("settings", "later"),
    [
        ({}, {}),
        ({}, SAME_RATES),
        (SAME_RATES, {}),
        ({"freeze": ["backbone"]}, {}),
        ({"freeze": ["backbone"], "unfreeze": 3}, SAME_RATES),
        ({"weight_decay": 0.0}, {}),
    ],
)
def test_run_folder_without_names_is_resumed_by_the_order_of_its_settings(
    coco_vid_root, tmp_path, settings, later
):
    train(coco_vid_root, tmp_path / "run", steps=2, **settings)
    expected = moments(resumed(coco_vid_root, tmp_path / "run", **settings))

    def as_before(content):
        """Groups by the values of rate and decay, numbered in their order."""
        old = content["optimizer"]
        states = {
            name: old["state"].get(place)
            for group in old["param_groups"]
            for name, place in zip(group["names"], group["params"], strict=True)
        }
        names = {name for group in old["param_groups"] for name in group["names"]}
        config = content["config"]["train"]
        groups = {}
        for name, parameter in tiny_model().named_parameters():
            if name in names:
                part = optim.part_of(name)
                rate = config["lr" if part in ("neck", "head") else f"lr_{part}"]
                decay = config["weight_decay"] if parameter.dim() > 1 else 0.0
                groups.setdefault((rate, decay), []).append(name)
        places = iter(range(len(names)))
        numbered = [{name: next(places) for name in members} for members in groups.values()]
        content["optimizer"] = {
            "state": {
                place: states[name]
                for members in numbered
                for name, place in members.items()
                if states[name]
            },
            "param_groups": [{"params": list(members.values())} for members in numbered],
        }

    rewrite(tmp_path / "run", as_before)
    found = moments(resumed(coco_vid_root, tmp_path / "run", **(settings | later)))
    assert_equal(found, expected)


def test_run_folder_without_names_and_with_groups_of_other_sizes_is_refused(run):
    root, folder, _ = run

    def change(content):
        without_names(content)
        content["config"]["train"] |= SAME_RATES

    rewrite(folder, change)
    assert "has no names of parameters, and its groups" in refusal(root, folder)


def test_weight_decay_is_that_of_the_given_configuration(run):
    root, folder, _ = run
    trainer = resumed(root, folder, weight_decay=0.5)
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.0, 0.5}


# weights, averages and the scaler


@pytest.mark.parametrize("kind", ["model", "average"])
def test_missing_weight_or_average_is_refused_by_name(run, kind):
    root, folder, _ = run
    name = "temporal.fusions.0.gate.bias"
    rewrite(folder, lambda content: content[kind].pop(name))
    line = refusal(root, folder)
    assert f"last.pt: {kind}: does not fit" in line and f"{name}: missing" in line


def test_averages_are_loaded_by_name(run):
    root, folder, _ = run

    def reverse(content):
        content["average"] = dict(reversed(content["average"].items()))

    expected = read_checkpoint(folder / "last.pt")["average"]
    rewrite(folder, reverse)
    assert_equal(resumed(root, folder).average.tensors, expected)


def test_run_without_a_loss_scale_is_resumed_with_one(run):
    """As from bfloat16 to float16 on a GPU."""
    root, folder, _ = run
    trainer = resumed(root, folder)
    content = trainer.state_dict()
    assert content["scaler"] == {}
    trainer.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=64.0)
    trainer.load_state_dict(content)
    assert trainer.scaler.get_scale() == 64.0


def test_loss_scale_is_restored(run):
    root, folder, _ = run
    trainer = resumed(root, folder)
    trainer.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=64.0)
    content = trainer.state_dict()
    trainer.scaler = torch.amp.GradScaler("cpu", enabled=True)
    trainer.load_state_dict(content)
    assert trainer.scaler.get_scale() == 64.0


# classes, settings and the recurrent state


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("bar", "square"), "class 1 was bar, is square"),
        (("square", "disc"), "class 2 was disc, is bar"),
        (("square",), "class 2 was none, is bar"),
        ((*CLASSES, "disc"), "class 3 was disc, is none"),
    ],
)
def test_run_of_other_classes_is_refused(run, classes, message):
    root, folder, _ = run
    rewrite(folder, lambda content: content.update(classes=list(classes)))
    assert f"not resumed with other classes: {message}" in refusal(root, folder)


def test_other_model_is_refused_by_the_setting(run):
    root, folder, _ = run
    line = refusal(root, folder, model={"temporal": {"levels": ["0", "1"], "hidden": 16}})
    assert line.endswith("not resumed with another model: model.temporal.hidden was 8, is 16")


def test_settings_of_the_model_that_are_newer_than_the_run_have_their_defaults(run):
    root, folder, expected = run
    rewrite(folder, lambda content: content["config"]["model"]["temporal"].pop("gate_bias"))
    assert_equal(moments(resumed(root, folder)), expected)


def test_settings_of_the_clips_that_are_newer_than_the_run_are_no_change(run, caplog):
    root, folder, _ = run
    rewrite(folder, lambda content: content["config"]["augment"].pop("paste"))
    assert resumed(root, folder).state.recurrent is not None
    assert "have changed" not in caplog.text


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"seed": 5}, "train.seed was 0, is 5"),
        ({"clip": {"windows": 3}}, "clip.windows was 2, is 3"),
        ({"augment": {"crop": [32, 32]}}, "augment.crop was [64, 64], is [32, 32]"),
    ],
)
def test_state_of_other_clips_is_not_carried_into_new_ones(run, caplog, changes, setting):
    root, folder, _ = run
    assert resumed(root, folder, **changes).state.recurrent is None
    assert f"{setting}; the clips will differ, and all rows start with an empty state" in (
        caplog.text
    )


def test_run_goes_on_with_another_crop(run):
    """The saved state is larger than the new features."""
    root, folder, _ = run
    train(root, folder, resume=True, steps=4, augment={"crop": [32, 32]})
    assert read_checkpoint(folder / "last.pt")["step"] == 4


def test_state_is_kept_with_other_validation_videos_and_cache(run, tmp_path, caplog):
    root, folder, _ = run
    config = config_for(root)
    data = dataclasses.replace(config.data, cache=str(tmp_path / "cache"), val=())
    config = dataclasses.replace(config, data=data)
    trainer, _ = build_run(config, folder, device="cpu", resume=True, quiet=True)
    assert trainer.state.recurrent is not None
    assert "have changed" not in caplog.text


def test_random_state_of_a_gpu_is_saved_and_restored(run, monkeypatch):
    root, folder, _ = run
    trainer, restored = resumed(root, folder), []
    trainer.device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor([7]))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *pair: restored.append(pair))
    content = trainer.state_dict() | {"state": {}}
    trainer.load_state_dict(content)
    assert restored == [(torch.tensor([7]), torch.device("cuda", 0))]


def test_other_number_of_processes_is_a_warning(run, caplog):
    root, folder, _ = run
    rewrite(folder, lambda content: content["random"].append(content["random"][0]))
    resumed(root, folder)
    assert "saved by 2 processes, now 1: the random draws" in caplog.text


def test_weights_in_place_of_a_run_are_refused(run):
    root, folder, _ = run
    (folder / "last.pt").write_bytes((folder / "weights.pt").read_bytes())
    line = refusal(root, folder)
    assert "weights without the state of a run (optimizer is missing)" in line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("random", 7),
        ("random", [torch.zeros(3)]),
        ("step", "two"),
        ("best", None),
        ("state", {"0": torch.zeros(2)}),
        ("state", {"0": [torch.tensor(1.0)]}),
        ("state", 3),
        ("average", None),
        ("average_steps", None),
        ("optimizer", None),
        ("classes", 4),
    ],
)
def test_damaged_part_of_a_run_is_refused_in_one_line(run, key, value):
    root, folder, _ = run
    rewrite(folder, lambda content: content.update({key: value}))
    assert refusal(root, folder).count("last.pt") <= 2


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("train"), lambda c: c.update(train="x"), lambda c: c.update(clip="x"),
        lambda c: c.update(data=None),
    ],
)  # fmt: skip
def test_damaged_configuration_of_a_run_is_refused_in_one_line(run, change):
    root, folder, _ = run
    rewrite(folder, lambda content: change(content["config"]))
    assert "config" in refusal(root, folder)


def test_run_of_a_newer_version_is_named_as_such(run):
    root, folder, _ = run
    rewrite(folder, lambda content: content.update(format=99))
    assert (folder / "last.prev.pt").exists()
    assert refusal(root, folder).endswith("written by a newer version of rnndet (format 99)")


@pytest.mark.parametrize(("steps", "said"), [(1, True), (2, True), (3, False)])
def test_run_without_a_step_left_says_so(run, caplog, steps, said):
    root, folder, _ = run
    resumed(root, folder, steps=steps)
    line = f"2 steps are done and train.steps = {steps}: none is left to train"
    assert (line in caplog.text) == said


def test_refused_run_keeps_its_configuration_and_versions(run):
    root, folder, _ = run
    before = {name: (folder / name).read_text() for name in ("config.json", "versions.json")}
    (folder / "versions.json").write_text("{}")
    refusal(root, folder, freeze=["head"], lr=0.5)
    assert (folder / "config.json").read_text() == before["config.json"]
    assert (folder / "versions.json").read_text() == "{}"
    resumed(root, folder, lr=0.5)
    assert json.loads((folder / "config.json").read_text())["train"]["lr"] == 0.5
    assert (folder / "versions.json").read_text() == before["versions.json"]


def test_resuming_where_there_is_no_run_creates_no_folder(run, tmp_path):
    with pytest.raises(WeightsError, match=r"last\.pt: no such file"):
        resumed(run[0], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_refusal_is_one_line_without_a_traceback(run, tmp_path, capsys):
    _, folder, _ = run
    other = tmp_path / "other"
    write_coco_vid(other)
    labels = other / "annotations" / "train.json"
    labels.write_text(labels.read_text().replace('"bar"', '"disc"'))
    path = tmp_path / "run.toml"
    model = read_checkpoint(folder / "last.pt")["config"]["model"]
    options = "\n".join(f"{key} = {value!r}" for key, value in model["options"].items())
    options = options.replace("True", "true").replace("False", "false")
    path.write_text(
        f'[[data.train]]\nroot = "{other}"\n[model.options]\n{options}\n'
        '[model.temporal]\nlevels = ["0", "1"]\nhidden = 8\n'
    )
    code = train_tool.main(
        [str(path), "--out", str(folder), "--resume", "--device", "cpu", "--quiet"]
    )
    assert code == 5
    assert "class 2 was bar, is disc" in error_line(capsys)


def test_track_classes_are_kept(run):
    root, folder, _ = run
    spec = TrackClassSpec(CLASSES, ("area",), (0.0,), (1.0,), ((1.0, 2.0),), (0.0, 0.0))
    rewrite(folder, lambda content: content.update(track_classes=spec.to_dict()))
    assert resumed(root, folder).model.track_classes == spec
