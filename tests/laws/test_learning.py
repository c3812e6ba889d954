"""Fine-tuning learns what is in the labels, and nothing else. It learns a few items by heart; with labels that are
shuffled in train its score is that of one answer to all, within its interval.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.small import WORDS

from glm_model import GLM, GLMConfig, save_pretrained
from glm_model.config import OptimConfig
from glm_model.layout import Marks
from glm_model.tokenizer import Tokenizer
from pipelines import tasks
from pipelines.feed.questions import QuestionPlan, lay_out_questions
from pipelines.metrics.intervals import interval
from pipelines.questions.config import TaskConfig
from pipelines.questions.question import Question, ask_all
from pipelines.questions.rows import Row
from workflows.settings.recipe import TrainConfig
from workflows.training.engine import Engine, Place
from workflows.training.finetuning import Finetuning, choices_to_device
from workflows.training.ranks import Ranks

pytestmark = pytest.mark.timeout(180)  # 5 s of CPU time

SHAPE = GLMConfig(layers=2, width=32, heads=2, vocab_size=128, positions=64, dropout=0.0, attention_dropout=0.0)
FORMS = {
    "words": TaskConfig(words={"0": WORDS[8], "1": WORDS[9]}),
    "several tokens": TaskConfig(words={"0": f"{WORDS[8]} {WORDS[10]}", "1": WORDS[9]}),
    "head": TaskConfig(words={"0": "0", "1": "1"}, head=True),
}
HERE = Place(Ranks(0, 1, torch.device("cpu")), "fp32", False, lambda: None)


@pytest.fixture(scope="module")
def begin(tiny_tokenizer, tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("model"))
    torch.manual_seed(3)
    save_pretrained(GLM(SHAPE), folder, tokenizer=tiny_tokenizer)
    return folder


def items(tokenizer, config: TaskConfig, count: int, *, seed: int) -> list[Question]:
    """Texts of five words. The label says which of two words is among them; as many have one as the other."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        words = [WORDS[word] for word in rng.integers(2, 8, 5)]
        words[rng.integers(5)] = WORDS[number % 2]
        rows.append(Row("a.csv", number, {"text": " ".join(words), "label": str(number % 2)}))
    task = tasks.define(config, lambda: rows)
    return [one for one in ask_all(task, rows, tokenizer, positions=64) if isinstance(one, Question)]


def trained(begin: str, form: str, train: list[Question], asked: list[Question], *, steps: int) -> np.ndarray:
    """Choices [N] of `asked` by a model that was fine-tuned on `train`."""
    plan = QuestionPlan(len(train), step_questions=16, micro_questions=8, seed=5)
    head = FORMS[form].head
    kind = Finetuning(SHAPE, begin, False, tuple(train), (), plan, "choice", ("accuracy",), 2, has_head=head)
    optim = OptimConfig(lr=0.01, betas=(0.9, 0.999), eps=1e-8, schedule="linear", warmup_fraction=0.1)
    training = kind.begin(HERE)
    engine = Engine(training, TrainConfig(precision="fp32"), optim, steps, HERE, None)
    for item in training.steps(0, steps):
        engine.take(item, engine.agree(item, stop=False, look=False))
    special = Tokenizer.load(begin).special
    return chosen(training.step, asked, Marks(special.sop, special.eop, special.pad))


@torch.no_grad()
def chosen(step, asked: list[Question], marks: Marks) -> np.ndarray:
    step.eval()
    example, choices = choices_to_device(lay_out_questions(asked, marks), "cpu")
    return step.scores(example, choices).argmax(1).numpy()


def right(questions: list[Question], choice: np.ndarray) -> float:
    return 100 * float(np.mean([one.gold for one in questions] == choice))


@pytest.mark.parametrize("form", FORMS)
def test_a_small_model_learns_32_items_by_heart(tiny_tokenizer, begin, form):
    train = items(tiny_tokenizer, FORMS[form], 32, seed=1)
    assert right(train, trained(begin, form, train, train, steps=40)) == 100.0


def test_labels_that_are_shuffled_in_train_bring_the_score_to_the_majority(tiny_tokenizer, begin):
    train = items(tiny_tokenizer, FORMS["words"], 480, seed=1)
    asked = items(tiny_tokenizer, FORMS["words"], 200, seed=2)
    assert right(asked, trained(begin, "words", train, asked, steps=60)) > 90.0
    golds = np.random.default_rng(3).permutation([one.gold for one in train])
    shuffled = [replace(one, gold=int(gold)) for one, gold in zip(train, golds, strict=True)]
    choice = trained(begin, "words", shuffled, asked, steps=60)
    is_right = choice == np.array([one.gold for one in asked])
    bounds = interval("accuracy", np.stack((is_right, np.ones(200)), axis=1))
    assert bounds is not None
    assert bounds.low <= 50.0 <= bounds.high, (right(asked, choice), bounds)
