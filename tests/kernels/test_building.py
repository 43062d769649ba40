"""Building: no compiler, a compiler that fails, several processes at once, another cache; a file mapped as a tensor."""

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle
import pytest

from paddle_internvl import progress
from paddle_internvl.kernels import building, library
from paddle_internvl.kernels.operators import mapped_file
from paddle_internvl.ops import dispatch

FAKE = """#!/bin/sh
[ "$1" = --version ] && { echo fake 1.0; exit 0; }
echo called >> %(calls)s
[ -e %(killed)s ] && kill -9 $$
[ -e %(broken)s ] && { cat %(broken)s; exit 1; }
sleep 0.05
while [ "$1" != -o ]; do shift; done
echo made > "$2"
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler that notes its calls, prints a file `broken` and fails while there is one, and dies with `killed`."""
    script = tmp_path / "cxx"
    script.write_text(FAKE % {name: tmp_path / name for name in ("calls", "broken", "killed")})
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("PADDLE_INTERNVL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def calls(folder) -> int:
    return (folder / "calls").read_text().count("called") if (folder / "calls").exists() else 0


def test_built_once_by_several_at_once(compiler, capsys, request):
    request.addfinalizer(lambda: progress.be_quiet(False))
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: building.library(), range(4)))
    (path,) = made
    assert path.read_text() == "made\n" and path.is_relative_to(compiler / "cache" / "kernels")
    once = len(building.sources()) + 1  # and the link
    assert calls(compiler) == once
    assert building.library() == path and calls(compiler) == once
    assert capsys.readouterr().err == "building CPU kernels, once: about half a minute\n"
    progress.be_quiet()
    assert building.library(force=True) == path and calls(compiler) == 2 * once
    assert {file.name for file in path.parent.iterdir()} == {
        "lock", building.LIBRARY, f"{building.LIBRARY}.sha256", "build.log",
    }  # fmt: skip
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" + data[1:]]
)
def test_a_damaged_library_is_built_anew(compiler, caplog, damage):
    """As a power failure or a bad copy leaves it; loading half a file would be a SIGBUS."""
    path = building.library()
    path.write_bytes(damage(path.read_bytes()))
    assert building.library() == path and path.read_text() == "made\n"
    assert f"{path} is built anew" in caplog.text


def test_a_library_without_its_digest_is_built_anew(compiler):
    path = building.library()
    path.with_name(f"{path.name}.sha256").unlink()
    before = calls(compiler)
    assert building.library() == path and calls(compiler) > before


@pytest.mark.parametrize(
    ("accident", "message"),
    [
        ("killed", ""),
        ("broken", "fatal error: error writing to /tmp/a.s: No space left on device"),
        ("broken", "g++: fatal error: Killed signal terminated program cc1plus"),
        ("broken", "cc1plus: out of memory allocating 65536 bytes"),
    ],
)
def test_a_build_that_the_machine_ended_is_tried_again(compiler, accident, message):
    (compiler / accident).write_text(message)
    with pytest.raises(
        building.BuildError, match=r"the machine ended the kernels' build, see .*; the next start tries"
    ):
        building.library()
    (compiler / accident).unlink()
    assert building.library().read_text() == "made\n"


def test_an_empty_note_of_a_failure_is_none(compiler):
    """As a full disk leaves it."""
    path = building.library()
    path.unlink()
    path.with_name("failed").touch()
    assert building.library() == path and path.exists()


def test_a_failure_is_remembered_with_its_reason(compiler):
    (compiler / "broken").write_text("this compiler is broken")
    with pytest.raises(building.BuildError, match="the kernels' build failed, see .*build.log") as failed:
        building.library()
    log = next((compiler / "cache").rglob("build.log"))
    assert str(log) in str(failed.value) and "this compiler is broken" in log.read_text()
    before = calls(compiler)
    with pytest.raises(building.BuildError, match="build-kernels --force` tries again"):
        building.library()
    assert calls(compiler) == before
    (compiler / "broken").unlink()
    assert building.library(force=True).exists() and building.library().exists()


def test_a_build_that_fails_takes_the_old_library_away(compiler):
    path = building.library()
    (compiler / "broken").touch()
    with pytest.raises(building.BuildError):
        building.library(force=True)
    assert not path.exists()


def test_sources_compiler_and_flags_decide(compiler, monkeypatch):
    one = building.library()
    monkeypatch.setattr(building, "FLAGS", (*building.FLAGS, "-g"))
    assert building.library().parent != one.parent


def test_no_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(building.BuildError, match="there is no C\\+\\+ compiler no-such-compiler; install g\\+\\+"):
        building.library()
    monkeypatch.setattr(library, "_loaded", library._loaded.__wrapped__)
    assert library.unavailable_reason().startswith("there is no C++ compiler")
    with pytest.raises(building.BuildError, match="there is no C"):
        library.functions()


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PADDLE_INTERNVL_CACHE", str(tmp_path / "file"))
    if os.environ.get("CXX") is None and building.shutil.which("g++") is None:
        pytest.skip("there is no compiler")
    with pytest.raises(building.BuildError, match="can't be written: .*; set PADDLE_INTERNVL_CACHE"):
        building.library()


@pytest.mark.parametrize(("reason", "count"), [("no compiler", 1), (library.SWITCHED_OFF, 0), ("", 0)])
def test_missing_kernels_are_one_line_of_the_log(monkeypatch, caplog, reason, count):
    monkeypatch.setattr(library, "unavailable_reason", lambda: reason)
    assert dispatch.this_machine.__wrapped__().kernels_missing == reason
    assert [record.getMessage() for record in caplog.records] == [
        "no CPU kernels, Paddle's slower operators run instead: no compiler"
    ] * count


def test_switched_off(monkeypatch):
    monkeypatch.setenv("PADDLE_INTERNVL_KERNELS", "off")
    assert library.unavailable_reason() == "switched off by PADDLE_INTERNVL_KERNELS=off"


def test_finding_out_imports_no_paddle():
    """`doctor` and the command line ask for the cache's folder before Paddle is there."""
    code = "import sys, paddle_internvl.kernels.building as b; b.cache_folder(); sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_instruction_set_that_is_not_there(isa):
    with pytest.raises(ValueError, match="the instruction set 'sse9' is not known"):
        library.use_isa("sse9")
    assert library.isa() == isa


def test_a_piece_of_a_file_is_a_tensor(isa, tmp_path):
    numbers = np.arange(5000, dtype=np.float32)
    file = tmp_path / "numbers"
    numbers.tofile(file)
    mapped = mapped_file(file, 4004, [20, 3], "float32")
    np.testing.assert_array_equal(mapped.numpy(), numbers[1001:1061].reshape(20, 3))
    mapped[0, 0] = -1.0  # stays here
    assert mapped[0, 0] == -1 and np.fromfile(file, np.float32)[1001] == 1001
    file.unlink()
    parameter = paddle.create_parameter([20, 3], "float32")
    mapped._share_buffer_to(parameter)
    del mapped
    assert parameter[19, 2] == 1060
    with pytest.raises(ValueError, match="can't be opened"):
        mapped_file(file, 0, [1], "float32")
    numbers.tofile(file)
    with pytest.raises(ValueError, match="ends before the piece"):
        mapped_file(file, 19_000, [1000], "float32")


def test_the_command_builds_and_says_where(isa, capsys):
    from paddle_internvl.cli.main import main

    assert main(["build-kernels", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"library": str(building.library()), "isa": isa, "reason": ""}
    assert main(["build-kernels"]) == 0 and capsys.readouterr().out.strip() == f"{told['library']}: {isa}"


def test_the_command_says_why_there_are_none(compiler, capsys):
    from paddle_internvl.cli.main import main

    (compiler / "broken").touch()
    assert main(["build-kernels"]) == 1
    assert "no kernels: the kernels' build failed, see" in capsys.readouterr().out


def test_doctor_notes_missing_kernels(monkeypatch):
    from paddle_internvl.cli import doctor

    dispatch.this_machine()  # cached as the other tests of this process need it
    monkeypatch.setenv("PADDLE_INTERNVL_KERNELS", "off")
    (found,) = (finding for finding in doctor.findings() if "switched off" in finding.detail)
    assert found.state == doctor.NOTE and "Paddle's own operators" in found.advice
