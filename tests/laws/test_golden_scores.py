"""Law 17: one small model, whose weights follow from a seed, has the same scores on every task as ever.

A score that changes means that questions, the layout, the model or a metric changed: then earlier scores are no longer
comparable. Where that is meant, raise the task's VERSION, or the FORMAT of evaluations, and write the new values here.
"""

import numpy as np
import pytest
from helpers import asked, golden_items

from infra.console import Console
from pipelines import plugins, tasks
from pipelines.metrics.items import judged
from workflows.evaluation.ask_models import ask_models
from workflows.evaluation.evaluation import Evaluated
from workflows.evaluation.models import find_models
from workflows.evaluation.results import results_of
from workflows.evaluation.tasks import task_configs

# What a model writes whose weights are random has hardly a word of the right texts; how likely these are tells more.
ROUGE = {"rougeLsum": 0.0, "rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
SPLIT = {"sari": 11.54, "sacrebleu": 0.0, "two_sentences": 0.0, "rougeLsum": 0.0}
# task -> for each pattern its scores, and the mean log p of the right candidates.
GOLDEN: dict[str, list[tuple[dict[str, float], float]]] = {
    "ax_b": [
        ({"mcc": 44.72, "accuracy": 66.67}, -6.0127),
        ({"mcc": 35.36, "accuracy": 66.67}, -5.6912),
        ({"mcc": 44.72, "accuracy": 66.67}, -6.2816),
        ({"mcc": 44.72, "accuracy": 66.67}, -5.9774),
        ({"mcc": -19.25, "accuracy": 41.67}, -13.5219),
    ],
    "ax_g": [
        ({"accuracy": 50.0, "parity": 100.0}, -5.8413),
        ({"accuracy": 50.0, "parity": 0.0}, -5.3068),
        ({"accuracy": 50.0, "parity": 100.0}, -6.057),
        ({"accuracy": 50.0, "parity": 0.0}, -5.5366),
        ({"accuracy": 58.33, "parity": 83.33}, -12.3152),
    ],
    "blimp": [({"accuracy": 33.33}, -88.7829)],
    "boolq": [
        ({"accuracy": 58.33}, -6.7123),
        ({"accuracy": 75.0}, -12.1808),
        ({"accuracy": 66.67}, -5.9553),
        ({"accuracy": 75.0}, -12.5386),
        ({"accuracy": 58.33}, -6.448),
        ({"accuracy": 58.33}, -13.1565),
    ],
    "cb": [
        ({"accuracy": 41.67, "macro_f1": 31.11}, -6.349),
        ({"accuracy": 33.33, "macro_f1": 16.67}, -6.7706),
        ({"accuracy": 41.67, "macro_f1": 30.16}, -6.5251),
        ({"accuracy": 33.33, "macro_f1": 16.67}, -6.9361),
        ({"accuracy": 33.33, "macro_f1": 16.67}, -10.9589),
    ],
    "classification": [({"accuracy": 66.67}, -4.9304), ({"accuracy": 66.67}, -5.5134), ({"accuracy": 66.67}, -5.2452)],
    "copa": [({"accuracy": 33.33}, -63.2276), ({"accuracy": 33.33}, -63.134)],
    "hellaswag": [
        ({"accuracy": 41.67, "accuracy_per_token": 41.67, "accuracy_per_byte": 25.0}, -38.7104),
        ({"accuracy": 41.67, "accuracy_per_token": 41.67, "accuracy_per_byte": 25.0}, -38.5337),
    ],
    "infilling": [({"exact_match": 0.0, "sacrebleu": 9.54, "bits_per_byte": 6.24}, -56.2282)],
    "lambada": [({"accuracy": 0.0, "bits": 18.18}, -12.5984), ({"accuracy": 0.0, "bits": 18.24}, -12.6439)],
    "mmlu": [({"accuracy": 16.67}, -10.816), ({"accuracy": 25.0}, -11.0367)],
    "multiple_choice": [
        ({"accuracy": 33.33, "accuracy_per_token": 33.33, "accuracy_per_byte": 33.33}, -48.2021),
        ({"accuracy": 33.33, "accuracy_per_token": 33.33, "accuracy_per_byte": 33.33}, -48.2125),
    ],
    "multirc": [
        ({"f1a": 0.0, "em": 0.0, "accuracy": 47.22}, -7.0006),
        ({"f1a": 26.09, "em": 8.33, "accuracy": 52.78}, -6.5963),
        ({"f1a": 34.78, "em": 16.67, "accuracy": 58.33}, -6.4325),
        ({"f1a": 44.44, "em": 0.0, "accuracy": 44.44}, -12.9117),
        ({"f1a": 10.0, "em": 0.0, "accuracy": 50.0}, -6.1649),
    ],
    "pair_classification": [({"accuracy": 66.67}, -5.2284), ({"accuracy": 66.67}, -5.0431)],
    "perplexity": [
        ({"bits_per_byte": 5.73, "word_perplexity": 140996.38, "perplexity": 42970.0}, -1632.2434),
        ({"bits_per_byte": 5.8, "word_perplexity": 162847.39, "perplexity": 48917.84}, -1652.0783),
    ],
    "piqa": [
        ({"accuracy": 41.67, "accuracy_per_token": 33.33, "accuracy_per_byte": 66.67}, -55.8286),
        ({"accuracy": 41.67, "accuracy_per_token": 33.33, "accuracy_per_byte": 66.67}, -55.7138),
    ],
    "record": [({"f1": 41.67, "em": 41.67}, -23.6909)],
    "rte": [
        ({"accuracy": 50.0}, -6.2121),
        ({"accuracy": 50.0}, -6.2266),
        ({"accuracy": 50.0}, -6.462),
        ({"accuracy": 50.0}, -6.4816),
        ({"accuracy": 50.0}, -13.269),
    ],
    "seq2seq": [
        ({**ROUGE, "sacrebleu": 0.0, "chrf": 3.6, "bits_per_byte": 6.31}, -56.4538),
        ({**ROUGE, "sacrebleu": 0.0, "chrf": 0.0, "bits_per_byte": 6.45}, -57.7353),
        ({**ROUGE, "sacrebleu": 0.0, "chrf": 3.06, "bits_per_byte": 6.38}, -57.1104),
        ({**ROUGE, "sacrebleu": 0.0, "chrf": 0.0, "bits_per_byte": 6.51}, -58.296),
    ],
    "squad": [
        ({"squad_f1": 0.0, "squad_em": 0.0, "squad_f1_has_answer": 0.0, "squad_em_no_answer": 0.0}, -27.8347),
    ],
    "squad_questions": [({"sacrebleu": 0.0, "rougeL": 0.0, "chrf": 0.0, "bits_per_byte": 6.88}, -63.7432)],
    "wic": [({"accuracy": 33.33}, -6.9733), ({"accuracy": 41.67}, -6.2371), ({"accuracy": 50.0}, -8.535)],
    "wiki_split": [
        ({**SPLIT, "chrf": 3.3, "bits_per_byte": 5.29}, -113.4227),
        ({**SPLIT, "chrf": 0.0, "bits_per_byte": 5.36}, -114.954),
    ],
    "wsc": [({"accuracy": 66.67}, -26.398), ({"accuracy": 66.67}, -26.8241), ({"accuracy": 66.67}, -27.5215)],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    tokenizer = golden_items.tokenizer(tmp_path_factory.mktemp("vocabulary"))
    return asked.model_folder(tmp_path_factory.mktemp("model"), tokenizer, positions=256)


@pytest.mark.parametrize("name", plugins.names(tasks))
def test_golden_scores_of_a_fixed_model(name, model, tmp_path):
    data = golden_items.write(name, tmp_path / "data")
    options = asked.options(data, model, tmp_path / "out", patterns="all", without_context=False)
    options.task.name, options.task.id = name, None
    options.task.words = {"bad": "terrible", "good": "great"} if "classification" in name else {}
    if tasks.define(options.task, lambda: []).generation:
        options.task.generation.max_tokens = 12
    models = find_models(options.models)
    found = ask_models(options, task_configs(options, models), models, Console(options.console))
    expected = GOLDEN.get(name, [])
    told = [(_scores(one), _mean_gold(one)) for one in found]
    assert len(told) == len(expected), str(told)
    for (scores, mean), (golden_scores, golden_mean) in zip(told, expected, strict=True):
        assert scores == pytest.approx(golden_scores, abs=0.006, rel=1e-4), str(told)
        assert mean == pytest.approx(golden_mean, abs=2e-4, rel=1e-5), str(told)


def _scores(one: Evaluated) -> dict[str, float]:
    return {score.metric: round(score.value, 2) for score in results_of(one)}


def _mean_gold(one: Evaluated) -> float:
    """The mean log p of the right candidates; of what is to be written, whether that is right or not."""
    rows, is_written = judged(one.items).to_pylist(), one.asked.task.kind == "write"
    return round(float(np.mean([row["logprobs"][0 if is_written else row["gold"]] for row in rows])), 4)
