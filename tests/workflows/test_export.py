"""workflows/export.py: a checkpoint in, a complete folder out, what was done on screen, mistakes with their remedy."""

import json
import shlex
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch
from helpers.weights import same_weights

from glm_model import GLM, GLMConfig, Tokenizer, from_pretrained
from glm_model.saved.authors_checkpoint import authors_names
from glm_model.saved.authors_tokens import special_tokens
from glm_model.saved.pretrained import save_authors, save_pretrained
from infra.errors import run_main
from workflows import export, generate

pytestmark = pytest.mark.integration

VOCAB = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "vocab"
OURS = {"README.md", "config.json", "model.safetensors"}


@pytest.fixture
def run(monkeypatch, capsys):
    """run(*words) -> (exit code, stdout, stderr), white space collapsed."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            run_main(export.main)
        out, error = (" ".join(text.split()) for text in capsys.readouterr())
        return stopped.value.code, out, error

    return run


@pytest.fixture(scope="module")
def bert_sized() -> GLM:
    torch.manual_seed(0)
    return GLM(GLMConfig(1, 16, 2, 30_592, 40)).eval()


@pytest.fixture
def authors(bert_sized, tmp_path) -> Path:
    """A checkpoint as the authors' training leaves it."""
    folder = tmp_path / "authors"
    (folder / "best").mkdir(parents=True)
    torch.save({"module": authors_names(bert_sized.state_dict())}, folder / "best" / "mp_rank_00_model_states.pt")
    (folder / "latest_checkpointed_iteration.txt").write_text("best")
    return folder


@pytest.fixture
def vocabulary() -> Path:
    if not VOCAB.exists():
        pytest.skip("shared/data/vocab is not there")
    return VOCAB / "bert-base-uncased-vocab.txt"


@pytest.fixture
def ours(tmp_path, tiny_tokenizer) -> Path:
    model = GLM(GLMConfig(1, 16, 2, tiny_tokenizer.padded_vocab_size, 40))
    save_pretrained(model, str(tmp_path / "ours"), tiny_tokenizer, card="# Mine\n\nMade of two poems.")
    return tmp_path / "ours"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_checkpoint_of_the_authors_becomes_a_complete_folder(
    run, authors, vocabulary, bert_sized, tmp_path, monkeypatch, capsys
):
    target = tmp_path / "exported"
    code, out, error = run("--from", authors, "--to", target, "--heads", 2, "--tokenizer", vocabulary)
    assert (code, error) == (0, "")
    assert names(target) == {*OURS, "tokenizer.json", "tokenizer_config.json"}
    assert same_weights(from_pretrained(str(target)), bert_sized)
    assert Tokenizer.load(str(target)).special == special_tokens("bert", task_masks=False)
    assert "1 layers, width 16, 2 heads of 8" in out
    assert f"{bert_sized.num_parameters():,}" in out
    assert "ids of the authors' 'bert' checkpoints" in out
    assert "sop 30522, eop 30523, [MASK] 103, [CLS] 101, eos 0" in out
    assert "changed nothing" in out
    command = out.partition("python workflows/generate.py ")[2]
    monkeypatch.setattr(sys, "argv", ["generate.py", *shlex.split(command), "--max_tokens=3"])
    generate.main()
    assert capsys.readouterr().out.startswith("Ray is a ")


def test_dropout_of_a_tokenizer_is_left_out_of_the_export_and_said(run, ours, tmp_path):
    spec = json.loads((ours / "tokenizer.json").read_text())
    spec["model"] = {"type": "BPE", "dropout": 0.1, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
    spec |= {"added_tokens": [], "normalizer": None, "pre_tokenizer": None, "decoder": None}
    (tmp_path / "random.json").write_text(json.dumps(spec))
    target = tmp_path / "exported"
    code, out, error = run("--from", ours, "--to", target, "--tokens=own", "--tokenizer", tmp_path / "random.json")
    assert (code, error) == (0, "")
    assert f"warning: {tmp_path}/random.json has model.dropout=0.1" in out
    assert json.loads((target / "tokenizer.json").read_text())["model"]["dropout"] is None


@pytest.mark.parametrize("source", ["thudm_ckpt_MP2", "thudm_ckpt_ds_fp16", "thudm_ckpt/1234/pytorch_model.bin"])
def test_the_authors_own_checkpoints_become_folders_with_their_weights(run, shared, tmp_path, source):
    """Checkpoints of two ranks, in fp16, and as published: none comes with a config.json or a tokenizer."""
    place, target = shared / "reference" / "golden" / source, tmp_path / "exported"
    if not place.exists():
        pytest.skip(f"the authors' golden checkpoints are not here ({source} is absent)")
    code, out, error = run("--from", place, "--to", target, "--heads", 4)
    assert (code, error) == (0, "")
    assert names(target) == OURS
    exported = GLM.from_pretrained(str(target))
    assert same_weights(exported, from_pretrained(str(place), heads=4))
    assert exported.config == GLMConfig(4, 64, 4, vocab_size=1024, positions=128)
    assert "4 layers, width 64, 4 heads of 16" in out


def test_task_masks_and_another_table_are_chosen_by_a_flag(run, authors, vocabulary, tmp_path):
    given = ("--from", authors, "--heads", 2, "--tokenizer", vocabulary)
    code, out, _ = run(*given, "--task_masks", "--to", tmp_path / "with")
    assert code == 0
    assert "[gMASK] 30524, [sMASK] 30525" in out
    assert Tokenizer.load(str(tmp_path / "with")).special == special_tokens("bert", task_masks=True)
    code, _, error = run(*given, "--tokens=roberta", "--to", tmp_path / "other")
    assert code == 3
    assert "not the tokenizer of a 'roberta' checkpoint" in error
    assert "--tokens own" in error
    assert not (tmp_path / "other" / "config.json").exists()
    assert run(*given, "--tokens=own", "--to", tmp_path / "own")[0] == 0


def test_without_a_tokenizer_the_command_that_adds_it_is_told(run, authors, tmp_path):
    code, out, _ = run("--from", authors, "--to", tmp_path / "x", "--heads", 2)
    assert code == 0
    assert names(tmp_path / "x") == OURS
    assert "the folder has no tokenizer.json" in out
    assert "the model's tokenizer is vocab.txt of bert-base-uncased" in out
    assert out.endswith(f"--from {authors} --to {tmp_path}/x --heads 2 --tokenizer <file>")


def test_our_model_to_the_published_form_and_back_is_exact(run, ours, tmp_path, tiny_tokenizer):
    code, out, _ = run("--from", ours, "--to", tmp_path / "published", "--form", "authors")
    assert code == 0
    assert "its own special ids" in out
    files = {"pytorch_model.bin", "config.json", "tokenizer.json", "tokenizer_config.json", "README.md"}
    assert names(tmp_path / "published") == files
    code, _, _ = run("--from", tmp_path / "published", "--to", tmp_path / "back")
    assert code == 0
    assert same_weights(from_pretrained(str(tmp_path / "back")), from_pretrained(str(ours)))
    assert from_pretrained(str(tmp_path / "back")).config == from_pretrained(str(ours)).config
    assert Tokenizer.load(str(tmp_path / "back")).to_json() == tiny_tokenizer.to_json()
    card = (tmp_path / "back" / "README.md").read_text()
    assert f"| from | {tmp_path}/published |" in card
    assert card.count("## Before the export") == 2
    assert "Made of two poems." in card


def test_tables_grow_and_the_changes_are_told(run, ours, tmp_path, tiny_tokenizer):
    code, out, _ = run("--from", ours, "--to", tmp_path / "x", "--positions", 100, "--vocab_size", 256)
    assert code == 0
    assert "both position tables extended from 40 to 100: 60 new rows" in out
    assert "the embedding grew from 128 to 256 rows: 128 new ones" in out
    grown, old = from_pretrained(str(tmp_path / "x")), from_pretrained(str(ours))
    assert (grown.config.positions, grown.config.vocab_size) == (100, 256)
    assert torch.equal(grown.token_embedding.weight[:128], old.token_embedding.weight)
    assert "both position tables extended" in (tmp_path / "x" / "README.md").read_text()
    code, _, error = run("--from", ours, "--to", tmp_path / "y", "--positions", 10)
    assert code == 3
    assert "positions=10 is less than the model's 40" in error


def test_shards_are_as_large_as_told_and_urls_are_taken(run, ours, tmp_path):
    url = f"file://{tmp_path}/exported"
    code, out, _ = run("--from", ours, "--to", url, "--shard_gb", "1e-5")
    assert code == 0
    assert f"--model {url}" in out
    assert len(list((tmp_path / "exported").glob("model-*.safetensors"))) > 1
    assert same_weights(from_pretrained(url), from_pretrained(str(ours)))
    assert run("--from", ours, "--to", tmp_path / "other", "--shard_gb", "0")[0] == 2
    code, _, error = run("--from", ours, "--to", "memory://other")
    assert (code, "--to=memory://other vanishes with this process" in error) == (2, True)


def test_a_finished_run_is_exported_and_an_unfinished_one_told(run, ours, tmp_path):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    code, _, error = run("--from", folder, "--to", tmp_path / "x")
    assert code == 3
    assert "has no model yet" in error
    shutil.copytree(ours, folder / "model")
    assert run("--from", folder, "--to", tmp_path / "x")[0] == 0
    code, _, error = run("--from", folder, "--to", folder / "model", "--positions", 100)
    assert (code, "is where the checkpoint is" in error) == (2, True)
    assert same_weights(from_pretrained(str(tmp_path / "x")), from_pretrained(str(ours)))


def test_places_that_are_not_for_it_are_refused(run, ours, tmp_path):
    code, _, error = run("--from", tmp_path / "nowhere", "--to", tmp_path / "x")
    assert code == 3
    assert "nowhere does not exist" in error
    code, _, error = run("--from", ours, "--to", f"{tmp_path}/x/../ours")
    assert code == 2
    assert "is where the checkpoint is" in error
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    code, _, error = run("--from", ours, "--to", tmp_path / "letters")
    assert code == 2
    assert "is not a model folder" in error
    code, _, error = run("--from", ours)
    assert (code, "--to is missing" in error) == (2, True)
    code, _, error = run("--to", tmp_path / "x")
    assert (code, "--from is missing" in error) == (2, True)


def test_guessed_heads_are_told_with_their_flag(run, authors, ours, tmp_path):
    _, out, _ = run("--from", authors, "--to", tmp_path / "x")
    assert "warning: the checkpoint does not record its attention heads: 1 are assumed" in out
    assert "give heads (--heads)" in out
    _, out, _ = run("--from", authors, "--to", tmp_path / "y", "--heads", 2)
    assert "attention heads" not in out
    code, _, error = run("--from", ours, "--to", tmp_path / "z", "--heads", 4)
    assert (code, "config.json says heads=2. Leave heads out" in error) == (3, True)


@pytest.mark.parametrize("damage", ["cut", "code", "tracker", "shape"])
def test_bad_checkpoints_exit_3_without_a_stack_trace(run, authors, tmp_path, damage):
    file = authors / "best" / "mp_rank_00_model_states.pt"
    told = {
        "cut": "is damaged",
        "code": "needs pathlib.",
        "tracker": "names 'best'",
        "shape": "final_norm.bias is missing",
    }
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "code":
        torch.save({"module": {}, "extra": Path("/x")}, file)
    elif damage == "tracker":
        (authors / "best").rename(authors / "7")
    else:
        whole = torch.load(file, weights_only=True)
        del whole["module"]["transformer.final_layernorm.bias"]
        torch.save(whole, file)
    code, _, error = run("--from", authors, "--to", tmp_path / "x")
    assert code == 3
    assert told[damage] in error
    assert "Traceback" not in error
    assert error.endswith("exit 3 (data)")


def test_a_tokenizer_that_is_too_large_or_not_there_names_the_remedy(run, ours, vocabulary, tmp_path):
    code, _, error = run("--from", ours, "--to", tmp_path / "x", "--tokenizer", vocabulary)
    assert code == 3
    assert "the tokenizer has 30,526 ids and the model 128 rows" in error
    assert "--vocab_size=30592" in error
    code, _, error = run("--from", ours, "--to", tmp_path / "x", "--tokenizer", tmp_path / "absent.txt")
    assert code == 3
    assert "cannot read a tokenizer from" in error


def test_task_heads_are_told(run, bert_sized, tmp_path):
    folder = tmp_path / "published"
    save_authors(bert_sized, str(folder))
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({**state, "out_proj.weight": torch.zeros(2)}, folder / "pytorch_model.bin")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # shown as a line, not raised past it
        code, out, _ = run("--from", folder, "--to", tmp_path / "x")
    assert code == 0
    assert "warning: tensors of task heads are left out (1): out_proj.weight" in out


def test_the_chinese_10b_model_gets_a_row_for_its_gmask(run, tmp_path, monkeypatch):
    pytest.importorskip("sentencepiece", reason="needs the extra unigram")
    pieces = VOCAB / "chinese_sentencepiece" / "cog-pretrain.model"
    if not pieces.exists():
        pytest.skip("the authors' SentencePiece model is not in shared/data/vocab")
    monkeypatch.setattr("workflows.runs.conversion._CHINESE_10B_LAYERS", 1)
    save_authors(GLM(GLMConfig(1, 8, 1, 50_048, 1024)), str(tmp_path / "published"))
    shutil.copy(pieces, tmp_path / "published")
    code, out, _ = run("--from", tmp_path / "published", "--to", tmp_path / "x")
    assert code == 0
    assert "row 50,009 of the embedding is now a copy of row 50,007" in out
    rows = from_pretrained(str(tmp_path / "x")).token_embedding.weight
    assert torch.equal(rows[50009], rows[50007])
    assert "sop 50006, eop 50007, [MASK] 50003, [gMASK] 50009, [sMASK] 50008" in out
