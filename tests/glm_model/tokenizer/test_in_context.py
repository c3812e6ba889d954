"""What stands beside a mask, and what stands in its place, has the ids that it has in the whole text."""

import random

import pytest
from helpers import kinds

TEXTS = (kinds.english(14, seed=3), kinds.chinese(10, seed=3))


def blanks_of_whole_tokens(kind: str, text: str, count: int) -> list[tuple[int, int, int, int]]:
    """(first token, one past the last, first character, one past the last) of some blanks of a text.

    No blank follows a token that is a space and nothing else: a prompt's space before a mask belongs to the blank. With
    WordPiece none ends in a sign with a letter behind it: the letter would be read as part of the blank's word.
    """
    tokenizer = kinds.of_kind(kind)
    ids, starts, _ = tokenizer.encode_whole(text)
    places, rng, found = [*starts.tolist(), len(text)], random.Random(5), []
    while len(found) < count:
        first = rng.randrange(len(ids))
        last = first + rng.randint(1, 6)
        if last > len(ids) or (first and tokenizer.surface(int(ids[first - 1])) == " "):
            continue
        begin, end = places[first], places[last]
        if kind in ("wordpiece", "T5"):  # no token has the white space
            end = len(text[:end].rstrip())
        sign = kind == "wordpiece" and not text[end - 1].isalnum() and text[end : end + 1].isalnum()
        inside = (first and places[first - 1] == begin) or places[last - 1] == places[last]  # a character's bytes
        if not sign and not inside:
            found.append((first, last, begin, end))
    return found


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_prompts_text_has_the_ids_of_the_whole_text_where_the_blank_covers_whole_tokens(kind):
    tokenizer = kinds.of_kind(kind)
    wrong = []
    for text in TEXTS:
        ids = tokenizer.encode(text).tolist()
        for first, last, begin, end in blanks_of_whole_tokens(kind, text, 60):
            prompt = f"{text[:begin]}[MASK]{text[end:]}"
            got = tokenizer.encode_prompt(prompt).tolist()
            if got != [*ids[:first], tokenizer.special.mask, *ids[last:]]:
                wrong.append((prompt, text[begin:end]))
    assert wrong == []


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_an_answer_has_the_ids_of_the_whole_text(kind):
    tokenizer = kinds.of_kind(kind)
    wrong = []
    for text in TEXTS:
        ids = tokenizer.encode(text).tolist()
        for first, last, begin, end in blanks_of_whole_tokens(kind, text, 40):
            (answer,) = tokenizer.encode_answers(f"{text[:begin]}[MASK]{text[end:]}", [text[begin:end]])
            if answer.tolist() != ids[first:last]:
                wrong.append((text, text[begin:end]))
    assert wrong == []


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_pieces_of_a_text_are_decoded_with_their_spaces(kind):
    """For kinds that keep spaces: joined, the pieces are the text."""
    tokenizer = kinds.of_kind(kind)
    text = "The river bridge carried a stone."
    ids = tokenizer.encode(text)
    pieces = [tokenizer.decode(ids[:2]), *(tokenizer.decode([id_], inside=True) for id_ in ids[2:])]
    assert tokenizer.decode(ids).strip() == text
    if kind == "wordpiece":  # joins words by itself
        assert [piece.strip() for piece in pieces] == pieces
    else:
        assert "".join(pieces).strip() == text


@pytest.mark.parametrize("kind", [kind for kind in kinds.KINDS if kind != "wordpiece"])
def test_an_answer_has_the_space_before_its_mask_given_or_not(kind):
    tokenizer = kinds.of_kind(kind)
    (given,), (left_out,) = (tokenizer.encode_answers("The [MASK] carried.", [a]) for a in (" river", "river"))
    assert given.tolist() == left_out.tolist()
    assert tokenizer.surface(int(given[0])) == " river"
    (glued,) = tokenizer.encode_answers("The[MASK] carried.", ["river"])
    assert glued.tolist() != given.tolist()


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_masks_beside_each_other_and_at_both_ends(kind):
    tokenizer = kinds.of_kind(kind)
    mask = tokenizer.special.mask
    river = tokenizer.encode_answers("The [MASK] carried.", ["river"])[0].tolist()
    assert tokenizer.encode_prompt("[MASK] [MASK] river [MASK]").tolist() == [mask, mask, *river, mask]
    assert tokenizer.encode_prompt("").tolist() == []
    assert tokenizer.encode_prompt("The river.").tolist() == tokenizer.encode("The river.").tolist()
    assert [ids.tolist() for ids in tokenizer.encode_answers("[MASK] [MASK]", ["The", ""])] == [
        tokenizer.encode("The").tolist(),
        [],
    ]
