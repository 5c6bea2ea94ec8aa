"""Recurrent state as plain data: an explicit argument and result, never an attribute of a model."""

from collections.abc import Sequence

import torch
from torch import Tensor

Features = dict[str, Tensor]  # level name -> (N, C, H, W), finest first
State = dict[str, tuple[Tensor, ...]]  # level name -> the cell's tensors, each (B, C, H, W)


def detach_state(state: State) -> State:
    """The same values without history: the cut of truncated back-propagation through time."""
    return {name: tuple(t.detach() for t in tensors) for name, tensors in state.items()}


def reset_state(state: State, rows: Tensor) -> State:
    """Zero, every cell's initial state, in the rows that begin a new video; rows is (B,) bool."""
    keep = ~rows

    def cleared(t: Tensor) -> Tensor:
        mask = keep.to(t.device).view(-1, *[1] * (t.dim() - 1))
        return torch.where(mask, t, torch.zeros_like(t))

    return {name: tuple(cleared(t) for t in tensors) for name, tensors in state.items()}


def state_to(state: State, device: torch.device | str) -> State:
    """The same state on another device."""
    return {name: tuple(t.to(device) for t in tensors) for name, tensors in state.items()}


def state_rows(state: State, rows: range) -> State:
    """The state of some rows of the batch, which follow each other."""
    return {name: tuple(t[rows.start : rows.stop] for t in ts) for name, ts in state.items()}


def join_states(states: Sequence[State]) -> State:
    """States of the same levels one after the other: their rows become one batch."""
    return {
        name: tuple(torch.cat(parts) for parts in zip(*(s[name] for s in states), strict=True))
        for name in states[0]
    }
