"""A bundle is named: a name that leads out of `bundles` opens nothing, though a good bundle lies there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from playbill.bundle.open import open_bundle
from playbill.cli import main
from playbill.errors import BundleError
from playbill.serving import load


@pytest.fixture(scope="module")
def trap(sealed_home: Path, versions: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home beside whose `bundles` lies a folder `outside` that opens as a sealed bundle, and one of a name in it."""
    home = tmp_path_factory.mktemp("trap")
    shutil.copytree(sealed_home / "bundles", home / "bundles")
    shutil.copytree(sealed_home / "state", home / "state")
    (home / "tables").symlink_to(sealed_home / "tables")
    shutil.copytree(sealed_home / "bundles" / versions[1], home / "outside")
    shutil.copytree(sealed_home / "bundles" / versions[1], home / "bundles" / ".hidden")
    open_bundle(home / "outside")
    return home


def names(trap: Path, versions: list[str]) -> list[str]:
    return [
        "../outside", "./../outside", f"{versions[0]}/../../outside", f"{versions[0]}/../{versions[0]}",
        str(trap / "outside"),
        ".hidden", f"{versions[0]}/", f"./{versions[0]}", "..", ".", "", "~", "%2e%2e/outside", "..\\outside",
        f"{versions[0]}\n", f"{versions[0]}\0", "a" * 101, "ｖ１",
    ]  # fmt: skip


def test_a_path_is_no_version(trap: Path, versions: list[str]) -> None:
    assert load.bundle_path(trap, versions[0]).is_dir()
    for name in names(trap, versions):
        with pytest.raises(BundleError, match="bad bundle version"):
            load.bundle_path(trap, name)


@pytest.mark.parametrize(
    "job",
    [
        ["serve", "detach=true"], ["batch"], ["evaluate"], ["gate"], ["publish"], ["blend"],
        ["evaluate", "against"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_job_opens_one_by_its_path(
    job: list[str], trap: Path, versions: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    field = job[1] if job[-1] == "against" else "bundle"
    more = [a for a in job[1:] if "=" in a] + ([f"bundle={versions[0]}"] if field == "against" else [])
    before = {f: f.stat().st_mtime_ns for f in (trap / "outside").rglob("*")}
    for name in ("../outside", str(trap / "outside"), f"{versions[0]}/../../outside", ".hidden"):
        code = main([job[0], f"home={trap}", f"{field}={name}", *more])
        said = capsys.readouterr().err
        assert code in (1, 2) and name in said, (code, said)
    assert {f: f.stat().st_mtime_ns for f in (trap / "outside").rglob("*")} == before
    assert (
        not (trap / "serve.json").exists()
        and not list(trap.rglob("*.parquet.tmp"))
        and not list(trap.glob("batch/*/*"))
    )


@pytest.mark.parametrize("pointer", ["../outside", "/etc", ".hidden", "current", ""])
def test_a_pointer_that_was_tampered_with_leads_nowhere(pointer: str, trap: Path) -> None:
    file = trap / "bundles" / "current"
    good = file.read_bytes()
    try:
        file.write_text(pointer)
        with pytest.raises(BundleError, match="bad bundle version"):
            load.bundle_path(trap, "current")
    finally:
        file.write_bytes(good)
