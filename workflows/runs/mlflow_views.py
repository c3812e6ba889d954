"""What MLflow's UI shows of our runs without anyone preparing it: views of the runs of a kind, best first, the
experiment's description, which links to them, and links to print.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infra import commands
from infra.tracking import RunHandle, saved_view
from infra.tracking.mlflow_client import best_effort, without_password
from infra.tracking.saved_view import DURATION, Line, Section, View, attribute, metric, parameter, tag

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREPARATIONS = "-preparations"
"""Behind the name of an experiment: that of its preparations, which have no losses to be compared."""

_BESIDE_SCORES = ("_n", "_sd", "_seeds", "_low", "_high")
_SCORE = re.compile(r"eval/[^/]+/[^/]+|eval/[^/]+/[^/]*_[^/]*/[^/]+")  # of a campaign with its settings in between
_EVALUATIONS = 200  # of which the scores become columns: the newest
_STARTED = "attributes.start_time"
_LOCAL_UI = "http://127.0.0.1:5000/"  # where `mlflow ui` serves a database
_GENERATED = (Section("val"), Section("train"), Section("perf", is_open=False), Section("data", is_open=False))


def _of_kind(kind: str) -> str:
    return f"tags.`glm.phase` = '{kind}'"


PRETRAINING = View(
    key="glm-pretraining",
    name="Pretraining, best first",
    filter=_of_kind("pretrain"),
    order_by=metric("val/bits_per_byte"),
    ascending=True,
    columns={
        metric("val/bits_per_byte"): 130,
        metric("train/loss"): 100,
        metric("data/tokens"): 100,
        tag("glm.size"): 80,
        tag("glm.status"): 190,
        DURATION: 80,
        parameter("optim.lr"): 80,
        tag("glm.parameters"): 130,
        attribute("Dataset"): 190,
        attribute("Models"): 160,
    },
    sections=(
        Section(
            "Losses",
            (
                Line("val/bits_per_byte"),
                Line("train/loss"),
                Line("val/bits_per_byte", over="data/tokens"),
                Line("train/loss", over="data/tokens"),
            ),
        ),
        *_GENERATED,
    ),
)
FINETUNING = View(
    key="glm-finetuning",
    name="Fine-tuning, best first",
    filter=_of_kind("finetune"),
    order_by=metric("val/accuracy"),
    ascending=False,
    columns={
        tag("glm.task"): 120,
        metric("val/accuracy"): 110,
        metric("val/macro_f1"): 110,
        metric("val/mcc"): 90,
        metric("val/loss"): 100,
        metric("train/loss"): 100,
        metric("data/epoch"): 100,
        tag("glm.parameters"): 130,
        tag("glm.status"): 190,
        DURATION: 80,
        parameter("optim.lr"): 80,
        parameter("train.seed"): 80,
        tag("glm.selected_on"): 150,
        tag("glm.campaign"): 120,
        attribute("Dataset"): 190,
        attribute("Models"): 160,
    },
    sections=(
        Section(
            "Scores and losses",
            (
                Line("val/accuracy"),
                Line("val/loss"),
                Line("train/loss"),
                Line("val/loss", over="data/epoch"),
            ),
        ),
        *_GENERATED,
    ),
)
PREPARATION = View(
    key="glm-preparation",
    name="Stores, newest first",
    filter=_of_kind("prepare"),
    order_by=_STARTED,
    ascending=False,
    columns={
        metric("data/documents_kept"): 140,
        metric("data/documents_dropped"): 140,
        metric("data/tokens_train"): 120,
        DURATION: 80,
        attribute("Dataset"): 250,
    },
    sections=(),
)


def evaluation_view(scores: Sequence[str]) -> View:
    """Evaluations, newest first. scores: the metrics that are columns, such as eval/sst2/accuracy."""
    return View(
        key="glm-evaluation",
        name="Evaluations, newest first",
        filter=_of_kind("evaluate"),
        order_by=_STARTED,
        ascending=False,
        columns={
            tag("glm.status"): 120,
            **{metric(name): 150 for name in scores},
            parameter("model"): 200,  # the UI's own column, Models, shows what runs made, not what they read
            attribute("Dataset"): 190,
            DURATION: 80,
        },
        sections=(),
    )


def campaign_view(scores: Sequence[str]) -> View:
    """Campaigns, newest first. scores: the metrics that are columns, such as eval/cb/accuracy."""
    return View(
        key="glm-campaign",
        name="Campaigns, newest first",
        filter=_of_kind("campaign"),
        order_by=_STARTED,
        ascending=False,
        columns={
            tag("glm.status"): 190,
            **{metric(name): 230 for name in scores},
            tag("glm.started_from"): 200,
            DURATION: 80,
        },
        sections=(),
    )


def cells_view(campaign: str, settings: Sequence[str], scores: Sequence[str]) -> View:
    """The cells of a campaign, best first by the first score. settings: parameters that are columns, such as optim.lr;
    scores: metrics that are.
    """
    allowed = re.sub(r"[^\w.-]", "_", campaign)  # in a tag of MLflow
    return View(
        key=f"glm-cells-{allowed}",
        name=f"Cells of {campaign}",
        filter=f"tags.`glm.campaign` = '{campaign}' AND {_of_kind('finetune')}",
        order_by=metric(scores[0]),  # by Created the UI folds them below the campaign, filter or not
        ascending=False,
        columns={
            tag("glm.task"): 120,
            **{parameter(name): 90 for name in settings},
            **{metric(name): 190 for name in scores},
            tag("glm.status"): 120,
            DURATION: 80,
            attribute("Models"): 160,
        },
        sections=FINETUNING.sections,
    )


def offer_view(handle: RunHandle, view: View) -> None:
    """Give the run's experiment this view, and a description that links to all that it has (`saved_view.offer`)."""
    saved_view.offer(handle, view, lambda keys: _description(handle, keys))


def offer_evaluation_view(handle: RunHandle) -> None:
    """Give the run's experiment the view of evaluations, with the scores of all that it has as columns."""
    offer_view(handle, evaluation_view(_scores_of(handle, "evaluate")))


def offer_campaign_view(handle: RunHandle) -> None:
    """As `offer_evaluation_view`, of campaigns."""
    offer_view(handle, campaign_view(_scores_of(handle, "campaign")))


def ways_to_compare_campaigns(handle: RunHandle) -> list[tuple[str, str]]:
    """As `ways_to_compare`, with the view of campaigns."""
    return ways_to_compare(handle, campaign_view(()))


def ways_to_compare(handle: RunHandle, view: View) -> list[tuple[str, str]]:
    """What to print so that a user finds a view: (purpose, command or address), in order."""
    opened = page(handle, view)
    if handle.uri.startswith("http"):
        return [("compare runs", opened)]
    served = commands.command(commands.program("mlflow"), "ui", "--backend-store-uri", handle.uri)
    return [("compare runs", served), ("", f"then {opened}")]


def page(handle: RunHandle, view: View) -> str:
    """The address of a view in the UI: at the server, or for a database where `mlflow ui` serves it by itself."""
    return saved_view.link(handle, view, host=_host(handle.uri))


def _scores_of(handle: RunHandle, kind: str) -> list[str]:
    """Names of the scores of an experiment's runs of this kind, without their counts, intervals and other patterns."""

    def names(client: MlflowClient) -> list[str]:
        runs = client.search_runs([handle.experiment_id], _of_kind(kind), max_results=_EVALUATIONS)
        return [*dict.fromkeys(name for run in runs for name in run.data.metrics)]

    found = best_effort(handle, "list the scores", names) or []
    return [name for name in found if _SCORE.fullmatch(name) and not name.endswith(_BESIDE_SCORES)]


def _host(uri: str) -> str:
    return f"{without_password(uri).rstrip('/')}/" if uri.startswith("http") else _LOCAL_UI


def _description(handle: RunHandle, keys: set[str]) -> str:
    kinds = [(view, name, advice) for view, name, advice in _KINDS if view.key in keys]
    links = []
    for view, name, _ in kinds:
        charts = f" ([curves]({saved_view.link(handle, view, charts=True)}))" if view.sections else ""
        links.append(f"[{name}]({saved_view.link(handle, view)}){charts}")
    return "\n\n".join([f"GLM: {' · '.join(links)}", *(advice for _, _, advice in kinds)])


_KINDS = (
    (
        PRETRAINING,
        "pretraining, best first",
        "Pretraining: `val/bits_per_byte` is that of held-out text, and lower is better. It compares runs that "
        "validate on the same text: those with one Dataset and one `train.eval_rows`.",
    ),
    (FINETUNING, "fine-tuning, best first", "Fine-tuning: `val/accuracy` is that of items held out of training."),
    (evaluation_view(()), "evaluations", "Evaluations: `eval/<task>/<metric>`, on 0 to 100."),
    (
        campaign_view(()),
        "campaigns",
        "Campaigns: `eval/<task>/<setting>/<metric>`, the mean over seeds, on 0 to 100; each cell is a fine-tuning "
        "with the tag `glm.campaign`.",
    ),
    (PREPARATION, "token stores", "A run per token store that was prepared."),
)
