"""What `evaluate_peer.py` and `finetune_peer.py` compare with, by an interpreter of its own: nothing of ours.

    python benchmarks/task_peers.py harness ASKED     # {cpu_s, accuracy}
    python benchmarks/task_peers.py trainer ASKED     # {cpu_s, tokens, positions}

ASKED is JSON, and so is what it prints. CPU seconds of the process, without imports, and without making the model and
reading the items.
"""

import json
import os
import sys
import tempfile
import time
from typing import Any

_HOME = tempfile.mkdtemp(prefix="glm-peers-")
os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HOME": _HOME, "HF_HUB_OFFLINE": "1"}

TASKS: dict[str, dict[str, Any]] = {
    "hellaswag": {"doc_to_text": "{{ctx}}", "doc_to_choice": "{{endings}}", "doc_to_target": "{{label}}"},
    "piqa": {
        "doc_to_text": "Question: {{goal}}\nAnswer:",
        "doc_to_choice": "{{[sol1, sol2]}}",
        "doc_to_target": "{{label}}",
    },
    "blimp": {"doc_to_text": "", "doc_to_choice": "{{[sentence_good, sentence_bad]}}", "doc_to_target": 0},
}


def main() -> None:
    name, asked = sys.argv[1:]
    print(json.dumps({"harness": harness, "trainer": trainer}[name](json.loads(asked))))


def harness(asked: dict[str, Any]) -> dict[str, float]:
    """lm-evaluation-harness asks a GPT-2 with random weights.

    asked: task, file of JSON lines, tokenizer.json, shape (as `GLMConfig`), batch size, threads. Not counted: imports,
    the model, reading the items. Left out, as it takes time: the harness's bootstrap and its samples.
    """
    import torch
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.set_num_threads(asked["threads"])
    torch.manual_seed(0)
    shape = asked["shape"]
    config = GPT2Config(
        vocab_size=shape["vocab_size"],
        n_positions=shape["positions"],
        n_embd=shape["width"],
        n_layer=shape["layers"],
        n_head=shape["heads"],
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=asked["tokenizer"], eos_token="[SEP]", pad_token="[PAD]")
    model = HFLM(
        pretrained=GPT2LMHeadModel(config).eval(),
        tokenizer=tokenizer,
        device="cpu",
        batch_size=asked["batch"],
        add_bos_token=False,  # else the tokenizer puts [CLS] and [SEP] around each part
    )
    task = local_task(asked["task"], asked["file"])
    began = time.process_time()
    found = evaluate(model, {"tasks": {asked["task"]: task}}, bootstrap_iters=0, log_samples=False)
    took = time.process_time() - began
    assert found is not None
    return {"cpu_s": took, "accuracy": 100 * found["results"][asked["task"]]["acc,none"]}


def local_task(name: str, file: str) -> Any:
    """A task of the harness that reads a file of JSON lines."""
    from lm_eval.api.task import ConfigurableTask

    return ConfigurableTask(
        config={
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"validation": file}},
            "validation_split": "validation",
            "output_type": "multiple_choice",
            "num_fewshot": 0,
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            **TASKS[name],
        }
    )


def trainer(asked: dict[str, Any]) -> dict[str, float]:
    """transformers' Trainer teaches a BERT with a classification head for an epoch, after two steps that warm up.

    asked: file of JSON lines (first, second, label), vocabulary, shape (as `GLMConfig`), batch size, most tokens of an
    item, threads, and whether items of about one length come together. Its own collator pads to the longest of a batch.
    Items are tokens before the clock runs.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast, Trainer, TrainingArguments

    class Counted(BertForSequenceClassification):
        positions = tokens = 0

        # The Trainer drops the columns that are no parameters here.
        def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, labels=None):
            Counted.positions += input_ids.numel()
            Counted.tokens += int(attention_mask.sum())
            return super().forward(input_ids, attention_mask, token_type_ids, labels=labels)

    torch.set_num_threads(asked["threads"])
    shape, tokenizer = asked["shape"], BertTokenizerFast(asked["vocabulary"])
    config = BertConfig(
        vocab_size=shape["vocab_size"],
        hidden_size=shape["width"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        intermediate_size=4 * shape["width"],
        max_position_embeddings=asked["most"],
        hidden_dropout_prob=shape["dropout"],
        attention_probs_dropout_prob=shape["attention_dropout"],
        num_labels=2,
    )
    with open(asked["file"], encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    items = [
        {**tokenizer(row["first"], row["second"], truncation=True, max_length=asked["most"]), "labels": row["label"]}
        for row in rows
    ]
    model = Counted(config)

    def train(folder: str, **length: float) -> float:
        """CPU seconds."""
        one = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=asked["batch"],
                train_sampling_strategy="group_by_length" if asked["grouped"] else "random",
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                **length,
            ),
            processing_class=tokenizer,
            train_dataset=items,
        )
        began = time.process_time()
        one.train()
        return time.process_time() - began

    with tempfile.TemporaryDirectory() as folder:
        train(folder, max_steps=2)
        Counted.positions = Counted.tokens = 0
        took = train(folder, num_train_epochs=1)
    return {"cpu_s": took, "tokens": Counted.tokens, "positions": Counted.positions}


if __name__ == "__main__":
    main()
