"""Makes the documents' tables and plot from what was measured and from the paper's numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from _measurements import Result, Results
from tabulate import tabulate

from gluon_tricks.experiments import paper

Row = dict[str, Any]
_ENGINES = {"mxnet": "ImageRecordIter, GluonCV's settings",
            "mxnet-openmp": "ImageRecordIter, OpenMP's threads", "opencv": "opencv",
            "native": "native", "native-antialias": "native, `--antialias`"}
_LOOPS = {"bare": "forward, backward, update, nothing else", "engine": "the engine",
          "gluoncv": "GluonCV-style loop, the same network",
          "gluoncv-network": "GluonCV-style loop, GluonCV's network"}


def _table(headers: tuple[str, ...], rows: list[tuple]) -> str:
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def _commands(result: Result) -> str:
    """The commands as a code block, without --json, and a line on where and when they were run."""
    lines = "\n".join(part["command"].replace(" --json", "") for part in result.parts)
    return f"```bash\n{lines}\n```\n\n{result.provenance}."


def _percent(share: float) -> str:
    return f"{share:.2%}".replace("%", " %")


def _range(row: Row, name: str, form: str = ".2f") -> str:
    least, most = row[f"least_{name}"], row[f"most_{name}"]
    return f"{row[name]:{form}} ({least:{form}} to {most:{form}})"


# --- The paper ---------------------------------------------------------------------------------


def expected(found: Results) -> str:
    """What the paper reports for the tricks, and how long its GPUs take for as many epochs."""
    rows = []
    for name, accuracy in paper.TABLE_6.items():
        mixup = "mixup" in name and "no mixup" not in name
        epochs = paper.EPOCHS_WITH_MIXUP if mixup else paper.EPOCHS
        rows.append((name, f"{accuracy.top1:.2f} / {accuracy.top5:.2f} %", str(epochs),
                     f"{epochs * paper.MINUTES_AN_EPOCH / 60:.1f} h"))
    return _table(("ResNet-50-D", "the paper's top-1 / top-5", "epochs",
                   "8 V100, FP16, batch 1024"), rows)


def profile(found: Results) -> str:
    """Parameters and multiply-adds next to those of the paper's table 5."""
    rows = []
    for row in found["profile"].rows:
        millions, giga, _ = paper.TABLE_5[row["model"].removeprefix("resnet50_v1")]
        rows.append((f"`{row['model']}`", f"{row['parameters']:,}", f"{millions} M",
                     f"{row['multiply_adds'] / 1e9:.3f} G", f"{giga} G"))
    return (_table(("network", "parameters", "the paper", "multiply-adds", "the paper"), rows)
            + "\n\n" + _commands(found["profile"]))


# --- What was measured -------------------------------------------------------------------------


def quickstart(found: Results) -> str:
    """The quickstart's network on its 500 held-out images."""
    epochs = [row for row in found["quickstart"].rows if "val_top1" in row]
    crops = [row for row in found["quickstart"].rows if "crops" in row]
    rows = [({1: "center crop", 10: "ten crops"}[row["crops"]], _percent(row["top1"]),
             f"{row['loss']:.4f}", _percent(row["ece"]), str(row["count"])) for row in crops]
    return (_table(("", "top-1", "loss", "calibration error", "images"), rows)
            + f"\n\nafter {len(epochs)} epochs.\n\n" + _commands(found["quickstart"]))


def _pipeline(found: Results) -> dict[tuple[str, str, int], Row]:
    """Rows by (engine, set, cores)."""
    return {(row["engine"], Path(part["command"].split("--rec ")[1].split()[0]).stem,
             row["cores"]): row
            for part in found["input_pipeline"].parts for row in part["rows"]}


def input_pipeline(found: Results) -> str:
    """Images/s by engine and set, and the ratio to ImageRecordIter in the same rounds."""
    by, sets = _pipeline(found), "AB"

    def cell(row: Row | None) -> str:
        return "" if row is None else f"{row['images_per_second']:.0f} ({row['ratio']:.2f})"

    rows = []
    for cores, where in ((1, ""), (2, "two cores: ")):
        for engine, name in _ENGINES.items():
            rows.append((where + name, *(cell(by.get((engine, one, cores))) for one in sets)))
        rows.append((f"{where}native, seekable set",
                     *(cell(by.get(("native", f"{one}-seekable", cores))) for one in sets)))
    natives = [by["native", one, 1] for one in sets]
    rows.append(("native, one core: share of decoding, resizing, color", *(
        ", ".join(f"{row['shares'][stage]:.0%}".replace("%", " %")
                  for stage in ("decode", "resize", "color")) for row in natives)))
    rows.append(("native, share of the floor (its decoding alone)",
                 *(f"{row['of_floor']:.0%}".replace("%", " %") for row in natives)))
    rows.append(("native, the interpreter's part, microseconds per image",
                 *(f"{row['interpreter_microseconds']:.0f}" for row in natives)))
    return (_table(("images/s (ratio to ImageRecordIter)", *sets), rows)
            + "\n\n" + _commands(found["input_pipeline"]))


def train_step(found: Results) -> str:
    """Samples/s of the loops, and the ratio to the bare step in the same rounds."""
    columns = []
    for part in found["train_step"].parts:
        columns.append({row["loop"]: f"{row['samples_per_second']:.4g} ({row['ratio']:.2f}; "
                        f"{row['least_ratio']:.2f} to {row['most_ratio']:.2f})"
                        for row in part["rows"]})
    rows = [(name, *(column.get(loop, "") for column in columns)) for loop, name in _LOOPS.items()]
    return (_table(("samples/s (ratio to the bare step; least to most)",
                    "ResNet-50-D, 224, batch 16", "cifar_resnet20_v1, batch 128",
                    "the same on one thread"), rows) + "\n\n" + _commands(found["train_step"]))


def variants(found: Results) -> str:
    """What -B, -C and -D cost compared with ResNet-50."""
    rows = [(f"`{row['model']}`", f"{row['samples_per_second']:.2f}",
             f"{row['ratio']:.2f} ({row['least_ratio']:.2f} to {row['most_ratio']:.2f})")
            for row in found["variants"].rows]
    return (_table(("network", "samples/s", "ratio to the first"), rows)
            + "\n\n" + _commands(found["variants"]))


def scaling(found: Results) -> str:
    """Images/s by number of ranks; "apart" are processes that do not communicate."""
    rows = [(row["run"], f"{row['images_per_second']:.1f}",
             _range(row, "efficiency", ".3f") if "efficiency" in row else "",
             _range(row, "of_ceiling", ".3f") if "of_ceiling" in row else "")
            for row in found["scaling"].rows]
    verdicts = [f"The target of {row['run']}, an efficiency of {row['target']}, is "
                + ("met." if row["met"] else "missed.")
                for row in found["scaling"].rows if "met" in row]
    return "\n\n".join([
        _table(("", "images/s", "efficiency (least to most)", "of the ceiling"), rows), *verdicts,
        _commands(found["scaling"])])


def plan(found: Results) -> str:
    """What is computed for many GPUs; only NVIDIA's column was measured."""
    rows = []
    for row in found["plan"].rows:
        links = ["" if share is None else f"{share:.3f}" for share in row["efficiency"].values()]
        nvidia = "" if row["nvidia"] is None else f"{row['nvidia']:.3f}"
        rows.append((str(row["gpus"]), str(row["batch"]), f"{row['lr']:g}", row["recipe"],
                     f"{row['link_bytes'] / 1e6:.1f}", f"{row['needed_gigabytes']:.2f}", *links,
                     nvidia))
    links = found["plan"].rows[0]["efficiency"]
    return _table(("GPUs", "batch", "lr", "recipe", "MB", "GB/s", *links, "NVIDIA"), rows)


def summary(found: Results) -> str:
    """One row per claim, with the measurement behind it."""
    def by(name: str, **wanted: Any) -> Row:
        return next(row for row in found[name].rows
                    if all(row.get(key) == value for key, value in wanted.items()))

    native, two = (_pipeline(found)["native", "A", cores] for cores in (1, 2))
    opencv = _pipeline(found)["opencv", "A", 1]
    loops = {(number, row["loop"]): row for number, part in enumerate(found["train_step"].parts)
             for row in part["rows"]}
    engine, theirs = loops[1, "engine"], loops[1, "gluoncv-network"]
    ranks, one = by("scaling", run="2 ranks"), by("quickstart", crops=1)
    rows = [
        ("parameters of ResNet-50-D", f"{by('profile', model='resnet50_v1d')['parameters']:,}",
         "profile"),
        ("quickstart: top-1 on 500 held-out images", _percent(one["top1"]), "quickstart"),
        ("native input pipeline vs. ImageRecordIter, one core; two",
         f"{native['ratio']:.2f} times; {two['ratio']:.2f} times", "input_pipeline"),
        ("OpenCV input pipeline vs. ImageRecordIter, one core", f"{opencv['ratio']:.2f} times",
         "input_pipeline"),
        ("engine vs. bare updates, ResNet-50-D on the CPU",
         f"{loops[0, 'engine']['ratio']:.2f} times", "train_step"),
        ("engine vs. GluonCV's loop and network, cifar_resnet20_v1",
         f"{engine['ratio'] / theirs['ratio']:.2f} times", "train_step"),
        ("two ranks on two cores: efficiency; share of what the machine allows",
         f"{ranks['efficiency']:.3f}; {ranks['of_ceiling']:.3f}", "scaling")]
    return _table(("what", "measured", "by `scripts/benchmarks/measured.py --measure`"), rows)


def journeys(found: Results) -> str:
    """How many files one follows; of a version, not of a machine."""
    result = found["journeys"]
    rows = [(row["journey"], str(row["files"]), f"{row['lines']:,}", str(row["functions"]))
            for row in result.rows]
    return (_table(("journey", "files", "lines of these files", "functions"), rows)
            + "\n\n" + _commands(result))


TABLES: dict[str, Callable[[Results], str]] = {
    "expected": expected, "profile": profile, "quickstart": quickstart, "summary": summary,
    "input_pipeline": input_pipeline, "train_step": train_step, "variants": variants,
    "scaling": scaling, "plan": plan, "journeys": journeys}


def draw(found: Results, image: Path) -> None:
    """Draw the plot's three panels: the quickstart's accuracy, input pipeline, training step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    learning, reading, training = figure.subplots(1, 3)
    epochs = [row for row in found["quickstart"].rows if "val_top1" in row]
    learning.plot([row["epoch"] + 1 for row in epochs], [100 * row["val_top1"] for row in epochs],
                  "o-", color="C0", markersize=4)
    learning.set_title("quickstart: ResNet-18-D on demo images", fontsize=10)
    learning.set(xlabel="epoch", ylabel="validation top-1, %", ylim=(0, 102))
    learning.grid(alpha=0.3)
    _bars(reading, [(f"{name}, {cores} core{'s' * (cores > 1)}", row["images_per_second"])
                    for (engine, name) in (("mxnet", "ImageRecordIter"), ("opencv", "opencv"),
                                           ("native", "native"))
                    for cores in (1, 2) for row in [_pipeline(found)[engine, "A", cores]]],
          "input pipeline on ImageNet images", "images/s")
    names = {"gluoncv-network": "GluonCV's loop\nand network", "gluoncv": "GluonCV's loop",
             "engine": "the engine", "bare": "bare updates"}
    speeds = {row["loop"]: row["samples_per_second"]
              for row in found["train_step"].parts[1]["rows"]}
    _bars(training, [(name, speeds[loop]) for loop, name in names.items()],
          "training cifar_resnet20_v1, CPU", "samples/s")
    figure.savefig(image, dpi=100, metadata={"Software": None})


def _bars(axes: Any, bars: list[tuple[str, float]], title: str, unit: str) -> None:
    drawn = axes.barh([name for name, _ in bars], [value for _, value in bars], color="C0")
    axes.bar_label(drawn, [f"{value:.0f}" for _, value in bars], padding=3)
    axes.set_title(title, fontsize=10)
    axes.set(xlabel=unit, xlim=(0, 1.2 * max(value for _, value in bars)))
    axes.invert_yaxis()
