"""`make proof`: what takes hours, one step after the other; a step that is done for this commit is not run again.

    python tests/benchmarks/proof.py home=var            all steps
    python tests/benchmarks/proof.py home=var engine     one of them
    python tests/benchmarks/proof.py data=DIR            where the real logs lie; else PLAYBILL_SHARED_DATA
    python tests/benchmarks/proof.py peers=DIR           rivals' environments (peers/README.md); else they are left out

Results stand in tests/benchmarks/results/ as json with commit and machine, and are committed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from record import commit

HERE = Path(__file__).parent
PLAYBILL = [sys.executable, "-m", "playbill.cli"]


# what the simulated service and the instruments that read logs must show, in the order of what rests on what
STATEMENTS = ("fit", "world", "rehearsal", "ranking", "off_policy", "experiments", "experiment_reading")
STATEMENTS += ("uplift", "disparity", "drift", "ranker", "objectives", "creatives", "upworthy", "open_bandit")
# and what campaigns must
STATEMENTS += (
    "acts",
    "send_times",
    "subjects",
    "campaign_report",
    "offers_hillstrom",
    "offers_journey",
    "offers_world",
    "offers_joint",
)


# published protocols, what takes minutes before what takes hours
PROTOCOLS = [
    (name, effort)
    for effort in ("fast", "best")
    for name in (
        "ml-100k-leave-last-out",
        "ml-100k-global-time",
        "ml-1m-leave-last-out",
        "ml-1m-global-time",
        "amazon-toys-leave-last-out",
    )
]
RANKING_PROTOCOLS = ("ml-100k-likes-frozen", "ml-1m-likes-frozen", "ml-1m-likes-running", "trivago-clicks")


def steps(home: str, data: str, peers: str) -> dict[str, list[str]]:
    """Return the command of every step by name; benchmarks need the demo's bundle, so it comes first."""
    rectools, rechub = (f"peer={Path(peers) / name / 'bin' / 'python'}" for name in ("rectools", "rechub"))
    real = [f"data={data}"] if data else []
    kept = [*real, f"results={HERE / 'results'}"]
    return {
        "demo": [*PLAYBILL, "demo", f"home={home}"],
        # before anything else stages a bundle: the latest is the demo's
        "blend": [sys.executable, str(HERE / "proof_blend.py"), f"home={home}"],
        "gate": [sys.executable, str(HERE / "proof_gate.py"), f"home={home}"],
        **{
            f"reproduce-{n}-{e}": [*PLAYBILL, "reproduce", n, f"effort={e}", f"home={home}", *kept]
            for n, e in PROTOCOLS
        },
        **{f"reproduce-{n}": [*PLAYBILL, "reproduce", n, f"home={home}", *kept] for n in RANKING_PROTOCOLS},
        "training": [sys.executable, str(HERE / "bench_training.py"), f"home={home}"],
        "ranker-speed": [sys.executable, str(HERE / "bench_ranker.py"), f"home={home}", *([rechub] if peers else [])],
        "engine": [sys.executable, str(HERE / "bench_engine.py"), f"home={home}"],
        "http": [sys.executable, str(HERE / "bench_http.py"), f"home={home}"],
        "batch": [sys.executable, str(HERE / "bench_batch.py"), f"home={home}"],
        "serving": [sys.executable, str(HERE / "bench_serving.py"), f"home={home}"],
        "in-session": [sys.executable, str(HERE / "bench_in_session.py"), f"home={home}"],
        "anonymous": [sys.executable, str(HERE / "proof_anonymous.py"), f"home={home}"],
        "reasons": [sys.executable, str(HERE / "proof_reasons.py"), f"home={home}"],
        "choosing": [sys.executable, str(HERE / "bench_creatives.py")],
        "kill9": [sys.executable, str(HERE / "proof_kill9.py")],
        "campaign-kills": [sys.executable, str(HERE / "proof_campaign_kills.py"), f"home={home}"],
        "faults": [sys.executable, str(HERE / "proof_faults.py"), f"home={home}"],
        "swaps": [sys.executable, str(HERE / "proof_swaps.py"), f"home={home}"],
        "incremental": [sys.executable, str(HERE / "proof_incremental.py"), f"home={home}", *real],
        "scale": [sys.executable, str(HERE / "proof_scale.py"), f"home={home}"],
        "index": [sys.executable, str(HERE / "proof_index.py"), f"home={home}"],
        "index-10m": [
            sys.executable,
            str(HERE / "proof_index.py"),
            f"home={home}",
            "name=index-10m",
            "sizes=10000000",
            "widths=64",
            "kinds=auto",
            "rivals=",
        ],  # fmt: skip
        "shards": [sys.executable, str(HERE / "proof_shards.py"), f"home={home}"],
        "head-room": [sys.executable, str(HERE / "bench_head_room.py"), f"home={home}"],
        **{name: [sys.executable, str(HERE / f"proof_{name}.py"), f"home={home}", *real] for name in STATEMENTS},
        **_beside_rivals(home, peers, real, rectools),
    }


def _beside_rivals(home: str, peers: str, real: list[str], rectools: str) -> dict[str, list[str]]:
    """Return the steps that need others' code; none where there is none of it."""
    if not peers:
        return {}
    return {
        "training-speed": [sys.executable, str(HERE / "proof_training_speed.py"), f"home={home}", rectools, *real],
        "peers": [sys.executable, str(HERE / "proof_peers.py"), f"home={home}", f"peers={peers}", *real],
    }


def main(arguments: list[str]) -> int:
    """Run the named steps (all when none is named) and return 1 when one failed."""
    home = next((a.partition("=")[2] for a in arguments if a.startswith("home=")), "var")
    data = next((a.partition("=")[2] for a in arguments if a.startswith("data=")), "")
    peers = next((a.partition("=")[2] for a in arguments if a.startswith("peers=")), "")
    named = [a for a in arguments if "=" not in a]
    todo = steps(home, data, peers)
    unknown = set(named) - set(todo)
    if unknown:
        print(f"no step {', '.join(sorted(unknown))}; steps: {', '.join(todo)}", file=sys.stderr)
        return 2
    stamps = Path(home) / "proof" / commit()
    stamps.mkdir(parents=True, exist_ok=True)
    failed = []
    for number, (name, command) in enumerate(todo.items(), 1):
        stamp = stamps / name
        if named and name not in named:
            continue
        if stamp.exists() and not named:
            print(f"[{number}/{len(todo)}] {name}: done before ({stamp.read_text().strip()})", flush=True)
            continue
        print(f"[{number}/{len(todo)}] {name}: {' '.join(command[1:])}", flush=True)
        begin = time.perf_counter()
        if subprocess.run(command).returncode:
            failed.append(name)
            continue
        stamp.write_text(f"{time.perf_counter() - begin:.0f} s\n")
    if not peers:
        print("left out, without peers=DIR: training-speed, peers, and the rival of ranker-speed", flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "all steps done", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
