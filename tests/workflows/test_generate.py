"""generate.py on a small model with random weights: one text, a file, questions and answers, and what it refuses."""

import io
import re
import sys

import pytest
import torch

from infra.errors import run_main
from workflows import generate

pytestmark = pytest.mark.integration

SAMPLE = re.compile(r" +(\d+) +(-\d+\.\d\d)  (.*)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer):
    """A model, and beside it nothing that a run has."""
    from glm_model import GLM, sized

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run")
    config = sized("tiny", vocab_size=tiny_tokenizer.padded_vocab_size, positions=64)
    model = GLM(config)
    with torch.no_grad():
        model.position_embedding.weight.mul_(20)  # what is written depends on the place, not on the token before
        model.block_position_embedding.weight.mul_(20)
    model.save_pretrained(str(path / "model"), tokenizer=tiny_tokenizer)
    return path


@pytest.fixture
def run(monkeypatch, capsys, folder):
    def run(*argv: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["generate.py", f"--model={folder}", "--max_tokens=3", *argv])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as stopped:
            run_main(generate.main)
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("the cat [MASK] on the mat\n\n[MASK] sat [MASK].\na dog [gMASK]\n")
    return path


def test_a_text_is_shown_with_its_blanks_filled(run):
    code, out, _ = run("--text=the cat [MASK] on the [MASK]")
    assert code == 0
    assert re.fullmatch(r"the cat .+ on the .+\n", out)
    assert "[MASK]" not in out
    assert run("--text=the cat [MASK] on the [MASK]")[1] == out


@pytest.mark.parametrize(
    "text", ["Rank [MASK] is #1 today", '"Go [MASK]!"', r'"a\nb [MASK]"', "# [MASK] x", "C # is [MASK]", "[MASK]: 1e3"]
)
def test_a_text_is_taken_letter_for_letter_whatever_yaml_would_make_of_it(run, monkeypatch, text):
    from glm_model import fill_batch

    asked = []

    def seeing(model, tokenizer, texts, *rest, **options):
        asked.extend(texts)
        return fill_batch(model, tokenizer, texts, *rest, **options)

    monkeypatch.setattr("glm_model.fill_batch", seeing, raising=False)
    assert run(f"--text={text}")[0] == run("--text", text)[0] == 0
    assert asked == [text, text]


def test_filled_spans_stand_out_on_a_terminal(run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert re.fullmatch(r"the cat \x1b\[1;32m.+\x1b\[0m sat\n", run("--text=the cat [MASK] sat")[1])


def test_samples_are_a_list_with_their_log_probabilities_best_first(run):
    _, out, _ = run("--text=the cat [MASK]", "--temperature=1", "--samples=4", "--seed=5")
    found = [SAMPLE.fullmatch(line).groups() for line in out.splitlines()]
    assert [number for number, _, _ in found] == ["1", "2", "3", "4"]
    logprobs = [float(logprob) for _, logprob, _ in found]
    assert logprobs == sorted(logprobs, reverse=True)
    assert len({text for _, _, text in found}) > 1
    assert all(text.startswith("the cat ") for _, _, text in found)


def test_every_line_of_a_file_is_filled_whatever_the_batch(run, texts):
    code, out, _ = run(f"--file={texts}")
    assert code == 0
    assert len(out.splitlines()) == 3
    for options in (["--batch_size=1"], ["--batch_size=2"]):
        assert run(f"--file={texts}", *options)[1] == out
    one_by_one = [run(f"--text={line}")[1] for line in texts.read_text().splitlines() if line]
    assert "".join(one_by_one) == out


def test_samples_of_a_file_stand_below_their_text(run, texts):
    _, out, _ = run(f"--file={texts}", "--temperature=1", "--samples=2")
    lines = out.splitlines()
    assert lines[::3] == ["the cat [MASK] on the mat", "[MASK] sat [MASK].", "a dog [gMASK]"]
    assert all(SAMPLE.fullmatch(line) for at, line in enumerate(lines) if at % 3)


def test_the_options_reach_the_model(run, monkeypatch):
    from glm_model import Decoding, fill_batch

    seen = []

    def seeing(model, tokenizer, texts, decoding, *, order):
        seen.append((texts, decoding, order))
        return fill_batch(model, tokenizer, texts, decoding, order=order)

    monkeypatch.setattr("glm_model.fill_batch", seeing, raising=False)
    drawn = {"min_tokens": 2, "temperature": 0.5, "top_k": 7, "top_p": 0.9, "samples": 2, "seed": 6}
    searched = {"beams": 3, "length_penalty": 0.6, "no_repeat_ngram": 2}
    for options, order in ((drawn, "right_to_left"), (searched, "1,0")):
        words = [f"--{name}={value}" for name, value in {**options, "order": order}.items()]
        assert run("--text=a [MASK] on [MASK]", *words)[0] == 0
    texts = ["a [MASK] on [MASK]"]
    assert seen == [
        (texts, Decoding(max_tokens=3, **drawn), "right_to_left"),
        (texts, Decoding(max_tokens=3, **searched), [1, 0]),
    ]


def test_what_is_shown_is_what_the_library_returns(run, folder):
    from glm_model import Tokenizer, fill, from_pretrained

    text = "The  CAT ( x ) sat\non [MASK] ; ok [MASK]\t!"
    model, tokenizer = from_pretrained(str(folder / "model")), Tokenizer.load(str(folder / "model"))
    assert run("--text", text)[1].rstrip() == fill(model, tokenizer, text, max_tokens=3).text.expandtabs(8).rstrip()


def test_asking_goes_on_after_a_mistake(run):
    code, out, _ = run(typed="no mask\nthe [MASK]\n\nthe [MASK] unread\n")
    assert code == 0
    _, mistake, answer, rest = out.split("text with [MASK] (empty to end): ")
    assert mistake.startswith("warning: the text has no mask")
    assert answer.startswith("the ")
    assert rest == ""


def test_a_bare_call_asks_for_the_model(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    with pytest.raises(SystemExit) as stopped:
        run_main(generate.main)
    told = ("error: --model is missing", "  why: it names the model that fills the blanks", "  try: --model runs/<run>")
    assert (stopped.value.code, capsys.readouterr().err) == (2, "\n".join([*told, "exit 2 (usage)\n"]))


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--text=a cat"], 2, "the text has no mask"),
        (["--text=a [MASK]", "--max_tokens=100"], 2, "max_tokens=100 is more than the 64 tokens"),
        (["--text=a [MASK]", "--beams=3", "--temperature=1"], 2, "contradict each other"),
        (["--text=a [MASK]", "--samples=3"], 2, "Set a temperature"),
        (["--text=a [MASK]", "--order=up"], 2, "--order up is not an order"),
        (["--text=a [MASK]", "--order=up"], 2, "why: order='up' is unknown. Use 'left_to_right'"),
        (["--text=a [MASK]", "--order=0,2"], 2, r"why: order=\[0, 2\] does not hold each number from 0 to 1 once"),
        (["--text=a [MASK]", "--order=0,1"], 2, r"order=\[0, 1\] is for 2 masks, and the text has one mask"),
        (["--text", ""], 2, "text on the command line: expected text or null, got an empty value"),
        (["--file="], 2, "file on the command line: expected text or null, got an empty value"),
        (["--model=", "--text=a [MASK]"], 2, "model on the command line: expected text, got an empty value"),
        (["--model={nowhere}", "--text=a [MASK]"], 3, "--model .*nowhere does not exist"),
        (
            ["--model={authors}", "--text=a [MASK]"],
            3,
            r"try: \S*python workflows/export.py --from .*authors --to <folder>",
        ),
        (["--model={weights}", "--text=a [MASK]"], 3, "weights is a checkpoint without a tokenizer.json"),
        (["--text=a [MASK]", "--file=x"], 2, "--text and --file are both given"),
        (["--file=nowhere.txt"], 3, "cannot read nowhere.txt"),
        (["--file={empty}"], 3, "holds no text"),
        (["--file={bad}"], 3, "line 2 of .* has no mask"),
        (["--file={long}"], 2, "text 2 of 2: the text has 93 tokens"),
        (["--file={empty}", "--batch_size=0"], 2, "batch_size=0 must be at least 1"),
    ],
)
def test_mistakes_are_told_in_a_line(run, tmp_path, argv, code, message):
    for name, content in (("empty", "\n"), ("bad", "a [MASK]\na cat\n"), ("long", f"[MASK]\n[MASK] {'a ' * 90}\n")):
        (tmp_path / name).write_text(content)
    for folder, file in (("authors", "latest"), ("weights", "pytorch_model.bin")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text("{}")
    places = ("empty", "bad", "long", "authors", "weights", "nowhere")
    argv = [word.format(**{name: tmp_path / name for name in places}) for word in argv]
    exit_code, _, err = run(*argv)
    assert exit_code == code
    assert re.search(message, err), err
    assert err.splitlines()[-1].startswith(f"exit {code}")


def test_weights_that_are_not_finite_are_told(run, folder, tmp_path):
    from glm_model import Tokenizer, from_pretrained

    model = from_pretrained(str(folder / "model"))
    with torch.no_grad():
        model.final_norm.weight[0] = float("inf")
    model.save_pretrained(str(tmp_path), tokenizer=Tokenizer.load(str(folder / "model")))
    code, _, err = run(f"--model={tmp_path}", "--text=a [MASK]")
    assert (code, err.splitlines()[0], err.splitlines()[-1]) == (
        *(4, f"error: {tmp_path} writes nothing"),
        "exit 4 (diverged)",
    )
    assert "the model's weights are not finite: final_norm.weight" in err
