"""`playbill JOB [key=value ...]`: composes a job's configuration, refuses typos, and hands the job a dataclass.

The only file that imports Hydra. A job is a function of one settings dataclass, imported when it is asked for, so that
`playbill serve` never loads torch and `playbill train` never loads Ray Serve.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import product
from typing import Any

from playbill.errors import ConfigError, PlaybillError
from playbill.fields import field_lines, typed, unknown_fields
from playbill.jobs import JOBS, Job

# hydra and omegaconf are imported inside the functions: `playbill --help` answers at once


_OWN = "own_"  # before the name of a choice that is a file of one's own


def load(path: str) -> Any:
    """Return the object named `module:attribute`."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def compose(name: str, overrides: Sequence[str]) -> Any:
    """Return the settings dataclass of one job.

    Args:
        name: a key of JOBS.
        overrides: `key=value` in Hydra's grammar.
    Raises:
        ConfigError: unknown job, unknown key (the nearest one is named), or a value out of type or range.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if name not in JOBS:
        raise ConfigError(f"no job {name!r}; {_nearest(name, JOBS)} jobs: {', '.join(JOBS)}")
    job = JOBS[name]
    _store_schemas(name)
    with initialize_config_module("playbill.conf", version_base="1.3"):
        try:
            overrides = [_own_choice(o, job) for o in overrides]
            plain = [o for o in overrides if _is_choice(o, job)]
            _refuse_unknown_choices(plain, name)
            others = [o for o in overrides if o not in plain]
            known = _known_keys(name, tuple(plain)) if others else frozenset()
            _refuse_unknown(others, known, name)
            settings = OmegaConf.to_object(hydra_compose(name, [_into_mapping(o, known) for o in overrides]))
            if job.preset:
                settings.preset = _preset(name, job.preset, plain)  # type: ignore[union-attr]  # a dataclass by its schema
            return settings
        except (HydraException, OmegaConfBaseException, TypeError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise ConfigError(
                f"playbill {name}: {_first_lines(error)}{_because(error, cause)}{_quoting(error)}"
            ) from error


def _preset(name: str, group: str, choices: Sequence[str]) -> tuple[str, Any]:
    """Return which choice of a group was made, and what it says as it stands in conf/; Hydra must be initialised."""
    from hydra import compose as hydra_compose
    from omegaconf import OmegaConf

    made = hydra_compose(name, list(choices), return_hydra_config=True).hydra.runtime.choices
    chosen = [str(made[key]) for key in made if key.partition("@")[0] == group]
    return " and ".join(chosen), getattr(OmegaConf.to_object(hydra_compose(name, list(choices))), group)


@cache
def _store_schemas(name: str) -> None:
    """Tell Hydra the dataclasses of one job, once: it copies each of them whole."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name=f"{name}_schema", node=load(JOBS[name].settings))
    for path, cls in JOBS[name].groups.items():
        group, _, schema = path.rpartition("/")
        store.store(group=group, name=schema, node=load(cls))


@cache
def _known_keys(name: str, choices: tuple[str, ...]) -> frozenset[str]:
    """Return every key of a job for which these choices are made; Hydra must be initialised, and takes 0.1 s."""
    from hydra import compose as hydra_compose
    from omegaconf import OmegaConf

    return frozenset(_keys(OmegaConf.to_object(hydra_compose(name, list(choices)))))


def _is_choice(override: str, job: Job) -> bool:
    key = override.partition("=")[0].lstrip("+~").partition("@")[0]
    return any(path.rpartition("/")[0] == key for path in job.groups)


def _own_choice(override: str, job: Job) -> str:
    """Return the override by which a file of one's own is a choice like those in conf/: campaign=my/autumn.yaml.

    Raises:
        ConfigError: no such file, no YAML, or nothing says of which schema it is.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    key, _, value = override.partition("=")
    if not (_is_choice(override, job) and value.endswith((".yaml", ".yml"))):
        return override
    group = key.lstrip("+~").partition("@")[0]
    try:
        told = OmegaConf.to_container(OmegaConf.load(value))
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{group}: {value} cannot be read: {' '.join(str(error).split())}") from error
    schemas = [path.rpartition("/")[2] for path in job.groups if path.rpartition("/")[0] == group]
    if not isinstance(told, dict) or ("defaults" not in told and len(schemas) > 1):
        raise ConfigError(
            f"{group}: {value}: expected fields as in conf/{group}/, with `defaults: [SCHEMA, _self_]` where there are "
            f"several schemas: {', '.join(schemas)}"
        )
    if len(schemas) == 1:
        fields_told = {field: given for field, given in told.items() if field != "defaults"}
        for path, cls in unknown_fields(fields_told, load(job.groups[f"{group}/{schemas[0]}"])):
            near = _nearest(str(path[-1]), {f.name for f in fields(cls)})[:-1]
            of = ".".join(map(str, path))
            raise ConfigError(f"{group}: {value}, line {_line(value, path)}: no field {of!r}; {near}".rstrip("; "))
    name = _OWN + re.sub(r"[^A-Za-z0-9]+", "_", value).strip("_")
    ConfigStore.instance().store(group=group, name=name, node={"defaults": [schemas[0], "_self_"], **told})
    return f"{key}={name}"


def _line(file: str, path: Sequence[str | int]) -> int:
    """Return the line of a YAML file in which a field stands. Args: path: of mappings' keys and places in lists."""
    import yaml

    with open(file, encoding="utf-8") as lines:
        node = yaml.compose(lines)
    line = 0
    for step in path:
        if isinstance(step, int):
            node = node.value[step]
            continue
        named = next((pair for pair in node.value if pair[0].value == step), None)
        if named is None:  # it comes from elsewhere, by a merge key
            break
        line, node = named[0].start_mark.line, named[1]
    return line + 1


def _keys(settings: Any, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key; an open mapping is yielded with a trailing `.*`, one that takes anything with `.**`."""
    for field in typed(settings):
        value = getattr(settings, field.name)
        key = prefix + field.name
        yield key
        if is_dataclass(value):
            yield from _keys(value, key + ".")
        elif isinstance(value, dict):
            yield key + ".*"
            if field.type == "dict[str, Any]":
                yield key + ".**"


def _refuse_unknown(overrides: Sequence[str], known: frozenset[str], job: str) -> None:
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        parents = {".".join(key.split(".")[:i]) + ".*" for i in range(1, key.count(".") + 1)}
        if key not in known and not parents & known:
            listed = sorted(k for k in known if not k.endswith("*"))
            raise ConfigError(
                f"playbill {job}: no field {key!r}; {_nearest(key, listed)} `playbill {job} --help` shows every field"
            )


def _refuse_unknown_choices(overrides: Sequence[str], job: str) -> None:
    for override in overrides:
        key, _, value = override.partition("=")
        group = key.lstrip("+~").partition("@")[0]
        there = [o for o in _options(group) if not o.endswith("_schema")]
        if value and value not in there and not value.startswith(_OWN):
            near = _nearest(value, there)
            raise ConfigError(f"playbill {job}: no choice {group}={value}; {near} there are {', '.join(there)}")


def _into_mapping(override: str, known: frozenset[str]) -> str:
    """Return the override so that Hydra takes new keys into a mapping that is open for them, without a + before it.

    What is below a mapping of anything stays one key with dots in it: `job.model=ranker job.model.dim=32` are two keys.
    """
    key, _, value = override.partition("=")
    parents = [key.rsplit(".", i)[0] for i in range(1, key.count(".") + 1)]
    for parent in parents:
        if f"{parent}.**" in known:
            return f"++{parent}={{{key.removeprefix(parent + '.')}: {value}}}"
    return f"++{override}" if any(f"{parent}.*" in known for parent in [key, *parents]) else override


def _quoting(error: Exception) -> str:
    grammar = any(sign in str(error) for sign in ("mismatched input", "no viable alternative", "extraneous input"))
    return "; a value with = or : or , in it stands in quotes twice: 'key=\"a:b=c\"'" if grammar else ""


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)
    return f"nearest is {near[0]!r};" if near else ""


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split("\n")[:2]).strip()


def _because(error: Exception, cause: Exception) -> str:
    return "" if cause is error or str(cause) in str(error) else f" ({_first_lines(cause)})"


def _help() -> str:
    width = max(map(len, JOBS))
    rows = "\n".join(f"  {name:<{width}}  {job.about}" for name, job in JOBS.items())
    return (
        "playbill JOB [key=value ...]\n\n"
        f"{rows}\n\n"
        "`playbill JOB --help` shows a job's fields with their values; `--cfg` prints what a command line amounts to.\n"
        "`-m` runs a job for every combination of values: playbill train -m model.dim=32,64 seed=1,2\n"
        "Example: playbill prepare source=parquet source.folder=my_shop"
    )


def _job_help(name: str, choices: Sequence[str] = ()) -> str:
    job = JOBS[name]
    settings = compose(name, choices)
    lines = [f"playbill {name}: {job.about}", ""]
    text = (type(settings).__doc__ or "").strip()
    if text:
        lines += [*(line.strip() for line in text.splitlines()), ""]
    for group in sorted({path.rpartition("/")[0] for path in job.groups}):
        names = [o for o in _options(group) if not o.endswith("_schema")]
        lines += [f"choose with {group}=NAME: {', '.join(names)}", ""]
    for field in fields(settings):
        chosen = getattr(settings, field.name)
        if any(path.rpartition("/")[0] == field.name for path in job.groups) and is_dataclass(chosen):
            own = textwrap.dedent("    " + (type(chosen).__doc__ or "")).strip().splitlines()
            lines += [f"This {field.name}: {own[0].strip()}", *(line.strip() for line in own[1:]), ""] if own else []
    return "\n".join([*lines, *field_lines(settings)])


def _options(group: str) -> list[str]:
    from importlib.resources import files

    return sorted(
        f.name.removesuffix(".yaml")
        for f in files("playbill.conf").joinpath(group).iterdir()
        if f.name.endswith(".yaml")
    )


def _check(name: str, overrides: Sequence[str]) -> int:
    """Answer each line of standard input, a json list of further arguments, with a line: the settings or the error.

    For programs that make command lines: they learn what is wrong with each before any of them runs.
    """
    import msgspec

    for line in sys.stdin:
        try:
            found = compose(name, [*overrides, *msgspec.json.decode(line, type=list[str])])
            answer = {"settings": msgspec.to_builtins(found), "error": None}
        except ConfigError as error:
            answer = {"settings": None, "error": str(error)}
        print(msgspec.json.encode(answer).decode(), flush=True)
    return 0


def _multirun(name: str, overrides: Sequence[str]) -> int:
    """Run a job for every combination of its overrides' values, one after the other; return the worst exit code."""
    combinations = _combinations(overrides)
    # all are composed before the first runs: a bad value in the last must not cost the hours of the others
    runs = [_with_own_folder(name, given, varied) for given, varied in combinations]
    for arguments in runs:
        compose(name, arguments)
    if len({tuple(arguments) for arguments in runs}) < len(runs):
        raise ConfigError(f"playbill {name} -m: the same value stands twice in a list")
    codes = []
    for number, arguments in enumerate(runs, 1):
        print(f"{number} of {len(runs)}: playbill {name} {' '.join(arguments)}", file=sys.stderr)
        codes.append(main([name, *arguments]))
    return max(codes)


def _combinations(overrides: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Return (all overrides, those that vary) of every run that `key=a,b`, choice() and range() amount to."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    values = []
    for text in overrides:
        try:
            parsed = parser.parse_override(text)
            swept = parsed.is_sweep_override()
            values.append(
                [f"{text.partition('=')[0]}={v}" for v in parsed.sweep_string_iterator()] if swept else [text]
            )
        except (HydraException, NotImplementedError) as error:
            raise ConfigError(f"-m: {text}: {_first_lines(error)}{_quoting(error)}") from error
    varied = [len(v) > 1 for v in values]
    return [(list(run), [o for o, many in zip(run, varied, strict=True) if many]) for run in product(*values)]


def _with_own_folder(name: str, overrides: list[str], varied: Sequence[str]) -> list[str]:
    """Return the overrides of one run of `-m`, its folder named after the values that only it has."""
    key = JOBS[name].folder
    if not key or not varied or any(o.partition("=")[0] == key for o in varied):
        return overrides
    settings = compose(name, overrides)
    base = getattr(settings, "run_name", "") or getattr(settings, key) or name
    suffix = "-".join(re.sub(r"[^A-Za-z0-9._+-]+", "_", o).strip("_") for o in varied)
    return [*(o for o in overrides if o.partition("=")[0] != key), f"{key}={base}-{suffix}"]


def job_of(args: Sequence[str]) -> tuple[str, list[str]]:
    """Return the job that a command line names, and what it says to it.

    `campaign run` is the job campaign-run, and a first word without a `=` stands for the job's first field.
    """
    words = 2 if len(args) > 1 and f"{args[0]}-{args[1]}" in JOBS else 1
    name, rest = "-".join(args[:words]), list(args[words:])
    if name in JOBS and JOBS[name].first and rest[:1] and "=" not in rest[0] and not rest[0].startswith("-"):
        rest = [f"{JOBS[name].first}={rest[0]}", *rest[1:]]
    return name, rest


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job; return 0, or 2 for a bad command line or configuration, or 1 for a job that failed with a reason."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if args[0] == "--version":
        from playbill import __version__

        print(__version__)
        return 0
    name, rest = job_of(args)
    try:
        if name in JOBS and any(a in ("-h", "--help") for a in rest):
            # with the choices made before it: each choice has fields of its own
            print(_job_help(name, [a for a in rest if a not in ("-h", "--help") and _is_choice(a, JOBS[name])]))
            return 0
        if name in JOBS and rest[:1] == ["--check"]:
            return _check(name, rest[1:])
        if name in JOBS and {"-m", "--multirun"} & set(rest):
            return _multirun(name, [a for a in rest if a not in ("-m", "--multirun")])
        settings = compose(name, [a for a in rest if a != "--cfg"])
        if "--cfg" in rest:
            from omegaconf import OmegaConf

            print(OmegaConf.to_yaml(OmegaConf.structured(settings)).rstrip())
            return 0
        result = load(JOBS[name].run)(settings)
        return result if isinstance(result, int) else 0
    except ConfigError as error:
        print(f"playbill: {error}", file=sys.stderr)
        return 2
    except PlaybillError as error:
        print(f"playbill {name}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "playbill":
            raise
        run = JOBS[name].run
        lock = "docker/lock-train.txt" if "training" in run else "docker/lock-serve.txt" if "serving" in run else ""
        print(
            f"playbill {name}: {error.name} is not installed; install the lock that has it ({lock and lock + ', or '}"
            "docker/lock-cpu.txt for everything); `playbill doctor` shows what is there",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of the output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"playbill {name}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
