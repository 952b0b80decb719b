"""What chance reaches: the mean of a metric over all orders of the candidates, without drawing one.

It is the floor where popularity has nothing to say, as of items that nobody has met yet.
"""

from __future__ import annotations

import numpy as np


def ndcg_at_k(num_candidates_B: np.ndarray, num_relevant_B: np.ndarray, k: int) -> np.ndarray:
    """Expected NDCG@k: every place holds a relevant item as often as any other does.

    Shapes: (B,) each; at least one relevant item among each reader's candidates.
    """
    gain_K = np.append(0.0, np.cumsum(1.0 / np.log2(np.arange(2, k + 2))))
    best_B = gain_K[np.minimum(num_relevant_B, k)]
    reached_B = gain_K[np.minimum(num_candidates_B, k)]
    return reached_B * num_relevant_B / num_candidates_B / best_B


def recall_at_k(num_candidates_B: np.ndarray, num_relevant_B: np.ndarray, k: int) -> np.ndarray:
    """Expected recall@k: the share of the candidates that is shown. Shapes: (B,) each."""
    return np.minimum(num_candidates_B, k) / num_candidates_B
