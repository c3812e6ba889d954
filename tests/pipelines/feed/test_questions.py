"""The feed of fine-tuning: each question once an epoch, the same for any number of workers; where answers stand."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from helpers.small import WORDS

from glm_model.layout import Marks
from pipelines import tasks
from pipelines.feed.questions import QuestionPlan, fingerprint, lay_out_questions, question_steps, segment_sizes
from pipelines.questions.config import TaskConfig
from pipelines.questions.question import ask_all
from pipelines.questions.rows import Row

MARKS = Marks(sop=90, eop=91, pad=92)


def asked(tokenizer, *, words: dict[str, str], count: int = 12, head: bool = False):
    rows = [
        Row("a.csv", n + 2, {"text": " ".join(WORDS[n % 5 : n % 5 + 1 + n]), "label": list(words)[n % len(words)]})
        for n in range(count)
    ]
    task = tasks.define(TaskConfig(words=words, head=head), lambda: rows)
    return list(ask_all(task, rows, tokenizer, positions=64))


ONE = {"0": WORDS[0], "1": WORDS[1]}  # one token each
SEVERAL = {"0": f"{WORDS[2]} {WORDS[3]}", "1": WORDS[1]}


def test_a_plan_asks_each_question_once_an_epoch():
    plan = QuestionPlan(questions=10, step_questions=4, micro_questions=2, seed=5)
    flat = np.concatenate([plan.step(step) for step in range(5)])
    assert sorted(flat[:10].tolist()) == sorted(flat[10:].tolist()) == list(range(10))
    assert flat[:10].tolist() != flat[10:].tolist()
    assert replace(plan, seed=6).step(0).tolist() != plan.step(0).tolist()
    assert [n for index in (0, 1) for n in plan.micro_batch(2, index).tolist()] == plan.step(2).tolist()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_number_of_workers_is_invisible(tiny_tokenizer, world):
    """Law 6 for fine-tuning (law 19): a step has the same examples, by their fingerprints."""
    questions = asked(tiny_tokenizer, words=ONE)
    plan = QuestionPlan(questions=12, step_questions=6, micro_questions=2, seed=1)

    def prints(world: int) -> list[int]:
        totals = [0] * 4
        for rank in range(world):
            for item in question_steps(questions, plan, MARKS, start=0, stop=4, rank=rank, world=world):
                totals[item.step] += sum(batch.fingerprint for _, batch in item.micro_batches)
        return totals

    assert prints(world) == prints(1)
    assert len({*prints(1)}) == 4


def test_one_segment_serves_candidates_of_one_token(tiny_tokenizer):
    questions = asked(tiny_tokenizer, words=ONE, count=2)
    assert not questions[0].count_end
    batch = lay_out_questions(questions, MARKS)
    choices = batch.asked
    assert (batch.example.segment_ids.max(), choices.gold.tolist()) == (1, [0, 1])
    assert (choices.question.tolist(), choices.place.tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1])
    at = choices.at
    assert at[0] == at[1]
    assert at[2] == at[3]
    assert batch.example.tokens.ravel()[at].tolist() == [MARKS.sop] * 4
    words = [tiny_tokenizer.encode_answers(questions[0].text, [word])[0].tolist() for word in ONE.values()]
    assert choices.targets.tolist() == [*words[0], *words[1]] * 2


def test_each_candidate_of_several_tokens_is_a_segment_with_its_end(tiny_tokenizer):
    questions = asked(tiny_tokenizer, words=SEVERAL, count=1)
    assert questions[0].count_end
    batch = lay_out_questions(questions, MARKS)
    choices, example = batch.asked, batch.example
    assert example.segment_ids.max() == 1
    for number, candidate in enumerate(questions[0].candidates):
        own = choices.candidate == number
        assert choices.targets[own].tolist() == [*candidate.tolist(), MARKS.eop]
        assert example.targets.ravel()[choices.at[own]].tolist() == choices.targets[own].tolist()


def test_rows_hold_whole_segments_in_their_order(tiny_tokenizer):
    questions = asked(tiny_tokenizer, words=ONE)
    narrow, wide = (lay_out_questions(questions, MARKS, width=width) for width in (1, 256))
    assert len(narrow.example.tokens) > len(wide.example.tokens)
    assert narrow.fingerprint == wide.fingerprint
    assert narrow.tokens == wide.tokens == sum(len(question.prompt.tokens) for question in questions)


@pytest.mark.parametrize("width", [1, 20, 40, 64, 70, 1000])
def test_rows_are_as_few_and_then_as_narrow_as_their_order_allows(tiny_tokenizer, width):
    """Against all ways to cut the same segments into rows."""
    questions = asked(tiny_tokenizer, words=ONE, count=9)[::-1]
    sizes = [*itertools.chain.from_iterable(map(segment_sizes, questions))]
    most = max(width, *sizes)

    def widest(cuts: tuple[int, ...]) -> int:
        return max(sum(sizes[a:b]) for a, b in itertools.pairwise((0, *cuts, len(sizes))))

    ways = [(n, widest(cuts)) for n in range(9) for cuts in itertools.combinations(range(1, len(sizes)), n)]
    example = lay_out_questions(questions, MARKS, width=width).example
    found = (example.segment_ids >= 0).sum(1)
    assert (len(found) - 1, found.max()) == min(way for way in ways if way[1] <= most)
    assert found.sum() == sum(sizes)


def test_a_fingerprint_covers_texts_answers_and_labels(tiny_tokenizer):
    questions = asked(tiny_tokenizer, words=ONE)
    others = [
        [replace(questions[0], gold=1 - questions[0].gold), *questions[1:]],
        [*questions, questions[0]],
        [*questions, questions[0], questions[0]],
        asked(tiny_tokenizer, words=SEVERAL),
    ]
    assert len({fingerprint(some) for some in (questions, *others)}) == 5
    assert fingerprint(questions[::-1]) == fingerprint(questions)


@pytest.mark.parametrize("width", [1, 256])
def test_a_head_reads_whole_texts_at_their_beginning(tiny_tokenizer, width):
    questions = asked(tiny_tokenizer, words=ONE, head=True)
    batch = lay_out_questions(questions, MARKS, width=width)
    example, choices = batch.example, batch.asked
    assert example.tokens.ravel()[choices.at].tolist() == [tiny_tokenizer.special.cls] * 12
    assert (choices.gold.tolist(), choices.targets.size, example.loss_mask.any()) == ([0, 1] * 6, 0, False)
    shown = [example.tokens.ravel()[at:].tolist() for at in choices.at]
    for question, tokens in zip(questions, shown, strict=True):
        assert tokens[: len(question.prompt.tokens)] == question.prompt.tokens.tolist()
    assert batch.tokens == sum(len(question.prompt.tokens) for question in questions)
