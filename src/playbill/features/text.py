"""Texts as vectors without any language model: hashed words, weighted by how rare they are, folded into a few numbers.

A text is the sum of its words' vectors, of unit length. A word's vector is kept by the word's hash, so nothing but
numbers is stored and any text of any language has a place; words that no training text had add nothing. Vectors are
learned from the texts of training items alone: words that occur in the same texts come to lie near each other.

Source: K. Weinberger et al., Feature Hashing for Large Scale Multitask Learning (2009), equation 1 (signed hashing);
S. Deerwester et al., Indexing by Latent Semantic Analysis (1990) (the fold: a truncated singular value decomposition).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import svds

from playbill.errors import FeatureError
from playbill.features.vocabulary import Vocabulary

if TYPE_CHECKING:
    import polars as pl

BUCKETS = 1 << 16
_MOST_WORDS = 1 << 14  # buckets that have a vector, the most frequent first
_MIN_TEXTS = 3  # a word of fewer texts says nothing of what they have in common
_MAX_SHARE = 0.5  # a word of more of the texts ("the", "and") says nothing of what sets one apart
_FIT_TEXTS = 100_000  # texts that vectors are learned from; more of them change little and take minutes
_BLOCK = 50_000  # texts turned into words at a time


def learn_words(texts: pa.Array, width: int) -> Vocabulary:
    """Return the buckets that are worth something, with what each adds to the vector of a text.

    Args:
        texts: [n] strings of items that may teach, null where there is none.
        width: numbers of a vector, fewer where the texts do not carry so many.
    Raises:
        FeatureError: the texts have too few words in common to learn anything from.
    """
    step = max(-(-len(texts) // _FIT_TEXTS), 1)
    counts = count_words(texts.take(pa.array(np.arange(0, len(texts), step))))
    seen = np.bincount(counts.indices, minlength=BUCKETS)
    num_texts = int((np.diff(counts.indptr) > 0).sum())
    kept = np.flatnonzero((seen >= _MIN_TEXTS) & (seen <= _MAX_SHARE * num_texts))
    kept = np.sort(kept[np.argsort(-seen[kept], kind="stable")][:_MOST_WORDS])
    width = min(width, len(kept) - 1, num_texts - 1)
    if width < 1:
        raise FeatureError(
            f"{num_texts} texts have {len(kept)} words that occur in {_MIN_TEXTS} of them or more and in no more than "
            f"{_MAX_SHARE:.0%}: too few to tell texts apart; take them out of features.text"
        )
    idf = np.log((1 + num_texts) / (1 + seen[kept]))
    weighted = counts[:, kept] @ diags(idf)
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    weighted = diags(1 / np.maximum(length, 1e-12)) @ weighted
    # a start that is given, not drawn: the same texts give the same vectors
    start = np.cos(np.arange(1, min(weighted.shape) + 1))
    _, size, words = svds(weighted.astype(np.float64), k=width, v0=start)
    words = words[np.argsort(-size, kind="stable")]
    largest = words[np.arange(len(words)), np.abs(words).argmax(1)]
    words = words * np.where(largest < 0, -1.0, 1.0)[:, None]  # the sign is a convention of the solver's
    return Vocabulary(pa.array(kept), (words.T * idf[:, None]).astype(np.float32))


def encode_texts(texts: pa.Array, words: Vocabulary, width: int) -> np.ndarray:
    """Return [n, width] float32 vectors of unit length; 0 where a text is missing or has no known word.

    Args:
        texts: [n] strings.
        words: of `learn_words`.
    Raises:
        FeatureError: the vocabulary is none of texts, or has another width.
    """
    if words.vectors is None or words.vectors.shape[1] != width:
        found = "no vectors" if words.vectors is None else f"vectors of {words.vectors.shape[1]}"
        raise FeatureError(f"a vocabulary with {found}, expected vectors of {width} numbers; export again")
    counts = count_words(texts)
    row = np.repeat(np.arange(len(texts)), np.diff(counts.indptr))
    index = words.indices(counts.indices.astype(np.int64))
    known = index > 0
    shape = (len(texts), len(words))
    vectors = csr_matrix((counts.data[known], (row[known], index[known] - 1)), shape) @ words.vectors
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return unit.astype(np.float32)


def join_texts(columns: Mapping[str, Any], names: Sequence[str], num_rows: int, between: str = " ") -> pa.Array:
    """Return [B] strings: the texts of these columns with `between` between, those that are missing left out.

    Args:
        columns: by name, [B] each: an Arrow column or a sequence; anything but a string is missing. Where all are
            missing the text is empty.
    """
    import polars as pl  # late: whoever only asks if a run is finished should not wait for it

    # polars: Arrow 26's own join leaves out the rows in which every part is missing
    frame = pl.DataFrame({name: _strings(columns.get(name), num_rows) for name in names})
    return frame.select(pl.concat_str(pl.all(), separator=between, ignore_nulls=True)).to_series().to_arrow()


def _strings(raw: Any, num_rows: int) -> pl.Series:
    import polars as pl  # late, as above

    if raw is None:
        return pl.Series([None] * num_rows, dtype=pl.String)
    if isinstance(raw, (pa.Array, pa.ChunkedArray)):
        return pl.Series(raw.cast(pa.string()), dtype=pl.String)
    return pl.Series([v if isinstance(v, str) else None for v in raw], dtype=pl.String)


def count_words(texts: pa.Array) -> csr_matrix:
    """Return [n, BUCKETS] float32: for each bucket the sign of its words' sum, times 1 + log of how many they are.

    The hash is BLAKE2b of the word in lower case and compatibility form: the same on every machine, for ever. Its
    lowest bits are the bucket, its highest the sign.
    """
    blocks = [_count(texts.slice(start, _BLOCK)) for start in range(0, max(len(texts), 1), _BLOCK)]
    data, indices, lengths = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return csr_matrix((data, indices, indptr), (len(texts), BUCKETS))


def _count(texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import polars as pl  # late, as above

    plain = pl.Series("text", texts, dtype=pl.String).str.normalize("NFKC").str.to_lowercase()
    lists = plain.str.extract_all(r"\w+").to_arrow()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    words = pc.list_flatten(lists).dictionary_encode()  # each word is hashed once
    codes = np.fromiter(map(_hash, words.dictionary.to_pylist()), np.uint64, len(words.dictionary))
    code = codes[words.indices.to_numpy()]
    sign = np.where(code >> np.uint64(63), 1.0, -1.0)
    cell = np.repeat(np.arange(len(texts)), lengths) * BUCKETS + (code % np.uint64(BUCKETS)).astype(np.int64)
    cells, place = np.unique(cell, return_inverse=True)
    total = np.bincount(place, sign, len(cells))
    cells, total = cells[total != 0], total[total != 0]
    data = np.sign(total) * (1 + np.log(np.abs(total)))
    return data.astype(np.float32), cells % BUCKETS, np.bincount(cells // BUCKETS, minlength=len(texts))


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
