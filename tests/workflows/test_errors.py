"""What a user reads after a mistake: what, why, what to try, and the exit code in the last line."""

import json
import os
import sys

import pytest
from helpers.mistakes import small
from helpers.runners import one_by_one

from infra import storage
from infra.cluster import capacity
from infra.errors import UserError
from pipelines.blanks.mixture import BlanksConfig
from pipelines.config import DataConfig
from pipelines.corpus.ledger import DocumentCounts
from pipelines.corpus.sources import Source, list_sources
from pipelines.prepare import Preparation, preparation_of
from pipelines.prepare import prepare as make_store
from pipelines.store.format import TokenStore
from workflows import generate, inspect_data, prepare, pretrain, train_tokenizer
from workflows.runs.shared_places import check_shared, check_shared_data
from workflows.settings.models import find_model
from workflows.settings.recipe import Recipe

pytestmark = pytest.mark.integration


def test_an_unknown_key_names_the_nearest(run):
    code, error = run(pretrain.main, "--optim.weight_decy=0.2")
    assert code == 2
    assert "optim.weight_decy" in error
    assert "did you mean 'weight_decay'" in error
    assert error.splitlines()[-1].startswith("exit 2")


def test_no_source(run, tmp_path):
    code, error = run(prepare.main, f"--data.root={tmp_path}/data")
    assert code == 2
    assert "data.sources is empty" in error
    assert "--data.sources=" in error


def test_a_missing_source(run, tmp_path):
    code, error = run(prepare.main, *small(tmp_path / "nowhere", tmp_path))
    assert code == 3
    assert "nowhere does not exist" in error


@pytest.mark.parametrize("main", [prepare.main, pretrain.main])
@pytest.mark.parametrize("entry", ["texts/b.jsonl", "{here}/texts/b.jsonl", "texts/*.txt"])
def test_an_exclusion_that_names_nothing_is_refused_before_ray_starts(run, texts, tmp_path, monkeypatch, main, entry):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("infra.cluster.connect.connect", lambda *_, **__: pytest.fail("Ray starts"))
    entry = entry.format(here=tmp_path)
    code, error = run(main, *small(texts, tmp_path, f"--data.select.exclude=[{entry}]"))
    assert code == 2
    assert f"data.select.exclude names no document: {entry}" in error
    assert f"the nearest is {texts}/a.jsonl" in error


def test_an_unknown_id_is_refused_before_anything_is_trained_on(texts, tmp_path):
    """Before Ray starts, where the text is cleaned already; else as soon as it is."""
    data = DataConfig(root=str(tmp_path / "data"), sources=[Source("jsonl", str(texts))])
    data.tokenizer.train.vocab_size, data.sequence_length, data.row_width = 600, 64, 256
    data.select.exclude = ["0" * 32]
    for _ in range(2):
        with pytest.raises(UserError, match=r"data\.select\.exclude names no document: 0000"):
            make_store(preparation_of(data, BlanksConfig()), one_by_one())
        assert not (tmp_path / "data" / "stores").exists()
    with pytest.raises(UserError, match=r"data\.select\.exclude names no document: 0000"):
        preparation_of(data, BlanksConfig())


@pytest.mark.ray
def test_an_empty_corpus_tells_why_nothing_was_kept(run, tmp_path, local_ray):
    folder = tmp_path / "short"
    folder.mkdir()
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": "short"}) for _ in range(3)))
    (folder / "b.jsonl").write_text("")
    code, error = run(prepare.main, *small(folder, tmp_path))
    assert code == 3
    assert "of 4 documents none was kept" in error
    assert "too_short 3, empty_file 1" in error
    assert "Traceback" not in error


def test_an_output_inside_the_source_is_refused(run, texts, tmp_path):
    code, error = run(prepare.main, *small(texts, tmp_path, f"--data.root={texts}/data"))
    assert code == 2
    assert "lies inside the source" in error


@pytest.mark.ray
def test_segments_beyond_the_position_table(run, texts, tmp_path, local_ray):
    code, error = run(pretrain.main, *small(texts, tmp_path, "--model.positions=32"))
    assert code == 2
    assert "segments of 64 tokens are beyond the position table" in error
    assert "model.positions=64" in error


@pytest.mark.ray
def test_more_workers_than_the_cluster_holds(run, texts, tmp_path, local_ray):
    code, error = run(pretrain.main, *small(texts, tmp_path, "--train.num_workers=64"))
    assert code == 5
    assert "room for 4 of 64 workers" in error
    assert "--train.num_workers=4" in error


@pytest.mark.ray
def test_a_tokenizer_that_is_not_the_stores(run, texts, tmp_path, local_ray, tiny_tokenizer, capsys):
    sys.argv = ["prepare.py", *small(texts, tmp_path)]
    prepare.main()
    made = next((tmp_path / "data" / "stores").iterdir())
    tiny_tokenizer.save(str(tmp_path / "other"))
    given = [f"--data.store={made}", f"--data.tokenizer.url={tmp_path}/other"]
    code, error = run(pretrain.main, *small(texts, tmp_path, *given))
    assert code == 2
    assert "is not the tokenizer of data.store" in error
    code, error = run(prepare.main, f"--data.store={tmp_path}/data")
    assert code == 3
    assert "not a finished token store" in error


@pytest.mark.ray
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="/proc, which not even root can write to, is not there")
@pytest.mark.parametrize("key", ["data.root", "run.storage_path"])
def test_a_folder_that_cannot_be_written(run, texts, tmp_path, local_ray, key):
    code, error = run(pretrain.main, *small(texts, tmp_path, f"--{key}=/proc/nowhere"))
    assert code == 5
    assert "/proc/nowhere" in error
    assert "Traceback" not in error


def test_a_relative_path_inside_a_job(run, texts, tmp_path, monkeypatch):
    monkeypatch.setattr("infra.cluster.connect.inside_job", lambda: True)
    code, error = run(pretrain.main, *small(texts, tmp_path, "--run.storage_path=runs"))
    assert code == 2
    assert "run.storage_path=runs is a relative path" in error
    assert "--run.storage_path=/shared/runs" in error


def test_a_relative_database_inside_a_job(run, texts, tmp_path, monkeypatch):
    monkeypatch.setattr("infra.cluster.connect.inside_job", lambda: True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///x.db")
    for main in (pretrain.main, prepare.main):
        code, error = run(main, *small(texts, tmp_path, "--tracking.enabled=true"))
        assert code == 2
        assert "MLFLOW_TRACKING_URI=sqlite:///x.db is a relative path" in error
        assert "four slashes and an absolute path" in error


def test_generate_without_a_model_or_mask(run, tmp_path):
    code, error = run(generate.main, f"--model={tmp_path}")
    assert code == 3
    assert "holds no model" in error


def test_a_tokenizer_is_not_trained_on_a_store(run, tiny_store):
    code, error = run(train_tokenizer.main, f"--data.store={tiny_store.url}")
    assert code == 2
    assert "a tokenizer is trained on text" in error


def test_a_store_with_settings_of_another_is_refused_by_every_command(run, tiny_store):
    for main in (prepare.main, pretrain.main, inspect_data.main):
        code, error = run(main, f"--data.store={tiny_store.url}", "--data.sequence_length=64")
        assert code == 2
        assert "data.sequence_length=64 on the command line is not what the store was made with: 32" in error


def test_a_tokenizer_cannot_be_trained_where_one_is_given(run, texts, tmp_path):
    code, error = run(train_tokenizer.main, *small(texts, tmp_path, "--data.tokenizer.url=/x/vocab.txt"))
    assert code == 2
    assert "takes its tokenizer from /x/vocab.txt" in error


@pytest.mark.ray
def test_places_that_other_nodes_do_not_see(tmp_path, local_ray, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    recipe = Recipe()
    recipe.run.storage_path, recipe.data.root = str(tmp_path / "runs"), str(tmp_path / "data")
    with pytest.raises(UserError, match=r"MLflow's database sqlite:.* is a file"):
        check_shared(recipe)
    recipe.tracking.uri = "http://mlflow:5000"
    check_shared(recipe)
    recipe.data.store = str(tmp_path / "absent")
    with pytest.raises(UserError, match=r"data\.store=.*absent is a place of this machine only"):
        check_shared(recipe)


@pytest.fixture
def two_nodes(monkeypatch):
    """blind(*paths): a second node, which sees all but these; and what it was asked for."""
    hidden: list[str] = []
    monkeypatch.setattr(capacity, "several_nodes", lambda share, use_gpu: share == {"CPU": 1.0} and not use_gpu)

    def nodes_missing(path, *, only):
        assert only == {"CPU": 1.0}, "nodes that take no task of a preparation need not see it"
        return ["10.0.0.2"] if path.startswith(tuple(hidden)) else []

    monkeypatch.setattr(capacity, "nodes_missing", nodes_missing)
    return lambda *paths: hidden.extend(map(str, paths))


def preparation_for(tmp_path, *sources: Source, **settings) -> Preparation:
    return preparation_of(DataConfig(root=str(tmp_path / "data"), sources=list(sources), **settings), BlanksConfig())


@pytest.mark.parametrize("urls", ["", "/*.jsonl", "/a.jsonl"])
def test_sources_that_another_node_does_not_see(texts, tmp_path, two_nodes, urls):
    preparation = preparation_for(tmp_path, Source("jsonl", f"{texts}{urls}"))
    check_shared_data(preparation)
    two_nodes(texts)
    with pytest.raises(UserError, match="is a place of this machine only") as refused:
        check_shared_data(preparation)
    assert refused.value.message.startswith(f"data.sources[0].url={texts}{urls} ")
    assert refused.value.why == f"1 other node(s) do not see {texts}/a.jsonl: 10.0.0.2"
    assert "a folder that lies at the same path on all nodes" in str(refused.value.try_)
    assert refused.value.exit_code == 2


def test_sources_that_every_node_has_or_none_reads_are_no_matter(texts, tmp_path, two_nodes, monkeypatch):
    storage.write_bytes("memory://everywhere/a.jsonl", (texts / "a.jsonl").read_bytes())
    check_shared_data(preparation_for(tmp_path, Source("jsonl", "memory://everywhere")))
    two_nodes(texts)
    check_shared_data(preparation_for(tmp_path, Source("jsonl", str(texts)), store="/a/finished/store"))
    made = preparation_for(tmp_path, Source("jsonl", str(texts)))
    with monkeypatch.context() as patch:
        patch.setattr("workflows.runs.shared_places.find_store", lambda preparation: "/a/finished/store")
        check_shared_data(made)
    monkeypatch.setattr(capacity, "several_nodes", lambda share, use_gpu: False)
    check_shared_data(made)


def test_a_preparation_writes_where_every_node_sees_it(texts, tmp_path, two_nodes):
    preparation = preparation_for(tmp_path, Source("jsonl", str(texts)))
    two_nodes(tmp_path / "data")
    with pytest.raises(UserError, match=r"data\.root=.*data is a place of this machine only") as refused:
        check_shared_data(preparation)
    assert refused.value.try_ == "use a folder that all nodes share, or a URL: --data.root=s3://..."


@pytest.mark.ray
@pytest.mark.parametrize("main", [prepare.main, pretrain.main])
def test_both_commands_refuse_sources_that_another_node_does_not_see(run, texts, tmp_path, local_ray, two_nodes, main):
    two_nodes(texts)
    code, error = run(main, *small(texts, tmp_path))
    assert code == 2
    assert f"data.sources[0].url={texts} is a place of this machine only" in error
    assert not (tmp_path / "data" / "text").exists(), "nothing was read"


@pytest.mark.ray
def test_a_file_that_goes_after_it_is_listed_ends_the_preparation_and_back_again_it_goes_on(
    run, texts, tmp_path, local_ray, monkeypatch
):
    """Law 11: its documents would be missing from a store that says nothing of them."""
    (texts / "b.jsonl").write_text(json.dumps({"text": "One more document, which must not be lost."}))
    at = os.stat(texts / "b.jsonl").st_mtime_ns
    there = (texts / "b.jsonl").read_bytes()

    def listed(given):
        inputs = list_sources(given)
        (texts / "b.jsonl").unlink()
        return inputs

    with monkeypatch.context() as patched:
        patched.setattr("pipelines.prepare.list_sources", listed)
        code, error = run(prepare.main, *small(texts, tmp_path))
    assert code == 3
    assert f"{texts}/b.jsonl disappeared after it was listed" in error
    assert not (tmp_path / "data" / "stores").exists()
    (texts / "b.jsonl").write_bytes(there)
    os.utime(texts / "b.jsonl", ns=(at, at))
    sys.argv = ["prepare.py", *small(texts, tmp_path)]
    prepare.main()
    (store,) = (tmp_path / "data" / "stores").iterdir()
    assert TokenStore.open(str(store)).manifest.documents == DocumentCounts(read=201, kept=201, dropped=0)


@pytest.mark.ray
def test_files_of_which_nothing_was_found_are_counted_in_a_warning(run, texts, tmp_path, local_ray, capsys):
    for name in ("b.jsonl", "c.jsonl"):
        (texts / name).symlink_to(tmp_path / "nowhere")
    sys.argv = ["prepare.py", *small(texts, tmp_path), "--data.max_malformed=1"]
    prepare.main()
    told = " ".join("".join(capsys.readouterr()).split())
    assert "warning: 2 files of 'texts' were gone when they were to be read, and the store is without them" in told
    assert "ledger.parquet names them, with the reason `vanished`" in told
    prepare.main()
    assert "were gone" not in " ".join("".join(capsys.readouterr()).split()), "said once, when the store was made"


@pytest.mark.ray
def test_files_that_no_reader_reads_are_told(run, texts, tmp_path, local_ray, capsys):
    for name in ("a.py", "b.rst"):
        (texts / name).write_text("unread")
    sys.argv = ["prepare.py", *small(texts, tmp_path)]
    prepare.main()
    told = " ".join("".join(capsys.readouterr()).split())
    assert f"leaves out 2 files of {texts} by their names, such as a.py, b.rst; one given by its own URL" in told


def test_a_pattern_names_the_newest_run(run, tmp_path):
    for age, name in ((20, "quickstart-a"), (10, "quickstart-b")):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").write_text("{}")
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    assert find_model(f"{tmp_path}/quickstart-*") == f"{tmp_path}/quickstart-b/model"
    assert find_model(f"{tmp_path}/quickstart-a") == f"{tmp_path}/quickstart-a/model"
