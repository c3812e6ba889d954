"""What is refused before any data is prepared, and what only the store can tell."""

import re
from dataclasses import fields

import numpy as np
import pytest
from helpers import small

from glm_model.attention import make_mask
from glm_model.config import GLMConfig, OptimConfig
from infra.config import Count, parse
from infra.console import Console
from infra.errors import Interrupted, UserError
from pipelines.blanks.mixture import BlanksConfig
from pipelines.feed.micro_batches import RowReader
from pipelines.feed.order import RowPlaces
from pipelines.store.config import Member
from pipelines.store.mix import mix
from workflows.runs.pace import posted_pace
from workflows.runs.setup import resolve_setup
from workflows.settings.budget import check_recipe, epochs_text, planned_budget
from workflows.settings.recipe import ModelConfig, Recipe, TrainConfig
from workflows.settings.shape import model_config, planned_config
from workflows.settings.synthetic import synthetic_rows
from workflows.training.messages import Pace, Point
from workflows.training.to_device import to_device


def recipe(**sections) -> Recipe:
    made = Recipe(train=TrainConfig(steps=10))
    made.tracking.enabled = False
    for name, value in sections.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"train": TrainConfig()}, "no length"),
        ({"train": TrainConfig(steps=10, hours=1.0)}, r"train\.steps and train\.hours are both given"),
        ({"model": ModelConfig(size="tinny")}, "tinny"),
        ({"model": ModelConfig(positions=100)}, "segments of 512 tokens are beyond the position table"),
        ({"optim": OptimConfig(warmup_steps=10)}, "leaves nothing of 10 steps"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_data_is_prepared(sections, words):
    check_recipe(recipe())
    with pytest.raises(UserError, match=words):
        check_recipe(recipe(**sections))


def test_a_shape_that_a_given_model_cannot_grow_to_is_told_as_one(monkeypatch):
    own = GLMConfig(layers=1, width=32, heads=2, vocab_size=128, positions=512)
    monkeypatch.setattr("workflows.settings.shape.pretrained_config", lambda url: own)
    with pytest.raises(UserError, match=r"^model\.dropout=0\.99999 must be at least 0 and below 1"):
        check_recipe(recipe(model=ModelConfig(init_from="/a/model", dropout=0.99999)))


@pytest.mark.parametrize("number", [0, (0, 2), (3, 2)])
def test_a_number_of_workers_is_one_or_a_range(number):
    assert (TrainConfig(num_workers=2).min_workers, TrainConfig(num_workers=(1, 3)).max_workers) == (2, 3)
    given = re.escape(str(list(number) if isinstance(number, tuple) else number))
    with pytest.raises(ValueError, match=rf"^train\.num_workers must be .*, got {given}$"):
        TrainConfig(num_workers=number)


LEAST = {
    "tokens": 1,
    "steps": 1,
    "batch_tokens": 1,
    "micro_rows": 1,
    "window": 1,
    "max_skipped": 0,
    "log_every": 1,
    "eval_every": 0,
    "eval_rows": 0,
    "eval_items": 1,
    "patience": 1,
    "checkpoint_every": 0,
    "keep_checkpoints": 1,
    "max_failures": -1,
    "hang_s": 0,
}


def refused(name: str, value: object) -> str:
    with pytest.raises(UserError) as caught:
        train(name, value)
    return str(caught.value)


def train(name: str, value: object) -> TrainConfig:
    return parse(Recipe, description="", argv=[f"--train.{name}={value}"]).config.train


@pytest.mark.parametrize("name", LEAST)
def test_a_number_below_its_least_is_refused_by_its_name_and_the_least_is_not(name):
    least, default = LEAST[name], getattr(TrainConfig(), name)
    assert getattr(train(name, least), name) == least
    message, *advice = refused(name, least - 1).splitlines()
    assert message.replace("'", "") == f"train.{name} must be at least {least}, got {least - 1} on the command line"
    short = getattr(default, "short", default)
    assert advice == ([] if default is None else [f"  try: --train.{name}={short} (the default)"])


@pytest.mark.parametrize(
    ("value", "rule"), [("0", "be above 0, got 0"), ("-1", "be above 0, got -1"), (".inf", "be below inf, got inf")]
)
@pytest.mark.parametrize("name", ["hours", "resize_every_s"])
def test_a_time_that_is_none_is_refused(name, value, rule):
    assert getattr(train(name, 0.5), name) == 0.5
    assert f"train.{name} must {rule}" in refused(name, value)
    assert f"train.{name}" in refused(name, ".nan")


def test_every_number_of_train_has_its_bound():
    """Also a setting that is added; `seed` may be any number of 64 bits."""
    numbers = [field.name for field in fields(TrainConfig) if re.search(r"int|float|Count", str(field.type))]
    assert {*LEAST, "hours", "resize_every_s", "seed", "z_loss", "label_smoothing", "num_workers"} <= {*numbers}
    for name in numbers:
        assert name in refused(name, "{CPU: -1}" if name == "resources_per_worker" else -(10**30))


@pytest.mark.parametrize("without", ["eval_every", "eval_rows"])
def test_patience_without_validations_is_refused(without):
    with pytest.raises(UserError, match=rf"^train\.patience=2 counts validations, and train\.{without}=0 leaves none"):
        TrainConfig(patience=2, **{without: 0})


def test_hours_are_steps_and_validations():
    pace = Pace(step_s=2.0, validation_s=60.0, memory_bytes=0)
    assert pace.steps_in(1.0, eval_every=0) == (3600 - 120) / 2
    assert pace.steps_in(1.0, eval_every=30) == (3600 - 120) / (2 + 2)
    assert pace.steps_in(0.01, eval_every=30) == 1


def test_a_stop_ends_a_calibration_wherever_it_comes():
    pace = Pace(2.0, 60.0, 0.0)
    assert posted_pace([Point(1, {}), pace], is_stopped=False) == pace
    for posts, is_stopped in (([pace], True), ([], True), ([], False)):
        with pytest.raises(Interrupted, match="stopped while a few steps were timed"):
            posted_pace(posts, is_stopped=is_stopped)


def test_runs_in_an_object_store_need_a_tracking_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = recipe()
    made.tracking.enabled, made.run.storage_path = True, "s3://bucket/runs"
    with pytest.raises(UserError, match=r"tracking\.uri"):
        check_recipe(made)


def test_the_store_decides_how_long_segments_are(tiny_store, tiny_tokenizer):
    """data.sequence_length (512) is the recipe's; the given store has segments of 32."""
    assert model_config(recipe(), tiny_store, tiny_tokenizer).positions == 32
    with pytest.raises(UserError, match="segments of 32 tokens"):
        model_config(recipe(model=ModelConfig(positions=16)), tiny_store, tiny_tokenizer)


def test_epochs_of_a_mix_are_told_for_each_store(tmp_path, tiny_tokenizer):
    first, second = (small.store(tmp_path / name, tiny_tokenizer, rows_per_group=n) for name, n in (("a", 4), ("b", 3)))
    both = mix([Member(first.url, 3), Member(second.url, 1)], str(tmp_path))
    made = recipe(train=TrainConfig(steps=10, batch_tokens=Count(500)))
    budget = resolve_setup(made, both, Console()).budget
    seen = 10 * budget.step_rows
    assert epochs_text(budget, both) == (
        f"{0.75 * seen / first.train.rows:.2f} epochs of store, {0.25 * seen / second.train.rows:.2f} epochs of store"
    )
    assert epochs_text(budget, first) == f"{budget.epochs:.2f} epochs"


@pytest.mark.parametrize("mixture", ["glm", "glm_multi", "gpt", {"masked_lm": 1.0}])
def test_useful_work_is_that_of_the_pairs_that_see_each_other(tiny_store, tiny_tokenizer, mixture):
    """Counted on the first row group, laid out, with a dense mask."""
    made = recipe(blanks=BlanksConfig(mixture=mixture))
    setup = resolve_setup(made, tiny_store, Console())
    config, budget = setup.shape, setup.budget
    reader = RowReader(tiny_store.train, setup.feed)
    num_rows = int(tiny_store.train.group_rows[0])
    micro = reader.micro_batch(RowPlaces(np.zeros(num_rows, int), np.zeros(num_rows, int), np.arange(num_rows)))
    batch = to_device(micro)
    shape = (num_rows, batch["tokens"].shape[1])
    mask = make_mask(batch["segment_ids"], batch["context_end"], shape, "cpu", backend="dense")
    assert mask.allowed is not None
    held = (batch["segment_ids"] >= 0).float()
    pairs = float((mask.allowed[:, 0] * held[:, :, None] * held[:, None, :]).sum())
    targets, positions = int(batch["loss_mask"].sum()), int(held.sum())
    d, layers = config.width, config.layers
    flops = 72 * layers * d * d * positions + 12 * layers * d * pairs + 6 * d * config.vocab_size * targets
    assert budget.expansion == pytest.approx(positions / micro.tokens)
    assert budget.flops_per_token == pytest.approx(flops / micro.tokens)


def test_the_shape_before_there_is_a_store(tiny_tokenizer):
    made = recipe(model=ModelConfig(size="mini"))
    made.data.sequence_length, made.data.tokenizer.train.vocab_size = 64, 1000
    shape = planned_config(made, None)
    assert (shape.layers, shape.positions, shape.vocab_size) == (6, 64, 1024)
    assert planned_config(made, tiny_tokenizer).vocab_size == 128
    made.blanks.mask_tokens = "sentinel"
    assert planned_config(made, None).vocab_size > 1024
    made.model.positions = 32
    with pytest.raises(UserError, match="segments of 64 tokens are beyond the position table"):
        planned_config(made, None)


def planned(tiny_store, made: Recipe, config):
    """As the tiny store's corpus would be planned for."""
    made.data.sequence_length, made.data.row_width = 32, 160
    made.data.validation_fraction = made.data.test_fraction = 0
    tokens = tiny_store.train.tokens
    synthetic = synthetic_rows(made, tokens / 105)  # an eighth of 120 documents is held out
    return planned_budget(made, config, synthetic, tokens=tokens)


@pytest.mark.parametrize("mixture", ["glm", "glm_multi", "gpt", {"masked_lm": 1.0}])
def test_a_budget_is_planned_near_what_the_store_will_make_it(tmp_path, tiny_tokenizer, mixture):
    packed_for = {"mixture": mixture, "settings": {}}
    store = small.store(tmp_path, tiny_tokenizer, blanks=packed_for)
    made = recipe(
        blanks=BlanksConfig(mixture=mixture), train=TrainConfig(tokens=Count(50_000), batch_tokens=Count(2000))
    )
    setup = resolve_setup(made, store, Console())
    exact, guess = setup.budget, planned(store, made, setup.shape)
    assert (guess.parameters, guess.micro_rows) == (exact.parameters, exact.micro_rows)
    for name in ("steps", "micro_batches", "row_tokens", "epochs", "expansion", "flops_per_token", "step_tokens"):
        assert getattr(guess, name) == pytest.approx(getattr(exact, name), rel=0.12), name


def test_workers_are_refused_without_a_store_where_no_store_has_work_for_them(tiny_store, tiny_tokenizer):
    made = recipe(train=TrainConfig(steps=10, batch_tokens=Count(2000)))
    config = model_config(made, tiny_store, tiny_tokenizer)
    likely = planned(tiny_store, made, config).micro_batches
    most = round(likely / 0.9)
    assert most > likely
    made.train.num_workers = most
    planned(tiny_store, made, config)
    made.train.num_workers = most + 2
    with pytest.raises(UserError, match=rf"^{most + 2} workers for \d+ micro-batches of a step"):
        planned(tiny_store, made, config)


def test_a_warm_up_that_takes_all_steps_is_refused(tiny_store, tiny_tokenizer):
    made = recipe(train=TrainConfig(tokens=Count(1000), batch_tokens=Count(500)), optim=OptimConfig(warmup_steps=500))
    with pytest.raises(UserError, match=r"warmup_steps=500 leaves nothing of 2 steps"):
        resolve_setup(made, tiny_store, Console())
