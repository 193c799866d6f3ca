"""The image files are linted by hadolint, and name only what exists. No image was ever built: no engine runs here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted(p.name for p in (ROOT / "docker").glob("*.Dockerfile"))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists() and not shutil.which("hadolint"):
        pytest.skip("hadolint is not installed (it is in the dev lock)")
    done = subprocess.run(
        [linter if linter.exists() else "hadolint", ROOT / "docker" / name], capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stdout, done.stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_everything_copied_exists_and_passes_the_ignore_file(name: str) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in (ROOT / "docker" / name).read_text().splitlines():
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
                assert any(Path(source).match(pattern) for pattern in allowed), f"{source} is kept out by .dockerignore"


def test_compose_names_files_and_services_that_exist() -> None:
    from omegaconf import OmegaConf  # the yaml reader that is here anyway

    compose = OmegaConf.to_container(OmegaConf.load(ROOT / "docker/compose.yaml"))
    assert isinstance(compose, dict)
    for service in compose["services"].values():
        build = service.get("build")
        if build is None:  # somebody else's image, of a version that is named
            assert ":" in service["image"]
        else:
            assert (ROOT / "docker" / build["context"] / build["dockerfile"]).is_file()
        for volume in service["volumes"]:
            named = volume.partition(":")[0]
            assert named in compose["volumes"] or (named.startswith("./") and (ROOT / "docker" / named).is_dir())
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), "published on loopback only"
