"""Shards part the samples of a run: each sample in exactly one, and for good.

Run: pytest tests/store/test_shard.py
"""

from itertools import product

import pytest

from powerbench.errors import UserError
from powerbench.store.shard import WHOLE, Shard

KEYS = list(product(range(24), range(5)))


def held(shard: Shard) -> set[tuple[int, int]]:
    return {key for key in KEYS if shard.holds(*key)}


@pytest.mark.parametrize("of", [1, 2, 3, 8])
def test_every_sample_is_in_exactly_one_part(of: int) -> None:
    parts = [held(Shard(number, of)) for number in range(1, of + 1)]
    assert sorted(key for part in parts for key in part) == KEYS
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_parts_of_a_part_are_that_part() -> None:
    whole = Shard(2, 3)
    parts = [held(whole.part(number, 4)) for number in range(1, 5)]
    assert set().union(*parts) == held(whole)
    assert sum(map(len, parts)) == len(held(whole))


def test_parts_overlap_if_they_share_a_sample() -> None:
    shards = [Shard(number, of) for of in (1, 2, 3, 4, 6) for number in range(1, of + 1)]
    for one, other in product(shards, shards):
        assert one.overlaps(other) == bool(held(one) & held(other))


def test_a_shard_is_read_as_it_is_written() -> None:
    assert Shard.parse(None) == Shard.parse("1/1") == WHOLE
    assert Shard.parse("2/8") == Shard(2, 8)
    assert str(Shard(2, 8)) == "2/8"
    assert Shard.from_suffix(Shard(2, 8).suffix) == Shard(2, 8)
    assert Shard.from_suffix(WHOLE.suffix) == WHOLE


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "1/0", "a/b", "1/2/3", "-1/2", "all/4"])
def test_what_is_no_shard_is_named(text: str) -> None:
    with pytest.raises(UserError, match=f"shard must be like 2/8 .*, got {text}"):
        Shard.parse(text)
