"""RTE: does a premise entail a hypothesis?

Data: SuperGLUE's RTE (train.jsonl, val.jsonl, test.jsonl), from the PASCAL challenges 1 to 3 and 5; research use.
Paper: Wang et al., SuperGLUE (NeurIPS 2019); patterns and words of Du et al. (ACL 2022), tasks/superglue/pvp.py.
Metric: accuracy, as SuperGLUE's official evaluation.
"""

from pipelines.tasks._shared import entailment

VERSION = 1
LABELS = ("entailment", "not_entailment")
CONTEXT = ("premise",)
METRICS = ("accuracy",)
PATTERNS = entailment.patterns(
    {"entailment": "Yes", "not_entailment": "No"},
    last="{premise~} question: {hypothesis~} True or False? answer: {mask}",
    last_words={"entailment": "true", "not_entailment": "false"},
)
item = entailment.item
