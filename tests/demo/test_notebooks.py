"""The notebooks: each runs from first to last cell with the outputs that its file keeps; its texts have one form."""

import ast
import base64
import io
import json
import re
import subprocess
import sys
from importlib import metadata

import nbformat
import pytest
from PIL import Image

from demo.notebooks import environment
from demo.notebooks.run import execute, notebooks
from tests.random_checkpoints import ROOT

FILES = notebooks()
NAMES = [file.stem for file in FILES]
SECTIONS = ("一", "二", "三", "四", "五", "六", "七", "八", "九", "十")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
MACHINE = re.compile(r"/work/|/root/|/tmp/|/home/(?!aistudio)|site-packages|\.venv")
FAILURE = re.compile(r"Traceback|Warning:|No such file|command not found|DIFFERENT")


def read(file):
    return nbformat.read(file, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(cell) -> str:
    """The streams of a cell's outputs."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def python_of(cell) -> ast.Module:
    """A cell's syntax tree without its magics and shell commands."""
    lines, continued = [], False
    for line in cell.source.splitlines():
        shell = re.match(r"\s*(!|%|\w+ = !)", line)
        if shell or continued:
            continued = line.endswith("\\")
            line = line[: len(line) - len(line.lstrip())] + "pass" if shell else ""
        lines.append(line)
    return ast.parse("\n".join(lines))


def test_there_are_eight():
    assert [name[:2] for name in NAMES] == ["01", "02", "03", "04", "05", "06", "07", "08"]
    with pytest.raises(ValueError, match="no notebook begins with '09'"):
        notebooks("09")


@pytest.fixture(scope="module")
def kernel():
    """One kernel for all notebooks, which imports Paddle once; `execute` resets its names."""
    from jupyter_client import AsyncKernelManager
    from nbclient.util import run_sync

    manager = AsyncKernelManager(kernel_name="python3")
    yield manager
    run_sync(manager.shutdown_kernel)(now=True)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_outputs_are_those_that_the_file_keeps(file, kernel, tmp_path):
    kept, fresh = read(file), execute(file, tmp_path, kernel)
    assert [path.name for path in tmp_path.iterdir()] == ["internvl-work"]
    for before, after in zip(code_cells(kept), code_cells(fresh)):
        assert not FAILURE.search(text_of(after)), text_of(after)
        if "varies" not in before.metadata.get("tags", ()):
            assert text_of(before) == text_of(after), before.source
        assert [o.output_type for o in before.outputs] == [o.output_type for o in after.outputs], before.source


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_kept_outputs_are_there_and_clean(file):
    notebook = read(file)
    assert file.stat().st_size < 1.5e6
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert len(outputs) >= 8 and not [output for output in outputs if output.output_type == "error"]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 2
    for picture in pictures:
        image = Image.open(io.BytesIO(base64.b64decode(picture)))
        assert image.width >= 200 and len(image.convert("RGB").getcolors(1 << 24)) >= 4
    text = "".join(text_of(cell) for cell in code_cells(notebook))
    assert not MACHINE.search(text + json.dumps([output.get("data", {}).get("text/plain") for output in outputs]))
    assert not FAILURE.search(text) and "\x1b" not in text


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_every_text_is_chinese_first_then_english(file):
    for cell in read(file).cells:
        if cell.cell_type == "markdown":
            body = "\n".join(line for line in cell.source.splitlines() if not line.startswith("#"))
            chinese, mark, english = body.partition("\n> ")
            assert mark and len(CHINESE.findall(chinese)) >= 8, cell.source
            quoted = "\n".join(line for line in ("> " + english).splitlines() if line.startswith(">"))
            assert len(re.findall(r"[A-Za-z]{2,}", quoted)) >= 6 and not CHINESE.search(quoted), cell.source


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_headings_follow_ai_studio(file):
    texts = [cell.source for cell in read(file).cells if cell.cell_type == "markdown"]
    texts = [re.sub(r"```.*?```", "", text, flags=re.DOTALL) for text in texts]
    headings = re.findall(r"^## (.+)$", "\n".join(texts), re.MULTILINE)
    assert [heading.partition("、")[0] for heading in headings] == list(SECTIONS[: len(headings)])
    titles = [heading.partition("、")[2] for heading in headings]
    assert titles[0].startswith("项目背景") and titles[1].startswith("环境配置")
    assert "准备" in titles[2] and titles[-1].startswith("总结")
    assert len(re.findall(r"^# ", "\n".join(texts), re.MULTILINE)) == 1
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", "\n".join(texts)):
        assert (file.parent / link).exists(), link


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_one_variable_selects_the_checkpoint(file):
    cells = code_cells(read(file))
    assigned = [
        target.id
        for cell in cells
        for node in ast.walk(python_of(cell))
        if isinstance(node, (ast.Assign, ast.AugAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    ]
    assert assigned.count("CKPT") == 1 and cells[0].source.startswith('CKPT = "demo/checkpoints/internvl-tiny"')
    assert sum("locate(CKPT)" in cell.source for cell in cells) == 1
    assert not [cell.source for cell in cells[1:] if "internvl-tiny" in cell.source and "README.md" not in cell.source]


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_metadata_are_neutral(file):
    notebook = read(file)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    begins = [code_cells(read(each))[1].source for each in FILES]
    assert set(begins) == {begins[0]}  # how the repository is found


def test_requirements_are_those_of_setup():
    required = environment.requirements("serve")
    assert "paddlenlp==3.0.0b4" in required and any(text.startswith("fastapi") for text in required)
    installed = {text.partition(";")[0].strip() for text in metadata.requires("paddle_internvl") if "extra" not in text}
    names = {re.split(r"[<>=\[ ;]", text)[0].lower() for text in environment.requirements()}
    assert names >= {re.split(r"[<>=\[ ;]", text)[0].lower() for text in installed}


@pytest.mark.parametrize(
    ("requirement", "installed"),
    [
        ("numpy", True),
        ("numpy>=1.24,<2", True),
        ("numpy<1", False),
        ("no-such-package", False),
        ("no-such-package; python_version < '3'", True),
    ],
)
def test_installed_requirements_are_recognized(requirement, installed):
    assert environment.is_installed(requirement) is installed


def test_an_old_paddle_is_refused_and_a_new_one_left_alone(monkeypatch):
    assert environment.paddle_requirement() == []
    monkeypatch.setattr(environment.metadata, "packages_distributions", lambda: {"paddle": ["paddlepaddle-gpu"]})
    monkeypatch.setattr(environment.metadata, "version", lambda name: "2.6.2")
    with pytest.raises(RuntimeError, match="this image has paddlepaddle-gpu 2.6.2; start the environment with"):
        environment.paddle_requirement()


def test_without_paddle_a_cpu_gets_its_build_and_a_card_an_error(monkeypatch):
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    assert environment.paddle_requirement() == environment.requirements("cpu")[-1:]
    assert environment.paddle_requirement()[0].startswith("paddlepaddle==3")
    monkeypatch.setattr(environment.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    with pytest.raises(RuntimeError, match="a card but no Paddle"):
        environment.paddle_requirement()


def _in_a_new_process(script: str, folder) -> str:
    """Output of a new process that begins like a notebook."""
    begin = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from demo.notebooks import environment as e; "
    return subprocess.check_output([sys.executable, "-c", begin + script], cwd=folder, text=True)


def test_ai_studio_installs_only_missing_packages_beside_the_image(tmp_path):
    aistudio = tmp_path / "aistudio"
    aistudio.mkdir()
    script = f"""
import json, os, pathlib
e.AISTUDIO = pathlib.Path({str(aistudio)!r})
calls = []
def pip(*arguments):
    calls.append(arguments)
    return json.dumps(dict(install=[dict(metadata=dict(name="Some_Package", version="1.2"))]))
e._pip = pip
work = e.prepare(also=["some-package>=1", "numpy"])
print(json.dumps([calls, str(work), os.environ["PYTHONPATH"].split(":")[:2], sys.path[:2]]))
"""
    *lines, last = _in_a_new_process(f"exec({script!r})", tmp_path).splitlines()
    calls, work, python_path, path = json.loads(last)
    libraries = str(aistudio / "external-libraries")
    assert calls[0] == ["install", "--dry-run", "--report", "-", "some-package>=1"]
    assert calls[1] == ["install", "--no-deps", "--upgrade", "--target", libraries, "some-package==1.2"]
    assert len(calls) == 2 and not any("paddle" in argument for argument in calls[1])
    assert work == str(aistudio / "work/internvl") and python_path == path == [str(ROOT), libraries]
    assert "installed 1 packages: some-package" in lines[0]


def test_a_repository_that_is_not_installed_gets_a_command(tmp_path):
    script = """
import os, subprocess
os.environ["PATH"] = "/usr/bin:/bin"
e.shutil.which = lambda name: None
e._write_launcher(e.Path("bin"))
print(subprocess.check_output(["paddle-internvl", "--version"], text=True))
"""
    assert "paddle_internvl 0." in _in_a_new_process(f"exec({script!r})", tmp_path)


def test_locate_finds_folders_here_and_in_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert environment.locate("mine") == "mine"
    assert environment.locate("demo/checkpoints/internvl-tiny") == str(ROOT / "demo/checkpoints/internvl-tiny")
    with pytest.raises(OSError, match="nowhere"):
        environment.locate("nowhere")
