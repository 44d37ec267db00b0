"""What every cache promises: an old answer never comes back, whoever is faster."""

from __future__ import annotations

from node.cache import Cache, CachedAnswer

OLD = CachedAnswer("141002001201", "141002001202", b"old\n\x00\xff")
NEW = CachedAnswer("141002001201", "141002001201", b"new")


def test_without_a_place_in_the_log_it_holds_and_takes_nothing(cache: Cache) -> None:
    """Nobody could say how old its answers are."""
    assert cache.position() is None
    assert not cache.put({"a": OLD}, 5)
    assert cache.advance(0, 5, ["a"]) is None
    held = cache.get(["a"])
    assert (held.position, held.answers) == (None, {})


def test_gives_back_what_was_put_with_its_position(cache: Cache) -> None:
    """Bytes and what decides who may see them; absent ones are left out."""
    cache.start_over(5)
    assert cache.put({"a": OLD, "b": NEW}, 5)
    held = cache.get(["a", "b", "c"])
    assert (held.position, held.answers) == (5, {"a": OLD, "b": NEW})
    assert cache.is_available


def test_is_asked_for_nobody(cache: Cache) -> None:
    """A request with no id of ours still learns the position."""
    cache.start_over(5)
    held = cache.get([])
    assert (held.position, held.answers) == (5, {})


def test_takes_out_who_changed_and_keeps_the_others(cache: Cache) -> None:
    """Moving on and taking out are one step."""
    cache.start_over(5)
    cache.put({"a": OLD, "b": OLD}, 5)
    assert cache.advance(5, 8, ["a", "z"]) == 8
    held = cache.get(["a", "b"])
    assert (held.position, held.answers) == (8, {"b": OLD})


def test_refuses_an_answer_read_before_what_it_has_taken_out(cache: Cache) -> None:
    """Read old, invalidate, put old: the put comes too late, even for one who did not change."""
    cache.start_over(5)
    assert cache.advance(5, 6, ["a"]) == 6
    assert not cache.put({"a": OLD, "b": OLD}, 5)
    assert cache.get(["a", "b"]).answers == {}


def test_takes_out_an_answer_that_was_put_ahead_of_it(cache: Cache) -> None:
    """Read at 7, put while it stands at 5: the change at 8 still takes the answer out."""
    cache.start_over(5)
    assert cache.put({"a": OLD}, 7)
    assert cache.advance(5, 8, ["a"]) == 8
    assert cache.get(["a"]).answers == {}


def test_a_reader_that_is_behind_moves_nothing(cache: Cache) -> None:
    """A step from elsewhere would skip what lies between."""
    cache.start_over(5)
    cache.put({"a": OLD}, 5)
    assert cache.advance(3, 9, ["a"]) == 5
    assert cache.get(["a"]).answers == {"a": OLD}


def test_a_newer_answer_takes_the_place_of_an_older(cache: Cache) -> None:
    """There is one answer a resident."""
    cache.start_over(5)
    cache.put({"a": OLD}, 5)
    cache.put({"a": NEW}, 6)
    assert cache.get(["a"]).answers == {"a": NEW}


def test_starting_over_forgets_everything(cache: Cache) -> None:
    """Also where the new position is the old one."""
    cache.start_over(5)
    cache.put({"a": OLD}, 5)
    cache.start_over(5)
    held = cache.get(["a"])
    assert (held.position, held.answers) == (5, {})
    assert cache.put({"a": NEW}, 5)
    assert cache.get(["a"]).answers == {"a": NEW}


def test_takes_out_thousands_in_one_step(cache: Cache) -> None:
    """As many as one bundle may register."""
    everyone = {f"resident-{n}": OLD for n in range(1000)}
    cache.start_over(5)
    cache.put(everyone, 5)
    assert cache.advance(5, 6, [*everyone, *(f"other-{n}" for n in range(4000))]) == 6
    assert cache.get(list(everyone)).answers == {}
