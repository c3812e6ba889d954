"""Training a tokenizer apart: the same tokenizer, and an end when it is wanted, which the libraries ignore."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers import kinds
from helpers.patience import PATIENCE

from glm_model.tokenizer import Tokenizer
from infra.config import Count
from infra.errors import DataError, UserError
from pipelines.store.tokenizer_process import train_apart
from pipelines.store.tokenizer_training import TokenizerTraining, bounded_words, train

ROOT = Path(__file__).resolve().parents[3]
# Many seconds of work for the library: two million different words.
ENDLESS = """
import random
from infra.errors import run_main
from pipelines.store.tokenizer_process import train_apart
from pipelines.store.tokenizer_training import TokenizerTraining

def main():
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=12)) for _ in range(400_000)]
    for _ in train_apart([" ".join(words)], TokenizerTraining(vocab_size=30_000)):
        print("at work", flush=True)

run_main(main)
"""


def outcomes(texts: list[str], config: TokenizerTraining) -> tuple[list[float], Tokenizer]:
    *seconds, tokenizer = train_apart(iter(texts), config)
    assert isinstance(tokenizer, Tokenizer)
    assert all(isinstance(one, float) for one in seconds)
    return [float(one) for one in seconds if isinstance(one, float)], tokenizer


def test_it_gives_the_tokenizer_that_training_here_gives():
    texts = [kinds.english(40, seed=1), kinds.chinese(40, seed=1)] * 5
    config = TokenizerTraining(vocab_size=600, sample_bytes=Count(20_000))
    seconds, tokenizer = outcomes(texts, config)
    assert seconds == sorted(seconds)
    assert seconds, "time passes while the process starts"
    assert tokenizer.to_json() == train(texts, config).to_json()


def test_what_cannot_be_is_said_here():
    with pytest.raises(UserError, match="vocab_size must be at least 512, got 100"):
        list(train_apart(["a text"], TokenizerTraining(vocab_size=100)))
    with pytest.raises(DataError, match="nothing to train a tokenizer on"):
        list(train_apart(["", " \n"], TokenizerTraining()))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.timeout(90)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_command_that_began_it(number):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert command.stdout is not None
        assert command.stdout.readline() == "at work\n"
        (training,) = psutil.Process(command.pid).children()
        command.send_signal(number)
        _, said = command.communicate(timeout=20 * PATIENCE)
        _, alive = psutil.wait_procs([training], timeout=10 * PATIENCE)
        assert not alive
    finally:
        command.kill()
    if number != signal.SIGKILL:
        assert (command.returncode, said.splitlines()) == (130, ["error: interrupted", "exit 130 (interrupted)"])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("letters", ["ACGT", "0123456789", "-=+#"])
def test_byte_level_bpe_is_given_no_word_without_end(letters):
    """A merge walks through the whole word."""
    rng = random.Random(0)
    genes = "".join(rng.choices(letters, k=1_000_000))
    config = TokenizerTraining(algorithm="bpe", vocab_size=800)
    tokenizer = train([genes, kinds.english(40, seed=2)], config)
    assert tokenizer.vocab_size == 800


def test_text_without_such_words_is_given_as_it_is():
    texts = [kinds.english(60, seed=3), kinds.chinese(400, seed=3).replace("\n", "").replace(" river ", "")]
    assert max(map(len, texts[1].split())) > 1000, "nothing but signs stands between the words of Chinese"
    assert [bounded_words(text) for text in texts] == texts
    cut = bounded_words("see " + "A" * 2500 + " and " + "7" * 1001)
    assert [len(word) for word in cut.split()] == [3, 1000, 1000, 500, 3, 1000, 1]
