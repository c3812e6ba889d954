"""A pretraining in MLflow: its settings, note, status, model and links, and the views of its experiment."""

import pytest

from glm_model import GLM, GLMConfig, save_pretrained
from glm_model.config import OptimConfig
from infra import commands, storage, tracking
from infra.config import Count
from infra.console import Console
from infra.errors import DataError, Interrupted
from infra.tracking.mlflow_client import client_of
from infra.tracking.note import note
from infra.tracking.saved_view import state_text
from workflows.runs.mlflow_views import (
    PRETRAINING,
    evaluation_view,
    offer_evaluation_view,
    offer_view,
    page,
    ways_to_compare,
)
from workflows.runs.record import RunRecord, Validation
from workflows.runs.run import Run, give_up, open_run, start
from workflows.runs.setup import resolve_setup
from workflows.runs.tracked import close_entry, record_model, subject_of
from workflows.settings.identity import comparable_settings
from workflows.settings.recipe import Recipe

SHAPE = GLMConfig(layers=1, width=16, heads=2, vocab_size=128, positions=16)


def recipe_in(folder) -> Recipe:
    recipe = Recipe()
    recipe.run.storage_path, recipe.train.tokens = str(folder), Count(1000)
    return recipe


def begin(folder, store) -> tuple[Run, tracking.RunHandle]:
    recipe = recipe_in(folder)
    return start(resolve_setup(recipe, store, Console()), open_run(recipe, "r"))


def tags_of(handle: tracking.RunHandle) -> dict[str, str]:
    return client_of(handle.uri).get_run(handle.run_id).data.tags


def test_settings_to_compare_leave_out_places_names_and_machines():
    one, two = recipe_in("/a"), recipe_in("/b")
    two.run.name, two.data.root, two.data.cache, two.tracking.uri = "other", "/elsewhere", "/disk", "http://host"
    two.cluster.local_cpus, two.console.quiet = 7, True
    assert comparable_settings(one) == comparable_settings(two)
    two.optim, two.train.num_workers = OptimConfig(lr=0.5), 3
    ours, theirs = comparable_settings(one), comparable_settings(two)
    assert {key for key in ours if ours[key] != theirs[key]} == {"optim.lr", "train.num_workers"}
    assert list(ours)[:3] == ["model.size", "train.tokens", "optim.lr"]
    assert len(ours) == len(set(ours))


def test_a_note_says_what_a_run_is_how_it_ended_and_the_next_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["workflows/pretrain.py", "--run.name=a b", "--tracking.uri=http://me:pw@host"])
    record = RunRecord("r", "", {"model.init_from": "/m"}, model=SHAPE, steps=1200, store_url="/stores/x")
    subject = subject_of(record, "/runs/r")
    assert note(subject, "interrupted", "stopped at step 7").splitlines() == [
        "**Pretraining** of a GLM with 5.9k parameters, 1,200 steps, begun with the weights of `/m`. **Interrupted**: "
        "stopped at step 7. The same command continues it:",
        *("", "```"),
        f"{commands.program('python')} workflows/pretrain.py '--run.name=a b' --tracking.uri=http://***@host",
        *("```", "", "Token store: `/stores/x`; folder: `/runs/r`"),
    ]
    finished = note(subject, "finished", "3.2 -> 2.4 bits per byte")
    assert "workflows/generate.py --model /runs/r/model --text 'Ray is a [MASK].'" in finished


def test_the_page_to_open_is_the_server_s_or_that_of_mlflow_ui():
    table = "#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=glm-pretraining"
    for uri, host in [
        ("sqlite:////runs/mlflow.db", "http://127.0.0.1:5000/"),
        ("http://mlflow:8080", "http://mlflow:8080/"),
        ("https://me:pw@host/mlflow/", "https://***@host/mlflow/"),
    ]:
        assert page(tracking.RunHandle(uri, "r", "1"), PRETRAINING) == host + table


def test_a_server_is_a_link_and_a_database_is_the_command_that_shows_it():
    server, database = (tracking.RunHandle(uri, "r", "1") for uri in ("http://host", "sqlite:////runs/mlflow.db"))
    assert ways_to_compare(server, PRETRAINING) == [("compare runs", page(server, PRETRAINING))]
    assert ways_to_compare(database, PRETRAINING) == [
        ("compare runs", f"{commands.program('mlflow')} ui --backend-store-uri sqlite:////runs/mlflow.db"),
        ("", f"then {page(database, PRETRAINING)}"),
    ]


@pytest.mark.integration
def test_the_view_of_evaluations_has_the_scores_of_all_as_columns(mlflow_root):
    for task in ("sst2", "cb"):
        handle = tracking.open_run(
            tracking.TrackingConfig(),
            name=task,
            run_dir="x",
            params={},
            tags={"glm.phase": "evaluate"},
            run_id=None,
            default_root=str(mlflow_root),
        )
        score = f"eval/{task}/accuracy"
        values = {score: 80.0, f"{score}_n": 9.0, f"{score}_low": 70.0, f"{score}_sd": 1.0, f"eval/{task}/p1/f1": 5.0}
        tracking.log_values(handle, values)
        offer_evaluation_view(handle)
    experiment = client_of(handle.uri).get_experiment(handle.experiment_id)
    expected = evaluation_view(["eval/cb/accuracy", "eval/sst2/accuracy"])  # those of the newest run first
    assert experiment.tags[expected.tag] == state_text(expected, experiment.creation_time or 0)
    assert "[evaluations]" in experiment.tags["mlflow.note.content"]


@pytest.mark.integration
def test_a_new_run_says_what_it_is_and_links_its_store(mlflow_root, tiny_store):
    run, handle = begin(mlflow_root, tiny_store)
    client = client_of(handle.uri)
    entry, experiment = client.get_run(handle.run_id), client.get_experiment(handle.experiment_id)
    assert entry.data.params == comparable_settings(recipe_in(mlflow_root))
    assert entry.data.tags["glm.status"] == "running"
    assert "The same command continues it" in entry.data.tags["mlflow.note.content"]
    assert [one.dataset.digest for one in entry.inputs.dataset_inputs] == [tiny_store.digest[:8]]
    assert {item.path for item in client.list_artifacts(handle.run_id)} == {"budget.json", "config.yaml"}
    assert PRETRAINING.tag in experiment.tags
    assert experiment.tags["mlflow.note.content"].startswith("GLM: [pretraining, best first](#/experiments/1/runs?")
    assert run.record.tracking == handle


@pytest.mark.integration
@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (Interrupted("stopped at step 5"), "interrupted", "stopped at step 5"),
        (KeyboardInterrupt(), "interrupted", "stopped at once"),
        (DataError("the store is gone"), "failed", "the store is gone"),
        (ValueError("no such thing"), "failed", "ValueError: no such thing"),
    ],
)
def test_how_a_run_that_did_not_finish_ended(mlflow_root, tiny_store, error, status, told):
    run, handle = begin(mlflow_root, tiny_store)
    give_up(run, handle, error)
    assert tags_of(handle)["glm.status"] == f"{status} at 0/{run.record.steps} steps"
    assert f"**{status.capitalize()}**: {told}." in tags_of(handle)["mlflow.note.content"]
    assert begin(mlflow_root, tiny_store)[1] == handle
    assert tags_of(handle)["glm.status"] == "running"


@pytest.mark.integration
def test_a_finished_run_has_its_model_and_the_score_beside_it(mlflow_root, tiny_store, tiny_tokenizer):
    run, handle = begin(mlflow_root, tiny_store)
    save_pretrained(GLM(SHAPE), run.model_url, tokenizer=tiny_tokenizer)
    line = b'{"step": 9, "time": 1000.0, "values": {"val/bits_per_byte": 2.5}}\n'
    storage.write_bytes(storage.join(run.url, "metrics.jsonl"), line)
    record = run.with_record(validation=Validation(3.0, 2.5)).record
    for _ in range(2):  # as where MLflow was away at the end
        record_model(handle, record, run.url)
        close_entry(handle, record, run.url)
    client = client_of(handle.uri)
    entry = client.get_run(handle.run_id)
    assert (entry.info.status, entry.data.tags["glm.status"]) == ("FINISHED", "finished")
    assert "**Finished**: 3.000 -> 2.500 bits per byte" in entry.data.tags["mlflow.note.content"]
    (output,) = entry.outputs.model_outputs
    assert output.step == 9
    model = client.get_logged_model(output.model_id)
    assert (model.name, model.source_run_id) == ("r", handle.run_id)
    assert [(m.key, m.value, m.dataset_digest) for m in model.metrics or []] == [
        ("val/bits_per_byte", 2.5, tiny_store.digest[:8])
    ]


@pytest.mark.integration
def test_a_view_is_offered_once_to_an_experiment(mlflow_root, tiny_store):
    handle = begin(mlflow_root, tiny_store)[1]
    client = client_of(handle.uri)
    client.delete_experiment_tag(handle.experiment_id, PRETRAINING.tag)
    offer_view(handle, PRETRAINING)
    assert PRETRAINING.tag not in client.get_experiment(handle.experiment_id).tags
