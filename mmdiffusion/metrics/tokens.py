"""A judge that reads token sequences, such as those of a music codec."""

import torch
from jaxtyping import Int
from torch import Tensor

from mmdiffusion.metrics.judge import Judge


class TokenJudge(Judge):
    """Logistic regression on how often tokens and runs of tokens occur: it knows the material, not the whole order.

    A sequence is read as a text of token numbers: counts of its runs of 1 to `max_run` tokens, hashed into
    `num_features` columns, enter as 1 + log(count) times the inverse document frequency, scaled to length 1, so that
    sequences of any length compare.
    Source: scikit-learn's text features (`HashingVectorizer`, `TfidfTransformer`); Weinberger et al. 2009
    (arXiv:0902.2206) for the hashing.

    Args:
        name: Short name that appears in the metric; say which data it was fitted on.
        max_run: Longest run of tokens that is counted, at least 1.
        num_features: Columns that runs are hashed into, at least 2; it bounds memory, and runs may share one.
        regularisation: Inverse strength C of the penalty on weights, above 0.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        name: str = "token-runs",
        max_run: int = 2,
        num_features: int = 2**16,
        regularisation: float = 10.0,
    ) -> None:
        for field, value, least in (("max_run", max_run, 1), ("num_features", num_features, 2)):
            if value < least:
                raise ValueError(f"{field}: found {value}, expected at least {least}; the default suits most codecs")
        if regularisation <= 0:
            raise ValueError(f"regularisation: found {regularisation}, expected above 0; the default is 10")
        self.name, self.max_run, self.num_features = name, max_run, num_features
        self.regularisation = regularisation
        self.num_fitted = 0

    def fit(self, tokens: Int[Tensor, "b n"], labels: Int[Tensor, " b"]) -> None:
        """Fit on the real training split.

        Args:
            tokens: (b n) token numbers.
            labels: (b,) their classes, at least two different ones.

        Raises:
            ValueError: If all labels are the same.
        """
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        if len(labels.unique()) < 2:
            raise ValueError(
                f"labels: found {len(labels.unique())} classes for judge {self.name!r}, expected at least 2; "
                "check the training split"
            )
        runs = HashingVectorizer(
            token_pattern=r"\S+",
            ngram_range=(1, self.max_run),
            n_features=self.num_features,
            alternate_sign=False,
            norm=None,  # pyright: ignore[reportArgumentType] - guessed from its default
        )
        regression = LogisticRegression(C=self.regularisation, max_iter=1000)
        self.model = make_pipeline(runs, TfidfTransformer(sublinear_tf=True), regression)
        self.model.fit(_as_texts(tokens), labels.cpu().numpy())
        self.num_fitted = len(tokens)

    def predict(self, tokens: Int[Tensor, "b n"]) -> Int[Tensor, " b"]:
        """Classes (b,) read from tokens (b n), on their device; n need not be that of the training split.

        Raises:
            ValueError: Before `fit`.
        """
        if self.num_fitted == 0:
            raise ValueError(
                f"judge {self.name!r}: found no fitted classifier, expected one; "
                "call fit(tokens, labels) with the real training split first"
            )
        if len(tokens) == 0:
            return torch.zeros(0, dtype=torch.int64, device=tokens.device)
        return torch.from_numpy(self.model.predict(_as_texts(tokens))).to(tokens.device)

    def signature(self) -> str:
        """Name, features, penalty and number of training sequences."""
        return (
            f"{self.name}, logistic regression on TF-IDF of runs of 1 to {self.max_run} tokens in {self.num_features} "
            f"columns, C {self.regularisation:g}, fitted on {self.num_fitted} sequences"
        )


def _as_texts(tokens: Int[Tensor, "b n"]) -> list[str]:
    return [" ".join(map(str, row)) for row in tokens.tolist()]
