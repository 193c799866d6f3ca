#!/usr/bin/env bash
# Writes the locks: every package of one kind of machine, pinned, to be installed with `pip install --no-deps -r`.
# Needs uv. `--no-deps` over a full lock is how torchrec's CUDA-only metadata is kept out of a CPU machine.
#   docker/lock.sh          all locks
# The CPU locks drop the CUDA libraries that the plain torch wheel would ask for. A CPU wheel of torch is taken at install time wherever pip sees one (its local version sorts above the plain one), so the
# locks say `torch==2.13.0` without `+cpu`.
set -euo pipefail
cd "$(dirname "$0")/.."

lock() { # lock NAME EXTRA...
  local name=$1 extras=() drop='^$'
  shift
  [[ " $* " == *" cuda "* ]] || drop='^(nvidia-|cuda-|triton==)'
  for extra in "$@"; do extras+=(--extra "$extra"); done
  echo "# docker/lock-$name.txt: base ${*:+$* }| made by docker/lock.sh, install with: pip install --no-deps -r" >"docker/lock-$name.txt"
  uv pip compile pyproject.toml "${extras[@]}" --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate -q |
    sed 's/+cpu$//; /^--/d' | grep -vE "$drop" >>"docker/lock-$name.txt"
  echo "docker/lock-$name.txt: $(grep -c == "docker/lock-$name.txt") packages"
}

lock base
lock serve cpu serve redis traces
lock serve-gpu cuda serve redis traces
lock train cpu train train-cpu sweep dashboard
lock cpu cpu train train-cpu sweep dashboard serve measure redis traces dev
lock cuda-train cuda train train-cuda sweep dashboard
lock cuda cuda train train-cuda sweep dashboard serve measure redis traces dev
