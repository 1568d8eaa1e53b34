"""Plugins that cannot be used: `check` finds them, and every command says in one line what is wrong."""

from pathlib import Path

import pytest

from tests.cli.command import invoke

KIND = """
from typing import ClassVar
from holdfast import JobReport, JobRequest
from jobs.registry import Job

class Request(JobRequest[JobReport]):
    {kind}
    report_type: ClassVar[type[JobReport]] = JobReport

async def perform(context, request):
    return JobReport()

JOBS = (Job(Request, perform, timeout_s={timeout_s}),)
"""
NAMED = 'kind: ClassVar[str] = "{}"'
PLUGINS = {
    "raises": ("raise RuntimeError('no\\nluck')", "cannot be imported: RuntimeError: no (line 1 of "),
    "does_not_parse": ("JOBS = (", "cannot be imported: SyntaxError: '(' was never closed"),
    "needs_another": ("import no_such_module", "No module named 'no_such_module'; put it on PYTHONPATH"),
    "has_no_list": ("JOBS = 5", "'int' object is not iterable; put a JOBS of Job, MODELS or MIGRATIONS into it"),
    "has_no_jobs": ("JOBS = (1,)", "1 in JOBS is no Job; list a Job for each kind"),
    "has_no_kind": (
        KIND.format(kind="", timeout_s=1),
        "Request has no kind; give it a kind: ClassVar[str] of 1 to 100",
    ),
    "has_a_bad_kind": (
        KIND.format(kind=NAMED.format("a b"), timeout_s=1),
        "Request has the kind 'a b'; give it a kind",
    ),
    "has_a_long_kind": (KIND.format(kind=NAMED.format("k" * 101), timeout_s=1), "Request has the kind 'kkkkk"),
    "is_there": (KIND.format(kind=NAMED.format("import_tasks"), timeout_s=1), "the kind import_tasks is there already"),
    "has_no_time": (
        KIND.format(kind=NAMED.format("quick"), timeout_s=0),
        "quick has timeout_s=0; give it more than 0 seconds",
    ),
}


@pytest.mark.parametrize("name", PLUGINS)
def test_it_is_named_with_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, words = PLUGINS[name]
    (tmp_path / f"plugin_that_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LOG_LEVEL", "error")
    monkeypatch.setenv("HOLDFAST_PLUGINS", f"plugin_that_{name}")
    started, checked = invoke("run"), invoke("check", "--json")
    assert started.code == 2
    assert started.line.startswith(f"HOLDFAST_PLUGINS=plugin_that_{name}: ")
    assert words in started.line
    (problem,) = checked.document["problems"]
    assert checked.code == 1
    assert f"{problem['setting']}={problem['value']}: {problem['rule']}; {problem['advice']}" == started.line
