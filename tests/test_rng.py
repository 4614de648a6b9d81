"""Randomness as a function of its purpose."""

from __future__ import annotations

import torch

from gancli.compute.rng import Rng, key


def test_parts_join_to_the_whole() -> None:
    whole = Rng(0, 5, "D", 0, total=10)
    parts = [Rng(0, 5, "D", 0, total=10).cut(a, b) for a, b in ((0, 3), (3, 4), (4, 10))]
    for draw in (lambda r: r.normal("z", 2), lambda r: r.uniform("u"), lambda r: r.integers("y", 7)):
        assert torch.equal(draw(whole), torch.cat([draw(p) for p in parts]))


def test_every_part_of_the_key_matters() -> None:
    draws = [
        Rng(*k, total=4).normal(p, 2)
        for k in ((0, 0, "D", 0), (1, 0, "D", 0), (0, 1, "D", 0), (0, 0, "G", 0), (0, 0, "D", 1))
        for p in "ab"
    ]
    assert len({tuple(d.flatten().tolist()) for d in draws}) == 10


def test_one_purpose_gives_one_set_of_numbers() -> None:
    rng = Rng(0, total=4)
    assert torch.equal(rng.normal("z", 2), rng.normal("z", 2))
    assert not torch.equal(rng.normal("z", 2), rng.normal("z", 3)[:, :2])


def test_keys_do_not_run_together() -> None:
    assert key("ab", "c") != key("a", "bc")
    assert key(1, 23) != key(12, 3)
