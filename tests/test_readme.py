"""README.md keeps its word (law 15): every command in its bash blocks parses, runs with a shortened budget, and (slow)
as written.

The slow half runs them in order, in a fresh copy of the checkout with a home of its own (`make test` itself does not
run, `make mlflow` is ended, `ray start` gets ports of its own).
"""

import importlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from helpers import jobs

from pipelines import plugins, readers

ROOT = Path(__file__).resolve().parents[1]
PYTHON = re.compile(r"(?:^|\s)python (workflows/\w+\.py)\b(.*)", re.DOTALL)


class Command(NamedTuple):
    """text: as written, continuation lines joined; before: the `export` and `source` lines above it in its block."""

    text: str
    before: tuple[str, ...]

    def __str__(self) -> str:
        return self.text


def commands() -> list[Command]:
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE):
        before: tuple[str, ...] = ()
        for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
            text = re.sub(r"\s+#.*", "", line).strip()
            if text.startswith(("export ", "source ")):
                before = (*before, text)
            elif text:
                found.append(Command(text, before))
    return found


COMMANDS = commands()
SCRIPTS = [command for command in COMMANDS if PYTHON.search(command.text)]
TARGETS = [command for command in COMMANDS if command.text.startswith("make ")]


def environment(root: Path, **more: str) -> dict[str, str]:
    """This interpreter as `python`, and the code of `root`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(root), "NO_COLOR": "1", **more}


def test_readme_shows_both_commands_of_the_first_day_and_every_script():
    texts = [command.text for command in COMMANDS]
    assert texts[:2] == ["make pretrain", "make test"]
    shown = {PYTHON.search(command.text).group(1) for command in SCRIPTS}  # type: ignore[union-attr]
    assert {"workflows/pretrain.py", "workflows/generate.py"} <= shown
    kinds = ("make ", "python ", "ray ")
    assert [text for text in texts if not text.startswith(kinds)] == []  # nothing that no test below would look at


@pytest.mark.parametrize("command", SCRIPTS, ids=str)
def test_arguments_of_a_script_parse(command, monkeypatch, capsys):
    match = PYTHON.search(command.text)
    assert match
    script, arguments = match.groups()
    words = shlex.split(os.path.expandvars(arguments))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [script, *words, "--print_config"])
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(script.removesuffix(".py").replace("/", ".")).main()
    assert caught.value.code == 0
    assert ":" in capsys.readouterr().out


@pytest.mark.parametrize("command", TARGETS, ids=str)
def test_a_target_of_make_exists(command):
    done = subprocess.run([*command.text.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_files_and_pages_that_readme_links_to_exist():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("name", plugins.names(readers))
def test_readers_and_their_options_are_listed_with_the_defaults(name):
    (row,) = re.findall(rf"^\| `{name}` \|.*\|(.*)\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    listed = {key: yaml.safe_load(value) for key, value in re.findall(r"`(\w+): ([^`]*)`", row)}
    options = readers.options(name, {})
    assert (readers.options(name, listed) if listed else None) == options
    assert list(listed) == ([field.name for field in fields(options)] if options else [])


def test_continuous_integration_runs_what_readme_says_and_nothing_else():
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "${BASH_SOURCE[0]}")/.."', "make test"]
    assert "make test" in [command.text for command in COMMANDS]


# -- shortened, in this process and on the Ray that all tests share ---------------------------------------------------

SHORT_TRAINING = [
    "--data.sources=[{reader: text, url: docs}]",
    "--data.tokenizer.train.vocab_size=600",
    "--data.row_width=600",
    "--train.steps=2",
    "--train.batch_tokens=2k",
    "--train.num_workers=1",
    "--train.eval_rows=2",
    "--console.quiet=true",
]
SHORT = {
    "workflows/pretrain.py": SHORT_TRAINING,
    "workflows/prepare.py": SHORT_TRAINING,
    "workflows/train_tokenizer.py": SHORT_TRAINING,
    "workflows/generate.py": ["--max_tokens=2"],
    "workflows/inspect_data.py": SHORT_TRAINING[:-1],
    "workflows/inspect_run.py": [],
    "workflows/compare.py": [],
    "workflows/stores.py": [],
    "workflows/evaluate.py": [],
    "workflows/predict.py": [],
}
# What `make pretrain` runs once it has installed.
QUICKSTART = Command(
    next(line for line in (ROOT / "Makefile").read_text().splitlines() if "workflows/pretrain.py" in line), ()
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    return copied(tmp_path_factory.mktemp("readme-short") / "glm-ray")


@pytest.fixture(scope="module")
def untouched_clone(tmp_path_factory) -> Path:
    return copied(tmp_path_factory.mktemp("readme") / "glm-ray")


def copied(target: Path) -> Path:
    try:
        return jobs.checkout(target)
    except LookupError as error:
        pytest.skip(str(error))


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", [QUICKSTART, *SCRIPTS], ids=str)
def test_a_script_runs_with_a_short_budget(command, clone, local_ray, empty_mlflow_database, monkeypatch):
    """In the order of the page: later commands use what the ones before them made."""
    match = PYTHON.search(command.text.replace("$(BIN)/python", " python"))
    assert match
    script, arguments = match.groups()
    (clone / "runs").mkdir(exist_ok=True)
    if not (clone / "runs" / "mlflow.db").exists():
        shutil.copy(empty_mlflow_database, clone / "runs" / "mlflow.db")
    monkeypatch.chdir(clone)
    monkeypatch.setenv("PWD", str(clone))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    words = shlex.split(os.path.expandvars(arguments))
    monkeypatch.setattr(sys, "argv", [script, *words, *SHORT[script]])
    importlib.import_module(script.removesuffix(".py").replace("/", ".")).main()
    if script == "workflows/pretrain.py" and "--plan" not in words:
        assert list((clone / "runs").glob("*/model/config.json"))


# -- as written --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An empty home, and a folder for Ray."""
    with jobs.ray_folder("readme") as ray_folder:
        yield tmp_path_factory.mktemp("home"), ray_folder


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.text != "make test"], ids=str)
def test_a_command_runs_as_written(command, untouched_clone, home):
    clone, (folder, ray_folder) = untouched_clone, home
    env = jobs.environment(clone, folder)
    if command.text == "make mlflow":
        serves_pages(command.text, clone, env)
        return
    text = command.text
    if text.startswith("ray start"):
        text += f" {jobs.start_options(ray_folder)}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join([*command.before, text])],
        cwd=clone,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_python_example_runs_on_the_model_that_was_trained(untouched_clone):
    clone = untouched_clone
    if not (clone / "runs" / "mine" / "model").is_dir():
        pytest.skip("the README's command that trains it did not run before this test")
    (example,) = re.findall(r"^```python\n(.*?)^```", (clone / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=clone, env=environment(clone), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The paper uses")
    assert "[MASK]" not in done.stdout


def serves_pages(text: str, clone: Path, env: dict[str, str]) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 5000)) == 0:
            pytest.skip("port 5000 is taken on this machine")
    server = subprocess.Popen(text.split(), cwd=clone, env=env, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and server.poll() is None:
            try:
                with urllib.request.urlopen("http://127.0.0.1:5000/health", timeout=5) as answer:
                    assert answer.status == 200
                    return
            except OSError:
                time.sleep(0.5)  # nobody listens yet
        pytest.fail(f"`{text}` served nothing in two minutes (exit code {server.poll()})")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
