"""What is wrong is said before Ray is started, which takes seconds, and before hours go into a preparation."""

import pytest
from helpers.mistakes import small

from glm_model import GLM, GLMConfig, save_pretrained
from workflows import prepare, pretrain, train_tokenizer

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """A Ray that starts is a failure."""
    monkeypatch.setattr("infra.cluster.connect.connect", lambda *_, **__: pytest.fail("Ray starts"))


@pytest.mark.parametrize("main", [prepare.main, pretrain.main, train_tokenizer.main])
@pytest.mark.parametrize(
    ("source", "code", "told"),
    [
        ("{{reader: jsonl, url: {here}, options: {{feild: text}}}}", 2, "feild"),
        ("{{reader: jsonl, url: {here}, options: {{field: body}}}}", 3, "no 'body', but text"),
        ("{{reader: text, url: {here}/a.jsonl, options: {{per: page}}}}", 2, "page"),
    ],
)
def test_a_wrong_option_of_a_reader_is_refused_before_ray_starts(run, texts, tmp_path, main, source, code, told):
    sources = f"--data.sources=[{source.format(here=texts)}]"
    found, error = run(main, *small(texts, tmp_path, sources))
    assert (found, told in error) == (code, True), error


@pytest.mark.parametrize("main", [prepare.main, pretrain.main])
def test_another_tokenizer_than_the_models_is_refused_before_ray_starts(run, texts, tmp_path, tiny_tokenizer, main):
    shape = GLMConfig(layers=1, width=8, heads=1, vocab_size=128, positions=64)
    save_pretrained(GLM(shape), str(tmp_path / "model"), tokenizer=tiny_tokenizer)
    other = tmp_path / "vocab.txt"
    other.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]) + "\n")
    given = [f"--model.init_from={tmp_path}/model", f"--data.tokenizer.url={other}"]
    code, error = run(main, *small(texts, tmp_path, *given))
    assert (code, "the tokenizer of the data is not that of model.init_from" in error) == (2, True), error
