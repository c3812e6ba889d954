"""The ragged cache (law 5): rows of any lengths equal the same rows alone, whatever is added, dropped or repeated."""

import numpy as np
import pytest
import torch

from glm_model import layout
from glm_model.cache import Cache
from glm_model.generation.session import Session, piece_inputs
from glm_model.model import GLM


@pytest.fixture
def model(small) -> GLM:
    torch.manual_seed(0)
    return GLM(small)


def contexts(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(3, 50, length) for length in lengths]


def pieces(*sizes: int, place: int = 1, first: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(sum(sizes))
    return [piece_inputs(rng.integers(3, 50, size), place, first=first) for size in sizes]


@torch.inference_mode()
def test_rows_of_any_lengths_equal_rows_without_a_cache(model):
    given = contexts(9, 4, 6)
    cached, plain = (Session(model, given, capacity=30, use_cache=use_cache) for use_cache in (True, False))
    for sizes in ((1, 1, 1), (3, 1, 2), (1, 0, 4), (5, 5, 5), (0, 1, 0)):
        new = pieces(*sizes)
        got, expected = cached.feed(new), plain.feed(new)
        rows = [row for row, size in enumerate(sizes) if size]  # a row that reads nothing has no next token
        torch.testing.assert_close(got[rows], expected[rows], rtol=0, atol=1e-5)
    assert cached.lengths == plain.lengths == [19, 12, 18]


@torch.inference_mode()
@pytest.mark.parametrize("rows", [[0, 0, 1, 2, 2], [2, 0], [1, 2, 0], [1]])
def test_rows_can_be_repeated_dropped_and_moved(model, rows):
    cached, plain = (Session(model, contexts(5, 8, 3), capacity=20, use_cache=use_cache) for use_cache in (True, False))
    for session in (cached, plain):
        session.feed(pieces(2, 1, 3))
        session.select(rows)
    new = pieces(*range(1, len(rows) + 1))
    torch.testing.assert_close(cached.feed(new), plain.feed(new), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_beams_that_change_places_share_their_context(model):
    alike = contexts(5)
    cached, plain = (
        Session(model, [alike[0], alike[0]], capacity=20, use_cache=use_cache) for use_cache in (True, False)
    )
    for session in (cached, plain):
        session.feed(pieces(2, 2))
        session.select([1, 1], since=[5, 5])
    torch.testing.assert_close(cached.feed(pieces(1, 1)), plain.feed(pieces(1, 1)), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_rows_that_end_one_after_the_other_leave_the_rest_as_they_were(model):
    """Dropped rows leave holes; once those are half of the slots, the rest moves together."""
    lengths = (5, 8, 3, 9, 4, 7)
    cached, plain = (
        Session(model, contexts(*lengths), capacity=30, use_cache=use_cache) for use_cache in (True, False)
    )
    for keep in ([0, 2, 3, 4, 5], [0, 1, 3, 4], [3, 0, 2], [2, 1], [1]):
        for session in (cached, plain):
            session.select(keep)
        new = pieces(*range(1, len(keep) + 1))
        torch.testing.assert_close(cached.feed(new), plain.feed(new), rtol=0, atol=1e-5)
    assert cached.cache is not None
    assert cached.cache.keys.shape[1] == 1


@torch.inference_mode()
@pytest.mark.parametrize("counts", [None, [6, 2]])
def test_where_no_state_is_wanted_the_cache_holds_the_same(model, counts):
    tokens = torch.randint(3, 50, (2, 6))
    positions = torch.arange(6).expand(2, 6)
    caches = [Cache(model.config, 2, 6) for _ in range(2)]
    states = [
        model.hidden(tokens, positions, torch.zeros_like(tokens), cache=cache, counts=counts, at=at)
        for cache, at in zip(caches, (None, torch.empty(0, dtype=torch.int64)), strict=True)
    ]
    assert [list(state.shape) for state in states] == [[2, 6, 32], [0, 32]]
    assert [cache.lengths.tolist() for cache in caches] == [counts or [6, 6]] * 2
    for name in ("keys", "values"):
        one, other = (getattr(cache, name) for cache in caches)
        assert one.abs().sum(dim=(1, 2, 3, 4)).all()  # of every layer
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_rewinding_forgets(model):
    fresh, used = (Session(model, contexts(5, 8), capacity=20) for _ in range(2))
    used.feed(pieces(4, 2))
    used.rewind([5, 8])
    torch.testing.assert_close(used.feed(pieces(2, 3)), fresh.feed(pieces(2, 3)), rtol=0, atol=1e-5)
    assert used.lengths == fresh.lengths == [7, 11]


def test_padding_is_never_seen(model):
    """Neither what a row holds beyond its end, nor the padding of a call."""
    tokens = torch.randint(3, 50, (2, 6))
    positions = torch.arange(6).expand(2, 6)
    logits = []
    for filler in (0, 40):
        cache = Cache(model.config, 2, 12)
        cache.keys.fill_(float(filler)), cache.values.fill_(float(filler))
        padded = tokens.clone()
        padded[1, 2:] = filler
        model.hidden(padded, positions, torch.zeros_like(tokens), cache=cache, counts=[6, 2])
        one = torch.ones(2, 1, dtype=torch.int64)
        logits.append(model.logits(model.hidden(one, one, one, cache=cache)))
    assert torch.equal(*logits)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([4, 4, 4], "give one count per row, each from 0 to 4"),
        ([4, 5], "give one count per row, each from 0 to 4"),
        ([4, 0], "row 1 begins without a position"),
    ],
)
def test_wrong_counts_are_named(model, counts, message):
    zeros = torch.zeros(2, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        model.hidden(zeros, zeros, zeros, cache=Cache(model.config, 2, 6), counts=counts)
    with pytest.raises(ValueError, match="counts go with a cache"):
        model.hidden(zeros, zeros, zeros, counts=[4, 4])
    with pytest.raises(ValueError, match="the cache has 3 rows"):
        model.hidden(zeros, zeros, zeros, cache=Cache(model.config, 3, 6))


def test_a_failed_call_leaves_the_cache_as_it_was(model):
    cache = Cache(model.config, 1, 6)
    zeros = torch.zeros(1, 4, dtype=torch.int64)
    model.hidden(zeros, zeros, zeros, cache=cache)
    with pytest.raises(ValueError, match="row 0 of the cache gets 4 positions and has room for 2 more positions of 6"):
        model.hidden(zeros, zeros, zeros, cache=cache)
    assert cache.lengths.tolist() == [4]


def test_inputs_of_a_piece():
    assert piece_inputs([7, 8], 3, first=2).tolist() == [[7, 8], [3, 3], [2, 3]]
    assert layout.piece_positions(3, 2, 2)[1].tolist() == [2, 3]
