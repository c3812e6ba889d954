"""Near duplicates: signatures estimate similarity, similar documents are linked, the first of the linked is kept."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import small
from hypothesis import given
from hypothesis import strategies as st

from pipelines.selection import near_duplicates as near
from pipelines.selection.near_duplicates import Links
from pipelines.selection.shingles import normalise

LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def random_text(rng: np.random.Generator, size: int) -> str:
    return "".join(rng.choice(LETTERS, size))


def jaccard(a: str, b: str, width: int = 24) -> float:
    x, y = ({n[i : i + width] for i in range(max(len(n) - width + 1, 1))} for n in (normalise(a), normalise(b)))
    return len(x & y) / len(x | y)


def pair(rng: np.random.Generator, windows: int, shared: int) -> tuple[str, str]:
    """Two random texts of so many windows each, of which so many are shared."""
    common = random_text(rng, shared + 23)
    return tuple(common + digit + random_text(rng, windows - shared - 1) for digit in "12")


def estimates(pairs: list[tuple[str, str]]) -> np.ndarray:
    one, other = (near.signatures([p[side] for p in pairs]).astype(np.uint8) for side in (0, 1))
    return near.similarity(one, other)


@pytest.mark.parametrize(
    ("windows", "shared"), [(2, 1), (7, 6), (20, 10), (100, 90), (400, 300), (2000, 1000), (2000, 1800)]
)
def test_agreement_estimates_similarity(windows, shared):
    """The mean of 200 pairs is within 4 standard errors, at a level of 6e-5, and one pair errs by what sampling makes:
    by 128 bins of a long text, by about as many as it has windows of a short one.
    """
    rng = np.random.default_rng(windows + shared)
    pairs = [pair(rng, windows, shared) for _ in range(200)]
    true = shared / (2 * windows - shared)
    assert jaccard(*pairs[0]) == pytest.approx(true)
    found = estimates(pairs)
    error = np.sqrt(true * (1 - true) * (1 / 128 + 1 / (2 * windows - shared)))
    assert abs(found.mean() - true) < 4 * error / np.sqrt(200) + 1 / 256
    assert found.std() < 1.3 * error


def test_equal_texts_agree_wholly_and_unrelated_ones_hardly():
    rng = np.random.default_rng(0)
    texts = [random_text(rng, size) for size in (1, 5, 24, 25, 60, 500, 9000)]
    assert estimates([(t, t.upper() + " !") for t in texts]).tolist() == [1.0] * len(texts)
    assert estimates([(t, random_text(rng, len(t) + 20)) for t in texts]).max() < 0.1


def test_a_signature_does_not_depend_on_the_other_documents():
    rng = np.random.default_rng(0)
    texts = [random_text(rng, int(size)) for size in rng.integers(0, 3000, 50)]
    together = near.signatures(texts)
    assert (together.shape, together.dtype) == ((50, near.BINS), np.uint32)
    assert np.array_equal(together, np.concatenate([near.signatures([text]) for text in texts]))


def test_texts_without_letters_have_no_signature_and_no_bands():
    found = near.signatures(["", "?! ...", "a"])
    assert (found[:2] == 0xFFFFFFFF).all()
    assert not (found[2] == 0xFFFFFFFF).any()
    bands = near.band_hashes(found)
    assert bands[:2].tolist() == [[0] * near.BANDS] * 2
    assert (bands[2] != 0).all()


def test_a_band_is_of_its_eight_bins():
    one = near.signatures([random_text(np.random.default_rng(0), 400)])
    for place in (0, 7, 8, 127):
        other = one.copy()
        other[0, place] ^= 1
        changed = np.flatnonzero(near.band_hashes(one)[0] != near.band_hashes(other)[0])
        assert changed.tolist() == [place // 8]


# --- linking ----------------------------------------------------------------------------------------------------------


def signed(folder, *units: list[str]) -> list[str]:
    """Files of signatures of units that hold these texts in this order."""
    urls = []
    for number, texts in enumerate(units):
        urls.append(f"{folder}/{number}.parquet")
        assert near.write_signatures([texts], urls[-1]) == len(texts)
    return urls


def linked(urls: list[str], *, threshold: float = 0.8, gone=()) -> dict[int, int]:
    """Document -> first of its group, by all bands."""
    found = [near.link_band(urls, np.array(gone, np.int64), band, threshold) for band in range(near.BANDS)]
    numbers, first = near.first_of_each(Links(*(np.concatenate(sides) for sides in zip(*found, strict=True))))
    return dict(zip(numbers.tolist(), first.tolist(), strict=True))


def test_similar_documents_of_all_units_are_linked_to_the_first(tmp_path):
    rng = np.random.default_rng(0)
    one, other, third = (random_text(rng, 900) for _ in range(3))
    urls = signed(tmp_path, [third, one + "more"], [], ["", other, one.upper()], [other[:890], one, "...", third[9:]])
    assert linked(urls) == {4: 1, 5: 3, 6: 1, 8: 0}
    assert linked(urls, gone=[1]) == {5: 3, 6: 4, 8: 0}
    assert linked(urls, gone=[3, 0, 1, 4]) == {}
    assert linked(urls, threshold=1.0) == {6: 4}
    assert linked([]) == {}


@pytest.mark.parametrize(("changed", "lowest", "highest"), [(0.053, 0.99, 1.0), (0.25, 0.15, 0.75)])
def test_planted_pairs_are_found_as_often_as_theory_says(tmp_path, changed, lowest, highest):
    """1 - (1 - s**8)**16 of pairs of similarity s: 0.9999 at 0.9, 0.36 at 0.6. 200 pairs, so 0.99 is 20 deviations."""
    rng = np.random.default_rng(0)
    windows = 1000
    pairs = [pair(rng, windows, round(windows * (1 - changed))) for _ in range(200)]
    urls = signed(tmp_path, [a for a, _ in pairs], [b for _, b in pairs])
    s = (1 - changed) / (1 + changed)
    found = linked(urls, threshold=0.5)
    assert set(found.items()) <= {(200 + i, i) for i in range(200)}, "unrelated texts are never linked"
    expected = 1 - (1 - s**8) ** 16
    spread = 4 * np.sqrt(expected * (1 - expected) / 200) + 0.005
    assert lowest <= expected <= highest
    assert abs(len(found) / 200 - expected) < spread


def test_unrelated_texts_of_one_vocabulary_are_not_linked(tmp_path):
    texts = [text for text in small.documents(600) if len(text) > 100]
    assert linked(signed(tmp_path, texts[:200], texts[200:])) == {}


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda pair: pair[0] != pair[1])))
def test_the_first_of_each_group_is_that_of_a_naive_union(pairs):
    group = {number: number for number in range(31)}
    for a, b in pairs:
        low, high = sorted((group[a], group[b]))
        group = {number: low if its == high else its for number, its in group.items()}
    sides = np.array(pairs, np.int64).reshape(-1, 2)
    numbers, first = near.first_of_each(Links(sides.max(axis=1), sides.min(axis=1)))
    found = list(zip(numbers.tolist(), first.tolist(), strict=True))
    assert found == [(number, its) for number, its in group.items() if number != its]


def test_a_long_chain_in_any_order_is_one_group():
    path = np.random.default_rng(0).permutation(20_000)
    numbers, first = near.first_of_each(Links(path[1:], path[:-1]))
    assert np.array_equal(numbers, np.arange(1, 20_000))
    assert not first.any()


@given(st.lists(st.integers(0, 5)))
def test_repeats_are_all_but_the_first(values):
    again, first = near.repeats(np.array(values, np.uint64))
    expected = {place: values.index(value) for place, value in enumerate(values) if values.index(value) != place}
    assert dict(zip(again.tolist(), first.tolist(), strict=True)) == expected


def test_signatures_are_written_in_the_order_of_the_documents(tmp_path):
    texts, url = small.documents(60), f"{tmp_path}/signatures.parquet"
    assert near.write_signatures([texts[:25], [], texts[25:]], url) == 60
    expected, table = near.signatures(texts), pq.read_table(url)
    assert table.schema.equals(near.SCHEMA)
    assert table["check"].to_pylist() == [row.tobytes() for row in expected.astype(np.uint8)]
    bands = np.stack([table[name].to_numpy() for name in near.BAND_NAMES], axis=1)
    assert np.array_equal(bands, near.band_hashes(expected))
