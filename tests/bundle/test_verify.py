"""Whatever is wrong with a bundle is found on opening, and the refusal names file and reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from playbill.bundle.manifest import FORMAT_VERSION, Manifest, State, decode_manifest, encode_manifest
from playbill.bundle.onnx_file import read_onnx
from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.policy import Policy, Surface, read_policy, write_policy
from playbill.bundle.verify import entries_of
from playbill.bundle.write import seal, set_state
from playbill.errors import BundleError
from playbill.features.vocabulary import Vocabulary, write_vocabularies


@pytest.fixture
def sealed(make_bundle) -> Path:
    path = make_bundle()
    set_state(path, State.EVALUATED)
    set_state(path, State.GATED)
    seal(path)
    return path


def reseal(path: Path, **changes: object) -> None:
    """Write a manifest that fits the files as they are now: what somebody would do who mixes parts of two bundles."""
    manifest = decode_manifest((path / "manifest.json").read_bytes())
    (path / "manifest.json").write_bytes(
        encode_manifest(msgspec.structs.replace(manifest, **{"files": entries_of(path), **changes}))
    )


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_anywhere_is_found(sealed: Path, data: st.DataObject):
    files = sorted(p for p in sealed.rglob("*") if p.is_file())
    file = data.draw(st.sampled_from(files))
    before = file.read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    damaged = bytearray(before)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(damaged)
    try:
        with pytest.raises(BundleError, match=file.relative_to(sealed).as_posix()):
            open_bundle(sealed)
    finally:
        file.write_bytes(before)


def test_every_file_once_flipped_cut_and_removed(sealed: Path):
    rng = np.random.default_rng(0)
    assert open_bundle(sealed).version == "v1"
    for file in sorted(p for p in sealed.rglob("*") if p.is_file()):
        before, name = file.read_bytes(), file.relative_to(sealed).as_posix()
        at = int(rng.integers(len(before)))
        for damaged in (before[:at] + bytes([before[at] ^ 0xFF]) + before[at + 1 :], before[:-1], b"", before + b"\n"):
            file.write_bytes(damaged)
            with pytest.raises(BundleError, match=name):
                open_bundle(sealed)
        file.unlink()
        with pytest.raises(BundleError, match=f"{name}: missing"):
            open_bundle(sealed)
        file.write_bytes(before)
    assert open_bundle(sealed).version == "v1"


def test_unknown_files_and_links(sealed: Path):
    (sealed / "more.json").write_text("{}")
    with pytest.raises(BundleError, match="more.json: not in manifest.json"):
        open_bundle(sealed)
    (sealed / "more.json").unlink()
    (sealed / "evil.pkl").write_text("")
    with pytest.raises(BundleError, match=r"evil.pkl: a bundle holds .* there, nothing else"):
        open_bundle(sealed)
    (sealed / "evil.pkl").unlink()
    (sealed / "popularity.npy").unlink()
    (sealed / "popularity.npy").symlink_to(sealed / "trending.npy")
    with pytest.raises(BundleError, match="popularity.npy: a link or special file"):
        open_bundle(sealed)


def test_formats(sealed: Path):
    reseal(sealed, format_version=FORMAT_VERSION + 1)
    with pytest.raises(
        BundleError, match=f"format {FORMAT_VERSION + 1}, this Playbill reads .* newer; upgrade Playbill"
    ):
        open_bundle(sealed)
    reseal_plain = (sealed / "manifest.json").read_text().replace(f": {FORMAT_VERSION + 1},", ": 0,", 1)
    (sealed / "manifest.json").write_text(reseal_plain)
    with pytest.raises(BundleError, match="format 0, .* older; export again"):
        open_bundle(sealed)
    (sealed / "manifest.json").write_text("[]")
    with pytest.raises(BundleError, match=r"manifest.json: not a manifest"):
        open_bundle(sealed)
    (sealed / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"manifest.json: missing, and no state.json either"):
        open_bundle(sealed)
    with pytest.raises(BundleError, match=r"no bundle at .*v9; there are: v1"):
        open_bundle(sealed.parent / "v9")


def test_a_listed_path_outside_the_folder(sealed: Path):
    manifest = decode_manifest((sealed / "manifest.json").read_bytes())
    entry = manifest.files["features.json"]
    for name in ("../v2/features.json", "/etc/passwd.json", "a//b.json", ".x.json"):
        forged = msgspec.structs.replace(manifest, files={**manifest.files, name: entry})
        (sealed / "manifest.json").write_bytes(encode_manifest(forged))
        with pytest.raises(BundleError, match="not a plain relative path"):
            open_bundle(sealed)


def test_a_vocabulary_of_another_run(sealed: Path):
    write_vocabularies({"item_genre": Vocabulary(["drama", "comedy"])}, sealed / "vocab")
    reseal(sealed)
    with pytest.raises(BundleError, match=r"vocab/: vocabulary 'item_genre' hashes to .* another training run"):
        open_bundle(sealed)
    (sealed / "vocab" / "item_genre.parquet").write_bytes(b"PAR1 no parquet at all PAR1")
    reseal(sealed)
    with pytest.raises(BundleError, match="vocab/: .*cannot be read"):
        open_bundle(sealed)


def test_a_spec_of_another_run(sealed: Path):
    text = (sealed / "features.json").read_text()
    (sealed / "features.json").write_text(text.replace('"history_length": 3', '"history_length": 4'))
    reseal(sealed)
    with pytest.raises(BundleError, match="features.json: hash .*belongs to another training run"):
        open_bundle(sealed)


def test_graphs_of_another_export(sealed: Path, make_bundle):
    other = make_bundle("v2")
    (sealed / "ranker.onnx").write_bytes((other / "ranker.onnx").read_bytes())
    reseal(sealed)
    with pytest.raises(BundleError, match="ranker.onnx: playbill_version is 'v2', expected 'v1'"):
        open_bundle(sealed)


def relabelled(path: Path, change) -> None:
    import onnx

    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def test_a_graph_of_another_spec(sealed: Path):
    import onnx

    labels = {"playbill_model": "item_tower", "playbill_version": "v1", "playbill_spec_hash": "0" * 64}
    relabelled(sealed / "item_tower.onnx", lambda m: onnx.helper.set_model_props(m, labels))
    reseal(sealed)
    with pytest.raises(BundleError, match="item_tower.onnx: playbill_spec_hash is '000"):
        open_bundle(sealed)


def test_another_signature(sealed: Path):
    def rename(model) -> None:
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 8

    relabelled(sealed / "query_tower.onnx", rename)
    reseal(sealed)
    with pytest.raises(BundleError, match=r"query_tower.onnx: outputs differ .* at 'query': .*\[?'B', 8"):
        open_bundle(sealed)


def test_a_graph_too_many(sealed: Path):
    (sealed / "extra.onnx").write_bytes((sealed / "ranker.onnx").read_bytes())
    reseal(sealed)
    with pytest.raises(BundleError, match="extra.onnx: the folder has graphs"):
        open_bundle(sealed)


def test_other_weights_fail_the_sample(sealed: Path):
    from onnx import numpy_helper

    def shift(model) -> None:
        table = numpy_helper.to_array(model.graph.initializer[0]) + np.float32(0.01)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))

    relabelled(sealed / "ranker.onnx", shift)
    reseal(sealed)
    with pytest.raises(BundleError, match=r"ranker.onnx: logit_interact differs from the stored sample by 4.00e-02"):
        open_bundle(sealed)
    assert open_bundle(sealed, verify=False).version == "v1"


@pytest.mark.parametrize("location", ["../../secret.data", "/etc/hostname", "nowhere.data"])
def test_weights_outside_the_folder(sealed: Path, location: str):
    from onnx import TensorProto

    def move(model) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    relabelled(sealed / "ranker.onnx", move)
    reseal(sealed)
    with pytest.raises(BundleError, match=r"ranker.onnx: keeps weights at .*not a file of this bundle; refused"):
        open_bundle(sealed)


def test_weights_hidden_in_a_node_are_seen_too(sealed: Path):
    import onnx
    from onnx import TensorProto

    def hide(model) -> None:
        tensor = TensorProto(name="x", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="../x.data")
        inner = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["x"], value=tensor)], "then", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner))

    relabelled(sealed / "ranker.onnx", hide)
    assert read_onnx(sealed / "ranker.onnx").outside == ["../x.data"]


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_confuse_the_graph_reader(tmp_path: Path, data: bytes):
    (tmp_path / "x.onnx").write_bytes(data)
    try:
        read_onnx(tmp_path / "x.onnx")
    except BundleError as error:
        assert "x.onnx" in str(error)


def test_objects_in_arrays_are_refused(sealed: Path):
    np.savez(sealed / "item_arrays.npz", item_genre=np.array([object()], dtype=object))
    reseal(sealed)
    with pytest.raises(BundleError, match=r"item_arrays.npz: cannot be read \(ValueError: Object arrays"):
        open_bundle(sealed)
    np.savez(sealed / "item_arrays.npz", item_genre=np.zeros(3, np.int64))
    reseal(sealed)
    with pytest.raises(BundleError, match="item_arrays.npz: item_genre has 3 rows, expected 6"):
        open_bundle(sealed)


def test_items_that_are_not_the_vocabulary(sealed: Path):
    import polars as pl

    items = pl.read_parquet(sealed / "items.parquet")
    items.with_columns(item_id=pl.col("item_id").reverse()).write_parquet(sealed / "items.parquet")
    reseal(sealed)
    with pytest.raises(BundleError, match=r"items.parquet: rows must be the item vocabulary in order"):
        open_bundle(sealed)


def test_rungs_that_disagree(sealed: Path):
    reseal(sealed, rungs=["popularity"])
    with pytest.raises(BundleError, match=r"rungs.json: carries \['item_knn', .* the bundle says \['popularity'\]"):
        open_bundle(sealed)


def test_without_a_runtime_the_rest_is_still_checked(sealed: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("playbill.bundle.open.find_spec", lambda name: None)
    assert open_bundle(sealed).unchecked == ["parity sample: onnxruntime is not installed"]
    reseal(sealed, spec_hash="1" * 64)
    with pytest.raises(BundleError, match="features.json: hash"):
        open_bundle(sealed)


def test_two_processes_open_at_once(sealed: Path):
    code = (
        "import sys; from playbill.bundle.open import open_bundle; b = open_bundle(sys.argv[1]);"
        "print(b.version, float(b.array('popularity').sum()), flush=True); sys.stdin.read()"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(sealed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    lines = [child.stdout.readline() for child in children if child.stdout]  # both hold it open now
    for child in children:
        child.communicate()
        assert child.returncode == 0
    bundle: Bundle = open_bundle(sealed)
    assert lines == [f"v1 {float(bundle.array('popularity').sum())}\n"] * 2


def test_policy():
    assert read_policy(write_policy(Policy(seed=7))).seed == 7
    assert Policy().surface("lobby") == Policy().surface("slate")
    with pytest.raises(BundleError, match=r"policy.json: .*unknown field `sed`"):
        read_policy(b'{"sed": 3}')
    with pytest.raises(BundleError, match=r"policy.surfaces.slate.diversity must be in 0\.\.1, got 3"):
        read_policy(b'{"surfaces": {"slate": {"diversity": 3}}}')
    with pytest.raises(BundleError, match="must hold 'slate'"):
        write_policy(Policy(surfaces={"home": Surface()}))
    with pytest.raises(BundleError, match=r"policy.fallbacks must be of"):
        write_policy(Policy(fallbacks=["full"]))
    with pytest.raises(BundleError, match=r"slate.quotas names knn_item, towr; the retrievers are tower, item_knn, "):
        write_policy(Policy(surfaces={"slate": Surface(quotas={"towr": 5, "ease": 5, "knn_item": 0})}))


def test_the_manifest_hides_nothing(sealed: Path):
    """Bytes that decode to the same manifest are refused too: the file is sealed, not its meaning."""
    text = (sealed / "manifest.json").read_bytes()
    assert isinstance(decode_manifest(text), Manifest)
    for changed in (text + b" ", text.replace(b'"rungs"', b'"extra": 1, "rungs"', 1)):
        with pytest.raises(BundleError, match="altered after sealing"):
            decode_manifest(changed)
