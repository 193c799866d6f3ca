"""What must hold before a bundle is used: files, spec, vocabularies, graphs, and the answers the graphs gave at export.

Each check raises a BundleError that names the file and the reason.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from playbill.bundle.answers import ANSWERS_FILES, NAME
from playbill.bundle.manifest import MANIFEST, STATE, FileEntry, Manifest, check_name
from playbill.bundle.onnx_file import read_onnx
from playbill.bundle.rungs import RUNG_FILES
from playbill.errors import BundleError, FeatureError
from playbill.features.spec import FeatureSpec, read_spec
from playbill.features.vocabulary import Vocabulary, read_vocabularies
from playbill.tables.files import sha256_file

# metadata_props that export writes into every graph
LABEL_VERSION, LABEL_SPEC, LABEL_MODEL = "playbill_version", "playbill_spec_hash", "playbill_model"

# The sample was answered on another machine, whose kernels add in another order: seen differences stay below 1e-5 on
# values around 1. A graph with other weights is off by far more.
SAMPLE_ATOL = 1e-4
SAMPLE_RTOL = 1e-4

NEEDED = ("features.json", "items.parquet", "item_arrays.npz", "policy.json", "rungs.json")


def files_of(path: Path) -> dict[str, Path]:
    """Return every file under a bundle folder by its relative path, manifest and state left out.

    Raises:
        BundleError: a link, a special file, or a file of a kind that a bundle never holds.
    """
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(path):
        for name in [*folders, *names]:
            file = Path(folder, name)
            relative = file.relative_to(path).as_posix()
            if file.is_symlink() or not (file.is_dir() or file.is_file()):
                raise BundleError(f"{relative}: a link or special file; a bundle holds plain files")
            if name in names and relative not in (MANIFEST, STATE):
                found[check_name(relative)] = file
    return dict(sorted(found.items()))


def entries_of(path: Path) -> dict[str, FileEntry]:
    """Return size and checksum of every file, for the manifest."""
    return {
        name: FileEntry(size_bytes=file.stat().st_size, sha256=sha256_file(file))
        for name, file in files_of(path).items()
    }


def check_files(path: Path, manifest: Manifest, *, checksums: bool) -> None:
    """Check that exactly the listed files are there, with their sizes and, if asked, every byte of them."""
    found = files_of(path)
    missing, extra = sorted(manifest.files.keys() - found), sorted(found.keys() - manifest.files)
    if missing:
        raise BundleError(f"{missing[0]}: missing ({len(missing)} files in all); fetch or export the bundle again")
    if extra:
        raise BundleError(f"{extra[0]}: not in {MANIFEST} ({len(extra)} files in all); a sealed bundle does not grow")
    for name, entry in manifest.files.items():
        size = found[name].stat().st_size
        if size != entry.size_bytes:
            raise BundleError(f"{name}: {size} bytes, {MANIFEST} says {entry.size_bytes}; fetch or export it again")
        if checksums and (got := sha256_file(found[name])) != entry.sha256:
            raise BundleError(
                f"{name}: sha256 {got[:12]}..., {MANIFEST} says {entry.sha256[:12]}...: altered or damaged; "
                "fetch or export the bundle again"
            )


def check_needed(path: Path, manifest: Manifest) -> None:
    """Check that the files of every bundle, and of every rung that this one claims, are there."""
    for name in NEEDED:
        if not (path / name).is_file():
            raise BundleError(f"{name}: missing; every bundle holds it: export again")
    for rung in manifest.rungs:
        for name in RUNG_FILES.get(rung, ()):
            if not (path / name).is_file():
                raise BundleError(f"{name}: missing, though the bundle says it carries {rung!r}; export again")
    for name in ANSWERS_FILES if NAME in manifest.models else ():
        if not (path / name).is_file():
            raise BundleError(f"{name}: missing, though the bundle says it carries a model of answers; export again")


def check_retrievers(path: Path, manifest: Manifest, num_items: int) -> None:
    """Check that the file of each retriever is there and of this catalogue: a row for every item, and only numbers.

    Whether what stands in a row can be used is seen by the engine, which leaves a retriever out and says why.
    """
    for name, file in (manifest.retrievers or {}).items():
        if not (path / file).is_file():
            raise BundleError(f"{file}: missing, though the bundle says that {name!r} stands on it; export again")
        if not file.endswith(".npz"):
            continue  # rows of a .npy are counted where it is mapped
        arrays = read_arrays(path / file)
        rows = len(arrays["indptr"]) - 2 if "indptr" in arrays else len(arrays.get("item_factors", ())) - 1
        if rows != num_items:
            raise BundleError(
                f"{file}: {max(rows, 0)} items, the catalogue has {num_items}: of another export, or no retriever's; "
                "export again"
            )


def check_features(path: Path, manifest: Manifest) -> tuple[FeatureSpec, dict[str, Vocabulary]]:
    """Return spec and vocabularies, each checked against its hash."""
    try:
        spec = read_spec((path / "features.json").read_bytes())
    except FeatureError as error:
        raise BundleError(f"features.json: {error}") from error
    if spec.hash() != manifest.spec_hash:
        raise BundleError(
            f"features.json: hash {spec.hash()[:12]}, the bundle says {manifest.spec_hash[:12]}; it belongs to another "
            "training run: export again"
        )
    try:
        return spec, read_vocabularies(path / "vocab", spec.vocabularies)
    except FeatureError as error:
        raise BundleError(f"vocab/: {error}") from error
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"vocab/: cannot be read ({error}); export again") from error


def check_graphs(path: Path, manifest: Manifest) -> None:
    """Check that each graph is the one the manifest describes, of this bundle and spec, with its weights inside."""
    graphs = {file.stem for file in path.glob("*.onnx")}
    if graphs != set(manifest.models):
        odd = sorted(graphs ^ set(manifest.models))[0]
        raise BundleError(
            f"{odd}.onnx: the folder has graphs {sorted(graphs)}, the bundle names {sorted(manifest.models)}"
        )
    for name, signature in manifest.models.items():
        file = f"{name}.onnx"
        graph = read_onnx(path / file)
        for location in graph.outside:
            inside = PurePosixPath(location)
            if inside.is_absolute() or ".." in inside.parts or "\\" in location or not (path / inside).is_file():
                raise BundleError(f"{file}: keeps weights at {location!r}, which is not a file of this bundle; refused")
        expected = {LABEL_MODEL: name, LABEL_VERSION: manifest.version, LABEL_SPEC: manifest.spec_hash}
        for label, value in expected.items():
            if (got := graph.labels.get(label)) != value:
                raise BundleError(
                    f"{file}: {label} is {got!r}, expected {value!r}: a graph of another export; export again"
                )
        for part in ("inputs", "outputs"):
            has, says = getattr(graph.signature, part), getattr(signature, part)
            if list(has.items()) != list(says.items()):
                odd = next((n for n in [*says, *has] if has.get(n) != says.get(n)), "order")
                raise BundleError(
                    f"{file}: {part} differ from the bundle's signature at {odd!r}: the graph has {has.get(odd)}, "
                    f"expected {says.get(odd)}; export again"
                )


def check_sample(path: Path, manifest: Manifest) -> None:
    """Run every graph on the stored sample and compare with the answers it gave at export.

    Raises:
        BundleError: an answer is off by more than SAMPLE_ATOL + SAMPLE_RTOL * |value|.
        ModuleNotFoundError: onnxruntime is not installed.
    """
    import onnxruntime as ort

    sample = read_arrays(path / "parity.npz")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for name, signature in manifest.models.items():
        try:
            inputs = {i: sample[f"{name}/in/{i}"] for i in signature.inputs}
            expected = {o: sample[f"{name}/out/{o}"] for o in signature.outputs}
        except KeyError as error:
            raise BundleError(f"parity.npz: has no {error}; export again") from None
        try:
            session = ort.InferenceSession(str(path / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
            answers = session.run(list(expected), inputs)
        except Exception as error:  # onnxruntime raises its own classes, straight below Exception
            raise BundleError(f"{name}.onnx: does not run ({str(error).splitlines()[0]}); export again") from error
        for output, answer in zip(expected, answers, strict=True):
            if answer.shape != expected[output].shape or not np.allclose(
                answer, expected[output], rtol=SAMPLE_RTOL, atol=SAMPLE_ATOL
            ):
                raise BundleError(
                    f"{name}.onnx: {output} differs from the stored sample {_distance(answer, expected[output])}, "
                    f"allowed {SAMPLE_ATOL} + {SAMPLE_RTOL} x value; runtime or graph is not the one that was exported"
                )


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file; objects are refused, so that reading runs nothing.

    Raises:
        BundleError: missing, damaged, or holding anything but plain arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (
        Exception
    ) as error:  # a damaged zip raises whatever its decoder meets: BadZipFile, zlib.error, ValueError, ...
        raise BundleError(f"{path.name}: cannot be read ({type(error).__name__}: {error}); export again") from error


def check_arrays(arrays: Mapping[str, np.ndarray], spec: FeatureSpec) -> None:
    """Check that item_arrays.npz has one row for each item_index, the unknown one included."""
    for name, array in arrays.items():
        if len(array) != spec.num_items + 1:
            raise BundleError(
                f"item_arrays.npz: {name} has {len(array)} rows, expected {spec.num_items + 1}, the items and the "
                "unknown one; export again"
            )


def _distance(answer: np.ndarray, expected: np.ndarray) -> str:
    if answer.shape != expected.shape:
        return f"in shape ({answer.shape} instead of {expected.shape})"
    return f"by {float(np.max(np.abs(answer - expected))):.2e}"
