"""How an answer is written that is a text."""

from dataclasses import asdict, dataclass, replace

from infra.errors import UserError
from pipelines.questions.config import GenerationConfig

NO_ANSWER = "N/A"
"""What is written where a passage does not answer a question, as SQuAD 2.0 has some."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Limits in tokens, and how tokens are chosen (`glm_model.decoding`)."""

    max_tokens: int
    min_tokens: int = 1
    beams: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram: int = 0
    max_source: int | None = None
    """Tokens of the context; None: as many as the model has positions."""
    is_default: bool = False
    """Whether max_tokens is the task's, which becomes smaller where a model has fewer positions."""

    def within(self, longest: int) -> "Generation":
        """For a model that may write so many tokens into a mask. Raises UserError where the recipe asks for more."""
        if self.max_tokens <= longest:
            return self
        if self.is_default:
            return replace(self, max_tokens=longest, min_tokens=min(self.min_tokens, longest))
        raise UserError(
            f"task.generation.max_tokens={self.max_tokens} is more than the {longest} tokens that the model may write "
            "into a blank",
            why="each token has a position of its own",
            try_=f"--task.generation.max_tokens={longest}, or a model with more positions",
        )


def generation_of(config: GenerationConfig, *, max_tokens: int) -> Generation:
    """What a recipe says. max_tokens: the task's, where the recipe has none. Raises ValueError where at least more
    tokens are asked for than at most.
    """
    most = config.max_tokens or max_tokens
    given = {name: value for name, value in asdict(config).items() if value is not None}
    found = Generation(**(given | {"max_tokens": most}), is_default=config.max_tokens is None)
    if found.min_tokens > most:
        raise ValueError(f"generation.min_tokens={found.min_tokens} is more than max_tokens={most}")
    return found


def completed(config: GenerationConfig, taught: GenerationConfig) -> GenerationConfig:
    """The settings that are given, and where none is, those that a model was taught with."""
    return replace(taught, **{name: value for name, value in asdict(config).items() if value is not None})
