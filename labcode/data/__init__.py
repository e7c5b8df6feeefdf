"""Data: generators that need no network, and benchmarks that are downloaded once and checked."""

import importlib

_WHERE = {
    "scenes": "synthetic", "Scenes": "synthetic", "Difficulty": "synthetic", "EIGHT": "synthetic",
    "digits": "synthetic", "textures": "synthetic",
    "benchmark": "benchmarks", "Benchmark": "benchmarks", "DataError": "benchmarks",
    "shuffled": "batches", "mixed_seed": "batches",
    "moving_scenes": "videos", "Motion": "videos", "Videos": "videos",
}  # fmt: skip

__all__ = sorted(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'labcode.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"labcode.data.{_WHERE[name]}"), name)
