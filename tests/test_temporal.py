"""Temporal module: every cell in CELLS keeps the contract and matches its scalar equations."""

import math

import pytest
import torch
from torch import Tensor, nn

from rnndet.errors import RnndetError
from rnndet.models.temporal.cells import CELLS
from rnndet.models.temporal.cells.bottleneck_lstm import BottleneckLSTMCell
from rnndet.models.temporal.cells.conv_gru import ConvGRUCell
from rnndet.models.temporal.cells.conv_lstm import ConvLSTMCell
from rnndet.models.temporal.cells.conv_rnn import ConvRNNCell
from rnndet.models.temporal.cells.gated_hold import GatedHoldCell
from rnndet.models.temporal.cells.identity_lstm import IdentityLSTMCell
from rnndet.models.temporal.cells.min_gru import MinGRUCell
from rnndet.models.temporal.cells.two_frame import TwoFrameCell
from rnndet.models.temporal.head import TemporalHead, run_cell
from rnndet.models.temporal.state import detach_state, reset_state, state_to

VARIANTS = [(name, {}) for name in sorted(CELLS)] + [
    ("conv_rnn", {"separable": True}),
    ("conv_gru", {"separable": True}),
    ("conv_lstm", {"peephole": True}),
    ("conv_lstm", {"coupled": True}),
    ("conv_lstm", {"separable": True}),
    ("conv_lstm", {"peephole": True, "coupled": True, "separable": True}),
    ("min_gru", {"spread": False}),
]
HOLDING = ("gated_hold", "identity_lstm", "two_frame")  # their h is features
BOUNDED = [(name, options) for name, options in VARIANTS if name not in HOLDING]  # h in [-1, 1]
every_cell = pytest.mark.parametrize(
    ("cell", "options"), VARIANTS, ids=["-".join([name, *options]) for name, options in VARIANTS]
)
RECURRENT = [(name, options) for name, options in VARIANTS if name != "two_frame"]
every_recurrent_cell = pytest.mark.parametrize(
    ("cell", "options"), RECURRENT, ids=["-".join([name, *options]) for name, options in RECURRENT]
)
CHANNELS = {"p3": 6, "p4": 4}
ZEROS = torch.zeros(1, 1, 1, 1)


def make_head(cell: str = "conv_lstm", **settings) -> TemporalHead:
    torch.manual_seed(0)
    own = {"hidden": 0, "fusion": "state"} if cell in HOLDING else {"hidden": 5}
    settings = {"levels": ("p3", "p4")} | own | settings
    return TemporalHead(CHANNELS, cell=cell, **settings)


def make_features(length: int, batch: int, *, seed: int = 1) -> dict[str, Tensor]:
    """Features of `length` frames of `batch` videos with odd, unequal sizes."""
    g = torch.Generator().manual_seed(seed)
    n = length * batch
    return {
        "p3": 2 * torch.randn(n, 6, 5, 7, generator=g),
        "p4": 2 * torch.randn(n, 4, 3, 2, generator=g),
    }


def frames(features: dict[str, Tensor], first: int, last: int, *, batch: int) -> dict[str, Tensor]:
    return {name: x[first * batch : last * batch] for name, x in features.items()}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def randomise(module: nn.Module) -> None:
    """Weights and biases from N(0, .7), so that no term of an equation is zero."""
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=g))


def numbers(tensor: Tensor) -> list[float]:
    return tensor.detach().flatten().tolist()


# --- every cell ------------------------------------------------------------------------------


@every_cell
def test_cell_keeps_height_and_width_and_its_state_has_hidden_channels(cell, options):
    built = CELLS[cell](5, 5, **options)
    x = torch.randn(2, 5, 4, 7)
    start = built.init_state(x)
    h, state = built(built.project(x), start)
    assert built.out_channels == 5
    assert h.shape == state[0].shape == (2, 5, 4, 7)
    assert [t.shape for t in state] == [t.shape for t in start]
    assert all(t.dtype == x.dtype and not t.any() for t in start)


@every_cell
def test_cell_works_on_a_one_pixel_map_and_with_kernel_size_5(cell, options):
    built = CELLS[cell](3, 3, kernel_size=5, **options)
    x = torch.randn(1, 3, 1, 1)
    h, _ = built(built.project(x), built.init_state(x))
    assert h.shape == (1, 3, 1, 1)


@every_cell
def test_clip_of_16_frames_equals_16_single_frames(cell, options):
    head = make_head(cell, options=options)
    features = make_features(16, 2)
    clip, clip_state = head(features, None, 16)
    state, steps = None, []
    for t in range(16):
        out, state = head(frames(features, t, t + 1, batch=2), state, 1)
        steps.append(out)
    for level in CHANNELS:
        together = torch.cat([out[level] for out in steps])
        assert torch.allclose(clip[level], together, atol=1e-5)
        for a, b in zip(clip_state[level], state[level], strict=True):
            assert torch.allclose(a, b, atol=1e-5)


@every_cell
def test_gradient_reaches_every_parameter(cell, options):
    head = make_head(cell, options=options)
    out, _ = head(make_features(3, 2), None, 3)
    sum(x.square().mean() for x in out.values()).backward()
    without = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@every_recurrent_cell
def test_memory_carries_the_first_frame_through_blank_frames(cell, options):
    head = make_head(cell, options=options)
    features = {name: x.clone() for name, x in make_features(4, 1).items()}
    for x in features.values():
        x[1:] = 0
    seen, _ = head(features, None, 4)
    blank, _ = head(frames(features, 1, 4, batch=1), None, 3)
    for level in CHANNELS:
        assert (seen[level][-1] - blank[level][-1]).abs().max() > 1e-4


@every_cell
def test_videos_of_a_batch_do_not_mix(cell, options):
    head = make_head(cell, options=options)
    features = make_features(4, 3)
    together, _ = head(features, None, 4)
    alone, _ = head({name: x[1::3] for name, x in features.items()}, None, 4)
    for level in CHANNELS:
        assert torch.allclose(together[level][1::3], alone[level], atol=1e-5)


@every_cell
def test_reset_clears_only_marked_rows(cell, options):
    head = make_head(cell, options=options)
    features = make_features(3, 3)
    _, state = head(frames(features, 0, 2, batch=3), None, 2)
    cleared = reset_state(state, torch.tensor([False, True, False]))
    for level in CHANNELS:
        for before, after in zip(state[level], cleared[level], strict=True):
            assert before[1].any()
            assert not after[1].any()
            assert torch.equal(after[[0, 2]], before[[0, 2]])
    last = frames(features, 2, 3, batch=3)
    kept, _ = head(last, state, 1)
    reset, _ = head(last, cleared, 1)
    fresh, _ = head(last, None, 1)
    for level in CHANNELS:
        assert torch.allclose(reset[level][1], fresh[level][1], atol=1e-6)
        assert torch.allclose(reset[level][[0, 2]], kept[level][[0, 2]], atol=1e-6)


@every_cell
def test_detach_cuts_history_and_keeps_values(cell, options):
    head = make_head(cell, options=options)
    first, second = make_features(1, 1, seed=1), make_features(1, 1, seed=2)
    for x in first.values():
        x.requires_grad_()
    _, state = head(first, None, 1)
    cut = detach_state(state)
    for level in CHANNELS:
        for a, b in zip(cut[level], state[level], strict=True):
            assert torch.equal(a, b)
            assert not a.requires_grad
    out, _ = head(second, cut, 1)
    sum(x.sum() for x in out.values()).backward()
    assert all(x.grad is None for x in first.values())


@pytest.mark.parametrize(("cell", "options"), BOUNDED)
def test_hidden_and_internal_state_stay_bounded_over_1000_frames_of_large_input(cell, options):
    torch.manual_seed(0)
    built = CELLS[cell](2, 2, **options)
    x = 50 * torch.randn(1000, 2, 2, 2) + 20
    with torch.inference_mode():
        state, internal = built.init_state(x[:1]), []
        for projected in built.project(x).split(1):
            _, state = built(projected, state)
            internal.append(torch.stack(state))
    largest = torch.stack(internal).abs().amax(dim=(0, 2, 3, 4, 5))  # per tensor of the state
    assert largest[0] <= 1 + 1e-6
    assert (largest <= 10).all()


@every_cell
def test_autocast_keeps_output_type_bounds_and_finite_values(cell, options):
    head = make_head(cell, options=options)
    features = make_features(6, 2)
    exact, _ = head(features, None, 6)
    with torch.autocast("cpu", torch.bfloat16):
        out, state = head(features, None, 6)
    for level in CHANNELS:
        assert out[level].dtype == torch.float32
        assert torch.allclose(out[level], exact[level], atol=0.2)
        assert state[level][-1].abs().max() <= 10


@every_cell
def test_state_moves_between_devices_with_equal_values(cell, options):
    _, state = make_head(cell, options=options)(make_features(1, 1), None, 1)
    moved = state_to(state, "cpu")
    assert all(torch.equal(a, b) for n in state for a, b in zip(moved[n], state[n], strict=True))


# --- equations, one pixel, one channel, by hand ----------------------------------------------


def lstm_by_hand(cell: ConvLSTMCell, inputs: list[float]) -> list[tuple[float, float]]:
    """h and c after each input; weights in the order f, o, g, i."""
    w, b = numbers(cell.input_conv[-1].weight), numbers(cell.input_conv[-1].bias)
    u = numbers(cell.hidden_conv[-1].weight)
    peek = {name: p.item() for name, p in cell.peepholes.items()}
    h = c = 0.0
    states = []
    for x in inputs:
        f, o, g, *i = (w[k] * x + u[k] * h + b[k] for k in range(len(w)))
        f = sigmoid(f + peek.get("f", 0) * c)
        i = 1 - f if cell.coupled else sigmoid(i[0] + peek.get("i", 0) * c)
        c = f * c + i * math.tanh(g)
        h = sigmoid(o + peek.get("o", 0) * c) * math.tanh(c)
        states.append((h, c))
    return states


def run_scalar(cell: nn.Module, inputs: list[float]) -> list[tuple[float, ...]]:
    """The state after each input."""
    state, states = cell.init_state(ZEROS), []
    for x in inputs:
        _, state = cell(cell.project(torch.full((1, 1, 1, 1), x)), state)
        states.append(tuple(t.item() for t in state))
    return states


INPUTS = [0.8, -1.5, 0.3, 2.0]


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("peephole", [False, True])
def test_lstm_matches_its_equations(peephole, coupled):
    cell = ConvLSTMCell(1, 1, kernel_size=1, peephole=peephole, coupled=coupled)
    randomise(cell)
    expected = lstm_by_hand(cell, INPUTS)
    for (h, c), (h_hand, c_hand) in zip(run_scalar(cell, INPUTS), expected, strict=True):
        assert h == pytest.approx(h_hand, abs=1e-6)
        assert c == pytest.approx(c_hand, abs=1e-6)


def test_lstm_first_step_with_known_numbers():
    cell = ConvLSTMCell(1, 1, kernel_size=1)
    with torch.no_grad():
        cell.input_conv[-1].weight.fill_(1.0)
    ((h, c),) = run_scalar(cell, [1.0])
    # i = o = s(1) = .731059, g = tanh(1) = .761594, c = i g, h = o tanh(c)
    assert c == pytest.approx(0.731059 * 0.761594, abs=1e-5)
    assert h == pytest.approx(0.731059 * math.tanh(0.731059 * 0.761594), abs=1e-5)


def test_output_gate_peeks_at_the_new_internal_state():
    cell = ConvLSTMCell(1, 1, kernel_size=1, peephole=True)
    with torch.no_grad():
        cell.input_conv[-1].weight.fill_(1.0)
        cell.peepholes["o"].fill_(2.0)
        cell.peepholes["i"].fill_(100.0)  # has no effect: c_0 = 0
    ((h, c),) = run_scalar(cell, [1.0])
    assert h == pytest.approx(sigmoid(1 + 2 * c) * math.tanh(c), abs=1e-6)


def test_gru_matches_its_equations():
    cell = ConvGRUCell(1, 1, kernel_size=1)
    randomise(cell)
    w, b = numbers(cell.input_conv[-1].weight), numbers(cell.input_conv[-1].bias)
    (u_z, u_r), (u_n,) = numbers(cell.gate_conv[-1].weight), numbers(cell.candidate_conv[-1].weight)
    h = 0.0
    for x, (found,) in zip(INPUTS, run_scalar(cell, INPUTS), strict=True):
        z = sigmoid(w[0] * x + u_z * h + b[0])
        r = sigmoid(w[1] * x + u_r * h + b[1])
        n = math.tanh(w[2] * x + u_n * (r * h) + b[2])
        h = (1 - z) * h + z * n
        assert found == pytest.approx(h, abs=1e-6)


def test_rnn_matches_its_equation():
    cell = ConvRNNCell(1, 1, kernel_size=1)
    randomise(cell)
    w, u, b = (
        t.item()
        for t in (
            cell.input_conv[-1].weight,
            cell.hidden_conv[-1].weight,
            cell.input_conv[-1].bias,
        )
    )
    h = 0.0
    for x, (found,) in zip(INPUTS, run_scalar(cell, INPUTS), strict=True):
        h = math.tanh(w * x + u * h + b)
        assert found == pytest.approx(h, abs=1e-6)


def test_bottleneck_lstm_matches_its_equations():
    cell = BottleneckLSTMCell(1, 1, kernel_size=1)
    randomise(cell)
    w = cell.input_conv[0].weight.item() * cell.input_conv[1].weight.item()
    u = cell.hidden_conv[0].weight.item() * cell.hidden_conv[1].weight.item()
    depthwise = cell.gate_conv[0].weight.item()
    pointwise, bias = numbers(cell.gate_conv[1].weight), numbers(cell.gate_conv[1].bias)
    h = c = 0.0
    for x, found in zip(INPUTS, run_scalar(cell, INPUTS), strict=True):
        b = math.tanh(w * x + u * h + cell.input_conv[1].bias.item())
        f, i, o, g = (pointwise[k] * depthwise * b + bias[k] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * math.tanh(g)
        h = sigmoid(o) * math.tanh(c)
        assert found == pytest.approx((h, c), abs=1e-6)


def test_bottleneck_split_equals_one_convolution_of_the_concatenation():
    torch.manual_seed(0)
    cell = BottleneckLSTMCell(3, 2)
    x, h = torch.randn(1, 3, 4, 4), torch.randn(1, 2, 4, 4)
    depthwise = torch.cat([cell.input_conv[0].weight, cell.hidden_conv[0].weight])
    pointwise = torch.cat([cell.input_conv[1].weight, cell.hidden_conv[1].weight], dim=1)
    both = nn.functional.conv2d(torch.cat([x, h], dim=1), depthwise, padding=1, groups=5)
    both = nn.functional.conv2d(both, pointwise, cell.input_conv[1].bias)
    assert torch.allclose(cell.project(x) + cell.hidden_conv(h), both, atol=1e-6)


def test_min_gru_matches_its_equations():
    cell = MinGRUCell(1, 1, kernel_size=1)
    randomise(cell)
    (w_z, w_n), (b_z, b_n) = (
        numbers(cell.input_conv[-1].weight),
        numbers(cell.input_conv[-1].bias),
    )
    spread, h = cell.spread.weight.item(), 0.0
    for x, (found,) in zip(INPUTS, run_scalar(cell, INPUTS), strict=True):
        z, n = sigmoid(w_z * x + b_z), math.tanh(w_n * x + b_n)
        h = (1 - z) * max(-1, min(1, spread * h)) + z * n
        assert found == pytest.approx(h, abs=1e-6)


def test_gated_hold_matches_its_equations():
    cell = GatedHoldCell(1, 1, kernel_size=1, width=1)
    randomise(cell)
    w, b = cell.input_conv[-1].weight.item(), cell.input_conv[-1].bias.item()
    u, v, c = (
        cell.hidden_conv[-1].weight.item(),
        *numbers(cell.update.weight),
        cell.update.bias.item(),
    )
    h = INPUTS[0]
    found = [step[0] for step in run_scalar(cell, INPUTS)]
    assert found[0] == pytest.approx(h, abs=1e-6)
    for x, each in zip(INPUTS[1:], found[1:], strict=True):
        z = sigmoid(v * max(0.0, w * x + u * h + b) + c)
        h = h + z * (x - h)
        assert each == pytest.approx(h, abs=1e-6)


def test_light_gated_hold_has_one_gate_per_position():
    cell = GatedHoldCell(3, 3, width=4, light=True)
    randomise(cell)
    x = torch.randn(2, 3, 4, 4)
    h, _ = run_cell(cell, x, cell.init_state(x[:1]), length=2)
    weight = (h[1] - x[0]) / (x[1] - x[0])  # of the new frame
    assert torch.allclose(weight, weight[:1].expand(3, -1, -1), atol=1e-4)
    assert weight.std() > 0.01


def test_light_gates_see_the_neighbourhood():
    for cell in (GatedHoldCell(3, 3, light=True), IdentityLSTMCell(3, 3, light=True)):
        randomise(cell)
        for parameter in cell.parameters():
            parameter.data.mul_(0.3)  # so that no gate is saturated
        x = torch.randn(2, 3, 5, 5)
        other = x.clone()
        other[1, :, 0, 1] += 5.0
        outputs = [run_cell(cell, y, cell.init_state(y[:1]), length=2)[0][1] for y in (x, other)]
        assert not torch.equal(outputs[0][:, 0, 0], outputs[1][:, 0, 0])
        assert torch.equal(outputs[0][:, 4, 4], outputs[1][:, 4, 4])


def test_gated_hold_returns_the_first_frame_unchanged():
    head = make_head("gated_hold")
    features = make_features(1, 2)
    out, _ = head(features, None, 1)
    assert all(torch.equal(out[level], features[level]) for level in CHANNELS)


def test_gated_hold_stays_between_the_observed_features():
    head = make_head("gated_hold")
    randomise(head)
    features = make_features(50, 1)
    out, _ = head(features, None, 50)
    assert out["p3"].max() <= features["p3"].max() and out["p3"].min() >= features["p3"].min()


def test_gated_hold_keeps_its_state_where_the_gate_is_closed():
    cell = GatedHoldCell(3, 3, update_bias=-30.0)
    x = torch.randn(4, 3, 2, 2)
    h, _ = run_cell(cell, x, cell.init_state(x[:1]), length=4)
    assert torch.allclose(h, x[:1].expand(4, -1, -1, -1), atol=1e-4)


def test_identity_lstm_matches_its_equations():
    limit = 1.5
    cell = IdentityLSTMCell(1, 1, kernel_size=1, width=1, limit=limit, separable=False)
    randomise(cell)
    cell.calibrate(r := 0.5)
    w, b = cell.input_conv[-1].weight.item(), cell.bias.item()
    u, v_g = cell.hidden_conv[-1].weight.item(), cell.change.weight.item()
    v, biases = numbers(cell.gates.weight), numbers(cell.gates.bias)
    c = n = 0.0
    x = torch.tensor(INPUTS)[:, None, None, None]
    h, _ = run_cell(cell, x, cell.init_state(ZEROS), length=4)
    for x, found, state in zip(INPUTS, numbers(h), run_scalar(cell, INPUTS), strict=True):
        a = max(0.0, (w * x + u * c) / r + b)
        i, f, o = (sigmoid(v_k * a + b_k) for v_k, b_k in zip(v, biases, strict=True))
        n = min(f * n + i, limit)
        c = c + min(i / n, 1.0) * (x + r * v_g * a - c)
        assert state == pytest.approx((c, n), abs=1e-6)
        assert found == pytest.approx(x + o * (c - x), abs=1e-6)


def test_light_identity_lstm_matches_its_equations():
    cell = IdentityLSTMCell(2, 2, kernel_size=1, width=1, limit=1.5, light=True)
    randomise(cell)
    cell.calibrate(r := 0.5)
    w, u = numbers(cell.input_conv[-1].weight), numbers(cell.hidden_conv[-1].weight)
    k, b = cell.mix_conv[-1].weight.item(), cell.bias.item()
    v, biases = numbers(cell.gates.weight), numbers(cell.gates.bias)
    c, n = [0.0, 0.0], 0.0
    frames = [(x, 1 - 2 * x) for x in INPUTS]
    h, (_, found_n) = run_cell(
        cell, torch.tensor(frames)[:, :, None, None], cell.init_state(torch.zeros(1, 2, 1, 1)),
        length=len(frames),
    )  # fmt: skip
    for x, found in zip(frames, h[:, :, 0, 0].tolist(), strict=True):
        a = max(0.0, k * (w[0] * x[0] + w[1] * x[1] + u[0] * c[0] + u[1] * c[1]) / r + b)
        i, f, o = (sigmoid(v_k * a + b_k) for v_k, b_k in zip(v, biases, strict=True))
        n = min(f * n + i, 1.5)
        c = [c_k + min(i / n, 1.0) * (x_k - c_k) for c_k, x_k in zip(c, x, strict=True)]
        expected = [x_k + o * (c_k - x_k) for c_k, x_k in zip(c, x, strict=True)]
        assert found == pytest.approx(expected, abs=1e-6)
    assert found_n.shape == (1, 1, 1, 1) and found_n.item() == pytest.approx(n, abs=1e-6)


def test_identity_lstm_is_finite_where_the_input_gate_underflows():
    cell = IdentityLSTMCell(3, 3, input_bias=-200.0)  # the sigmoid of which is 0
    x = torch.randn(2, 3, 4, 4)
    h, (c, n) = run_cell(cell, x, cell.init_state(x[:1]), length=2)
    assert torch.isfinite(h).all() and torch.isfinite(c).all() and (n > 0).all()


@pytest.mark.parametrize("light", [False, True])
def test_rounding_of_a_nearly_shut_input_gate_hardly_changes_the_identity_lstm(light):
    cell = IdentityLSTMCell(3, 3, input_bias=-14.0, light=light)  # the sigmoid of which is 8e-7
    x = torch.randn(8, 3, 4, 4)
    exact, _ = run_cell(cell, x, cell.init_state(x[:1]), length=8)
    sigmoid = cell.gate["i"].forward
    cell.gate["i"].forward = lambda v: (sigmoid(v) + 2e-7 * torch.rand_like(v)).clamp(max=1)
    rounded, _ = run_cell(cell, x, cell.init_state(x[:1]), length=8)
    assert torch.allclose(rounded, exact, atol=1e-4)


def test_identity_lstm_starts_with_the_features_of_the_frame():
    head = make_head("identity_lstm")
    features = make_features(1, 2)
    out, _ = head(features, None, 1)
    assert all(torch.allclose(out[level], features[level], atol=1e-6) for level in CHANNELS)


def test_internal_state_of_the_identity_lstm_is_a_mean_of_its_input_nodes():
    cell = IdentityLSTMCell(3, 3)
    for part in (cell.input_conv, cell.hidden_conv, cell.gates):
        randomise(part)  # the input node stays x, as at the start
    x = torch.randn(50, 3, 4, 4)
    _, (c, _) = run_cell(cell, x, cell.init_state(x[:1]), length=50)
    assert (c <= x.amax(0)).all() and (c >= x.amin(0)).all()


def test_identity_lstm_weighs_all_frames_alike_while_it_forgets_nothing():
    cell = IdentityLSTMCell(3, 3, forget_bias=30.0, output_bias=30.0)
    nn.init.zeros_(cell.gates.weight)
    x = torch.randn(6, 3, 2, 2)
    h, _ = run_cell(cell, x, cell.init_state(x[:1]), length=6)
    assert torch.allclose(h[-1], x.mean(0), atol=1e-5)


def test_gates_of_a_calibrated_identity_lstm_do_not_depend_on_the_amplitude():
    def output(scale):
        torch.manual_seed(0)
        head = TemporalHead({"0": 8}, levels=("0",), cell="identity_lstm", hidden=0, fusion="state")
        randomise(head.cells["0"].gates)
        features = {"0": scale * torch.randn(6, 8, 4, 4)}
        head.calibrate(features)
        return head(features, None, 6)[0]["0"]

    torch.testing.assert_close(output(0.01) / 0.01, output(1.0), atol=1e-4, rtol=1e-4)


def test_normaliser_of_the_identity_lstm_has_a_limit():
    cell = IdentityLSTMCell(3, 3, forget_bias=30.0, limit=4.0)
    x = torch.randn(40, 3, 2, 2)
    _, (_, n) = run_cell(cell, x, cell.init_state(x[:1]), length=40)
    assert torch.equal(n, torch.full_like(n, 4.0))


@pytest.mark.parametrize("options", [{"width": 0}, {"limit": 0.5}, {"hidden_channels": 4}], ids=str)
def test_identity_lstm_refuses_options_out_of_range(options):
    with pytest.raises(RnndetError, match="must be"):
        IdentityLSTMCell(**{"in_channels": 3, "hidden_channels": 3} | options)


def test_two_frame_depends_on_the_previous_frame_and_no_older_one():
    cell = TwoFrameCell(3, 3)
    randomise(cell)
    x = torch.randn(4, 3, 2, 2)
    other = torch.cat([torch.randn(2, 3, 2, 2), x[2:]])
    (h, _), (same, _) = (run_cell(cell, v, cell.init_state(x[:1]), length=4) for v in (x, other))
    assert torch.equal(h[3], same[3])
    assert not torch.allclose(h[2], same[2], atol=1e-3)


def test_two_frame_returns_the_previous_frame_where_the_gate_is_closed():
    cell = TwoFrameCell(3, 3, update_bias=-30.0)
    x = torch.randn(4, 3, 2, 2)
    h, _ = run_cell(cell, x, cell.init_state(x[:1]), length=4)
    assert torch.allclose(h, torch.cat([x[:1], x[:3]]), atol=1e-4)


def test_gated_hold_with_other_channels_than_the_features_is_refused():
    with pytest.raises(RnndetError, match="must be 6, the channels"):
        make_head("gated_hold", hidden=5, levels=("p3",))


@pytest.mark.parametrize(("cell", "fusion"), [("gated_hold", "blend"), ("conv_lstm", "state")])
def test_cell_and_fusion_that_do_not_fit_are_refused(cell, fusion):
    with pytest.raises(RnndetError, match="do not fit"):
        make_head(cell, fusion=fusion)


# --- starts and limits -----------------------------------------------------------------------


def test_min_gru_spread_starts_as_the_identity():
    torch.manual_seed(0)
    still, moving = MinGRUCell(3, 2, spread=False), MinGRUCell(3, 2)
    moving.load_state_dict(still.state_dict(), strict=False)
    x = torch.randn(4, 3, 5, 5)
    a, _ = run_cell(still, x, still.init_state(x[:1]), length=4)
    b, _ = run_cell(moving, x, moving.init_state(x[:1]), length=4)
    assert torch.allclose(a, b, atol=1e-6)


def test_min_gru_spread_can_move_the_state_by_one_cell():
    cell = MinGRUCell(1, 1)
    with torch.no_grad():
        cell.spread.weight.zero_()
        cell.spread.weight[0, 0, 1, 0] = 1  # each pixel takes its left neighbour
        cell.input_conv[-1].weight.zero_()
        cell.input_conv[-1].bias[0] = -30  # write nothing
    memory = torch.tensor([[0.5, 0.0, 0.0]]).view(1, 1, 1, 3)
    _, (moved,) = cell(cell.project(torch.zeros(1, 1, 1, 3)), (memory,))
    assert torch.allclose(moved.flatten(), torch.tensor([0.0, 0.5, 0.0]), atol=1e-6)


@pytest.mark.parametrize("separable", [False, True])
def test_initial_biases_keep_the_state(separable):
    lstm = ConvLSTMCell(3, 2, forget_bias=1.5, separable=separable)
    gru = ConvGRUCell(3, 2, separable=separable)
    assert numbers(lstm.input_conv[-1].bias) == [1.5] * 2 + [0.0] * 6
    assert numbers(gru.input_conv[-1].bias) == [-1.0] * 2 + [0.0] * 4
    assert numbers(BottleneckLSTMCell(3, 2).gate_conv[-1].bias) == [1.0] * 2 + [0.0] * 6
    assert numbers(MinGRUCell(3, 2).input_conv[-1].bias) == [-1.0] * 2 + [0.0] * 2


def test_peephole_starts_as_the_plain_lstm():
    torch.manual_seed(0)
    plain, peephole = ConvLSTMCell(3, 2), ConvLSTMCell(3, 2, peephole=True)
    peephole.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(5, 3, 4, 4)
    a, _ = run_cell(plain, x, plain.init_state(x[:1]), length=5)
    b, _ = run_cell(peephole, x, peephole.init_state(x[:1]), length=5)
    assert torch.equal(a, b)


def test_coupled_lstm_has_three_quarters_of_the_weights():
    def count(**options: bool) -> int:
        return sum(p.numel() for p in ConvLSTMCell(8, 4, **options).parameters())

    assert 4 * count(coupled=True) == 3 * count()


@pytest.mark.parametrize("build", [ConvLSTMCell, BottleneckLSTMCell])
def test_clamp_limits_the_internal_state(build):
    def largest(clamp: float) -> float:
        cell = build(1, 2, kernel_size=1, clamp=clamp)
        gates = cell.gate_conv if build is BottleneckLSTMCell else cell.input_conv
        nn.init.constant_(gates[-1].bias, 9.0)  # every gate open, g near 1: c counts the frames
        x = torch.zeros(60, 1, 1, 1)
        _, (_, c) = run_cell(cell, x, cell.init_state(x[:1]), length=60)
        return c.abs().max().item()

    assert largest(math.inf) == pytest.approx(60, abs=1)
    assert largest(3.0) == 3.0


def gradient_to_the_first_frame(cell: nn.Module) -> float:
    """Norm of d h_30 / d x_0."""
    x = torch.randn(30, 4, 5, 5, generator=torch.Generator().manual_seed(7)).requires_grad_()
    h, _ = run_cell(cell, x, cell.init_state(x[:1]), length=30)
    (gradient,) = torch.autograd.grad(h[-1].sum(), x)
    return gradient[0].norm().item()


def test_gradient_vanishes_in_the_plain_rnn_and_not_in_the_lstm():
    torch.manual_seed(0)
    rnn = gradient_to_the_first_frame(ConvRNNCell(4, 8))
    torch.manual_seed(0)
    lstm = gradient_to_the_first_frame(ConvLSTMCell(4, 8, forget_bias=3.0))
    assert rnn < 0.01 * lstm


# --- the head --------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["blend", "replace", "residual"])
def test_unlisted_levels_pass_through_untouched(fusion):
    head = make_head(fusion=fusion, levels=("p4",))
    features = make_features(2, 1)
    before = dict(features)
    out, state = head(features, None, 2)
    assert out["p3"] is features["p3"]
    assert list(out) == ["p3", "p4"]
    assert list(state) == ["p4"]
    assert features == before  # the caller's dictionary is left as it was


def test_no_levels_is_the_identity():
    head = make_head(levels=())
    features = make_features(2, 2)
    out, state = head(features, None, 2)
    assert state == {}
    assert all(out[name] is features[name] for name in features)
    assert list(head.parameters()) == []


@pytest.mark.parametrize("cell", sorted({name for name, _ in BOUNDED}))
def test_residual_begins_as_the_frame_detector_exactly(cell):
    features = make_features(3, 2)
    out, _ = make_head(cell, fusion="residual")(features, None, 3)
    assert all(torch.equal(out[name], features[name]) for name in features)


def test_residual_learns_from_the_first_step():
    head = make_head(fusion="residual")
    out, _ = head(make_features(2, 1), None, 2)
    out["p3"].square().mean().backward()
    assert head.fusions["p3"].read.weight.grad.any()


def test_blend_with_a_closed_gate_returns_the_features():
    features = make_features(3, 2)
    out, _ = make_head(gate_bias=-20.0)(features, None, 3)
    assert all(torch.allclose(out[name], features[name], atol=1e-5) for name in features)


def test_blend_with_an_open_gate_equals_replace():
    features = make_features(3, 1)
    blend, replace = make_head(gate_bias=30.0), make_head(fusion="replace")
    replace.load_state_dict(blend.state_dict(), strict=False)
    a, _ = blend(features, None, 3)
    b, _ = replace(features, None, 3)
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in features)


def test_blend_gate_starts_at_88_percent():
    head = make_head()
    features = {name: torch.zeros_like(x) for name, x in make_features(1, 1).items()}
    out, state = head(features, None, 1)
    memory = head.fusions["p3"].readout(state["p3"][0])
    assert torch.allclose(out["p3"] / memory, torch.tensor(0.88), atol=0.01)


def test_calibrate_sets_scale_to_four_standard_deviations():
    head = make_head(levels=("p4",))
    features = make_features(2, 2)
    head.calibrate(features)
    assert head.fusions["p4"].scale.item() == pytest.approx(4 * features["p4"].std().item())


def test_spread_is_the_standard_deviation_that_was_measured():
    head, features = make_head(levels=("p4",)), make_features(2, 2)
    head.calibrate(features)
    assert head.spread()["p4"].item() == pytest.approx(features["p4"].std().item())


def test_scale_is_saved_with_the_weights():
    source, copy = make_head(), make_head()
    source.calibrate(make_features(2, 2))
    copy.load_state_dict(source.state_dict())
    assert torch.equal(copy.fusions["p3"].scale, source.fusions["p3"].scale)
    assert copy.fusions["p3"].scale.item() != 8.0


def test_forward_changes_no_buffer():
    head = make_head()
    before = {name: t.clone() for name, t in head.state_dict().items()}
    head(make_features(2, 2), None, 2)
    assert all(torch.equal(t, before[name]) for name, t in head.state_dict().items())


def test_calibrate_on_constant_features_is_refused():
    with pytest.raises(RnndetError, match="'p3' have standard deviation 0"):
        make_head().calibrate({name: torch.ones_like(x) for name, x in make_features(1, 1).items()})


# --- mistakes --------------------------------------------------------------------------------


def test_state_of_another_image_size_is_refused():
    head = make_head(levels=("p3",))
    _, state = head(make_features(1, 1), None, 1)
    with pytest.raises(RnndetError, match=r"'p3'.*1, 5, 5, 7.*1, 5, 8, 7.*reset") as caught:
        head({"p3": torch.zeros(1, 6, 8, 7)}, state, 1)
    assert "\n" not in str(caught.value)


def test_state_of_another_batch_is_refused():
    head = make_head(levels=("p3",))
    _, state = head(make_features(1, 2), None, 1)
    with pytest.raises(RnndetError, match="reset"):
        head(make_features(1, 3), state, 1)


def test_state_of_another_cell_or_without_a_level_is_refused():
    _, state = make_head("conv_gru")(make_features(1, 1), None, 1)
    with pytest.raises(RnndetError, match="reset"):
        make_head("conv_lstm")(make_features(1, 1), state, 1)
    with pytest.raises(RnndetError, match="missing"):
        make_head("conv_gru")(make_features(1, 1), {"p4": state["p4"]}, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": ("p3", "p9")}, "levels = 'p9'.*p3, p4"),
        ({"cell": "convlstm"}, "cell = 'convlstm'.*conv_lstm"),
        ({"fusion": "add"}, "fusion = 'add'.*blend, replace, residual"),
        ({"options": {"peehole": True}}, "options.peehole.*did you mean 'peephole'"),
        ({"options": {"peephole": 1}}, "options.peephole must be bool, found 1"),
        ({"options": {"clamp": "ten"}}, "options.clamp must be float, found 'ten'"),
        ({"options": {"kernel_size": True}}, "options.kernel_size must be int, found True"),
        ({"options": {"kernel_size": 4}}, "kernel_size = 4.*odd"),
        ({"options": {"clamp": 0}}, "clamp = 0.*above 0"),
        ({"options": {"hidden_channels": 8}}, "options.hidden_channels is not an option"),
        ({"hidden": -1}, "hidden = -1 must be at least 1"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(RnndetError, match=message):
        make_head(**settings)


def test_integers_are_accepted_as_floats():
    assert make_head(options={"clamp": 5}).cells["p3"].clamp == 5
