"""Scripts as modules, so that tests can call their functions, or run them in the test's process."""

import importlib.util
import os
import runpy
import signal
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

SCRIPTS = Path(__file__).parents[2] / "scripts"


def load_script(name: str) -> ModuleType:
    """scripts/NAME.py, imported and not run."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_script(name: str, *arguments) -> int:
    """Run scripts/NAME.py in this process, as `python scripts/NAME.py ARGUMENTS...` would; its exit
    code. Environment, path and SIGTERM's handler are restored."""
    file = SCRIPTS / f"{name}.py"
    argv = [str(file), *map(str, arguments)]
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with mock.patch.dict(os.environ), mock.patch.object(sys, "argv", argv), \
                mock.patch.object(sys, "path", [str(file.parent), *sys.path]):
            runpy.run_path(str(file), run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    finally:
        signal.signal(signal.SIGTERM, handler)
    raise AssertionError(f"{name} did not end by cli.run")
