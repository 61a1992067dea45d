"""The settings of a run that trains a classifier: its own, and those of every run."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gluon_tricks.config import presets
from gluon_tricks.config.fields import DATA, MODEL, RUN, TRICKS, flag, numbers, switch, text
from gluon_tricks.config.settings import RunSettings, first

DALI = ("dali-cpu", "dali-gpu")  # GluonCV's names, to be told what to take instead


@dataclass(frozen=True)
class Settings(RunSettings):
    """All settings of a run. None stands for "from the data" or "depends on others"."""

    model: str = flag("", "network: resnet{18,34,50,101,152}_v1{,b,c,d}, or a name of GluonCV's "
                      "model zoo", group=MODEL, required=True,
                      on_resume="fixed", of_network="name", in_table=True)
    num_classes: int | None = flag(None, "classes; default: what the training set says",
                                   group=MODEL, type=int,
                                   least=2, on_resume="fixed", of_network="name", in_table=True,
                                   also_in=("evaluate", "export", "train_step"))
    mode: str = flag("hybrid", "how Gluon runs the network (symbolic: the same as hybrid)",
                     group=MODEL, choices=("hybrid", "imperative", "symbolic"))
    dropout: float = flag(0.0, "share of features dropped before our ResNets' classifier, and in "
                          "the blocks of GluonCV's wide ResNets", group=MODEL, type=float,
                          least=0, below=1, of_network="layer")
    use_se: bool = switch("squeeze and excitation, in GluonCV's ResNeXt", group=MODEL,
                          also=("--use_se",),
                          of_network="structure", also_in=("evaluate", "export"))
    batch_norm: bool = switch("BatchNorm, in GluonCV's VGG", group=MODEL,
                              of_network="structure", also_in=("evaluate", "export"))
    use_gn: bool = switch("GroupNorm in place of BatchNorm", group=MODEL,
                          of_network="structure", also_in=("evaluate", "export"))
    use_sk: bool = switch("selective kernels, in networks that have them", group=MODEL,
                          also=("--use_sk",),
                          of_network="structure", also_in=("evaluate", "export"))
    use_avd: bool = switch("average pools for strides, in networks that have them", group=MODEL,
                           also=("--use_avd",),
                           of_network="structure", also_in=("evaluate", "export"))
    dropblock_prob: float = flag(0.0, "DropBlock's probability, in GluonCV's ResNeSt; "
                                 "0: the network's own", group=MODEL,
                                 type=float, least=0, below=1, of_network="layer")
    use_pretrained: str | None = flag(
        None, "start from GluonCV's parameters of --model, or from those of another SOURCE",
        group=MODEL, nargs="?", const=presets.ZOO, metavar="SOURCE", per_host=True)
    init_params: str | None = flag(
        None, "start from these parameters: a .params file, a run's folder, or a name of GluonCV's "
        "model zoo", group=MODEL, metavar="SOURCE", per_host=True)
    new_classifier: bool = switch("those parameters are of other classes: take all but the "
                                  "classifier's", group=MODEL, on_resume="free")
    freeze_until: str | None = flag(
        None, "leave what comes before this part of the network, layer3 say, as it is", group=MODEL,
        metavar="PART", on_resume="fixed")
    lr_mult_head: float | None = flag(None, "the classifier's learning rate, times the others'; "
                                      "default: 1", group=MODEL, type=float, least=0)
    data_dir: str = flag("~/.mxnet/datasets/imagenet", "where the folders train/ and val/ lie, "
                         "with one folder of pictures a class; else rec/{train,val}.{rec,idx}",
                         group=DATA, per_host=True, also_in=("evaluate", "preview"))
    rec_train: str | None = flag(None, "training .rec", group=DATA,
                                 per_host=True, in_table=True, also_in=("preview",))
    rec_train_idx: str | None = flag(None, "its .idx; default: beside it", group=DATA,
                                     per_host=True, also_in=("preview",))
    rec_val: str | None = flag(None, "validation .rec", group=DATA,
                               per_host=True, in_table=True, also_in=("evaluate",))
    rec_val_idx: str | None = flag(None, "its .idx; default: beside it", group=DATA,
                                   per_host=True, also_in=("evaluate",))
    use_rec: bool = switch("read RecordIO, even where --data-dir has folders of pictures; so do "
                           "--rec-train and --rec-val, for their part", group=DATA,
                           on_resume="free", also_in=("evaluate", "preview"))
    data_backend: str = flag(
        "auto", "what decodes and augments: native (C++, where it was built), opencv, or mxnet "
        "(ImageRecordIter, with GluonCV's colour jitter and its own random numbers); auto takes "
        "native, else opencv", group=DATA,
        choices=("auto", "native", "opencv", "mxnet", *DALI),
        in_table=True, also_in=("evaluate", "preview"))
    antialias: bool = switch("widen the filter where a crop is shrunk (ImageRecordIter and the "
                             "paper's pipelines do not)", group=DATA,
                             of_network="input", also_in=("evaluate", "export", "preview"))
    dct_shortcut: str | None = flag(
        None, "where crops of twice the input size or more are decoded at a half, a quarter or an "
        "eighth, which is quicker: in training only, always or never; default: train with the "
        "native backend", group=DATA, choices=("train", "always", "never"),
        in_table=True, also_in=("evaluate", "preview"))
    input_size: int = flag(224, "side of the pictures the network sees", group=DATA, type=int,
                           least=1, of_network="input", also_in=("export", "preview", "train_step"))
    crop_ratio: float = flag(0.875, "validation: input size / resized shorter edge", group=DATA,
                             type=float, of_network="input", also_in=("export", "preview"))
    crop: str = flag("resized", "training crop: random resized (the paper's), or pad by 4 and "
                     "crop without resizing (CIFAR's; nor is validation resized then)",
                     group=DATA, choices=("resized", "pad"),
                     of_network="input", also_in=("evaluate", "export", "preview"))
    crop_area: tuple[float, ...] | None = flag(
        None, "least and greatest share of a picture in a random resized crop; default: 0.08,1",
        group=DATA, type=numbers(float), also_in=("preview",))
    color_jitter: float | None = flag(
        None, "hue, saturation, value are scaled by 1 - X to 1 + X; default: 0.4, 0 with "
        "--crop pad", group=DATA, type=float, least=0, most=1, also_in=("preview",))
    pca_noise: float | None = flag(
        None, "standard deviation of the PCA noise's coefficients; default: 0.1, with --crop pad 0",
        group=DATA, type=float, least=0, also_in=("preview",))
    rgb_mean: tuple[float, ...] = flag((123.68, 116.779, 103.939), "subtracted from R, G, B",
                                       group=DATA, type=numbers(float),
                                       of_network="input", also_in=("evaluate", "export"))
    rgb_std: tuple[float, ...] = flag((58.393, 57.12, 57.375), "R, G, B are divided by",
                                      group=DATA, type=numbers(float),
                                      of_network="input", also_in=("evaluate", "export"))
    shuffle_labels: bool = switch("sanity check: deal the training labels out to other pictures, "
                                  "so that validation must be at chance", group=DATA)
    label_smoothing: float = flag(0.0, "eps; 0.1 where the flag stands alone", group=TRICKS,
                                  type=float, nargs="?", const=0.1, least=0, below=1)
    auto_augment: str | None = flag(
        None, "AutoAugment: the policy, named for the set that it was found on; default: off",
        group=TRICKS, choices=("imagenet", "cifar10", "svhn"),
        also_in=("preview",), not_in=("train_horovod",))
    mixup: bool = switch("train on mixtures of pairs of samples", group=TRICKS)
    mixup_alpha: float | None = flag(None, "shares are drawn from Beta(alpha, alpha); default: "
                                     "0.2", group=TRICKS, type=float, least=0.001)
    mixup_off_epoch: int = flag(0, "last epochs without mixup", group=TRICKS, type=int, least=0)
    teacher: str | None = flag(None, "distillation: the teacher's name, as for --model; GluonCV's "
                               "pretrained parameters are downloaded unless --teacher-params is "
                               "given", group=TRICKS)
    teacher_params: str | None = flag(None, "the teacher's .params file", group=TRICKS,
                                      per_host=True)
    temperature: float | None = flag(None, "distillation: T; default: 20", group=TRICKS,
                                     type=float, above=0)
    hard_weight: float | None = flag(
        None, "distillation: w of GluonCV's w * hard + (1 - w) * T^2 * soft; default: the paper's "
        "hard + T^2 * soft", group=TRICKS, type=float, least=0, most=1)
    last_gamma: bool = switch("zero gamma: the last BatchNorm of each block starts at 0",
                              group=TRICKS, of_network="start")
    resume_params: str | None = flag(None, "go on with a run of GluonCV's: its .params file",
                                     group=RUN, type=text, per_host=True)
    resume_states: str | None = flag(None, "and its .states file; default: momentum starts anew",
                                     group=RUN, type=text, per_host=True)
    resume_epoch: int = flag(0, "and how many of its epochs are done", group=RUN, type=int,
                             least=0, on_resume="free")

    def rec_paths(self, part: str) -> tuple[Path, Path]:
        """.rec and .idx of `part`, which is "train" or "val"."""
        given, given_idx = getattr(self, f"rec_{part}"), getattr(self, f"rec_{part}_idx")
        rec = Path(given or f"{self.data_dir}/rec/{part}.rec").expanduser()
        return rec, Path(given_idx).expanduser() if given_idx else rec.with_suffix(".idx")

    def picture_folder(self, part: str) -> Path | None:
        """Where the pictures of `part` may lie in folders; None where flags ask for RecordIO."""
        given = getattr(self, f"rec_{part}") or getattr(self, f"rec_{part}_idx")
        return None if self.use_rec or given else Path(self.data_dir).expanduser() / part

    @property
    def run_name(self) -> str:
        return self.model

    def params_name(self, epoch: int) -> str:
        """GluonCV's name."""
        data = "cifar10" if self.model.lower().startswith("cifar_") else "imagenet"
        return f"{data}-{self.model}-{epoch}.params"

    def filled(self) -> Self:
        resized = self.crop == "resized"
        return dataclasses.replace(
            super().filled(),
            mixup_alpha=first(self.mixup_alpha, 0.2) if self.mixup else None,
            temperature=first(self.temperature, 20.0) if self.teacher else None,
            hard_weight=first(self.hard_weight, 0.5 if self.gluoncv_compat else None)
            if self.teacher else None,
            crop_area=(self.crop_area or (0.08, 1.0)) if resized else None,
            color_jitter=first(self.color_jitter, 0.4 if resized else 0.0),
            pca_noise=first(self.pca_noise, 0.1 if resized else 0.0))
