"""What every model must beat: popularity, and nearest neighbours of items."""

from __future__ import annotations

import itertools
from typing import Protocol

import numpy as np
from scipy import sparse


class Scorer(Protocol):
    """Scores the whole catalogue for one user."""

    def scores(self, history: np.ndarray) -> np.ndarray:
        """Shapes: history (H,) dense item indices, result (N,)."""
        ...


class Popularity:
    """Scores an item by how many users engaged with it. Shapes: count_N (N,)."""

    def __init__(self, count_N: np.ndarray) -> None:
        self._count_N = count_N

    def scores(self, history: np.ndarray) -> np.ndarray:
        """The same for everyone."""
        return self._count_N


class ItemKnn:
    """Sums the cosine similarity of an item to those in the history, over its nearest ones.

    Source: Sarwar et al. 2001; shrinkage as in Bell and Koren 2007.
    """

    def __init__(
        self, interactions_UN: sparse.csr_matrix, *, neighbours: int = 100, shrinkage: float = 10.0
    ) -> None:
        binary_UN = _binary(interactions_UN)
        shared_NN = (binary_UN.T @ binary_UN).tocsr()
        shared_NN.setdiag(0)
        shared_NN.eliminate_zeros()
        norm_N = np.sqrt(np.asarray(binary_UN.sum(axis=0)).ravel())
        rows, columns = shared_NN.nonzero()
        shared_NN.data = shared_NN.data / (norm_N[rows] * norm_N[columns] + shrinkage)
        self._similarity_NN = _nearest(shared_NN, neighbours)

    def scores(self, history: np.ndarray) -> np.ndarray:
        """Shapes: history (H,), result (N,)."""
        return np.asarray(self._similarity_NN[history].sum(axis=0)).ravel()


def _binary(interactions_UN: sparse.csr_matrix) -> sparse.csr_matrix:
    return sparse.csr_matrix(
        (
            (interactions_UN.data > 0).astype(np.float64),
            interactions_UN.indices,
            interactions_UN.indptr,
        ),
        shape=interactions_UN.shape,
    )


def _nearest(similarity_NN: sparse.csr_matrix, neighbours: int) -> sparse.csr_matrix:
    for start, end in itertools.pairwise(similarity_NN.indptr):
        if end - start > neighbours:
            values = similarity_NN.data[start:end]
            values[np.argpartition(values, -neighbours)[:-neighbours]] = 0
    similarity_NN.eliminate_zeros()
    return similarity_NN
