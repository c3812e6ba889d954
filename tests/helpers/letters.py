"""A tokenizer in which every character is a token ('a' is 10), and a small model that does not say the same always."""

import numpy as np
import torch

from glm_model.config import GLMConfig
from glm_model.layout import Marks
from glm_model.model import GLM
from glm_model.tokenizer import SpecialTokens

CLS, MASK, SOP, EOP, EOS = 1, 2, 5, 6, 0
MARKS = Marks(sop=SOP, eop=EOP, pad=0)


class Letters:
    special = SpecialTokens(pad=EOS, cls=CLS, mask=MASK, smask=3, gmask=4, sop=SOP, eop=EOP, unk=None)
    vocab_size = 36
    control_ids = frozenset(range(7))

    def encode(self, text: str) -> np.ndarray:
        return np.array([ord(c) - 87 for c in text], np.int32)

    def encode_prompt(self, text: str) -> np.ndarray:
        for surface, sign in (("[MASK]", "\x02"), ("[sMASK]", "\x03"), ("[gMASK]", "\x04")):
            text = text.replace(surface, sign)
        return np.array([ord(c) if ord(c) < 5 else ord(c) - 87 for c in text], np.int32)

    def encode_answers(self, prompt: str, answers) -> list[np.ndarray]:
        return [self.encode(answer) for answer in answers]

    def decode(self, ids, *, inside: bool) -> str:
        return "".join(chr(int(i) + 87) for i in ids if i >= 10)


def decided_model(config: GLMConfig, *, seed: int = 0, ends: float = 1.0) -> GLM:
    """ends: how much longer than others the vector of [eop] is; more blanks end by themselves from about 1.5 on."""
    torch.manual_seed(seed)
    model = GLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Places count for more than tokens: otherwise, the head being tied, a token is followed by itself.
            parameter.add_((0.3 if "position" in name else 0.05) * torch.randn_like(parameter))
        model.token_embedding.weight[EOP] *= ends
    return model.eval()
