"""Two numbers of whole sets: how far two clouds of features lie apart, and how sure and how varied classes are.

n samples, D features, K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def frechet_distance(ours: Array, real: Array) -> float:
    """The Frechet distance of the Gaussians that have the means and covariances of two sets of features.

    ``|m - m'|^2 + tr(C) + tr(C') - 2 tr(sqrt(C C'))`` (Heusel et al., arXiv 1706.08500). No square root of a matrix is
    taken: with covariances ``A^T A`` and ``B^T B``, its trace is the sum of the singular values of ``A B^T``, which is
    exact for singular covariances as well, those of fewer samples than features.

    Args:
        ours, real: (n, D) and (n', D), two samples or more each.
    """
    a, b = _root_of_covariance(ours), _root_of_covariance(real)
    apart = np.square(ours.mean(axis=0) - real.mean(axis=0)).sum()
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    # Rounding may leave a little less than nothing of two equal sets.
    return max(float(apart + np.square(a).sum() + np.square(b).sum() - 2 * shared), 0.0)


def _root_of_covariance(features: Array) -> Array:
    """A, (at most D, D), with the covariance ``A^T A``."""
    root = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(root, mode="r"))


def inception_score(logits: Array) -> float:
    """exp of the mean divergence of a sample's classes from those of all: 1 to K (Salimans et al., arXiv 1606.03498).

    Args:
        logits: (n, K); the whole set is one split.
    """
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    all_p = p.mean(axis=0)
    log_all = np.log(np.maximum(all_p, np.finfo(float).tiny))
    return float(np.exp((p * (log_p - log_all)).sum(axis=1).mean()))
