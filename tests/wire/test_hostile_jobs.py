"""Names and arguments of jobs: a command line and a folder can carry them, or they are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import is_fit_to_print, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.wire.job import MAX_ARGUMENTS_BYTES, check_job
from scrapy_distributed.wire.payload import MAX_ARGUMENT_BYTES
from scrapy_distributed.wire.receipt_file import receipt_path


@settings(derandomize=True)
@given(
    st.sampled_from(["j", "1-2.3_x"]) | texts | st.sampled_from(["../x", "/x", "a/b", "a\0", "x" * 300, "", "a\n"]),
    st.dictionaries(texts, texts | st.sampled_from(["x" * 140_000, "\0", "\ud800", "x" * 131_071]), max_size=3),
    st.dictionaries(texts | st.sampled_from(["a=b", "project", "name"]), texts, max_size=3),
)
def test_a_job_is_refused_or_a_command_line_can_carry_it(
    job: str, job_settings: dict[str, str], args: dict[str, str]
) -> None:
    try:
        check_job(job, job_settings, args)
        refusal = ""
    except ConfigError as error:
        refusal = str(error)
    assert is_fit_to_print(refusal)
    if refusal:
        return
    assert job.isascii()
    assert 0 < len(job) <= 200
    assert not set(job) & set("/\\\0\n %")
    assert all(key and "=" not in key for key in (*job_settings, *args))
    assert not {"project", "name"} & set(args)
    encoded = [f"{key}={value}".encode() for key, value in [*job_settings.items(), *args.items()]]
    assert all(b"\0" not in argument and len(argument) <= MAX_ARGUMENT_BYTES for argument in encoded)
    assert sum(map(len, encoded)) <= MAX_ARGUMENTS_BYTES


@pytest.mark.parametrize("job", ["../../x", "..", "/x", "a/b", "a\0b", "x" * 300, "", ".", "\u00fc", "a\n"])
def test_a_receipt_is_written_in_its_folder_or_refused(job: str, tmp_path: Path) -> None:
    """``-a _job=../../x`` is a spider argument like any other."""
    folder = tmp_path / "logs" / "p"
    if job not in ("..", "."):  # with the ending of the file they are plain names
        with pytest.raises(ConfigError, match="job id") as caught:
            receipt_path(str(folder / "s" / "j.log"), job)
        assert is_fit_to_print(str(caught.value))
        return
    path = receipt_path(str(folder / "s" / "j.log"), job)
    assert path.resolve().parent == folder / "s.receipts"
    assert len(path.name) < 256
