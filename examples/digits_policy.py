"""The policy, the data and the token format that `grpo_digits.py` and `sft_digits.py` share.

The model looks at an 8x8 image and writes a short answer, one token at a time. A complete answer is

    [filler ...] <a> DIGIT CONFIDENCE <e>          for example   <a> 7 sure <e>

Nothing in the model knows this: at the start every token is about equally likely, and `digits_rubric.py`
decides what an answer is worth.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

DIGITS = tuple("0123456789")
CONFIDENCES = {"sure": 0.95, "likely": 0.7, "unsure": 0.3}  # word -> the probability of being right it claims
OPEN, END = "<a>", "<e>"
FILLERS = ("um", "well", "so", "hmm")
VOCABULARY: tuple[str, ...] = (END, OPEN, *DIGITS, *CONFIDENCES, *FILLERS)
TOKEN_ID = {token: index for index, token in enumerate(VOCABULARY)}
END_ID = TOKEN_ID[END]
MAX_TOKENS = 6


@dataclasses.dataclass(frozen=True)
class Digits:
    """scikit-learn's 1797 digits, cut once and for all into a training and a held-out part.

    Images are float32 of shape (N, 64) in [0, 1]; labels are int64 of shape (N,).
    """

    train_images: Tensor
    train_labels: Tensor
    heldout_images: Tensor
    heldout_labels: Tensor

    @classmethod
    def load(cls, heldout: int = 360) -> Digits:
        """Read the data out of the scikit-learn package and set `heldout` images aside, evenly by label."""
        images, labels = load_digits(return_X_y=True)
        images = (images / 16.0).astype(np.float32)
        train_x, held_x, train_y, held_y = train_test_split(
            images, labels.astype(np.int64), test_size=heldout, stratify=labels, random_state=0
        )
        return cls(*(torch.from_numpy(array) for array in (train_x, train_y, held_x, held_y)))


@dataclasses.dataclass(frozen=True)
class Completions:
    """N sampled answers of at most T tokens."""

    tokens: Tensor  #: int64 (N, T), padded with END
    log_probs: Tensor  #: float32 (N, T), of each token when it was sampled
    mask: Tensor  #: float32 (N, T): 1 up to and including the first END, 0 after it


class DigitPolicy(nn.Module):
    """An image encoder that sets the state of a GRU, which writes the answer token by token."""

    def __init__(self, hidden: int = 64, embedding: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(64, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, hidden), nn.Tanh()
        )
        # One row more than the vocabulary: the start symbol, which is read and never written.
        self.embedding = nn.Embedding(len(VOCABULARY) + 1, embedding)
        self.gru = nn.GRU(embedding, hidden, batch_first=True)
        self.head = nn.Linear(hidden, len(VOCABULARY))

    @property
    def start_id(self) -> int:
        """The id of the start symbol."""
        return len(VOCABULARY)

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities (N, T, V) of each next token.

        `images` is (M, 64) and `tokens` (N, T); N is a multiple of M, each image has N/M answers in a row.
        """
        state = self.encoder(images).repeat_interleave(len(tokens) // len(images), dim=0)
        start = tokens.new_full((len(tokens), 1), self.start_id)
        inputs = self.embedding(torch.cat([start, tokens[:, :-1]], dim=1))
        outputs, _ = self.gru(inputs, state.unsqueeze(0))
        return self.head(outputs + state.unsqueeze(1)).log_softmax(-1)

    @torch.no_grad()
    def sample(
        self, images: Tensor, samples: int, generator: torch.Generator | None, max_tokens: int = MAX_TOKENS
    ) -> Completions:
        """Write `samples` answers to each of the M images: N = M * samples, an image's answers in a row.

        Without a generator the most likely token is taken every time (greedy).
        """
        context = state = self.encoder(images).repeat_interleave(samples, dim=0)
        count = len(state)
        token = torch.full((count,), self.start_id)
        alive = torch.ones(count)
        weights = (self.gru.weight_ih_l0, self.gru.weight_hh_l0, self.gru.bias_ih_l0, self.gru.bias_hh_l0)
        columns: list[tuple[Tensor, Tensor, Tensor]] = []
        for _ in range(max_tokens):
            state = torch.gru_cell(self.embedding(token), state, *weights)
            log_probs = self.head(state + context).log_softmax(-1)
            if generator is None:
                token = log_probs.argmax(-1)
            else:  # Gumbel-max: the same distribution as multinomial, several times faster on a CPU
                noise = torch.empty_like(log_probs).exponential_(generator=generator)
                token = (log_probs - noise.log()).argmax(-1)
            token = torch.where(alive > 0, token, END_ID)
            columns.append((token, log_probs.gather(-1, token.unsqueeze(-1)).squeeze(-1), alive))
            alive = alive * (token != END_ID)
            if not alive.any():
                break
        tokens, chosen, mask = (torch.stack(column, dim=1) for column in zip(*columns, strict=True))
        return Completions(tokens, chosen, mask)


def chosen_log_probs(log_probs: Tensor, tokens: Tensor) -> Tensor:
    """The log-probabilities (N, T) of `tokens` (N, T) out of `log_probs` (N, T, V)."""
    return log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


class Decoder:
    """Token rows to text; each distinct row is spelt out once."""

    def __init__(self) -> None:
        self._texts: dict[bytes, str] = {}

    def __call__(self, tokens: Tensor) -> list[str]:
        """The text of each row of `tokens` (N, T), up to and including the first END."""
        rows = tokens.to(torch.uint8).numpy()
        width, raw = rows.shape[1], rows.tobytes()
        texts = self._texts
        result = []
        for offset in range(0, len(raw), width):
            key = raw[offset : offset + width]
            text = texts.get(key)
            if text is None:
                text = texts[key] = decode(key)
            result.append(text)
        return result


def decode(token_ids: bytes | list[int]) -> str:
    """The words of one row of token ids, up to and including the first END."""
    words: list[str] = []
    for token_id in token_ids:
        words.append(VOCABULARY[token_id])
        if token_id == END_ID:
            break
    return " ".join(words)


def encode(text: str) -> list[int]:
    """The token ids of an answer's words. Raises ValueError at a word that is not in the vocabulary."""
    try:
        return [TOKEN_ID[word] for word in text.split()]
    except KeyError as error:
        known = " ".join(VOCABULARY)
        raise ValueError(f"{error.args[0]!r} is not a token; the vocabulary is {known}") from None
