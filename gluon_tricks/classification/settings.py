"""The settings of a run that trains a classifier: its own, and those of every run."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gluon_tricks.config import presets
from gluon_tricks.config.fields import DATA, MODEL, RUN, TRICKS, flag, numbers, switch, text
from gluon_tricks.config.settings import RunSettings, first

DALI = ("dali-cpu", "dali-gpu")  # GluonCV's names, refused with a message that says what to use


@dataclass(frozen=True)
class Settings(RunSettings):
    """All settings of a run. None means "from the data" or "depends on other settings"."""

    model: str = flag("", "network: resnet{18,34,50,101,152}_v1{,b,c,d}, or a name from "
                      "GluonCV's model zoo", group=MODEL, required=True,
                      on_resume="fixed", of_network="name", in_table=True)
    num_classes: int | None = flag(None, "number of classes; default: that of the training set",
                                   group=MODEL, type=int,
                                   least=2, on_resume="fixed", of_network="name", in_table=True,
                                   also_in=("evaluate", "export", "train_step"))
    mode: str = flag("hybrid", "how Gluon runs the network (symbolic: the same as hybrid)",
                     group=MODEL, choices=("hybrid", "imperative", "symbolic"))
    dropout: float = flag(0.0, "share of features to drop before our ResNets' classifier, and in "
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
    use_avd: bool = switch("average pooling for strides, in networks that have it", group=MODEL,
                           also=("--use_avd",),
                           of_network="structure", also_in=("evaluate", "export"))
    dropblock_prob: float = flag(0.0, "DropBlock's probability, in GluonCV's ResNeSt; "
                                 "0: the network's own", group=MODEL,
                                 type=float, least=0, below=1, of_network="layer")
    use_pretrained: str | None = flag(
        None, "start from GluonCV's parameters for --model, or from those of another SOURCE",
        group=MODEL, nargs="?", const=presets.ZOO, metavar="SOURCE", per_host=True)
    init_params: str | None = flag(
        None, "start from these parameters: a .params file, a run's folder, or a name from "
        "GluonCV's model zoo", group=MODEL, metavar="SOURCE", per_host=True)
    new_classifier: bool = switch("those parameters are for other classes: load all but the "
                                  "classifier's", group=MODEL, on_resume="free")
    freeze_until: str | None = flag(
        None, "freeze all that comes before this part of the network, such as layer3", group=MODEL,
        metavar="PART", on_resume="fixed")
    lr_mult_head: float | None = flag(None, "multiplies the classifier's learning rate; "
                                      "default: 1", group=MODEL, type=float, least=0)
    data_dir: str = flag("~/.mxnet/datasets/imagenet", "folder with train/ and val/, which have "
                         "one folder of images per class; else with rec/{train,val}.{rec,idx}",
                         group=DATA, per_host=True, also_in=("evaluate", "preview"))
    rec_train: str | None = flag(None, "training .rec", group=DATA,
                                 per_host=True, in_table=True, also_in=("preview",))
    rec_train_idx: str | None = flag(None, "its .idx; default: next to it", group=DATA,
                                     per_host=True, also_in=("preview",))
    rec_val: str | None = flag(None, "validation .rec", group=DATA,
                               per_host=True, in_table=True, also_in=("evaluate",))
    rec_val_idx: str | None = flag(None, "its .idx; default: next to it", group=DATA,
                                   per_host=True, also_in=("evaluate",))
    use_rec: bool = switch("read RecordIO, even if --data-dir has folders of images; so do "
                           "--rec-train and --rec-val, for their part", group=DATA,
                           on_resume="free", also_in=("evaluate", "preview"))
    data_backend: str = flag(
        "auto", "what decodes and augments: native (C++, if it was built), opencv, or mxnet "
        "(ImageRecordIter, with GluonCV's color jitter and its own random numbers); auto: "
        "native, else opencv", group=DATA,
        choices=("auto", "native", "opencv", "mxnet", *DALI),
        in_table=True, also_in=("evaluate", "preview"))
    antialias: bool = switch("widen the filter when a crop is shrunk (ImageRecordIter and the "
                             "paper's pipelines do not)", group=DATA,
                             of_network="input", also_in=("evaluate", "export", "preview"))
    dct_shortcut: str | None = flag(
        None, "when to decode crops of twice the input size or more at 1/2, 1/4 or 1/8, which is "
        "faster: only in training, always or never; default: train with the native backend",
        group=DATA, choices=("train", "always", "never"),
        in_table=True, also_in=("evaluate", "preview"))
    input_size: int = flag(224, "side of the images that the network sees", group=DATA, type=int,
                           least=1, of_network="input", also_in=("export", "preview", "train_step"))
    crop_ratio: float = flag(0.875, "validation: input size / resized shorter edge", group=DATA,
                             type=float, of_network="input", also_in=("export", "preview"))
    crop: str = flag("resized", "training crop: random resized (the paper's), or pad by 4 and "
                     "crop without resizing (CIFAR's; validation does not resize then, either)",
                     group=DATA, choices=("resized", "pad"),
                     of_network="input", also_in=("evaluate", "export", "preview"))
    crop_area: tuple[float, ...] | None = flag(
        None, "range of a random resized crop's share of the image; default: 0.08,1",
        group=DATA, type=numbers(float), also_in=("preview",))
    color_jitter: float | None = flag(
        None, "hue, saturation, value are scaled by 1 - X to 1 + X; default: 0.4, with --crop pad "
        "0", group=DATA, type=float, least=0, most=1, also_in=("preview",))
    pca_noise: float | None = flag(
        None, "standard deviation of the PCA noise's coefficients; default: 0.1, with --crop pad 0",
        group=DATA, type=float, least=0, also_in=("preview",))
    rgb_mean: tuple[float, ...] = flag((123.68, 116.779, 103.939), "subtracted from R, G, B",
                                       group=DATA, type=numbers(float),
                                       of_network="input", also_in=("evaluate", "export"))
    rgb_std: tuple[float, ...] = flag((58.393, 57.12, 57.375), "divides R, G, B",
                                      group=DATA, type=numbers(float),
                                      of_network="input", also_in=("evaluate", "export"))
    shuffle_labels: bool = switch("sanity check: shuffle the training labels, so that validation "
                                  "must be at chance", group=DATA)
    label_smoothing: float = flag(0.0, "label smoothing: eps; 0.1 if no number is given",
                                  group=TRICKS, type=float, nargs="?", const=0.1, least=0, below=1)
    auto_augment: str | None = flag(
        None, "AutoAugment: the policy, named after the data set it was found on; default: off",
        group=TRICKS, choices=("imagenet", "cifar10", "svhn"),
        also_in=("preview",), not_in=("train_horovod",))
    mixup: bool = switch("train on mixtures of pairs of samples", group=TRICKS)
    mixup_alpha: float | None = flag(None, "shares are drawn from Beta(alpha, alpha); default: "
                                     "0.2", group=TRICKS, type=float, least=0.001)
    mixup_off_epoch: int = flag(0, "number of final epochs without mixup", group=TRICKS, type=int,
                                least=0)
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
    resume_params: str | None = flag(None, "resume a run of GluonCV's: its .params file",
                                     group=RUN, type=text, per_host=True)
    resume_states: str | None = flag(None, "that run's .states file; default: momentum starts at 0",
                                     group=RUN, type=text, per_host=True)
    resume_epoch: int = flag(0, "how many of that run's epochs are done", group=RUN, type=int,
                             least=0, on_resume="free")

    def rec_paths(self, part: str) -> tuple[Path, Path]:
        """.rec and .idx of `part`, which is "train" or "val"."""
        given, given_idx = getattr(self, f"rec_{part}"), getattr(self, f"rec_{part}_idx")
        rec = Path(given or f"{self.data_dir}/rec/{part}.rec").expanduser()
        return rec, Path(given_idx).expanduser() if given_idx else rec.with_suffix(".idx")

    def image_folder(self, part: str) -> Path | None:
        """The folder that may hold the images of `part`; None if flags ask for RecordIO."""
        given = getattr(self, f"rec_{part}") or getattr(self, f"rec_{part}_idx")
        return None if self.use_rec or given else Path(self.data_dir).expanduser() / part

    @property
    def run_name(self) -> str:
        return self.model

    def params_name(self, epoch: int) -> str:
        """As GluonCV names it."""
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
