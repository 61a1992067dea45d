"""scripts/benchmarks/measured.py: what is measured, kept, and written into the documents."""

import importlib
import json
import sys

import pytest
from documents import ROOT

from gluon_tricks.errors import InputError, RunFault


@pytest.fixture
def modules(monkeypatch, tmp_path):
    """measured, _measurements and _tables on a clone of a README and two measurements."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "benchmarks"))
    found = [importlib.import_module(name) for name in ("measured", "_measurements", "_tables")]
    measured, measurements, _ = found
    (tmp_path / "docs" / "measured").mkdir(parents=True)
    monkeypatch.setattr(measurements, "ROOT", tmp_path)
    monkeypatch.setattr(measurements, "RESULTS", tmp_path / "docs" / "measured")
    monkeypatch.setattr(measured, "PLOT", tmp_path / "docs" / "pictures" / "measured.png")
    yield found
    for name in ("measured", "_measurements", "_tables"):
        sys.modules.pop(name, None)


def kept(folder, name, *parts):
    machine = {"processor": "Abacus", "cores": 1, "python": "3.11", "mxnet": "1.9.1"}
    (folder / "docs" / "measured" / f"{name}.json").write_text(json.dumps(
        {"date": "2001-02-03", "machine": machine,
         "parts": [{"command": command, "rows": rows} for command, rows in parts]}))


def test_what_commands_print_is_kept_and_nothing_of_one_that_fails(modules, tmp_path, monkeypatch):
    _, measurements, _ = modules
    monkeypatch.setattr(measurements, "MEASUREMENTS", {
        "a": measurements.Measurement(("echo '{\"x\": 1, \"layers\": []}'; echo words",
                                       "cat made; python -c 'print(\"{}\")'"),
                                      before=("echo '{\"y\": 2}' >made",)),
        "b": measurements.Measurement(("echo '{}'; exit 3",))})
    measurements.measure("a")
    result = measurements.results()["a"]
    assert [part["rows"] for part in result.parts] == [[{"x": 1}], [{"y": 2}, {}]]
    assert result.parts[0]["command"].startswith("echo") and len(result.date) == 10
    assert result.machine["cores"] >= 1 and result.machine["mxnet"] == "1.9.1"
    with pytest.raises(RunFault, match="ended with exit code 3"):
        measurements.measure("b")
    assert {path.name for path in (tmp_path / "docs" / "measured").iterdir()} == {"a.json"}
    with pytest.raises(InputError, match="choose from a, b"):
        measurements.measure("c")


def test_the_real_pictures_must_be_named(modules, monkeypatch):
    monkeypatch.delenv("GLUON_TRICKS_TEST_DATA", raising=False)
    with pytest.raises(InputError, match=r"imagenet-samples-300\.zip: set GLUON_TRICKS"):
        modules[1].measure("input_pipeline")


def test_a_table_is_written_between_its_marks(modules, tmp_path):
    measured, _, _ = modules
    kept(tmp_path, "variants", ("python x.py --json", [
        {"model": "resnet50_v1", "samples_per_second": 5.149, "ratio": 1.0, "least_ratio": 1.0,
         "most_ratio": 1.0},
        {"model": "resnet50_v1d", "samples_per_second": 4.4, "ratio": 0.854, "least_ratio": 0.8,
         "most_ratio": 0.9}]))
    text = "before\n<!-- table: variants -->\nold\n<!-- end -->\nafter\n"
    want = """before
<!-- table: variants -->

| network        | samples/s   | ratio to the first   |
|----------------|-------------|----------------------|
| `resnet50_v1`  | 5.15        | 1.00 (1.00 to 1.00)  |
| `resnet50_v1d` | 4.40        | 0.85 (0.80 to 0.90)  |

```bash
python x.py
```

Abacus, 1 core, MXNet 1.9.1, 2001-02-03.

<!-- end -->
after
"""
    assert measured.rendered(text) == want
    assert measured.rendered(want) == want
    with pytest.raises(InputError, match="there is no such table; there are expected, profile"):
        measured.rendered("<!-- table: nothing -->\n<!-- end -->")
    with pytest.raises(InputError, match=r"docs/measured/scaling\.json is missing: measure it"):
        measured.rendered("<!-- table: scaling -->\n<!-- end -->")


def test_what_is_out_of_date_is_said(modules, tmp_path, monkeypatch):
    measured, *_ = modules
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table: expected -->\n<!-- end -->\n")
    monkeypatch.setattr(sys, "argv", ["measured.py", "--check"])
    with pytest.raises(RunFault, match=r"^README\.md: does not match docs/measured"):
        measured.main()
    assert "V100" not in readme.read_text()
    readme.write_text(measured.rendered(readme.read_text()))
    measured.main()
    assert "V100" in readme.read_text()


def test_what_the_paper_reports(modules):
    """Literals of its tables 3 and 6: 120 and 200 epochs of 4.4 minutes."""
    lines = modules[2].expected({}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert cells[0] == ["efficient", "77.16 / 93.52 %", "120", "8.8 h"]
    assert cells[4] == ["+ mixup, no distillation", "79.15 / 94.58 %", "200", "14.7 h"]
    assert cells[3][2] == "120" and cells[5] == ["+ distillation and mixup", "79.29 / 94.63 %",
                                                 "200", "14.7 h"]


def test_flags_that_do_not_go_together(refused):
    assert "give one" in refused("benchmarks/measured", "--check", "--measure", "profile")
