"""CB, the CommitmentBank: does a speaker hold a clause to be true, false, or neither?

Data: SuperGLUE's CB (train.jsonl, val.jsonl, test.jsonl); research use. 16 of its 250 training rows are neutral.
Paper: de Marneffe et al. (2019); patterns and words of Du et al. (ACL 2022), tasks/superglue/pvp.py.
Metrics: accuracy and the unweighted mean of F1 over the classes, as SuperGLUE's official evaluation.
"""

from pipelines.tasks._shared import entailment

VERSION = 1
LABELS = ("contradiction", "neutral", "entailment")
CONTEXT = ("premise",)
METRICS = ("accuracy", "macro_f1")
DEFAULT_PATTERN = 3
PATTERNS = entailment.patterns(
    {"contradiction": "No", "neutral": "Maybe", "entailment": "Yes"},
    last="{premise~} question: {hypothesis~} true, false or neither? answer: {mask}",
    last_words={"contradiction": "false", "neutral": "neither", "entailment": "true"},
)
item = entailment.item
