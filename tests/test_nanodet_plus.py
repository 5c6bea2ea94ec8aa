"""NanoDet-Plus: network, losses and assignment, compared with values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rnndet.errors import RnndetError
from rnndet.models.detectors import build_detector
from rnndet.models.detectors.nanodet_plus import (
    REG_MAX,
    STRIDES,
    assign_points,
    distances,
    distribution_focal_loss,
    grid_points,
    quality_focal_loss,
    to_boxes,
    to_sides,
)
from rnndet.structures import Target


def detector(**changes):
    torch.manual_seed(0)
    options = {"size": [64, 128], "backbone": "shufflenet_v2_x0_5", "channels": 32}
    return build_detector("nanodet_plus", 3, options | changes)


def with_lively_weights(model):
    """The model with random weights that keep the activations' size through all layers."""
    torch.manual_seed(1)
    for name, tensor in model.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(tensor, std=(2 / tensor[0].numel()) ** 0.5)
        else:
            nn.init.normal_(tensor, std=0.1)
    return model


class Graph:
    """The published graph of NanoDet-Plus in functional form, from a state dict."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def conv(self, x: Tensor, name: str, *, stride: int = 1, act: bool = True) -> Tensor:
        weight, bias = self.state[f"net.{name}.weight"], self.state[f"net.{name}.bias"]
        groups = x.shape[1] // weight.shape[1]
        x = functional.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, 1, groups)
        return functional.leaky_relu(x, 0.1) if act else x

    def separable(self, x: Tensor, name: str, *, stride: int = 1, act: bool = True) -> Tensor:
        x = self.conv(x, f"{name}.0.0", stride=stride, act=act)
        return self.conv(x, f"{name}.1.0", act=act)

    def shuffle_unit(self, x: Tensor, name: str, *, stride: int) -> Tensor:
        if stride == 1:
            left, right = x.chunk(2, 1)
        else:
            left = self.conv(x, f"{name}.branch1.0", stride=2, act=False)
            left, right = self.conv(left, f"{name}.branch1.2"), x
        right = self.conv(right, f"{name}.branch2.0")
        right = self.conv(right, f"{name}.branch2.3", stride=stride, act=False)
        x = torch.cat([left, self.conv(right, f"{name}.branch2.5")], 1)
        return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)

    def backbone(self, x: Tensor) -> list[Tensor]:
        x = functional.max_pool2d(self.conv(x, "backbone.body.conv1.0", stride=2), 3, 2, 1)
        levels = []
        for stage, units in ((2, 4), (3, 8), (4, 4)):
            for unit in range(units):
                name = f"backbone.body.stage{stage}.{unit}"
                x = self.shuffle_unit(x, name, stride=1 if unit else 2)
            levels.append(x)
        return levels

    def ghost(self, x: Tensor, name: str) -> Tensor:
        y = self.conv(x, f"{name}.ghost1.primary.0")
        y = torch.cat([y, self.conv(y, f"{name}.ghost1.cheap.0")], 1)
        y = self.conv(y, f"{name}.ghost2.primary.0", act=False)
        y = torch.cat([y, self.conv(y, f"{name}.ghost2.cheap.0", act=False)], 1)
        return y + self.separable(x, f"{name}.shortcut", act=False)

    def neck(self, levels: list[Tensor]) -> list[Tensor]:
        fpn = "backbone.fpn"
        fine, middle, coarse = (
            self.conv(x, f"{fpn}.reduce.{i}.0") for i, x in enumerate(levels)
        )  # fmt: skip
        up = functional.interpolate(coarse, scale_factor=2, mode="bilinear")
        middle = self.ghost(torch.cat([up, middle], 1), f"{fpn}.top_down.0")
        up = functional.interpolate(middle, scale_factor=2, mode="bilinear")
        fine = self.ghost(torch.cat([up, fine], 1), f"{fpn}.top_down.1")
        down = self.separable(fine, f"{fpn}.down.0", stride=2)
        second = self.ghost(torch.cat([down, middle], 1), f"{fpn}.bottom_up.0")
        down = self.separable(second, f"{fpn}.down.1", stride=2)
        third = self.ghost(torch.cat([down, coarse], 1), f"{fpn}.bottom_up.1")
        extra = self.separable(coarse, f"{fpn}.extra_in", stride=2)
        extra = extra + self.separable(third, f"{fpn}.extra_out", stride=2)
        return [fine, second, third, extra]

    def head(self, levels: list[Tensor]) -> Tensor:
        rows = []
        for i, x in enumerate(levels):
            for block in range(2):
                x = self.separable(x, f"head.towers.{i}.{block}")
            rows.append(self.conv(x, f"head.outputs.{i}", act=False).flatten(2).transpose(1, 2))
        return torch.cat(rows, 1)


@pytest.mark.parametrize("size_hw", [(64, 64), (64, 192), (128, 64)])
def test_network_equals_the_published_graph(size_hw):
    model = with_lively_weights(detector()).eval()
    pixels = torch.randn(2, 3, *size_hw)
    with torch.no_grad():
        levels = model.neck(model.backbone(pixels))
        raw = model.net.head(list(levels.values()))
        graph = Graph(model.state_dict())
        expected = graph.head(graph.neck(graph.backbone(pixels)))
    found = torch.cat([raw["cls_logits"], raw["distributions"].flatten(2)], -1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_every_width_of_torchvisions_backbone_is_accepted():
    model = detector(backbone="shufflenet_v2_x1_5")
    assert list(model.backbone_channels.values()) == [176, 352, 704]


def test_other_backbone_is_refused_with_the_choices():
    with pytest.raises(RnndetError, match="shufflenet_v2_x1_0"):
        detector(backbone="mobilenet_v2")


def test_raw_outputs_become_boxes_around_the_points():
    model = detector(score_threshold=0.5).eval()
    prepared = model.prepare([torch.zeros(3, 64, 128, dtype=torch.uint8)])
    grids = tuple((64 // stride, 128 // stride) for stride in STRIDES)
    count = sum(rows * columns for rows, columns in grids)
    logits = torch.full((1, count, 4), -9.0)
    sides = torch.zeros(1, count, 4)
    logits[0, 16 * 2 + 5, 2] = 3.0  # stride 8, row 2, column 5, the second class
    sides[0, 16 * 2 + 5] = torch.tensor([1.0, 0.5, 2.0, 3.0])
    (found,) = model.detections(prepared, {"cls_logits": logits, "bbox_regression": sides}, grids)
    np.testing.assert_allclose(found.boxes, [[32.0, 12.0, 56.0, 40.0]], atol=1e-4)
    assert found.labels.tolist() == [1]
    np.testing.assert_allclose(found.scores, [1 / (1 + math.exp(-3))], rtol=1e-5)


def test_distance_is_the_mean_of_the_distribution():
    logits = torch.full((1, 4, REG_MAX + 1), -40.0)
    logits[0, :, 3] = 0.0
    logits[0, 1, 4] = 0.0  # equal shares of 3 and 4
    torch.testing.assert_close(distances(logits), torch.tensor([[3.0, 3.5, 3.0, 3.0]]))


def test_sides_of_a_box_give_the_box_back():
    points, strides = grid_points([torch.zeros(1, 1, 8 // k, 8 // k) for k in (1, 2, 4, 8)])
    boxes = torch.tensor([[10.0, 12, 50, 60]])
    row = torch.tensor([8 * 3 + 4])  # stride 8: x 32, y 24
    sides = to_sides(points[row], strides[row], boxes)
    torch.testing.assert_close(to_boxes(points[row], strides[row], sides), boxes)


def test_quality_focal_loss_of_equation_6():
    logits, quality = torch.tensor([0.0, 2.0]), torch.tensor([0.75, 0.0])
    s = 1 / (1 + math.exp(-2))
    entropy = -(0.75 * math.log(0.5) + 0.25 * math.log(0.5))
    expected = [0.25**2 * entropy, s**2 * -math.log(1 - s)]
    torch.testing.assert_close(quality_focal_loss(logits, quality), torch.tensor(expected))


def test_distribution_focal_loss_of_equation_7():
    logits = torch.zeros(1, 4, REG_MAX + 1)  # all bins are equally likely
    sides = torch.tensor([[0.0, 1.0, 2.25, 6.9]])
    expected = torch.full((1, 4), math.log(REG_MAX + 1))
    torch.testing.assert_close(distribution_focal_loss(logits, sides), expected)
    logits[..., 2] = 5.0  # near 2
    loss = distribution_focal_loss(logits, sides)[0]
    assert loss[2] < loss[1] < loss[0] + 1e-6


def points_of_one_level():
    """A grid of 4 x 4 points at multiples of 8, and a predicted box of 16 x 16 around each."""
    y, x = torch.meshgrid(torch.arange(4) * 8.0, torch.arange(4) * 8.0, indexing="ij")
    points = torch.stack([x, y], -1).flatten(0, 1)
    return points, torch.cat([points - 8, points + 8], -1)


def test_points_outside_every_box_are_background():
    points, boxes = points_of_one_level()
    target = torch.tensor([[6.0, 6, 18, 18]])
    found = assign_points(points, torch.zeros(16, 3), boxes, target, torch.tensor([1]))
    inside = ((points > 6) & (points < 18)).all(1)
    assert (found[~inside] == -1).all()
    assert (found[inside] == 0).any()


def test_every_box_with_a_point_gets_one():
    points, boxes = points_of_one_level()
    targets = torch.tensor([[6.0, 6, 10, 10], [14.0, 14, 26, 26]])
    found = assign_points(points, torch.zeros(16, 3), boxes, targets, torch.tensor([0, 2]))
    assert {0, 1} <= set(found.tolist())


def test_point_that_two_boxes_claim_goes_to_the_cheaper_one():
    points, boxes = points_of_one_level()
    at = 1 * 4 + 1  # the point 8, 8 with the box 0 0 16 16
    targets = torch.tensor([[7.0, 7, 9, 9], [0.0, 0, 16, 16]])
    found = assign_points(points, torch.zeros(16, 3), boxes, targets, torch.tensor([0, 0]))
    assert found[at] == 1


def test_more_points_are_assigned_where_more_predictions_fit():
    points, boxes = points_of_one_level()
    target = torch.tensor([[-20.0, -20, 44, 44]])
    good = target.expand(16, 4)
    few = assign_points(points, torch.zeros(16, 3), boxes, target, torch.tensor([0]))
    many = assign_points(points, torch.zeros(16, 3), good, target, torch.tensor([0]))
    assert (few >= 0).sum() < (many >= 0).sum() == 13


def test_class_of_the_target_decides_between_equal_boxes():
    points, _ = points_of_one_level()
    target = torch.tensor([[0.0, 0, 26, 26]])
    boxes = target.expand(16, 4) + torch.tensor([0.0, 0, 60, 60])  # IoU .09: one point
    logits = torch.zeros(16, 3)
    logits[5, 1] = -3.0
    logits[10, 1] = -2.5
    logits[[5, 10], 0] = -6.0
    logits[[5, 10], 2] = -6.0
    found = assign_points(points, logits, boxes, target, torch.tensor([1]))
    assert found.nonzero().flatten().tolist() != []
    assert set((found >= 0).nonzero().flatten().tolist()) <= {5, 10}


def test_losses_do_not_depend_on_the_order_of_the_images():
    model = with_lively_weights(detector(resize_in_training=False)).train()
    images = [torch.randint(0, 256, (3, 64, 128), dtype=torch.uint8) for _ in range(2)]
    boxes = [[8.0, 8, 40, 56]], [[60.0, 4, 120, 30], [10.0, 30, 90, 60]]
    targets = [
        Target(torch.tensor(b), torch.arange(len(b)), None, torch.zeros(len(b)).bool())
        for b in boxes
    ]

    def losses(order):
        prepared = model.prepare([images[i] for i in order], [targets[i] for i in order])
        return model.losses(prepared, model.neck(model.backbone(prepared.pixels))).terms

    torch.testing.assert_close(losses([1, 0]), losses([0, 1]))


def test_loss_falls_on_one_image():
    model = detector(resize_in_training=False).train()
    image = torch.full((3, 64, 128), 90, dtype=torch.uint8)
    image[:, 16:48, 32:80] = 220
    target = Target(
        torch.tensor([[32.0, 16, 80, 48]]), torch.tensor([2]), None, torch.zeros(1).bool()
    )
    prepared = model.prepare([image], [target])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(60):  # about 30 are enough
        terms = model.losses(prepared, model.neck(model.backbone(prepared.pixels))).terms
        total = sum(terms.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
        if history[-1] < 0.6 * history[0]:
            break
    assert history[-1] < 0.6 * history[0]


def test_features_have_the_memory_format_of_the_pixels():
    pixels = torch.zeros(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    for feature in detector().eval().backbone(pixels).values():
        assert feature.is_contiguous(memory_format=torch.channels_last)
