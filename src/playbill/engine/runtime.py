"""Graphs in ONNX Runtime: one thread, no spinning, and the truth about where they run.

The only file of the engine that imports onnxruntime, and it does so late: a base installation has none.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from playbill.engine.settings import EngineSettings, Provider
from playbill.errors import ProviderError

log = logging.getLogger("playbill.engine")

_GPU = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"


class NoRuntime(Exception):
    """onnxruntime is not installed, or does not import. The engine goes on without graphs."""


@dataclass(slots=True)
class Model:
    """One graph, ready to run.

    Attributes:
        name: as in the bundle, such as `query_tower`.
        inputs: names of the arrays it takes.
        outputs: names of the arrays it gives.
        provider: the execution provider that the session really has first, `session.get_providers()`.
    """

    name: str
    session: Any
    inputs: list[str]
    outputs: list[str]
    provider: str

    @property
    def device(self) -> str:
        return "gpu" if self.provider == _GPU else "cpu"

    def run(self, arrays: dict[str, np.ndarray], outputs: list[str], within_s: float | None = None) -> list[np.ndarray]:
        """Return the named outputs; arrays that the graph does not take are left out.

        Args:
            within_s: not heeded: what runs here is not broken off.
        """
        answers: list[np.ndarray] = self.session.run(outputs, {name: arrays[name] for name in self.inputs})
        return answers


def open_model(path: Path, settings: EngineSettings) -> Model:
    """Return the graph in a file.

    Raises:
        NoRuntime: onnxruntime cannot be imported.
        ProviderError: `require_gpu`, and the session runs on the CPU; says what is there.
    """
    ort = _runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = settings.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    there = ort.get_available_providers()
    wanted = [p for p in (_GPU, _CPU) if p in there and not (p == _GPU and settings.provider is Provider.cpu)]
    if _GPU in wanted:
        ort.preload_dlls()  # the CUDA libraries that came as packages, which the loader does not look for
    # never more than is available: asking for an absent provider is only a warning, and a silent fallback
    session = ort.InferenceSession(str(path), options, providers=wanted)
    provider = session.get_providers()[0]
    if provider != _GPU:
        lacking = f"{path.name} runs on {provider}; the installed onnxruntime {ort.__version__} offers {there}"
        if settings.require_gpu:
            raise ProviderError(f"a GPU is required, and {lacking}; install the CUDA lock, or drop require_gpu")
        if settings.provider is Provider.cuda or _GPU in wanted:
            log.warning("wanted a GPU: %s", lacking)
    return Model(
        name=path.stem,
        session=session,
        inputs=[i.name for i in session.get_inputs()],
        outputs=[o.name for o in session.get_outputs()],
        provider=provider,
    )


def _runtime() -> Any:
    try:
        import onnxruntime
    except Exception as error:  # a broken build fails with OSError or its own classes, not only ImportError
        raise NoRuntime(f"onnxruntime cannot be imported ({error})") from error
    return onnxruntime
