"""The search over ranges: finds exactly what differs, with traffic that follows the differences."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.reconcile.ranges import (
    DIGEST_BYTES,
    KEY_BYTES,
    Asked,
    Found,
    KeyRange,
    LeafPage,
    Leaves,
    RangeDigest,
    RangeSearch,
)

_KEY = st.integers(0, 2**128 - 1).map(lambda number: number.to_bytes(KEY_BYTES, "big"))
_NEAR = st.integers(0, 300).map(lambda number: number.to_bytes(KEY_BYTES, "big"))
_ENDS = st.sampled_from([bytes(KEY_BYTES), b"\xff" * KEY_BYTES])
_LEAVES = st.dictionaries(
    st.one_of(_KEY, _NEAR, _ENDS), st.binary(min_size=16, max_size=16), max_size=300
)


@dataclass
class Traffic:
    """What went over the line."""

    asks: int = 0
    bytes: int = 0


def search(here: dict[bytes, bytes], there: dict[bytes, bytes]) -> tuple[list[Found], Traffic]:
    """Compare two ends; the bytes are those of keys, digests and counts."""
    far, work, traffic = Leaves(there.items()), RangeSearch(Leaves(here.items())), Traffic()
    while (ask := work.next()) is not None:
        traffic.asks += 1
        traffic.bytes += 2 * KEY_BYTES * len(ask.spans)
        if ask.kind is Asked.DIGESTS:
            digests = [far.digest(span) for span in ask.spans]
            traffic.bytes += (4 + DIGEST_BYTES) * len(digests)
            work.take_digests(digests)
        else:
            pages = [far.page(span, 40) for span in ask.spans]
            traffic.bytes += sum(32 * len(page.leaves) for page in pages)
            work.take_leaves(pages)
    return work.found, traffic


def differing(here: dict[bytes, bytes], there: dict[bytes, bytes]) -> list[Found]:
    """What differs, by looking at everything."""
    return [
        Found(key, here.get(key), there.get(key))
        for key in sorted(here.keys() | there.keys())
        if here.get(key) != there.get(key)
    ]


@given(_LEAVES, _LEAVES)
@settings(max_examples=150, deadline=None)
def test_finds_exactly_what_differs(here: dict[bytes, bytes], there: dict[bytes, bytes]) -> None:
    """Any two lists, most of them strangers to each other."""
    found, _ = search(here, there)
    assert sorted(found, key=lambda each: each.key) == differing(here, there)


@given(_LEAVES, st.data())
@settings(max_examples=150, deadline=None)
def test_finds_single_changes(here: dict[bytes, bytes], data: st.DataObject) -> None:
    """Two lists that are alike but for a few leaves changed, gone or new."""
    there = dict(here)
    for key in data.draw(st.lists(st.sampled_from(sorted(here)), max_size=5)) if here else []:
        if data.draw(st.booleans()):
            there.pop(key, None)
        else:
            there[key] = bytes(16)
    there.update(data.draw(st.dictionaries(_KEY, st.just(b"n" * 16), max_size=3)))
    found, _ = search(here, there)
    assert sorted(found, key=lambda each: each.key) == differing(here, there)


def many(count: int, seed: int = 1) -> dict[bytes, bytes]:
    """So many leaves."""
    source = random.Random(seed)
    return {source.randbytes(16): hashlib.sha256(b"%d" % n).digest()[:16] for n in range(count)}


@pytest.mark.parametrize("changed", [0, 1, 10, 100])
def test_traffic_follows_the_differences(changed: int) -> None:
    """Of 100,000 leaves: nothing for none, and a bounded price for each that differs."""
    here = many(100_000)
    there = dict(here)
    for key in random.Random(2).sample(sorted(here), changed):
        there[key] = bytes(16)
    found, traffic = search(here, there)
    assert len(found) == changed
    # Four rounds of sixteen ranges and a page of leaves, for each leaf that differs.
    assert traffic.bytes <= 52 + 4_500 * changed
    assert traffic.asks <= 6 + changed // 4


def test_traffic_grows_with_the_logarithm_of_the_rows() -> None:
    """A hundred times the rows: less than three times the bytes for one difference."""
    sizes = []
    for count in (1_000, 100_000):
        here = many(count)
        there = dict(here)
        there[min(there)] = bytes(16)
        sizes.append(search(here, there)[1].bytes)
    assert sizes[1] < 3 * sizes[0]


def test_a_whole_missing_end_is_paged() -> None:
    """Neither end holds more than a page of it in hand."""
    found, traffic = search({}, many(1_000))
    assert len(found) == 1_000
    assert traffic.asks == 2 + 1_000 // 39


def test_answers_must_fit_the_question() -> None:
    """Too few, of the wrong kind, or a page that leads nowhere."""
    work = RangeSearch(Leaves(many(10).items()))
    with pytest.raises(ValueError, match="nobody asked"):
        work.take_digests([])
    work.next()
    with pytest.raises(ValueError, match="shorter"):
        work.take_digests([])
    work = RangeSearch(Leaves(()))
    work.next()
    work.take_digests([RangeDigest(1, bytes(16))])
    work.next()
    with pytest.raises(ValueError, match="empty page"):
        work.take_leaves([LeafPage((), more=True)])


def test_an_empty_range_is_a_digest_like_any_other() -> None:
    """Two empty lists are equal at the first answer."""
    assert Leaves(()).digest(KeyRange()) == Leaves(()).digest(KeyRange())
    assert search({}, {}) == ([], Traffic(1, 52))
