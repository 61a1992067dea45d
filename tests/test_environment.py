"""A wrong Python or NumPy is named in one line, with the remedy; what the shell scripts install."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gluon_tricks
from gluon_tricks import WrongEnvironment, _problem

ROOT = Path(gluon_tricks.__file__).parent.parent
CPU = "docker/requirements-cpu.txt"
UNREAD = ("README.md", "gluon_tricks/_native/core.so", "docker/requirements-gpu.txt")


@pytest.fixture
def import_it():
    """import_it(folder, *options): `import gluon_tricks`, with `folder` ahead on the path."""
    def run(*folders, options=(), python=sys.executable, code="import gluon_tricks; print('ran')"):
        path = os.pathsep.join(map(str, [*folders, ROOT]))
        return subprocess.run([python, *options, "-c", code], capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": path}, timeout=120)
    return run


def fake_numpy(folder, version):
    """A folder in which NumPy's metadata say that version."""
    info = folder / f"numpy-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: numpy\nVersion: {version}\n")
    return folder


@pytest.mark.parametrize("numpy", ["1.23.5", "1.21.0", "1.20.3"])
def test_what_works_is_no_problem(numpy):
    assert _problem((3, 11, 2), numpy) is None
    assert _problem((3, 11, 9), numpy) is None


@pytest.mark.parametrize("numpy", ["1.24.0", "1.26.4", "2.0.1", "2.3.0rc1", "10.0.0"])
def test_a_numpy_that_is_too_new(numpy):
    line = _problem((3, 11, 2), numpy)
    assert f"found {numpy}" in line and "pip install numpy==1.23.5" in line
    assert "\n" not in line


def test_no_numpy():
    line = _problem((3, 11, 2), None)
    assert "none is installed" in line and "pip install numpy==1.23.5" in line


@pytest.mark.parametrize("python", [(3, 10, 13), (3, 12, 1), (3, 13, 0), (4, 0, 0), (2, 7, 18)])
@pytest.mark.parametrize("numpy", ["1.23.5", "2.0.0", None])
def test_another_python_comes_first(python, numpy):
    line = _problem(python, numpy)
    assert f"this is {'.'.join(map(str, python))}" in line and "python3.11 -m venv" in line
    assert "\n" not in line


@pytest.mark.parametrize("version", ["1.24.0", "1.26.4", "2.0.1"])
def test_import_under_a_wrong_numpy_is_one_line(import_it, tmp_path, version):
    done = import_it(fake_numpy(tmp_path, version))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"error: gluon_tricks needs numpy below 1.24 for MXNet 1.9.1, found "
                           f"{version}: run `pip install numpy==1.23.5`\n")


def test_import_without_numpy_is_one_line(import_it):
    done = import_it(options=["-S"])  # no site-packages
    assert (done.returncode, done.stdout) == (1, "")
    line, = done.stderr.splitlines()
    assert "none is installed" in line


def test_a_script_under_a_wrong_numpy_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "profile_model.py", "--model", "resnet18_v1"],
        capture_output=True, text=True, timeout=120,
        env={**os.environ,
             "PYTHONPATH": os.pathsep.join(map(str, [fake_numpy(tmp_path, "1.26.4"), ROOT]))})
    assert done.returncode == 1
    line, = done.stderr.splitlines()
    assert "pip install numpy==1.23.5" in line


def test_the_right_environment_imports_quietly(import_it, tmp_path):
    done = import_it(fake_numpy(tmp_path, "1.23.5"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
    assert issubclass(WrongEnvironment, ImportError)


def test_other_faults_keep_their_traceback(import_it, tmp_path):
    code = ("try:\n    import gluon_tricks\nexcept ImportError as error:\n"
            "    print(type(error).__name__)\n1 / 0")
    done = import_it(fake_numpy(tmp_path, "1.26.4"), code=code)
    assert done.stdout == "WrongEnvironment\n"
    assert done.stderr.startswith("Traceback")
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.12", "3.13"])
def test_import_under_another_python_is_one_line(import_it, version):
    try:
        python = subprocess.run([f"python{version}", "-c", "import sys; print(sys.executable)"],
                                capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"no python{version} here")
    done = import_it(python=python.stdout.strip())
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: gluon_tricks needs Python 3.11, this is {version}.")
    assert len(done.stderr.splitlines()) == 1


def test_the_check_runs_on_older_pythons_too():
    """Without such a Python: no newer grammar, and no annotation they cannot evaluate."""
    tree = ast.parse((ROOT / "gluon_tricks" / "__init__.py").read_text(), feature_version=(3, 8))
    postponed = any(isinstance(node, ast.ImportFrom) and node.module == "__future__"
                    for node in tree.body)
    annotations = [ast.unparse(annotation) for node in ast.walk(tree)
                   for annotation in (getattr(node, "annotation", None),
                                      getattr(node, "returns", None)) if annotation]
    assert postponed or not [text for text in annotations if "|" in text or "[" in text]


def in_shell(command, *, clone=ROOT, script="_venv.sh", path=None, **variables):
    """A command of bash that knows the functions of one of scripts/."""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    return subprocess.run(
        [shutil.which("bash"), "-c", f"source '{clone}/scripts/{script}'; {command}"],
        capture_output=True, text=True, timeout=60,
        env={**environment, **({"PATH": str(path)} if path else {}), **variables})


@pytest.fixture
def copy(tmp_path):
    """A clone of what an install reads."""
    clone = tmp_path / "a clone"
    for name in ("gluon_tricks/_native", "scripts", "docker"):
        shutil.copytree(ROOT / name, clone / name)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, clone)
    return clone


@pytest.mark.parametrize("change", [
    "gluon_tricks/_native/module.cpp", "gluon_tricks/_native/transcode.h", "setup.py",
    "pyproject.toml", "gluon_tricks/_native/new.cpp", "docker/requirements-cpu.txt",
    "docker/requirements-build.txt", *UNREAD,
])
def test_an_install_is_done_again_where_what_is_built_has_changed(copy, change):
    def stamp(*locks):
        done = in_shell(f"_stamp /venv {' '.join(locks)}", clone=copy)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    before = stamp(CPU)
    assert before == stamp(CPU) != stamp(CPU, "docker/requirements-test.txt")
    assert before.splitlines()[:2] == ["/venv", str(copy)]
    with open(copy / change, "a") as file:
        file.write("\n")
    assert (stamp(CPU) == before) == (change in UNREAD)


# Python 3.11, as scripts/_venv.sh asks it. Writes down what pip is to do; with LOG.fail it fails.
FAKE = """
case "$*" in
    *sys.executable*) echo "$0" ;;
    *%d.%d*) echo 3.11 ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip "*) echo "${*:3}" >>"$LOG" && [[ ! -e $LOG.fail || $3$4 != -qinstall ]] ;;
    "-c import ensurepip, venv" | "-c import ctypes"* | "-c import pip, sys"*) ;;
    *) exit 3 ;;
esac"""


@pytest.fixture
def make_venv(copy, tmp_path):
    """make_venv(dir): make_venv of the copy with that Python; the process, and what pip was to do.
    """
    (tmp_path / "fake").mkdir()
    executable(tmp_path / "fake" / "python3.11", FAKE)
    log = tmp_path / "log"

    def run(folder):
        log.write_text("")
        done = in_shell(f"make_venv '{folder}' {CPU}", clone=copy, LOG=str(log),
                        path=f"{tmp_path / 'fake'}{os.pathsep}{os.environ['PATH']}")
        return done, log.read_text().splitlines()
    return run


@pytest.fixture
def steps(copy):
    """What pip does in an install: nothing else may decide what comes."""
    return ["-q -q uninstall -y opencv-python opencv-python-headless",
            "-q install --no-deps --require-hashes -r docker/requirements-build.txt "
            f"--requirement={CPU}",
            f"-q install --no-deps --no-build-isolation -e {copy}"]


def test_an_environment_is_made_from_the_lock_once(make_venv, steps, copy, tmp_path):
    venv = tmp_path / "venv"
    done, asked = make_venv(venv)
    assert (done.returncode, done.stderr, asked) == (0, "", steps)
    assert done.stdout == (f"creating a virtual environment in {venv}\n"
                           f"installing the pinned CPU stack into {venv} (about 1 minute)\n")
    done, asked = make_venv(venv)
    assert (done.returncode, done.stdout, done.stderr, asked) == (0, "", "", [])
    # A lock that has changed is installed into what is there.
    (venv / "horovod").touch()
    with open(copy / CPU, "a") as file:
        file.write("\n")
    done, asked = make_venv(venv)
    assert "creating" not in done.stdout and (venv / "horovod").exists()
    assert (done.returncode, asked) == (0, steps)


def test_an_install_that_failed_is_begun_again(make_venv, steps, copy, tmp_path):
    (tmp_path / "log.fail").touch()
    done, asked = make_venv(tmp_path / "venv")
    assert (done.returncode, asked) == (1, steps[:2])
    assert done.stderr == ("the install failed, see pip's message above; run this again to try "
                           "once more\n")
    (tmp_path / "log.fail").unlink()
    (tmp_path / "venv" / "half").touch()
    done, asked = make_venv(tmp_path / "venv")
    assert (done.returncode, done.stderr, asked) == (0, "", steps)
    assert "creating a virtual environment" in done.stdout
    assert not (tmp_path / "venv" / "half").exists()
    # Nor does one that failed over a finished one count as that.
    before = (copy / CPU).read_text()
    (copy / CPU).write_text(f"{before}\n")
    (tmp_path / "log.fail").touch()
    assert make_venv(tmp_path / "venv")[0].returncode == 1
    (tmp_path / "log.fail").unlink()
    (copy / CPU).write_text(before)
    assert make_venv(tmp_path / "venv")[1] == steps


def test_an_environment_that_was_moved_is_made_again(make_venv, steps, tmp_path):
    make_venv(tmp_path / "venv")
    (tmp_path / "venv").rename(tmp_path / "moved")
    done, asked = make_venv(tmp_path / "moved")
    assert "creating a virtual environment" in done.stdout
    assert (done.returncode, asked) == (0, steps)


def test_what_somebody_else_made_is_not_deleted(make_venv, tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "thesis.tex").touch()
    done, asked = make_venv(tmp_path / "venv")
    assert (done.returncode, done.stdout, asked) == (2, "", [])
    assert done.stderr == (f"{tmp_path}/venv exists and is not a Python 3.11 environment; "
                           "move it away\n")
    assert (tmp_path / "venv" / "thesis.tex").exists()


@pytest.mark.parametrize(("pythons", "found", "line"), [
    ({}, "", "gluon_tricks needs Python 3.11, which was not found (no Python at all); on Debian"),
    ({"python3": FAKE.replace("3.11", "3.12"), "python": "exit 1"}, "",
     "gluon_tricks needs Python 3.11, which was not found (python3 is 3.12); on Debian"),
    ({"python3": FAKE.replace('"-c import ensurepip, venv" | ', "")}, "",
     "/bin/python3 lacks the modules venv and ensurepip; on Debian: apt-get install python3.11-"),
    ({"python3.11": "exit 127", "python3": FAKE.replace("3.11", "3.9"), "python": FAKE}, "python",
     ""),
])
def test_which_python_is_found(bare_path, pythons, found, line):
    for name, text in pythons.items():
        executable(bare_path / name, text)
    done = in_shell("find_python", path=bare_path)
    assert done.stdout == (f"{bare_path}/{found}\n" if found else "")
    assert done.returncode == (0 if found else 2)
    assert line in done.stderr and done.stderr.count("\n") == (0 if found else 1)


@pytest.fixture
def bare_path(tmp_path):
    """A folder for PATH with the tools that the scripts use, but no compiler."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("dirname", "cat", "touch"):
        (folder / name).symlink_to(shutil.which(name))
    return folder


def executable(path, text):
    path.write_text(f"#!{shutil.which('bash')}\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(("compiler", "missing"), [
    (None, "g++ libjpeg62-turbo-dev"), ("cat >/dev/null; exit 1", "libjpeg62-turbo-dev"),
    ("cat >/dev/null", None),
])
def test_what_the_native_decoder_lacks_is_one_line(bare_path, compiler, missing):
    if compiler:
        executable(bare_path / "g++", compiler)
    python = f"{bare_path}/python"
    executable(bare_path / "python", f"echo {bare_path}")
    (bare_path / "Python.h").touch()
    done = in_shell(f"require_native {python}", script="test.sh", path=bare_path)
    line = (f"the tests of the native decoder will skip; on Debian: apt-get install {missing}\n"
            if missing else "")
    assert (done.returncode, done.stdout, done.stderr) == (2 if missing else 0, "", line)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_as_root_in_ci_what_the_native_decoder_lacks_is_installed(bare_path):
    executable(bare_path / "python", f"echo {bare_path}")
    executable(bare_path / "apt-get", f'echo "$@" >>{bare_path}/asked')
    done = in_shell(f"require_native {bare_path}/python", script="test.sh", path=bare_path,
                    CI="true")
    assert (done.returncode, done.stderr) == (0, "")
    assert (bare_path / "asked").read_text().splitlines()[-1].endswith(
        " g++ python3.11-dev libjpeg62-turbo-dev")


def quickstart(tmp_path, venv):
    """scripts/quickstart.sh of this clone, told to take that environment as it is."""
    return subprocess.run(
        [shutil.which("bash"), ROOT / "scripts" / "quickstart.sh", "--dir", tmp_path / "demo"],
        capture_output=True, text=True, timeout=60,
        env={**os.environ, "GLUON_TRICKS_VENV": str(venv), "PYTHONPATH": ""})


def environment(tmp_path, package):
    """One whose Python says that the package is there, and what else it is asked to do."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    executable(tmp_path / "venv" / "bin" / "python",
               f'[[ $1 == -c ]] && echo "{package}" && exit; echo "asked: $*"; exit 3')
    return tmp_path / "venv"


def test_quickstart_takes_the_environment_that_it_is_told(tmp_path):
    done = quickstart(tmp_path, environment(tmp_path, ROOT / "gluon_tricks"))
    assert (done.returncode, done.stderr) == (3, "")
    assert f"asked: {ROOT}/scripts/make_demo.py {tmp_path}/demo/pictures" in done.stdout
    assert "installing" not in done.stdout  # nor a virtual environment made
    assert [path.name for path in (tmp_path / "venv").rglob("*")] == ["bin", "python"]


@pytest.mark.parametrize("package", ["", "/elsewhere/gluon_tricks"])
def test_quickstart_refuses_an_environment_of_another_project(tmp_path, package):
    done = quickstart(tmp_path, environment(tmp_path, package))
    assert (done.returncode, done.stdout) == (2, "")
    line, = done.stderr.splitlines()
    assert f"GLUON_TRICKS_VENV={tmp_path}/venv lacks this project" in line
    assert line.endswith(f"in {ROOT}, pip install --no-deps --require-hashes -r {CPU} && "
                         "pip install --no-deps -e .")
    assert not (tmp_path / "demo").exists()


def test_quickstart_refuses_what_is_no_environment(tmp_path):
    done = quickstart(tmp_path, tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f"GLUON_TRICKS_VENV={tmp_path}/nowhere is not a virtual environment: "
                           "it has no bin/python\n")
