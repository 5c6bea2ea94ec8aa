"""Recurrent state as plain data: an argument and a result, never an attribute of a model."""

from collections.abc import Sequence

import torch
from torch import Tensor

Features = dict[str, Tensor]  # level name -> (N, C, H, W), finest first
State = dict[str, tuple[Tensor, ...]]  # level name -> the cell's tensors, each (B, C, H, W)


def detach_state(state: State) -> State:
    """The state without gradient history, for truncated back-propagation through time."""
    return {name: tuple(t.detach() for t in tensors) for name, tensors in state.items()}


def reset_state(state: State, rows: Tensor) -> State:
    """Reset the rows that begin a new video to zero, the initial state of every cell.

    rows: (B,) bool.

    >>> state = {"0": (torch.ones(2, 1, 1, 1),)}
    >>> reset_state(state, torch.tensor([True, False]))["0"][0].flatten()
    tensor([0., 1.])
    """
    keep = ~rows

    def cleared(t: Tensor) -> Tensor:
        mask = keep.to(t.device).view(-1, *[1] * (t.dim() - 1))
        return torch.where(mask, t, torch.zeros_like(t))

    return {name: tuple(cleared(t) for t in tensors) for name, tensors in state.items()}


def state_to(state: State, device: torch.device | str) -> State:
    """The same state on another device."""
    return {name: tuple(t.to(device) for t in tensors) for name, tensors in state.items()}


def state_rows(state: State, rows: range) -> State:
    """The state of consecutive rows of the batch."""
    return {name: tuple(t[rows.start : rows.stop] for t in ts) for name, ts in state.items()}


def join_states(states: Sequence[State]) -> State:
    """Concatenate states of the same levels along the batch."""
    return {
        name: tuple(torch.cat(parts) for parts in zip(*(s[name] for s in states), strict=True))
        for name in states[0]
    }
