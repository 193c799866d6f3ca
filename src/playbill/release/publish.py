"""`playbill publish`: make a sealed bundle the current one, and keep a record of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.box import SIMPLE_HEAD
from rich.table import Table

from playbill.bundle.manifest import State
from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.write import current, publish, seal, set_state, state_of
from playbill.errors import GateError
from playbill.release.bundles import encode, find_bundle, is_sealed, read_report
from playbill.release.gate_report import GateReport
from playbill.release.publication import RECORD, Publication, remember
from playbill.release.report import SERVED, Evaluation, wide_console
from playbill.release.settings import PublishSettings
from playbill.release.trial import Mode, Trial, begin, servers_know
from playbill.tables.files import write_atomic


class Forced(msgspec.Struct, kw_only=True):
    """`report/forced.json` of a bundle that was sealed without having passed its gate."""

    reason: str
    at: str
    state: str
    failed: list[str]


def run(settings: PublishSettings) -> None:
    """Publish, and print what changed against the bundle that was current.

    Raises:
        GateError: it did not pass the gate and force=true was not given.
        BundleError: its files do not verify.
    """
    console = wide_console()
    bundles = Path(settings.home) / "bundles"
    path = find_bundle(bundles, settings.bundle)
    previous = current(bundles)
    if previous == path.name:
        console.print(f"bundle {path.name} is the current one already: nothing to do")
        return
    gate = read_report(path, "gate", GateReport)
    objection = object_to(path, gate, previous, servers_know(bundles, path.name))
    if objection and not settings.force:
        raise GateError(
            f'bundle {path.name} {objection}, or go past it with force=true reason="...", which is recorded'
        )
    if not is_sealed(state_of(path)):
        _seal_by_force(path, gate, settings.reason)
    forced, rules = settings.reason if objection else "", gate.by() if gate else ""
    if settings.trial is not None:
        _try_out(settings, bundles, path.name, previous, forced, rules)
        return
    publish(bundles, path.name)
    remember(
        bundles,
        Publication(
            at=_now(), bundle=path.name, previous=previous, gate_passed=not objection, rules=rules, forced=forced
        ),
    )
    before = bundles / previous if previous and (bundles / previous).is_dir() else None
    console.print(changes(path, before))
    said = f", past its gate: {forced}" if forced else ""
    console.print(f"bundle {path.name} is the current one{said}", markup=False)


def object_to(path: Path, gate: GateReport | None, previous: str | None, known: bool) -> str:
    """Return why a bundle may not go out by itself, and what to do; empty where it may.

    Args:
        path: of the bundle; gate: what its gate found.
        previous: the bundle in use, which it must have been judged beside.
        known: servers were told of it, so that its figures stay what they are.
    """
    run = f"run `playbill gate bundle={path.name}`"
    if gate is None:
        return f"was not held against the gate; {run}"
    if not is_sealed(state_of(path)) or not gate.passed:
        return f"failed {', '.join(_failed(gate)) or 'nothing, but is not sealed'}; {run}"
    if gate.loosened():
        return (
            f"was judged by looser rules than those of conf/gate/ (rules: {gate.by()}); {run} by rules as they stand "
            "there, where a file of your own may stand too"
        )
    if previous is not None and gate.against != previous:
        said = f"was judged beside {gate.against or 'no other bundle'}, and {previous} is in use now; "
        if known:
            return f"{said}it was in use or tried before, so its figures stay; have a new one judged"
        return (
            f"{said}run `playbill evaluate bundle={path.name}`, which measures it beside that one, and `playbill gate`"
        )
    return ""


def _try_out(
    settings: PublishSettings, bundles: Path, version: str, previous: str | None, forced: str, rules: str
) -> None:
    """Ask the servers of this home to try a bundle beside the one in use."""
    if previous is None:
        raise GateError(f"nothing is in use that bundle {version} could be tried beside; publish it without trial=")
    open_bundle(bundles / version)  # every byte is verified before anybody is told
    trial = Trial(
        version=version,
        previous=previous,
        mode=Mode(str(settings.trial)),
        share=settings.share,
        least=settings.least,
        most_failed=settings.most_failed,
        slower=settings.slower,
        agree=settings.agree,
        minutes=settings.minutes,
        rules=rules,
        forced=forced,
    )
    begin(bundles, trial)
    wide_console().print(
        f"bundle {version} is to be tried beside {previous} ({trial.mode.value}, {100 * trial.share:g} %): a server "
        f"that runs from {settings.home} does so from the next second on; what came of it will stand in "
        f"{bundles / RECORD}",
        markup=False,
    )


def changes(new: Path, old: Path | None) -> Table:
    """Return what differs between two bundles: rungs, items, features, data, code, size and the measured figures."""
    after = _facts(open_bundle(new, verify=False), new)
    before = _facts(open_bundle(old, verify=False), old) if old else {}
    was = old.name if old else "nothing was published"
    grid = Table("", was, new.name, title="what changes", title_justify="left", box=SIMPLE_HEAD)
    for name, value in after.items():
        known = before.get(name, "")
        grid.add_row(name, known, value, style="bold" if known != value else "dim")
    return grid


def _facts(bundle: Bundle, path: Path) -> dict[str, str]:
    facts = {
        "rungs": ", ".join(bundle.rungs),
        "items": str(bundle.spec.num_items),
        "features": f"{len(bundle.spec.fields)} fields, spec {bundle.spec.hash()[:12]}",
        "data": bundle.manifest.dataset_fingerprint[:12],
        "exported": bundle.manifest.created_at,
        "code": bundle.manifest.code_version,
        "size_mb": f"{sum(f.stat().st_size for f in path.rglob('*') if f.is_file()) / 1e6:.1f}",
    }
    evaluation = read_report(path, "evaluation", Evaluation)
    served = evaluation.model(SERVED) if evaluation else None
    if evaluation and served and "all" in served.slices:
        for metric, found in served.slices["all"].metrics.items():
            if metric.startswith(("ndcg", "recall")):
                facts[f"{metric} on {evaluation.tables}"] = f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"
    return facts


def _seal_by_force(path: Path, gate: GateReport | None, reason: str) -> None:
    """Seal a bundle that did not pass; why stands in the bundle itself, below the seal."""
    state = state_of(path)
    forced = Forced(reason=reason, at=_now(), state=state.value, failed=_failed(gate) if gate else [])
    write_atomic(path / "report" / "forced.json", encode(forced))
    if state is State.STAGED:
        set_state(path, State.EVALUATED)
    set_state(path, State.GATED)
    seal(path)


def _failed(gate: GateReport) -> list[str]:
    return [rule.name for rule in gate.rules if rule.verdict == "failed"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
