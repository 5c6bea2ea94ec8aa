"""Build detector backbones from torchvision's classification networks."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision import models
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from rnndet.errors import RnndetError, WeightsError
from rnndet.messages import counted
from rnndet.models.detectors.downloads import read_published
from rnndet.registry import lookup

# Families whose modules run in the order of registration, batch norm after convolution, as
# IntermediateLayerGetter and folding need.
FAMILIES = ("convnext_", "efficientnet_", "mobilenet_", "resnet", "resnext", "shufflenet_",
            "wide_resnet")  # fmt: skip

# What `_run_layers` found, by the name of the backbone. Every model is built on the meta device
# before it is loaded; most operations run in Python there, which takes 0.07 s.
_LAYERS: dict[str, list[tuple[str, int, int]]] = {}

EXTRA_LEVELS: dict[int, tuple[str, ...]] = {0: (), 1: ("pool",), 2: ("p6", "p7")}


def backbone_names() -> list[str]:
    """torchvision's names of the backbones that `build_backbone` supports."""
    return [name for name in models.list_models(module=models) if name.startswith(FAMILIES)]


def build_backbone(
    name: str,
    *,
    weights: str | None = None,
    strides: Sequence[int] = (8, 16, 32),
) -> tuple[nn.Module, dict[str, str], list[int]]:
    """Build a torchvision backbone; also returns {layer name: level name} and channels per level.

    A level is the last layer with its stride; a stride given twice selects the first and the last.
    Batch norm is frozen: its statistics and its scale are constants. weights: None (random), the
    name of torchvision's published weights for this backbone (may download), or a file ending in
    .pth or .pt with a state_dict of torchvision's classification model. Raises
    `RnndetError` for a name, stride or weights that do not exist, `WeightsError` for weights that
    do not fit.
    """
    if name not in backbone_names():
        raise RnndetError(
            f"model.detector.backbone = {name!r} is unknown; choose one of: "
            + ", ".join(backbone_names())
        )
    classifier = models.get_model(name, weights=None)
    if weights is not None:
        classifier.load_state_dict(classifier_state(name, weights, classifier))
    backbone = classifier.features if hasattr(classifier, "features") else classifier
    freeze_batch_norms(backbone)
    layers, channels = _layers_at(backbone, strides, name=name)
    return backbone, layers, channels


def build_pyramid(
    name: str,
    *,
    weights: str | None,
    strides: Sequence[int],
    extra_levels: int,
    channels: int,
) -> tuple[BackboneWithFPN, dict[str, int], dict[str, int]]:
    """Build a backbone with a feature pyramid; also returns backbone and neck channels by level.

    extra_levels above the backbone: 0: none; 1: the last level subsampled by 2; 2: two learned
    levels. Call `finish_backbone` on the backbone (`.body`) when all weights are loaded.
    """
    if extra_levels not in EXTRA_LEVELS:
        raise RnndetError(f"model.detector.extra_levels = {extra_levels!r} must be 0, 1 or 2")
    backbone, layers, backbone_channels = build_backbone(name, weights=weights, strides=strides)
    extra = LastLevelP6P7(channels, channels) if extra_levels == 2 else LastLevelMaxPool()
    pyramid = BackboneWithFPN(backbone, layers, backbone_channels, channels, extra_blocks=extra)
    if extra_levels == 0:
        pyramid.fpn.extra_blocks = None  # the constructor takes None for the default, one level
    levels = [*layers.values(), *EXTRA_LEVELS[extra_levels]]
    by_level = dict(zip(layers.values(), backbone_channels, strict=True))
    return pyramid, by_level, dict.fromkeys(levels, channels)


def level_strides(strides: Sequence[int], extra_levels: int) -> list[int]:
    """Pixels per cell of every pyramid level, including the extra levels.

    >>> level_strides([8, 16], 1)
    [8, 16, 32]
    """
    return [*strides, *(strides[-1] * 2 ** (i + 1) for i in range(extra_levels))]


def finish_backbone(backbone: nn.Module, *, fold_batch_norm: bool, trainable_from: int) -> None:
    """Optionally fold batch norms into convolutions, and stop gradients of the first parts.

    trainable_from: number of parts of the backbone that are not trained. Parts are the entries of
    `features`, or for a ResNet the stem and then `layer1`, `layer2`, ... Changes `backbone` in
    place. Raises `RnndetError` if there are fewer parts.
    """
    if fold_batch_norm:
        fold_batch_norms(backbone)
    freeze_first(_parts(backbone), trainable_from)


def freeze_first(parts: Sequence[Sequence[nn.Module]], count: int) -> None:
    """Stop the gradients of the first `count` parts; raises `RnndetError` if there are fewer."""
    if not 0 <= count <= len(parts):
        raise RnndetError(
            f"model.detector.trainable_backbone_from = {count} must be from 0 to {len(parts)}"
        )
    for part in parts[:count]:
        for module in part:
            module.requires_grad_(False)


def pyramid_channels(pyramid: BackboneWithFPN) -> tuple[dict[str, int], dict[str, int]]:
    """Backbone and neck channels by level of a pyramid of torchvision's detectors."""
    widths = [block[0].in_channels for block in pyramid.fpn.inner_blocks]
    levels = list(pyramid.body.return_layers.values())
    extra = EXTRA_LEVELS[2 if isinstance(pyramid.fpn.extra_blocks, LastLevelP6P7) else 1]
    by_level = dict(zip(levels, widths, strict=True))
    return by_level, dict.fromkeys([*levels, *extra], pyramid.out_channels)


def freeze_batch_norms(module: nn.Module) -> None:
    """Replace each BatchNorm2d below `module` by an equivalent FrozenBatchNorm2d.

    `eps` is added to `running_var`, so that the tensors alone determine the result: torchvision's
    published detectors have backbones with eps 0, 1e-5 and 1e-3, which a state_dict does not hold.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, _frozen(child))
        else:
            freeze_batch_norms(child)


def _frozen(norm: nn.BatchNorm2d) -> FrozenBatchNorm2d:
    frozen = FrozenBatchNorm2d(norm.num_features, eps=0.0)
    frozen.weight.copy_(norm.weight.detach())
    frozen.bias.copy_(norm.bias.detach())
    frozen.running_mean.copy_(norm.running_mean)
    frozen.running_var.copy_(norm.running_var + norm.eps)
    return frozen


def fold_batch_norms(module: nn.Module) -> None:
    """Fuse each frozen batch norm below `module` into the convolution before it, in place.

    The result stays the same, scale and bias become trainable, and the norm becomes an identity:
    training was measured to be twice as fast on a CPU.
    """
    children = list(module.named_children())
    for (name, child), (next_name, following) in pairwise(children):
        if isinstance(child, nn.Conv2d) and isinstance(following, FrozenBatchNorm2d):
            folded = fuse_conv_bn_eval(child.eval(), following.eval())
            setattr(module, name, folded.train().requires_grad_(True))
            setattr(module, next_name, nn.Identity())
    for _, child in children:
        fold_batch_norms(child)


def _parts(backbone: nn.Module) -> list[list[nn.Module]]:
    children = dict(backbone.named_children())
    if "layer1" not in children:
        return [[child] for child in children.values()]
    stages = [name for name in children if name.startswith("layer")]
    stem = [child for name, child in children.items() if name not in (*stages, "avgpool", "fc")]
    return [stem, *([children[name]] for name in stages)]


def _layers_at(
    backbone: nn.Module, strides: Sequence[int], *, name: str
) -> tuple[dict[str, str], list[int]]:
    """{layer: level name} and channels."""
    if not strides:
        raise RnndetError("model.detector.strides is empty; set at least one stride")
    if name not in _LAYERS:
        _LAYERS[name] = _run_layers(backbone)
    at_stride: dict[int, list[tuple[str, int]]] = {}
    for layer, stride, width in _LAYERS[name]:
        at_stride.setdefault(stride, []).append((layer, width))
    chosen = []
    for position, stride in enumerate(strides):
        if stride not in at_stride or list(strides) != sorted(strides) or strides.count(stride) > 2:
            raise RnndetError(
                f"model.detector.strides = {list(strides)} is not possible; {name} has, in this "
                f"order, {', '.join(map(str, at_stride))}"
            )
        is_first_of_two = stride in strides[position + 1 :]
        chosen.append(at_stride[stride][0 if is_first_of_two else -1])
    return {layer: str(i) for i, (layer, _) in enumerate(chosen)}, [width for _, width in chosen]


@torch.no_grad()
def _run_layers(backbone: nn.Module) -> list[tuple[str, int, int]]:
    """Name, stride and channels of every layer, determined by running a small image."""
    was_training = backbone.training
    backbone.eval()
    found = []
    x = torch.zeros(1, 3, 64, 64)
    for name, layer in backbone.named_children():
        if name in ("avgpool", "fc"):
            break
        x = layer(x)
        found.append((name, 64 // x.shape[-1], x.shape[1]))
    backbone.train(was_training)
    return found


def classifier_state(name: str, weights: str, classifier: nn.Module) -> dict[str, Tensor]:
    """Load the state_dict for `weights`, see `build_backbone`; it fits `classifier`."""
    if not weights.endswith((".pth", ".pt")):
        published = dict(models.get_model_weights(name).__members__)
        member = lookup(weights, published, what="model.detector.backbone_weights")
        return read_published(member)
    state = _read_tensors(weights)
    expected = classifier.state_dict()
    different = [key for key in {**expected, **state} if not _same_shape(expected, state, key)]
    if different:
        raise WeightsError(
            f"{weights} is not a state_dict of torchvision's {name}: "
            f"{counted(len(different), 'other entry', 'other entries')}, for example {different[0]}"
        )
    return state


def _read_tensors(path: str) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"cannot read backbone weights {path}: {error.strerror}") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"{path} is damaged or holds more than tensors; expected a file with a state_dict only"
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds a {type(state).__name__}; expected a state_dict")
    return state


def _same_shape(expected: dict[str, Tensor], state: dict[str, Tensor], key: str) -> bool:
    if key not in expected or not isinstance(state.get(key), Tensor):
        return False
    return expected[key].shape == state[key].shape
