"""What we compute for golden/scoring.npz and scoring.json, beside what the authors' implementation gave: scores of
answers and texts, and greedy fillings with the logits behind each token. `parity.py` prints the differences.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from glm_model import layout
from glm_model.cache import Cache
from glm_model.decoding import Decoding
from glm_model.generation.fill import fill_tokens
from glm_model.generation.sampling import Limits
from glm_model.generation.scoring import Score, Scored, score_examples, score_text, score_tokens, text_windows
from glm_model.generation.session import Session, piece_inputs
from glm_model.model import GLM

CLS, MASK, SMASK, GMASK, SOP, EOP, EOS = 1, 2, 993, 992, 990, 991, 0
MARKS = layout.Marks(sop=SOP, eop=EOP, pad=0)
DIRECTIONS = ("bi", "uni")
Arrays = dict[str, np.ndarray]
Facts = dict[str, Any]


class Pair(NamedTuple):
    """What we compute, and what the authors' implementation gave."""

    name: str
    found: Any
    wanted: Any


def all_scores(model: GLM, arrays: Arrays, facts: Facts) -> Iterator[Pair]:
    yield from cloze_scores(model, arrays)
    for way in DIRECTIONS:
        yield choice_scores(model, arrays, way)
    for name in facts["language_model"]:
        yield text_scores(model, text_pieces(arrays, facts, name), facts, name)
    for way in DIRECTIONS:
        yield last_word_scores(model, arrays, facts, way)


def cloze_scores(model: GLM, arrays: Arrays) -> Iterator[Pair]:
    """Scores of candidates, normalised by several powers of their number of tokens.

    Also those of the authors' fast form, which reads a context once as ours does; and for candidates of a single token
    the log-probabilities, and the logits up to a constant of each text.
    """
    scores = score_tokens(model, *_questions(arrays, "cloze_multi", ends=True), marks=MARKS)
    powers = (0.0, 0.5, 1.0)
    wanted = np.stack([arrays[f"cloze_multi/out/softmax1_lp{power}"] for power in powers])
    yield Pair("cloze_multi", np.stack([_normalised(scores, power) for power in powers]), wanted)
    yield Pair("cloze_fast", _normalised(scores, 0.0), arrays["cloze_fast/out/logits"])
    candidates = [[[np.array([token])] for token in row] for row in arrays["cloze_single/in/target_ids"]]
    found = _normalised(score_tokens(model, _short(arrays), candidates, marks=MARKS, count_end=False), 0.0)
    logits = arrays["cloze_single/out/logits"]
    wanted = np.stack((arrays["cloze_single/out/log_softmax"], logits - logits[:, :1]))
    yield Pair("cloze_single", np.stack((found, found - found[:, :1])), wanted)


@torch.inference_mode()
def next_token_logits(model: GLM, arrays: Arrays) -> Pair:
    """Logits of every token at the masks of `cloze_single`."""
    prompts = _short(arrays)
    session = Session(model, [prompt.tokens for prompt in prompts], capacity=22)
    logits = session.feed([piece_inputs([SOP], int(prompt.mask_positions[0])) for prompt in prompts])
    return Pair("cloze_single, whole vocabulary", logits, arrays["cloze_single/out/all_vocab_logits"])


def choice_scores(model: GLM, arrays: Arrays, direction: str) -> Pair:
    """Scores of the choices of a question, as sums and means. uni: the question stands in the blank, before each."""
    case = f"multichoice_{direction}"
    prompts, candidates = _questions(arrays, case, ends=False)
    given = None
    if direction == "uni":
        ids, counted = (arrays[f"{case}/in/{name}"][:, 0] for name in ("input_ids", "logit_mask"))
        given = [row[3 : np.argmax(mask) + 1] for row, mask in zip(ids, counted, strict=True)]
    scores = score_tokens(model, prompts, candidates, marks=MARKS, count_end=False, given=given)
    wanted = np.stack([arrays[f"{case}/out/{name}"] for name in ("logits", "logits_lp1")])
    return Pair(case, np.stack([_normalised(scores, power) for power in (0.0, 1.0)]), wanted)


def documents_of(arrays: Arrays, facts: Facts, name: str) -> list[list[int]]:
    """The texts of a case of language modelling, put together from the windows of a bidirectional one, which score
    every token; a document's first window has one token in its context.
    """
    source = "doc3_bi_overlap16" if name.startswith("doc3") else "doc1_bi_overlap8"
    documents: list[list[int]] = []
    for index in range(facts["language_model"][source]["n_windows"]):
        text, target, mask = (arrays[f"lm/{source}/window{index}/{field}"] for field in ("text", "target", "loss_mask"))
        if index == 0 or text[2] in (MASK, GMASK):
            documents.append([int(text[1])])
        documents[-1] += target[mask == 1].tolist()
    return documents


def text_pieces(arrays: Arrays, facts: Facts, name: str) -> list[list[Scored]]:
    """The windows of each document of a case."""
    case = facts["language_model"][name]
    settings = {"cls": CLS, "mask": GMASK if case["task_mask"] else MASK, "marks": MARKS, "given": 1}
    settings |= {"window": case["max_seq_len"], "stride": case["overlapping_eval"]}
    uni = case["unidirectional"]
    return [text_windows(text, **settings, bidirectional=not uni) for text in documents_of(arrays, facts, name)]


def text_scores(model: GLM, documents: list[list[Scored]], facts: Facts, name: str) -> Pair:
    """Negative log-likelihoods of the windows and their sum; how many tokens each scores. Not the authors' perplexity,
    which divides by (tokens - 1) even where fewer were scored.
    """
    case = facts["language_model"][name]
    scores = score_examples(model, [window for document in documents for window in document])
    total = -sum(score_text(model, document).logprob for document in documents)
    found = [*(-score.logprob for score in scores), total, *(score.tokens for score in scores)]
    return Pair(f"lm/{name}", found, [*case["nll_per_window"], case["nll_sum"], *case["scored_tokens_per_window"]])


def last_word_scores(model: GLM, arrays: Arrays, facts: Facts, direction: str) -> Pair:
    """LAMBADA: negative log-likelihoods and their sum; whether greedy writing gives the word. Its text is cut by the
    task, so contexts are those of the authors' inputs.
    """
    case, prompts, answers, given = facts["lambada"][direction], [], [], []
    for index in range(len(case["texts"])):
        names = ("text", "target", "attention_mask", "loss_mask")
        text, target, context, counted = (arrays[f"lambada/{direction}/{index}/{name}"] for name in names)
        prompts.append(layout.prompt(text[: int(context)], masks=(MASK,)))
        answers.append([[target[counted == 1]]])
        given.append(target[int(context) : np.argmax(counted)])
    scores = [one for (one,) in score_tokens(model, prompts, answers, marks=MARKS, count_end=False, given=given)]
    found = [*(-one.logprob for one in scores), -sum(one.logprob for one in scores), *(one.greedy for one in scores)]
    wanted = [*case["nll_per_example"], case["nll_sum"], *case["correct_per_example"]]
    return Pair(f"lambada_{direction}", found, wanted)


def generations(facts: Facts) -> dict[str, int]:
    """Cases of greedy filling, and how many texts each has; remarks stand beside them."""
    lists = {name: runs for name, runs in facts["generation"].items() if isinstance(runs, list)}
    return {name: len(runs) for name, runs in lists.items() if isinstance(runs[0], dict)}


def fillings(model: GLM, facts: Facts, name: str) -> Iterator[tuple[Pair, list[Pair]]]:
    """Per text of a case, filled in one ragged batch: (the places and tokens of its blanks, with [sop]; for each of the
    authors' steps, read a text at a time, the logits that are stored: of the best five tokens and of [eop]).
    """
    runs, prompts = facts["generation"][name], []
    for run in runs:
        written = sum(len(blank["generated_with_sop"]) for blank in run["blanks"])
        prompts.append(layout.prompt(np.array(run["final_tokens"][:-written]), masks=(MASK, SMASK, GMASK)))
    decoding = Decoding(max_tokens=int(name.split()[-1]), min_tokens=0)
    filled = fill_tokens(model, prompts, decoding, Limits(sop=SOP, stop=(EOP, EOS)))
    for prompt, (blanks,), run in zip(prompts, filled, runs, strict=True):
        places = prompt.mask_positions.tolist()
        found = [(place, [SOP, *tokens]) for place, (tokens, _) in zip(places, blanks, strict=True)]
        wanted = [(blank["mask_position"], blank["generated_with_sop"]) for blank in run["blanks"]]
        yield Pair("tokens", found, wanted), list(_steps(model, prompt, run))


@torch.inference_mode()
def _steps(model: GLM, prompt: layout.Prompt, run: Facts) -> Iterator[Pair]:
    cache = Cache(model.config, 1, len(run["final_tokens"]))
    positions = layout.context_positions(len(prompt.tokens))
    model.hidden(*(torch.from_numpy(x)[None] for x in (prompt.tokens, *positions)), cache=cache)
    for step in (step for blank in run["blanks"] for step in blank["steps"]):
        fed = (torch.tensor([[step[key]]]) for key in ("fed_token", "position", "block_position"))
        logits = model.logits(model.hidden(*fed, cache=cache))[0, -1]
        yield Pair("logits", logits[[*step["top5_ids"], EOP]], [*step["top5_logits"], step["eop_logit"]])


def _questions(arrays: Arrays, case: str, *, ends: bool) -> tuple[list[layout.Prompt], list]:
    """(prompts, candidates) of a cloze case; ends: the targets end in [eop], which is not part of an answer."""
    names = ("input_ids", "attention_mask", "target_ids", "logit_mask")
    ids, context, targets, counted = (arrays[f"{case}/in/{name}"] for name in names)
    prompts = [layout.prompt(ids[i, 0, : context[i, 0]], masks=(MASK, GMASK)) for i in range(len(ids))]
    answers = [[targets[i, j][counted[i, j] == 1] for j in range(ids.shape[1])] for i in range(len(ids))]
    assert not ends or all(answer[-1] == EOP for several in answers for answer in several)
    return prompts, [[[answer[:-1] if ends else answer] for answer in several] for several in answers]


def _short(arrays: Arrays) -> list[layout.Prompt]:
    """The texts of `cloze_single`."""
    ids, context = (arrays[f"cloze_single/in/{name}"] for name in ("input_ids", "attention_mask"))
    return [layout.prompt(ids[i, : context[i]], masks=(MASK,)) for i in range(len(ids))]


def _normalised(scores: Sequence[Sequence[Score]], power: float) -> np.ndarray:
    return np.array([[score.normalised(power) for score in several] for several in scores])
