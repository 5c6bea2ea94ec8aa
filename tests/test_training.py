"""Training runs."""

import dataclasses
import json
import signal
from itertools import count
from types import SimpleNamespace

import pytest
import torch

from conftest import SIZE_HW, TRAINING_TREE, detections, tiny_config, tiny_model, write_coco_vid
from rnndet.benchmarks.training import measure_training
from rnndet.config import SourceConfig, TrainConfig, config_from_dict
from rnndet.data.formats import read_set
from rnndet.errors import OutputError, RnndetError, WeightsError
from rnndet.evaluation.predict import SCORE_FLOOR, predict
from rnndet.inference.stream import Stream
from rnndet.models.checkpoint import load_model, read_checkpoint, save_checkpoint
from rnndet.models.detectors.base import Losses
from rnndet.models.video_detector import VideoDetector, build_model
from rnndet.structures import Detections
from rnndet.system.distributed import World
from rnndet.system.signals import Stopped
from rnndet.training import optim
from rnndet.training.checkpoints import start_from
from rnndet.training.criterion import Criterion
from rnndet.training.log import MetricsLog
from rnndet.training.run import build_run, read_source, read_sources, run_training
from rnndet.training.samples import GAP, sample_sheet
from rnndet.training.trainer import Trainer
from rnndet.training.validation import score
from rnndet.video.image import read_image


def config_for(root, **train):
    tree = TRAINING_TREE | {"data": {"train": [{"root": str(root)}], "holdout": ["1"]}}
    return config_from_dict(tree | {"train": TRAINING_TREE["train"] | train}, where="test")


def with_data(config, **changes):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def train(root, folder, *, resume=False, **changes):
    run_training(config_for(root, **changes), folder, device="cpu", resume=resume, quiet=True)


def log_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def calls_of_criterion(monkeypatch):
    """A list that gets the criterion and the supervised frames of each call in training."""
    calls, forward = [], Criterion.forward

    def spied(self, batch, state, supervised):
        calls.append((self, supervised))
        return forward(self, batch, state, supervised)

    monkeypatch.setattr(Criterion, "forward", spied)
    return calls


def validation_of(monkeypatch, figures):
    """Make validation return these AP50 in turn; returns the list of validated weights."""
    validated, numbers = [], iter(figures)

    def scored(model, *_, **__):
        validated.append({n: t.clone() for n, t in model.state_dict().items()})
        return {"AP50": next(numbers), "AP": 0.0}

    monkeypatch.setattr("rnndet.training.validation.score", scored)
    return validated


def test_run_leaves_weights_log_and_figures(coco_vid_root, tmp_path):
    train(coco_vid_root, tmp_path / "run")
    assert load_model(tmp_path / "run" / "weights.pt").classes == ("square", "bar")
    log = log_of(tmp_path / "run")
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4]
    assert "val/AP50" in log[-1]
    assert read_checkpoint(tmp_path / "run" / "best.pt")["figures"].keys() >= {"AP", "AP50"}


def test_videos_of_data_val_are_validated_on(coco_vid_root):
    config = config_for(coco_vid_root)
    train_sets, held = read_sources(with_data(config, holdout=(), val=config.data.train))
    assert len(held.videos) == len(train_sets[0].videos) == 2


def test_validation_videos_of_one_name_are_refused(coco_vid_root):
    config = config_for(coco_vid_root)  # holds v1 out
    message = r"^validation video 'v1' is in data\.holdout and in data\.val\.0;"
    with pytest.raises(RnndetError, match=message):
        read_sources(
            dataclasses.replace(
                config, data=dataclasses.replace(config.data, val=config.data.train)
            )
        )
    with pytest.raises(RnndetError, match=r"'v0' is in data\.val\.0 and in data\.val\.1;"):
        read_sources(with_data(config, holdout=(), val=config.data.train * 2))


@pytest.mark.parametrize(("most", "seen"), [(2, 2), (0, 6)])
def test_first_frames_of_a_video_are_validated_on(coco_vid_root, tmp_path, monkeypatch, most, seen):
    step, frames = Stream.step, []

    def counted(self, frame):
        frames.append(frame.index)
        return step(self, frame)

    monkeypatch.setattr(Stream, "step", counted)
    train(coco_vid_root, tmp_path / "run", steps=1, validate_frames=most)
    assert frames == list(range(seen))  # 0: all of them


def test_held_out_videos_are_not_trained_on(coco_vid_root):
    (train_set,), held = read_sources(config_for(coco_vid_root))
    assert [v.name for v in train_set.videos] == ["v0"]
    assert [v.name for v in held.videos] == ["v1"]


def test_weight_of_a_source_is_its_share_of_the_clips(coco_vid_root, tmp_path):
    """The hold-out leaves the first source v0 alone; the second has both."""
    config = config_for(coco_vid_root, steps=12)
    (source,) = config.data.train
    sources = (dataclasses.replace(source, weight=1e6), source)
    _, dataset = build_run(
        with_data(config, train=sources), tmp_path / "run", device="cpu", quiet=True
    )
    assert all(dataset[i].place.startswith("v0 ") for i in range(len(dataset)))


def test_seed_determines_the_clips(coco_vid_root, tmp_path):
    configs = [config_for(coco_vid_root, seed=seed) for seed in (0, 0, 1)]
    first, same, other = (
        build_run(config, tmp_path / str(i), device="cpu", quiet=True)[1][0].frames
        for i, config in enumerate(configs)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_run_records_its_versions(coco_vid_root, tmp_path):
    train(coco_vid_root, tmp_path / "run", steps=1)
    versions = json.loads((tmp_path / "run" / "versions.json").read_text())
    assert torch.__version__.startswith(versions["torch"])
    assert "commit" in versions


def test_resumed_run_equals_an_uninterrupted_one(coco_vid_root, tmp_path, monkeypatch):
    train(coco_vid_root, tmp_path / "whole")
    step = Trainer.train_one_step

    def stopped_at_three(self, *args):
        if self.state.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return step(self, *args)

    monkeypatch.setattr(Trainer, "train_one_step", stopped_at_three)
    with pytest.raises(Stopped) as stopped:
        train(coco_vid_root, tmp_path / "parts")
    assert stopped.value.exit_code == 143
    assert read_checkpoint(tmp_path / "parts" / "last.pt")["step"] == 3  # inside a clip
    monkeypatch.setattr(Trainer, "train_one_step", step)
    train(coco_vid_root, tmp_path / "parts", resume=True)
    whole = read_checkpoint(tmp_path / "whole" / "last.pt")
    parts = read_checkpoint(tmp_path / "parts" / "last.pt")
    for kind in ("model", "average"):
        for name, tensor in whole[kind].items():
            assert torch.equal(tensor, parts[kind][name]), (kind, name)


def test_resume_restores_the_random_state(coco_vid_root, tmp_path):
    trainer, _ = build_run(config_for(coco_vid_root), tmp_path / "run", device="cpu", quiet=True)
    saved, drawn = trainer.state_dict(), torch.rand(3)
    trainer.load_state_dict(saved)
    assert torch.equal(torch.rand(3), drawn)


def test_saved_weights_are_the_averaged_ones(coco_vid_root, tmp_path):
    train(coco_vid_root, tmp_path / "run")
    last = read_checkpoint(tmp_path / "run" / "last.pt")
    kept = read_checkpoint(tmp_path / "run" / "weights.pt")["model"]
    assert all(torch.equal(tensor, kept[name]) for name, tensor in last["average"].items())
    assert not all(torch.equal(tensor, kept[name]) for name, tensor in last["model"].items())


def test_first_average_is_mostly_the_first_step(coco_vid_root, tmp_path):
    trainer, dataset = build_run(config_for(coco_vid_root, steps=1), tmp_path / "run", quiet=True)
    begin = {n: t.clone() for n, t in trainer.model.state_dict().items()}
    trainer.train(dataset)
    for name, tensor in trainer.model.state_dict().items():
        if tensor.is_floating_point():
            expected = begin[name].lerp(tensor, 1 - 2 / 11)  # decay (1 + n) / (10 + n), n = 1
            torch.testing.assert_close(trainer.average.tensors[name], expected)


def test_saved_weights_are_the_validated_ones(coco_vid_root, tmp_path, monkeypatch):
    validated = validation_of(monkeypatch, [0.5])
    train(coco_vid_root, tmp_path / "run")
    kept = read_checkpoint(tmp_path / "run" / "weights.pt")["model"]
    assert all(torch.equal(tensor, validated[0][name]) for name, tensor in kept.items())


def test_validation_during_training_changes_nothing(coco_vid_root, tmp_path):
    train(coco_vid_root, tmp_path / "one")
    train(coco_vid_root, tmp_path / "two", validate_every=1)
    one, two = (read_checkpoint(tmp_path / n / "last.pt")["model"] for n in ("one", "two"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_best_weights_are_not_replaced_by_worse_ones(coco_vid_root, tmp_path, monkeypatch):
    validation_of(monkeypatch, [0.4, 0.5, 0.3, 0.45])
    train(coco_vid_root, tmp_path / "run", validate_every=1)
    best = read_checkpoint(tmp_path / "run" / "best.pt")
    assert (best["figures"]["AP50"], best["step"]) == (0.5, 2)


def test_best_weights_are_not_replaced_by_worse_ones_after_a_resume(
    coco_vid_root, tmp_path, monkeypatch
):
    validation_of(monkeypatch, [0.1, 0.5, 0.4])
    train(coco_vid_root, tmp_path / "run", steps=2, validate_every=1)
    train(coco_vid_root, tmp_path / "run", steps=3, resume=True)
    assert read_checkpoint(tmp_path / "run" / "last.pt")["step"] == 3
    assert read_checkpoint(tmp_path / "run" / "best.pt")["figures"]["AP50"] == 0.5


def test_validation_keeps_weak_detections(coco_vid_root, monkeypatch):
    """AP needs detections below the threshold of inference."""
    floors, detect = [], VideoDetector.step

    def spied(self, *args, **settings):
        floors.extend(one.min_score for one in settings["limits"])
        return detect(self, *args, **settings)

    monkeypatch.setattr(VideoDetector, "step", spied)
    config, model = config_for(coco_vid_root), tiny_model()
    score(model, read_sources(config)[1], config, cache=None)
    assert set(floors) == {SCORE_FLOOR}


def test_run_folder_in_use_is_refused(coco_vid_root, tmp_path):
    train(coco_vid_root, tmp_path / "run", steps=2)
    with pytest.raises(OutputError, match="`resume=True`"):
        train(coco_vid_root, tmp_path / "run", steps=2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"steps": 8}, "train.steps was 4, is 8: the learning rates follow the schedule of the new "
         "settings; at step 4 they are 0.619 of their peaks, not 0.02"),
        ({"steps": 8, "schedule": "constant"}, "train.schedule was cosine, is constant: "),
        ({}, None),
    ],
)  # fmt: skip
def test_resume_says_that_the_schedule_of_the_learning_rate_changes(
    coco_vid_root, tmp_path, caplog, changes, expected
):
    train(coco_vid_root, tmp_path / "run")
    train(coco_vid_root, tmp_path / "run", resume=True, **changes)
    said = [line for line in caplog.messages if "learning rates" in line]
    assert len(said) == (expected is not None)
    assert expected is None or expected in said[0]


def test_resume_with_more_steps_of_a_constant_rate_is_silent(coco_vid_root, tmp_path, caplog):
    train(coco_vid_root, tmp_path / "run", schedule="constant")
    train(coco_vid_root, tmp_path / "run", resume=True, schedule="constant", steps=5)
    assert "learning rates" not in caplog.text


def test_resume_without_a_run_is_an_error(coco_vid_root, tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        train(coco_vid_root, tmp_path / "run", resume=True)


def test_loss_falls_on_a_set_of_two_clips(coco_vid_root, tmp_path):
    train(coco_vid_root, tmp_path / "run", steps=32, lr=3e-3)
    losses = [line["loss"] for line in log_of(tmp_path / "run") if "loss" in line]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_rows_in_two_pieces_train_as_at_once(coco_vid_root, tmp_path):
    """With the distillation loss, every row has equal weight."""
    for pieces in (1, 2):
        changes = {"accumulate": pieces, "detection": 0.0, "distillation": 1.0}
        train(coco_vid_root, tmp_path / str(pieces), **changes)
    one, two = ([line["loss"] for line in log_of(tmp_path / n) if "loss" in line] for n in "12")
    assert two == pytest.approx(one, rel=1e-3)


def test_rows_in_two_pieces_have_the_gradient_of_all(coco_vid_root, tmp_path):
    """AdamW hides a factor; the norm, which is what gets clipped, does not."""
    for pieces in (1, 2):
        changes = {"accumulate": pieces, "detection": 0.0, "distillation": 1.0, "steps": 1}
        train(coco_vid_root, tmp_path / str(pieces), **changes)
    one, two = (log_of(tmp_path / n)[0]["norm"] for n in "12")
    assert two == pytest.approx(one, rel=1e-3)


def test_rows_in_two_pieces_keep_their_own_state(coco_vid_root, tmp_path):
    """After three steps the second row is inside a clip; the weights stay as they are."""
    for pieces in (1, 2):
        rates = {"lr": 1e-12, "lr_backbone": 1e-12, "lr_temporal": 1e-12}
        train(coco_vid_root, tmp_path / str(pieces), accumulate=pieces, steps=3, **rates)
    one, two = (read_checkpoint(tmp_path / n / "last.pt")["state"] for n in "12")
    for level, tensors in one.items():
        for a, b in zip(tensors, two[level], strict=True):
            assert torch.allclose(a, b, atol=1e-4)


def test_gradient_is_clipped_to_its_limit(coco_vid_root, tmp_path):
    """Far below AdamW's eps nothing moves any more."""
    bias = "detector.net.head.classification_head.cls_logits.bias"
    train(coco_vid_root, tmp_path / "cut", steps=1, clip_norm=1e-14)
    train(coco_vid_root, tmp_path / "run", steps=1)
    cut, moved = (read_checkpoint(tmp_path / n / "last.pt")["model"][bias] for n in ("cut", "run"))
    start = build_model(config_for(coco_vid_root).model, ("square", "bar")).state_dict()[bias]
    assert (cut - start).abs().max() < 1e-7
    assert (moved - start).abs().max() > 1e-5


def test_supervised_frames_vary_between_steps(coco_vid_root, tmp_path, monkeypatch):
    calls = calls_of_criterion(monkeypatch)
    config = config_for(coco_vid_root, steps=8)
    config = dataclasses.replace(config, clip=dataclasses.replace(config.clip, labelled=0.5))
    run_training(config, tmp_path / "run", device="cpu", quiet=True)
    supervised = [tuple(frames.flatten().tolist()) for _, frames in calls]
    assert {sum(frames) for frames in supervised} == {2}
    assert len(set(supervised)) > 1


def test_activations_are_recomputed_in_as_many_chunks_as_configured(
    coco_vid_root, tmp_path, monkeypatch
):
    calls = calls_of_criterion(monkeypatch)
    train(coco_vid_root, tmp_path / "run", steps=1, activation_checkpoints=2)
    assert [criterion.activation_checkpoints for criterion, _ in calls] == [2]


def test_stability_needs_no_distillation(coco_vid_root, tmp_path):
    train(coco_vid_root, tmp_path / "run", steps=1, stability=0.5)
    line = log_of(tmp_path / "run")[0]
    assert "stability" in line
    assert "distillation" not in line


def test_stability_is_part_of_the_loss(coco_vid_root, tmp_path):
    train(coco_vid_root, tmp_path / "run", stability=0.5, detection=0.0, distillation=1.0)
    lines = [line for line in log_of(tmp_path / "run") if "loss" in line]
    found = [line["distillation"] + 0.5 * line["stability"] for line in lines]
    assert found == pytest.approx([line["loss"] for line in lines], rel=1e-3)


def watch_states(monkeypatch, *, spoilt=()):
    """A list that gets, for each row of each training step, whether its state comes in empty.

    In the calls numbered in `spoilt` the state that the criterion gets is NaN.
    """
    forward, seen, calls = Criterion.forward, [], count()

    def watched(self, batch, state, supervised):
        rows, tensors = len(batch.begins), [t for level in (state or {}).values() for t in level]
        seen.extend(not any(t[row].any() for t in tensors) for row in range(rows))
        if next(calls) in spoilt:
            state = {n: tuple(torch.full_like(t, torch.nan) for t in ts) for n, ts in state.items()}
        return forward(self, batch, state, supervised)

    monkeypatch.setattr(Criterion, "forward", watched)
    return seen


@pytest.mark.parametrize("pieces", [1, 2])
def test_state_is_empty_in_the_rows_that_begin_a_clip_and_in_no_other(
    coco_vid_root, tmp_path, monkeypatch, pieces
):
    """Clips of two windows; the second row begins its clips one step after the first."""
    empty = watch_states(monkeypatch)
    train(coco_vid_root, tmp_path / "run", accumulate=pieces)
    assert empty == [True, True, False, True, True, False, False, True]


def test_state_is_empty_after_a_step_that_was_not_finite(coco_vid_root, tmp_path, monkeypatch):
    empty = watch_states(monkeypatch, spoilt=[1])
    config = config_for(coco_vid_root)
    config = dataclasses.replace(config, clip=dataclasses.replace(config.clip, windows=5))
    run_training(config, tmp_path / "run", device="cpu", quiet=True)
    assert empty == [True, True, False, False, True, True, False, False]
    skipped = [line["step"] for line in log_of(tmp_path / "run") if "skipped" in line]
    assert skipped == [1]


class OneOfTwo(World):
    """The first of two processes; the other has equal losses, of three times as many items."""

    def __init__(self):
        super().__init__(0, 2)

    def sum(self, tensor):
        return tensor * 4

    def gather(self, value):
        return [value]

    def gather_all(self, value):
        return [value, value]

    def parallel(self, module, device):
        return module

    def from_first(self, tensor):
        pass

    def wait(self):
        pass


def test_losses_of_a_process_are_weighted_by_its_share_of_the_matches(coco_vid_root, tmp_path):
    config, folder = config_for(coco_vid_root, steps=1), tmp_path / "two"
    run_training(config, folder, device="cpu", quiet=True, world=OneOfTwo())
    train(coco_vid_root, tmp_path / "alone", steps=1, batch=1)  # the same row
    two, alone = (log_of(tmp_path / name)[0] for name in ("two", "alone"))
    for name in ("loss", "classification"):
        assert two[name] == pytest.approx(alone[name] / 4 * 2, rel=1e-3)


def test_rows_that_cannot_be_divided_evenly_are_refused(coco_vid_root, tmp_path):
    with pytest.raises(RnndetError, match=r"train\.batch = 2 must be a multiple"):
        train(coco_vid_root, tmp_path / "run", accumulate=3)


def test_frozen_part_trains_once_unfrozen(coco_vid_root, tmp_path):
    head = "detector.net.head.classification_head.cls_logits.bias"
    train(coco_vid_root, tmp_path / "run", freeze=["head"], unfreeze=3, save_every=1)
    frozen = read_checkpoint(tmp_path / "run" / "last.pt")["model"][head]
    train(coco_vid_root, tmp_path / "all", freeze=["head"])
    assert not torch.equal(read_checkpoint(tmp_path / "all" / "last.pt")["model"][head], frozen)


def test_damaged_last_checkpoint_falls_back_to_the_previous_one(coco_vid_root, tmp_path, caplog):
    train(coco_vid_root, tmp_path / "run")
    last = tmp_path / "run" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    train(coco_vid_root, tmp_path / "run", resume=True)
    assert "resuming from last.prev.pt" in caplog.text
    assert read_checkpoint(last)["step"] == 4


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_checkpoint_of_a_newer_version_stops_a_resumed_run(coco_vid_root, tmp_path, name):
    folder = tmp_path / "run"
    train(coco_vid_root, folder)
    save_checkpoint(folder / name, read_checkpoint(folder / "last.pt") | {"format": 3})
    kept = (folder / name).read_bytes()
    with pytest.raises(WeightsError, match=rf"{name}: written by a newer version .*\(format 3\)"):
        train(coco_vid_root, folder, steps=6, resume=True)
    assert (folder / name).read_bytes() == kept


def test_five_consecutive_non_finite_losses_stop_the_run(coco_vid_root, tmp_path, monkeypatch):
    from rnndet.models.detectors.fcos import FCOS

    nan = torch.tensor(float("nan"), requires_grad=True)
    bad = Losses({"bad": nan}, torch.tensor(1.0))
    monkeypatch.setattr(FCOS, "losses", lambda *_: bad)
    with pytest.raises(RnndetError, match=r"5 steps in a row.*on v[01] frames \d to \d"):
        train(coco_vid_root, tmp_path / "run", steps=20)


def test_good_step_ends_a_series_of_skipped_ones(coco_vid_root, tmp_path, monkeypatch):
    watch_states(monkeypatch, spoilt=range(1, 12, 2))
    train(coco_vid_root, tmp_path / "run", steps=12)
    assert sum("skipped" in line for line in log_of(tmp_path / "run")) == 6


def test_finite_loss_with_a_gradient_that_is_not_finite_is_skipped(
    coco_vid_root, tmp_path, monkeypatch
):
    from rnndet.models.detectors.fcos import FCOS

    def losses(self, prepared, features):
        zero = 0 * sum(level.sum() for level in features.values())
        return Losses({"bad": zero.abs().sqrt()}, torch.tensor(1.0))  # 0, with a NaN gradient

    monkeypatch.setattr(FCOS, "losses", losses)
    with pytest.raises(RnndetError, match="5 steps in a row"):
        train(coco_vid_root, tmp_path / "run", steps=20)
    assert log_of(tmp_path / "run")[0].get("skipped")


def test_detection_weight_0_leaves_the_detection_losses_out(coco_vid_root, tmp_path):
    train(coco_vid_root, tmp_path / "run", steps=1, detection=0.0, distillation=1.0)
    line = log_of(tmp_path / "run")[0]
    assert "distillation" in line
    assert "classification" not in line


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (0, 2)])
def test_validation_runs_at_most_so_many_videos(tmp_path, monkeypatch, limit, count):
    names = []

    def recorded(stream, videos, **options):
        pairs = list(videos)
        names.extend(video.name for video, _ in pairs)
        return predict(stream, pairs, **options)

    write_coco_vid(tmp_path, videos=3)
    monkeypatch.setattr("rnndet.training.validation.predict", recorded)
    config = with_data(config_for(tmp_path, steps=1, validate_videos=limit), holdout=("1", "2"))
    run_training(config, tmp_path / "run", device="cpu", quiet=True)
    assert len(names) == count  # 0: all of them


def test_init_loads_the_weights_that_fit(tmp_path):
    from rnndet.models.checkpoint import model_content, save_checkpoint

    frame_model = tiny_model(seed=1, cell="none")
    save_checkpoint(tmp_path / "f.pt", model_content(frame_model, tiny_config(cell="none"), step=0))
    video_model = tiny_model(seed=2)
    memory_before = {n: t.clone() for n, t in video_model.temporal.state_dict().items()}
    start_from(video_model, tmp_path / "f.pt")
    for name, tensor in frame_model.state_dict().items():
        assert torch.equal(tensor, video_model.state_dict()[name])
    for name, tensor in memory_before.items():
        assert torch.equal(tensor, video_model.temporal.state_dict()[name])


def test_frozen_parts_do_not_train():
    model = tiny_model()
    optim.freeze_parts(model, ("backbone", "neck"))
    trained = {optim.part_of(n) for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"head", "temporal"}


def test_every_parameter_belongs_to_a_part():
    parts = {optim.part_of(name) for name, _ in tiny_model().named_parameters()}
    assert parts == set(optim.PARTS)


def test_temporal_module_has_its_own_rate_and_biases_no_decay():
    model = tiny_model()
    config = TrainConfig(lr=1.0, lr_backbone=2.0, lr_temporal=3.0, weight_decay=0.5)
    groups = optim.adamw(model, config).param_groups
    assert {g["lr"] for g in groups} == {1.0, 2.0, 3.0}
    for group in groups:
        decays = {0.5 if p.dim() > 1 else 0.0 for p in group["params"]}
        assert decays == {group["weight_decay"]}


def test_freezing_everything_is_an_error():
    model = tiny_model()
    with pytest.raises(RnndetError, match="no parameter to train"):
        optim.build_optimizer(model, TrainConfig(freeze=optim.PARTS))


def test_rate_warms_up_then_falls_to_two_percent():
    def factor(step):
        return optim.rate_factor(step, TrainConfig(steps=100, warmup=10))

    assert factor(0) == pytest.approx(1 / 11)
    assert factor(10) == pytest.approx(1.0)
    assert factor(55) == pytest.approx(0.02 + 0.98 / 2)
    assert factor(100) == pytest.approx(0.02)


def test_rate_falls_by_ten_at_each_milestone():
    config = TrainConfig(schedule="step", milestones=(20, 30), warmup=0)
    factors = [optim.rate_factor(step, config) for step in (19, 20, 30)]
    assert factors == pytest.approx([1.0, 0.1, 0.01])


def test_average_moves_towards_the_model():
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 0.0)
    average = optim.AveragedWeights(layer, 0.9)
    torch.nn.init.constant_(layer.weight, 1.0)
    average.update(layer)  # decay (1 + 1) / (10 + 1)
    assert average.tensors["weight"].item() == pytest.approx(1 - 2 / 11)


def test_set_of_other_classes_is_refused(coco_vid_root, tmp_path):
    other = tmp_path / "other"
    (other / "annotations").mkdir(parents=True)
    text = (coco_vid_root / "annotations" / "train.json").read_text()
    (other / "annotations" / "train.json").write_text(text.replace('"bar"', '"disc"'))
    config = config_for(coco_vid_root)
    sources = (*config.data.train, dataclasses.replace(config.data.train[0], root=str(other)))
    with pytest.raises(RnndetError, match="has the classes square, disc"):
        run_training(with_data(config, train=sources), tmp_path / "run", quiet=True)


def test_trained_temporal_module_keeps_its_amplitude(coco_vid_root, tmp_path):
    train(coco_vid_root, tmp_path / "first", steps=2)
    start = str(tmp_path / "first" / "weights.pt")
    train(coco_vid_root, tmp_path / "second", steps=2, init=start, seed=5)
    name = "temporal.fusions.0.scale"
    first = read_checkpoint(tmp_path / "first" / "weights.pt")["model"][name]
    assert read_checkpoint(tmp_path / "second" / "weights.pt")["model"][name] == first


def test_temporal_module_is_calibrated_in_the_first_step_only(coco_vid_root, tmp_path):
    for steps in (1, 4):
        train(coco_vid_root, tmp_path / str(steps), steps=steps)
    name = "temporal.fusions.0.scale"
    one, four = (read_checkpoint(tmp_path / n / "last.pt")["model"][name] for n in "14")
    assert one == four


def test_unknown_option_of_a_source_is_refused():
    with pytest.raises(RnndetError, match=r"data\.train\.0\.options\.split: is no option"):
        read_source(SourceConfig(options={"split": "val"}), what="data.train.0")


def test_benchmark_reports_the_stages_of_a_step(coco_vid_root):
    report = measure_training(config_for(coco_vid_root), steps=2, device="cpu")
    assert report["frames_per_step"] == 4
    assert sum(report["share"].values()) == pytest.approx(1.0)
    assert all(report["share"][name] > 0 for name in ("load", "forward", "backward", "optimise"))


def test_out_of_memory_error_suggests_smaller_settings(coco_vid_root, tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(Criterion, "forward", full)
    with pytest.raises(RnndetError, match=r"out of memory with 2 rows of 2 frames.*accumulate = 2"):
        train(coco_vid_root, tmp_path / "run")


def test_log_has_the_gates(coco_vid_root, tmp_path):
    train(coco_vid_root, tmp_path / "run", steps=2, log_every=2)
    line = next(line for line in log_of(tmp_path / "run") if "loss" in line)
    assert {name for name in line if name.endswith("/f")} >= {"gate/0/f"}
    assert all(0 <= line[name] <= 1 for name in line if name.startswith("gate/"))


def test_validation_leaves_a_sheet_of_samples(coco_vid_root, tmp_path):
    train(coco_vid_root, tmp_path / "run", steps=1)
    assert read_image(tmp_path / "run" / "samples.jpg").ndim == 3


class DetectsWithState(torch.nn.Module):
    """Detects nothing with an empty state, and one box with the state of an earlier frame."""

    classes, temporal = ("square", "bar"), SimpleNamespace(levels=("0",))

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(1, 1, 1, 1))

    def forward(self, pixels, state=None):
        is_empty = state is None or not state["0"][0].any()
        found = Detections.empty() if is_empty else detections([[30, 8, 90, 56]], [0.9], [0])
        return SimpleNamespace(state={"0": (self.one,)}, detections=[[found]])


def test_sheet_shows_detections_with_the_state_of_earlier_frames(coco_vid_root, tmp_path):
    videos = read_set("coco_vid", coco_vid_root, "train").videos
    sample_sheet(DetectsWithState(), videos, tmp_path / "samples.jpg", cache=None)
    row = read_image(tmp_path / "samples.jpg")[: SIZE_HW[0]].astype(int)
    width = SIZE_HW[1]
    empty, carried = (row[:, (width + GAP) * k : (width + GAP) * k + width] for k in (1, 2))
    assert row.shape[1] == 3 * width + 2 * GAP
    differs = abs(carried - empty).max(-1) > 60
    assert differs[:, 88:92].any(1).sum() > 40  # the right side of the box


def test_tensorboard_gets_the_figures(tmp_path):
    pytest.importorskip("tensorboard")
    log = MetricsLog(tmp_path / "metrics.jsonl", board=True)
    log.write(step=1, loss=2.0, places="clip a")
    log.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes()
