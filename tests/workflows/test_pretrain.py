"""What a plan says and refuses, and what the driver makes of runs that are over before their last step."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import small

from glm_model.config import GLMConfig, num_parameters
from infra import checkpoint, config
from infra.checkpoint import CheckpointWriter
from infra.console import human_bytes
from infra.errors import run_main
from workflows import prepare, pretrain
from workflows.runs.launch import is_over
from workflows.runs.run import Run
from workflows.settings.recipe import Recipe


def reached(folder: Path, step: int, without: int) -> checkpoint.Checkpoint:
    patience = {"limit": None, "best": 1.0, "best_step": 0, "without": without}
    checkpoints = CheckpointWriter(str(folder))
    checkpoints.save(step, {}, {"state": {}, "param_groups": []}, {"patience": patience})
    checkpoints.wait()
    found = checkpoint.latest(str(folder))
    assert found is not None
    return found


def test_a_run_is_over_at_its_last_step_or_by_the_patience_that_it_has_now(tmp_path):
    assert is_over(reached(tmp_path / "a", 10, 0), 10, None)
    found = reached(tmp_path / "b", 9, 7)
    for patience, expected in ((None, False), (8, False), (7, True), (5, True)):
        assert is_over(found, 10, patience) == expected


def settings(tmp_path: Path, *more: str) -> list[str]:
    """Settings of a run of two steps on 600 short documents; the folder with the text is made at the first call."""
    if not (tmp_path / "texts").exists():
        small.corpus(tmp_path / "texts", small.documents(600))
    source = f"--data.sources=[{{reader: jsonl, url: {tmp_path}/texts}}]"
    data = ["--data.tokenizer.train.vocab_size=600", "--data.sequence_length=64", "--data.row_width=256"]
    places = [f"--data.root={tmp_path}/data", f"--run.storage_path={tmp_path}/runs", "--tracking.enabled=false"]
    return [source, *data, *places, "--train.steps=2", "--train.batch_tokens=1k", *more]


@pytest.fixture
def plan(monkeypatch, capsys):
    """plan(*argv): exit code, the table's rows by name, what is on standard error. On 16 GB, without a GPU or a Ray."""

    def plan(*argv: str, address: str = "local") -> tuple[int, dict[str, str], str]:
        with monkeypatch.context() as patched:
            patched.setenv("RAY_ADDRESS", address)
            if address == "local":
                patched.setattr("infra.cluster.connect.connect", lambda *_, **__: pytest.fail("a plan starts no Ray"))
            patched.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=16e9))
            patched.setattr("torch.cuda.device_count", lambda: 0)
            patched.setattr(sys, "argv", ["pretrain.py", "--plan", *argv])
            with pytest.raises(SystemExit) as stopped:
                run_main(pretrain.main)
        told = capsys.readouterr()
        rows = (line.split(maxsplit=1) for line in told.out.splitlines() if line.startswith("  ") and line.strip())
        return stopped.value.code, {name: text for name, text in rows}, told.err

    return plan


def test_a_plan_without_a_store_says_what_the_run_would_cost(plan, tmp_path):
    code, rows, error = plan(*settings(tmp_path))
    assert (code, error) == (0, "")
    assert list(rows) == [
        "objectives", "store", "sources", "documents", "tokens", "preparation", "vocabulary", "model", "memory",
        "batch", "budget", "compute", "time", "disk", "next",
    ]  # fmt: skip
    width, layers, entries, positions = 128, 2, 640, 64  # 600 entries, padded
    shape = GLMConfig(layers=layers, width=width, heads=2, vocab_size=entries, positions=positions)
    assert rows["vocabulary"] == "taken to have the 600 entries of data.tokenizer.train.vocab_size"
    assert rows["model"] == f"tiny: {num_parameters(shape):,} parameters"
    held = human_bytes(16 * num_parameters(shape))
    assert rows["memory"] == (
        f"{held} per worker with gradients and optimizer, besides, some 1 GB for the process and more for activations: "
        "--calibrate measures it"
    )
    assert re.fullmatch(r"about 5 rows = 5 micro-batches of 1 = 1,0\d\d tokens", rows["batch"])
    assert re.fullmatch(r"about 2 steps = 2k tokens = 0\.\d\d epochs of 1\d\.\dk tokens", rows["budget"])
    assert re.fullmatch(r"about \S+e\+09 FLOP, about \d MFLOP per token", rows["compute"])
    assert "(H100/H200 at 45 % MFU)" in rows["time"]
    assert rows["time"].endswith("assumed rates, --calibrate measures once there is a store")
    assert not (tmp_path / "data").exists()


def test_a_plan_in_hours_has_no_steps_yet(plan, tmp_path):
    code, rows, _ = plan(*settings(tmp_path, "--train.steps=null", "--train.hours=2"))
    assert code == 0
    assert rows["budget"].startswith("what 2 h hold")
    assert re.fullmatch(r"about \d MFLOP per token", rows["compute"])
    assert "time" not in rows


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--model.size=10b",), "this machine has memory for 0 of 1 workers"),
        (("--cluster.local_cpus=1", "--train.num_workers=2"), "this machine has room for 1 of 2 workers"),
        (("--train.resources_per_worker={CPU: 1000}",), "this machine has room for 0 of 1 workers"),
    ],
)
def test_a_plan_that_this_machine_cannot_hold_is_refused_below_its_table(plan, tmp_path, more, told):
    code, rows, error = plan(*settings(tmp_path, *more))
    assert code == 5
    assert {"model", "memory", "compute"} <= rows.keys()
    assert told in error
    assert error.splitlines()[-1] == "exit 5 (infrastructure)"


@pytest.mark.parametrize(
    ("more", "lack"),
    [
        (("--train.use_gpu=true",), "1 worker takes 1 GPU, and this machine has 0"),
        (("--train.use_gpu=true", "--train.num_workers=4"), "4 workers take 4 GPUs, and this machine has 0"),
    ],
)
def test_a_plan_for_gpus_that_are_elsewhere_says_so_and_ends_well(plan, tmp_path, monkeypatch, more, lack):
    lines = []
    monkeypatch.setattr("infra.console.Console.line", lambda screen, text: lines.append(text))
    assert plan(*settings(tmp_path, *more))[0] == 0
    assert [line for line in lines if lack in line]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--train.num_workers=7",), "7 workers for 5 micro-batches of a step"),
        (("--data.row_width=70",), "a segment may need"),
        (("--optim.warmup_steps=2",), "leaves nothing of 2 steps"),
    ],
)
def test_a_plan_that_no_machine_could_run_is_refused(plan, tmp_path, more, told):
    code, _, error = plan(*settings(tmp_path, *more))
    assert code == 2
    assert told in error


def test_a_plan_of_a_source_that_keeps_nothing_says_why_and_what_to_try(plan, tmp_path):
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "a.jsonl").write_text('{"text": "short"}\n' * 3 + '{"body": "other"}\n')
    source = f"--data.sources=[{{reader: jsonl, url: {tmp_path}/short}}]"
    code, rows, error = plan(*settings(tmp_path, source))
    assert (code, "epochs" in " ".join(rows.values())) == (3, False)
    assert "the source 'short' is empty: of 4 documents none was kept" in error
    assert "dropped: too_short 3, missing_field 1" in error
    assert "--data.clean.min_characters=1" in error


def test_a_plan_shows_what_it_meets_in_each_source(plan, tmp_path, monkeypatch):
    tables, warnings = [], []
    monkeypatch.setattr("infra.console.Console.table", lambda screen, *table: tables.append(table))
    monkeypatch.setattr("infra.console.Console.warn", lambda screen, text: warnings.append(text))
    (tmp_path / "notes").mkdir()
    for number in range(300):
        (tmp_path / "notes" / f"{number:03}.txt").write_text(
            f"Note {number} " + "of the river and the town. " * (number % 7)
        )
    (tmp_path / "lines.jsonl").write_text('{"text": "A line that is long enough to be kept."}\n' * 9 + "broken\n")
    sources = f"[{{reader: text, url: {tmp_path}/notes}}, {{reader: jsonl, url: {tmp_path}/lines.jsonl}}]"
    code, rows, error = plan(*settings(tmp_path, f"--data.sources={sources}"))
    assert (code, error) == (0, "")
    assert rows["documents"].startswith("about 310, ")
    ((title, columns, (notes, lines)),) = tables
    assert title == "sources"
    assert columns == ["source", "files", "documents", "kept", "dropped", "one text"]
    assert notes[:3] == ["notes", 300, "about 300"]
    assert notes[4].startswith("too_short 1")
    assert notes[5].startswith("Note ")
    assert lines[:5] == ["lines.jsonl", 1, "10", "90.0%", "malformed_json 10.0%"]
    assert lines[5] == "A line that is long enough to be kept."
    (warning,) = (text for text in warnings if "malformed" in text)
    assert (
        "1 of the 10 records of 'lines.jsonl' that were looked at are malformed, and preparation will stop" in warning
    )
    assert f"{tmp_path}/lines.jsonl at byte " in warning


def test_a_plan_looks_at_the_run_that_is_there(plan, tmp_path, monkeypatch):
    mine = settings(tmp_path, "--run.name=mine")
    recipe = config.parse(Recipe, description="", argv=mine).config
    run = Run.of(recipe, "mine")
    run.write()
    lines = []
    monkeypatch.setattr("infra.console.Console.line", lambda screen, text: lines.append(text))
    assert plan(*mine)[0] == 0
    reached(tmp_path / "runs" / "mine" / "checkpoints", 1, 0)
    assert plan(*mine)[0] == 0
    run.with_record(finished=True).write()
    assert plan(*mine)[0] == 0
    assert [line for line in lines if not line.endswith(": loading")] == [
        "the run mine has come to step 1, and goes on from there",
        "the run mine is finished",
    ]
    code, _, error = plan(*mine, "--optim.lr=0.5")
    assert (code, "the run 'mine' exists with other settings: optim.lr was" in error) == (2, True)
    assert plan(*mine, "--optim.lr=0.5", "--run.fresh=true")[0] == 0


def test_more_workers_than_cores_are_told(plan, tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    warnings = []
    monkeypatch.setattr("infra.console.Console.warn", lambda screen, text: warnings.append(text))
    assert plan(*settings(tmp_path, "--train.num_workers=2"))[0] == 0
    assert plan(*settings(tmp_path, "--train.num_workers=3"))[0] == 0
    told = [text for text in warnings if "workers" in text]
    assert told == ["3 workers would share 2 cores of this machine, and its memory"]


@pytest.mark.ray
def test_a_plan_for_a_ray_that_is_named_is_held_against_it(plan, tmp_path, local_ray):
    """The tests' Ray, which is connected, stands for it."""
    address, wide = "10.0.0.1:6379", "--train.batch_tokens=1M"
    assert plan(*settings(tmp_path, wide, "--train.num_workers=4"), address=address)[0] == 0
    for more, told in (
        ((wide, "--train.num_workers=64"), "the cluster has room for 4 of 64 workers"),
        (("--model.size=10b",), "the cluster has memory for 0 of 1 workers"),
    ):
        code, rows, error = plan(*settings(tmp_path, *more), address=address)
        assert (code, "compute" in rows) == (5, True)
        assert told in error


@pytest.mark.ray
def test_a_plan_of_a_prepared_store_is_near_the_one_before_it_and_refuses_the_same(
    plan, tmp_path, local_ray, tiny_tokenizer, capsys
):
    tiny_tokenizer.save(str(tmp_path / "tokenizer"))
    length = ("--train.tokens=20k", "--train.steps=null")
    mine = settings(tmp_path, f"--data.tokenizer.url={tmp_path}/tokenizer", *length)
    _, before, _ = plan(*mine)
    sys.argv = ["prepare.py", *mine]
    prepare.main()
    capsys.readouterr()
    code, after, _ = plan(*mine)
    assert code == 0
    assert "vocabulary" not in before
    for name in ("objectives", "model", "memory", "disk"):
        assert before[name] == after[name]
    for name, count in (("batch", 4), ("budget", 3), ("compute", 2)):
        assert numbers(before[name])[:count] == pytest.approx(numbers(after[name]), rel=0.1), name
    code, after, error = plan(*mine, "--model.size=10b")
    assert (code, "compute" in after) == (5, True)
    assert "this machine has memory for 0 of 1 workers" in error


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,.]*(?:e[+-]\d+)?", text)]
