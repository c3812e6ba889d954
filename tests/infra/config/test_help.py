"""What `--help` prints: the common settings first, then every setting with its default and its docstring."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from helpers.sections import Root

from infra.config import Count, parse


@dataclass
class Base:
    num_workers: int | tuple[int, int] = 1
    """Processes: 100 % of them, or [min, max]."""


@dataclass
class Train(Base):
    """How to train. The rest of this docstring

    is not shown.
    """

    tokens: Count | None = None
    """Tokens to train on:
    of the source.
    """
    kind: str = ""


@dataclass
class Config:
    model: str
    """A folder."""
    train: Train = field(default_factory=Train)


@pytest.fixture
def shown(capsys, monkeypatch):
    def shown(root: type, columns: int = 80, **options) -> str:
        monkeypatch.setattr("sys.argv", ["/somewhere/train.py"])
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as stopped:
            parse(root, description="Train a GLM.", argv=["--help"], **options)
        assert stopped.value.code == 0
        return capsys.readouterr().out

    return shown


def test_the_whole_help_of_a_small_command(shown):
    assert (
        shown(Root, flags={"plan": "Show the cost, and exit."}, common=("optim.lr", "data.sources"))
        == """\
usage: train.py [--config FILE ...] [--key value ...]

Train a GLM.

most used:
  --config FILE         A YAML recipe. May be repeated: the later one wins.
  --plan                Show the cost, and exit.
  --print_config        Print the resolved configuration and exit.
  --help, -h            Show this text and exit.
  --optim.lr NUMBER     Peak learning rate, per step. (default: 0.0003)
  --data.sources [...]  What to read. (default: [])

settings:
  --name TEXT           (default: null)

data:
  --data.mixture {...}|TEXT
                        (default: glm)
  --data.settings {...}
                        (default: {"token": {"ratio": 0.15}})
  --data.tokens COUNT   (default: 1M)

optim:
  Optimizer.

  --optim.betas [...]   (default: [0.9, 0.98])
  --optim.steps N       (default: null)
  --optim.fused true|false
                        (default: false)
  --optim.schedule cosine|linear
                        (default: cosine)

each item of data.sources:
  reader: TEXT          (required)
  url: TEXT             (default: "")
  name: TEXT            (default: null)
  options: {...}        (default: {})
"""
    )


def test_docstrings_of_inherited_fields_and_of_sections_are_shown_in_one_line(shown):
    text = shown(Config, columns=120)
    assert "  --model TEXT          A folder. (required)\n" in text
    assert "\ntrain:\n  How to train. The rest of this docstring\n\n  --train.num_workers" in text
    assert "Processes: 100 % of them, or [min, max]. (default: 1)" in text
    assert "Tokens to train on: of the source. (default: null)" in text
    assert "is not shown" not in text


def test_help_fits_the_terminal_and_has_no_colours(shown, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = shown(Root, columns=60)
    assert max(map(len, text.splitlines())) <= 60
    assert "\x1b" not in text


def test_a_common_setting_that_does_not_exist_is_a_mistake_of_ours(shown):
    with pytest.raises(KeyError, match=r"optim\.lrr"):
        parse(Root, description="", argv=["--help"], common=("optim.lrr",))
