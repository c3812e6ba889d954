"""Train a tokenizer with GLM's special tokens on the cleaned text of a recipe, and write its tokenizer.json.

    python workflows/train_tokenizer.py --config workflows/recipes/quickstart.yaml

`pretrain.py` and `prepare.py` do the same by themselves where `data.tokenizer.url` is not given.
"""

try:
    from infra.errors import quiet_until_main, run_script

    quiet_until_main(__name__)
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `source .venv/bin/activate` first, and `make install` before if it fails") from None

from infra.console import Console
from infra.errors import UserError
from workflows.settings.command_line import read_recipe
from workflows.settings.recipe import Recipe

_COMMON = (
    "data.sources",
    "data.root",
    "data.tokenizer.train.algorithm",
    "data.tokenizer.train.vocab_size",
    "data.tokenizer.train.sample_bytes",
)


def main() -> None:
    recipe = read_recipe(Recipe, description="Train a tokenizer on the sources of a recipe.", common=_COMMON).config
    if recipe.data.store or recipe.data.mix:
        raise UserError(
            "a tokenizer is trained on text, and data.store and data.mix name finished stores",
            try_="leave them out, and give the text: --data.sources='[{reader: text, url: ...}]'",
        )
    if not recipe.data.sources:
        raise UserError(
            "data.sources is empty: a tokenizer needs text to train on",
            try_="--data.sources='[{reader: text, url: ...}]'",
        )
    if recipe.data.tokenizer.url:
        raise UserError(
            f"this recipe takes its tokenizer from {recipe.data.tokenizer.url}",
            try_="--data.tokenizer.url=null to train one",
        )
    screen = Console(recipe.console)
    screen.line("tokenizer: loading")
    # pyarrow takes a fifth of a second of CPU time to load: here, when the settings are known to be good.
    from infra import storage
    from infra.cluster import connect
    from pipelines.corpus.sources import list_sources
    from pipelines.estimate import check_readable
    from pipelines.names import trained_url
    from pipelines.prepare import prepare_text, prepare_tokenizer
    from pipelines.stages import Runner
    from workflows.runs.progress import preparation

    inputs = list_sources(recipe.data.sources)
    check_readable(recipe.data, inputs.files)  # what is wrong with a source is said before Ray starts
    runner, ray = Runner(preparation(screen)), connect.connect(recipe.cluster, say=screen.line)
    try:
        units = prepare_text(recipe.data, inputs, runner)
    finally:
        connect.shutdown(ray)
    tokenizer = prepare_tokenizer(recipe.data, units, runner)
    place = storage.join(trained_url(recipe.data, units), "tokenizer.json")
    sample = "Tokenizers cut words into pieces."
    pieces = " ".join(tokenizer.surface(int(i)) for i in tokenizer.encode(sample))
    screen.header(
        f"tokenizer {tokenizer.digest[:12]}",
        [("entries", f"{tokenizer.vocab_size:,}"), ("file", place), (sample, pieces)],
    )
    screen.next_steps([("use it", f"--data.tokenizer.url={place}")])


if __name__ == "__main__":
    run_script(main)
