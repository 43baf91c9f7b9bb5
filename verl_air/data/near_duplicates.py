"""Near-duplicate texts, found cheaply: MinHash over word sets proposes pairs, the exact Jaccard index decides.

Two texts are near-duplicates if their sets of words, case and punctuation apart, overlap by at least ``THRESHOLD`` of
their union (Jaccard). Comparing all pairs is quadratic, so each text gets 64 minima of random hashes of its words in 16
bands of four (Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3): a pair of Jaccard index s agrees in
some band with probability ``1 - (1 - s^4)^16``, which is 0.99 at 0.7 and 0.9998 at 0.8. What agrees is compared
exactly, so nothing is reported wrongly and few pairs are missed: of pairs at 0.7 at least 97 % are found (98.8 % by the
formula; tests/data/test_splits.py measures it).

Between two sides, every text of one meets every text of the other in their buckets, whatever the order. Without sides a
text of a crowded bucket is compared with a few of its texts only; clusters link the others. At most a million pairs are
compared, between two sides the least crowded buckets first; what is left out is counted and reported. Agreement in all
bands makes a bucket too, so that equal word sets are found among many similar ones.

Our own and not datasketch: on 100,000 texts (GSM8K's sentences, recombined) it takes 278 s and 1.12 GiB, this 9 s and
0.85 GiB; on 10,000 texts of one template 50 s, this 2 s. Without sides, recall is 92 % of datasketch's pairs.

Axes: Z texts, T words of all texts, B buckets of all bands, P pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

THRESHOLD = 0.7
_BANDS, _HASHES_PER_BAND = 16, 4
_NEIGHBOURS = 4  # each text of a crowded bucket is compared with its first text and with this many after it
_PAIRS_AT_ONCE = 20_000
_MAX_CANDIDATES = 1_000_000  # bounds the time on files whose texts are all alike


def near_duplicates(
    texts: Sequence[str],
    side_Z: np.ndarray | None = None,
    *,
    threshold: float = THRESHOLD,
    warnings: list[str] | None = None,
) -> list[tuple[int, int, float]]:
    """Pairs ``(i, j, similarity)`` with ``i < j``, most similar first.

    Args:
        texts: [Z].
        side_Z: two sides; if given, only pairs whose sides differ count, e.g. training and held out.
        threshold: the least Jaccard index of a pair.
        warnings: receives a sentence if there are more candidates than are compared.
    """
    if len(texts) < 2:
        return []
    word_T, hash_T, offsets = _hashed_words(texts)
    pair_P2, left_out = _candidates(hash_T, offsets, side_Z)
    if left_out and warnings is not None:
        warnings.append(
            f"near-duplicates may have been missed: up to {left_out:,} pairs of texts that share many words were not "
            f"compared (the limit is {_MAX_CANDIDATES:,} pairs)"
        )
    similarity_P = _jaccard(word_T, offsets, pair_P2)
    near_P = similarity_P >= threshold
    found = zip(*pair_P2[near_P].T.tolist(), similarity_P[near_P].tolist(), strict=True)
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))


def clusters(texts: Sequence[str], *, threshold: float = THRESHOLD, warnings: list[str] | None = None) -> np.ndarray:
    """[Z]: for each text the smallest number of a text that it is linked to through near-duplicates."""
    parent = list(range(len(texts)))

    def root(z: int) -> int:
        while parent[z] != z:
            parent[z] = parent[parent[z]]
            z = parent[z]
        return z

    for i, j, _ in near_duplicates(texts, threshold=threshold, warnings=warnings):
        low, high = sorted((root(i), root(j)))
        parent[high] = low
    return np.array([root(z) for z in range(len(texts))], dtype=np.int64)


def _hashed_words(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers and hashes of all words in a row [T], and where each text's words begin [Z + 1].

    A text without words has one, the empty one.
    """
    plain = pc.replace_substring_regex(pc.utf8_lower(pa.array(texts, pa.large_string())), r"[^\p{L}\p{N}]+", " ")
    split = pc.split_pattern(pc.utf8_trim_whitespace(plain), " ")
    encoded = pc.dictionary_encode(split.flatten())
    digests = b"".join(
        hashlib.blake2b(word.encode(), digest_size=8).digest() for word in encoded.dictionary.to_pylist()
    )
    word_T = encoded.indices.to_numpy()
    return word_T, np.frombuffer(digests, dtype="<u8")[word_T], split.offsets.to_numpy().astype(np.int64)


def _jaccard(word_T: np.ndarray, offsets: np.ndarray, pair_P2: np.ndarray) -> np.ndarray:
    """Words that the two texts of a pair share over all words of both, [P]."""
    shape = (len(offsets) - 1, int(word_T.max()) + 1)
    has_word = sparse.csr_array((np.ones(len(word_T), dtype=np.int32), word_T, offsets), shape=shape)
    has_word.sum_duplicates()
    has_word.data[:] = 1
    size_Z = np.diff(has_word.indptr)
    chunks = np.array_split(pair_P2, len(pair_P2) // _PAIRS_AT_ONCE + 1)
    shared_P = np.concatenate([(has_word[pair[:, 0]] * has_word[pair[:, 1]]).sum(axis=1) for pair in chunks])
    both_P = size_Z[pair_P2].sum(axis=1) - shared_P
    return np.asarray(shared_P / both_P)


def _candidates(hash_T: np.ndarray, offsets: np.ndarray, side_Z: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Pairs that agree in some band, [P, 2], each once, and how many more there are, counted in each band."""
    keys = list(_band_keys(hash_T, offsets))
    if side_Z is not None:
        return _pairs_across(keys, side_Z != side_Z[0])
    i_P, j_P = np.concatenate([_pairs_in_band(key_Z) for key_Z in keys]).T
    distinct = _distinct(i_P, j_P, len(offsets) - 1)
    left_out = max(0, len(distinct) - _MAX_CANDIDATES)
    if left_out:
        distinct = distinct[np.linspace(0, len(distinct) - 1, _MAX_CANDIDATES, dtype=np.int64)]
    return distinct, left_out


def _pairs_across(keys: Sequence[np.ndarray], other_Z: np.ndarray) -> tuple[np.ndarray, int]:
    """All pairs of a text of one side and one of the other in a bucket, the least crowded buckets first."""
    starts, sizes, members = [], [], []  # of each bucket in each band: first place and number of texts, per side
    for band, key_Z in enumerate(keys):
        order = np.lexsort((other_Z, key_Z))
        start = np.flatnonzero(np.r_[True, np.diff(key_Z[order]) != 0])
        size = np.diff(np.r_[start, len(order)])
        n_other = np.add.reduceat(other_Z[order].astype(np.int64), start)
        both = (n_other > 0) & (n_other < size)
        starts.append(start[both] + band * len(key_Z))
        sizes.append(np.stack([size - n_other, n_other], axis=1)[both])
        members.append(order)
    start_B, size_B2, member = np.concatenate(starts), np.concatenate(sizes), np.concatenate(members)
    n_pairs_B = size_B2.prod(axis=1)
    by_size = np.argsort(n_pairs_B, kind="stable")
    within = np.cumsum(n_pairs_B[by_size]) <= _MAX_CANDIDATES
    chosen, left_out = by_size[within], int(n_pairs_B[by_size[~within]].sum())
    n_pairs = n_pairs_B[chosen]
    bucket_P = np.repeat(chosen, n_pairs)
    number_P = np.arange(len(bucket_P)) - np.repeat(np.cumsum(n_pairs) - n_pairs, n_pairs)
    first_P, n_first_P = start_B[bucket_P], size_B2[bucket_P, 0]
    i, j = member[first_P + number_P % n_first_P], member[first_P + n_first_P + number_P // n_first_P]
    return _distinct(np.minimum(i, j), np.maximum(i, j), len(other_Z)), left_out


def _distinct(i_P: np.ndarray, j_P: np.ndarray, n_texts: int) -> np.ndarray:
    """Each pair once, [P, 2], sorted; as one number per pair: numpy sorts rows slowly, and ``unique`` hashes first."""
    number_P = np.sort(i_P * n_texts + j_P)
    return np.stack(np.divmod(number_P[np.diff(number_P, prepend=-1) > 0], n_texts), axis=1)


def _band_keys(hash_T: np.ndarray, offsets: np.ndarray) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    all_Z = np.zeros(len(offsets) - 1, dtype=np.uint64)
    for _ in range(_BANDS):
        key_Z = np.zeros(len(offsets) - 1, dtype=np.uint64)
        for odd in rng.integers(0, 2**63, size=_HASHES_PER_BAND, dtype=np.uint64) * np.uint64(2) + np.uint64(1):
            mixed_T = (hash_T ^ (hash_T >> np.uint64(29))) * odd
            minimum_Z = np.minimum.reduceat(mixed_T ^ (mixed_T >> np.uint64(32)), offsets[:-1])
            key_Z = (key_Z ^ minimum_Z) * np.uint64(0x9E3779B97F4A7C15)
        all_Z = (all_Z ^ key_Z) * np.uint64(0x9E3779B97F4A7C15)
        yield key_Z
    yield all_Z


def _pairs_in_band(key_Z: np.ndarray) -> np.ndarray:
    order = np.argsort(key_Z, kind="stable")
    sorted_key = key_Z[order]
    starts = np.flatnonzero(np.r_[True, sorted_key[1:] != sorted_key[:-1]])
    position = np.arange(len(order))
    left, right = [np.repeat(starts, np.diff(np.r_[starts, len(order)]))], [position]
    for step in range(1, _NEIGHBOURS + 1):
        same = sorted_key[step:] == sorted_key[:-step]
        left.append(position[:-step][same])
        right.append(position[step:][same])
    i, j = order[np.concatenate(left)], order[np.concatenate(right)]
    return np.sort(np.stack([i, j], axis=1)[i != j], axis=1)
