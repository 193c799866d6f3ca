"""Every shipped YAML composes into its dataclass; typos do not; values survive composition."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from playbill import cli
from playbill.errors import ConfigError
from playbill.jobs import JOBS

CONF = Path(cli.__file__).parent / "conf"


def choices() -> list[tuple[str, str, str]]:
    """Return (job, group, option) for every option of every group that a job offers."""
    found = []
    for name, job in JOBS.items():
        for group in sorted({path.rpartition("/")[0] for path in job.groups}):
            found += [(name, group, p.stem) for p in sorted((CONF / group).glob("*.yaml"))]
    return found


@pytest.mark.parametrize("name", JOBS)
def test_every_job_composes(name: str) -> None:
    settings = cli.compose(name, [])
    assert type(settings) is cli.load(JOBS[name].settings)


@pytest.mark.parametrize(("name", "group", "option"), choices())
def test_every_choice_composes(name: str, group: str, option: str) -> None:
    assert is_dataclass(getattr(cli.compose(name, [f"{group}={option}"]), group))


def test_every_yaml_belongs_to_a_job() -> None:
    entries = {p.stem for p in CONF.glob("*.yaml")}
    assert entries == set(JOBS)
    assert {p.parent.name for p in CONF.glob("*/*.yaml")} <= {group for _, group, _ in choices()}


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_a_typo_names_the_nearest_field(name: str, sign: str) -> None:
    known = [field.name for field in fields(cli.load(JOBS[name].settings))]
    meant = "home" if "home" in known else known[0]
    typo = meant[0] + meant[2] + meant[1] + meant[3:]
    with pytest.raises(ConfigError, match=f"no field '{typo}'; nearest is '{meant}'"):
        cli.compose(name, [f"{sign}{typo}=x"])


@pytest.mark.parametrize("name", JOBS)
def test_a_value_survives_composition(name: str) -> None:
    """A schema named after `_self_` would put the dataclass's default over the YAML's value."""
    first = (CONF / f"{name}.yaml").read_text()
    defaults = first.partition("defaults:")[2].split("\n\n")[0]
    entries = [line.strip(" -") for line in defaults.splitlines() if line.strip().startswith("-")]
    assert entries[0] == f"{name}_schema" and entries[-1] == "_self_", entries


@pytest.mark.parametrize("name", JOBS)
def test_help_shows_every_field_with_its_meaning(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    values = [i for i, line in enumerate(lines) if line.startswith("  ") and not line.startswith("   ")]
    assert values, "no fields shown"
    silent = [lines[i] for i in values if i + 1 >= len(lines) or not lines[i + 1].startswith("      ")]
    assert not silent, f"fields without a word on what they mean: {silent}"


def test_help_names_every_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in JOBS)


def test_a_bad_command_line_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["doktor"], ["doctor", "prot=1"], ["doctor", "port=x"], ["doctor", "port=0"], ["doctor", "port"]):
        assert cli.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("playbill: ") and error.count("\n") == 1, error


def test_an_unknown_choice_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no choice question=uplfit; nearest is 'uplift'; there are disparity, drift"):
        cli.compose("measure", ["question=uplfit"])


def test_a_mapping_takes_keys_without_a_plus() -> None:
    for given in (["question.cost={mail: 0.1, card: 1}"], ["question.cost.mail=0.1", "question.cost.card=1"]):
        assert cli.compose("measure", ["question=uplift", *given]).question.cost == {"mail": 0.1, "card": 1.0}
    with pytest.raises(ConfigError, match="no field 'question.costs.mail'; nearest is 'question.cost'"):
        cli.compose("measure", ["question=uplift", "question.costs.mail=0.1"])


def test_a_value_that_needs_quotes_says_so() -> None:
    with pytest.raises(ConfigError, match="stands in quotes twice"):
        cli.compose("measure", ["question=ranking", "question.lists=decisions:policy=softmax"])
    found = cli.compose("measure", ["question=ranking", 'question.lists="decisions:policy=softmax"'])
    assert found.question.lists == "decisions:policy=softmax"


def test_help_explains_the_choice_that_was_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["measure", "question=interleaving", "--help"]) == 0
    from playbill.measure.interleaving.settings import InterleavingQuestion

    first = (InterleavingQuestion.__doc__ or "").strip().splitlines()[0]
    assert first in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "size=tiny", "size.days=1", "home=/proc/nowhere"]) == 1
    assert "playbill generate: FileNotFoundError" in capsys.readouterr().err


@pytest.mark.parametrize("value", [".nan", ".inf", "1e300", "-1"])
@pytest.mark.parametrize(
    ("question", "field"), [("off_policy", "within_h"), ("uplift", "window_h"), ("disparity", "window_h")]
)
def test_hours_are_hours(question: str, field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} must be"):
        cli.compose("measure", [f"question={question}", f"question.{field}={value.lstrip('.')}"])


@pytest.mark.parametrize("job", ["generate", "rehearse"])
@pytest.mark.parametrize("name", ["../escape", "/escape", "a/b"])
def test_a_name_is_no_path(job: str, name: str) -> None:
    with pytest.raises(ConfigError, match="name is the name of one folder"):
        cli.compose(job, [f"name={name}"])
