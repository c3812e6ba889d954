"""What benchmarks compare with does what it stands for: the per-sample construction gives the authors' arrays. And
benchmarks run.
"""

import json
import random
import runpy
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import asked, benchmark_modules, small

from glm_model import GLM, Tokenizer
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.questions.rows import read_rows
from workflows import predict
from workflows.evaluation import ask_models
from workflows.evaluation.workers import Worker


@pytest.fixture(scope="module")
def objective():
    return benchmark_modules.load("objective")


@pytest.fixture(scope="module")
def golden(shared):
    path = shared / "reference" / "golden" / "objective_examples.json"
    if not path.exists():
        pytest.skip("the authors' worked examples are not here (objective_examples.json is absent)")
    return json.loads(path.read_text())


def test_the_per_sample_arrays_are_the_authors(objective, golden):
    met = 0
    for example in golden["examples"]:
        if example.get("task") != "bert" or set(example["options"]) - {"shuffle_blocks"}:
            continue
        spans = [tuple(span) for span in example["spans_in_part_b_order"]]
        arrays = objective.block_data(example["tokens"], spans)
        for name, want in example["out"].items():
            assert arrays[name].tolist() == want, (example["name"], name)
        met += 1
    assert met == 5


def test_the_per_sample_places_are_the_authors(objective, golden):
    met = 0
    for case in golden["primitives"]:
        if case["function"] == "sample_spans":
            answers = iter(case["randrange_results"])
            bounds = []

            def randrange(bound, answers=answers, bounds=bounds):
                bounds.append(bound)
                return next(answers)

            spans = objective.sample_spans(case["span_lengths"], case["total_length"], case["offset"], randrange)
            assert [list(span) for span in spans] == case["out"]
            met += 1
    assert met == 2


def test_the_per_sample_blanks_have_the_statistics_of_ours(objective):
    rng = random.Random(0)
    tokens = [1, *range(20, 530), 0]
    masked, blanks = 0, 0
    for _ in range(300):
        arrays = objective.per_sample(tokens, rng)
        blanks += int((arrays["block_position_ids"] == 1).sum())
        masked += int(arrays["loss_mask"].sum())
    assert abs(blanks / 300 - 24.6) < 0.6  # the authors' mean number of blanks
    assert abs((masked - blanks) / 300 - 77.5) < 0.5  # and of blanked tokens


def test_the_store_benchmark_runs_without_its_peers(tmp_path, monkeypatch, capsys):
    """At a small size; each document is one segment: its tokens, [CLS] and eos."""
    texts = small.documents(120)
    tokenizer = small.tokenizer(tmp_path)
    small.corpus(tmp_path / "raw", texts)
    report = tmp_path / "report.json"
    script = str(benchmark_modules.FOLDER / "store.py")
    monkeypatch.syspath_prepend(str(benchmark_modules.FOLDER))
    sizes = ["--rounds", "1", "--scan-mtok", "1", "--stages"]
    files = ["--source", f"{tmp_path}/raw", "--vocabulary", f"{tmp_path}/vocab.txt", "--json", str(report)]
    bare_python = tmp_path / "python"
    bare_python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # -S: without site-packages
    bare_python.chmod(0o755)
    for name in ("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM"):  # which the script sets: put back afterwards
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(sys, "argv", [script, "--reader", "jsonl", "--peers", str(bare_python), *files, *sizes])
    runpy.run_path(script, run_name="__main__")
    found = json.loads(report.read_text())
    values = found["values"]
    tokens = sum(len(tokenizer.encode(text)) + 2 for text in texts)
    assert values["tokens"] == tokens
    assert values["text_mb"] == pytest.approx(sum(len(text.encode()) for text in texts) / 1e6)
    assert values["padding_unpacked"] == pytest.approx(1 - tokens / (120 * 512))
    assert 0 < values["utilisation"] <= 1
    assert values["read_mtok_per_cpu_s"] > 0
    assert list(found["ratios"]) == ["write_vs_tokenizer"], "what is not installed has no ratio"
    assert {"stage_clean_light_cpu_s_per_gb", "stage_near_duplicates_cpu_s_per_gb"} < set(values)
    printed = capsys.readouterr().out
    assert "datatrove left out: No module named 'datatrove'" in printed
    assert "mosaicml-streaming left out: No module named 'streaming'" in printed


def test_the_benchmark_of_evaluation_runs(tmp_path, tiny_tokenizer, monkeypatch, capsys):
    asked.write(tmp_path / "data" / "dev.jsonl", [
        {"UID": "agreement", "pairID": str(n), "sentence_good": f"{row['text']}.", "sentence_bad": row["text"]}
        for n, row in enumerate(asked.rows(5))
    ])  # fmt: skip
    tiny_tokenizer.save(str(tmp_path))
    places = ["--data", str(tmp_path / "data"), "--tokenizer", str(tmp_path), "--json", str(tmp_path / "found.json")]
    script = str(benchmark_modules.FOLDER / "evaluate.py")
    for owner, name in (
        (GLM, "hidden"),
        (GLM, "logits"),
        (Worker, "__init__"),
        (ask_models, "ask_models"),
        (Tokenizer, "load"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # which the script replaces: put back afterwards
    monkeypatch.setattr(sys, "argv", [script, "--size", "tiny", *places])
    runpy.run_path(script, run_name="__main__")
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["items"], found["calls"]) == (5, 2)
    assert 0 < found["model_share"] < 1
    assert "model_share" in capsys.readouterr().out


def test_items_written_for_the_harness_are_asked_by_us_as_those_of_the_file(tmp_path):
    rows = [
        {"ind": n, "ctx": f"Cooking: the cat sat {n}", "endings": [" on a mat", " and ran", ", then"], "label": str(n)}
        for n in range(3)
    ]
    folder = asked.write(tmp_path / "all.jsonl", rows)
    file = benchmark_modules.load("evaluate_peer").write_items(
        "hellaswag", f"{folder}/all.jsonl", 3, tmp_path / "drawn"
    )
    task = tasks.define(TaskConfig(name="hellaswag"), list)
    whole, drawn = (
        {(item.fields["before"], item.candidates, item.gold) for _, item in task.items(read_rows(str(place)))}
        for place in (tmp_path / "all.jsonl", file)
    )
    assert drawn == whole
    assert ("Cooking: the cat sat 2", (" on a mat", " and ran", ", then"), "2") in drawn


def test_pairs_written_for_the_trainer_have_the_labels_of_the_task(tmp_path):
    rows = [{"passage": f"p{n}", "question": f"q{n}", "idx": n, "label": n == 1} for n in range(2)]
    data = f"{asked.write(tmp_path / 'all.jsonl', [*rows, {'passage': 'p', 'question': 'q', 'idx': 9}])}/all.jsonl"
    assert benchmark_modules.load("finetune_peer").write_items("boolq", data, None, tmp_path / "out") == 2
    pairs = [json.loads(line) for line in (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()]
    assert pairs == [{"first": "p0", "second": "q0", "label": 0}, {"first": "p1", "second": "q1", "label": 1}]


def test_the_benchmark_of_generation_runs_without_transformers(tmp_path, monkeypatch, capsys):
    bare_python = tmp_path / "python"
    bare_python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # -S: without site-packages
    bare_python.chmod(0o755)
    sizes = ["--size=tiny", "--new=8", "--texts=2", "--rounds=1", "--batch=3", "--batch-new=2", "--reads=tiny"]
    report = str(tmp_path / "found.json")
    monkeypatch.setattr(
        sys,
        "argv",
        [
            str(benchmark_modules.FOLDER / "generate.py"),
            *sizes,
            "--sides=ours,bf16,transformers",
            f"--peers={bare_python}",
            f"--json={report}",
        ],
    )
    monkeypatch.syspath_prepend(str(benchmark_modules.FOLDER))
    runpy.run_path(sys.argv[0], run_name="__main__")
    found = json.loads((tmp_path / "found.json").read_text())
    assert {*found["ratios"]} == {
        "cached_vs_uncached", "batch_vs_one_at_a_time", "batch_bf16_vs_fp32", "token_vs_weights_read"
    }  # fmt: skip
    assert found["values"]["batch_ours_tokens_per_cpu_s"] > 0
    assert "dynamic: left out: No module named 'torch'" in capsys.readouterr().out


def test_the_benchmark_of_prediction_runs(tmp_path, tiny_tokenizer, monkeypatch, capsys):
    model = asked.teach(asked.model_folder(tmp_path / "model", tiny_tokenizer), {"bad": "dog", "good": "ran"})
    pq.write_table(pa.Table.from_pylist(asked.rows(5)), tmp_path / "in.parquet")
    assert model == str(tmp_path / "model")
    for owner, name in ((GLM, "hidden"), (GLM, "logits"), (Worker, "__init__"), (predict, "main"), (Tokenizer, "load")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # which the script replaces: put back afterwards
    script = str(benchmark_modules.FOLDER / "predict.py")
    places = ["--folder", str(tmp_path), "--json", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", [script, "--rows", "5", *places])
    monkeypatch.syspath_prepend(str(benchmark_modules.FOLDER))
    runpy.run_path(script, run_name="__main__")
    values = json.loads((tmp_path / "found.json").read_text())["values"]
    assert (values["rows"], values["calls"]) == (5, 2)
    assert 0 < values["share_with_start"] < values["model_share"] < 1
    assert values["peak_mib"] > 0
    assert "model_share" in capsys.readouterr().out
