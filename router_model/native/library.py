"""The compiled kernel's interface: structures, as `kernel.c` defines them, and functions."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_char_p, c_double, c_int64, c_void_p
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from router_model.native.build import library_path

WIDEST = 512
"""The most latents, hidden units or tiers that the kernel has room for."""
LANES = 16
"""Examples of a trunk that it compares at a time."""


class _Structure(ctypes.Structure):
    """Made from arrays and numbers by name. It keeps the arrays that it points to."""

    def __init__(self, **values: Any) -> None:
        self._kept = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        super().__init__(**{name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if not value.flags.c_contiguous:
        raise ValueError("the kernel reads contiguous arrays")
    return value.ctypes.data


def _fields(pointers: str, doubles: str = "", integers: str = "") -> list[tuple[str, Any]]:
    kinds = ((pointers, c_void_p), (doubles, c_double), (integers, c_int64))
    return [(name, kind) for names, kind in kinds for name in names.split()]


class TextTables(_Structure):
    """`Reading` in C."""

    _fields_ = _fields("kind hashed token magnitudes classes cues powers inverses logs weights")


class LadderArrays(_Structure):
    """`Ladder` in C."""

    _fields_ = _fields(
        "mean scale weights bias low high grid lengths losses budgets limit",
        "steepness repaired cut forced scatter top",
        "rungs thinking",
    )


class TrunkArrays(_Structure):
    """`Trunk` in C."""

    _fields_ = _fields(
        "rarity mean scale latents counts shift hidden hidden_bias examples squares",
        "strange reach unseen",
        "rank units places",
    )


class MappingArrays(_Structure):
    """`Mapping` in C."""

    _fields_ = _fields(
        "weights bias low high offset average by_length columns above gained spent blend limit spread",
        "shrink believed ramp",
        "tiers used rungs",
    )


Passing: TypeAlias = Callable[[int, bytes, int, int], int]
"""Reads events, given the address of a `Template`, bytes, their number, and room for what is passed on."""


class Kernel:
    """The functions. They keep the GIL: a call is shorter than a wait for it would be."""

    def __init__(self, path: str) -> None:
        """Raises: OSError."""
        library = ctypes.PyDLL(path)
        self.sizes = tuple((c_int64 * 9).in_dll(library, "thinkmeter_sizes"))
        """BLOCK, MOST, KINDS, CLASSES, CUES, DENSE, GRID, WIDEST, LANES."""
        text = (c_char_p, c_int64, c_int64, c_void_p)
        self.counts = _function(library.thinkmeter_counts, c_void_p, *text)
        self.packed = _function(library.thinkmeter_packed, c_void_p, *text, result=c_int64)
        self.prior = _function(library.thinkmeter_prior, c_void_p, c_void_p, *text)
        self.measured = _function(library.thinkmeter_measured, c_void_p, c_void_p, c_void_p, *text)
        passing = (c_void_p, c_char_p, c_int64, c_void_p)
        self.events: Passing = _function(library.thinkmeter_events, *passing, result=c_int64)
        self.chunks = _function(
            library.thinkmeter_chunks, c_char_p, c_int64, c_void_p, c_void_p, result=c_int64
        )
        self.begins = _function(library.thinkmeter_begins, c_char_p, c_int64, result=c_int64)
        self.block: Passing = _function(library.thinkmeter_block, *passing, result=c_int64)
        self.lane = LaneFunctions(library) if hasattr(library, "thinkmeter_lane_step") else None
        """None on other systems than Linux."""


class LaneFunctions:
    """The functions of `lane.c`, whose arguments are addresses of a `Lane` and a `Passage`."""

    def __init__(self, library: ctypes.PyDLL) -> None:
        self.sizes = tuple((c_int64 * 3).in_dll(library, "thinkmeter_lane_sizes"))
        """BLOCK, BEGINNING and the size of a `Passage`."""
        self.enter = _function(library.thinkmeter_lane_enter, c_void_p, c_void_p, result=c_int64)
        self.leave = _function(library.thinkmeter_lane_leave, c_void_p, c_void_p)
        self.step = _function(library.thinkmeter_lane_step, c_void_p, result=c_void_p)


def _function(function: Any, *arguments: Any, result: Any = None) -> Any:
    function.argtypes, function.restype = arguments, result
    return function


@cache
def kernel() -> Kernel | None:
    """The kernel; None if it was not built for this source and this machine."""
    try:
        return Kernel(str(library_path()))
    except (OSError, AttributeError, ValueError):
        return None
