"""The bench of sample efficiency: where a curve passes another, and by how many times fewer images."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.efficiency import factor, first_as_good, passes


def curve(*rows: tuple[int, float]) -> list[dict[str, Any]]:
    return [{"images": images, "kid": kid} for images, kid in rows]


MANY = curve((0, 0.5), (10, 0.3), (20, 0.2), (50, 0.1), (100, 0.15))


def test_it_passes_only_the_best_of_ten_times_its_images() -> None:
    few = curve((0, 0.05), (1, 0.31), (2, 0.19), (4, 0.15))
    passed = passes(few, MANY)  # at 1: 0.3 of 10 is better; at 2: 0.2 of 20 is not
    assert passed == few[2]
    assert passes(curve((0, 0.05), (1, 0.31), (5, 0.11)), MANY) is None
    assert passes(curve((5, 0.09)), MANY) == {"images": 5, "kid": 0.09}


def test_the_factor_is_that_of_images_for_the_same_kid() -> None:
    assert first_as_good(MANY, 0.2) == 20
    assert factor({"images": 2, "kid": 0.19}, MANY) == (25, True)
    times, reached = factor({"images": 4, "kid": 0.05}, MANY)
    assert times == pytest.approx(25)
    assert not reached
