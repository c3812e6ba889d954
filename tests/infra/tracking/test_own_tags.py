"""Texts in tags are written once and kept up to date, until a person changes or deletes them."""

from infra.tracking.own_tags import due


def written(tags: dict[str, str], **texts: str) -> dict[str, str]:
    return tags | due(tags, texts)


def test_a_text_is_written_once_and_then_when_it_changes():
    tags = written({}, note="one")
    assert tags["note"] == "one"
    assert due(tags, {"note": "one"}) == {}
    assert written(tags, note="two")["note"] == "two"
    assert written(written(tags, note="two"), note="one")["note"] == "one"


def test_a_text_of_a_person_stays():
    assert due({"note": "mine"}, {"note": "ours"}) == {}
    ours = written({}, note="ours")
    assert due(ours | {"note": "mine"}, {"note": "new"}) == {}
    assert due(ours | {"note": ""}, {"note": "new"}) == {}


def test_a_text_that_a_person_deleted_stays_away_and_others_are_written():
    tags = written({}, note="ours", view="ours")
    del tags["note"]
    assert due(tags, {"note": "ours"}) == {}
    again = written(tags, note="new", view="new")
    assert ("note" in again, again["view"]) == (False, "new")
    assert written(again, view="newer")["view"] == "newer"
